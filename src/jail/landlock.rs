// SPDX-License-Identifier: Apache-2.0
//! Landlock, as far as this host's kernel has it: nothing that it can forbid is allowed.

use super::group::homes;
use landlock::{
    ABI, Access, AccessFs, AccessNet, LandlockStatus, PathBeneath, PathFd, RestrictionStatus, Ruleset,
    RulesetAttr, RulesetCreatedAttr, RulesetError, RulesetStatus, Scope,
};
use std::io;
use std::path::Path;
use std::thread;

/// The newest version whose rights are known here; of an older kernel's, those it has are taken away.
const NEWEST: ABI = ABI::V9;

/// The version of this host's Landlock, if it has one: found out by a thread that restricts itself and ends.
pub fn abi() -> Option<i32> {
    let status = thread::spawn(ruleset).join().ok()?.ok()?.landlock;
    match status {
        LandlockStatus::Available { effective_abi, kernel_abi } => {
            Some(kernel_abi.unwrap_or(effective_abi as i32))
        }
        _ => None,
    }
}

pub(crate) fn restrict() -> io::Result<()> {
    enforced(ruleset())
}

fn enforced(status: Result<RestrictionStatus, RulesetError>) -> io::Result<()> {
    match status.map_err(io::Error::other)?.ruleset {
        RulesetStatus::NotEnforced => {
            Err(io::Error::other("this host's kernel has no Landlock, or it is off"))
        }
        _ => Ok(()),
    }
}

/// Leaves reading everywhere, writing below these folders, of which some may not be there, and the removal of control groups
/// of ours. Nothing can be executed.
pub(crate) fn restrict_writing(folders: &[&Path]) -> io::Result<()> {
    let rules = || {
        let read = AccessFs::ReadFile | AccessFs::ReadDir;
        let all = AccessFs::from_all(NEWEST) & !AccessFs::Execute;
        let below = |path: &Path, rights| PathFd::new(path).ok().map(|fd| PathBeneath::new(fd, rights));
        let mut rules = Ruleset::default()
            .handle_access(AccessFs::from_all(NEWEST))?
            .handle_access(AccessNet::from_all(NEWEST))?
            .scope(Scope::AbstractUnixSocket)?
            .create()?;
        let own = folders.iter().filter_map(|folder| below(folder, all));
        let homes = homes();
        let groups = homes.iter().filter_map(|home| below(home, AccessFs::RemoveDir.into()));
        for rule in own.chain(groups).chain(below(Path::new("/"), read)) {
            rules = rules.add_rule(rule)?;
        }
        rules.restrict_self()
    };
    enforced(rules())
}

fn ruleset() -> Result<RestrictionStatus, RulesetError> {
    let rules = Ruleset::default()
        .handle_access(AccessFs::from_all(NEWEST))?
        .handle_access(AccessNet::from_all(NEWEST))?
        .scope(Scope::from_all(NEWEST))?
        .create()?;
    rules.restrict_self()
}

#[cfg(test)]
mod tests;
