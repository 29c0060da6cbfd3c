//! The isopod command: parse, call, print the error chain, exit code.

fn main() {}
