// SPDX-License-Identifier: Apache-2.0
//! Where the time of a run went. Marks are in CLOCK_MONOTONIC's nanoseconds, which this process and the machine's share.

pub use isopod_vmm::wire::Counters;
use isopod_vmm::wire::Marks;
use rustix::time::{ClockId, clock_gettime};
use serde::Serialize;

/// What was reached, in the order in which it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mark {
    /// `main`, after the program was executed, loaded and linked.
    Main,
    ImageResolved,
    Recorded,
    MachineAsked,
    MachineProcess,
    Jailed,
    Handed,
    Assembled,
    FirstRun,
    Hello,
    Mounted,
    ProcessStarted,
    FirstByte,
    Exited,
    TornDown,
}

impl Mark {
    fn what(self) -> &'static str {
        match self {
            Self::Main => "process start",
            Self::ImageResolved => "image resolved",
            Self::Recorded => "record written",
            Self::MachineAsked => "kernel, boot share, KVM opened",
            Self::MachineProcess => "machine's process",
            Self::Jailed => "its jail closed",
            Self::Handed => "descriptors handed over",
            Self::Assembled => "KVM objects, memory, devices",
            Self::FirstRun => "first KVM_RUN",
            Self::Hello => "kernel and agent (hello)",
            Self::Mounted => "mounts",
            Self::ProcessStarted => "process started",
            Self::FirstByte => "first byte",
            Self::Exited => "process exited",
            Self::TornDown => "machine gone",
        }
    }
}

/// One line of the table.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Row {
    pub what: &'static str,
    /// Milliseconds since the program was executed, and since the row before.
    pub at_ms: f64,
    pub took_ms: f64,
}

#[derive(Debug)]
pub struct Timings {
    zero: u64,
    marks: Vec<(Mark, u64)>,
    at_hello: Option<Counters>,
    counters: Option<Counters>,
    guest: Option<(String, String)>,
}

impl Timings {
    /// To be made first thing in `main`. The time before it is what this process has used of a processor until now.
    pub fn start() -> Self {
        let now = now();
        let before = nanoseconds(ClockId::ProcessCPUTime);
        Self {
            zero: now.saturating_sub(before),
            marks: vec![(Mark::Main, now)],
            at_hello: None,
            counters: None,
            guest: None,
        }
    }

    /// What is here now for the first time.
    pub(crate) fn mark(&mut self, mark: Mark) {
        self.mark_at(mark, now());
    }

    fn mark_at(&mut self, mark: Mark, at: u64) {
        if !self.reached(mark) {
            self.marks.push((mark, at));
        }
    }

    pub(crate) fn reached(&self, mark: Mark) -> bool {
        self.at(mark).is_some()
    }

    fn at(&self, mark: Mark) -> Option<u64> {
        self.marks.iter().find(|(m, _)| *m == mark).map(|(_, at)| *at)
    }

    pub(crate) fn machine(&mut self, marks: &Marks) {
        self.mark_at(Mark::MachineProcess, marks.process);
        self.mark_at(Mark::Jailed, marks.jailed);
        self.mark_at(Mark::Handed, marks.config);
        self.mark_at(Mark::Assembled, marks.assembled);
        self.mark_at(Mark::FirstRun, marks.first_run);
    }

    /// The guest says how long it took, from Start on, by its own clock; it is believed as far as ours allows.
    pub(crate) fn started(&mut self, mounts_us: u64, _started_us: u64) {
        let now = now();
        if let Some(hello) = self.at(Mark::Hello).or(self.at(Mark::FirstRun)) {
            self.mark_at(Mark::Mounted, hello.saturating_add(mounts_us.saturating_mul(1000)).min(now));
        }
        self.mark_at(Mark::ProcessStarted, now);
    }

    pub(crate) fn counters_at_hello(&mut self, counters: Counters) {
        self.at_hello = Some(counters);
    }

    pub(crate) fn counters(&mut self, counters: Counters) {
        self.counters = Some(counters);
    }

    pub(crate) fn guest(&mut self, agent: String, kernel: String) {
        self.guest = Some((agent, kernel));
    }

    /// What KVM counted until the agent said hello: the kernel's boot.
    pub fn counted_at_hello(&self) -> Option<&Counters> {
        self.at_hello.as_ref()
    }

    /// What KVM counted until the process exited.
    pub fn counted(&self) -> Option<&Counters> {
        self.counters.as_ref()
    }

    /// What the guest says its kernel is.
    pub fn guest_kernel(&self) -> Option<&str> {
        self.guest.as_ref().map(|(_, kernel)| kernel.as_str())
    }

    pub fn rows(&self) -> Vec<Row> {
        let mut marks = self.marks.clone();
        marks.sort_by_key(|(mark, at)| (*at, *mark));
        let mut before = self.zero;
        let row = |(mark, at): (Mark, u64)| {
            let row = Row { what: mark.what(), at_ms: ms(at, self.zero), took_ms: ms(at, before) };
            before = at;
            row
        };
        marks.into_iter().map(row).collect()
    }
}

fn ms(at: u64, since: u64) -> f64 {
    // Whole microseconds of less than a century are exact in a double.
    let us = at.saturating_sub(since) / 1000;
    u32::try_from(us).map_or(f64::INFINITY, f64::from) / 1000.0
}

fn now() -> u64 {
    nanoseconds(ClockId::Monotonic)
}

fn nanoseconds(clock: ClockId) -> u64 {
    let t = clock_gettime(clock);
    t.tv_sec.unsigned_abs() * 1_000_000_000 + t.tv_nsec.unsigned_abs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_order_and_their_parts_add_up() {
        let mut timings = Timings {
            zero: 0,
            marks: vec![(Mark::Main, 1_000_000)],
            at_hello: None,
            counters: None,
            guest: None,
        };
        timings.mark_at(Mark::FirstRun, 5_000_000);
        timings.mark_at(Mark::ImageResolved, 2_000_000);
        timings.mark_at(Mark::FirstRun, 9_000_000);
        let rows = timings.rows();
        let took: Vec<f64> = rows.iter().map(|r| r.took_ms).collect();
        assert_eq!(took, [1.0, 1.0, 3.0]);
        assert_eq!(rows[2].at_ms, 5.0);
    }

    #[test]
    fn a_guest_cannot_make_time_run_backwards_or_ahead() {
        let mut timings = Timings::start();
        timings.mark(Mark::Hello);
        timings.started(u64::MAX, u64::MAX);
        assert!(timings.at(Mark::Mounted) <= timings.at(Mark::ProcessStarted));
    }
}
