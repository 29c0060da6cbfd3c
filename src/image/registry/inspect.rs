// SPDX-License-Identifier: Apache-2.0
//! What a registry has under a name, without pulling it.

use super::{Remote, Settings};
use crate::config::Platform;
use crate::content::read_checked;
use crate::digest::Digest;
use crate::error::{ImageError, Kind, Result};
use crate::limits::DOCUMENT_MAX;
use crate::manifest::{self, Descriptor, Parsed};
use crate::reference::Reference;
use crate::strict;
use serde::de::IgnoredAny;

/// Most manifests that are looked at of one index.
const MEMBERS_MAX: usize = 200;
/// Most bytes of them together.
const BYTES_MAX: u64 = 4 * DOCUMENT_MAX;

/// A manifest, or an index of them, of a registry: JSON, and otherwise somebody else's word.
#[derive(Debug, Clone)]
pub struct RemoteManifest {
    pub media_type: String,
    pub digest: Digest,
    /// As the index says, if it is of one.
    pub platform: Option<Platform>,
    pub bytes: Vec<u8>,
}

/// What a reference leads to.
#[derive(Debug, Clone)]
pub struct Inspected {
    pub root: RemoteManifest,
    /// The manifests of an index, if they were asked for.
    pub members: Option<Vec<RemoteManifest>>,
}

/// Asks a registry what the reference leads to; by `members`, for the manifests of an index as well.
pub fn inspect(reference: &Reference, settings: &Settings, members: bool) -> Result<Inspected> {
    let look = || {
        let remote = Remote::find(reference, &Platform::host(), settings)?;
        let root = fetch(&remote, remote.root())?;
        let members = match manifest::parse(&root.media_type, &root.bytes) {
            Ok(Parsed::Index(manifests)) if members => Some(fetch_all(&remote, &manifests)?),
            _ => None,
        };
        Ok(Inspected { root, members })
    };
    look().map_err(|e: ImageError| e.within(format_args!("cannot inspect {reference}")))
}

fn fetch_all(remote: &Remote, manifests: &[Descriptor]) -> Result<Vec<RemoteManifest>> {
    let usable = |d: &&Descriptor| manifest::is_index(&d.media_type) || manifest::is_manifest(&d.media_type);
    let usable: Vec<_> = manifests.iter().filter(usable).collect();
    if usable.len() > MEMBERS_MAX {
        let what = format!("the index has more than the {MEMBERS_MAX} manifests that are looked at");
        return Err(ImageError::new(Kind::TooLarge, what));
    }
    if usable.iter().fold(0, |sum: u64, member| sum.saturating_add(member.size)) > BYTES_MAX {
        let what = format!("the index's manifests have more than the {BYTES_MAX} bytes that are looked at");
        return Err(ImageError::new(Kind::TooLarge, what));
    }
    usable.into_iter().map(|member| fetch(remote, member)).collect()
}

fn fetch(remote: &Remote, descriptor: &Descriptor) -> Result<RemoteManifest> {
    let Descriptor { media_type, digest, size, platform, .. } = descriptor;
    if *size > DOCUMENT_MAX {
        let more = format!("{digest} has {size} bytes, more than the {DOCUMENT_MAX} allowed");
        return Err(ImageError::new(Kind::TooLarge, more));
    }
    let bytes = read_checked(remote.open(descriptor)?, digest, *size)?;
    strict::parse::<IgnoredAny>("the manifest", &bytes)?;
    Ok(RemoteManifest { media_type: media_type.clone(), digest: *digest, platform: platform.clone(), bytes })
}
