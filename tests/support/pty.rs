// SPDX-License-Identifier: Apache-2.0
//! A terminal for a run: type, expect, resize.

use super::{DEADLINE, Host, wait};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::process::Child;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

#[derive(Debug)]
pub(crate) struct Terminal {
    master: File,
    child: Child,
    seen: Arc<Mutex<Vec<u8>>>,
    /// How much of `seen` has been expected already.
    read: usize,
}

impl Terminal {
    /// `isopod run --rm -it …` on a terminal of this size.
    pub(crate) fn run(host: &Host, args: &[&str], rows: u16, columns: u16) -> Self {
        let master =
            openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).expect("a terminal");
        grantpt(&master).expect("granted");
        unlockpt(&master).expect("unlocked");
        let name = ptsname(&master, Vec::new()).expect("named").into_string().expect("text");
        tcsetwinsize(&master, size(rows, columns)).expect("sized");
        let end = || OpenOptions::new().read(true).write(true).open(&name).expect("the other end");
        let all = [&["run", "--rm", "-it"], args].concat();
        let child =
            host.command(&all).stdin(end()).stdout(end()).stderr(end()).spawn().expect("the binary starts");
        let master = File::from(master);
        let seen = Arc::new(Mutex::new(Vec::new()));
        let (mut from, to) = (master.try_clone().expect("a copy"), Arc::clone(&seen));
        thread::spawn(move || {
            let mut buf = [0; 4096];
            while let Ok(n) = from.read(&mut buf) {
                if n == 0 {
                    break;
                }
                to.lock().expect("no reader panics").extend_from_slice(&buf[..n]);
            }
        });
        Self { master, child, seen, read: 0 }
    }

    pub(crate) fn type_in(&mut self, text: &str) {
        self.master.write_all(text.as_bytes()).expect("typed");
    }

    /// Waits until `text` is shown after what was expected before.
    #[track_caller]
    pub(crate) fn expect(&mut self, text: &str) {
        let within = Instant::now() + DEADLINE;
        loop {
            {
                let seen = self.seen.lock().expect("no reader panics");
                let new = &seen[self.read..];
                if let Some(at) = new.windows(text.len()).position(|w| w == text.as_bytes()) {
                    self.read += at + text.len();
                    return;
                }
                assert!(
                    Instant::now() < within,
                    "`{text}` was not shown, but: {}",
                    String::from_utf8_lossy(&seen)
                );
            }
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// The pid of the isopod that runs on it.
    pub(crate) fn engine(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn resize(&self, rows: u16, columns: u16) {
        tcsetwinsize(&self.master, size(rows, columns)).expect("sized");
        // The kernel tells the foreground process group of a controlling terminal; this one controls nobody.
        let pid = Pid::from_child(&self.child);
        kill_process(pid, Signal::WINCH).expect("told");
    }

    #[track_caller]
    pub(crate) fn expect_exit(mut self, code: i32) {
        let ended = wait(&mut self.child, DEADLINE);
        let seen = self.seen.lock().expect("no reader panics");
        assert_eq!(ended, Some(Some(code)), "it showed: {}", String::from_utf8_lossy(&seen));
    }
}

fn size(rows: u16, columns: u16) -> Winsize {
    Winsize { ws_row: rows, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }
}
