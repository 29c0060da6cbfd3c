// SPDX-License-Identifier: Apache-2.0
//! What the image says and what the user says → the one container the agent is told to start.

use super::spec::{ContainerSpec, ProcessSpec, Seccomp};
use super::word::Word;
use crate::capabilities::Capabilities;
use crate::error::{EngineError, Kind, Result};
use crate::etc;
use crate::images::Defaults;
use crate::seccomp::{compile, default_profile};
use isopod_protocol::message::{Container, EtcFile, Rlimit, Tmpfs};
use std::sync::LazyLock;

const PATH: &[u8] = b"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const TERM: &[u8] = b"TERM=xterm";

/// Docker's: what tells of the machine, or would change it.
const MASKED: &[&str] = &[
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
];
const READ_ONLY: &[&str] = &["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// The arguments, by Docker's rules: a command replaces the image's; an entrypoint replaces the image's and drops the
/// image's command with it; the entrypoint comes first.
pub(crate) fn arguments(spec: &ProcessSpec, image: &Defaults) -> Result<Vec<Word>> {
    let entrypoint = spec.entrypoint.as_ref().unwrap_or(&image.entrypoint);
    let inherit = spec.command.is_empty() && spec.entrypoint.is_none();
    let command = if inherit { &image.command } else { &spec.command };
    let all: Vec<Word> = entrypoint.iter().chain(command).cloned().collect();
    match all.first() {
        None => Err(EngineError::new(Kind::Invalid, "no command to run: the image names none")
            .hint("give one after the image: `isopod run IMAGE COMMAND`")),
        Some(program) if program.as_bytes().is_empty() => {
            Err(EngineError::new(Kind::Invalid, "the command's name is empty"))
        }
        Some(_) => Ok(all),
    }
}

/// The environment: what every container has, then the image's, then the user's; a name once, at its first place.
pub(crate) fn environment(spec: &ProcessSpec, image: &Defaults, hostname: &str) -> Vec<Word> {
    let mut all: Vec<Word> = Vec::new();
    let own = [Some(PATH.to_vec()), Some(format!("HOSTNAME={hostname}").into_bytes())];
    let own = own.into_iter().chain([spec.terminal.then(|| TERM.to_vec())]).flatten();
    for entry in own.filter_map(Word::new).chain(image.env.iter().cloned()).chain(spec.env.iter().cloned()) {
        let name = name_of(&entry);
        if name.is_empty() {
            continue;
        }
        match all.iter().position(|known| name_of(known) == name) {
            Some(place) => all[place] = entry,
            None => all.push(entry),
        }
    }
    all
}

fn name_of(entry: &Word) -> &[u8] {
    entry.as_bytes().split(|b| *b == b'=').next().unwrap_or_default()
}

/// The usual one is asked for twice in a run, and takes a hundred microseconds to make.
fn default_filter(capabilities: Capabilities) -> Vec<u8> {
    static USUAL: LazyLock<Vec<u8>> = LazyLock::new(|| compile(&default_profile(Capabilities::DEFAULT)));
    if capabilities == Capabilities::DEFAULT {
        USUAL.clone()
    } else {
        compile(&default_profile(capabilities))
    }
}

/// What most containers are, for whoever prepares for one.
pub(crate) fn likely() -> Container {
    let owned = |paths: &[&str]| paths.iter().map(|path| (*path).to_owned()).collect();
    let nameless = |file: EtcFile| EtcFile { content: Vec::new(), ..file };
    Container {
        capabilities: Capabilities::DEFAULT.bits(),
        seccomp: default_filter(Capabilities::DEFAULT),
        masked_paths: owned(MASKED),
        read_only_paths: owned(READ_ONLY),
        files: etc::files("").into_iter().map(nameless).collect(),
        ..Container::default()
    }
}

/// The container, but for what is only known when it is sent: the time, entropy, the terminal's size.
pub(crate) fn container(
    spec: &ContainerSpec,
    image: &Defaults,
    args: Vec<Word>,
    hostname: &str,
) -> Container {
    let process = &spec.process;
    let owned = |paths: &[&str]| match spec.security.system_paths_unconfined {
        true => Vec::new(),
        false => paths.iter().map(|p| (*p).to_owned()).collect(),
    };
    let capabilities = spec.security.capabilities;
    let rlimit = |l: &super::spec::Ulimit| Rlimit { resource: l.resource, soft: l.soft, hard: l.hard };
    Container {
        args: args.into_iter().map(Word::into_bytes).collect(),
        env: environment(process, image, hostname).into_iter().map(Word::into_bytes).collect(),
        cwd: process
            .cwd
            .as_ref()
            .or(image.cwd.as_ref())
            .map_or_else(|| b"/".to_vec(), |cwd| cwd.as_bytes().to_vec()),
        user: process.user.clone().unwrap_or_else(|| image.user.clone()),
        hostname: hostname.to_owned(),
        stdin: process.stdin,
        capabilities: capabilities.bits(),
        no_new_privileges: spec.security.no_new_privileges,
        seccomp: match &spec.security.seccomp {
            Seccomp::Default => default_filter(capabilities),
            Seccomp::Profile(profile) => compile(profile),
            Seccomp::Unconfined => Vec::new(),
        },
        rlimits: process.rlimits.iter().map(rlimit).collect(),
        read_only_root: spec.root.read_only,
        tmpfs: (spec.root.tmpfs.iter())
            .map(|m| Tmpfs { target: m.target.clone(), options: m.options.clone() })
            .collect(),
        masked_paths: owned(MASKED),
        read_only_paths: owned(READ_ONLY),
        init: process.init,
        files: etc::files(hostname),
        ..Container::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(texts: &[&str]) -> Vec<Word> {
        texts.iter().map(|t| Word::new(*t).unwrap()).collect()
    }

    fn image() -> Defaults {
        Defaults {
            entrypoint: words(&["/entry"]),
            command: words(&["default"]),
            env: words(&["PATH=/opt/bin", "LANG=C"]),
            ..Defaults::default()
        }
    }

    fn run(entrypoint: Option<&[&str]>, command: &[&str]) -> Result<Vec<Word>> {
        let spec = ProcessSpec {
            entrypoint: entrypoint.map(words),
            command: words(command),
            ..ProcessSpec::default()
        };
        arguments(&spec, &image())
    }

    #[test]
    fn an_image_by_itself_runs_its_entrypoint_with_its_command() {
        assert_eq!(run(None, &[]).unwrap(), words(&["/entry", "default"]));
    }

    #[test]
    fn a_command_replaces_the_images() {
        assert_eq!(run(None, &["a", "b"]).unwrap(), words(&["/entry", "a", "b"]));
    }

    #[test]
    fn an_entrypoint_drops_the_images_command_too() {
        assert_eq!(run(Some(&["/mine"]), &[]).unwrap(), words(&["/mine"]));
        assert_eq!(run(Some(&["/mine"]), &["x"]).unwrap(), words(&["/mine", "x"]));
    }

    #[test]
    fn an_empty_entrypoint_leaves_the_command_alone() {
        assert_eq!(run(Some(&[]), &["sh"]).unwrap(), words(&["sh"]));
        assert_eq!(run(Some(&[]), &[]).unwrap_err().kind(), Kind::Invalid);
        assert_eq!(run(Some(&[]), &[""]).unwrap_err().kind(), Kind::Invalid);
    }

    #[test]
    fn later_variables_replace_earlier_ones_in_place() {
        let spec =
            ProcessSpec { env: words(&["LANG=de", "NEW=1", "NEW=2", "EMPTY="]), ..ProcessSpec::default() };
        let env = environment(&spec, &image(), "box");
        assert_eq!(env, words(&["PATH=/opt/bin", "HOSTNAME=box", "LANG=de", "NEW=2", "EMPTY="]));
    }

    #[test]
    fn a_terminal_brings_term_unless_somebody_says_otherwise() {
        let spec = ProcessSpec { terminal: true, ..ProcessSpec::default() };
        let plain = environment(&spec, &Defaults::default(), "box");
        assert_eq!(plain[2], Word::new("TERM=xterm").unwrap());
        let spec = ProcessSpec { env: words(&["TERM=vt100"]), ..spec };
        assert_eq!(environment(&spec, &Defaults::default(), "box")[2], Word::new("TERM=vt100").unwrap());
    }
}
