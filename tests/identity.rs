// SPDX-License-Identifier: Apache-2.0
//! What the image and the command line say about the process: user, environment, folder, name.

use crate::support::Host;
use rustix::system::uname;
use std::fs;

#[test]
fn the_demo_shows_a_kernel_of_its_own_as_pid_1() {
    let host = Host::new();
    let run = host.isopod(&["run", "--rm", "demo"]).expect(0);
    let own = uname().release().to_string_lossy().into_owned();
    assert!(run.text().contains("Linux 6.12") && !run.text().contains(&own), "{}", run.text());
    assert!(run.text().contains("pid 1\n"), "{}", run.text());
    assert!(run.text().contains("uid=1000(demo)"), "{}", run.text());
    host.assert_clean();
}

#[test]
fn flags_override_what_the_image_says_and_the_rest_stays() {
    let host = Host::new();
    let env_file = host.scratch("env");
    fs::write(&env_file, "# a comment\nFROM_FILE=yes and more\n").unwrap();
    let run = host
        .run(
            &[
                "--entrypoint",
                "",
                "-u",
                "12345:54321",
                "-w",
                "/made/for/this",
                "-h",
                "a-name",
                "-e",
                "GIVEN=a b",
                "--env-file",
                env_file.to_str().unwrap(),
                "--tmpfs",
                "/scratch:size=1m",
                "--ulimit",
                "nofile=123:456",
                "demo",
                "sh",
                "-c",
                "id -u; id -g; pwd; hostname; echo $GIVEN; echo $FROM_FILE; ulimit -n; ulimit -Hn; \
                 grep -c ' /scratch tmpfs' /proc/mounts; grep a-name /etc/hosts | wc -l; nproc",
            ],
            Vec::new(),
        )
        .expect(0);
    assert_eq!(run.text(), "12345\n54321\n/made/for/this\na-name\na b\nyes and more\n123\n456\n1\n1\n1\n");
}

#[test]
fn a_user_that_is_not_in_the_image_is_named() {
    let host = Host::new();
    let run = host.run(&["-u", "nobody-of-this-name", "demo"], Vec::new()).expect(125);
    assert!(run.stderr.contains("nobody-of-this-name"), "{}", run.stderr);
    host.assert_clean();
}

#[test]
fn two_cpus_and_more_memory_are_there_when_asked_for() {
    let run = Host::new()
        .sh(&["--cpus", "2", "-m", "512m"], "nproc; awk '/MemTotal/ {print ($2 > 450000)}' /proc/meminfo")
        .expect(0);
    assert_eq!(run.text(), "2\n1\n");
}
