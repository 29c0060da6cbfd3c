// SPDX-License-Identifier: Apache-2.0
//! `run`, in the foreground.
//!
//! ```text
//!   spec ─► image ─► kernel, KVM, boot share ─► record ─► machine ─► hello ─► Start ─► stdio … ─► exit
//!           └────────── nothing is left behind if one fails ──────┘        │                      │
//!                                                 record: Starting, Running └──────────────────────┴► Exited, or gone
//! ```

use super::now;
use super::process;
use super::records::{MachineProcess, Owned, Records, new_record};
use super::spec::{Console, ContainerSpec};
use super::state::{Change, Exit, KILLED};
use crate::agent::Phase;
use crate::boot;
use crate::error::{EngineError, Kind, Result};
use crate::images::{Defaults, Images};
use crate::kernel::{self, Kernel};
use crate::kvm::{self, Kvm};
use crate::signals;
use crate::sink::own_description;
use crate::stdio::{Ending, Limits, Parts, Session, Waiting, Watched};
use crate::terminal::Streams;
use crate::timings::{Mark, Timings};
use isopod_image::Image;
use isopod_protocol::frame::MAX_MESSAGE;
use isopod_protocol::message::{Container, FailedKind};
use isopod_protocol::{AGENT_PORT, FromHost};
use isopod_vmm::client::{self, MachineDescriptors, ShareFiles};
use isopod_vmm::config::Assist;
use isopod_vmm::{End, Event, Machine, MachineConfig};
use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::dup;
use rustix::stdio::stderr;
use rustix::system::sysinfo;
use std::env;
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const START_TIMEOUT: &str = "ISOPOD_START_TIMEOUT";
/// A day.
const MAX_START_TIMEOUT: u64 = 86_400;
/// What the host adds to a Start when it is sent: the time, entropy, a size.
const ADDED_LATER: usize = 256;

/// How a run ended, and what went wrong beside it.
#[derive(Debug)]
pub struct Finished {
    pub exit: Exit,
    pub trouble: Vec<EngineError>,
}

/// What `run` needs of the engine.
pub(crate) struct Context<'a> {
    pub(crate) images: &'a Images,
    pub(crate) records: &'a Records,
    pub(crate) data_root: &'a Path,
    pub(crate) run_root: &'a Path,
    pub(crate) streams: Streams<'a>,
    pub(crate) timings: &'a mut Timings,
}

/// Everything a machine is made from, opened and checked before anything is written down.
struct Prepared {
    image: Image,
    defaults: Defaults,
    kernel: Kernel,
    kvm: Kvm,
    boot: ShareFiles,
    console: Option<File>,
}

pub(crate) fn run(context: Context<'_>, spec: ContainerSpec) -> Result<Finished> {
    let Context { images, records, data_root, run_root, streams, timings } = context;
    if spec.process.terminal && spec.process.stdin && !streams.stdin_is_terminal() {
        return Err(EngineError::new(Kind::Invalid, "the input device is not a TTY")
            .hint("leave -t out, or run it from a terminal"));
    }
    let image = images.resolve(&spec.image)?;
    timings.mark(Mark::ImageResolved);
    let prepared = prepare(image, &spec, data_root, run_root)?;
    let args = process::arguments(&spec.process, &prepared.defaults)?;
    timings.mark(Mark::MachineAsked);

    let record = |id, name| {
        let mut record = new_record(id, name, spec.clone());
        record.image =
            prepared.image.reference.as_ref().map_or_else(|| spec.image.clone(), ToString::to_string);
        record.image_digest = prepared.image.digest.to_string();
        record.command.clone_from(&args);
        record
    };
    let limits = limits(prepared.kvm.host.assist)?;
    // Until here a signal may simply end us: there is nothing to clean up.
    let signals = signals::take().map_err(EngineError::io("cannot take signals"))?;
    let mut owned = records.create(spec.name.clone(), record)?;
    timings.mark(Mark::Recorded);
    let hostname =
        spec.hostname.as_ref().map_or_else(|| owned.record.id.short().to_owned(), |h| h.as_str().to_owned());
    let container = process::container(&spec, &prepared.defaults, args.clone(), &hostname);

    let mut trouble = Vec::new();
    let mut session = None;
    let result =
        check_length(&container).and_then(|()| start(prepared, &spec)).and_then(|(machine, agent)| {
            let parts = Parts { agent, streams, signals: &signals, container, limits, timings };
            let session = session.insert(Session::new(parts, spec.process.terminal));
            attend(machine, session, &mut owned, records, &mut trouble)
        });
    let exit = match &result {
        Ok(exit) => exit.clone(),
        Err(error) => Exit::new(exit_code(error.kind()), now()).because(error.to_string()),
    };
    trouble.extend(owned.change(Change::End(exit)).err());
    // Only now, for it waits for whoever reads our output.
    if let Some(mut session) = session {
        session.flush();
    }
    if spec.remove {
        trouble.extend(records.remove_owned(owned).err());
    }
    result.map(|exit| Finished { exit, trouble })
}

