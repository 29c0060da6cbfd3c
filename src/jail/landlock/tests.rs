// SPDX-License-Identifier: Apache-2.0
//! What Landlock denies, by doing it: before, it can be done; behind closed doors it cannot. Each in a process of its own,
//! which is the test again.

use super::*;
use rustix::process::{getppid, test_kill_process};
use std::env;
use std::fs::{self, File};
use std::net::{TcpListener, TcpStream};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};
use std::path::PathBuf;
use std::process::{Command, id};
use tempfile::tempdir;

const FOLDER: &str = "ISOPOD_TEST_FOLDER";
const SIGNAL: &str = "signal";

/// Two of each, so that each deed can be done twice: its number says which time it is.
fn furnish(folder: &Path) {
    for n in 0..2 {
        for name in ["removed", "renamed", "written"] {
            fs::write(folder.join(format!("{name}-{n}")), "content").unwrap();
        }
        fs::create_dir(folder.join(format!("emptied-{n}"))).unwrap();
    }
}

type Deed<'a> = (&'static str, Box<dyn Fn(u32) -> io::Result<()> + 'a>);

fn files(folder: &Path) -> Vec<Deed<'_>> {
    let at = |name: &str, n: u32| folder.join(format!("{name}-{n}"));
    vec![
        ("write", Box::new(move |n| File::options().append(true).open(at("written", n)).map(drop))),
        ("create", Box::new(move |n| File::create(at("created", n)).map(drop))),
        ("mkdir", Box::new(move |n| fs::create_dir(at("made", n)))),
        ("unlink", Box::new(move |n| fs::remove_file(at("removed", n)))),
        ("rmdir", Box::new(move |n| fs::remove_dir(at("emptied", n)))),
        ("rename", Box::new(move |n| fs::rename(at("renamed", n), at("moved", n)))),
    ]
}

fn reading(folder: &Path) -> Vec<Deed<'_>> {
    vec![
        ("read", Box::new(move |n| fs::read(folder.join(format!("written-{n}"))).map(drop))),
        ("list", Box::new(move |_| fs::read_dir(folder).map(drop))),
    ]
}

/// What is elsewhere, as far as this host's version knows of it.
fn reaching() -> Vec<Deed<'static>> {
    let version = abi().expect("this host has Landlock");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let name = SocketAddr::from_abstract_name(format!("isopod-test-{}", id())).unwrap();
    let named = UnixListener::bind_addr(&name).unwrap();
    let since: Vec<(i32, Deed<'_>)> = vec![
        (4, ("bind", Box::new(|_| TcpListener::bind("127.0.0.1:0").map(drop)))),
        (4, ("connect", Box::new(move |_| TcpStream::connect(listener.local_addr()?).map(drop)))),
        (6, ("abstract socket", Box::new(move |_| UnixStream::connect_addr(&named.local_addr()?).map(drop)))),
        (6, (SIGNAL, Box::new(|_| Ok(test_kill_process(getppid().unwrap())?)))),
    ];
    since.into_iter().filter(|(since, _)| *since <= version).map(|(_, deed)| deed).collect()
}

/// Runs this test again, in a folder to do things in, and whether it is that time.
fn again(test: &str) -> Option<PathBuf> {
    if let Some(folder) = env::var_os(FOLDER) {
        return Some(folder.into());
    }
    let folder = tempdir().unwrap();
    let mut again = Command::new(env::current_exe().unwrap());
    again.args(["--exact", &format!("landlock::tests::{test}"), "--nocapture"]).env(FOLDER, folder.path());
    let output = again.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    assert!(
        output.status.success() && said.contains("1 passed"),
        "{said}{}",
        String::from_utf8_lossy(&output.stderr)
    );
    None
}

fn all_can(deeds: &[Deed<'_>], n: u32) {
    for (name, deed) in deeds {
        let done = deed(n);
        assert!(done.is_ok(), "{name}: {done:?}");
    }
}

fn none_can(deeds: &[Deed<'_>], n: u32) {
    for (name, deed) in deeds {
        let error = deed(n).expect_err(name);
        assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{name}: {error}");
    }
}

#[test]
fn behind_closed_doors_nothing_is_opened_made_removed_or_reached() {
    let Some(folder) = again("behind_closed_doors_nothing_is_opened_made_removed_or_reached") else { return };
    furnish(&folder);
    let deeds: Vec<Deed<'_>> = files(&folder).into_iter().chain(reading(&folder)).chain(reaching()).collect();
    all_can(&deeds, 0);
    restrict().unwrap();
    none_can(&deeds, 1);
}

#[test]
fn who_supervises_writes_in_its_folders_alone_and_reads_everywhere() {
    let Some(folder) = again("who_supervises_writes_in_its_folders_alone_and_reads_everywhere") else {
        return;
    };
    let (inside, outside) = (folder.join("inside"), folder.join("outside"));
    for folder in [&inside, &outside] {
        fs::create_dir(folder).unwrap();
        furnish(folder);
    }
    let mut reaching = reaching();
    reaching.push(("execute", Box::new(|_| Command::new("/bin/true").status().map(drop))));
    all_can(&files(&outside), 0);
    all_can(&reaching, 0);
    restrict_writing(&[&inside, &folder.join("not-there")]).unwrap();
    none_can(&files(&outside), 1);
    all_can(&reading(&outside), 1);
    all_can(&files(&inside), 1);
    // It is who ends the machine's process.
    let (signal, reaching): (Vec<_>, Vec<_>) = reaching.into_iter().partition(|(name, _)| *name == SIGNAL);
    all_can(&signal, 1);
    none_can(&reaching, 1);
}
