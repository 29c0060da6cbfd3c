// SPDX-License-Identifier: Apache-2.0
//! Programs, exit codes, signals, users, environments.

use crate::host::{able, command, connect, image, run, shell, start, start_in};
use isopod_protocol::StreamId;
use isopod_protocol::frame::{put_data, put_window};
use isopod_protocol::message::{Container, EtcFile, FailedKind, FromHost, Rlimit};
use std::fs::{create_dir, set_permissions, write};
use std::os::unix::fs::PermissionsExt;

#[test]
fn a_process_ends_with_its_code_after_its_streams() {
    if !able() {
        return;
    }
    let ended = run(shell("echo out; echo err >&2; exit 7"));
    assert_eq!((ended.code(), ended.stdout().as_str(), ended.stderr().as_str()), (Some(7), "out\n", "err\n"));
    assert_eq!(ended.ends, [StreamId::STDOUT, StreamId::STDERR]);
    let started = ended.started.unwrap();
    assert!(started.mounts_us > 0 && started.mounts_us <= started.started_us);
}

#[test]
fn a_container_with_all_of_dockers_defaults_runs() {
    if !able() {
        return;
    }
    let masked = [
        "acpi",
        "asound",
        "interrupts",
        "kcore",
        "keys",
        "latency_stats",
        "timer_list",
        "timer_stats",
        "scsi",
    ];
    let mut masked_paths: Vec<String> = masked.iter().map(|name| format!("/proc/{name}")).collect();
    masked_paths.push("/sys/firmware".into());
    let read_only_paths =
        ["bus", "fs", "irq", "sys", "sysrq-trigger"].map(|name| format!("/proc/{name}")).to_vec();
    let files = ["hosts", "hostname", "resolv.conf"]
        .map(|name| EtcFile { path: format!("/etc/{name}"), content: b"text\n".to_vec() });
    let container = Container {
        masked_paths,
        read_only_paths,
        files: files.to_vec(),
        ..command(&["/bin/echo", "hello"])
    };
    let image = image();
    for folder in ["dev", "proc", "sys"] {
        create_dir(image.path().join(folder)).unwrap();
    }
    for file in ["hosts", "hostname", "resolv.conf"] {
        write(image.path().join("etc").join(file), "").unwrap();
    }
    let container = Container { no_new_privileges: true, entropy: vec![7; 32], ..container };
    let ended = start_in(image.path(), container).wait();
    assert_eq!((ended.code(), ended.stdout().as_str()), (Some(0), "hello\n"));
}

#[test]
fn a_process_is_the_first_of_its_namespace_and_sees_no_other() {
    if !able() {
        return;
    }
    let ended = run(shell("echo $$; echo /proc/[0-9]*; hostname"));
    assert_eq!(ended.stdout(), "1\n/proc/1\nbox\n");
}

#[test]
fn a_process_that_kills_itself_ends_with_the_signal() {
    if !able() {
        return;
    }
    // Pid 1 ignores what it has no handler for, as in Docker; its child does not.
    let ended = run(Container { init: true, ..shell("kill -9 $$") });
    assert_eq!(ended.code(), Some(128 + 9), "{ended:?}");
    let mut running = start(shell("echo ready; sleep 60"));
    running.until("ready");
    running.signal(9);
    let ended = running.wait();
    assert_eq!((ended.code(), ended.signal(), ended.acks), (None, Some(9), 1));
}

#[test]
fn a_signal_reaches_a_handler() {
    if !able() {
        return;
    }
    let mut running =
        start(shell("trap 'echo caught; exit 3' TERM; echo ready; while :; do sleep 0.05; done"));
    running.until("ready");
    running.signal(15);
    let ended = running.wait();
    assert_eq!((ended.code(), ended.stdout().as_str()), (Some(3), "ready\ncaught\n"));
}

#[test]
fn a_signal_that_is_none_is_acknowledged_and_harmless() {
    if !able() {
        return;
    }
    // It must live until it is killed, whatever comes before.
    let mut running = start(shell("echo ready; sleep 60"));
    running.until("ready");
    for number in [0, -1, 65, 1 << 30] {
        running.signal(number);
    }
    running.signal(9);
    assert_eq!(running.wait().acks, 5);
}

#[test]
fn an_init_passes_signals_on_and_its_process_is_not_the_first() {
    if !able() {
        return;
    }
    let script = "echo $$; trap 'echo caught; exit 4' TERM; echo ready; while :; do sleep 0.05; done";
    let mut running = start(Container { init: true, ..shell(script) });
    running.until("ready");
    running.signal(15);
    let ended = running.wait();
    assert_eq!(ended.code(), Some(4));
    assert!(ended.stdout().starts_with("2\n"), "{}", ended.stdout());
    assert!(ended.stdout().ends_with("caught\n"));
}

#[test]
fn an_init_reaps_orphans_and_holds_nothing_of_the_agents() {
    if !able() {
        return;
    }
    let script = "(sleep 0.05 & exec true); sleep 0.3; cat /proc/[0-9]*/stat | grep -c ') Z'; ls /proc/1/fd | wc -l; ls -l /proc/1/exe";
    let ended = run(Container { init: true, capabilities: u64::MAX, ..shell(script) });
    assert!(ended.stdout().starts_with("0\n1\n"), "{ended:?}");
}

