// SPDX-License-Identifier: Apache-2.0
//! A session against an agent played by the test, with pipes for the user's streams.
use super::*;
use crate::container::control::{self, Ask};
use crate::container::name::Id;
use crate::container::records::new_record;
use crate::container::records::tests::spec;
use crate::template::Greeting;
use isopod_protocol::frame::{Frame, data_header, put_data, put_from_agent, put_window};
use isopod_protocol::message::{AgentSays, Exited, FromAgent, HostSays, Started};
use isopod_protocol::window::INITIAL;
use isopod_protocol::{StreamId, VERSION, message};
use isopod_vmm::config::Assist;
use isopod_vmm::envelope::{Identity, Kind};
use prost::Message;
use std::fs::File;
use std::io::{PipeReader, PipeWriter, Read, Write, pipe};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc;
use std::thread::{self, JoinHandle};

/// A machine that only says what the test has it say.
struct FakeMachine {
    events: UnixStream,
    /// What it does not do.
    refuses: &'static [&'static str],
}

impl FakeMachine {
    fn asked(&self, what: &str) -> Result<(), Refusal> {
        match self.refuses.contains(&what) {
            true => Err(Refusal::Refused(format!("it does not {what}"))),
            false => Ok(()),
        }
    }
}

impl Watched for FakeMachine {
    fn fd(&self) -> BorrowedFd<'_> {
        self.events.as_fd()
    }

    fn event(&mut self) -> Event {
        Event::Ended(End::Panicked)
    }

    fn count(&mut self) {}

    fn pause(&mut self, _mailbox: Option<u64>) -> Result<(), Refusal> {
        self.asked("pause")
    }

    fn save(&mut self, _file: &File, _identity: &Identity) -> Result<(), Refusal> {
        self.asked("save")
    }

    fn resume(&mut self, _bytes: Option<&[u8]>) -> Result<(), Refusal> {
        self.asked("resume")
    }

    fn touched(&mut self, _list: &File) -> Result<(), Refusal> {
        Ok(())
    }
}

/// The agent's side, blocking.
struct FakeAgent {
    stream: UnixStream,
    decoder: Decoder,
}

#[derive(Debug, PartialEq)]
enum Got {
    Says(HostSays),
    Data(Vec<u8>),
    Eof(u16),
    Window(u16, u32),
    Gone,
}

impl FakeAgent {
    fn say(&mut self, says: AgentSays) {
        let mut out = Vec::new();
        put_from_agent(&mut out, &FromAgent::from(says)).unwrap();
        let _ = self.stream.write_all(&out);
    }

    fn data(&mut self, stream: StreamId, bytes: &[u8]) {
        let mut out = Vec::new();
        put_data(&mut out, stream, bytes);
        let _ = self.stream.write_all(&out);
    }

    fn hear(&mut self) -> Got {
        loop {
            if let Some(frame) = self.decoder.next_frame().unwrap() {
                return match frame {
                    Frame::Message(m) => Got::Says(FromHost::decode(m).unwrap().says.unwrap()),
                    Frame::Data(_, d) => Got::Data(d.to_vec()),
                    Frame::Eof(StreamId(s)) => Got::Eof(s),
                    Frame::Window(StreamId(s), n) => Got::Window(s, n),
                };
            }
            match self.stream.read(self.decoder.space()) {
                Ok(n) if n > 0 => self.decoder.advance(n),
                _ => return Got::Gone,
            }
        }
    }

    fn hello(&mut self) {
        self.say(AgentSays::Hello(message::Hello {
            version: VERSION,
            agent: "a".into(),
            kernel: "k".into(),
            mailbox: 4096,
        }));
        assert!(matches!(self.hear(), Got::Says(HostSays::Start(_))));
        self.say(AgentSays::Started(Started::default()));
    }

    fn exited(&mut self, code: i32) {
        self.say(AgentSays::Exited(Exited { code: Some(code), signal: None, out_of_memory: false }));
    }
}

struct Stage {
    stdin: Option<PipeWriter>,
    stdout: Option<PipeReader>,
    stderr: Option<PipeReader>,
    machine: UnixStream,
    session: JoinHandle<Ending>,
}

impl Stage {
    fn ending(self) -> Ending {
        drop(self.stdin);
        self.session.join().unwrap()
    }
}

const LONG: Limits = Limits { start: Duration::from_secs(20), signal: Duration::from_secs(20) };

