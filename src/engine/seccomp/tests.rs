// SPDX-License-Identifier: Apache-2.0
use super::compile::{
    AND, ARCH, AT_ARCH, AT_NR, Instruction, JUMP, JUMP_EQ, JUMP_GE, JUMP_GT, LOAD, RETURN, X32, program,
};
use super::profile::{Compare, Condition, Rule};
use super::table::{NAMES, nr};
use super::*;
use crate::capabilities::{Capabilities, Capability};
use proptest::prelude::*;

struct Call {
    arch: u32,
    nr: u32,
    args: [u64; 6],
}

/// What the program answers, and in how many steps: as much of a BPF machine as the program uses.
fn run(program: &[Instruction], call: &Call) -> (u32, usize) {
    let word = |at: u32| match at {
        AT_NR => call.nr,
        AT_ARCH => call.arch,
        at => {
            let argument = call.args[(at as usize - 16) / 8];
            let half = if at % 8 == 0 { argument } else { argument >> 32 };
            u32::try_from(half & 0xffff_ffff).unwrap()
        }
    };
    let (mut pc, mut a, mut steps) = (0, 0u32, 0);
    loop {
        let i = program[pc];
        steps += 1;
        pc += 1;
        let taken = match i.code {
            LOAD => {
                a = word(i.k);
                continue;
            }
            AND => {
                a &= i.k;
                continue;
            }
            JUMP => {
                pc += i.k as usize;
                continue;
            }
            RETURN => return (i.k, steps),
            JUMP_EQ => a == i.k,
            JUMP_GT => a > i.k,
            JUMP_GE => a >= i.k,
            code => panic!("instruction {code:#x}"),
        };
        pc += usize::from(if taken { i.jt } else { i.jf });
    }
}

fn native(nr: u32, args: [u64; 6]) -> Call {
    Call { arch: ARCH, nr, args }
}

/// Values around everything the rules of a profile compare with.
fn interesting(profile: &Profile) -> Vec<u64> {
    let mut values = vec![0, 1, u64::MAX, 1 << 32, 1 << 63];
    for condition in profile.rules.iter().flat_map(|rule| &rule.when) {
        let v = match condition.compare {
            Compare::Eq(v)
            | Compare::Ne(v)
            | Compare::Lt(v)
            | Compare::Le(v)
            | Compare::Gt(v)
            | Compare::Ge(v) => v,
            Compare::Masked { mask, value } => {
                values.push(mask);
                value
            }
        };
        values.extend([v, v.wrapping_sub(1), v.wrapping_add(1), v | 1 << 32, v.wrapping_add(1 << 32)]);
    }
    values.sort_unstable();
    values.dedup();
    values
}

/// The most steps of any call, after every verdict was compared with the profile's.
fn check(profile: &Profile) -> usize {
    let program = program(profile);
    assert!(program.len() < 4096);
    let mut most = 0;
    for nr in 0..=NAMES.last().unwrap().1 {
        let arguments: Vec<[u64; 6]> = match profile.of(nr) {
            [] => vec![[0; 6]],
            rules => {
                let used: Vec<u8> = rules.iter().flat_map(|r| &r.when).map(|c| c.argument).collect();
                let mut all = vec![[0; 6]];
                for value in interesting(&Profile::new(profile.default, rules.to_vec())) {
                    for argument in &used {
                        let mut one = [0; 6];
                        one[usize::from(*argument)] = value;
                        all.extend([one, [value; 6]]);
                    }
                }
                all
            }
        };
        for args in arguments {
            let (answer, steps) = run(&program, &native(nr.into(), args));
            assert_eq!(answer, profile.decide(nr, &args).code(), "call {nr} with {args:x?}");
            if profile.of(nr).iter().all(|rule| rule.when.is_empty()) {
                most = most.max(steps);
            }
        }
    }
    most
}

#[test]
fn the_default_says_of_every_call_what_its_table_says() {
    check(&default_profile(Capabilities::DEFAULT));
    check(&default_profile(Capabilities::ALL));
    check(&default_profile(Capabilities::NONE));
}

#[test]
fn the_default_decides_every_call_in_few_steps_and_is_short() {
    let profile = default_profile(Capabilities::DEFAULT);
    let program = program(&profile);
    let sum: usize = (0..=462).map(|nr| run(&program, &native(nr, [0; 6])).1).sum();
    assert!(check(&profile) <= 13, "{} steps at most", check(&profile));
    assert!(program.len() <= 170, "{} instructions", program.len());
    assert!(sum <= 463 * 9, "{sum} steps for all numbers");
}

#[test]
fn a_foreign_architecture_is_killed_and_x32_refused() {
    let program = program(&default_profile(Capabilities::ALL));
    let i386 = Call { arch: 0x4000_0003, nr: 4, args: [0; 6] };
    assert_eq!(run(&program, &i386).0, Action::KillProcess.code());
    assert_eq!(run(&program, &native(X32 + 1, [0; 6])).0, Action::Errno(1).code());
}

#[test]
fn a_call_newer_than_the_table_is_answered_as_by_a_kernel_without_it() {
    let program = program(&default_profile(Capabilities::DEFAULT));
    assert_eq!(run(&program, &native(4000, [0; 6])).0, Action::Errno(38).code());
}

