// SPDX-License-Identifier: Apache-2.0
//! Tar archives entry by entry: what no archiver writes, and what one writes only of nasty trees.

use std::iter;

/// An archive under construction. Each entry has a time of its own.
#[derive(Debug, Default)]
pub(crate) struct Tar {
    bytes: Vec<u8>,
    entries: u64,
}

/// What an entry's header says.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    kind: u8,
    name: Vec<u8>,
    link: Vec<u8>,
    data: Vec<u8>,
    mode: u32,
    owner: (u64, u64),
    device: (u32, u32),
    mtime: Option<String>,
    records: Vec<(Vec<u8>, Vec<u8>)>,
}

pub(crate) fn entry(kind: u8, name: impl AsRef<[u8]>) -> Entry {
    Entry {
        kind,
        name: name.as_ref().to_vec(),
        link: Vec::new(),
        data: Vec::new(),
        mode: if kind == b'5' { 0o755 } else { 0o644 },
        owner: (0, 0),
        device: (0, 0),
        mtime: None,
        records: Vec::new(),
    }
}

pub(crate) fn file(name: impl AsRef<[u8]>, data: impl AsRef<[u8]>) -> Entry {
    Entry { data: data.as_ref().to_vec(), ..entry(b'0', name) }
}

pub(crate) fn folder(name: impl AsRef<[u8]>) -> Entry {
    entry(b'5', name)
}

pub(crate) fn symlink(name: impl AsRef<[u8]>, to: &str) -> Entry {
    Entry { link: to.into(), ..entry(b'2', name) }
}

pub(crate) fn hardlink(name: impl AsRef<[u8]>, to: &str) -> Entry {
    Entry { link: to.into(), ..entry(b'1', name) }
}

pub(crate) fn device(kind: u8, name: &str, major: u32, minor: u32) -> Entry {
    Entry { device: (major, minor), ..entry(kind, name) }
}

impl Entry {
    pub(crate) fn mode(self, mode: u32) -> Self {
        Self { mode, ..self }
    }

    pub(crate) fn owner(self, uid: u64, gid: u64) -> Self {
        Self { owner: (uid, gid), ..self }
    }

    /// Seconds, with a fraction or not.
    pub(crate) fn mtime(self, mtime: &str) -> Self {
        Self { mtime: Some(mtime.to_owned()), ..self }
    }

    /// A record of an extended header.
    pub(crate) fn record(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.records.push((key.into(), value.as_ref().to_vec()));
        self
    }

    pub(crate) fn xattr(self, name: &str, value: impl AsRef<[u8]>) -> Self {
        self.record(&format!("SCHILY.xattr.{name}"), value)
    }
}

impl Tar {
    pub(crate) fn of(entries: impl IntoIterator<Item = Entry>) -> Vec<u8> {
        let mut tar = Self::default();
        entries.into_iter().for_each(|entry| tar.add(entry));
        tar.finish()
    }

    pub(crate) fn add(&mut self, mut entry: Entry) {
        self.entries += 1;
        let own = || format!("{}", 1_700_000_000 + self.entries);
        let mtime = entry.mtime.take().unwrap_or_else(own);
        entry.records.push((b"mtime".into(), mtime.into()));
        for (key, value) in [("uid", entry.owner.0), ("gid", entry.owner.1)] {
            entry.records.push((key.into(), value.to_string().into()));
        }
        for (key, field) in [("path", &entry.name), ("linkpath", &entry.link)] {
            if field.len() > 100 {
                entry.records.push((key.into(), field.clone()));
            }
        }
        // Records that the test gave come last, and the last of a key wins.
        let records: Vec<u8> =
            entry.records.iter().rev().flat_map(|(key, value)| record(key, value)).collect();
        self.bytes.extend(header(b'x', b"PaxHeader", records.len()));
        self.padded(&records);
        self.bytes.extend(of(&entry));
        self.padded(&entry.data);
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend([0; 1024]);
        self.bytes
    }

