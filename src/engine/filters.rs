// SPDX-License-Identifier: Apache-2.0
//! The system calls that are left to each thread that meets hostile bytes, as they can be shown: names, and reasons.

use crate::seccomp::name_of;
use crate::{UNPACK_NAME, VMM_NAME};
use isopod_image::unpack;
use isopod_sys::seccomp::{Rule, When};
use isopod_vmm::calls;
use serde::Serialize;

/// A call that a thread may make.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Allowed {
    pub process: String,
    /// A vCPU's has its number behind it.
    pub thread: &'static str,
    pub call: &'static str,
    pub number: i64,
    /// For which arguments alone: all of these hold.
    pub arguments: Vec<Argument>,
    pub why: &'static str,
}

/// What an argument has to be; of its lower 32 bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub struct Argument {
    /// Counted from 0.
    pub number: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub is: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub has_none_of: Option<u32>,
}

/// All there are; any other call ends its process.
pub fn all() -> Vec<Allowed> {
    let unpack = UNPACK_NAME.to_string_lossy();
    let machine = VMM_NAME.to_string_lossy();
    let threads = calls::all().into_iter();
    let mut all: Vec<Allowed> = threads
        .flat_map(|(thread, rules)| rules.into_iter().map(move |rule| (thread, rule)))
        .map(|(thread, rule)| told(&machine, thread, rule))
        .collect();
    let thread = UNPACK_NAME.to_str().unwrap_or_default();
    all.extend(unpack::rules().iter().map(|rule| told(&unpack, thread, *rule)));
    all
}

fn told(process: &str, thread: &'static str, rule: Rule) -> Allowed {
    let argument = |when| match when {
        When::Always => None,
        When::Is(number, value) => Some(Argument { number, is: Some(value), has_none_of: None }),
        When::Lacks(number, bits) => Some(Argument { number, is: None, has_none_of: Some(bits) }),
    };
    let arguments = rule.when.into_iter().filter_map(argument).collect();
    let number = rule.call;
    Allowed { process: process.to_owned(), thread, call: name_of(number), number, arguments, why: rule.why }
}
