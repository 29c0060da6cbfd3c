// SPDX-License-Identifier: Apache-2.0
//! A profile → a classic BPF program that is short, and quick for every call.
//!
//! When a filter is loaded the kernel runs it for every system-call number, to learn which are always allowed
//! (`seccomp_cache_prepare`). So what costs is the sum over all numbers of the steps to a verdict, and that is what
//! the search tree is optimal for: numbers with the same verdict make a range, ranges are leaves, and a wide range
//! lies higher than a narrow one.
//!
//! The program is written back to front. All jumps of classic BPF go forward, so that each target is known when the
//! jump to it is written.

use super::profile::{Action, Compare, Condition, Profile, Rule};
use super::table::NAMES;
use std::collections::BTreeSet;

/// `struct sock_filter`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Instruction {
    pub(super) code: u16,
    pub(super) jt: u8,
    pub(super) jf: u8,
    pub(super) k: u32,
}

// linux/bpf_common.h; a load is of a word at a fixed place in `struct seccomp_data`.
pub(super) const LOAD: u16 = 0x20;
pub(super) const AND: u16 = 0x54;
pub(super) const JUMP: u16 = 0x05;
pub(super) const JUMP_EQ: u16 = 0x15;
pub(super) const JUMP_GT: u16 = 0x25;
pub(super) const JUMP_GE: u16 = 0x35;
pub(super) const RETURN: u16 = 0x06;

// linux/seccomp.h, `struct seccomp_data`: nr, arch, instruction pointer, args.
pub(super) const AT_NR: u32 = 0;
pub(super) const AT_ARCH: u32 = 4;
const AT_ARGUMENTS: u32 = 16;
/// `AUDIT_ARCH_X86_64`: EM_X86_64, 64 bit, little endian.
pub(super) const ARCH: u32 = 0xc000_003e;
/// Numbers from here on are the x32 interface's, which no profile allows.
pub(super) const X32: u32 = 0x4000_0000;
const EPERM: u16 = 1;
const ENOSYS: u16 = 38;
/// How far a conditional jump reaches, less what may be put between it and its targets.
const REACH: usize = 250;

/// The program, as bytes for the kernel.
pub fn compile(profile: &Profile) -> Vec<u8> {
    let mut bytes = Vec::new();
    for i in program(profile) {
        bytes.extend_from_slice(&i.code.to_ne_bytes());
        bytes.extend_from_slice(&[i.jt, i.jf]);
        bytes.extend_from_slice(&i.k.to_ne_bytes());
    }
    bytes
}

pub(super) fn program(profile: &Profile) -> Vec<Instruction> {
    let mut out = Backward::default();
    let ranges = call_ranges(profile, &mut out);
    let start = search(&ranges, &mut out);
    let start = out.place(start);
    out.load(AT_NR, start);
    let start = out.end();
    let foreign = out.answer(Action::KillProcess);
    out.branch(JUMP_EQ, ARCH, Target::At(start), foreign);
    let start = out.end();
    out.load(AT_ARCH, start);
    out.0.reverse();
    out.0
}

/// Numbers from `start` up to the next range's have this target; `weight` is how often it will be looked for.
struct Range {
    start: u32,
    weight: u32,
    target: Target,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Answer(u32),
    /// The place of an instruction, counted from the program's end.
    At(usize),
}

fn call_ranges(profile: &Profile, out: &mut Backward) -> Vec<Range> {
    let last = NAMES.last().map_or(0, |(_, number)| *number);
    let mut ranges: Vec<Range> = Vec::new();
    for number in 0..=last {
        let target = verdict(profile.of(number), profile.default, out);
        match ranges.last_mut() {
            Some(range) if range.target == target => range.weight += 1,
            _ => ranges.push(Range { start: u32::from(number), weight: 1, target }),
        }
    }
    // A call that is newer than the table: programs know what to do if the kernel does not have it.
    let unknown = out.answer(Action::Errno(ENOSYS));
    ranges.push(Range { start: u32::from(last) + 1, weight: 1, target: unknown });
    let x32 = out.answer(Action::Errno(EPERM));
    ranges.push(Range { start: X32, weight: 1, target: x32 });
    ranges
}

/// Where a call with these rules is decided.
fn verdict(rules: &[Rule], default: Action, out: &mut Backward) -> Target {
    let conditional: Vec<_> = rules.iter().take_while(|rule| !rule.when.is_empty()).collect();
    let otherwise = rules.get(conditional.len()).map_or(default, |rule| rule.action);
    if conditional.is_empty() {
        return out.answer(otherwise);
    }
    if let Some(argument) = one_argument(&conditional) {
        return by_value(&conditional, argument, otherwise, out);
    }
    conditional.iter().rev().fold(out.answer(otherwise), |next, rule| {
        let yes = out.answer(rule.action);
        rule.when.iter().rev().fold(yes, |yes, condition| compare(*condition, yes, next, out))
    })
}

