// SPDX-License-Identifier: Apache-2.0
//! How other isopods talk to the one that owns a container: a socket in the container's folder.
//!
//! ```text
//!   client                          owner (its one loop)
//!     │── Ask, descriptors ────────►│   one a connection
//!     │◄──────────────────── Answer │   when it is done; a closed connection says that the container is gone
//! ```
//!
//! Only whoever may enter the container's folder comes here: the user himself and root.

use super::records::Record;
use crate::error::{EngineError, Kind, Result};
use isopod_sys::fdpass;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, SocketAddrUnix, SocketFlags, SocketType, accept_with, bind, connect, listen, socket_with,
};
use serde::{Deserialize, Serialize};
use std::error::Error;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::result::Result as StdResult;
use std::thread::sleep;
use std::time::Duration;

const NAME: &str = "control";
/// Who wait while one is served.
const BACKLOG: i32 = 8;
const MAX_MESSAGE: usize = 16 * 1024;
/// How long somebody who has connected may take to say what for; everybody else waits meanwhile.
const PATIENCE: Duration = Duration::from_millis(100);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Ask {
    Pause,
    Unpause,
    /// Into the file that comes along.
    Snapshot,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Answer {
    Done,
    Failed { kind: Kind, what: String, causes: Vec<String> },
}

impl From<EngineError> for Answer {
    fn from(error: EngineError) -> Self {
        let mut causes = Vec::new();
        let mut source = error.source();
        while let Some(cause) = source {
            causes.push(cause.to_string());
            source = cause.source();
        }
        Self::Failed { kind: error.kind(), what: error.to_string(), causes }
    }
}

/// The owner's end.
#[derive(Debug)]
pub(crate) struct Control {
    listener: OwnedFd,
    client: Option<OwnedFd>,
}

/// What a client wants, and what it brought.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) ask: Ask,
    pub(crate) file: Option<File>,
}

impl Control {
    /// In a container's folder, which nobody else owns.
    pub(crate) fn listen(folder: &Path) -> io::Result<Self> {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let listener = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        with_address(folder, |address| bind(&listener, address))?;
        listen(&listener, BACKLOG)?;
        Ok(Self { listener, client: None })
    }

    /// What is ready when somebody wants something.
    pub(crate) fn watched(&self) -> BorrowedFd<'_> {
        self.listener.as_fd()
    }

    /// Takes in the next client, and what he has to say.
    pub(crate) fn hear(&mut self) -> Option<Wanted> {
        self.client = accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK).ok();
        let Some(client) = &self.client else {
            // Not for ever at once, if there are no descriptors left.
            sleep(PATIENCE / 10);
            return None;
        };
        // Who connects has something to say.
        let mut fds = [PollFd::new(client, PollFlags::IN)];
        let _ = poll(&mut fds, Timespec::try_from(PATIENCE).ok().as_ref());
        let mut buf = vec![0; MAX_MESSAGE];
        let (n, fds) = match fdpass::receive(client.as_fd(), &mut buf) {
            Ok((n, fds)) if n > 0 => (n, fds),
            _ => {
                self.client = None;
                return None;
            }
        };
        match serde_json::from_slice(&buf[..n]) {
            Ok(ask) => Some(Wanted { ask, file: fds.into_iter().next().map(File::from) }),
            Err(_) => {
                self.answer(EngineError::new(Kind::Invalid, "the owner does not understand").into());
                None
            }
        }
    }

    /// Tells the client, and lets it go.
    pub(crate) fn answer(&mut self, answer: Answer) {
        if let Some(client) = self.client.take() {
            let text = serde_json::to_vec(&answer).unwrap_or_default();
            // One that has gone does not want to know.
            let _ = fdpass::send(client.as_fd(), &text, &[]);
        }
    }
}

