// SPDX-License-Identifier: Apache-2.0
//! What a user may type. One verb a file; no logic of containers, and only `output` prints.
//!
//! ```text
//!   argv ─► clap (this table) ─► a verb's arguments ─► one conversion ─► Engine ─► output, exit code
//! ```
//! Help, man pages and completions come from the same table.

mod args;
mod completion;
mod doctor;
mod document;
mod env;
mod error;
mod fork;
mod format;
mod history;
mod human;
mod image;
mod images;
mod inspect;
mod layers;
mod load;
mod login;
mod man;
mod manifest;
mod output;
mod pause;
mod prune;
mod ps;
mod pull;
mod push;
mod rm;
mod rmi;
mod run;
mod save;
mod snapshot;
mod system;
mod tag;
mod templates;

use clap::{Args, CommandFactory, Parser, Subcommand};
use error::Failure;
use isopod_engine::{Engine, Layers, Options, Timings, Waiting, spawn_ahead};
use std::env::{args_os, var};
use std::ffi::OsString;
use std::panic;
use std::path::PathBuf;
use std::process::ExitCode;
use std::thread::Builder;

const UNJAILED: &str = "ISOPOD_JAIL";

/// What a verb gives back: an exit code, or an error to print and the code that goes with it.
type Outcome = Result<u8, Failure>;

/// Runs each container in its own KVM microVM
#[derive(Debug, Parser)]
#[command(name = "isopod", version, disable_help_subcommand = true)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Args)]
struct Global {
    /// Where images and containers are kept
    #[arg(long, global = true, env = "ISOPOD_DATA_ROOT", value_name = "DIR")]
    data_root: Option<PathBuf>,
    /// Where what need not outlive a boot is kept
    #[arg(long, global = true, env = "ISOPOD_RUN_ROOT", value_name = "DIR", hide = true)]
    run_root: Option<PathBuf>,
    /// Layers of the jail to leave out of every process, even where this host has them: no-LAYER,… (`isopod doctor` names
    /// them)
    #[arg(long, global = true, env = UNJAILED, value_name = "no-LAYER,…", hide_short_help = true,
          value_parser = args::layers)]
    unjailed: Option<Layers>,
}

impl Global {
    fn options(&self) -> Options {
        let default = Options::default();
        Options {
            data_root: self.data_root.clone().unwrap_or(default.data_root),
            run_root: self.run_root.clone().unwrap_or(default.run_root),
            unjailed: self.unjailed.unwrap_or_default(),
        }
    }

    fn engine(&self) -> Result<Engine, Failure> {
        Ok(Engine::open(self.options())?)
    }

    /// What another isopod is given to do as this one was told: all there is, whatever comes to be added.
    fn passed_on(&self) -> Vec<OsString> {
        let Self { data_root, run_root, unjailed } = self;
        let folder = |flag: &str, folder: &Option<PathBuf>| {
            let folder = folder.clone().map(|folder| [flag.into(), folder.into_os_string()]);
            folder.into_iter().flatten()
        };
        // None are an empty word, which is none when it is read.
        let names = |layers: &Layers| layers.iter().map(|layer| format!("no-{layer}")).collect::<Vec<_>>();
        let unjailed =
            unjailed.iter().flat_map(|layers| ["--unjailed".into(), names(layers).join(",").into()]);
        folder("--data-root", data_root).chain(folder("--run-root", run_root)).chain(unjailed).collect()
    }
}

/// In the order of the help.
#[derive(Debug, Subcommand)]
enum Verb {
    Run(Box<run::RunArgs>),
    Pull(pull::PullArgs),
    Push(push::PushArgs),
    Login(login::LoginArgs),
    Logout(login::LogoutArgs),
    Load(load::LoadArgs),
    Save(save::SaveArgs),
    Images(images::ImagesArgs),
    Tag(tag::TagArgs),
    Rmi(rmi::RmiArgs),
    History(history::HistoryArgs),
    Inspect(inspect::InspectArgs),
    Image(image::ImageArgs),
    Manifest(manifest::ManifestArgs),
    Ps(ps::PsArgs),
    Rm(rm::RmArgs),
    Pause(pause::PauseArgs),
    Unpause(pause::UnpauseArgs),
    Fork(fork::ForkArgs),
    Snapshot(snapshot::SnapshotArgs),
    Template(templates::TemplateArgs),
    System(system::SystemArgs),
    Doctor(doctor::DoctorArgs),
    Completion(completion::CompletionArgs),
    #[command(hide = true)]
    Man(man::ManArgs),
}

