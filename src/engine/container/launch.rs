// SPDX-License-Identifier: Apache-2.0
//! From everything prepared to the container's end.
//!
//! ```text
//!   record ─► machine ─┬─ from a file: its first words at the agent's mailbox ─┬─► stdio, wishes … ─► exit
//!                      └─ booted: hello, then Start ───────────────────────────┘        │
//!                                     record: Starting, Running, Paused ────────────────┴► Exited, or gone
//! ```

use super::beneath;
use super::conclude::{conclude, exit_code};
use super::control::Control;
use super::name::random;
use super::now;
use super::prepare::Prepared;
use super::process;
use super::records::{MachineProcess, Owned, Records, new_record};
use super::run::Finished;
use super::spec::ContainerSpec;
use super::state::{Change, Exit};
use super::word::Word;
use crate::error::{EngineError, Kind, Result};
use crate::etc;
use crate::images::{Defaults, Images};
use crate::machine::{Watched, not_started, without};
use crate::signals;
use crate::stdio::still::{Portrait, Saving, Told, thaw};
use crate::stdio::{Ending, Parts, Session};
use crate::template::{Greeting, Learns, Templates};
use crate::terminal::Streams;
use crate::timings::{Mark, Timings};
use isopod_image::Image;
use isopod_jail::{Layers, Waiting, supervise};
use isopod_protocol::frame::MAX_MESSAGE;
use isopod_protocol::message::{Container, Thaw};
use isopod_protocol::{AGENT_PORT, FromHost};
use isopod_sys::heap;
use isopod_vmm::client::{self, MachineDescriptors, ShareFiles};
use isopod_vmm::envelope::{Identity, Kind as SavedAs};
use isopod_vmm::{Event, Machine, MachineConfig};
use prost::Message;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::fs::File;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;

/// What the host adds to a Start when it is sent: the time, entropy, a size.
const ADDED_LATER: usize = 256;
/// How long the counters may take; they are for show.
const COUNTING: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000_000 };

/// What a launch needs of the engine.
pub(crate) struct Context<'a> {
    pub(crate) images: &'a Images,
    pub(crate) records: &'a Records,
    pub(crate) templates: &'a Templates,
    /// Of the jail, as far as this host and its user have it.
    pub(crate) layers: Layers,
    /// The machine's process, if it is there already.
    pub(crate) waiting: Option<Waiting>,
    pub(crate) streams: Streams<'a>,
    pub(crate) timings: &'a mut Timings,
}

/// What a machine is restored from, and what its agent said when it came up.
#[derive(Debug)]
pub(crate) struct Source {
    pub(crate) file: File,
    pub(crate) identity: Identity,
    pub(crate) greeting: Greeting,
    pub(crate) touched: Option<File>,
    /// There if nobody knows what a start from it touches.
    pub(crate) learns: Option<Learns>,
}

/// What the agent is told first.
pub(crate) enum First<'a> {
    Start {
        defaults: &'a Defaults,
        args: Vec<Word>,
    },
    /// To go on as somebody else.
    Thaw(Box<Portrait>),
}

pub(crate) struct Launch<'a> {
    pub(crate) spec: ContainerSpec,
    /// What the image is called in the record.
    pub(crate) image: String,
    pub(crate) command: Vec<Word>,
    pub(crate) prepared: Prepared,
    /// Without one the machine boots.
    pub(crate) source: Option<Source>,
    pub(crate) first: First<'a>,
    /// What went wrong so far, and is to be told.
    pub(crate) trouble: Vec<EngineError>,
}

