// SPDX-License-Identifier: Apache-2.0
//! The host's side: an image of busybox, a container to change, and what became of it.

use isopod_protocol::frame::{MAX_DATA, put_data, put_eof, put_from_host, put_window};
use isopod_protocol::message::{AgentSays, Container, Exited, Failed, FromAgent, FromHost, Started};
use isopod_protocol::window::{ReceiveWindow, SendWindow};
use isopod_protocol::{Decoder, Frame, StreamId, VERSION};
use prost::Message;
use rustix::process::geteuid;
use std::collections::BTreeMap;
use std::fmt;
use std::fs::{self, create_dir_all, write};
use std::io::{Read, Write};
use std::mem::take;
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Child, Command};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::{self, JoinHandle};
use std::time::Duration;
use tempfile::TempDir;

const BUSYBOX: &str = "/bin/busybox";
const APPLETS: &str = "sh cat id ls stat echo head tail sleep kill mount grep tty stty hostname pwd env wc touch readlink \
    mkdir sync test true yes dd umask ps cp rm ln sha256sum od tr cut setsid nc unshare chroot mknod";

/// Whether this machine can run these tests at all.
pub(crate) fn able() -> bool {
    geteuid().is_root() && Path::new(BUSYBOX).exists() && Path::new("/usr/bin/unshare").exists()
}

/// A folder as an image.
pub(crate) fn image() -> TempDir {
    let dir = tempfile::tempdir().unwrap();
    let root = dir.path();
    fs::set_permissions(root, fs::Permissions::from_mode(0o755)).unwrap();
    for folder in ["bin", "etc", "tmp", "home/web"] {
        create_dir_all(root.join(folder)).unwrap();
    }
    fs::copy(BUSYBOX, root.join("bin/busybox")).unwrap();
    for applet in APPLETS.split_whitespace() {
        symlink("busybox", root.join("bin").join(applet)).unwrap();
    }
    write(root.join("etc/passwd"), "root:x:0:0:root:/root:/bin/sh\nweb:x:1000:1001::/home/web:/bin/sh\n")
        .unwrap();
    write(root.join("etc/group"), "root:x:0:root\nbin:x:1:root\nweb:x:1001:\nlog:x:20:web\n").unwrap();
    dir
}

/// A shell's script as a container with Docker's defaults.
pub(crate) fn shell(script: &str) -> Container {
    command(&["sh", "-c", script])
}

pub(crate) fn command(args: &[&str]) -> Container {
    Container {
        args: args.iter().map(|arg| arg.as_bytes().to_vec()).collect(),
        env: vec![b"PATH=/usr/bin:/bin".to_vec()],
        cwd: b"/".to_vec(),
        hostname: "box".into(),
        capabilities: 0xa804_25fb,
        ..Container::default()
    }
}

/// A container that was asked for.
pub(crate) struct Running {
    agent: Child,
    socket: UnixStream,
    decoder: Decoder,
    to_writer: Sender<Order>,
    writer: Option<JoinHandle<()>>,
    _image: Option<TempDir>,
    _scratch: TempDir,
    pub(crate) end: Ended,
    windows: BTreeMap<StreamId, ReceiveWindow>,
}

/// What has been heard of it.
#[derive(Default)]
pub(crate) struct Ended {
    pub(crate) started: Option<Started>,
    pub(crate) failed: Option<Failed>,
    pub(crate) exited: Option<Exited>,
    pub(crate) acks: usize,
    pub(crate) output: BTreeMap<StreamId, Vec<u8>>,
    pub(crate) ends: Vec<StreamId>,
}

impl fmt::Debug for Ended {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { started, failed, exited, .. } = self;
        let shown = |stream| self.text(stream).chars().take(300).collect::<String>();
        let streams = (shown(StreamId::STDOUT), shown(StreamId::STDERR));
        let sizes: Vec<_> = self.output.iter().map(|(stream, bytes)| (stream.0, bytes.len())).collect();
        write!(f, "{started:?} {failed:?} {exited:?} {sizes:?} {streams:?}")
    }
}

