// SPDX-License-Identifier: Apache-2.0
//! Links it as a kernel: at one address, with nothing it did not bring along.

fn main() {
    println!("cargo:rerun-if-changed=link.ld");
    for argument in ["-nostartfiles", "-nostdlib", "-static", "-no-pie", "-Wl,--build-id=none", "-Tlink.ld"] {
        println!("cargo:rustc-link-arg-bins={argument}");
    }
}
