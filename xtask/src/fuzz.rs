// SPDX-License-Identifier: Apache-2.0
//! `cargo xtask fuzz`: builds the fuzz targets with the fuzzer in them, and runs each for a while.
//!
//! ```text
//!   fuzz/  ──► one binary with coverage counters and ASan ──► each target in turn, from
//!                                                             fuzz/corpus/<target> (committed, never written to) and
//!                                                             target/fuzz/corpus/<target> (what was found before)
//! ```
//!
//! It needs nothing but the pinned stable toolchain: `cargo fuzz` would only put together the flags below, and
//! `RUSTC_BOOTSTRAP` lets stable take the one that is not stable yet. A find is kept in `target/fuzz/finds`; once mended it
//! is copied to the seeds, which the tests replay.

use crate::{say, workspace};
use anyhow::{Context, Result, bail, ensure};
use clap::Args;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The only platform the guest, and so the project, is for at present; naming it keeps the flags off build scripts.
const PLATFORM: &str = "x86_64-unknown-linux-gnu";

/// As `cargo fuzz` has them: counters and comparisons for the fuzzer, and a watch over memory.
const FLAGS: &[&str] = &[
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Zsanitizer=address",
    "-Ccodegen-units=1",
    "--cfg=fuzzing",
];

/// A script that takes longer than this is a find: it hangs.
const TIMEOUT_SECONDS: u32 = 10;
const MEMORY_MIB: u32 = 1024;
const MAX_LEN: u32 = 4096;

#[derive(Debug, Args)]
pub(crate) struct Arguments {
    /// How long to run each target
    #[arg(long, value_name = "N", default_value_t = 60)]
    seconds: u32,
    /// The targets to run, instead of all: the folders of fuzz/corpus
    #[arg(value_name = "TARGET")]
    targets: Vec<String>,
}

pub(crate) fn run(arguments: &Arguments) -> Result<()> {
    let folders = Folders::new();
    let targets = folders.choose(&arguments.targets)?;
    let binary = build(&folders)?;
    let mut failed = Vec::new();
    for target in targets {
        let session = Session { folders: &folders, binary: &binary, target: &target };
        if !session.fuzz(arguments.seconds)? {
            failed.push(target);
        }
    }
    ensure!(failed.is_empty(), "found something in {}: see {}", failed.join(", "), folders.finds.display());
    Ok(())
}

struct Folders {
    /// The crate, and the corpus that is committed.
    sources: PathBuf,
    seeds: PathBuf,
    /// What the fuzzer makes.
    build: PathBuf,
    corpus: PathBuf,
    finds: PathBuf,
}

impl Folders {
    fn new() -> Self {
        let sources = workspace().join("fuzz");
        let target =
            env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace().join("target"), PathBuf::from);
        let build = target.join("fuzz");
        Self {
            seeds: sources.join("corpus"),
            sources,
            corpus: build.join("corpus"),
            finds: build.join("finds"),
            build,
        }
    }

    /// The targets asked for, or all there are: each has a folder of seeds.
    fn choose(&self, asked: &[String]) -> Result<Vec<String>> {
        let mut all = Vec::new();
        for entry in
            fs::read_dir(&self.seeds).with_context(|| format!("cannot list {}", self.seeds.display()))?
        {
            all.extend(entry?.file_name().into_string().ok());
        }
        all.sort();
        if let Some(unknown) = asked.iter().find(|target| !all.contains(target)) {
            bail!("there is no fuzz target `{unknown}`; there are {}", all.join(", "));
        }
        Ok(if asked.is_empty() { all } else { asked.to_vec() })
    }
}

/// Gives the path of the binary.
fn build(folders: &Folders) -> Result<PathBuf> {
    let mut cargo = Command::new(env!("CARGO"));
    cargo
        .args(["build", "--release", "--features", "libfuzzer", "--bin", "isopod-fuzz", "--target", PLATFORM])
        .arg("--target-dir")
        .arg(&folders.build)
        .current_dir(&folders.sources)
        .env("RUSTC_BOOTSTRAP", "1")
        .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\u{1f}"));
    let status = cargo.status().context("cannot run cargo")?;
    ensure!(status.success(), "the fuzz targets do not build");
    Ok(folders.build.join(PLATFORM).join("release").join("isopod-fuzz"))
}

/// The fuzzer at work on one target.
struct Session<'a> {
    folders: &'a Folders,
    binary: &'a Path,
    target: &'a str,
}

impl Session<'_> {
    /// Gives whether it found nothing.
    fn fuzz(&self, seconds: u32) -> Result<bool> {
        let (corpus, finds) = (self.folder(&self.folders.corpus)?, self.folder(&self.folders.finds)?);
        let log = self.folders.build.join(format!("{}.log", self.target));
        say::line(format_args!("fuzz: {} for {seconds} s", self.target));
        let status = self
            .command()
            .arg(&corpus)
            .arg(self.folders.seeds.join(self.target))
            .args([
                format!("-max_total_time={seconds}"),
                format!("-timeout={TIMEOUT_SECONDS}"),
                format!("-rss_limit_mb={MEMORY_MIB}"),
                format!("-max_len={MAX_LEN}"),
                format!("-artifact_prefix={}/", finds.display()),
            ])
            // Long scripts from the start: short ones have no room for what has to come before.
            .args(["-len_control=0", "-print_final_stats=1"])
            .stderr(fs::File::create(&log).with_context(|| format!("cannot write {}", log.display()))?)
            .status()
            .with_context(|| format!("cannot run {}", self.binary.display()))?;
        let text = String::from_utf8_lossy(&fs::read(&log)?).into_owned();
        for line in
            text.lines().filter(|line| line.starts_with("stat::number_of_executed") || line.contains("DONE"))
        {
            say::line(format_args!("  {line}"));
        }
        if !status.success() {
            say::line(format_args!("  a find, {status}: {}", log.display()));
        }
        Ok(status.success())
    }

    fn command(&self) -> Command {
        let mut command = Command::new(self.binary);
        command.env("ISOPOD_FUZZ_TARGET", self.target);
        command
    }

    fn folder(&self, of: &Path) -> Result<PathBuf> {
        let folder = of.join(self.target);
        fs::create_dir_all(&folder).with_context(|| format!("cannot make {}", folder.display()))?;
        Ok(folder)
    }
}
