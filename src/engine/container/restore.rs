// SPDX-License-Identifier: Apache-2.0
//! `run --from-snapshot` and the copies of `fork`: a container that goes on where another one was.

use super::launch::{Context, First, Launch, Source, launch};
use super::name::Name;
use super::prepare::{prepare, spawn};
use super::run::Finished;
use super::spec::Hostname;
use crate::error::{EngineError, Kind, Result};
use crate::snapshot::{Opened, Snapshots};
use crate::template::Needed;
use crate::timings::Mark;
use isopod_jail::Layers;
use isopod_vmm::envelope::Identity;
use isopod_vmm::envelope::Kind as SavedAs;

/// What a copy has of its own; everything else is as it was.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CopySpec {
    /// One is thrown if there is none.
    pub name: Option<Name>,
    pub remove: bool,
    pub stdin: bool,
    /// Its own id, if there is none and the original had none that was chosen.
    pub hostname: Option<Hostname>,
}

pub(crate) fn restore(
    mut context: Context<'_>,
    snapshots: &Snapshots,
    opened: Opened,
    copy: CopySpec,
) -> Result<Finished> {
    let record = opened.portrait.record.clone();
    let mut spec = record.spec;
    spec.name = copy.name;
    spec.remove = copy.remove;
    spec.hostname = copy.hostname.or(spec.hostname);
    spec.process.stdin = copy.stdin;
    // A file is no authority on which others are opened here.
    (spec.machine.kernel, spec.machine.console) = (None, None);
    // Nor on what holds its machine back.
    spec.security.unjailed = Layers::NONE;
    if opened.portrait.talk.terminal && spec.process.stdin && !context.streams.stdin_is_terminal() {
        return Err(EngineError::new(Kind::Invalid, "the input device is not a TTY")
            .because("the container was started with a terminal")
            .hint("leave -i out, or run it from a terminal"));
    }
    let process = spawn(&spec, context.layers, context.waiting.take())?;
    // Not by its name, which may be another image's by now.
    let image = context.images.resolve(&record.image_digest)?;
    context.timings.mark(Mark::ImageResolved);
    let prepared = prepare(image, process, &spec, context.templates)?;
    let needed = Needed {
        kernel: &prepared.kernel,
        kvm: &prepared.kvm,
        vcpus: opened.identity.vcpus,
        memory_mib: opened.identity.memory_mib,
        limit: prepared.limits.start,
        layers: prepared.process.layers,
    };
    let needed = Identity { kind: SavedAs::Snapshot, ..context.templates.identity(needed)? };
    snapshots.check(&opened, &needed)?;
    context.timings.mark(Mark::MachineAsked);
    let Opened { file, identity, portrait } = opened;
    let launching = Launch {
        spec,
        image: record.image,
        command: record.command,
        prepared,
        source: Some(Source {
            file,
            identity,
            greeting: portrait.greeting.clone(),
            touched: None,
            learns: None,
        }),
        first: First::Thaw(Box::new(portrait)),
        trouble: Vec::new(),
    };
    launch(context, launching)
}
