// SPDX-License-Identifier: Apache-2.0
//! Images from a registry (the OCI distribution specification, version 1.1): one repository of one registry.
//!
//! ```text
//!   reference ─► endpoint: scheme, host, certificates ─► ping /v2/ ─► auth: nothing, basic, a token
//!                                                            │
//!   manifests/TAG or manifests/DIGEST ─► document ◄── http: redirects, deadlines, tries ──► blobs/DIGEST ─► download
//! ```
//! Whatever a registry says is an allegation: documents and layers are held against their digests by whoever asked for
//! them, and its redirects never carry what was meant for it to anybody else.

mod auth;
mod credentials;
mod download;
mod endpoint;
mod http;
mod inspect;
mod login;
mod push;
mod settings;
mod tags;

use crate::config::Platform;
use crate::digest::Digest;
use crate::error::{ImageError, Kind, Result};
use crate::limits::DOCUMENT_MAX;
use crate::manifest::{self, DOCKER_LIST, DOCKER_MANIFEST, Descriptor, INDEX, MANIFEST};
use crate::reference::Reference;
use auth::{Auth, Scope};
use download::Download;
use endpoint::Endpoint;
use http::{Asked, Http, TRIES, pause};
use std::collections::BTreeMap;
use std::io::{self, Cursor, ErrorKind, Read};
use std::thread;

#[cfg(feature = "test-utils")]
pub use auth::token_challenge;
pub use credentials::Kept;
pub use inspect::{Inspected, RemoteManifest, inspect};
pub use login::{log_in, log_out};
pub(crate) use push::Upload;
pub use settings::Settings;
pub use tags::tags;

/// The registry that others may be mirrors of.
const MIRRORED: &str = "docker.io";
/// What a manifest may be.
const ACCEPT: [&str; 4] = [INDEX, MANIFEST, DOCKER_LIST, DOCKER_MANIFEST];

/// A repository of a registry that answers.
#[derive(Debug)]
struct Repository {
    http: Http,
    auth: Auth,
    /// `https://host/v2/repository`
    base: String,
}

impl Repository {
    /// The first of the scopes is what it is; the others are what is to be done with others on the way.
    fn open(domain: &str, scopes: Vec<Scope>, settings: &Settings) -> Result<Self> {
        Self::at(&Endpoint::of(domain, settings)?, domain, scopes, settings)
    }

    fn at(endpoint: &Endpoint, domain: &str, scopes: Vec<Scope>, settings: &Settings) -> Result<Self> {
        let (origin, challenge, http) = endpoint.ping()?;
        let path = scopes.first().map(|scope| scope.repository.clone()).unwrap_or_default();
        let auth = Auth::new(challenge, (domain, scopes), &origin, settings);
        Ok(Self { http, auth, base: format!("{origin}/v2/{path}") })
    }

    /// A manifest, or an index of them, and what it says it is. One that comes in part or changed is asked for again.
    fn manifest(&self, which: &str) -> Result<(String, Vec<u8>)> {
        let mut tries = 0;
        loop {
            tries += 1;
            match self.manifest_once(which) {
                Err((error, true)) if tries == TRIES => return Err(error),
                Err((_, true)) => thread::sleep(pause(tries)),
                result => return result.map_err(|(error, _)| error),
            }
        }
    }

    /// A manifest; or an error, and whether the next try may go better.
    fn manifest_once(&self, which: &str) -> Result<(String, Vec<u8>), (ImageError, bool)> {
        let asked = Asked { accept: &ACCEPT, ..Asked::default() };
        let url = format!("{}/manifests/{which}", self.base);
        let response = self.http.get(&url, &self.auth, asked).map_err(|e| (e, false))?;
        let told = response.header("docker-content-digest").and_then(|told| told.parse::<Digest>().ok());
        let media_type = response.header("content-type").unwrap_or_default();
        let media_type = media_type.split(';').next().unwrap_or_default().trim().to_owned();
        let whole = |e: io::Error| {
            // Who is slow had his time.
            let again = e.kind() != ErrorKind::TimedOut;
            (ImageError::new(Kind::Network, "the manifest did not come whole").because(e), again)
        };
        let bytes = response.document(DOCUMENT_MAX).map_err(whole)?;
        if bytes.len() as u64 > DOCUMENT_MAX {
            let more = format!("the manifest has more than the {DOCUMENT_MAX} bytes allowed");
            return Err((ImageError::new(Kind::TooLarge, more), false));
        }
        // Who asks by a tag has nothing else to hold against it.
        let found = Digest::of(&bytes);
        if let Some(told) = told.filter(|told| *told != found) {
            let other = format!("the registry says that the manifest is {told}, and it is {found}");
            return Err((ImageError::new(Kind::Corrupt, other), true));
        }
        Ok((media_type, bytes))
    }
}

