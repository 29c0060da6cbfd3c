// SPDX-License-Identifier: Apache-2.0
//! A profile: which system calls, with which arguments, are answered how.

use serde::{Deserialize, Serialize};

/// What becomes of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    Allow,
    Log,
    /// Refused with this error number.
    Errno(u16),
    Trap,
    KillThread,
    KillProcess,
}

impl Action {
    /// seccomp(2)'s return value.
    pub(crate) fn code(self) -> u32 {
        match self {
            Self::Allow => libc::SECCOMP_RET_ALLOW,
            Self::Log => libc::SECCOMP_RET_LOG,
            Self::Errno(number) => libc::SECCOMP_RET_ERRNO | u32::from(number),
            Self::Trap => libc::SECCOMP_RET_TRAP,
            Self::KillThread => libc::SECCOMP_RET_KILL_THREAD,
            Self::KillProcess => libc::SECCOMP_RET_KILL_PROCESS,
        }
    }
}

/// How an argument, all 64 bits of it, is compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Compare {
    Eq(u64),
    Ne(u64),
    Lt(u64),
    Le(u64),
    Gt(u64),
    Ge(u64),
    Masked { mask: u64, value: u64 },
}

impl Compare {
    pub(crate) fn holds(self, argument: u64) -> bool {
        match self {
            Self::Eq(v) => argument == v,
            Self::Ne(v) => argument != v,
            Self::Lt(v) => argument < v,
            Self::Le(v) => argument <= v,
            Self::Gt(v) => argument > v,
            Self::Ge(v) => argument >= v,
            Self::Masked { mask, value } => argument & mask == value,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Condition {
    /// 0 to 5.
    pub(crate) argument: u8,
    pub(crate) compare: Compare,
}

/// System calls have six arguments.
pub(crate) const ARGUMENTS: u8 = 6;

impl Condition {
    pub(crate) const fn on(argument: u8, compare: Compare) -> Self {
        Self { argument, compare }
    }

    #[cfg(test)]
    fn holds(&self, arguments: &[u64; ARGUMENTS as usize]) -> bool {
        arguments.get(usize::from(self.argument)).is_some_and(|a| self.compare.holds(*a))
    }
}

/// Applies if all conditions hold.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Rule {
    pub(crate) syscall: u16,
    pub(crate) when: Vec<Condition>,
    pub(crate) action: Action,
}

impl Rule {
    pub(crate) fn allow(syscall: u16) -> Self {
        Self { syscall, when: Vec::new(), action: Action::Allow }
    }

    pub(crate) fn allow_if(syscall: u16, condition: Condition) -> Self {
        Self { syscall, when: vec![condition], action: Action::Allow }
    }
}

/// The first rule of a call that applies decides; a rule without conditions comes after those with some. Where none
/// applies the default does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Profile {
    pub(crate) default: Action,
    pub(crate) rules: Vec<Rule>,
}

impl Profile {
    pub(crate) fn new(default: Action, mut rules: Vec<Rule>) -> Self {
        rules.sort_by_key(|rule| (rule.syscall, rule.when.is_empty()));
        Self { default, rules }
    }

    /// The rules of one call, in their order.
    pub(crate) fn of(&self, syscall: u16) -> &[Rule] {
        let start = self.rules.partition_point(|rule| rule.syscall < syscall);
        let end = self.rules.partition_point(|rule| rule.syscall <= syscall);
        &self.rules[start..end]
    }

    /// What the profile says, in plain code: what a compiled program is tested against.
    #[cfg(test)]
    pub(crate) fn decide(&self, syscall: u16, arguments: &[u64; ARGUMENTS as usize]) -> Action {
        let applies = |rule: &&Rule| rule.when.iter().all(|c| c.holds(arguments));
        self.of(syscall).iter().find(applies).map_or(self.default, |rule| rule.action)
    }
}
