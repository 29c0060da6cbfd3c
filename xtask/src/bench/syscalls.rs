// SPDX-License-Identifier: Apache-2.0
//! How many system calls are made until the guest runs, by strace.

use super::boot::COLD;
use super::isopod::{Isopod, TRUE};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::process::{Command, Stdio};

pub(super) struct Calls {
    pub(super) machine: f64,
    pub(super) both: f64,
}

pub(super) fn to_first_run(isopod: &Isopod) -> Result<Calls> {
    let trace = isopod.folder().join("trace");
    let mut command = Command::new("strace");
    command.args(["-f", "-qq", "-s", "0", "-o"]).arg(&trace).arg(isopod.binary());
    command.args(["run", "--rm"]).args(COLD).args(TRUE);
    isopod.with_roots(&mut command);
    let status = command.stderr(Stdio::null()).stdout(Stdio::null()).status();
    ensure!(
        status.context("cannot run strace; it is a Debian package")?.success(),
        "isopod run failed under strace"
    );
    let text = fs::read_to_string(&trace).context("cannot read the trace")?;
    count(&text).context("the trace has no KVM_RUN")
}

/// Lines of a trace are `pid call(…`; a machine's process is the one that makes a VM.
fn count(trace: &str) -> Option<Calls> {
    let until = trace.lines().position(|line| line.contains("KVM_RUN"))?;
    let before: Vec<&str> = trace.lines().take(until).filter(|line| !line.contains("resumed>")).collect();
    let pid = |line: &&str| line.split_whitespace().next().map(str::to_owned);
    let machine = before.iter().find(|line| line.contains("KVM_CREATE_VM")).and_then(pid)?;
    let own = before.iter().filter(|line| pid(line).as_ref() == Some(&machine)).count();
    let number = |n: usize| u32::try_from(n).map_or(f64::NAN, f64::from);
    Some(Calls { machine: number(own), both: number(before.len()) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_up_to_the_first_run() {
        let trace = "10 execve(\"isopod\") = 0\n11 execve(\"isopod\") = 0\n11 ioctl(3, KVM_CREATE_VM) = 4\n\
                     10 poll( <unfinished ...>\n11 ioctl(5, KVM_RUN <unfinished ...>\n10 read(1) = 0\n";
        let calls = count(trace).unwrap();
        assert_eq!((calls.machine, calls.both), (2.0, 4.0));
    }
}