fn stage(limits: Limits, play: impl FnOnce(FakeAgent) + Send + 'static) -> Stage {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let ((in_read, in_write), (out_read, out_write), (err_read, err_write)) =
        (pipe().unwrap(), pipe().unwrap(), pipe().unwrap());
    let (machine, machine_end) = UnixStream::pair().unwrap();
    thread::spawn(move || {
        play(FakeAgent { stream: theirs, decoder: Decoder::default() });
    });
    let session = thread::spawn(move || {
        let signals = SignalFd::new(&[]).unwrap();
        let mut timings = Timings::start();
        let streams =
            Streams { stdin: in_read.as_fd(), stdout: out_write.as_fd(), stderr: err_write.as_fd() };
        let container = Container { stdin: true, ..Container::default() };
        let parts = Parts {
            agent: ours.into(),
            streams,
            signals: &signals,
            container,
            limits,
            timings: &mut timings,
            control: None,
        };
        let mut session = Session::new(parts, false);
        let ending = session.serve(&mut FakeMachine { events: machine_end, refuses: &[] }, &mut |_| {});
        session.flush();
        ending
    });
    Stage { stdin: Some(in_write), stdout: Some(out_read), stderr: Some(err_read), machine, session }
}

fn read_all(pipe: Option<PipeReader>) -> Vec<u8> {
    let mut all = Vec::new();
    pipe.unwrap().read_to_end(&mut all).unwrap();
    all
}

#[test]
fn output_arrives_apart_and_whole_before_the_exit_is_told() {
    let mut stage = stage(LONG, |mut agent| {
        agent.hello();
        agent.data(StreamId::STDOUT, b"out\0\xff");
        agent.data(StreamId::STDERR, b"err");
        agent.exited(7);
        agent.hear();
    });
    let (out, err) = (stage.stdout.take(), stage.stderr.take());
    assert_eq!(stage.ending(), Ending::Exited(ProcessEnd { code: 7, out_of_memory: false }));
    assert_eq!((read_all(out), read_all(err)), (b"out\0\xff".to_vec(), b"err".to_vec()));
}

#[test]
fn more_than_all_buffers_goes_through_both_ways_unchanged() {
    const SIZE: usize = 3 * 1024 * 1024;
    let data: Vec<u8> = (0..SIZE).map(|n| n.to_le_bytes()[0]).collect();
    // An echo that sends back what it gets, within the windows.
    let mut stage = stage(LONG, |mut agent| {
        agent.hello();
        let (mut room, mut waiting, mut read, mut ended) = (INITIAL as usize, Vec::new(), 0, false);
        while !ended || !waiting.is_empty() {
            match agent.hear() {
                Got::Data(bytes) => {
                    read += bytes.len();
                    waiting.extend(bytes);
                    if read >= INITIAL as usize / 2 {
                        let mut out = Vec::new();
                        put_window(&mut out, StreamId::STDIN, u32::try_from(read).unwrap());
                        agent.stream.write_all(&out).unwrap();
                        read = 0;
                    }
                }
                Got::Window(1, n) => room += n as usize,
                Got::Eof(0) => ended = true,
                other => panic!("{other:?}"),
            }
            let n = waiting.len().min(room);
            let now: Vec<u8> = waiting.drain(..n).collect();
            room -= n;
            agent.data(StreamId::STDOUT, &now);
        }
        agent.exited(0);
        agent.hear();
    });
    let (mut stdin, stdout) = (stage.stdin.take().unwrap(), stage.stdout.take());
    let sent = data.clone();
    thread::spawn(move || stdin.write_all(&sent).unwrap());
    assert!(read_all(stdout) == data);
    assert!(matches!(stage.ending(), Ending::Exited(_)));
}

#[test]
fn a_silent_agent_meets_the_deadline() {
    let limits = Limits { start: Duration::from_millis(100), ..LONG };
    let stage = stage(limits, |mut agent| {
        agent.hear();
    });
    let started = Instant::now();
    assert_eq!(stage.ending(), Ending::Silent { waiting: Waiting::Hello, limit: limits.start });
    assert!(started.elapsed() < Duration::from_secs(5));
}

#[test]
fn an_agent_that_says_hello_and_no_more_meets_it_too() {
    let limits = Limits { start: Duration::from_millis(100), ..LONG };
    let stage = stage(limits, |mut agent| {
        agent.say(AgentSays::Hello(message::Hello { version: VERSION, ..message::Hello::default() }));
        agent.hear();
        agent.hear();
    });
    assert_eq!(stage.ending(), Ending::Silent { waiting: Waiting::Started, limit: limits.start });
}