impl Ended {
    pub(crate) fn code(&self) -> Option<i32> {
        self.exited.as_ref().and_then(|exited| exited.code)
    }
    pub(crate) fn signal(&self) -> Option<i32> {
        self.exited.as_ref().and_then(|exited| exited.signal)
    }
    pub(crate) fn stdout(&self) -> String {
        self.text(StreamId::STDOUT)
    }
    pub(crate) fn stderr(&self) -> String {
        self.text(StreamId::STDERR)
    }
    pub(crate) fn failure(&self) -> (i32, &str) {
        let failed = self.failed.as_ref().unwrap_or_else(|| panic!("it did not fail: {self:?}"));
        (failed.kind, &failed.message)
    }
    fn text(&self, stream: StreamId) -> String {
        String::from_utf8_lossy(self.output.get(&stream).map_or(&[][..], Vec::as_slice)).into_owned()
    }
}

enum Order {
    Frame(Vec<u8>),
    Stdin(Vec<u8>),
    EndStdin,
    Grant(u32),
}

/// The only one who writes, so that whoever reads never waits for it.
fn write_orders(mut socket: UnixStream, orders: Receiver<Order>) {
    let (mut window, mut stdin, mut ended, mut told) = (SendWindow::default(), Vec::new(), false, false);
    let mut at = 0;
    for order in orders {
        match order {
            Order::Frame(frame) => drop(socket.write_all(&frame)),
            Order::Stdin(bytes) => stdin.extend_from_slice(&bytes),
            Order::EndStdin => ended = true,
            Order::Grant(more) => window.grant(more).unwrap(),
        }
        while at < stdin.len() && window.room() > 0 {
            let n = window.room().min(MAX_DATA).min(stdin.len() - at);
            let mut frame = Vec::new();
            put_data(&mut frame, StreamId::STDIN, &stdin[at..at + n]);
            window.take(n);
            at += n;
            drop(socket.write_all(&frame));
        }
        if ended && !told && at == stdin.len() {
            told = true;
            let mut frame = Vec::new();
            put_eof(&mut frame, StreamId::STDIN);
            drop(socket.write_all(&frame));
        }
    }
}

/// Runs a container in an image of busybox, to its end.
pub(crate) fn run(container: Container) -> Ended {
    start(container).wait()
}

pub(crate) fn start(container: Container) -> Running {
    let image = image();
    let mut running = start_in(image.path(), container);
    running._image = Some(image);
    running
}

pub(crate) fn start_in(image: &Path, container: Container) -> Running {
    let running = connect(image);
    running.say(FromHost::start(container));
    running
}

/// An agent that has said hello.
pub(crate) fn connect(image: &Path) -> Running {
    let (socket, theirs) = UnixStream::pair().unwrap();
    socket.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    let scratch = tempfile::tempdir().unwrap();
    let agent = Command::new("unshare")
        .args(["--mount", "--net", "--pid", "--fork", "--kill-child", "--propagation", "private"])
        .args([Path::new(env!("CARGO_BIN_EXE_agent-on-host")), image, scratch.path()])
        .stdin(OwnedFd::from(theirs))
        .spawn()
        .unwrap();
    let (to_writer, orders) = channel();
    let copy = socket.try_clone().unwrap();
    let writer = Some(thread::spawn(move || write_orders(copy, orders)));
    let windows = [StreamId::STDOUT, StreamId::STDERR].map(|id| (id, ReceiveWindow::default())).into();
    let (decoder, end) = (Decoder::default(), Ended::default());
    let mut running =
        Running { agent, socket, decoder, to_writer, writer, _image: None, _scratch: scratch, end, windows };
    let hello = running.next_message();
    let Some(AgentSays::Hello(hello)) = hello else { panic!("no hello but {hello:?}") };
    assert_eq!(hello.version, VERSION);
    running
}

