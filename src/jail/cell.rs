// SPDX-License-Identifier: Apache-2.0
//! The side of who starts a jailed process.

use super::enter::Order;
use super::group::{Group, GroupError, GroupLimits, version};
use super::ids;
use super::layers::{Layer, Layers};
use super::limits::Limits;
use isopod_sys::fdpass;
use isopod_sys::process::program::{self, NotStarted, Step};
use isopod_sys::process::{Child, Namespaces, Strings};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
use std::ffi::CStr;
use std::io;
use std::ops::Deref;
use std::os::fd::{AsFd, OwnedFd};
use thiserror::Error;

#[derive(Debug, Error)]
pub enum StartError {
    #[error("cannot start a process in a jail (op={op})")]
    Process { op: &'static str, source: io::Error },
    #[error("the jail's layer `{layer}` cannot be had ({})", .layer.what())]
    Namespaces { layer: Layer, source: io::Error },
    #[error("the jail's layer `{}` cannot be had ({})", Layer::ControlGroup, Layer::ControlGroup.what())]
    Group(#[source] GroupError),
    #[error(
        "the jail's layer `{}` cannot be had: this host has no control groups for memory, pids and cpu",
        Layer::ControlGroup
    )]
    NoGroups,
}

impl StartError {
    /// The layer that is missing, if that is why.
    pub fn layer(&self) -> Option<Layer> {
        match self {
            Self::Process { .. } => None,
            Self::Namespaces { layer, .. } => Some(*layer),
            Self::Group(_) | Self::NoGroups => Some(Layer::ControlGroup),
        }
    }
}

/// The layers there are for whoever asks: without root there is no control group, for it takes root to make one.
pub fn own_layers() -> Layers {
    match ids::may_be_taken() {
        true => Layers::all(),
        false => Layers::all().without(Layers::NONE | Layer::ControlGroup),
    }
}

/// A jail to be, for one process.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    /// What closes; `own_layers` less what was left out.
    pub layers: Layers,
    pub limits: Limits,
    /// `None` for a process that is limited enough without.
    pub group: Option<GroupLimits>,
}

