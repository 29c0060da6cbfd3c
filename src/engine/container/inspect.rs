// SPDX-License-Identifier: Apache-2.0
//! What there is to say of a container, in Docker's words; and what holds its machine back, as the kernel tells it.

use super::records::{MachineProcess, Record};
use super::state::State;
use crate::Engine;
use crate::error::{EngineError, Kind, Result};
use crate::time::rfc3339_of;
use isopod_jail::{Observation, observe};
use serde::Serialize;
use serde_json::{Value, json};

/// Of what Docker's `container inspect` tells, that which is known here.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct ContainerInspect {
    pub id: String,
    pub created: String,
    pub path: Value,
    pub args: Vec<Value>,
    pub state: Value,
    /// The digest of the image's manifest.
    pub image: String,
    pub name: String,
    pub platform: &'static str,
    pub config: Value,
    /// The layers that hold the machine's process, as far as they can be told from outside; none without a machine.
    pub isolation: Vec<&'static str>,
}

impl Engine {
    pub fn inspect_container(&self, name: &str) -> Result<ContainerInspect> {
        let record = self.records.find(name)?;
        let isolation = match process(&record) {
            Some(process) => holding(process.pid),
            None => Vec::new(),
        };
        Ok(told(&record, isolation))
    }

    /// What holds a running container's machine back, layer by layer.
    pub fn isolation(&self, name: &str) -> Result<Vec<Observation>> {
        let record = self.records.find(name)?;
        let what = || format!("{} has no machine: it is {}", record.name, record.state.name());
        let process = process(&record).ok_or_else(|| EngineError::new(Kind::Conflict, what()))?;
        observe(process.pid).map_err(EngineError::io("cannot look at the machine's process"))
    }
}

/// The record's machine, if it still is the one.
fn process(record: &Record) -> Option<MachineProcess> {
    record.machine.filter(|process| MachineProcess::of(process.pid).as_ref() == Some(process))
}

fn holding(pid: u32) -> Vec<&'static str> {
    let all = observe(pid).unwrap_or_default();
    all.iter().filter(|one| one.holds == Some(true)).map(|one| one.name).collect()
}

fn told(record: &Record, isolation: Vec<&'static str>) -> ContainerInspect {
    let spec = &record.spec;
    let mut command = record.command.iter().map(|word| json!(word));
    let exit = match &record.state {
        State::Exited(exit) => Some(exit),
        _ => None,
    };
    let is = |name: &str| record.state.name() == name;
    let state = json!({
        "Status": record.state.name(),
        "Running": is("running") || is("paused"),
        "Paused": is("paused"),
        "OOMKilled": exit.is_some_and(|exit| exit.out_of_memory),
        "Dead": false,
        "Pid": process(record).map_or(0, |process| process.pid),
        "ExitCode": exit.map_or(0, |exit| exit.code),
        "Error": exit.and_then(|exit| exit.reason.clone()).unwrap_or_default(),
        "FinishedAt": exit.map(|exit| rfc3339_of(exit.at)).unwrap_or_default(),
    });
    ContainerInspect {
        id: record.id.as_str().to_owned(),
        created: rfc3339_of(record.created),
        path: command.next().unwrap_or_default(),
        args: command.collect(),
        state,
        image: record.image_digest.clone(),
        name: format!("/{}", record.name),
        platform: "linux",
        config: json!({
            "Image": record.image,
            "Labels": spec.labels,
            "Tty": spec.process.terminal,
            "OpenStdin": spec.process.stdin,
        }),
        isolation,
    }
}
