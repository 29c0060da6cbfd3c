// SPDX-License-Identifier: Apache-2.0
//! The one error of this room: a kind a door can act on, what failed, why, and what to do about it.

use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fmt;
use std::result::Result as StdResult;

/// What a door makes its answer from: an exit code, an HTTP status.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// There is no such container or image.
    NotFound,
    /// Something else has it, or it is not in the state for this.
    Conflict,
    /// What was asked for cannot be.
    Invalid,
    /// It could be, but is not made yet or not here.
    Unsupported,
    /// Who asks is not allowed to have it.
    Denied,
    /// The host lacks something: KVM, a kernel, memory.
    Unavailable,
    Io,
    /// The guest failed, or said what it must not.
    Guest,
    /// The container's program is not there.
    NoCommand,
    /// The container's program can't be executed.
    NotExecutable,
}

type Source = Box<dyn Error + Send + Sync>;

#[derive(Debug)]
pub struct EngineError {
    kind: Kind,
    what: String,
    source: Option<Source>,
    hint: Option<String>,
}

pub type Result<T> = StdResult<T, EngineError>;

impl EngineError {
    pub fn new(kind: Kind, what: impl Into<String>) -> Self {
        Self { kind, what: what.into(), source: None, hint: None }
    }

    /// An error because of something this process could not do.
    pub(crate) fn io<E: Into<Source>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::new(Kind::Io, what).because(source)
    }

    /// Another room's error: its first sentence is ours, and its causes are, too.
    pub(crate) fn from_other(kind: Kind, error: impl Error) -> Self {
        let mut texts = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            texts.push(cause.to_string());
            source = cause.source();
        }
        let cause = texts.into_iter().rev().fold(None, |inner, text| Some(Box::new(Cause { text, inner })));
        Self { source: cause.map(|c| c as Source), ..Self::new(kind, error.to_string()) }
    }

    #[must_use]
    pub fn because(mut self, source: impl Into<Source>) -> Self {
        self.source = Some(source.into());
        self
    }

    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with a wider view: what it said becomes the cause.
    #[must_use]
    pub(crate) fn within(self, what: &str) -> Self {
        let (kind, hint) = (self.kind, self.hint.clone());
        Self { hint, ..Self::new(kind, what).because(self) }
    }

    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The next step, if there is one to advise.
    pub fn advice(&self) -> Option<&str> {
        self.hint.as_deref()
    }
}

impl fmt::Display for EngineError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl Error for EngineError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_ref().map(|source| source.as_ref() as _)
    }
}

/// A link of another room's chain of causes, kept as text.
#[derive(Debug)]
struct Cause {
    text: String,
    inner: Option<Box<Cause>>,
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Error for Cause {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.inner.as_ref().map(|inner| inner.as_ref() as _)
    }
}