/// The exit code of a failure to run, as Docker has it.
pub fn exit_code(kind: Kind) -> u8 {
    match kind {
        Kind::NotExecutable => 126,
        Kind::NoCommand => 127,
        _ => 125,
    }
}

fn prepare(image: Image, spec: &ContainerSpec, data_root: &Path, run_root: &Path) -> Result<Prepared> {
    let defaults = Defaults::of(&image.config)?;
    let kernel = kernel::find(spec.machine.kernel.as_deref())?;
    let kvm = kvm::open(run_root)?;
    check_host(spec, &kvm)?;
    let boot = boot::share(data_root)?;
    let console = match &spec.machine.console {
        None => None,
        Some(Console::Stderr) => {
            // Its own description, which does not wait: whoever stops reading stderr must not stop the guest.
            let copy = own_description(stderr()).or_else(|_| dup(stderr()));
            Some(File::from(copy.map_err(EngineError::io("cannot give stderr to the console"))?))
        }
        Some(Console::File(path)) => {
            let made = File::create(path);
            Some(made.map_err(EngineError::io(format!("cannot write the console to {}", path.display())))?)
        }
    };
    Ok(Prepared { image, defaults, kernel, kvm, boot, console })
}

fn check_host(spec: &ContainerSpec, kvm: &Kvm) -> Result<()> {
    let info = sysinfo();
    let has = info.totalram.saturating_mul(info.mem_unit.into());
    let (memory, vcpus) = (spec.machine.memory, spec.machine.vcpus.count());
    if memory.bytes() > has {
        let what = format!("{} MiB of memory asked for; this host has {}", memory.mib(), has / 1024 / 1024);
        return Err(EngineError::new(Kind::Unavailable, what).hint("ask for less with -m"));
    }
    if u64::from(vcpus) > kvm.host.max_vcpus {
        let what = format!("{vcpus} CPUs asked for; this KVM has {} for a machine", kvm.host.max_vcpus);
        return Err(EngineError::new(Kind::Unavailable, what).hint("ask for fewer with --cpus"));
    }
    Ok(())
}

fn check_length(container: &Container) -> Result<()> {
    let len = FromHost::start(container.clone()).encoded_len() + ADDED_LATER;
    if len > MAX_MESSAGE {
        let what = format!("arguments, environment and settings are too long ({len} bytes of {MAX_MESSAGE})");
        return Err(EngineError::new(Kind::Invalid, what));
    }
    Ok(())
}

/// Starts the machine; gives our end of the agent's stream with it.
fn start(prepared: Prepared, spec: &ContainerSpec) -> Result<(Machine, OwnedFd)> {
    let failed = "cannot start the machine";
    let (ours, theirs) = UnixStream::pair().map_err(EngineError::io(failed))?;
    let layers = |n: usize| u16::try_from(n).map_err(EngineError::io("the image has too many layers"));
    let config = MachineConfig {
        vcpus: spec.machine.vcpus.count(),
        memory_mib: spec.machine.memory.mib(),
        cmdline_extra: String::new(),
        console: prepared.console.is_some(),
        assist: prepared.kvm.host.assist,
        agent_port: AGENT_PORT,
        boot_layers: layers(prepared.boot.layers.len())?,
        image_layers: layers(prepared.image.layers.len())?,
    };
    let descriptors = MachineDescriptors {
        kvm: prepared.kvm.file.into(),
        kernel: prepared.kernel.file,
        agent: theirs,
        boot: prepared.boot,
        image: ShareFiles { index: prepared.image.index, layers: prepared.image.layers },
        console: prepared.console,
    };
    let machine =
        client::start(&config, descriptors).map_err(|e| EngineError::new(Kind::Io, failed).because(e))?;
    Ok((machine, ours.into()))
}

/// Stays with the machine until it is known how the container ended, and the machine is gone.
fn attend(
    mut machine: Machine,
    session: &mut Session<'_>,
    owned: &mut Owned,
    records: &Records,
    trouble: &mut Vec<EngineError>,
) -> Result<Exit> {
    // All of this while the guest boots.
    owned.record.machine = MachineProcess::of(machine.pid());
    trouble.extend(owned.change(Change::Start).err());
    trouble.extend(records.sweep().err());

    let mut up = || trouble.extend(owned.change(Change::Up { at: now() }).err());
    let ending = session.serve(&mut machine, &mut up);
    if matches!(ending, Ending::Exited(_)) {
        session.count(&mut machine);
    }
    machine.kill();
    session.torn_down();
    conclude(ending)
}