/// The argument, if it is the only one that all rules look at, and each does so once and for its order.
fn one_argument(rules: &[&Rule]) -> Option<u8> {
    let of = |rule: &&Rule| match rule.when[..] {
        [Condition { compare: Compare::Masked { .. }, .. }] => None,
        [Condition { argument, .. }] => Some(argument),
        _ => None,
    };
    let first = rules.first().and_then(of)?;
    rules.iter().all(|rule| of(rule) == Some(first)).then_some(first)
}

/// Decides by a search among the argument's values, if all that matter fit into its lower half.
fn by_value(rules: &[&Rule], argument: u8, otherwise: Action, out: &mut Backward) -> Target {
    let decide = |value: u64| {
        let rule = rules.iter().find(|rule| rule.when.iter().all(|c| c.compare.holds(value)));
        rule.map_or(otherwise, |rule| rule.action)
    };
    let edges: BTreeSet<u64> = rules.iter().flat_map(|r| &r.when).flat_map(|c| edges(c.compare)).collect();
    let Ok(edges) =
        edges.into_iter().filter(|e| *e != 1 << 32).map(u32::try_from).collect::<Result<Vec<_>, _>>()
    else {
        return rules.iter().rev().fold(out.answer(otherwise), |next, rule| {
            let yes = out.answer(rule.action);
            rule.when.iter().fold(yes, |yes, condition| compare(*condition, yes, next, out))
        });
    };
    let mut ranges: Vec<Range> = Vec::new();
    for start in [0].into_iter().chain(edges) {
        let target = out.answer(decide(u64::from(start)));
        if ranges.last().is_none_or(|range| range.target != target) {
            ranges.push(Range { start, weight: 1, target });
        }
    }
    let low = search(&ranges, out);
    let low = out.place(low);
    out.load(low_half(argument), low);
    let low = Target::At(out.end());
    let beyond = out.answer(decide(1 << 32));
    out.branch(JUMP_EQ, 0, low, beyond);
    let test = out.end();
    out.load(low_half(argument) + 4, test);
    Target::At(out.end())
}

/// Values at which the outcome may change.
fn edges(compare: Compare) -> Vec<u64> {
    match compare {
        Compare::Eq(v) | Compare::Ne(v) => vec![v, v.saturating_add(1)],
        Compare::Lt(v) | Compare::Ge(v) => vec![v],
        Compare::Le(v) | Compare::Gt(v) => vec![v.saturating_add(1)],
        Compare::Masked { .. } => Vec::new(),
    }
}

fn low_half(argument: u8) -> u32 {
    AT_ARGUMENTS + 8 * u32::from(argument)
}

/// One condition on all 64 bits; the upper half is looked at first.
fn compare(condition: Condition, yes: Target, no: Target, out: &mut Backward) -> Target {
    let low = low_half(condition.argument);
    let halves = |v: u64| (half(v), half(v >> 32));
    match condition.compare {
        Compare::Eq(v) => equal(low, (u64::MAX, v), yes, no, out),
        Compare::Ne(v) => equal(low, (u64::MAX, v), no, yes, out),
        Compare::Masked { mask, value } if value & !mask != 0 => no,
        Compare::Masked { mask, value } => equal(low, (mask, value), yes, no, out),
        Compare::Gt(v) => order(low, JUMP_GT, halves(v), (yes, no), out),
        Compare::Ge(v) => order(low, JUMP_GE, halves(v), (yes, no), out),
        Compare::Le(v) => order(low, JUMP_GT, halves(v), (no, yes), out),
        Compare::Lt(v) => order(low, JUMP_GE, halves(v), (no, yes), out),
    }
}

fn equal(low: u32, (mask, value): (u64, u64), yes: Target, no: Target, out: &mut Backward) -> Target {
    let mut next = yes;
    for (at, shift) in [(low, 0), (low + 4, 32)] {
        let (mask, value) = (half(mask >> shift), half(value >> shift));
        if mask == 0 {
            continue;
        }
        out.branch(JUMP_EQ, value, next, no);
        if mask != u32::MAX {
            out.push(Instruction { code: AND, jt: 0, jf: 0, k: mask });
        }
        let test = out.end();
        out.load(at, test);
        next = Target::At(out.end());
    }
    next
}

