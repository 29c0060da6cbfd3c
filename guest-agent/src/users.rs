// SPDX-License-Identifier: Apache-2.0
//! Whom a container runs as: `user[:group]` against the image's /etc/passwd and /etc/group, as Docker reads them.
//!
//! The files are the image's and may be anything: they are read up to a limit, a line that is none is passed over, and a
//! number that is none, or too large, is never taken for 0.

use crate::failure::Failure;
use isopod_protocol::message::FailedKind;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::{Errno, read};
use std::mem::forget;

/// The largest id there is a use for, as in Docker.
const MOST_ID: u32 = i32::MAX.cast_unsigned();
/// Larger files are refused.
const MOST_BYTES: usize = 1024 * 1024;
/// `NGROUPS_MAX`.
const MOST_GROUPS: usize = 65536;

/// Ids, and the home folder that goes with them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Identity {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// All groups, `gid` among them.
    pub(crate) groups: Vec<u32>,
    pub(crate) home: Vec<u8>,
}

/// Looks `wanted` up in the files of the root that this process is in.
pub(crate) fn look_up(wanted: &str) -> Result<Identity, Failure> {
    identify(wanted, || slurp("/etc/passwd"), || slurp("/etc/group"))
}

/// As `look_up`; files are read only if they are needed.
fn identify(
    wanted: &str,
    passwd: impl FnOnce() -> Result<Vec<u8>, Failure>,
    group: impl FnOnce() -> Result<Vec<u8>, Failure>,
) -> Result<Identity, Failure> {
    let (user, wanted_group) = wanted.split_once(':').unwrap_or((wanted, ""));
    let wanted_uid = if user.is_empty() { Some(0) } else { id_of(user)? };
    let passwd = passwd()?;
    let entry = passwd_entries(&passwd).find(|entry| match wanted_uid {
        Some(uid) => entry.uid == uid,
        None => entry.name == user.as_bytes(),
    });
    let mut found = match (&entry, wanted_uid) {
        (Some(entry), _) => {
            Identity { uid: entry.uid, gid: entry.gid, groups: Vec::new(), home: entry.home.to_vec() }
        }
        (None, Some(uid)) => Identity { uid, gid: 0, groups: Vec::new(), home: Vec::new() },
        (None, None) => return Err(missing("user", user, "/etc/passwd")),
    };
    if !wanted_group.is_empty() {
        found.gid = match id_of(wanted_group)? {
            Some(gid) => gid,
            None => group_of_name(&group()?, wanted_group)?,
        };
        found.groups = vec![found.gid];
    } else if let Some(entry) = entry {
        found.groups = groups_of_member(&group()?, entry.name, found.gid)?;
    } else {
        found.groups = vec![found.gid];
    }
    if found.home.is_empty() {
        found.home = b"/".to_vec();
    }
    Ok(found)
}

fn missing(what: &str, name: &str, file: &str) -> Failure {
    Failure::new(FailedKind::NoSuchUser, format!("there is no {what} {name} in the image's {file}"))
}

/// A number as an id; `None` if it is a name.
fn id_of(text: &str) -> Result<Option<u32>, Failure> {
    if !text.bytes().all(|b| b.is_ascii_digit()) {
        return Ok(None);
    }
    match text.parse() {
        Ok(id) if id <= MOST_ID => Ok(Some(id)),
        _ => Err(Failure::new(
            FailedKind::NoSuchUser,
            format!("{text} is out of the range of ids, 0 to {MOST_ID}"),
        )),
    }
}

/// A field of a file as an id.
fn id_field(field: &[u8]) -> Option<u32> {
    if field.is_empty() {
        return None;
    }
    id_of(str::from_utf8(field).ok()?).ok()?
}

struct User<'a> {
    name: &'a [u8],
    uid: u32,
    gid: u32,
    home: &'a [u8],
}

fn lines(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    file.split(|&b| b == b'\n').map(<[u8]>::trim_ascii).filter(|line| !line.starts_with(b"#"))
}

/// `name:password:uid:gid:comment:home:shell`
fn passwd_entries(file: &[u8]) -> impl Iterator<Item = User<'_>> {
    lines(file).filter_map(|line| {
        let mut fields = line.split(|&b| b == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let uid = id_field(fields.nth(1)?)?;
        let gid = id_field(fields.next()?)?;
        Some(User { name, uid, gid, home: fields.nth(1).unwrap_or_default() })
    })
}

/// `name:password:gid:member,member…` as name, id and members.
fn group_entries(file: &[u8]) -> impl Iterator<Item = (&[u8], u32, &[u8])> {
    lines(file).filter_map(|line| {
        let mut fields = line.split(|&b| b == b':');
        let name = fields.next().filter(|name| !name.is_empty())?;
        let gid = id_field(fields.nth(1)?)?;
        Some((name, gid, fields.next().unwrap_or_default()))
    })
}

fn group_of_name(file: &[u8], wanted: &str) -> Result<u32, Failure> {
    let entry = group_entries(file).find(|(name, ..)| *name == wanted.as_bytes());
    entry.map(|(_, gid, _)| gid).ok_or_else(|| missing("group", wanted, "/etc/group"))
}

fn groups_of_member(file: &[u8], user: &[u8], primary: u32) -> Result<Vec<u32>, Failure> {
    let is_member = |members: &[u8]| members.split(|&b| b == b',').any(|member| member == user);
    let further = group_entries(file).filter(|(_, gid, members)| *gid != primary && is_member(members));
    let groups: Vec<u32> = [primary].into_iter().chain(further.map(|(_, gid, _)| gid)).collect();
    if groups.len() > MOST_GROUPS {
        return Err(Failure::setup("the image's /etc/group has the user in more than 65536 groups"));
    }
    Ok(groups)
}

/// A whole small file; nothing if there is none.
fn slurp(path: &str) -> Result<Vec<u8>, Failure> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NONBLOCK | OFlags::NOCTTY;
    let failed = |error| Failure::setup(format!("cannot read {path}: {error}"));
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::NOTDIR) => return Ok(Vec::new()),
        Err(error) => return Err(failed(error)),
    };
    let mut buf = vec![0; 4096];
    let mut len = 0;
    loop {
        let n = read(&file, &mut buf[len..]).map_err(failed)?;
        len += n;
        if len < buf.len() {
            // The end of a regular file; of what is none, as much as it gave. Exec closes it.
            forget(file);
            buf.truncate(len);
            return Ok(buf);
        }
        if len > MOST_BYTES {
            return Err(Failure::setup(format!("the image's {path} is larger than {MOST_BYTES} bytes")));
        }
        buf.resize(len * 4, 0);
    }
}

#[cfg(test)]
mod tests;