impl Running {
    pub(crate) fn say(&self, message: FromHost) {
        let mut frame = Vec::new();
        put_from_host(&mut frame, &message).unwrap();
        self.raw(frame);
    }

    pub(crate) fn raw(&self, bytes: Vec<u8>) {
        self.to_writer.send(Order::Frame(bytes)).unwrap();
    }

    pub(crate) fn stdin(&self, bytes: &[u8]) -> &Self {
        self.to_writer.send(Order::Stdin(bytes.to_vec())).unwrap();
        self
    }

    pub(crate) fn end_stdin(&self) -> &Self {
        self.to_writer.send(Order::EndStdin).unwrap();
        self
    }

    pub(crate) fn signal(&self, number: i32) {
        self.say(FromHost::signal(number));
    }

    /// Waits until the process's standard output holds this.
    pub(crate) fn until(&mut self, text: &str) {
        while !self.end.stdout().contains(text) {
            assert!(self.hear(), "it ended without {text:?}: {:?}", self.end);
        }
    }

    /// Hears everything, to the container's end, and gives it.
    pub(crate) fn wait(mut self) -> Ended {
        while self.end.exited.is_none() && self.end.failed.is_none() {
            assert!(self.hear(), "the agent hung up: {:?}", self.end);
        }
        take(&mut self.end)
    }

    /// Whether the agent hangs up without another word.
    pub(crate) fn is_hung_up_on(&mut self) -> bool {
        !self.hear()
    }

    fn next_message(&mut self) -> Option<AgentSays> {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                let Frame::Message(bytes) = frame else { panic!("{frame:?} before a message") };
                return FromAgent::decode(bytes).unwrap().says;
            }
            let n = self.socket.read(self.decoder.space()).unwrap();
            assert!(n > 0, "the agent hung up before its hello");
            self.decoder.advance(n);
        }
    }

    /// Takes in what comes next; false if nothing will.
    fn hear(&mut self) -> bool {
        match self.socket.read(self.decoder.space()) {
            Ok(0) => return false,
            Ok(n) => self.decoder.advance(n),
            Err(error) => panic!("{error}: {:?}", self.end),
        }
        while let Some(frame) = self.decoder.next_frame().unwrap() {
            match frame {
                Frame::Message(bytes) => match FromAgent::decode(bytes).unwrap().says.unwrap() {
                    AgentSays::Started(started) => self.end.started = Some(started),
                    AgentSays::Failed(failed) => self.end.failed = Some(failed),
                    AgentSays::Exited(exited) => self.end.exited = Some(exited),
                    AgentSays::Ack(_) => self.end.acks += 1,
                    AgentSays::Hello(_) => panic!("a second hello"),
                    AgentSays::Frozen(_) | AgentSays::Thawed(_) => panic!("nobody froze it"),
                },
                Frame::Data(stream, bytes) => {
                    let window = self.windows.get_mut(&stream).unwrap();
                    window.received(bytes.len()).unwrap();
                    self.end.output.entry(stream).or_default().extend_from_slice(bytes);
                    if let Some(more) = window.consumed(bytes.len()) {
                        let mut grant = Vec::new();
                        put_window(&mut grant, stream, more);
                        let _ = self.to_writer.send(Order::Frame(grant));
                    }
                }
                Frame::Eof(stream) => self.end.ends.push(stream),
                Frame::Window(StreamId::STDIN, more) => drop(self.to_writer.send(Order::Grant(more))),
                Frame::Window(stream, _) => panic!("room for {stream:?}"),
            }
        }
        true
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Hanging up ends the agent; `--kill-child` and the namespaces end the rest.
        let _ = self.socket.shutdown(Shutdown::Both);
        let (unused, _) = channel();
        self.to_writer = unused;
        if let Some(writer) = self.writer.take() {
            let _ = writer.join();
        }
        let _ = self.agent.kill();
        let _ = self.agent.wait();
    }
}