fn order(low: u32, code: u16, value: (u32, u32), (yes, no): (Target, Target), out: &mut Backward) -> Target {
    out.branch(code, value.0, yes, no);
    let test = out.end();
    out.load(low, test);
    let lower = Target::At(out.end());
    out.branch(JUMP_EQ, value.1, lower, no);
    let same = Target::At(out.end());
    out.branch(JUMP_GT, value.1, yes, same);
    let test = out.end();
    out.load(low + 4, test);
    Target::At(out.end())
}

fn half(v: u64) -> u32 {
    u32::try_from(v & 0xffff_ffff).unwrap_or(u32::MAX)
}

/// The tree that finds the range of the loaded value.
fn search(ranges: &[Range], out: &mut Backward) -> Target {
    let splits = Splits::of(ranges);
    splits.emit(ranges, (0, ranges.len()), out)
}

/// For each run of ranges, where to split it so that the sum of weight times depth is least (Knuth's method: the best
/// split of a run lies between those of the run less its last and less its first).
struct Splits {
    n: usize,
    at: Vec<usize>,
}

impl Splits {
    fn of(ranges: &[Range]) -> Self {
        let n = ranges.len();
        let mut sums = vec![0u64; n + 1];
        for (i, range) in ranges.iter().enumerate() {
            sums[i + 1] = sums[i] + u64::from(range.weight);
        }
        let mut splits = Self { n, at: vec![0; (n + 1) * (n + 1)] };
        let mut costs = vec![0u64; (n + 1) * (n + 1)];
        for from in 0..n {
            let place = splits.place(from, from + 1);
            splits.at[place] = from + 1;
        }
        for len in 2..=n {
            for from in 0..=n - len {
                let to = from + len;
                let first = splits.at[splits.place(from, to - 1)].max(from + 1);
                let last = splits.at[splits.place(from + 1, to)].min(to - 1);
                let cost =
                    |split: &usize| costs[splits.place(from, *split)] + costs[splits.place(*split, to)];
                let best = (first..=last.max(first)).min_by_key(cost).unwrap_or(first);
                let place = splits.place(from, to);
                costs[place] = cost(&best) + sums[to] - sums[from];
                splits.at[place] = best;
            }
        }
        splits
    }

    fn place(&self, from: usize, to: usize) -> usize {
        from * (self.n + 1) + to
    }

    fn emit(&self, ranges: &[Range], (from, to): (usize, usize), out: &mut Backward) -> Target {
        if to - from == 1 {
            return ranges[from].target;
        }
        let split = self.at[self.place(from, to)];
        let above = self.emit(ranges, (split, to), out);
        let below = self.emit(ranges, (from, split), out);
        out.branch(JUMP_GE, ranges[split].start, above, below);
        Target::At(out.end())
    }
}

/// A program from its end to its start.
#[derive(Debug, Default)]
struct Backward(Vec<Instruction>);

impl Backward {
    fn push(&mut self, instruction: Instruction) {
        self.0.push(instruction);
    }

    /// The place of the instruction pushed last.
    fn end(&self) -> usize {
        self.0.len().saturating_sub(1)
    }

    fn answer(&self, action: Action) -> Target {
        Target::Answer(action.code())
    }

    /// Loads a word; the next instruction must be the one pushed last.
    fn load(&mut self, at: u32, next: usize) {
        debug_assert_eq!(next, self.end());
        self.push(Instruction { code: LOAD, jt: 0, jf: 0, k: at });
    }

    /// Makes a target the instruction pushed last.
    fn place(&mut self, target: Target) -> usize {
        match target {
            Target::Answer(k) => self.push(Instruction { code: RETURN, jt: 0, jf: 0, k }),
            Target::At(place) if place == self.end() => {}
            Target::At(place) => {
                let k = u32::try_from(self.0.len() - place - 1).unwrap_or(u32::MAX);
                self.push(Instruction { code: JUMP, jt: 0, jf: 0, k });
            }
        }
        self.end()
    }

    fn branch(&mut self, code: u16, k: u32, yes: Target, no: Target) {
        let (yes, no) = (self.near(yes), self.near(no));
        let here = self.0.len();
        let jump = |place: usize| u8::try_from(here - place - 1).expect("`near` has seen to it");
        let (jt, jf) = (jump(yes), jump(no));
        self.push(Instruction { code, jt, jf, k });
    }

    /// A place within a conditional jump's reach that leads to the target.
    fn near(&mut self, target: Target) -> usize {
        let reach = self.0.len().saturating_sub(REACH);
        match target {
            Target::At(place) if place >= reach => place,
            Target::At(_) => self.place(target),
            Target::Answer(k) => {
                let same = |i: &Instruction| i.code == RETURN && i.k == k;
                match self.0[reach..].iter().position(same) {
                    Some(place) => reach + place,
                    None => self.place(target),
                }
            }
        }
    }
}
