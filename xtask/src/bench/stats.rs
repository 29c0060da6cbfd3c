// SPDX-License-Identifier: Apache-2.0
//! What KVM counts for the vCPUs of a machine that runs: read through copies of the statistics' descriptors that its
//! process holds. debugfs has the same figures, but not where a kernel is locked down.
//!
//! ```text
//!   header: flags, size of a name, number of descriptors, offsets of id, descriptors, data    u32 each
//!   a descriptor: flags u32, exponent i16, size u16, offset in the data u32, bucket size u32, name
//! ```
//! (Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD)

use anyhow::{Context, Result, ensure};
use rustix::fd::{AsFd, RawFd};
use rustix::process::{PidfdGetfdFlags, pidfd_getfd};
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

const VCPU: &str = "anon_inode:kvm-vcpu-stats";
const HEADER: usize = 24;
const DESCRIPTOR: usize = 16;
/// More than any kernel has.
const MOST: usize = 1 << 20;

#[derive(Debug)]
pub(super) struct Stats {
    vcpus: Vec<File>,
}

/// Since the machine was made, all vCPUs together.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) exits: f64,
    pub(super) instructions: f64,
    pub(super) interrupts: f64,
}

impl Stats {
    pub(super) fn of(machine: u32, pidfd: impl AsFd) -> Result<Self> {
        let mut vcpus = Vec::new();
        for entry in
            fs::read_dir(format!("/proc/{machine}/fd")).context("cannot see a machine's descriptors")?
        {
            let path = entry.context("cannot see a machine's descriptors")?.path();
            let stats = fs::read_link(&path).is_ok_and(|to| to.to_string_lossy().starts_with(VCPU));
            let number = path.file_name().and_then(|name| name.to_str()?.parse::<RawFd>().ok());
            if let (true, Some(number)) = (stats, number) {
                let fd = pidfd_getfd(pidfd.as_fd(), number, PidfdGetfdFlags::empty());
                vcpus.push(File::from(fd.context("cannot copy a machine's descriptor")?));
            }
        }
        ensure!(!vcpus.is_empty(), "the machine has no statistics");
        Ok(Self { vcpus })
    }

    pub(super) fn read(&self) -> Result<Counts> {
        let mut sum = Counts::default();
        for vcpu in &self.vcpus {
            let mut bytes = Vec::new();
            let mut block = [0; 4096];
            loop {
                let n = vcpu.read_at(&mut block, bytes.len() as u64).context("cannot read statistics")?;
                bytes.extend(block.iter().take(n));
                if n == 0 || bytes.len() > MOST {
                    break;
                }
            }
            let one = |name| value(&bytes, name).with_context(|| format!("KVM does not count {name}"));
            sum.exits += one("exits")?;
            sum.instructions += one("insn_emulation")?;
            sum.interrupts += one("irq_injections")?;
        }
        Ok(sum)
    }
}

/// The counter of that name.
fn value(bytes: &[u8], name: &str) -> Option<f64> {
    let names = u32_at(bytes, 4)?;
    let (count, descriptors, data) = (u32_at(bytes, 8)?, u32_at(bytes, 16)?, u32_at(bytes, 20)?);
    let mut all = bytes.get(HEADER.max(descriptors)..)?.chunks_exact(DESCRIPTOR + names).take(count);
    let found = all.find(|one| {
        let text = one.get(DESCRIPTOR..).unwrap_or_default();
        text.split(|byte| *byte == 0).next() == Some(name.as_bytes())
    })?;
    let at = data.checked_add(u32_at(found, 8)?)?;
    let value = bytes.get(at..)?.first_chunk().map(|bytes| u64::from_ne_bytes(*bytes))?;
    Some(value as f64)
}

fn u32_at(bytes: &[u8], at: usize) -> Option<usize> {
    bytes.get(at..)?.first_chunk().and_then(|bytes| usize::try_from(u32::from_ne_bytes(*bytes)).ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Two counters with names of eight bytes.
    fn file() -> Vec<u8> {
        let mut bytes: Vec<u8> = [0_u32, 8, 2, 24, 24, 72].iter().flat_map(|n| n.to_ne_bytes()).collect();
        for (offset, name) in [(0_u32, b"exits\0\0\0"), (8, b"halts\0\0\0")] {
            bytes.extend([0, 1 << 16].iter().chain([&offset, &0]).flat_map(|n: &u32| n.to_ne_bytes()));
            bytes.extend(name);
        }
        bytes.extend([7_u64, 9].iter().flat_map(|n| n.to_ne_bytes()));
        bytes
    }

    #[test]
    fn a_counter_is_found_by_its_name() {
        assert_eq!((value(&file(), "exits"), value(&file(), "halts")), (Some(7.0), Some(9.0)));
        assert_eq!(value(&file(), "exit"), None);
    }

    #[test]
    fn what_is_cut_off_counts_nothing() {
        let file = file();
        for end in 0..file.len() {
            assert_eq!(value(&file[..end], "halts"), None, "{end}");
        }
    }
}