/// On a thread of its own, whose stack and heap end with it: clap takes 200 KiB, and a run may last for months. This thread
/// does something else meanwhile.
fn parse<T>(meanwhile: impl FnOnce() -> T) -> (Result<Cli, clap::Error>, T) {
    let thread = Builder::new().spawn(Cli::try_parse);
    let done = meanwhile();
    let cli = match thread {
        Ok(thread) => thread.join().unwrap_or_else(|panic| panic::resume_unwind(panic)),
        Err(_) => Cli::try_parse(),
    };
    (cli, done)
}

/// What a `run` is going to need, which takes as long to load as the command line to parse. A guess: who is not meant by
/// it has one process too many for a moment, or one too late.
fn ahead() -> Option<Waiting> {
    let verb = args_os().skip(1).find(|word| !word.as_encoded_bytes().starts_with(b"-"))?;
    let unjailed = || var(UNJAILED).ok().and_then(|asked| args::layers(&asked).ok()).unwrap_or_default();
    if verb == "run" { spawn_ahead(unjailed()) } else { None }
}

pub(crate) fn main(mut timings: Timings) -> ExitCode {
    let (cli, waiting) = parse(ahead);
    let cli = match cli {
        Ok(cli) => cli,
        Err(e) => return ExitCode::from(output::usage(&e)),
    };
    let global = &cli.global;
    let outcome = match cli.verb {
        Verb::Run(args) => run::run(global, *args, &mut timings, waiting),
        Verb::Pull(args) => pull::run(global, &args),
        Verb::Push(args) => push::run(global, &args),
        Verb::Login(args) => login::login(&args),
        Verb::Logout(args) => login::logout(&args),
        Verb::Load(args) => load::run(global, &args),
        Verb::Save(args) => save::run(global, &args),
        Verb::Images(args) => images::run(global, &args),
        Verb::Tag(args) => tag::run(global, &args),
        Verb::Rmi(args) => rmi::run(global, &args),
        Verb::History(args) => history::run(global, &args),
        Verb::Inspect(args) => inspect::run(global, &args),
        Verb::Manifest(args) => manifest::run(global, &args),
        Verb::Image(args) => image::run(global, &args),
        Verb::Ps(args) => ps::run(global, &args),
        Verb::Rm(args) => rm::run(global, &args),
        Verb::Pause(args) => pause::pause(global, &args),
        Verb::Unpause(args) => pause::unpause(global, &args),
        Verb::Fork(args) => fork::run(global, &args, &mut timings),
        Verb::Snapshot(args) => snapshot::run(global, &args),
        Verb::Template(args) => templates::run(global, &args),
        Verb::System(args) => system::run(global, &args),
        Verb::Doctor(args) => doctor::run(global, &args),
        Verb::Completion(args) => completion::run(&args),
        Verb::Man(args) => man::run(&args),
    };
    let code = outcome.unwrap_or_else(|failure| {
        output::talk(&failure.to_string());
        failure.code()
    });
    ExitCode::from(code)
}

/// The table, for what is generated from it.
fn command() -> clap::Command {
    Cli::command()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sound() {
        command().debug_assert();
    }

    #[test]
    fn the_data_root_may_be_named_before_and_after_the_verb() {
        for words in [["isopod", "--data-root", "/x", "ps"], ["isopod", "ps", "--data-root", "/x"]] {
            let cli = Cli::try_parse_from(words).unwrap();
            assert_eq!(cli.global.options().data_root, PathBuf::from("/x"));
        }
    }

    #[test]
    fn what_is_passed_on_is_what_was_asked_for() {
        for layers in ["no-landlock,no-net", "no-seccomp", ""] {
            let words =
                ["isopod", "--unjailed", layers, "--data-root", "/x y", "fork", "c", "--run-root", "/z"];
            let global = Cli::try_parse_from(words).unwrap().global;
            let child = ["isopod".into()].into_iter().chain(global.passed_on()).chain(["ps".into()]);
            assert_eq!(Cli::try_parse_from(child).unwrap().global.options(), global.options());
        }
    }
}
