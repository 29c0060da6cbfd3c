// SPDX-License-Identifier: Apache-2.0
//! Bytes in and out, and terminals.

use crate::host::{able, run, shell, start};
use isopod_protocol::StreamId;
use isopod_protocol::message::{Container, FromHost, WindowSize};

fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state.to_le_bytes()[0]
    };
    (0..len).map(|_| next()).collect()
}

#[test]
fn eight_mebibytes_come_back_as_they_went() {
    if !able() {
        return;
    }
    let bytes = noise(8 << 20);
    let running = start(Container { stdin: true, ..shell("cat") });
    running.stdin(&bytes).end_stdin();
    let ended = running.wait();
    assert_eq!(ended.code(), Some(0));
    assert!(ended.output[&StreamId::STDOUT] == bytes);
}

#[test]
fn two_streams_at_once_stay_apart() {
    if !able() {
        return;
    }
    let ended = run(shell("yes out | head -c 3000000 & yes error | head -c 3000000 >&2; wait"));
    assert_eq!(ended.output[&StreamId::STDOUT].len(), 3_000_000);
    assert!(ended.stdout().lines().all(|line| "out".starts_with(line)));
    assert!(ended.stderr().lines().all(|line| "error".starts_with(line)));
    assert_eq!(ended.output[&StreamId::STDERR].len(), 3_000_000);
}

#[test]
fn a_process_without_a_writer_reads_nothing() {
    if !able() {
        return;
    }
    assert_eq!(run(shell("cat | wc -c")).stdout(), "0\n");
}

#[test]
fn a_process_that_stops_reading_does_not_stop_the_host() {
    if !able() {
        return;
    }
    let running =
        start(Container { stdin: true, ..shell("head -c 10 | wc -c; exec <&-; sleep 0.3; echo done") });
    running.stdin(&noise(4 << 20)).end_stdin();
    let ended = running.wait();
    assert_eq!(ended.stdout(), "10\ndone\n");
    assert_eq!(ended.ends.iter().filter(|stream| **stream == StreamId::STDIN).count(), 1);
}

#[test]
fn everything_that_was_written_before_the_end_arrives() {
    if !able() {
        return;
    }
    let ended = run(shell("(yes | head -c 1000000; sleep 5) & sleep 0.5; head -c 60000 /dev/zero"));
    assert_eq!(ended.output[&StreamId::STDOUT].len(), 1_060_000);
}

#[test]
fn streams_can_be_opened_by_name_even_by_somebody_else_than_root() {
    if !able() {
        return;
    }
    let ended = run(Container { user: "web".into(), ..shell("echo o >/dev/stdout; echo e >/dev/stderr") });
    assert_eq!((ended.stdout().as_str(), ended.stderr().as_str()), ("o\n", "e\n"));
}

fn on_terminal(script: &str) -> Container {
    Container { terminal: Some(WindowSize { rows: 33, columns: 101 }), stdin: true, ..shell(script) }
}

#[test]
fn a_terminal_has_a_size_and_a_session() {
    if !able() {
        return;
    }
    for init in [false, true] {
        let script =
            "tty; stty size; test -t 0 && test -t 1 && test -t 2 && echo yes; ls -l /dev/console | cut -c1";
        let ended = run(Container { init, ..on_terminal(script) });
        assert_eq!(ended.stdout(), "/dev/pts/0\r\n33 101\r\nyes\r\nc\r\n");
        assert_eq!((ended.code(), ended.stderr().as_str()), (Some(0), ""));
    }
}

#[test]
fn a_terminal_echoes_and_its_keys_are_signals() {
    if !able() {
        return;
    }
    let mut running =
        start(on_terminal("trap 'echo int; exit 5' INT; echo ready; cat; while :; do sleep 0.05; done"));
    running.until("ready");
    running.stdin(b"typed\n");
    running.until("typed\r\ntyped\r\n");
    running.stdin(b"\x03");
    let ended = running.wait();
    assert_eq!(ended.code(), Some(5), "{}", ended.stdout());
    assert!(ended.stdout().contains("^C"));
}

#[test]
fn the_end_key_ends_a_terminals_input() {
    if !able() {
        return;
    }
    let mut running = start(on_terminal("echo ready; cat; echo over"));
    running.until("ready");
    running.stdin(b"\x04");
    let ended = running.wait();
    assert!(ended.stdout().ends_with("over\r\n"));
}

#[test]
fn a_terminal_changes_its_size() {
    if !able() {
        return;
    }
    let script = "trap 'stty size; exit' WINCH; echo ready; while :; do sleep 0.05; done";
    let mut running = start(on_terminal(script));
    running.until("ready");
    running.say(FromHost::resize(WindowSize { rows: 5, columns: 7 }));
    assert!(running.wait().stdout().ends_with("5 7\r\n"));
}

#[test]
fn a_terminal_gives_all_of_a_large_output() {
    if !able() {
        return;
    }
    let ended = run(on_terminal("yes 0123456789 | head -n 50000"));
    assert_eq!(ended.stdout().len(), 50_000 * 12);
}

#[test]
fn a_terminal_belongs_to_its_user() {
    if !able() {
        return;
    }
    let ended =
        run(Container { user: "web".into(), ..on_terminal("stat -c %u:%g:%a /dev/pts/0; echo x >/dev/tty") });
    assert_eq!(ended.stdout(), "1000:5:620\r\nx\r\n");
}
