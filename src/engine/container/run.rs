// SPDX-License-Identifier: Apache-2.0
//! `run`, in the foreground: a container from an image.
//!
//! ```text
//!   spec ─► image ─► kernel, KVM, boot share, template ─► launch: record ─► machine ─► … ─► exit
//!     └─ a process, on its way to its jail ─ gone again if one of these fails ─┘
//! ```

use super::conclude::conclude;
use super::launch::{Context, First, Launch, Source, launch};
use super::prepare::{Prepared, check_host, limits, prepare, spawn};
use super::process;
use super::spec::{ContainerSpec, MachineSpec};
use super::state::Exit;
use crate::error::{EngineError, Kind, Result};
use crate::images::Defaults;
use crate::template::{Failed, Greeting, Making, Needed, Templates};
use crate::timings::Mark;
use crate::{kernel, kvm};
use isopod_jail::Layers;
use std::result::Result as StdResult;

/// How a run ended, and what went wrong beside it.
#[derive(Debug)]
pub struct Finished {
    pub exit: Exit,
    pub trouble: Vec<EngineError>,
}

pub(crate) fn run(
    mut context: Context<'_>,
    spec: ContainerSpec,
    making: &mut dyn FnMut(Making),
) -> Result<Finished> {
    if spec.process.terminal && spec.process.stdin && !context.streams.stdin_is_terminal() {
        return Err(EngineError::new(Kind::Invalid, "the input device is not a TTY")
            .hint("leave -t out, or run it from a terminal"));
    }
    let process = spawn(&spec, context.layers, context.waiting.take())?;
    let image = context.images.resolve(&spec.image)?;
    context.timings.mark(Mark::ImageResolved);
    let defaults = Defaults::of(&image.config)?;
    let prepared = prepare(image, process, &spec, context.templates)?;
    let mut trouble = Vec::new();
    let source = match spec.machine.template && spec.machine.console.is_none() {
        true => template(&prepared, context.templates, making)
            .map_or_else(|failed| fall_back(failed, &mut trouble), |source| Ok(Some(source)))?,
        false => None,
    };
    let args = process::arguments(&spec.process, &defaults)?;
    context.timings.mark(Mark::MachineAsked);
    let launching = Launch {
        image: prepared.image.reference.as_ref().map_or_else(|| spec.image.clone(), ToString::to_string),
        first: First::Start { defaults: &defaults, args: args.clone() },
        command: args,
        spec,
        source,
        prepared,
        trouble,
    };
    launch(context, launching)
}

/// The template this machine starts from, made if need be.
fn template(
    prepared: &Prepared,
    templates: &Templates,
    making: &mut dyn FnMut(Making),
) -> StdResult<Source, Failed> {
    let needed = Needed {
        kernel: &prepared.kernel,
        kvm: &prepared.kvm,
        vcpus: prepared.vcpus,
        memory_mib: prepared.memory_mib,
        limit: prepared.limits.start,
        layers: prepared.process.layers,
    };
    let sealed = templates.ensure(needed, making)?;
    let greeting: Greeting = serde_json::from_value(sealed.envelope.identity.extra.clone())
        .map_err(EngineError::io("a template does not say what its agent said"))?;
    let (touched, learns) = match templates.touched(needed)? {
        Ok(list) => (Some(list), None),
        Err(learns) => (None, Some(learns)),
    };
    Ok(Source { file: sealed.file, identity: sealed.envelope.identity, greeting, touched, learns })
}

/// A guest that cannot become a template cannot run a container; without a template a machine boots.
fn fall_back(failed: Failed, trouble: &mut Vec<EngineError>) -> Result<Option<Source>> {
    match failed {
        Failed::Guest(ending) => conclude(ending).map(|_| None),
        Failed::Host(error) => {
            trouble.push(error.hint("the machine was booted instead, which takes longer"));
            Ok(None)
        }
    }
}

/// Makes the template for machines of this make, if there is none; gives its key.
pub(crate) fn build_template(
    (templates, layers): (&Templates, Layers),
    machine: &MachineSpec,
    making: &mut dyn FnMut(Making),
) -> Result<String> {
    let kernel = kernel::find(machine.kernel.as_deref())?;
    let kvm = kvm::open(templates.run_root())?;
    check_host(machine, &kvm)?;
    let needed = Needed {
        kernel: &kernel,
        kvm: &kvm,
        vcpus: machine.vcpus.count(),
        memory_mib: machine.memory.mib(),
        limit: limits(kvm.host.assist)?.start,
        layers,
    };
    match templates.ensure(needed, making) {
        Ok(_) => templates.key(needed),
        Err(Failed::Host(error)) => Err(error),
        Err(Failed::Guest(ending)) => {
            let unlikely =
                |_| Err(EngineError::new(Kind::Guest, "the machine ended before it was a template"));
            conclude(ending).and_then(unlikely)
        }
    }
}
