// SPDX-License-Identifier: Apache-2.0
//! `isopod run`.

use super::args::{self, bad};
use super::error::Failure;
use super::layers::LoadProgress;
use super::output;
use super::{Global, Outcome, env};
use clap::{ArgAction, Args, ValueEnum, ValueHint};
use isopod_engine::spec::{Console, ContainerSpec, Cwd, MachineSpec, ProcessSpec, RootSpec};
use isopod_engine::timings::{Counters, Row};
use isopod_engine::{CopySpec, Engine, Foreground, Pull, Result, Streams, Timings, Waiting, Word};
use std::env::var_os;
use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

/// What a container that goes on where another was has from that one.
const NOT_OF_A_COPY: [&str; 21] = [
    "what",
    "tty",
    "env",
    "env_file",
    "workdir",
    "user",
    "entrypoint",
    "memory",
    "cpus",
    "read_only",
    "tmpfs",
    "cap_add",
    "cap_drop",
    "security_opt",
    "ulimit",
    "init",
    "label",
    "kernel",
    "console",
    "no_template",
    "pull",
];

/// When an image is pulled.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum When {
    /// If it is not here
    Missing,
    /// Each time
    Always,
    Never,
}

impl From<When> for Pull {
    fn from(when: When) -> Self {
        match when {
            When::Missing => Self::Missing,
            When::Always => Self::Always,
            When::Never => Self::Never,
        }
    }
}

/// Run a command in a new container
#[derive(Debug, Args)]
#[command(
    disable_help_flag = true,
    override_usage = "isopod run [OPTIONS] IMAGE [COMMAND] [ARG...]",
    after_help = "Exit codes: the process's own; 128+N if signal N ended it; 127 if there is no such command, 126 if it \
                  can't be executed; 125 if isopod failed; 137 if the machine was ended under it."
)]
pub(super) struct RunArgs {
    /// Image to run, then a command in place of the image's own
    #[arg(value_name = "IMAGE [COMMAND] [ARG", required_unless_present = "from_snapshot", trailing_var_arg = true,
          num_args = 1..)]
    what: Vec<OsString>,

    /// Keep stdin open and pass it on
    #[arg(short, long)]
    interactive: bool,
    /// Give the process a terminal
    #[arg(short, long)]
    tty: bool,
    /// Set a variable, or pass on one that is set here
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<OsString>,
    /// Read variables from a file
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    env_file: Vec<PathBuf>,
    /// Working directory in the container
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<OsString>,
    /// User, by name or number
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// In place of the image's entrypoint; empty for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<OsString>,
    /// Go on where a snapshot was taken, in place of an image; only -i, --name, --rm, --hostname and --timings go with it
    #[arg(long, value_name = "NAME", conflicts_with_all = NOT_OF_A_COPY)]
    from_snapshot: Option<String>,
    /// Name of the container
    #[arg(long)]
    name: Option<String>,
    /// Remove the container when it ends
    #[arg(long)]
    rm: bool,
    /// Memory of the machine [default: 256m]
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<String>,
    /// Number of CPUs of the machine [default: 1]
    #[arg(long, value_name = "N")]
    cpus: Option<String>,
    /// Host name of the container
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Make the root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Mount a tmpfs
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    tmpfs: Vec<String>,
    /// Add a capability
    #[arg(long, value_name = "CAP")]
    cap_add: Vec<String>,
    /// Drop a capability
    #[arg(long, value_name = "CAP")]
    cap_drop: Vec<String>,
    /// seccomp=unconfined, seccomp=FILE, no-new-privileges, systempaths=unconfined, isopod.jail=no-LAYER,…
    #[arg(long, value_name = "OPTION")]
    security_opt: Vec<String>,
    /// Limit a resource
    #[arg(long, value_name = "NAME=SOFT[:HARD]")]
    ulimit: Vec<String>,
    /// Run the process under an init that forwards signals and reaps
    #[arg(long)]
    init: bool,
    /// Label of the container
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// When to ask the image's registry for it [default: missing]
    #[arg(long, value_name = "WHEN")]
    pull: Option<When>,
    /// Guest kernel, an uncompressed vmlinux
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath)]
    kernel: Option<PathBuf>,
    /// Show the guest's serial console on stderr, or write it to a file
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-")]
    console: Option<PathBuf>,
    /// Boot the machine, and neither use nor make a template to start it from
    #[arg(long)]
    no_template: bool,
    /// Print where the time went, to stderr
    #[arg(long, value_name = "FORMAT", num_args = 0..=1, require_equals = true, default_missing_value = "table",
          value_parser = ["table", "json"])]
    timings: Option<String>,
    /// Print help
    #[arg(long, action = ArgAction::Help)]
    help: Option<bool>,
}

