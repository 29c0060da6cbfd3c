//! Developer commands: kernel, rootfs, check, bench.

fn main() {}
