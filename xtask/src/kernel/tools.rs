// SPDX-License-Identifier: Apache-2.0
//! What a kernel build needs of the machine, and the Debian package each comes from.

use anyhow::{Result, bail};
use std::env;
use std::path::Path;
use std::process::{Command, Stdio};

/// Command, package.
const COMMANDS: &[(&str, &str)] = &[
    ("make", "make"),
    ("gcc", "gcc"),
    ("ld", "binutils"),
    ("flex", "flex"),
    ("bison", "bison"),
    ("bc", "bc"),
    ("patch", "patch"),
    ("perl", "perl"),
    ("tar", "tar"),
    ("xz", "xz-utils"),
];

/// Header, package: objtool reads ELF files.
const HEADERS: &[(&str, &str)] = &[("gelf.h", "libelf-dev"), ("stdio.h", "libc6-dev")];

pub(super) fn check() -> Result<()> {
    let mut missing: Vec<&str> =
        COMMANDS.iter().filter(|(command, _)| !is_command(command)).map(|(_, package)| *package).collect();
    if is_command("gcc") {
        missing.extend(HEADERS.iter().filter(|(header, _)| !is_header(header)).map(|(_, package)| *package));
    }
    if !missing.is_empty() {
        let packages = missing.join(" ");
        bail!("the kernel cannot be built without {packages}: apt install {packages}");
    }
    Ok(())
}

fn is_command(name: &str) -> bool {
    env::var_os("PATH").is_some_and(|path| env::split_paths(&path).any(|folder| folder.join(name).is_file()))
}

fn is_header(name: &str) -> bool {
    let mut compiler = Command::new("gcc");
    compiler.args(["-E", "-include", name, "-x", "c"]).arg(Path::new("/dev/null"));
    compiler.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    compiler.status().is_ok_and(|status| status.success())
}