pub(super) fn run(
    global: &Global,
    args: RunArgs,
    timings: &mut Timings,
    waiting: Option<Waiting>,
) -> Outcome {
    let format = args.timings.clone();
    let foreground = Foreground { streams: Streams::own(), timings, waiting };
    let finished = match args.from_snapshot.clone() {
        Some(snapshot) => args.into_copy().and_then(|copy| {
            let engine = Engine::open(global.options())?;
            engine.run_snapshot(&snapshot, copy, foreground)
        }),
        None => {
            let pull = args.pull.map_or_else(Pull::default, Pull::from);
            args.into_spec().and_then(|mut spec| {
                let engine = Engine::open(global.options())?;
                let pulled = engine.provide(&spec.image, pull, &LoadProgress::new(false))?;
                if let Some(pulled) = pulled.filter(|_| spec.image.contains('@')) {
                    // The digest that was typed may be an index's, of which only this host's image is here.
                    spec.image = pulled.digest.to_string();
                }
                let mut making = output::Making::new(false);
                engine.run(spec, foreground, &mut |stage| making.at(stage))
            })
        }
    };
    if let Some(format) = format {
        output::talk(&timings_table(timings, &format));
    }
    let finished = finished.map_err(Failure::of_run)?;
    output::finished(&finished);
    Ok(finished.exit.code)
}

impl RunArgs {
    /// What was typed of a copy → what is meant.
    fn into_copy(self) -> Result<CopySpec> {
        let name = |n: &String| n.parse().map_err(|e| bad("--name", n, e));
        let hostname = |h: &String| h.parse().map_err(|e| bad("--hostname", h, e));
        Ok(CopySpec {
            name: self.name.as_ref().map(name).transpose()?,
            remove: self.rm,
            stdin: self.interactive,
            hostname: self.hostname.as_ref().map(hostname).transpose()?,
        })
    }

    /// What was typed → what is meant.
    fn into_spec(self) -> Result<ContainerSpec> {
        let mut what = self.what.into_iter();
        let image = what.next().unwrap_or_default();
        let image = image.into_string().map_err(|i| bad("IMAGE", &i.to_string_lossy(), "it is not UTF-8"))?;
        let capabilities = args::capabilities(&self.cap_add, &self.cap_drop)?;
        let name = |n: &String| n.parse().map_err(|e| bad("--name", n, e));
        let hostname = |h: &String| h.parse().map_err(|e| bad("--hostname", h, e));
        let cwd =
            |d: &OsString| Cwd::new(d.as_bytes()).map_err(|e| bad("--workdir", &d.to_string_lossy(), e));
        let entrypoint = |e: OsString| {
            if e.is_empty() { Vec::new() } else { vec![Word::from(e)] }
        };
        let console = |path: PathBuf| match path.as_os_str() == "-" {
            true => Console::Stderr,
            false => Console::File(path),
        };
        Ok(ContainerSpec {
            image,
            name: self.name.as_ref().map(name).transpose()?,
            remove: self.rm,
            process: ProcessSpec {
                entrypoint: self.entrypoint.map(entrypoint),
                command: what.map(Word::from).collect(),
                env: env::variables(&self.env_file, &self.env, |name| var_os(name))?,
                cwd: self.workdir.as_ref().map(cwd).transpose()?,
                user: self.user,
                stdin: self.interactive,
                terminal: self.tty,
                init: self.init,
                rlimits: self.ulimit.iter().map(|u| args::ulimit(u)).collect::<Result<_>>()?,
            },
            machine: MachineSpec {
                memory: self.memory.as_deref().map(args::memory).transpose()?.unwrap_or_default(),
                vcpus: self.cpus.as_deref().map(args::cpus).transpose()?.unwrap_or_default(),
                kernel: self.kernel,
                console: self.console.map(console),
                template: !self.no_template,
            },
            security: args::security(&self.security_opt, capabilities)?,
            root: RootSpec {
                read_only: self.read_only,
                tmpfs: self.tmpfs.iter().map(|t| args::tmpfs(t)).collect::<Result<_>>()?,
            },
            hostname: self.hostname.as_ref().map(hostname).transpose()?,
            labels: args::labels(&self.label)?,
        })
    }
}

