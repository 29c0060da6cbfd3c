// SPDX-License-Identifier: Apache-2.0
//! The isopod command: parse, call, print the error chain, exit code; or, under another name, a machine's process.
#![forbid(unsafe_code)]

mod cli;

use isopod_engine::{Timings, VMM_NAME, vmm_main};
use std::env;
use std::process::ExitCode;

fn main() -> ExitCode {
    let timings = Timings::start();
    if env::args_os().next().is_some_and(|name| name.as_encoded_bytes() == VMM_NAME.to_bytes()) {
        return vmm_main();
    }
    cli::main(timings)
}
