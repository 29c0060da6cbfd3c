// SPDX-License-Identifier: Apache-2.0
//! `isopod fork`.

use super::args::bad;
use super::error::Failure;
use super::{Global, Outcome, output};
use clap::Args;
use isopod_engine::{CopySpec, EngineError, Foreground, Kind, Streams, Timings};
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::PathBuf;
use std::process::{self, Child, Command, ExitStatus, Stdio};

/// Make live copies of a running container, which go on from where it is
///
/// The copies share the memory that none of them has changed. They run in the foreground, until all have ended; their
/// output is mixed, and the exit code is the highest of theirs.
#[derive(Debug, Args)]
pub(super) struct ForkArgs {
    container: String,
    /// Name of a copy; one for each
    #[arg(long = "name", value_name = "NAME")]
    names: Vec<String>,
    /// Pass stdin on to the copy; of several, to the first
    #[arg(short, long)]
    interactive: bool,
    /// Remove the copies when they end
    #[arg(long)]
    rm: bool,
    /// A copy that another isopod has made
    #[arg(long, hide = true, value_name = "FILE")]
    copy_of: Option<PathBuf>,
}

pub(super) fn run(global: &Global, args: &ForkArgs, timings: &mut Timings) -> Outcome {
    let names = args.names.iter().map(|name| name.parse().map_err(|e| bad("--name", name, e)));
    let names = names.collect::<Result<Vec<_>, _>>()?;
    let engine = global.engine()?;
    let file = match &args.copy_of {
        Some(path) => {
            File::open(path).map_err(|e| EngineError::new(Kind::Io, "there is no copy").because(e))?
        }
        None => engine.copy_of(&args.container)?,
    };
    if names.len() > 1 {
        return several(global, args, &file);
    }
    let copy =
        CopySpec { name: names.into_iter().next(), remove: args.rm, stdin: args.interactive, hostname: None };
    let foreground = Foreground { streams: Streams::own(), timings, waiting: None };
    let finished = engine.run_copy(file, copy, foreground).map_err(Failure::of_run)?;
    output::finished(&finished);
    Ok(finished.exit.code)
}

/// A process for each copy: each owns its container, and one that dies takes no other with it.
fn several(global: &Global, args: &ForkArgs, file: &File) -> Outcome {
    let cannot = |e: io::Error| EngineError::new(Kind::Io, "cannot start a copy's process").because(e);
    // Open here as long as they run, so they find it.
    let path = format!("/proc/{}/fd/{}", process::id(), file.as_raw_fd());
    let mut children: Vec<Child> = Vec::new();
    for (n, name) in args.names.iter().enumerate() {
        let mut command = Command::new("/proc/self/exe");
        command.args(global.passed_on()).args(["fork", &args.container, "--name", name, "--copy-of", &path]);
        command.args(args.rm.then_some("--rm"));
        if n == 0 && args.interactive {
            command.arg("--interactive");
        } else {
            command.stdin(Stdio::null());
        }
        children.push(command.spawn().map_err(cannot)?);
    }
    let ends = children.iter_mut().map(Child::wait).collect::<io::Result<Vec<_>>>().map_err(cannot)?;
    let code = |end: &ExitStatus| end.code().and_then(|code| u8::try_from(code).ok()).unwrap_or(u8::MAX);
    Ok(ends.iter().map(code).max().unwrap_or(0))
}
