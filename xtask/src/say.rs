// SPDX-License-Identifier: Apache-2.0
//! What the developer gets to read; the only file of xtask that prints. All of it is talk and goes to stderr.

use anyhow::Error;
use std::fmt::Display;
use std::io::{IsTerminal, Write, stderr};
use std::time::{Duration, Instant};

/// One line.
pub(crate) fn line(text: impl Display) {
    // A closed stderr is no reason to stop working.
    let _ = writeln!(stderr(), "{text}");
}

/// An error with its chain of causes.
pub(crate) fn error(error: &Error) {
    line(format_args!("error: {error}"));
    for cause in error.chain().skip(1) {
        line(format_args!("  cause: {cause}"));
    }
}

/// A step that takes time, and how long it has taken so far.
///
/// On a terminal its line is rewritten in place; elsewhere (CI's log) a plain line comes now and then.
#[derive(Debug)]
pub(crate) struct Progress {
    step: String,
    began: Instant,
    said: Option<Instant>,
    terminal: bool,
}

impl Progress {
    pub(crate) fn begin(step: impl Into<String>) -> Self {
        let mut progress =
            Self { step: step.into(), began: Instant::now(), said: None, terminal: stderr().is_terminal() };
        progress.update("");
        progress
    }

    /// Says how far it is, if it is time to say so again.
    pub(crate) fn update(&mut self, detail: &str) {
        let pause = if self.terminal { Duration::from_millis(200) } else { Duration::from_secs(20) };
        if self.said.is_some_and(|said| said.elapsed() < pause) {
            return;
        }
        self.said = Some(Instant::now());
        let text = self.text(detail);
        if self.terminal {
            let mut out = stderr();
            let _ = write!(out, "\r\x1b[2K{text}");
            let _ = out.flush();
        } else if !detail.is_empty() {
            line(text);
        }
    }

    pub(crate) fn done(self, detail: &str) {
        let text = self.text(detail);
        line(format_args!("{}{text}", if self.terminal { "\r\x1b[2K" } else { "" }));
    }

    fn text(&self, detail: &str) -> String {
        let gap = if detail.is_empty() { "" } else { ": " };
        format!("{}{gap}{detail} ({:.1} s)", self.step, self.began.elapsed().as_secs_f32())
    }
}
