// SPDX-License-Identifier: Apache-2.0
//! What the container's first process does before it is the user's program.

use crate::Machine;
use crate::credentials;
use crate::devices;
use crate::exec::Command;
use crate::failure::{Doing, Failure};
use crate::hide;
use crate::places::with_folder;
use crate::root;
use crate::terminal::open_terminal;
use crate::users::{self, Identity};
use isopod_protocol::message::Container;
use isopod_sys::fdpass;
use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::process::{chdir, ioctl_tiocsctty, setsid, umask};
use rustix::stdio::{dup2_stderr, dup2_stdin, dup2_stdout};
use rustix::system::sethostname;
use std::mem::ManuallyDrop;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// All that there is to do, and with what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan<'a> {
    pub(crate) container: &'a Container,
    pub(crate) machine: &'a Machine,
    pub(crate) pipes: Option<&'a Pipes>,
    /// Where the terminal's other end goes.
    pub(crate) channel: Option<BorrowedFd<'a>>,
}

/// The process's ends.
#[derive(Debug)]
pub(crate) struct Pipes {
    /// Nobody writes if there is none.
    pub(crate) stdin: Option<OwnedFd>,
    pub(crate) stdout: OwnedFd,
    pub(crate) stderr: OwnedFd,
}

/// What is known once the root is in place.
#[derive(Debug)]
pub(crate) struct Settled {
    pub(crate) identity: Identity,
    command: Command,
    slave: Option<OwnedFd>,
}

/// Mounts everything and leaves the agent's tree.
pub(crate) fn lay_root(plan: Plan<'_>) -> Result<Option<OwnedFd>, Failure> {
    let container = plan.container;
    root::lay(&plan.machine.image)?;
    devices::make(&container.entropy)?;
    root::enter()?;
    devices::place()?;
    root::put_files(&container.files)?;
    root::mount_kernels()?;
    root::mount_tmpfs(&container.tmpfs)?;
    hide::mask(&container.masked_paths)?;
    hide::make_read_only(&container.read_only_paths)?;
    let slave = make_terminal(plan)?;
    root::seal()?;
    Ok(slave)
}

fn make_terminal(Plan { container, channel, .. }: Plan<'_>) -> Result<Option<OwnedFd>, Failure> {
    let (Some(size), Some(channel)) = (container.terminal, channel) else {
        return Ok(None);
    };
    let terminal = open_terminal(size)?;
    devices::place_console()?;
    fdpass::send(channel, &[], &[terminal.master.as_fd()]).doing("hand on", "the terminal")?;
    Ok(Some(terminal.slave))
}

/// Finds out who and where the process is; the last that needs the files of the image.
pub(crate) fn settle(plan: Plan<'_>, slave: Option<OwnedFd>) -> Result<Settled, Failure> {
    let container = plan.container;
    let identity = users::look_up(&container.user)?;
    let command = Command::new(container, &identity.home)?;
    let cwd = container.cwd.as_slice();
    if !matches!(cwd, b"" | b"/") {
        with_folder(cwd, || chdir(cwd)).doing("enter", cwd)?;
    }
    root::close(container)?;
    umask(Mode::from_raw_mode(0o022));
    if !container.hostname.is_empty() {
        sethostname(container.hostname.as_bytes()).doing("set", "the host name")?;
    }
    Ok(Settled { identity, command, slave })
}

/// Makes the user the owner of the streams, so that he can open /dev/stdout.
pub(crate) fn give_streams(plan: Plan<'_>, settled: &Settled) -> Result<(), Failure> {
    if settled.identity.uid == 0 {
        return Ok(());
    }
    let piped =
        plan.pipes.into_iter().flat_map(|pipes| pipes.stdin.iter().chain([&pipes.stdout, &pipes.stderr]));
    let owner = Uid::from_raw(settled.identity.uid);
    let mut streams = settled.slave.iter().chain(piped);
    streams.try_for_each(|stream| fchown(stream, Some(owner), None::<Gid>)).doing("give away", "the streams")
}

/// Its own session and its three streams.
pub(crate) fn take_streams(plan: Plan<'_>, settled: &Settled) -> Result<(), Failure> {
    setsid().doing("make a session", "")?;
    if let Some(slave) = &settled.slave {
        ioctl_tiocsctty(slave).doing("control", "the terminal")?;
        return take([slave; 3]).doing("take", "the terminal");
    }
    let Some(pipes) = plan.pipes else { return Ok(()) };
    let null;
    let stdin = match &pipes.stdin {
        Some(stdin) => stdin,
        None => {
            let opened = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
            null = ManuallyDrop::new(opened.doing("open", "/dev/null")?);
            &*null
        }
    };
    take([stdin, &pipes.stdout, &pipes.stderr]).doing("take", "the streams")
}

/// Makes these the descriptors 0, 1 and 2, which may be others of ours until then. Exec closes what they were made from.
pub(crate) fn take(streams: [&OwnedFd; 3]) -> Result<(), Errno> {
    let mut moved = [None, None, None];
    for (place, stream) in moved.iter_mut().zip(streams) {
        if stream.as_raw_fd() < 3 {
            *place = Some(ManuallyDrop::new(fcntl_dupfd_cloexec(stream, 3)?));
        }
    }
    let [stdin, stdout, stderr] = [0, 1, 2].map(|n| moved[n].as_deref().unwrap_or(streams[n]));
    dup2_stdin(stdin)?;
    dup2_stdout(stdout)?;
    dup2_stderr(stderr)
}

/// Becomes the user's program.
pub(crate) fn become_program(plan: Plan<'_>, settled: &Settled) -> Failure {
    if let Err(failure) = credentials::seal(plan.container) {
        return failure;
    }
    settled.command.execute()
}
