// SPDX-License-Identifier: Apache-2.0
//! The other way (the distribution specification's "Push"): what a manifest names first, the manifest last, so that a
//! registry never has one of which something is missing.
//!
//! ```text
//!   each blob: HEAD ─► there already
//!                └──► POST uploads ─► 201: mounted from a repository beside it that has it
//!                        └─► 202 ─► PUT all of it where the registry says ─► 201
//!                                     └─► 413: too much at once ─► PATCH piece by piece ─► PUT nothing more
//!   PUT manifest
//! ```

use super::Repository;
use super::auth::Scope;
use super::http::{self, Asked, Response, Trouble, What};
use super::settings::Settings;
use crate::digest::Digest;
use crate::error::{During, ImageError, Kind, Result};
use crate::reference::Reference;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::unix::fs::FileExt;

/// A piece, unless the registry wants larger ones; and the largest it may want.
const PIECE: u64 = 8 << 20;
const PIECE_MAX: u64 = 64 << 20;
/// How often a registry may have kept less than it was sent.
const BEHIND: u32 = 5;

/// A repository that is written to.
#[derive(Debug)]
pub(crate) struct Upload {
    repository: Repository,
}

impl Upload {
    /// With the right to mount blobs from these repositories of the same registry, if it grants that.
    pub(crate) fn open(reference: &Reference, from: &BTreeSet<String>, settings: &Settings) -> Result<Self> {
        let own = Scope { repository: reference.path().to_owned(), actions: "pull,push" };
        let others = from.iter().map(|path| Scope { repository: path.clone(), actions: "pull" });
        let scopes = [own].into_iter().chain(others).collect();
        Ok(Self { repository: Repository::open(reference.domain(), scopes, settings)? })
    }

    /// Whether it has the blob.
    pub(crate) fn has(&self, digest: &Digest) -> Result<bool> {
        let url = format!("{}/blobs/{digest}", self.repository.base);
        Ok(self.tell(&url, What::Head)?.status() == 200)
    }

    /// Brings a blob there. False if it was mounted from the repository that is said to have it.
    pub(crate) fn blob(&self, digest: &Digest, file: &File, from: Option<&str>) -> Result<bool> {
        let begin = format!("{}/blobs/uploads/", self.repository.base);
        let mount = from.map(|path| format!("{begin}?mount={digest}&from={}", http::escaped(path)));
        // Who does not mount begins an upload; who does not know the word may refuse it.
        let mounted = mount
            .and_then(|url| self.tell(&url, What::Post).ok())
            .filter(|r| matches!(r.status(), 201 | 202));
        let begun = mounted.map_or_else(|| self.tell(&begin, What::Post), Ok)?;
        let location = match begun.status() {
            201 => return Ok(false),
            202 => location(&begin, &begun)?,
            status => return Err(refused(status)),
        };
        match self.tell(&with_digest(&location, digest), What::PutFile(file)).map(|ended| ended.status()) {
            Ok(201) => Ok(true),
            Ok(413) => self.pieces(digest, file).map(|()| true),
            // It may be there all the same: its answer was slow, or lost, and the upload it was asked for again was over.
            Ok(_) | Err(_) if self.has(digest).unwrap_or(false) => Ok(true),
            Ok(status) => Err(refused(status)),
            Err(error) => Err(error),
        }
    }

    /// For a registry, or what is before it, that takes only so much at once (specification: "Pushing a blob in chunks").
    fn pieces(&self, digest: &Digest, file: &File) -> Result<()> {
        let begin = format!("{}/blobs/uploads/", self.repository.base);
        let begun = self.tell(&begin, What::Post)?;
        if begun.status() != 202 {
            return Err(refused(begun.status()));
        }
        let least =
            begun.header("oci-chunk-min-length").and_then(|text| text.trim().parse().ok()).unwrap_or(0);
        if least > PIECE_MAX {
            let what =
                format!("the registry wants pieces of {least} bytes, more than the {PIECE_MAX} it gets");
            return Err(ImageError::new(Kind::TooLarge, what));
        }
        let (size, mut at, mut url, mut behind) =
            (file.metadata().during("cannot read the layer")?.len(), 0, location(&begin, &begun)?, 0);
        while at < size {
            let len = (size - at).min(PIECE.max(least));
            let mut piece = vec![0; usize::try_from(len).unwrap_or(0)];
            file.read_exact_at(&mut piece, at).during("cannot read the layer")?;
            let range = format!("{at}-{}", at + len - 1);
            let answer = self.tell(&url, What::Patch(&piece, &range))?;
            match answer.status() {
                202 => at += len,
                // A piece may have come before its connection broke.
                416 if behind < BEHIND => {
                    behind += 1;
                    at = self.kept(&url)?.min(size);
                    continue;
                }
                status => return Err(refused(status)),
            }
            url = location(&url, &answer)?;
        }
        match self.tell(&with_digest(&url, digest), What::Put(b"", "application/octet-stream"))?.status() {
            201 => Ok(()),
            status => Err(refused(status)),
        }
    }

    /// How much of an upload the registry has.
    fn kept(&self, url: &str) -> Result<u64> {
        let range = self.tell(url, What::Get)?.header("range");
        let last = range.as_deref().and_then(|range| range.rsplit_once('-')?.1.trim().parse::<u64>().ok());
        Ok(last.map_or(0, |last| last.saturating_add(1)))
    }

    /// Under a tag; the registry says itself what the digest is.
    pub(crate) fn manifest(&self, tag: &str, media_type: &str, bytes: &[u8]) -> Result<()> {
        let url = format!("{}/manifests/{tag}", self.repository.base);
        match self.tell(&url, What::Put(bytes, media_type))?.status() {
            201 => Ok(()),
            status => Err(Trouble::Status(status).explain("the registry does not take the manifest")),
        }
    }

    fn tell(&self, url: &str, what: What<'_>) -> Result<Response> {
        let Repository { http, auth, .. } = &self.repository;
        http.tell(url, auth, Asked { what, ..Asked::default() })
    }
}

fn refused(status: u16) -> ImageError {
    Trouble::Status(status).explain("the registry does not take a layer")
}

fn location(asked: &str, response: &Response) -> Result<String> {
    let location = response.header("location");
    http::target(asked, location.as_deref()).map_err(|why| ImageError::new(Kind::Network, why))
}

fn with_digest(location: &str, digest: &Digest) -> String {
    let mark = if location.contains('?') { '&' } else { '?' };
    format!("{location}{mark}digest={digest}")
}

#[cfg(test)]
mod tests;
