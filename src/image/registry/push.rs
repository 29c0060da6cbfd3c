// SPDX-License-Identifier: Apache-2.0
//! The other way (the distribution specification's "Push"): what a manifest names first, the manifest last, so that a
//! registry never has one of which something is missing.
//!
//! ```text
//!   each blob: HEAD ─► there already
//!                 └──► POST uploads ─► PUT all of it where the registry says
//!   PUT manifest
//! ```

use super::http::{self, Asked, Response, Trouble, What};
use super::{Repository, Settings};
use crate::digest::Digest;
use crate::error::{ImageError, Kind, Result};
use crate::reference::Reference;
use std::fs::File;

/// A repository that is written to.
#[derive(Debug)]
pub(crate) struct Upload {
    repository: Repository,
}

impl Upload {
    pub(crate) fn open(reference: &Reference, settings: &Settings) -> Result<Self> {
        Ok(Self { repository: Repository::open(reference, "pull,push", settings)? })
    }

    /// Whether it has the blob.
    pub(crate) fn has(&self, digest: &Digest) -> Result<bool> {
        let url = format!("{}/blobs/{digest}", self.repository.base);
        Ok(self.tell(&url, What::Head)?.status() == 200)
    }

    pub(crate) fn blob(&self, digest: &Digest, file: &File) -> Result<()> {
        let begin = format!("{}/blobs/uploads/", self.repository.base);
        let begun = self.tell(&begin, What::Post)?;
        let refused = |status| Trouble::Status(status).explain("the registry does not take a layer");
        let location = match (begun.status(), begun.header("location")) {
            (202, location) => http::target(&begin, location.as_deref()),
            (status, _) => return Err(refused(status)),
        };
        let location = location.map_err(|why| ImageError::new(Kind::Network, why))?;
        let mark = if location.contains('?') { '&' } else { '?' };
        let ended = self.tell(&format!("{location}{mark}digest={digest}"), What::PutFile(file))?;
        if ended.status() == 201 { Ok(()) } else { Err(refused(ended.status())) }
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
