// SPDX-License-Identifier: Apache-2.0
//! What can go wrong with images: a kind to act on, a sentence that says what was being done, and the cause beneath.

use serde::{Deserialize, Serialize};
use std::error::Error as StdError;
use std::fmt::Display;
use std::io::{Error as IoError, ErrorKind};
use std::result::Result as StdResult;
use thiserror::Error;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Kind {
    /// No such image, or no such file.
    NotFound,
    /// The image is not what it should be: malformed, contradictory or hostile.
    Invalid,
    /// Other bytes than their digest says: what came was changed on its way, or what is here has been.
    Corrupt,
    /// The image is well formed and not for us.
    Unsupported,
    /// Something else needs it as it is.
    InUse,
    /// A limit was met.
    TooLarge,
    /// A registry wants to know who asks, or does not want him to have it.
    Denied,
    /// A registry could not be reached, or did not answer as one does.
    Network,
    /// There is no room for it: no space, or no more files.
    NoSpace,
    /// The machine did not do what was asked of it.
    Io,
}

/// Display speaks for this step alone; `source` has the rest.
#[derive(Debug, Error)]
#[error("{context}")]
pub struct ImageError {
    kind: Kind,
    context: String,
    #[source]
    source: Option<Box<dyn StdError + Send + Sync>>,
}

pub type Result<T, E = ImageError> = StdResult<T, E>;

impl ImageError {
    pub fn kind(&self) -> Kind {
        self.kind
    }

    pub(crate) fn new(kind: Kind, context: impl Display) -> Self {
        Self { kind, context: context.to_string(), source: None }
    }

    pub(crate) fn invalid(context: impl Display) -> Self {
        Self::new(Kind::Invalid, context)
    }

    /// Names the cause. A full disk and a registry that fails are no fault of the image, whatever was being done with it.
    pub(crate) fn because(mut self, source: impl StdError + Send + Sync + 'static) -> Self {
        self.kind = decided_by(&source).unwrap_or(self.kind);
        self.source = Some(Box::new(source));
        self
    }

    /// The same kind of failure, seen from one step further up.
    pub(crate) fn within(self, context: impl Display) -> Self {
        Self { kind: self.kind, context: context.to_string(), source: Some(Box::new(self)) }
    }
}

/// The kind of a failure that has this among its causes, if that decides it.
fn decided_by(source: &(dyn StdError + 'static)) -> Option<Kind> {
    let mut next = Some(source);
    while let Some(error) = next {
        next = error.source();
        if let Some(error) = error.downcast_ref::<ImageError>()
            && matches!(error.kind, Kind::NoSpace | Kind::Network | Kind::Denied)
        {
            return Some(error.kind);
        }
        let Some(error) = error.downcast_ref::<IoError>() else { continue };
        if matches!(error.kind(), ErrorKind::StorageFull | ErrorKind::QuotaExceeded) {
            return Some(Kind::NoSpace);
        }
        // What it was made of is not among its sources, but what that has for a source is.
        if let Some(inner) = error.get_ref() {
            next = Some(inner);
        }
    }
    None
}

/// Says what an I/O error interrupted.
pub(crate) trait During<T> {
    fn during(self, what: impl Display) -> Result<T>;
}

impl<T, E: Into<IoError>> During<T> for Result<T, E> {
    fn during(self, what: impl Display) -> Result<T> {
        self.map_err(|e| {
            let e: IoError = e.into();
            let kind = match e.kind() {
                ErrorKind::NotFound => Kind::NotFound,
                ErrorKind::UnexpectedEof | ErrorKind::InvalidData => Kind::Invalid,
                _ => Kind::Io,
            };
            ImageError::new(kind, what).because(e)
        })
    }
}