    fn padded(&mut self, data: &[u8]) {
        self.bytes.extend(data);
        self.bytes.extend(iter::repeat_n(0, data.len().next_multiple_of(512) - data.len()));
    }
}

/// A header block that says these few things.
pub(crate) fn header(kind: u8, name: &[u8], size: usize) -> [u8; 512] {
    sized(&entry(kind, name), size)
}

/// The header block of an entry, its checksum right.
fn of(entry: &Entry) -> [u8; 512] {
    sized(entry, entry.data.len())
}

fn sized(entry: &Entry, size: usize) -> [u8; 512] {
    let mut block = [0; 512];
    let mut put = |at: usize, field: &[u8]| block[at..at + field.len()].copy_from_slice(field);
    put(0, &entry.name[..entry.name.len().min(100)]);
    put(100, format!("{:07o}", entry.mode).as_bytes());
    put(124, format!("{size:011o}").as_bytes());
    put(136, b"00000000000");
    put(156, &[entry.kind]);
    put(157, &entry.link[..entry.link.len().min(100)]);
    put(257, b"ustar\x0000");
    put(329, format!("{:07o}", entry.device.0).as_bytes());
    put(337, format!("{:07o}", entry.device.1).as_bytes());
    checked(block)
}

/// With a right checksum, whatever the rest says.
pub(crate) fn checked(mut block: [u8; 512]) -> [u8; 512] {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

/// `LENGTH KEY=VALUE\n`, where the length counts itself.
pub(crate) fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let len = (1..).map(|digits| rest + digits).find(|len| len.to_string().len() == len - rest);
    [len.expect("there is one").to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// What the runtime mounts over, so that it has nothing to make.
pub(crate) fn mount_points() -> Vec<Entry> {
    let folders = ["proc", "sys", "dev", "etc"].map(folder);
    folders
        .into_iter()
        .chain(["etc/hosts", "etc/hostname", "etc/resolv.conf"].map(|name| file(name, "")))
        .collect()
}

/// Four layers that are legal and hard to get right. Each folder is described by itself: one that is not has no time.
pub(crate) fn layers() -> [Vec<u8>; 4] {
    [base(), upon(), back(), last()].map(Tar::of)
}

fn base() -> Vec<Entry> {
    let long = |times| vec!["d".repeat(255); times].join("/");
    let capability = [1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut entries = mount_points();
    entries.extend(
        ["usr", "usr/bin", "usr/lib", "opq", "opq/sub", "swap", "gone-dir", "gone-dir/a", "deep"].map(folder),
    );
    entries.extend([folder("sticky").mode(0o1777), folder("meta").mode(0o700), file("meta/keep", "k")]);
    entries.extend([symlink("bin", "usr/bin"), symlink("lib", "/usr/lib"), symlink("dangling", "no/such")]);
    entries.extend([
        symlink("loopy", "loopy"),
        symlink("up", "../../../usr"),
        hardlink("hard-to-link", "dangling"),
    ]);
    entries.push(file("usr/bin/sh", "#!shell\n".repeat(2000)).mode(0o4755));
    entries.extend([hardlink("usr/bin/dash", "usr/bin/sh"), hardlink("usr/bin/ash", "/usr/bin/sh")]);
    let ping = file("usr/bin/ping", "p".repeat(5000)).mode(0o755);
    entries.push(ping.xattr("security.capability", capability).xattr("user.one", "1"));
    entries.push(file("etc/passwd", "root:x:0:0::/root:/bin/sh\n").mtime("1700000000.123456789"));
    entries.extend([file("etc/shadow", "x").mode(0o640).owner(0, 42), file("etc/empty", "")]);
    entries.extend([512, 513, 4095, 4096, 4097].map(|len| file(format!("etc/{len}"), "s".repeat(len))));
    entries.push(file("etc/holey", [&b"x"[..], &[0; 1 << 20], b"y", &[0; 200_000]].concat()));
    entries.extend([file("zeros", [0; 100_000]), file("before-epoch", "old").mtime("-1.5")]);
    entries.extend([
        file("far", "x").mtime("4102444800.000000001"),
        file("ids", "x").owner(3_000_000_000, 4_000_000_000),
    ]);
    entries.extend([file("n".repeat(255), "long"), folder(long(1)), folder(long(2)), folder(long(3))]);
    entries.push(file(long(3) + "/f", "f"));
    entries.extend((1..=500).map(|depth| folder(format!("deep{}", "/x".repeat(depth)))));
    entries.push(file(format!("deep{}/bottom", "/x".repeat(500)), "bottom"));
    entries.extend([file("sp ace\nnew\tline\\", "s"), file("caf\u{e9}", "c"), file(b"bytes\xff\xfe", "b")]);
    entries
        .extend([device(b'3', "dev-c", 1, 3).mode(0o666), device(b'4', "dev-b", 259, 300_000).owner(0, 6)]);
    entries.extend([entry(b'6', "fifo").mode(0o600), file("opq/low1", "1"), file("opq/sub/low2", "2")]);
    entries.extend([
        file("swap/inner", "i"),
        file("gone", "g"),
        file("gone-dir/a/b", "g"),
        file("wh-wh", "w"),
    ]);
    let about = folder("xdir").mode(0o2755).owner(0, 7).mtime("1600000000.5");
    entries.push(about.xattr("user.dir", "value").xattr("trusted.t", "t"));
    entries
}

/// Whiteouts, an opaque folder, folders for files and files for folders, hard links into the layer below.
fn upon() -> Vec<Entry> {
    let mut entries =
        vec![file(".wh.gone", ""), file(".wh.gone-dir", ""), file(".wh.wh-wh", ""), file(".wh.never", "")];
    entries.extend([file("swap", "now a file"), file("opq/.wh..wh..opq", ""), file("opq/new", "n")]);
    entries.extend([file("bin/through-link", "t"), file("lib/through-abs", "t"), file("up/through-up", "u")]);
    entries.extend([hardlink("etc/passwd-", "etc/passwd"), hardlink("shell", "bin/sh")]);
    entries.extend([folder("meta").mode(0o711).owner(5, 0).mtime("1650000000.25"), folder("etc/empty")]);
    entries.extend([folder("wh-wh"), file("wh-wh/after", "u"), file("usr/lib", "file over folder")]);
    // A whiteout speaks of the layers below, not of its own.
    entries.extend([file("etc/new-after", "n"), file("etc/.wh.new-after", "")]);
    entries.extend([
        folder("same"),
        file("same/f", "1"),
        file("same", "2"),
        folder("same"),
        symlink("xdir", "meta"),
    ]);
    entries
}

/// And back: what was replaced is what it was, what was taken away is there again.
fn back() -> Vec<Entry> {
    let mut entries =
        vec![folder("swap"), file("swap/again", "a"), file("gone", "back"), file(".wh.wh-wh", "")];
    entries.extend([
        folder("opq/sub"),
        file("opq/sub/after", "s"),
        file("opq/low1", "again"),
        file(".wh.dangling", ""),
    ]);
    entries.extend([hardlink("etc/sh3", "shell"), file("usr/bin/ash", "breaks the link"), folder("bin")]);
    entries.extend([file("bin/own", "o"), folder("usr/lib"), file("xdir/via", "v")]);
    entries.extend([file("dup", "1"), file("dup", "22"), symlink("dup", "x"), file("dup", "333")]);
    entries
}

fn last() -> Vec<Entry> {
    let root = folder("./").mode(0o555).mtime("1234567890.000000042");
    vec![
        file("opq/.wh.low1", ""),
        file("opq/.wh..wh..opq", ""),
        file("opq/last", "l"),
        file("etc/.wh.513", ""),
        file("etc/513x", "x"),
        root,
    ]
}
