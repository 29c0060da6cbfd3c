// SPDX-License-Identifier: Apache-2.0
//! A question before something is removed: on stderr, answered on stdin, where a script may answer too.

use super::talk;
use crate::cli::error::Failure;
use isopod_engine::{EngineError, Kind};
use std::io::{BufRead, Read, Write, stderr, stdin};

/// As much of an answer as is read.
const ANSWER_MAX: u64 = 1024;

/// Says what is about to be done, and asks. Whatever is not a yes is an error.
pub(in crate::cli) fn confirm(warning: &str) -> Result<(), Failure> {
    talk(&format!("WARNING! {warning}"));
    let mut err = stderr().lock();
    // If nobody reads it, nobody answers.
    let _ = write!(err, "Are you sure you want to continue? [y/N] ").and_then(|()| err.flush());
    let mut answer = String::new();
    let read = stdin().lock().take(ANSWER_MAX).read_line(&mut answer);
    if read.is_ok_and(|n| n == 0) {
        let _ = writeln!(err);
    }
    match answer.trim().to_ascii_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => {
            let error = EngineError::new(Kind::Invalid, "nothing is removed: there was no yes");
            Err(error.hint("-f does without the question").into())
        }
    }
}
