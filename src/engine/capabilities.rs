// SPDX-License-Identifier: Apache-2.0
//! Capabilities: their names, Docker's default set, and what `--cap-add` and `--cap-drop` make of it.

use serde::{Deserialize, Serialize};
use std::fmt;
use thiserror::Error;

/// A capability by its number (capabilities(7), `linux/capability.h`).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Capability(u8);

macro_rules! capabilities {
    ($($name:ident $number:literal,)*) => {
        impl Capability {
            $(pub const $name: Self = Self($number);)*
        }
        const NAMES: &[(&str, Capability)] = &[$((stringify!($name), Capability($number))),*];
    };
}

capabilities! {
    CHOWN 0, DAC_OVERRIDE 1, DAC_READ_SEARCH 2, FOWNER 3, FSETID 4, KILL 5, SETGID 6, SETUID 7, SETPCAP 8,
    LINUX_IMMUTABLE 9, NET_BIND_SERVICE 10, NET_BROADCAST 11, NET_ADMIN 12, NET_RAW 13, IPC_LOCK 14, IPC_OWNER 15,
    SYS_MODULE 16, SYS_RAWIO 17, SYS_CHROOT 18, SYS_PTRACE 19, SYS_PACCT 20, SYS_ADMIN 21, SYS_BOOT 22, SYS_NICE 23,
    SYS_RESOURCE 24, SYS_TIME 25, SYS_TTY_CONFIG 26, MKNOD 27, LEASE 28, AUDIT_WRITE 29, AUDIT_CONTROL 30,
    SETFCAP 31, MAC_OVERRIDE 32, MAC_ADMIN 33, SYSLOG 34, WAKE_ALARM 35, BLOCK_SUSPEND 36, AUDIT_READ 37, PERFMON 38,
    BPF 39, CHECKPOINT_RESTORE 40,
}

#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown capability `{0}`")]
pub struct UnknownCapability(String);

impl Capability {
    /// By name, in any case, with or without `CAP_`.
    pub fn named(name: &str) -> Option<Self> {
        let upper = name.to_ascii_uppercase();
        let plain = upper.strip_prefix("CAP_").unwrap_or(&upper);
        NAMES.iter().find(|(n, _)| *n == plain).map(|(_, capability)| *capability)
    }
}

/// A set, as a mask of numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Capabilities(u64);

impl Capabilities {
    pub const NONE: Self = Self(0);
    pub const ALL: Self = Self((1 << NAMES.len()) - 1);
    pub const DEFAULT: Self = Self::NONE
        .with(Capability::CHOWN)
        .with(Capability::DAC_OVERRIDE)
        .with(Capability::FSETID)
        .with(Capability::FOWNER)
        .with(Capability::MKNOD)
        .with(Capability::NET_RAW)
        .with(Capability::SETGID)
        .with(Capability::SETUID)
        .with(Capability::SETFCAP)
        .with(Capability::SETPCAP)
        .with(Capability::NET_BIND_SERVICE)
        .with(Capability::SYS_CHROOT)
        .with(Capability::KILL)
        .with(Capability::AUDIT_WRITE);

    pub const fn with(self, capability: Capability) -> Self {
        Self(self.0 | 1 << capability.0)
    }

    pub const fn has(self, capability: Capability) -> bool {
        self.0 & 1 << capability.0 != 0
    }

    pub const fn bits(self) -> u64 {
        self.0
    }

    /// The default set, changed as Docker changes it: `ALL` may be among either, and what is named by itself counts
    /// for more than `ALL` does. Something both added and dropped is there.
    pub fn tweaked(add: &[String], drop: &[String]) -> Result<Self, UnknownCapability> {
        let (add_all, added) = parse(add)?;
        let (drop_all, dropped) = parse(drop)?;
        Ok(match (add_all, drop_all) {
            (true, _) => Self(Self::ALL.0 & !dropped.0),
            (false, true) => added,
            (false, false) => Self(Self::DEFAULT.0 & !dropped.0 | added.0),
        })
    }
}

impl Default for Capabilities {
    fn default() -> Self {
        Self::DEFAULT
    }
}

impl fmt::Display for Capabilities {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names: Vec<_> = NAMES.iter().filter(|(_, c)| self.has(*c)).map(|(name, _)| *name).collect();
        f.write_str(&names.join(","))
    }
}

/// Whether `ALL` is among them, and the others.
fn parse(names: &[String]) -> Result<(bool, Capabilities), UnknownCapability> {
    let mut all = false;
    let mut set = Capabilities::NONE;
    for name in names {
        match Capability::named(name) {
            Some(capability) => set = set.with(capability),
            None if name.eq_ignore_ascii_case("ALL") => all = true,
            None => return Err(UnknownCapability(name.clone())),
        }
    }
    Ok((all, set))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tweaked(add: &[&str], drop: &[&str]) -> Capabilities {
        let own = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<Vec<_>>();
        Capabilities::tweaked(&own(add), &own(drop)).unwrap()
    }

    #[test]
    fn the_default_is_dockers_fourteen() {
        assert_eq!(Capabilities::DEFAULT.bits(), 0xa804_25fb);
        assert_eq!(Capabilities::DEFAULT.bits().count_ones(), 14);
    }

    #[test]
    fn names_come_in_any_case_with_or_without_prefix() {
        for name in ["SYS_ADMIN", "cap_sys_admin", "Sys_Admin", "CAP_SYS_ADMIN"] {
            assert!(tweaked(&[name], &[]).has(Capability::SYS_ADMIN), "{name}");
        }
    }

    #[test]
    fn dropping_all_leaves_what_is_added() {
        assert_eq!(tweaked(&["CHOWN"], &["ALL"]), Capabilities::NONE.with(Capability::CHOWN));
        assert_eq!(tweaked(&[], &["all"]), Capabilities::NONE);
    }

    #[test]
    fn adding_all_leaves_out_what_is_dropped() {
        let set = tweaked(&["ALL"], &["SYS_ADMIN"]);
        assert!(!set.has(Capability::SYS_ADMIN) && set.has(Capability::BPF));
        assert_eq!(tweaked(&["ALL"], &[]).bits(), (1 << 41) - 1);
    }

    #[test]
    fn an_unknown_name_is_an_error_that_names_it() {
        let error = Capabilities::tweaked(&["SYS_ADMN".into()], &[]).unwrap_err();
        assert_eq!(error.to_string(), "unknown capability `SYS_ADMN`");
    }
}