/// Asks the owner of a container for something, and waits until it is done.
pub(crate) fn ask(folder: &Path, record: &Record, ask: &Ask, fds: &[BorrowedFd<'_>]) -> Result<()> {
    let gone = || {
        let what = format!("container {} is not running", record.name);
        EngineError::new(Kind::Conflict, what)
    };
    let talk = || -> io::Result<Option<Answer>> {
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)?;
        with_address(folder, |address| connect(&socket, address))?;
        fdpass::send(socket.as_fd(), &serde_json::to_vec(ask)?, fds)?;
        let mut buf = vec![0; MAX_MESSAGE];
        let (n, _) = fdpass::receive(socket.as_fd(), &mut buf)?;
        Ok(serde_json::from_slice(&buf[..n]).ok())
    };
    match talk() {
        Ok(Some(Answer::Done)) => Ok(()),
        Ok(Some(Answer::Failed { kind, what, causes })) => {
            let error = EngineError::new(kind, what);
            Err(if causes.is_empty() { error } else { error.because(causes.join(": ")) })
        }
        Ok(None) => Err(gone()),
        Err(e) if matches!(e.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused) => {
            Err(gone())
        }
        Err(e) => Err(EngineError::io(format!("cannot ask the owner of container {}", record.name))(e)),
    }
}

/// A socket's address is at most 108 bytes, and a data root may be anywhere: so by way of a descriptor.
fn with_address(folder: &Path, act: impl FnOnce(&SocketAddrUnix) -> StdResult<(), Errno>) -> io::Result<()> {
    let folder = open(folder, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty());
    let folder = folder?;
    let address = SocketAddrUnix::new(format!("/proc/self/fd/{}/{NAME}", folder.as_raw_fd()))?;
    Ok(act(&address)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::container::name::Id;
    use crate::container::records::{new_record, tests::spec};
    use std::fs::create_dir;
    use std::thread;
    use std::time::Duration;

    fn record() -> Record {
        new_record(Id::random(), "web".parse().unwrap(), spec(None, false))
    }

    fn serve(mut control: Control, answer: Option<Answer>) -> Wanted {
        loop {
            if let Some(wanted) = control.hear() {
                match answer {
                    Some(answer) => control.answer(answer),
                    None => drop(control),
                }
                return wanted;
            }
            thread::sleep(Duration::from_millis(1));
        }
    }

    #[test]
    fn who_asks_is_answered_wherever_the_folder_is() {
        let root = tempfile::tempdir().unwrap();
        let folder = root.path().join("d".repeat(120));
        create_dir(&folder).unwrap();
        let control = Control::listen(&folder).unwrap();
        let owner = thread::spawn(move || serve(control, Some(Answer::Done)));
        let file = tempfile::tempfile().unwrap();
        ask(&folder, &record(), &Ask::Snapshot, &[file.as_fd()]).unwrap();
        let wanted = owner.join().unwrap();
        assert_eq!((wanted.ask, wanted.file.is_some()), (Ask::Snapshot, true));
    }

    #[test]
    fn a_refusal_arrives_with_its_kind_and_causes() {
        let folder = tempfile::tempdir().unwrap();
        let control = Control::listen(folder.path()).unwrap();
        let error = EngineError::new(Kind::Invalid, "not so").because("because");
        let owner = thread::spawn(move || serve(control, Some(error.into())));
        let error = ask(folder.path(), &record(), &Ask::Pause, &[]).unwrap_err();
        assert_eq!((error.kind(), error.to_string().as_str()), (Kind::Invalid, "not so"));
        assert_eq!(error.source().unwrap().to_string(), "because");
        owner.join().unwrap();
    }

    #[test]
    fn nobody_there_and_somebody_who_dies_are_the_same() {
        let folder = tempfile::tempdir().unwrap();
        let kind = |folder: &Path| ask(folder, &record(), &Ask::Pause, &[]).unwrap_err().kind();
        assert_eq!(kind(folder.path()), Kind::Conflict);
        let control = Control::listen(folder.path()).unwrap();
        let owner = thread::spawn(move || serve(control, None));
        assert_eq!(kind(folder.path()), Kind::Conflict);
        owner.join().unwrap();
        assert_eq!(kind(folder.path()), Kind::Conflict);
    }
}