/// The deadlines for this kind of KVM, unless the user knows better.
fn limits(assist: Assist) -> Result<Limits> {
    let (start, signal) = match assist {
        Assist::None => (20, 10),
        Assist::Emulated => (240, 60),
    };
    let start = match env::var(START_TIMEOUT) {
        Ok(asked) => seconds(&asked)?,
        Err(_) => start,
    };
    Ok(Limits { start: Duration::from_secs(start), signal: Duration::from_secs(signal) })
}

fn seconds(asked: &str) -> Result<u64> {
    let seconds = asked.trim().parse().ok().filter(|seconds| (1..=MAX_START_TIMEOUT).contains(seconds));
    seconds.ok_or_else(|| {
        EngineError::new(Kind::Invalid, format!("{START_TIMEOUT}={asked:?} is not a number of seconds"))
            .hint(format!("1 to {MAX_START_TIMEOUT}, without a unit"))
    })
}

/// What each ending means to who started the container.
///
/// | ending | before the process ran | while it ran |
/// |---|---|---|
/// | the process exited | | its code |
/// | the agent could not start it | 125, 126, 127 | |
/// | the guest powered off, reset, panicked, triple-faulted; its machine was killed | 125 | 137 and the reason |
/// | KVM could not go on; the agent broke the protocol | 125 | 125 |
/// | no answer by the deadline | 125 | 137 and the reason |
/// | a signal to us | 128 and its number | (passed on) |
/// | three of SIGINT and SIGTERM within 3 s | | 137 and the reason |
fn conclude(ending: Ending) -> Result<Exit> {
    let killed = |reason: String| Ok(Exit::new(KILLED, now()).because(reason));
    let guest = |what: &str| EngineError::new(Kind::Guest, what);
    let not_started = "the container did not start";
    match ending {
        Ending::Exited(end) => {
            let exit = Exit::new(end.code, now());
            let reason = end.out_of_memory.then(|| "the guest ran out of memory".to_owned());
            Ok(Exit { out_of_memory: end.out_of_memory, reason, ..exit })
        }
        Ending::NotStarted { kind, message } => {
            let kind = match kind {
                FailedKind::Setup => Kind::Guest,
                FailedKind::NotFound => Kind::NoCommand,
                FailedKind::NotExecutable => Kind::NotExecutable,
                FailedKind::NoSuchUser => Kind::Invalid,
            };
            Err(EngineError::new(kind, not_started).because(message))
        }
        Ending::Machine { end: end @ End::InternalError { .. }, .. } => {
            Err(guest("the machine cannot go on")
                .because(end.to_string())
                .hint("`isopod doctor` looks at this host's KVM"))
        }
        Ending::Machine { end, phase: Phase::Up } => killed(end.to_string()),
        Ending::Machine { end, .. } => Err(guest(not_started).because(end.to_string()).hint(CONSOLE)),
        Ending::Misbehaved(why) => {
            Err(guest("the guest's agent broke the protocol; its machine was ended").because(why))
        }
        Ending::Silent { waiting: Waiting::Signal, limit } => killed(format!(
            "the guest did not take a signal within {} s; its machine was ended",
            limit.as_secs()
        )),
        Ending::Silent { waiting, limit } => {
            let what = if waiting == Waiting::Hello {
                "the guest's agent did not answer"
            } else {
                "the process was not started"
            };
            let cause = format!("nothing was heard for {} s; the machine was ended", limit.as_secs());
            Err(guest(what)
                .because(cause)
                .hint(format!("{CONSOLE}; {START_TIMEOUT} sets the seconds to wait")))
        }
        Ending::Interrupted(signal) => {
            let code = u8::try_from(128 + signal).unwrap_or(KILLED);
            Ok(Exit::new(code, now()).because("broken off before it had started"))
        }
        Ending::Insisted => {
            killed("the process did not end at three signals; its machine was ended".to_owned())
        }
        Ending::HungUp { phase: Phase::Up } => {
            killed("the guest's agent hung up; its machine was ended".to_owned())
        }
        Ending::HungUp { .. } => Err(guest(not_started).because("the guest's agent hung up").hint(CONSOLE)),
    }
}

const CONSOLE: &str = "--console shows what the guest's kernel says";

/// How long the counters may take; they are for show.
const COUNTING: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

impl Session<'_> {
    /// Has the machine count once more, now that its work is done.
    fn count(&mut self, machine: &mut Machine) {
        if machine.ask_counters().is_err() {
            return;
        }
        let mut fds = [PollFd::new(&*machine, PollFlags::IN)];
        if poll(&mut fds, Some(&COUNTING)) == Ok(1)
            && let Event::Counters(counters) = machine.event()
        {
            self.counted(counters);
        }
    }
}

#[cfg(test)]
mod tests;