#[test]
fn vsock_is_refused_even_where_the_kernel_would_drop_upper_bits() {
    let profile = default_profile(Capabilities::ALL);
    for family in [40, 40 + (1 << 32), 38, 38 + (7 << 32)] {
        assert_eq!(profile.decide(nr::socket, &[family, 1, 0, 0, 0, 0]), Action::Errno(1), "{family:#x}");
    }
    assert_eq!(profile.decide(nr::socket, &[2, 1, 0, 0, 0, 0]), Action::Allow);
}

#[test]
fn a_namespace_takes_sys_admin() {
    let newns = [0x2_0000, 0, 0, 0, 0, 0];
    let plain = default_profile(Capabilities::DEFAULT);
    assert_eq!(plain.decide(nr::clone, &newns), Action::Errno(1));
    assert_eq!(plain.decide(nr::clone3, &newns), Action::Errno(38));
    assert_eq!(plain.decide(nr::mount, &newns), Action::Errno(1));
    let admin = default_profile(Capabilities::DEFAULT.with(Capability::SYS_ADMIN));
    assert_eq!(admin.decide(nr::clone, &newns), Action::Allow);
    assert_eq!(admin.decide(nr::clone3, &newns), Action::Allow);
    assert_eq!(admin.decide(nr::mount, &newns), Action::Allow);
}

#[test]
fn the_table_agrees_with_the_c_library() {
    for (name, number) in [
        ("read", libc::SYS_read),
        ("clone3", libc::SYS_clone3),
        ("io_uring_setup", libc::SYS_io_uring_setup),
        ("rseq", libc::SYS_rseq),
        ("mseal", libc::SYS_mseal),
    ] {
        let found = NAMES.iter().find(|(n, _)| *n == name).unwrap();
        assert_eq!(i64::from(found.1), number, "{name}");
    }
    assert!(NAMES.windows(2).all(|pair| pair[0].1 < pair[1].1));
}

fn any_compare() -> impl Strategy<Value = Compare> {
    let value = prop_oneof![0u64..20, any::<u64>(), Just(1 << 32), Just(u64::from(u32::MAX))];
    (value, any::<u64>(), 0..8).prop_map(|(v, mask, kind)| match kind {
        0 => Compare::Ne(v),
        1 => Compare::Lt(v),
        2 => Compare::Le(v),
        3 => Compare::Gt(v),
        4 => Compare::Ge(v),
        5 => Compare::Masked { mask, value: v & mask },
        6 => Compare::Masked { mask: u64::from(u32::MAX), value: v },
        _ => Compare::Eq(v),
    })
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Allow),
        (0u16..4096).prop_map(Action::Errno),
        Just(Action::KillProcess),
        Just(Action::Log)
    ]
}

fn any_rule() -> impl Strategy<Value = Rule> {
    let condition = (0u8..6, any_compare()).prop_map(|(argument, compare)| Condition { argument, compare });
    (0u16..468, prop::collection::vec(condition, 0..4), any_action())
        .prop_map(|(syscall, when, action)| Rule { syscall, when, action })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn any_profile_means_the_same_compiled(default in any_action(), rules in prop::collection::vec(any_rule(), 0..400)) {
        check(&Profile::new(default, rules));
    }
}

const PROFILE: &str = r#"{
    "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
    "architectures": ["SCMP_ARCH_X86_64", "SCMP_ARCH_X32"],
    "syscalls": [
        {"names": ["read", "write", "no_such_call"], "action": "SCMP_ACT_ALLOW"},
        {"names": ["kill"], "action": "SCMP_ACT_KILL_PROCESS"},
        {"names": ["clone"], "action": "SCMP_ACT_ALLOW",
         "args": [{"index": 0, "value": 131072, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]},
        {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["chroot"], "action": "SCMP_ACT_ALLOW", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
        {"names": ["swapcontext"], "action": "SCMP_ACT_ALLOW", "includes": {"arches": ["ppc64le"]}}
    ]}"#;

#[test]
fn a_profile_file_means_what_dockers_would() {
    let profile = parse(PROFILE, Capabilities::DEFAULT).unwrap();
    check(&profile);
    let none = [0; 6];
    assert_eq!(profile.decide(nr::read, &none), Action::Allow);
    assert_eq!(profile.decide(nr::open, &none), Action::Errno(38));
    assert_eq!(profile.decide(nr::kill, &none), Action::KillProcess);
    assert_eq!(profile.decide(nr::clone, &[131_072, 0, 0, 0, 0, 0]), Action::Errno(38));
    assert_eq!(profile.decide(nr::mount, &none), Action::Errno(38));
    assert_eq!(profile.decide(nr::chroot, &none), Action::Allow);
    let admin = parse(PROFILE, Capabilities::ALL).unwrap();
    assert_eq!(
        (admin.decide(nr::mount, &none), admin.decide(nr::chroot, &none)),
        (Action::Allow, Action::Errno(38))
    );
}

#[test]
fn a_profile_file_that_asks_for_what_is_not_there_is_refused_by_name() {
    let notify =
        r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["read"],"action":"SCMP_ACT_NOTIFY"}]}"#;
    assert!(parse(notify, Capabilities::DEFAULT).unwrap_err().to_string().contains("SCMP_ACT_NOTIFY"));
    assert!(parse("{", Capabilities::DEFAULT).is_err());
}
