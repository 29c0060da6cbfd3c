// SPDX-License-Identifier: Apache-2.0
//! The layers of a jail, by the names a user knows them by.

use serde::{Deserialize, Serialize};
use std::fmt;
use std::ops::BitOr;
use std::str::FromStr;
use thiserror::Error;

/// One thing that holds a captured process back when all the others have failed. In the order in which they close, but for
/// the PID namespace, which a process is born in, and the root of `Mount`, which is emptied behind the last namespace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Layer {
    ControlGroup,
    User,
    Mount,
    Pid,
    Network,
    Ipc,
    Uts,
    ControlGroupView,
    Limits,
    Capabilities,
    Untraceable,
    NoNewPrivileges,
    Landlock,
    Seccomp,
}

impl Layer {
    pub const ALL: [Self; 14] = [
        Self::ControlGroup,
        Self::User,
        Self::Mount,
        Self::Pid,
        Self::Network,
        Self::Ipc,
        Self::Uts,
        Self::ControlGroupView,
        Self::Limits,
        Self::Capabilities,
        Self::Untraceable,
        Self::NoNewPrivileges,
        Self::Landlock,
        Self::Seccomp,
    ];

    /// What it is called in options and lists.
    pub fn name(self) -> &'static str {
        match self {
            Self::ControlGroup => "cgroup",
            Self::User => "user",
            Self::Mount => "mount",
            Self::Pid => "pid",
            Self::Network => "net",
            Self::Ipc => "ipc",
            Self::Uts => "uts",
            Self::ControlGroupView => "cgroupns",
            Self::Limits => "rlimits",
            Self::Capabilities => "capabilities",
            Self::Untraceable => "untraceable",
            Self::NoNewPrivileges => "no-new-privileges",
            Self::Landlock => "landlock",
            Self::Seccomp => "seccomp",
        }
    }

    /// What it is, in a line.
    pub fn what(self) -> &'static str {
        match self {
            Self::ControlGroup => "a control group with limits of memory, processes and CPU time",
            Self::User => "an id and a user namespace of its own",
            Self::Mount => "an empty root in a mount namespace of its own",
            Self::Pid => "a PID namespace of its own",
            Self::Network => "a network namespace of its own, with nothing in it",
            Self::Ipc => "an IPC namespace of its own",
            Self::Uts => "a UTS namespace of its own",
            Self::ControlGroupView => "a control group namespace of its own",
            Self::Limits => "limits of files, their size, threads, locked memory and core dumps",
            Self::Capabilities => "no capability, in any set of any thread",
            Self::Untraceable => "not dumpable: nobody but root traces it or reads its memory",
            Self::NoNewPrivileges => "no privileges by executing a program",
            Self::Landlock => "no file, no TCP port, no abstract socket, no signal to others by Landlock",
            Self::Seccomp => "a list of system calls a thread, and the end of the process beyond it",
        }
    }

    fn bit(self) -> u16 {
        1 << self as u16
    }
}

impl fmt::Display for Layer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("`{given}` is no layer that can be left out; there are {}", all_names())]
pub struct UnknownLayer {
    given: String,
}

fn all_names() -> String {
    Layer::ALL.map(|layer| format!("no-{layer}")).join(", ")
}

/// Some of the layers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Layers(u16);

impl Layers {
    pub const NONE: Self = Self(0);

    pub fn all() -> Self {
        Layer::ALL.into_iter().fold(Self::NONE, |layers, layer| layers | layer)
    }

    pub fn has(self, layer: Layer) -> bool {
        self.0 & layer.bit() != 0
    }

    /// All but these.
    #[must_use]
    pub fn without(self, others: Self) -> Self {
        Self(self.0 & !others.0)
    }

    pub fn iter(self) -> impl Iterator<Item = Layer> {
        Layer::ALL.into_iter().filter(move |layer| self.has(*layer))
    }
}

impl BitOr for Layers {
    type Output = Self;
    fn bitor(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }
}

impl BitOr<Layer> for Layers {
    type Output = Self;
    fn bitor(self, layer: Layer) -> Self {
        Self(self.0 | layer.bit())
    }
}

/// The layers to be left out, as they are typed: `no-landlock,no-cgroup`.
impl FromStr for Layers {
    type Err = UnknownLayer;

    fn from_str(text: &str) -> Result<Self, UnknownLayer> {
        text.split(',').try_fold(Self::NONE, |layers, word| {
            let named = |layer: &Layer| word.strip_prefix("no-") == Some(layer.name());
            let layer = Layer::ALL.into_iter().find(named);
            layer.map(|layer| layers | layer).ok_or_else(|| UnknownLayer { given: word.to_owned() })
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_layer_can_be_named_and_left_out() {
        for layer in Layer::ALL {
            let named: Layers = format!("no-{layer}").parse().unwrap();
            assert_eq!(named, Layers::NONE | layer);
            assert!(!Layers::all().without(named).has(layer));
        }
        assert_eq!("no-net,no-pid".parse(), Ok(Layers::NONE | Layer::Pid | Layer::Network));
    }

    #[test]
    fn what_is_no_layer_is_refused_with_those_there_are() {
        for bad in ["", "landlock", "no-landlock,", "no-such", "no-no-new-privileges,no"] {
            let error = bad.parse::<Layers>().unwrap_err().to_string();
            assert!(error.contains("no-landlock"), "{error}");
        }
    }
}
