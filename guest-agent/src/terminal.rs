// SPDX-License-Identifier: Apache-2.0
//! The container's terminal: made in its own devpts, by its process; the agent is given the other end.

use crate::failure::{Doing, Failure};
use isopod_protocol::message::WindowSize;
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use std::os::fd::{BorrowedFd, OwnedFd};

#[derive(Debug)]
pub(crate) struct Terminal {
    /// The agent's end; never waits.
    pub(crate) master: OwnedFd,
    pub(crate) slave: OwnedFd,
}

pub(crate) fn open_terminal(size: WindowSize) -> Result<Terminal, Failure> {
    open_pair(size).doing("make", "a terminal")
}

fn open_pair(size: WindowSize) -> Result<Terminal, Errno> {
    let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let master = open("/dev/pts/ptmx", flags, Mode::empty())?;
    unlockpt(&master)?;
    let slave = ioctl_tiocgptpeer(&master, OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC)?;
    tcsetwinsize(&slave, winsize(size))?;
    Ok(Terminal { master, slave })
}

/// The kernel tells the terminal's processes with SIGWINCH.
pub(crate) fn resize(master: BorrowedFd<'_>, size: WindowSize) -> Result<(), Errno> {
    tcsetwinsize(master, winsize(size))
}

fn winsize(size: WindowSize) -> Winsize {
    let cells = |n: u32| u16::try_from(n).unwrap_or(u16::MAX);
    Winsize { ws_row: cells(size.rows), ws_col: cells(size.columns), ws_xpixel: 0, ws_ypixel: 0 }
}