pub(crate) fn launch(context: Context<'_>, launch: Launch<'_>) -> Result<Finished> {
    let Context { records, templates, streams, timings, .. } = context;
    let Launch { spec, image, command, prepared, mut source, first, mut trouble } = launch;
    let digest = prepared.image.digest.to_string();
    let record = |id, name| {
        let mut record = new_record(id, name, spec.clone());
        (record.image, record.image_digest, record.command) = (image, digest, command);
        record
    };
    // Until here a signal may simply end us: the machine's process ends with us, and whoever comes next removes its control
    // group.
    let signals = signals::take().map_err(EngineError::io("cannot take signals"))?;
    let mut owned = records.create(spec.name.clone(), record)?;
    timings.mark(Mark::Recorded);
    let hostname =
        spec.hostname.as_ref().map_or_else(|| owned.record.id.short().to_owned(), |h| h.as_str().to_owned());
    // Without it nobody can ask for anything, and the container runs all the same.
    let control = Control::listen(owned.folder())
        .map_err(|e| trouble.push(EngineError::io("pause and snapshot will not reach the container")(e)))
        .ok();

    let (mut session, mut running) = (None, None);
    let learns = source.as_mut().and_then(|source| source.learns.take());
    let result = opening(first, &spec, &hostname).and_then(|mut opening| {
        if let Opening::Start(container) = &mut opening {
            beneath::describe(container, &prepared.image.index);
        }
        let (limits, layers) = (prepared.limits, prepared.process.layers);
        let saving = source.as_ref().map(|source| saving_of(source, &owned));
        let greeting = source.as_ref().map(|source| source.greeting.clone());
        let (machine, agent) = start(prepared, source)?;
        let container = opening.container();
        let parts = Parts { agent, streams, signals: &signals, container, limits, timings, control };
        let session = session.insert(Session::new(parts, opening.terminal(&spec)));
        let words = match (opening, greeting) {
            (Opening::Start(_), Some(greeting)) => Some(session.first_words(greeting)),
            (Opening::Start(_), None) => None,
            (Opening::Thaw(portrait, thaw), _) => Some(session.first_words_to_copy(&portrait, thaw)),
        };
        if let Some(words) = words {
            machine.deliver(&words).map_err(EngineError::io("cannot tell the machine what to start"))?;
        }
        learns.into_iter().for_each(|learns| session.learn(learns));
        saving.into_iter().for_each(|saving| session.can_be_saved(saving));
        let machine = running.insert(machine);
        if session.learns() {
            machine.look_at_pages();
        }
        settle(layers, templates)?;
        attend(machine, session, &mut owned, records, &mut trouble)
    });
    let exit = match &result {
        Ok(exit) => exit.clone(),
        Err(error) => Exit::new(exit_code(error.kind()), now()).because(error.to_string()),
    };
    trouble.extend(owned.change(Change::End(exit)).err());
    // Only now, for it waits for whoever reads our output.
    if let Some(session) = &mut session {
        session.flush();
    }
    if spec.remove {
        trouble.extend(records.remove_owned(owned).err());
    }
    // The end of one that ran was asked for before all that; it takes the kernel a while to take a machine apart.
    drop(running);
    if let Some(session) = &mut session {
        session.torn_down();
    }
    result.map(|exit| Finished { exit, trouble })
}

/// What the agent is told first, worked out.
enum Opening {
    Start(Box<Container>),
    Thaw(Box<Portrait>, Thaw),
}

impl Opening {
    /// What the session takes the container for.
    fn container(&self) -> Container {
        match self {
            Self::Start(container) => Container::clone(container),
            Self::Thaw(portrait, _) => {
                Container { stdin: portrait.record.spec.process.stdin, ..Container::default() }
            }
        }
    }

    fn terminal(&self, spec: &ContainerSpec) -> bool {
        match self {
            Self::Start(_) => spec.process.terminal,
            Self::Thaw(portrait, _) => portrait.talk.terminal,
        }
    }
}

fn opening(first: First<'_>, spec: &ContainerSpec, hostname: &str) -> Result<Opening> {
    match first {
        First::Start { defaults, args } => {
            let container = process::container(spec, defaults, args, hostname);
            check_length(&container)?;
            Ok(Opening::Start(Box::new(container)))
        }
        First::Thaw(mut portrait) => {
            // The session asks whether this run's input is passed on, not the original's.
            portrait.record.spec.process.stdin = spec.process.stdin;
            let files = etc::identity(hostname, &random());
            let thaw = Thaw { hostname: hostname.to_owned(), files, ..thaw(true) };
            Ok(Opening::Thaw(portrait, thaw))
        }
    }
}

