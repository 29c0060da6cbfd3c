// SPDX-License-Identifier: Apache-2.0
//! A small disk for the data root of one host: full when a test wants it, without files to spare, or cut from its power.
//!
//! It is mounted in a mount namespace that only this host's commands enter, and that a `cat` keeps: whatever ends the test
//! ends that, and with it the mount and the loop device.

use super::layout::tool;
use super::{Host, Run, beneath, finish};
use rustix::fs::statvfs;
use std::fs::{self, File, OpenOptions};
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What a disk is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Kind {
    /// In memory, with so many bytes and so many files.
    Memory(u64, u64),
    /// `ext4` in a file, likewise.
    File(u64, u64),
}

#[derive(Debug)]
pub(crate) struct Disk {
    pub(crate) host: Host,
    keeper: Child,
}

impl Disk {
    pub(crate) fn new(kind: Kind) -> Self {
        let host = Host::without_templates();
        match kind {
            Kind::Memory(bytes, files) => {
                Self::mount(host, &format!("-t tmpfs -o size={bytes},nr_inodes={files} none"))
            }
            Kind::File(bytes, files) => {
                let image = blank(&host.scratch("disk"), bytes, files);
                Self::of(host, &image)
            }
        }
    }

    /// Of a file with a file system in it, which is written to. What is written reaches the file only when a program asks
    /// for it, or when it is unmounted: not by itself, as soon as the kernel finds the time.
    pub(crate) fn of(host: Host, image: &Path) -> Self {
        Self::mount(host, &format!("-t ext4 -o loop,commit=300 {}", image.display()))
    }

    fn mount(host: Host, what: &str) -> Self {
        let at = host.data_root();
        fs::create_dir(&at).expect("our own");
        let script =
            format!("mount {what} {at} && chmod 700 {at} && echo there && exec cat", at = at.display());
        let mut keeper = Command::new("unshare")
            .args(["--mount", "--propagation", "private", "sh", "-c", &script])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("util-linux is there");
        let mut said = String::new();
        let out = keeper.stdout.take().expect("piped");
        BufReader::new(out).read_line(&mut said).expect("it says something, or ends");
        assert_eq!(said, "there\n", "a small disk cannot be mounted; it takes root");
        Self { host, keeper }
    }

    /// A path of the disk's as this process, which is outside, can use it.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        let root = PathBuf::from(format!("/proc/{}/root", self.keeper.id()));
        root.join(self.host.data_root().strip_prefix("/").expect("absolute")).join(name)
    }

    pub(crate) fn store(&self) -> PathBuf {
        self.path("image")
    }

    /// Runs a command in the disk's namespace.
    #[track_caller]
    pub(crate) fn run(&self, plain: &Command) -> Run {
        let mut inside = beneath("nsenter", &["--target", &self.keeper.id().to_string(), "--mount"], plain);
        finish(inside.spawn().expect("util-linux is there"), Vec::new())
    }

    #[track_caller]
    pub(crate) fn isopod(&self, args: &[&str]) -> Run {
        self.run(&self.host.command(args))
    }

    /// Takes all of the space but so many bytes.
    pub(crate) fn fill(&self, but: u64) {
        let about = statvfs(self.path("")).expect("mounted");
        let free = about.f_bavail * about.f_frsize;
        let mut filler = File::create(self.path("filler")).expect("there is room for one more");
        if but > 0 {
            let some = vec![1; usize::try_from(free.saturating_sub(but)).expect("small")];
            filler.write_all(&some).expect("it was free");
            return filler.sync_all().expect("it was free");
        }
        // To the last byte: in steps that become smaller as they do not fit.
        for step in [64 << 10, 4096, 1] {
            while filler.write_all(&vec![1; step]).and_then(|()| filler.sync_data()).is_ok() {}
        }
    }

    /// Takes all of the files but so many.
    pub(crate) fn fill_files(&self, but: u64) {
        fs::create_dir(self.path("fillers")).expect("there is room for one more");
        let filler = |n: u64| self.path("fillers").join(n.to_string());
        let made = |n: &u64| OpenOptions::new().write(true).create_new(true).open(filler(*n)).is_ok();
        let all = (0..).take_while(made).count() as u64;
        (0..all.min(but)).for_each(|n| fs::remove_file(filler(n)).expect("our own"));
    }

    pub(crate) fn drain(&self) {
        let _ = fs::remove_file(self.path("filler"));
        let _ = fs::remove_dir_all(self.path("fillers"));
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

/// A file with an empty file system of so many bytes and so many files.
pub(crate) fn blank(at: &Path, bytes: u64, files: u64) -> PathBuf {
    File::create(at).and_then(|file| file.set_len(bytes)).expect("our own");
    tool(Command::new("mkfs.ext4").args(["-q", "-F", "-m", "0", "-N", &files.to_string()]).arg(at));
    at.to_path_buf()
}