#[test]
fn a_length_no_frame_has_ends_the_session() {
    let stage = stage(LONG, |mut agent| {
        agent.stream.write_all(&[0xff; 64]).unwrap();
        agent.hear();
    });
    assert!(matches!(stage.ending(), Ending::Misbehaved(Misbehaviour::Frame(_))));
}

#[test]
fn an_agent_that_ignores_the_window_ends_the_session() {
    let mut stage = stage(LONG, |mut agent| {
        agent.hello();
        // Nobody reads our stdout, so nothing is granted: a pipe's worth and a window is all that may come.
        agent.data(StreamId::STDOUT, &vec![0; INITIAL as usize + 512 * 1024]);
        agent.hear();
    });
    let out = stage.stdout.take();
    assert!(matches!(stage.ending_without_flush(out), Ending::Misbehaved(Misbehaviour::Window(_))));
}

impl Stage {
    /// Lets the last bytes go so that the session's thread can end.
    fn ending_without_flush(self, stdout: Option<PipeReader>) -> Ending {
        let reader = thread::spawn(move || {
            thread::sleep(Duration::from_millis(300));
            read_all(stdout)
        });
        let ending = self.ending();
        reader.join().unwrap();
        ending
    }
}

#[test]
fn an_agent_that_hangs_up_is_given_two_seconds_and_no_more() {
    let stage = stage(LONG, |mut agent| agent.hello());
    let started = Instant::now();
    assert_eq!(stage.ending(), Ending::HungUp { phase: Phase::Up });
    assert!(started.elapsed() < Duration::from_secs(4));
}

#[test]
fn a_machine_that_ends_tells_why_after_what_the_agent_still_said() {
    let mut stage = stage(LONG, |mut agent| {
        agent.hello();
        agent.data(StreamId::STDOUT, b"last");
        thread::sleep(Duration::from_secs(1));
    });
    let mut seen = [0; 4];
    let out = stage.stdout.as_mut().unwrap();
    out.read_exact(&mut seen).unwrap();
    stage.machine.write_all(b"x").unwrap();
    assert_eq!(stage.ending(), Ending::Machine { end: End::Panicked, phase: Phase::Up });
    assert_eq!(&seen, b"last");
}

#[test]
fn a_reader_who_goes_away_is_told_to_the_agent_and_no_more_is_kept() {
    let mut stage = stage(LONG, |mut agent| {
        agent.hello();
        agent.data(StreamId::STDOUT, b"into the void");
        while agent.hear() != Got::Eof(1) {}
        agent.data(StreamId::STDOUT, &[0; 1000]);
        agent.exited(141);
        agent.hear();
    });
    drop(stage.stdout.take());
    assert!(matches!(stage.ending(), Ending::Exited(ProcessEnd { code: 141, .. })));
}

#[test]
fn the_end_of_stdin_is_passed_on() {
    let mut stage = stage(LONG, |mut agent| {
        agent.hello();
        assert_eq!(agent.hear(), Got::Data(b"x".to_vec()));
        assert_eq!(agent.hear(), Got::Eof(0));
        agent.exited(0);
        agent.hear();
    });
    let mut stdin = stage.stdin.take().unwrap();
    stdin.write_all(b"x").unwrap();
    thread::sleep(Duration::from_millis(50));
    drop(stdin);
    assert!(matches!(stage.ending(), Ending::Exited(_)));
}

#[test]
fn an_agent_that_never_pauses_does_not_outrun_its_deadline() {
    let limits = Limits { start: Duration::from_millis(200), ..LONG };
    let stage = stage(limits, |mut agent| {
        agent.say(AgentSays::Hello(message::Hello { version: VERSION, ..message::Hello::default() }));
        assert!(matches!(agent.hear(), Got::Says(HostSays::Start(_))));
        // As long as it lasts: pieces of a message that is never whole do not count as an answer.
        let mut header = vec![0xff, 0xff, 0x0f, 0, 0, 0, 0, 0];
        header.resize(1024 * 1024, 0);
        let _ = agent.stream.write_all(&header);
        agent.hear();
    });
    assert_eq!(stage.ending(), Ending::Silent { waiting: Waiting::Started, limit: limits.start });
}