fn check_length(container: &Container) -> Result<()> {
    let len = FromHost::start(container.clone()).encoded_len() + ADDED_LATER;
    if len > MAX_MESSAGE {
        let what = format!("arguments, environment and settings are too long ({len} bytes of {MAX_MESSAGE})");
        return Err(EngineError::new(Kind::Invalid, what));
    }
    Ok(())
}

/// What snapshots of this container will say of it.
fn saving_of(source: &Source, owned: &Owned) -> Saving {
    let identity =
        Identity { kind: SavedAs::Snapshot, extra: serde_json::Value::Null, ..source.identity.clone() };
    Saving { identity, record: owned.record.clone(), greeting: source.greeting.clone() }
}

/// Starts the machine; gives our end of the agent's stream with it.
fn start(prepared: Prepared, source: Option<Source>) -> Result<(Machine, OwnedFd)> {
    let failed = "cannot start the machine";
    let (ours, theirs) = UnixStream::pair().map_err(EngineError::io(failed))?;
    let layers = |n: usize| u16::try_from(n).map_err(EngineError::io("the image has too many layers"));
    let Image { index, layers: files, view, .. } = prepared.image;
    // Closed when the machine has its files: that takes longer than anything else here.
    let _views = (view, prepared.view);
    let image = ShareFiles { index, layers: files };
    let config = MachineConfig {
        vcpus: prepared.vcpus,
        memory_mib: prepared.memory_mib,
        cmdline_extra: String::new(),
        console: prepared.console.is_some(),
        assist: prepared.kvm.host.assist,
        agent_port: AGENT_PORT,
        boot_layers: layers(prepared.boot.layers.len())?,
        image_layers: Some(layers(image.layers.len())?),
        restored: source.is_some(),
        touched: source.as_ref().is_some_and(|source| source.touched.is_some()),
    };
    let (saved, touched) = source.map(|source| (source.file, source.touched)).unzip();
    let descriptors = MachineDescriptors {
        kvm: prepared.kvm.file.into(),
        kernel: prepared.kernel.file,
        agent: theirs,
        boot: prepared.boot,
        image: Some(image),
        console: prepared.console,
        saved,
        touched: touched.flatten(),
    };
    let machine = client::start(prepared.process, &config, descriptors).map_err(not_started)?;
    Ok((machine, ours.into()))
}

/// From here on this process only supervises: it gives up what that does not take.
fn settle(layers: Layers, templates: &Templates) -> Result<()> {
    let below = |folder| templates.data_root().join(folder);
    supervise(layers, &[&below("containers"), &below("templates"), templates.run_root()]).map_err(|e| {
        let hint = without(e.layer);
        EngineError::new(Kind::Unavailable, "cannot give up what supervision does not take")
            .because(e)
            .hint(hint)
    })
}

/// Stays with the machine until it is known how the container ended, and the machine is about to be gone.
fn attend(
    machine: &mut Machine,
    session: &mut Session<'_>,
    owned: &mut Owned,
    records: &Records,
    trouble: &mut Vec<EngineError>,
) -> Result<Exit> {
    // All of this while the guest starts.
    owned.record.machine = MachineProcess::of(machine.pid());
    trouble.extend(owned.change(Change::Start).err());
    trouble.extend(records.sweep().err());
    let mut tell = |told| {
        let change = match told {
            Told::Up => Change::Up { at: now() },
            Told::Paused => Change::Pause,
            Told::Unpaused => Change::Unpause,
        };
        trouble.extend(owned.change(change).err());
        if told == Told::Up {
            // From here on there is little to do for as long as the container runs.
            heap::give_back();
        }
    };
    let ending = session.serve(machine, &mut tell);
    if matches!(ending, Ending::Exited(_)) {
        session.count(machine);
    }
    machine.end();
    conclude(ending)
}

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
mod tests {
    use super::*;

    #[test]
    fn arguments_that_no_message_holds_are_refused() {
        let container = Container { args: vec![vec![b'x'; MAX_MESSAGE]], ..Container::default() };
        assert_eq!(check_length(&container).unwrap_err().kind(), Kind::Invalid);
        check_length(&Container::default()).unwrap();
    }
}