/// A process of this program's. Dropping it ends it and waits until it is gone.
#[derive(Debug)]
pub struct Process {
    pub child: Child,
    /// The only thing it has.
    pub socket: OwnedFd,
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A process in its jail, or on its way there.
#[derive(Debug)]
pub struct Jailed {
    // Dropped before its control group goes, which has to be empty by then.
    process: Process,
    group: Option<Group>,
    /// Those it was told to close.
    pub layers: Layers,
}

impl Deref for Jailed {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl Jailed {
    /// Whether it was killed for its control group's limit of memory.
    pub fn was_out_of_memory(&self) -> bool {
        self.group.as_ref().is_some_and(Group::was_out_of_memory)
    }
}

/// A process that waits to be told which jail to enter. Who starts it before that is known spares the time it takes to load
/// the program.
#[derive(Debug)]
pub struct Waiting {
    process: Process,
    born_into: Namespaces,
}

impl Waiting {
    /// Starts this program again, under `name`, in the namespaces that a process of these layers cannot enter by itself.
    pub fn start(name: &CStr, layers: Layers) -> Result<Self, StartError> {
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None);
        let (socket, theirs) = pair.map_err(|e| failed("make a socket pair")(e.into()))?;
        let born_into = born_into(layers);
        let (args, env) = (Strings::new(vec![name.to_owned()]), Strings::new(Vec::new()));
        let child = program::start(c"/proc/self/exe", (&args, &env), theirs.as_fd(), born_into);
        let child = child.map_err(|error| not_started(born_into, error))?;
        Ok(Self { process: Process { child, socket }, born_into })
    }
}

/// A layer is missing only where that is why: a process may also not be had for want of memory, or of its program.
fn not_started(born_into: Namespaces, NotStarted { step, source }: NotStarted) -> StartError {
    const NOT_HERE: [Errno; 5] = [Errno::PERM, Errno::ACCESS, Errno::NOSPC, Errno::INVAL, Errno::USERS];
    let not_here = || Errno::from_io_error(&source).is_some_and(|errno| NOT_HERE.contains(&errno));
    let layer = match step {
        Step::Clone if born_into == Namespaces::PID && not_here() => Some(Layer::Pid),
        Step::Clone if born_into != Namespaces::NONE && not_here() => Some(Layer::User),
        Step::Ids => Some(Layer::User),
        _ => None,
    };
    match (layer, step) {
        (Some(layer), _) => StartError::Namespaces { layer, source },
        (None, Step::Execute) => failed("execute this program")(source),
        (None, Step::Clone) => failed("make a process")(source),
        (None, Step::Prepare | Step::Ids) => failed("prepare a process")(source),
    }
}

/// With a user namespace come all rights in the others; without root that takes being born there.
fn born_into(layers: Layers) -> Namespaces {
    let pid = if layers.has(Layer::Pid) { Namespaces::PID } else { Namespaces::NONE };
    let user = layers.has(Layer::User) && !ids::may_be_taken();
    if user { pid | Namespaces::USER } else { pid }
}

impl Cell {
    /// Has a process enter: the one that waits if it can, or a new one of that name.
    pub fn start(&self, name: &CStr, waiting: Option<Waiting>) -> Result<Jailed, StartError> {
        let fits = |waiting: &Waiting| waiting.born_into == born_into(self.layers);
        let waiting = waiting.filter(fits).map_or_else(|| Waiting::start(name, self.layers), Ok)?;
        let limits = self.group.filter(|_| self.layers.has(Layer::ControlGroup));
        let without = if limits.is_some() { Layers::NONE } else { Layers::NONE | Layer::ControlGroup };
        let layers = self.layers.without(without);
        // While the program is loaded.
        let (group, joins) = match limits {
            Some(limits) => {
                let version = version().ok_or(StartError::NoGroups)?;
                let (group, joins) = Group::make(version, &limits).map_err(StartError::Group)?;
                (Some(group), joins)
            }
            None => (None, Vec::new()),
        };
        let jailed = Jailed { process: waiting.process, group, layers };
        let order = Order { layers, take_id: ids::may_be_taken(), limits: self.limits };
        let order = serde_json::to_vec(&order).map_err(|e| failed("encode the order")(e.into()))?;
        let joins: Vec<_> = joins.iter().map(AsFd::as_fd).collect();
        fdpass::send(jailed.socket.as_fd(), &order, &joins).map_err(failed("tell it which jail to enter"))?;
        Ok(jailed)
    }
}

fn failed(op: &'static str) -> impl Fn(io::Error) -> StartError {
    move |source| StartError::Process { op, source }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_is_blamed_for_its_own_absence_alone() {
        let blamed = |born_into, step, errno: Errno| {
            not_started(born_into, NotStarted { step, source: errno.into() }).layer()
        };
        let both = Namespaces::USER | Namespaces::PID;
        assert_eq!(blamed(Namespaces::PID, Step::Clone, Errno::NOSPC), Some(Layer::Pid));
        assert_eq!(blamed(both, Step::Clone, Errno::PERM), Some(Layer::User));
        assert_eq!(blamed(both, Step::Ids, Errno::PERM), Some(Layer::User));
        assert_eq!(blamed(Namespaces::NONE, Step::Clone, Errno::PERM), None);
        assert_eq!(blamed(both, Step::Clone, Errno::NOMEM), None);
        assert_eq!(blamed(Namespaces::PID, Step::Clone, Errno::AGAIN), None);
        assert_eq!(blamed(both, Step::Prepare, Errno::NOENT), None);
        assert_eq!(blamed(Namespaces::PID, Step::Execute, Errno::PERM), None);
    }
}