#[test]
fn an_agent_that_floods_us_with_empty_frames_leaves_room_for_others() {
    let mut stage = stage(LONG, |mut agent| {
        agent.hello();
        let empty = data_header(StreamId::STDOUT, 0).repeat(8192);
        while agent.stream.write_all(&empty).is_ok() {}
    });
    thread::sleep(Duration::from_millis(300));
    stage.machine.write_all(b"x").unwrap();
    assert_eq!(stage.ending(), Ending::Machine { end: End::Panicked, phase: Phase::Up });
}

#[test]
fn an_agent_that_grants_room_but_reads_nothing_gets_no_more_than_buffers_hold() {
    let mut stage = stage(LONG, |mut agent| {
        agent.hello();
        for _ in 0..100 {
            thread::sleep(Duration::from_millis(10));
            let mut grant = Vec::new();
            put_window(&mut grant, StreamId::STDIN, 64 * 1024);
            let _ = agent.stream.write_all(&grant);
        }
        thread::sleep(Duration::from_secs(1));
    });
    let mut stdin = stage.stdin.take().unwrap();
    let typist = thread::spawn(move || {
        let mut taken = 0;
        while taken < 8 << 20 && stdin.write_all(&[7; 4096]).is_ok() {
            taken += 4096;
        }
        taken
    });
    // It claims to have taken what was never sent.
    assert!(matches!(stage.ending(), Ending::Misbehaved(Misbehaviour::Window(_))));
    assert!(typist.join().unwrap() < 2 << 20);
}

/// A container that is saved while its machine refuses something: how it ends, and what the client hears.
fn saved_by(refuses: &'static [&'static str]) -> (Ending, String) {
    let folder = tempfile::tempdir().unwrap();
    let control = Control::listen(folder.path()).unwrap();
    let (id, name) = (Id::random(), "web".parse().unwrap());
    let record = new_record(id, name, spec(Some("web"), false));
    let (up, is_up) = mpsc::channel();
    let client = {
        let (folder, record) = (folder.path().to_owned(), record.clone());
        thread::spawn(move || {
            is_up.recv().unwrap();
            let file = tempfile::tempfile().unwrap();
            control::ask(&folder, &record, &Ask::Snapshot, &[file.as_fd()]).unwrap_err().to_string()
        })
    };
    let (ours, theirs) = UnixStream::pair().unwrap();
    let agent = thread::spawn(move || {
        let mut agent = FakeAgent { stream: theirs, decoder: Decoder::default() };
        agent.hello();
        assert!(matches!(agent.hear(), Got::Says(HostSays::Freeze(_))));
        agent.say(AgentSays::Frozen(message::Frozen::default()));
        agent.hear();
    });
    let (events, _machine) = UnixStream::pair().unwrap();
    let (signals, mut timings) = (SignalFd::new(&[]).unwrap(), Timings::start());
    let parts = Parts {
        agent: ours.into(),
        streams: Streams::own(),
        signals: &signals,
        container: Container::default(),
        limits: LONG,
        timings: &mut timings,
        control: Some(control),
    };
    let mut session = Session::new(parts, false);
    let greeting = Greeting { agent: "a".into(), kernel: "k".into(), mailbox: 4096 };
    session.can_be_saved(Saving { identity: identity(), record, greeting });
    let mut tell = |_| up.send(()).unwrap();
    let ending = session.serve(&mut FakeMachine { events, refuses }, &mut tell);
    drop(session);
    agent.join().unwrap();
    (ending, client.join().unwrap())
}

fn identity() -> Identity {
    Identity {
        kind: Kind::Snapshot,
        isopod: String::new(),
        kernel: String::new(),
        agent: String::new(),
        cpu: String::new(),
        vcpus: 1,
        memory_mib: 128,
        assist: Assist::None,
        devices: Vec::new(),
        extra: serde_json::Value::Null,
    }
}

#[test]
fn a_machine_whose_guest_waits_for_ever_ends_and_the_client_hears_why() {
    for refuses in [&["pause"][..], &["resume"], &["save", "resume"]] {
        let (ending, heard) = saved_by(refuses);
        let Ending::Machine { end: End::Failed { message }, phase: Phase::Up } = ending else {
            panic!("{refuses:?}: {ending:?}");
        };
        assert!(message.starts_with("it does not "), "{message}");
        assert_eq!(heard, "the container could not be saved, and has ended of it");
    }
}
