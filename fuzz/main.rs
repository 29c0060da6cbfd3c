// SPDX-License-Identifier: Apache-2.0
//! The fuzzer around the target that the environment names; `cargo xtask fuzz` starts it.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| isopod_fuzz::chosen()(data));