fn timings_table(timings: &Timings, format: &str) -> String {
    let rows = timings.rows();
    let counted = [("at_hello", timings.counted_at_hello()), ("at_exit", timings.counted())];
    if format == "json" {
        let counted: Vec<String> =
            counted.iter().map(|(when, c)| format!(r#""{when}":{}"#, json(*c))).collect();
        let rows: Vec<String> = rows
            .iter()
            .map(|r| format!(r#"{{"what":"{}","at_ms":{:.3},"took_ms":{:.3}}}"#, r.what, r.at_ms, r.took_ms))
            .collect();
        return format!(r#"{{"timings":[{}],{}}}"#, rows.join(","), counted.join(","));
    }
    let mut lines = vec![vec!["WHAT".to_owned(), "AT ms".to_owned(), "TOOK ms".to_owned()]];
    let row = |r: &Row| vec![r.what.to_owned(), format!("{:9.3}", r.at_ms), format!("{:9.3}", r.took_ms)];
    lines.extend(rows.iter().map(row));
    let mut text = output::columns(&lines);
    for (when, counters) in counted {
        let pairs = counters.map(pairs).into_iter().flatten();
        let words: Vec<String> = pairs.map(|(name, n)| format!("{} {n}", name.replace('_', " "))).collect();
        if !words.is_empty() {
            text.push_str(&format!("{}: {}\n", when.replace('_', " "), words.join(", ")));
        }
    }
    if let Some(kernel) = timings.guest_kernel() {
        text.push_str(&format!("guest kernel: {kernel}\n"));
    }
    text.trim_end().to_owned()
}

fn pairs(counters: &Counters) -> [(&'static str, u64); 4] {
    [
        ("emulated_instructions", counters.emulated_instructions),
        ("interrupts", counters.interrupts),
        ("exits", counters.exits),
        ("image_requests", counters.image_requests),
    ]
}

fn json(counters: Option<&Counters>) -> String {
    let Some(counters) = counters else { return "null".to_owned() };
    let pairs: Vec<String> = pairs(counters).iter().map(|(name, n)| format!(r#""{name}":{n}"#)).collect();
    format!("{{{}}}", pairs.join(","))
}

#[cfg(test)]
mod tests {
    use super::super::{Cli, Verb};
    use super::*;
    use clap::Parser;
    use std::result::Result as StdResult;

    fn parsed(words: &[&str]) -> StdResult<RunArgs, clap::Error> {
        let cli = Cli::try_parse_from(["isopod", "run"].iter().chain(words))?;
        match cli.verb {
            Verb::Run(args) => Ok(*args),
            other => panic!("{other:?}"),
        }
    }

    fn spec(words: &[&str]) -> Result<ContainerSpec> {
        parsed(words).unwrap().into_spec()
    }

    fn command(spec: &ContainerSpec) -> Vec<String> {
        spec.process.command.iter().map(|w| w.shown().into_owned()).collect()
    }

    #[test]
    fn everything_after_the_image_is_the_commands() {
        let spec = spec(&["--rm", "-it", "demo", "sh", "-c", "exit 7", "--rm", "-h", "--"]).unwrap();
        assert_eq!(command(&spec), ["sh", "-c", "exit 7", "--rm", "-h", "--"]);
        assert!(spec.remove && spec.process.stdin && spec.process.terminal);
        assert_eq!(spec.image, "demo");
    }

    #[test]
    fn even_a_flag_right_after_the_image_is_the_commands() {
        let spec = spec(&["demo", "-t", "--version"]).unwrap();
        assert_eq!(command(&spec), ["-t", "--version"]);
        assert!(!spec.process.terminal);
    }

    #[test]
    fn h_is_the_host_name() {
        let spec = spec(&["-h", "web", "demo"]).unwrap();
        assert_eq!(spec.hostname.unwrap().as_str(), "web");
    }

    #[test]
    fn each_flag_arrives_where_it_belongs() {
        let spec = spec(&[
            "-e",
            "A=1",
            "-w",
            "/srv",
            "-u",
            "web:web",
            "--entrypoint",
            "/bin/x",
            "--name",
            "n1",
            "-m",
            "64m",
            "--cpus",
            "2",
            "--read-only",
            "--tmpfs",
            "/run:size=1m",
            "--cap-add",
            "SYS_ADMIN",
            "--cap-drop",
            "ALL",
            "--security-opt",
            "no-new-privileges",
            "--ulimit",
            "nofile=10:20",
            "--init",
            "-l",
            "a=b",
            "--kernel",
            "/k",
            "--console",
            "demo",
        ])
        .unwrap();
        assert_eq!(spec.process.cwd.as_ref().unwrap().as_bytes(), b"/srv");
        assert_eq!(spec.process.user.as_deref(), Some("web:web"));
        assert_eq!(spec.process.entrypoint, Some(vec![Word::new("/bin/x").unwrap()]));
        assert_eq!(spec.name.as_ref().unwrap().as_str(), "n1");
        assert_eq!((spec.machine.memory.mib(), spec.machine.vcpus.count()), (64, 2));
        assert_eq!(spec.security.capabilities.to_string(), "SYS_ADMIN");
        assert!(spec.root.read_only && spec.process.init && spec.security.no_new_privileges);
        assert_eq!(spec.machine.console, Some(Console::Stderr));
        assert_eq!(
            (spec.labels["a"].as_str(), spec.root.tmpfs.len(), spec.process.rlimits.len()),
            ("b", 1, 1)
        );
    }

    #[test]
    fn defaults_are_one_cpu_and_256_mib() {
        let spec = spec(&["demo"]).unwrap();
        assert_eq!((spec.machine.memory.mib(), spec.machine.vcpus.count()), (256, 1));
        assert!(!spec.remove && spec.process.entrypoint.is_none());
    }

    #[test]
    fn an_empty_entrypoint_is_none() {
        assert_eq!(spec(&["--entrypoint", "", "demo"]).unwrap().process.entrypoint, Some(Vec::new()));
    }

    #[test]
    fn errors_name_the_flag() {
        for (words, flag) in [
            (["--name", "../x", "demo"], "--name ../x"),
            (["--workdir", "srv", "demo"], "--workdir srv"),
            (["-h", "a b", "demo"], "--hostname a b"),
            (["-m", "8m", "demo"], "--memory 8m"),
            (["--cpus", "1000", "demo"], "--cpus 1000"),
            (["--tmpfs", "x", "demo"], "--tmpfs x"),
            (["-l", "=x", "demo"], "--label =x"),
        ] {
            let error = spec(&words).unwrap_err().to_string();
            assert!(error.contains(flag), "{error}");
        }
    }

    #[test]
    fn usage_that_makes_no_sense_is_refused() {
        assert!(parsed(&[]).is_err());
        assert!(parsed(&["--no-such-flag", "demo"]).is_err());
    }
}
