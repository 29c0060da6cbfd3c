// SPDX-License-Identifier: Apache-2.0
//! `-it` is a terminal: size, resize, Ctrl-C, Ctrl-D, job control.

use crate::support::pty::Terminal;
use crate::support::{Host, threads};
use std::thread;
use std::time::Duration;

#[test]
fn a_shell_on_a_terminal_behaves_like_one() {
    let host = Host::new();
    let mut terminal = Terminal::run(&host, &["--entrypoint", "", "demo", "sh"], 33, 121);
    terminal.expect("$ ");

    terminal.type_in("stty size; tty\n");
    terminal.expect("33 121");
    terminal.expect("/dev/pts/0");

    terminal.resize(44, 99);
    terminal.type_in("sleep 2; stty size\n");
    terminal.expect("44 99");

    terminal.type_in("sleep 1000\n");
    terminal.expect("sleep 1000");
    thread::sleep(Duration::from_secs(3));
    terminal.type_in("\x03");
    terminal.type_in("echo code $((100 + $?))\n");
    terminal.expect("code 230");

    terminal.type_in("sleep 1000 & jobs\n");
    terminal.expect("[1]+  Running");
    terminal.type_in("kill %1; wait; echo waited\n");
    terminal.expect("\r\nwaited");
    // An end of input counts when the shell asks for some.
    terminal.expect("Terminated");
    terminal.expect("$ ");

    terminal.type_in("\x04");
    terminal.expect_exit(0);
    host.assert_clean();
}

#[test]
fn a_template_in_the_making_is_shown_and_nobody_draws_any_more_when_it_is_made() {
    let host = Host::without_templates();
    let mut terminal = Terminal::run(&host, &["--entrypoint", "", "demo", "sh"], 33, 121);
    terminal.expect("making a template");
    terminal.expect("booting");
    terminal.expect("saving");
    terminal.expect("$ ");
    assert_eq!(threads(terminal.engine()).len(), 1);
    terminal.type_in("\x04");
    terminal.expect_exit(0);
    host.assert_clean();
}

#[test]
fn t_and_i_without_a_terminal_are_refused_as_by_docker() {
    let run = Host::new().isopod(&["run", "--rm", "-it", "demo"]).expect(125);
    assert!(run.stderr.contains("the input device is not a TTY"), "{}", run.stderr);
}
