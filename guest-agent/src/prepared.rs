// SPDX-License-Identifier: Apache-2.0
//! The container's process, made before anybody knows what it will run.
//!
//! Of what there is to do between Start and the program, most is the same for every container. So it is done before the
//! machine is frozen, by a process that then sleeps: it has its namespaces, its root with everything mounted, its streams,
//! its filter and its bounding set. What is left is what only the host can say: time, entropy, names, the image's own
//! attributes, the user, the command.
//!
//! ```text
//!   Prepare ──► agent: loopback, pipes ─► process: root, streams, filter ─► sleeps     agent: at the mailbox
//!   Start   ──► agent: clock, entropy, host name ─► process: the rest of the root, user ─► executes
//! ```
//!
//! Nothing of the image may be looked up before: what its kernel has once been told it keeps for ever, and there is no
//! image yet. So what is mounted in the root is mounted on folders of the upper layer that hide those of the image, and the
//! small files of /etc lie in the upper layer, too. A container for which that would be wrong, or which asks for what
//! the filter would now forbid, is none that this suits: it is started as in a machine that was not prepared.

use crate::Machine;
use crate::child::{self, Pipes};
use crate::credentials;
use crate::devices;
use crate::exec::Command;
use crate::failure::{Doing, Failure};
use crate::freezer::{check_entropy, set_clock};
use crate::hide;
use crate::machine;
use crate::places::with_folder;
use crate::root::{self, FileSystem, Upper};
use crate::start::{Process, micros_since, raise_loopback};
use crate::streams::{Input, Output};
use crate::users;
use isopod_protocol::StreamId;
use isopod_protocol::message::{Container, Started};
use isopod_sys::process::machine::add_entropy;
use isopod_sys::process::standby::{Standby, Turn};
use isopod_sys::process::{Namespaces, OneThread};
use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, open};
use rustix::io::{Errno, fcntl_dupfd_cloexec};
use rustix::pipe::{PipeFlags, pipe_with};
use rustix::process::{chdir, setsid, umask};
use rustix::stdio::{dup2_stdin, stderr, stdin, stdout};
use rustix::system::sethostname;
use std::io;
use std::mem::forget;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::Instant;

/// A process that sleeps until it is known what it is.
#[derive(Debug)]
pub(crate) struct Prepared {
    standby: Standby<Box<Container>, Failure>,
    likely: Container,
    random: OwnedFd,
    mounts: Option<OwnedFd>,
    /// The process's ends, to be closed here.
    pipes: Rc<Pipes>,
    input: Input,
    outputs: Vec<Output>,
}

impl Prepared {
    pub(crate) fn make(
        likely: Container,
        machine: &Machine,
        link: BorrowedFd<'_>,
        one: &mut OneThread,
    ) -> Result<Self, Failure> {
        raise_loopback(link).doing("bring up", "the loopback")?;
        let random = machine::urandom().doing("open", "/dev/urandom")?;
        let (pipes, input, outputs) = pipes().doing("make", "pipes")?;
        let pipes = Rc::new(pipes);
        let process = {
            let (likely, image, pipes) = (likely.clone(), machine.image, Rc::clone(&pipes));
            move |turn: Turn<Box<Container>, Failure>| {
                let ready = match Ready::get(&likely, &image, &pipes) {
                    Ok(ready) => ready,
                    Err(failure) => return failure,
                };
                drop((likely, pipes));
                let container = turn.wait();
                ready.go(&container).unwrap_or_else(|failure| failure)
            }
        };
        // The host name is the machine's, so that the agent can set it.
        let own = Namespaces::MOUNT | Namespaces::PID | Namespaces::IPC | Namespaces::CGROUP;
        let standby = one.stand_by(own, process).doing("make", "a process")??;
        let mounts = standby.child.mounts().ok();
        Ok(Self { standby, likely, random, mounts, pipes, input, outputs })
    }

    /// Whether it can become this container.
    pub(crate) fn suits(&self, container: &Container) -> bool {
        let Container { capabilities, seccomp, masked_paths, read_only_paths, files, .. } = &self.likely;
        let usual = container.terminal.is_none()
            && !container.init
            && !container.read_only_root
            && container.tmpfs.is_empty();
        usual
            && container.image.is_some()
            && container.capabilities == *capabilities
            && container.seccomp == *seccomp
            && container.masked_paths == *masked_paths
            && container.read_only_paths == *read_only_paths
            && container.files.iter().map(|file| &file.path).eq(files.iter().map(|file| &file.path))
    }

