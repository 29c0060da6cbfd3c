// SPDX-License-Identifier: Apache-2.0
//! A profile from a file: Docker's JSON, or the OCI runtime specification's.

use super::profile::{ARGUMENTS, Action, Compare, Condition, Profile, Rule};
use super::table::NAMES;
use crate::capabilities::{Capabilities, Capability};
use serde::Deserialize;
use thiserror::Error;

#[derive(Debug, Error)]
pub enum ProfileError {
    #[error("it is not JSON of a profile")]
    Json(#[from] serde_json::Error),
    #[error("the action `{0}` is not supported")]
    Action(String),
    #[error("the comparison `{0}` is not supported")]
    Compare(String),
    #[error("system calls have no argument {0}")]
    Argument(u32),
    #[error("{0} is not an error number")]
    Errno(u32),
    #[error("x86_64 is not among its architectures")]
    Architecture,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct File {
    default_action: String,
    default_errno_ret: Option<u32>,
    #[serde(default)]
    architectures: Vec<String>,
    #[serde(default)]
    syscalls: Vec<Calls>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Calls {
    #[serde(default)]
    names: Vec<String>,
    /// The form before `names`.
    name: Option<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Option<Vec<Argument>>,
    includes: Option<Filter>,
    excludes: Option<Filter>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Argument {
    index: u32,
    value: u64,
    #[serde(default)]
    value_two: u64,
    op: String,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Filter {
    #[serde(default)]
    caps: Vec<String>,
    #[serde(default)]
    arches: Vec<String>,
    min_kernel: Option<String>,
}

/// The guest's kernel, for rules that want one at least as new.
const KERNEL: (u32, u32) = (6, 12);
const ARCH: &str = "amd64";
const EPERM: u32 = 1;

/// The profile for a process with these capabilities. Calls this architecture does not have are passed over.
pub fn parse(text: &str, capabilities: Capabilities) -> Result<Profile, ProfileError> {
    let file: File = serde_json::from_str(text)?;
    if !file.architectures.is_empty() && !file.architectures.iter().any(|a| a == "SCMP_ARCH_X86_64") {
        return Err(ProfileError::Architecture);
    }
    let default = action(&file.default_action, file.default_errno_ret)?;
    let mut rules = Vec::new();
    for calls in &file.syscalls {
        if !applies(calls, capabilities) {
            continue;
        }
        let action = action(&calls.action, calls.errno_ret)?;
        let when = calls.args.iter().flatten().map(condition).collect::<Result<Vec<_>, _>>()?;
        for name in calls.names.iter().chain(&calls.name) {
            if let Some((_, syscall)) = NAMES.iter().find(|(n, _)| n == name) {
                rules.push(Rule { syscall: *syscall, when: when.clone(), action });
            }
        }
    }
    Ok(Profile::new(default, rules))
}

/// All of `includes` and nothing of `excludes`.
fn applies(calls: &Calls, capabilities: Capabilities) -> bool {
    let has = |name: &String| Capability::named(name).is_some_and(|c| capabilities.has(c));
    let included = calls.includes.as_ref().is_none_or(|f| {
        f.caps.iter().all(has)
            && (f.arches.is_empty() || f.arches.iter().any(|a| a == ARCH))
            && f.min_kernel.as_deref().is_none_or(|v| version(v) <= KERNEL)
    });
    let excluded = calls.excludes.as_ref().is_some_and(|f| {
        f.caps.iter().any(has)
            || f.arches.iter().any(|a| a == ARCH)
            || f.min_kernel.as_deref().is_some_and(|v| version(v) <= KERNEL)
    });
    included && !excluded
}

fn version(text: &str) -> (u32, u32) {
    let mut numbers = text.split('.').map(|n| n.parse().unwrap_or(u32::MAX));
    (numbers.next().unwrap_or(u32::MAX), numbers.next().unwrap_or(0))
}

fn action(name: &str, errno: Option<u32>) -> Result<Action, ProfileError> {
    Ok(match name {
        "SCMP_ACT_ALLOW" => Action::Allow,
        "SCMP_ACT_LOG" => Action::Log,
        "SCMP_ACT_TRAP" => Action::Trap,
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => Action::KillThread,
        "SCMP_ACT_KILL_PROCESS" => Action::KillProcess,
        "SCMP_ACT_ERRNO" => {
            let number = errno.unwrap_or(EPERM);
            let number =
                u16::try_from(number).ok().filter(|n| *n < 4096).ok_or(ProfileError::Errno(number))?;
            Action::Errno(number)
        }
        other => return Err(ProfileError::Action(other.into())),
    })
}

fn condition(argument: &Argument) -> Result<Condition, ProfileError> {
    let wrong = ProfileError::Argument(argument.index);
    let index = u8::try_from(argument.index).ok().filter(|i| *i < ARGUMENTS).ok_or(wrong)?;
    let value = argument.value;
    let compare = match argument.op.as_str() {
        "SCMP_CMP_EQ" => Compare::Eq(value),
        "SCMP_CMP_NE" => Compare::Ne(value),
        "SCMP_CMP_LT" => Compare::Lt(value),
        "SCMP_CMP_LE" => Compare::Le(value),
        "SCMP_CMP_GT" => Compare::Gt(value),
        "SCMP_CMP_GE" => Compare::Ge(value),
        "SCMP_CMP_MASKED_EQ" => Compare::Masked { mask: value, value: argument.value_two },
        other => return Err(ProfileError::Compare(other.into())),
    };
    Ok(Condition { argument: index, compare })
}
