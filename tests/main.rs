// SPDX-License-Identifier: Apache-2.0
//! Black-box tests: they drive the built binary, and nothing in them is a stand-in. Each machine is a real one.
//!
//! A guest's kernel takes seconds to boot where KVM emulates, so a test asks one container as much as reads well.

mod support;

mod command_line;
mod exit_codes;
mod identity;
mod security_defaults;
mod signals;
mod stdio;
mod terminal;
