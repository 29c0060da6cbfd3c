// SPDX-License-Identifier: Apache-2.0
//! Places for mounts, made where the image has none.
//!
//! This runs inside the container's root: the kernel resolves every path there, so a symlink in the image leads to somewhere
//! in the image or nowhere.

use rustix::fs::{Mode, OFlags, mkdir, open, readlink};
use rustix::io::Errno;

/// Links followed to a file that is to be made, as the kernel does (it allows 40).
const MOST_LINKS: usize = 10;

/// Tries something with a folder, and again once the folder was made, if it was missing.
pub(crate) fn with_folder<T>(path: &[u8], attempt: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    match attempt() {
        Err(Errno::NOENT) => {
            make_folder(path)?;
            attempt()
        }
        tried => tried,
    }
}

/// As `with_folder`, with an empty file.
pub(crate) fn with_file<T>(path: &[u8], attempt: impl Fn() -> Result<T, Errno>) -> Result<T, Errno> {
    match attempt() {
        Err(Errno::NOENT) => {
            make_file(path.to_vec())?;
            attempt()
        }
        tried => tried,
    }
}

/// Makes a folder and those above it. The umask is 0 here.
fn make_folder(path: &[u8]) -> Result<(), Errno> {
    let mode = Mode::from_raw_mode(0o755);
    for end in (1..path.len()).filter(|&n| path[n] == b'/').chain([path.len()]) {
        match mkdir(&path[..end], mode) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Makes an empty file, at the end of a dangling symlink if there is one, and the folders above it.
fn make_file(mut path: Vec<u8>) -> Result<(), Errno> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    for _ in 0..MOST_LINKS {
        let make = || open(path.as_slice(), flags | OFlags::NOFOLLOW, Mode::from_raw_mode(0o644));
        match with_folder(parent(&path), make) {
            Err(Errno::LOOP) => path = join(parent(&path), readlink(path.as_slice(), Vec::new())?.as_bytes()),
            made => return made.map(drop),
        }
    }
    Err(Errno::LOOP)
}

/// The folder of an absolute path.
fn parent(path: &[u8]) -> &[u8] {
    match path.iter().rposition(|&b| b == b'/') {
        None | Some(0) => b"/",
        Some(n) => &path[..n],
    }
}

fn join(folder: &[u8], name: &[u8]) -> Vec<u8> {
    if name.starts_with(b"/") { name.to_vec() } else { [folder, b"/", name].concat() }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs::{create_dir, read};
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    #[test]
    fn a_folder_is_made_with_those_above_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/c");
        make_folder(path.as_os_str().as_bytes()).unwrap();
        assert!(path.is_dir());
        make_folder(path.as_os_str().as_bytes()).unwrap();
    }

    #[test]
    fn a_file_is_made_where_its_links_lead() {
        let dir = tempfile::tempdir().unwrap();
        create_dir(dir.path().join("etc")).unwrap();
        symlink("../run/stub/resolv.conf", dir.path().join("etc/resolv.conf")).unwrap();
        make_file(dir.path().join("etc/resolv.conf").as_os_str().as_bytes().to_vec()).unwrap();
        assert_eq!(read(dir.path().join("run/stub/resolv.conf")).unwrap(), b"");
    }

    #[test]
    fn links_in_a_circle_are_an_error() {
        let dir = tempfile::tempdir().unwrap();
        symlink("b", dir.path().join("a")).unwrap();
        symlink("a", dir.path().join("b")).unwrap();
        let made = make_file(dir.path().join("a").as_os_str().as_bytes().to_vec());
        assert_eq!(made, Err(Errno::LOOP));
    }
}
