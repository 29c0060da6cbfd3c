// SPDX-License-Identifier: Apache-2.0
//! The isopod command: parse, call, print the error chain, exit code; or, under other names, a machine's process and the one
//! that takes layers apart.
#![forbid(unsafe_code)]

mod cli;

use isopod_engine::{Timings, UNPACK_NAME, VMM_NAME, unpack_main, vmm_main};
use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let timings = Timings::start();
    let name = env::args_os().next().unwrap_or_default();
    match name.as_encoded_bytes() {
        name if name == VMM_NAME.to_bytes() => vmm_main(),
        name if name == UNPACK_NAME.to_bytes() => unpack_main(),
        _ => cli::main(timings),
    }
}
