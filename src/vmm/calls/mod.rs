// SPDX-License-Identifier: Apache-2.0
//! What is left of the kernel's system calls to each kind of thread of a machine's process, a reason a line. The devices'
//! are with the devices.

mod main;
mod pages;
mod vcpu;

use crate::process::NAME;
use isopod_devices::virtio;
use isopod_sys::seccomp::Rule;

pub(crate) use main::CALLS as MAIN;
pub(crate) use pages::CALLS as PAGES;
pub(crate) use vcpu::CALLS as VCPU;

/// All of them, by the thread's name; a vCPU's has its number behind it.
pub fn all() -> Vec<(&'static str, Vec<Rule>)> {
    let own = [(NAME.to_str().unwrap_or_default(), MAIN), ("vcpu", VCPU), ("pages", PAGES)];
    own.map(|(thread, rules)| (thread, rules.to_vec())).into_iter().chain(virtio::calls()).collect()
}

// Requests that two kinds of thread make (linux/kvm.h).
const GET_REGS: u32 = 0x8090_ae81;
const GET_SREGS: u32 = 0x8138_ae83;
const TRANSLATE: u32 = 0xc018_ae85;
const GET_VCPU_EVENTS: u32 = 0x8040_ae9f;
const GET_XSAVE: u32 = 0x9000_aea4;
