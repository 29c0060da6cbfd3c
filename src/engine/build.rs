// SPDX-License-Identifier: Apache-2.0
//! Builds the guest agent as the static program that is embedded in the engine, and embeds the demo image if it has
//! been made.
//!
//! The agent is built by a Cargo of its own with a target folder of its own: it has other flags and another profile
//! than the program it is embedded in. `ISOPOD_AGENT=FILE` embeds a finished one instead.

use sha2::{Digest, Sha256};
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

const TARGET: &str = "x86_64-unknown-linux-gnu";
/// One static program without relocations: nothing to link, nothing to relocate when the guest starts it.
const FLAGS: [&str; 2] = ["-Ctarget-feature=+crt-static", "-Crelocation-model=static"];
/// What Cargo or clippy set for this build, and the agent's must not inherit.
const INHERITED: [&str; 6] = [
    "CARGO_TARGET_DIR",
    "CARGO_BUILD_TARGET",
    "RUSTFLAGS",
    "RUSTC_WORKSPACE_WRAPPER",
    "CLIPPY_ARGS",
    "CLIPPY_CONF_DIR",
];

fn main() {
    let out = PathBuf::from(variable("OUT_DIR"));
    let root = Path::new(&variable("CARGO_MANIFEST_DIR")).join("../..");
    for path in ["guest-agent", "src/protocol", "src/sys", "Cargo.toml"] {
        println!("cargo::rerun-if-changed={}", root.join(path).display());
    }
    let agent = match optional("ISOPOD_AGENT") {
        Some(path) => fs::read(&path).unwrap_or_else(|e| panic!("ISOPOD_AGENT={path}: {e}")),
        None => build_agent(&root, &out.join("agent")),
    };
    fs::write(out.join("guest-agent"), &agent).expect("the output folder is writable");
    let hash: String = Sha256::digest(&agent).iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    println!("cargo::rustc-env=ISOPOD_AGENT_HASH={hash}");

    let made = root.join("target/rootfs/demo.tar");
    let demo = optional("ISOPOD_DEMO_IMAGE").map_or(made, PathBuf::from);
    println!("cargo::rerun-if-changed={}", demo.display());
    // Without one the product says how to make it.
    fs::write(out.join("demo.tar"), fs::read(demo).unwrap_or_default())
        .expect("the output folder is writable");
}

fn build_agent(root: &Path, target: &Path) -> Vec<u8> {
    let mut cargo = Command::new(variable("CARGO"));
    cargo.current_dir(root).args(["build", "--quiet", "--package", "guest-agent", "--profile", "agent"]);
    cargo.args(["--target", TARGET, "--target-dir"]).arg(target);
    for name in INHERITED {
        cargo.env_remove(name);
    }
    cargo.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"));
    let status = cargo.status().unwrap_or_else(|e| panic!("cannot run cargo for the guest agent: {e}"));
    assert!(status.success(), "the guest agent does not build");
    let built = target.join(TARGET).join("agent/guest-agent");
    fs::read(&built).unwrap_or_else(|e| panic!("{}: {e}", built.display()))
}

fn optional(name: &str) -> Option<String> {
    println!("cargo::rerun-if-env-changed={name}");
    env::var(name).ok().filter(|value| !value.is_empty())
}

fn variable(name: &str) -> String {
    env::var(name).unwrap_or_else(|_| panic!("Cargo sets {name}"))
}
