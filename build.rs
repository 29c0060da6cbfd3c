// SPDX-License-Identifier: Apache-2.0
//! The unwinder becomes part of the program: as a library of its own it is looked for, mapped and set up at each start of
//! each of a container's two processes, and asks the processor what it can do, which takes tens of microseconds where that
//! question leaves a virtual machine.

use std::env;
use std::fs;
use std::io;
use std::path::Path;

fn main() -> io::Result<()> {
    println!("cargo:rerun-if-changed=build.rs");
    let Some(folder) = env::var_os("OUT_DIR") else { return Ok(()) };
    // A linker script in place of the library that std asks for.
    fs::write(Path::new(&folder).join("libgcc_s.so"), "INPUT(-lgcc_eh)\n")?;
    println!("cargo:rustc-link-search=native={}", Path::new(&folder).display());
    Ok(())
}