    pub(crate) fn dismiss(self) -> io::Result<()> {
        self.standby.dismiss()
    }

    /// Makes it this container, which it suits.
    pub(crate) fn go(self, container: Box<Container>) -> Result<(Process, Started), Failure> {
        let arrived = Instant::now();
        set_clock(container.realtime_ns).doing("set", "the clock")?;
        check_entropy(&container.entropy)?;
        add_entropy(self.random.as_fd(), &container.entropy).doing("feed", "the kernel's entropy pool")?;
        if !container.hostname.is_empty() {
            sethostname(container.hostname.as_bytes()).doing("set", "the host name")?;
        }
        let input = if container.stdin { self.input } else { Input::none() };
        let (child, failure) = self.standby.go(container);
        if let Some(failure) = failure {
            return Err(failure);
        }
        if let Some(Pipes { stdin, stdout, stderr }) = Rc::into_inner(self.pipes) {
            // Input must learn when nobody reads; of output the process's end tells enough.
            drop(stdin);
            forget((stdout, stderr));
        }
        // It is executing: its mounts were made before it was asked for.
        let started = Started { mounts_us: 0, started_us: micros_since(arrived) };
        let process = Process { child, input, outputs: self.outputs, terminal: None, _mounts: self.mounts };
        Ok((process, started))
    }
}

fn pipes() -> Result<(Pipes, Input, Vec<Output>), Errno> {
    let pipe = || pipe_with(PipeFlags::CLOEXEC);
    let ((stdin, writes), (reads_out, stdout), (reads_err, stderr)) = (pipe()?, pipe()?, pipe()?);
    let outputs = vec![Output::pipe(StreamId::STDOUT, reads_out), Output::pipe(StreamId::STDERR, reads_err)];
    Ok((Pipes { stdin: Some(stdin), stdout, stderr }, Input::pipe(writes), outputs))
}

/// What the process has while it sleeps. Exec closes it.
#[derive(Debug)]
struct Ready {
    upper: Upper,
    stdin: OwnedFd,
}

impl Ready {
    fn get(likely: &Container, image: &FileSystem, pipes: &Pipes) -> Result<Self, Failure> {
        let upper = root::lay_blind(image, &likely.files)?;
        devices::make(&[])?;
        root::enter()?;
        devices::place()?;
        root::mount_kernels()?;
        hide::mask(&likely.masked_paths)?;
        hide::make_read_only(&likely.read_only_paths)?;
        root::seal()?;
        umask(Mode::from_raw_mode(0o022));
        setsid().doing("make a session", "")?;
        let null = open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
        let null = null.doing("open", "/dev/null")?;
        let stdin = pipes.stdin.as_ref().unwrap_or(&null);
        let stdin = fcntl_dupfd_cloexec(stdin, 3).doing("keep", "the input")?;
        child::take([&null, &pipes.stdout, &pipes.stderr]).doing("take", "the streams")?;
        credentials::narrow(likely)?;
        Ok(Self { upper, stdin })
    }

    /// Becomes the user's program; comes back only if that is impossible.
    fn go(self, container: &Container) -> Result<Failure, Failure> {
        if container.stdin {
            dup2_stdin(&self.stdin).doing("take", "the input")?;
        }
        self.upper.dress(container)?;
        let identity = users::look_up(&container.user)?;
        let command = Command::new(container, &identity.home)?;
        let cwd = container.cwd.as_slice();
        if !matches!(cwd, b"" | b"/") {
            with_folder(cwd, || chdir(cwd)).doing("enter", cwd)?;
        }
        if identity.uid != 0 {
            let owner = Some(Uid::from_raw(identity.uid));
            let piped = [container.stdin.then(stdin), Some(stdout()), Some(stderr())];
            let given = piped.into_iter().flatten().try_for_each(|end| fchown(end, owner, None::<Gid>));
            given.doing("give away", "the streams")?;
        }
        credentials::become_user(container, &identity)?;
        if container.no_new_privileges {
            credentials::forgo_privileges()?;
        }
        forget(self);
        Ok(command.execute())
    }
}
