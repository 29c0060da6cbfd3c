// SPDX-License-Identifier: Apache-2.0
//! The only place that prints. Stdout is data, stderr is talk; a reader of stdout who goes away is not an error.

mod confirm;
mod stream;

use super::error::{Failure, NOT_RUN, chain};
use console::Term;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use isopod_engine::{EngineError, Finished, Kind, Making as Stage};
use std::io::{self, ErrorKind, IsTerminal, Write, stderr, stdout};
use std::time::Duration;

pub(super) use confirm::confirm;
pub(super) use stream::Stream;

/// Of what turns while there is nothing to count.
const TICK: Duration = Duration::from_millis(100);

/// Data, as it is.
pub(super) fn data(bytes: &[u8]) -> Result<(), Failure> {
    let mut out = stdout().lock();
    match out.write_all(bytes).and_then(|()| out.flush()) {
        Err(e) if e.kind() != ErrorKind::BrokenPipe => {
            Err(EngineError::new(Kind::Io, "cannot write to stdout").because(e).into())
        }
        _ => Ok(()),
    }
}

/// A line of data.
pub(super) fn line(text: &str) -> Result<(), Failure> {
    data(format!("{text}\n").as_bytes())
}

/// Rows under a heading, in columns three spaces apart.
pub(super) fn table(rows: &[Vec<String>]) -> Result<(), Failure> {
    data(columns(rows).as_bytes())
}

/// A line to whoever watches.
pub(super) fn talk(text: &str) {
    // If nobody does, there is nobody to tell.
    let _ = writeln!(stderr().lock(), "{text}");
}

/// Does something with each, and says the name of each it was done with. One that fails does not keep the others; the
/// code is the last failure's.
pub(super) fn each<T, E: Into<Failure>>(
    names: &[String],
    act: impl Fn(&str) -> Result<T, E>,
) -> Result<u8, Failure> {
    let mut code = 0;
    for name in names {
        match act(name) {
            Ok(_) => line(name)?,
            Err(error) => {
                let failure = error.into();
                talk(&failure.to_string());
                code = failure.code();
            }
        }
    }
    Ok(code)
}

/// Why a container ended that did not end by itself, and what else went wrong.
pub(super) fn finished(finished: &Finished) {
    if let Some(reason) = &finished.exit.reason {
        let error =
            EngineError::new(Kind::Guest, "the container did not end by itself").because(reason.as_str());
        talk(&chain("error", &error));
    }
    for trouble in &finished.trouble {
        talk(&chain("warning", trouble));
    }
}

/// Asks whoever is at the terminal; `None` if nobody is.
pub(super) fn ask(what: &str) -> Option<String> {
    let term = terminal(what)?;
    term.read_line().ok().map(|line| line.trim().to_owned()).filter(|line| !line.is_empty())
}

/// The same, and nobody sees what is typed.
pub(super) fn ask_secret(what: &str) -> Option<String> {
    terminal(what)?.read_secure_line().ok()
}

fn terminal(what: &str) -> Option<Term> {
    let term = Term::stderr();
    (stdin_is_terminal() && term.is_term()).then(|| {
        let _ = term.write_str(what);
        term
    })
}

/// What clap has to say: help and version are data, the rest is talk. Gives the exit code.
pub(super) fn usage(error: &clap::Error) -> u8 {
    let _ = error.print();
    if error.use_stderr() { NOT_RUN } else { 0 }
}

pub(super) fn columns(rows: &[Vec<String>]) -> String {
    let count = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|r| r.get(column)).map(|c| c.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..count).map(width).collect();
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("   ").trim_end());
        text.push('\n');
    }
    text
}

/// How the making of a template goes. `always` tells it even where nobody watches: who asked for it wants to know.
#[derive(Debug)]
pub(super) struct Making {
    always: bool,
    bar: ProgressBar,
}

impl Making {
    pub(super) fn new(always: bool) -> Self {
        Self { always, bar: ProgressBar::hidden() }
    }

    pub(super) fn at(&mut self, stage: Stage) {
        let text = match stage {
            Stage::Waiting => "waiting for another isopod that makes a template",
            Stage::Booting => "making a template to start machines from, once: booting",
            Stage::Saving => "making a template to start machines from, once: saving",
            Stage::Done => return self.end(),
        };
        if stderr().is_terminal() {
            if self.bar.is_hidden() {
                let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
                // Nobody knows how far it is.
                self.bar = bar.with_style(ProgressStyle::default_spinner());
                self.bar.enable_steady_tick(TICK);
            }
            self.bar.set_message(text);
        } else if self.always {
            talk(text);
        }
    }

    /// Waits for the thread that draws, too.
    fn end(&self) {
        self.bar.disable_steady_tick();
        self.bar.finish_and_clear();
    }
}

impl Drop for Making {
    fn drop(&mut self) {
        self.end();
    }
}

/// Whether what we write goes to somebody's eyes.
pub(super) fn stdout_is_terminal() -> bool {
    stdout().is_terminal()
}

/// Whether somebody types what we read.
pub(super) fn stdin_is_terminal() -> bool {
    io::stdin().is_terminal()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let rows = [["A", "BB"], ["long", "x"]].map(|r| r.map(str::to_owned).to_vec());
        assert_eq!(columns(&rows), "A      BB\nlong   x\n");
    }
}