#[test]
fn a_program_that_is_not_there_is_not_found() {
    if !able() {
        return;
    }
    for name in ["no-such-program", "/bin/no-such-program", "/etc/passwd/x"] {
        assert_eq!(run(command(&[name])).failure().0, FailedKind::NotFound as i32, "{name}");
        let with_init = Container { init: true, ..command(&[name]) };
        assert_eq!(run(with_init).failure().0, FailedKind::NotFound as i32, "{name}");
    }
}

#[test]
fn a_program_that_cannot_be_executed_is_told_from_one_that_is_not_there() {
    if !able() {
        return;
    }
    let image = image();
    write(image.path().join("bin/garbage"), "\0garbage").unwrap();
    set_permissions(image.path().join("bin/garbage"), PermissionsExt::from_mode(0o755)).unwrap();
    write(image.path().join("bin/orphan"), "#!/no/such/interpreter\n").unwrap();
    set_permissions(image.path().join("bin/orphan"), PermissionsExt::from_mode(0o755)).unwrap();
    write(image.path().join("bin/data"), "text").unwrap();
    for name in ["garbage", "data", "/etc/passwd", "/etc"] {
        let ended = start_in(image.path(), command(&[name])).wait();
        assert_eq!(ended.failure().0, FailedKind::NotExecutable as i32, "{name}");
    }
    let ended = start_in(image.path(), command(&["orphan"])).wait();
    assert_eq!(ended.failure().0, FailedKind::NotFound as i32);
}

#[test]
fn a_user_is_looked_up_in_the_image() {
    if !able() {
        return;
    }
    let script = "echo $(id -u):$(id -g):$(id -G):$HOME";
    for (user, expected) in [
        ("", "0:0:0 1:/root\n"),
        ("web", "1000:1001:1001 20:/home/web\n"),
        ("1000", "1000:1001:1001 20:/home/web\n"),
        ("web:log", "1000:20:20:/home/web\n"),
        ("4242", "4242:0:0:/\n"),
        ("4242:77", "4242:77:77:/\n"),
    ] {
        let ended = run(Container { user: user.into(), ..shell(script) });
        assert_eq!((ended.stdout().as_str(), ended.stderr().as_str()), (expected, ""), "{user}");
    }
    let ended = run(Container { user: "nobody".into(), ..shell(script) });
    assert_eq!(
        ended.failure(),
        (FailedKind::NoSuchUser as i32, "there is no user nobody in the image's /etc/passwd")
    );
}

#[test]
fn an_environment_is_passed_on_exactly() {
    if !able() {
        return;
    }
    let env = vec![b"PATH=/bin".to_vec(), b"A=1=2 \xff".to_vec(), b"HOME=/elsewhere".to_vec()];
    let ended = run(Container { env, ..command(&["env"]) });
    let expected = b"PATH=/bin\nA=1=2 \xff\nHOME=/elsewhere\n";
    assert_eq!(ended.output[&StreamId::STDOUT], expected);
}

#[test]
fn a_container_without_a_path_has_dockers() {
    if !able() {
        return;
    }
    let ended = run(Container { env: vec![], ..command(&["env"]) });
    assert_eq!(ended.stdout(), "HOME=/root\n");
}

#[test]
fn a_working_directory_is_made_if_it_is_missing() {
    if !able() {
        return;
    }
    let ended = run(Container { cwd: b"/srv/a/b".to_vec(), ..shell("pwd; stat -c %a:%u . ..; umask") });
    assert_eq!(ended.stdout(), "/srv/a/b\n755:0\n755:0\n0022\n");
}

#[test]
fn limits_hold() {
    if !able() {
        return;
    }
    let rlimits = vec![Rlimit { resource: 7, soft: 123, hard: 456 }];
    let ended = run(Container { rlimits, ..shell("ulimit -n; ulimit -Hn") });
    assert_eq!(ended.stdout(), "123\n456\n");
}

#[test]
fn a_host_that_breaks_the_protocol_is_hung_up_on() {
    if !able() {
        return;
    }
    let image = image();
    let (mut data, mut room) = (Vec::new(), Vec::new());
    put_data(&mut data, StreamId::STDIN, b"early");
    put_window(&mut room, StreamId::STDOUT, 1);
    for nonsense in [vec![0xff; 8], data, room, vec![3, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff, 0xff]] {
        let mut agent = connect(image.path());
        agent.raw(nonsense);
        assert!(agent.is_hung_up_on());
    }
    let mut agent = connect(image.path());
    agent.say(FromHost::signal(9));
    assert!(agent.is_hung_up_on());
}

#[test]
fn a_second_start_is_refused() {
    if !able() {
        return;
    }
    let mut running = start(shell("echo ready; sleep 60"));
    running.until("ready");
    running.say(FromHost::start(shell("true")));
    assert!(running.is_hung_up_on());
}
