// SPDX-License-Identifier: Apache-2.0
//! The host a bench runs on: how busy it is, and what of it must not be seen.

use crate::say;
use anyhow::{Context, Result, bail};
use std::env;
use std::fs;
use std::os::unix::process::CommandExt;
use std::process::Command;

/// An empty v2 tree beside the v1 controllers: crun refuses such a host.
const UNIFIED: &str = "/sys/fs/cgroup/unified";

/// Says how busy the host is. A busy one's times are not worth much.
pub(super) fn load(when: &str) -> Result<f64> {
    let text = fs::read_to_string("/proc/loadavg").context("cannot read the load")?;
    say::line(format_args!("load {when}: {}", text.trim()));
    let minute = text.split_whitespace().next().and_then(|load| load.parse().ok());
    minute.context("the load is not a number")
}

/// The same, before anything is measured.
pub(super) fn load_before() -> Result<()> {
    if load("before")? > 1.5 {
        say::line("warning: the host is busy with something else; figures of time will be high");
    }
    Ok(())
}

/// Goes on in a mount namespace of its own in which crun sees nothing but control groups v1, if this host has both. To
/// be called first: the program begins anew there.
pub(super) fn hide_unified() -> Result<()> {
    let mounts = fs::read_to_string("/proc/self/mountinfo").context("cannot read the mounts")?;
    if !mounted(&mounts, UNIFIED) {
        return Ok(());
    }
    let own = env::current_exe().context("cannot tell which program this is")?;
    let error = Command::new("unshare")
        .args(["--mount", "sh", "-c", "umount \"$0\" && exec \"$@\"", UNIFIED])
        .arg(own)
        .args(env::args_os().skip(1))
        .exec();
    bail!("cannot run unshare: {error}")
}

fn mounted(mountinfo: &str, place: &str) -> bool {
    mountinfo.lines().any(|line| line.split(' ').nth(4) == Some(place))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_mounted_is_seen() {
        let text = "40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw\n\
                    41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        assert!(mounted(text, UNIFIED));
        assert!(!mounted(text.lines().next().unwrap(), UNIFIED));
    }
}
