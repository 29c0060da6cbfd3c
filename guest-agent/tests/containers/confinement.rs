// SPDX-License-Identifier: Apache-2.0
//! What a container may not.

use crate::host::{able, command, run, shell};
use isopod_protocol::message::{Container, WindowSize};
use std::collections::BTreeMap;

/// `/proc/self/status` of a container's process.
fn status(container: Container) -> BTreeMap<String, String> {
    let ended = run(Container { args: shell("cat /proc/self/status").args, ..container });
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    let pairs = ended.stdout();
    let pairs = pairs.lines().filter_map(|line| line.split_once(":\t"));
    pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// A filter that answers one system call with an error and lets the others through.
fn refuse(number: u32, errno: u32) -> Vec<u8> {
    let instruction = |code: u16, jt: u8, jf: u8, k: u32| {
        let mut bytes = code.to_ne_bytes().to_vec();
        bytes.extend([jt, jf]);
        bytes.extend(k.to_ne_bytes());
        bytes
    };
    let program =
        [(0x20, 0, 0, 0), (0x15, 0, 1, number), (0x06, 0, 0, 0x0005_0000 | errno), (0x06, 0, 0, 0x7fff_0000)];
    program.into_iter().flat_map(|(code, jt, jf, k)| instruction(code, jt, jf, k)).collect()
}

#[test]
fn capabilities_are_those_that_were_given() {
    if !able() {
        return;
    }
    let some = 0x0000_0000_0000_04fb;
    for init in [false, true] {
        let root = status(Container { capabilities: some, init, ..Container::default() });
        for (set, value) in
            [("CapBnd", some), ("CapPrm", some), ("CapEff", some), ("CapInh", 0), ("CapAmb", 0)]
        {
            assert_eq!(root[set], format!("{value:016x}"), "{set}");
        }
        let web = status(Container { capabilities: some, user: "web".into(), init, ..Container::default() });
        for (set, value) in [("CapBnd", some), ("CapPrm", 0), ("CapEff", 0), ("CapInh", 0), ("CapAmb", 0)] {
            assert_eq!(web[set], format!("{value:016x}"), "{set}");
        }
    }
}

#[test]
fn an_init_has_no_more_than_its_process() {
    if !able() {
        return;
    }
    let container = Container { capabilities: 0xfb, init: true, ..shell("grep Cap /proc/1/status") };
    let ended = run(Container { seccomp: refuse(170, 77), no_new_privileges: true, ..container });
    let expected = ["Inh", "Prm", "Eff", "Bnd", "Amb"].map(|set| match set {
        "Inh" | "Amb" => format!("Cap{set}:\t{:016x}\n", 0),
        _ => format!("Cap{set}:\t{:016x}\n", 0xfb),
    });
    assert_eq!(ended.stdout(), expected.concat());
}

#[test]
fn a_filter_holds_with_and_without_new_privileges() {
    if !able() {
        return;
    }
    // sethostname, which fails with EPERM where there is no filter and no capability.
    let seccomp = refuse(170, 38);
    for no_new_privileges in [false, true] {
        for (user, init) in [("", false), ("web", false), ("", true), ("web", true)] {
            let script = "hostname other; grep -E 'NoNewPrivs|Seccomp:' /proc/self/status";
            let container = Container { seccomp: seccomp.clone(), no_new_privileges, init, ..shell(script) };
            let ended = run(Container { user: user.into(), ..container });
            assert!(ended.stderr().contains("Function not implemented"), "{ended:?}");
            let expected = format!("NoNewPrivs:\t{}\nSeccomp:\t2\n", u8::from(no_new_privileges));
            assert_eq!(ended.stdout(), expected);
        }
    }
}

#[test]
fn a_filter_that_is_none_is_our_failure() {
    if !able() {
        return;
    }
    let ended = run(Container { seccomp: vec![1, 2, 3], no_new_privileges: true, ..shell("true") });
    assert_eq!(ended.failure().0, 0);
    assert!(ended.failure().1.contains("filter"));
}

#[test]
fn no_descriptor_is_left_to_the_process() {
    if !able() {
        return;
    }
    for terminal in [None, Some(WindowSize { rows: 1, columns: 1 })] {
        for init in [false, true] {
            let ended = run(Container { terminal, init, stdin: true, ..command(&["ls", "/proc/self/fd"]) });
            // The fourth is the one that ls lists with.
            let listed: Vec<String> = ended.stdout().split_whitespace().map(str::to_owned).collect();
            assert_eq!(listed, ["0", "1", "2", "3"]);
        }
    }
}

#[test]
fn signals_start_with_their_default_actions() {
    if !able() {
        return;
    }
    for init in [false, true] {
        let status = status(Container { init, capabilities: u64::MAX, ..Container::default() });
        assert_eq!(status["SigBlk"], "0000000000000000");
    }
}