/// An image of a repository that was asked for.
#[derive(Debug)]
pub(crate) struct Remote {
    reference: Reference,
    platform: Platform,
    repository: Repository,
    /// What the reference leads to.
    root: Descriptor,
    bytes: Vec<u8>,
}

impl Remote {
    /// Asks the registry what the reference leads to; if it has mirrors, them first.
    pub(crate) fn find(reference: &Reference, platform: &Platform, settings: &Settings) -> Result<Self> {
        let scopes = || vec![Scope { repository: reference.path().to_owned(), actions: "pull" }];
        let asked = (reference, platform);
        if reference.domain() == MIRRORED {
            for mirror in &settings.mirrors {
                let endpoint = Endpoint::mirror(mirror, settings)?;
                let repository = Repository::at(&endpoint, endpoint.host(), scopes(), settings);
                // A mirror may lack anything, and be gone at any time.
                if let Ok(found) = repository.and_then(|repository| Self::at(repository, asked)) {
                    return Ok(found);
                }
            }
        }
        Self::at(Repository::open(reference.domain(), scopes(), settings)?, asked)
    }

    fn at(repository: Repository, (reference, platform): (&Reference, &Platform)) -> Result<Self> {
        let which = match (reference.digest(), reference.tag()) {
            (Some(digest), _) => digest.to_string(),
            (None, tag) => tag.unwrap_or("latest").to_owned(),
        };
        let (media_type, bytes) = repository.manifest(&which)?;
        let digest = Digest::of(&bytes);
        if let Some(wanted) = reference.digest().filter(|wanted| *wanted != digest) {
            return Err(ImageError::invalid(format_args!(
                "the registry answers {wanted} with something else, {digest}"
            )));
        }
        let root = manifest::descriptor(&media_type, digest, bytes.len() as u64);
        let (reference, platform) = (reference.clone(), platform.clone());
        Ok(Self { reference, platform, repository, root, bytes })
    }

    pub(crate) fn platform(&self) -> &Platform {
        &self.platform
    }

    pub(crate) fn reference(&self) -> &Reference {
        &self.reference
    }

    pub(crate) fn root(&self) -> &Descriptor {
        &self.root
    }

    /// What a descriptor leads to; the reader checks it.
    pub(crate) fn open(&self, descriptor: &Descriptor) -> Result<Box<dyn Read + '_>> {
        let Descriptor { media_type, digest, size, .. } = descriptor;
        if *digest == self.root.digest {
            return Ok(Box::new(self.bytes.as_slice()));
        }
        let repository = &self.repository;
        if manifest::is_index(media_type) || manifest::is_manifest(media_type) {
            return Ok(Box::new(Cursor::new(repository.manifest(&digest.to_string())?.1)));
        }
        let url = format!("{}/blobs/{digest}", repository.base);
        Ok(Box::new(Download::begin(&repository.http, &repository.auth, url, *size)?))
    }
}

/// What may be put where a listing of images is.
pub(crate) fn listing(remote: &Remote) -> manifest::Listing {
    let name = (manifest::CONTAINERD_NAME.to_owned(), remote.reference().to_string());
    let descriptor = Descriptor { annotations: BTreeMap::from([name]), ..remote.root().clone() };
    manifest::Listing { schema_version: 2, media_type: Some(INDEX.to_owned()), manifests: vec![descriptor] }
}

#[cfg(test)]
mod tests;
