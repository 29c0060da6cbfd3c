// SPDX-License-Identifier: Apache-2.0
//! x86_64: where things lie in the guest, what the kernel is told, and how a vCPU begins.

pub(crate) mod cpuid;
pub(crate) mod layout;
pub(crate) mod mptable;
pub(crate) mod operand;
pub(crate) mod start;
pub(crate) mod state;
pub(crate) mod tables;
pub(crate) mod zeropage;
