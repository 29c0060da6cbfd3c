// SPDX-License-Identifier: Apache-2.0
//! A proxy between a client and a registry that does what the worst of networks and registries do, and watches what it is
//! shown.
//!
//! ```text
//!   client ─► front: wants a password or a token ─► what befalls this request? ─► registry
//!      └────► elsewhere, another host: gives blobs to anybody, and must be shown nothing ─┘
//! ```
//! What befalls a request hangs on the seed, the request and how often it was made: the same in every run of a test, however
//! many ask at once.

use super::layout::digest;
use super::registry::{BASIC, PASSWORD};
use std::collections::{BTreeMap, HashMap};
use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

/// Longer than a client should wait for a byte.
const FOR_EVER: Duration = Duration::from_secs(120);
const TLS_HANDSHAKE: u8 = 22;
const HEAD_MAX: usize = 64 << 10;

/// What befalls a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Fate {
    Well,
    /// A status that passes, perhaps with `Retry-After`.
    Status(u16, bool),
    /// The connection ends in the midst of the body.
    Truncated,
    /// One bit of the body is another.
    Flipped,
    /// Nothing comes for a while.
    Pause,
    /// Nothing comes any more.
    Stall,
    /// The body is at another host.
    Elsewhere,
    /// All of it is given, whatever was asked for, after a break.
    RangeIgnored,
    /// More bytes are promised than come.
    LengthTooLong,
    /// Fewer are.
    LengthTooShort,
    /// Another document than the one that was asked for, under the first one's digest.
    Swapped,
}

/// What a proxy has seen and done.
#[derive(Debug, Default)]
pub(crate) struct Seen {
    pub(crate) fates: BTreeMap<Fate, usize>,
    pub(crate) requests: usize,
    /// Requests with a secret where none is to be shown.
    pub(crate) leaks: Vec<String>,
    asked: HashMap<String, u64>,
}

/// Gone with what stands for it.
#[derive(Debug)]
pub(crate) struct Chaos {
    front: String,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    seed: u64,
    /// How many requests of 10,000 are never answered.
    stalls: u64,
    registry: String,
    elsewhere: String,
    bearer: bool,
    over: AtomicBool,
    seen: Mutex<Seen>,
}

impl Chaos {
    /// In front of `registry`, wanting tokens or else a password.
    pub(crate) fn before(registry: &str, seed: u64, bearer: bool, stalls: u64) -> Self {
        let (front, elsewhere) = (listener("127.0.0.1:0"), listener("127.0.0.2:0"));
        let at = |listener: &TcpListener| listener.local_addr().expect("bound").to_string();
        let shared = Arc::new(Shared {
            seed,
            stalls,
            registry: registry.to_owned(),
            elsewhere: at(&elsewhere),
            bearer,
            over: AtomicBool::new(false),
            seen: Mutex::default(),
        });
        let chaos = Self { front: at(&front), shared: Arc::clone(&shared) };
        serve(front, &shared, Shared::front);
        serve(elsewhere, &shared, Shared::give);
        chaos
    }

    /// `127.0.0.1:PORT`
    pub(crate) fn host(&self) -> &str {
        &self.front
    }

    pub(crate) fn with_seen<T>(&self, look: impl FnOnce(&Seen) -> T) -> T {
        look(&self.shared.seen.lock().expect("nobody panics with it"))
    }
}

impl Drop for Chaos {
    fn drop(&mut self) {
        self.shared.over.store(true, Ordering::SeqCst);
        for at in [&self.front, &self.shared.elsewhere] {
            let _ = TcpStream::connect(at);
        }
    }
}

fn listener(at: &str) -> TcpListener {
    TcpListener::bind(at).expect("a loopback port")
}

fn serve(
    listener: TcpListener,
    shared: &Arc<Shared>,
    answer: fn(&Shared, &mut TcpStream, &Request) -> io::Result<()>,
) {
    let shared = Arc::clone(shared);
    thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            if shared.over.load(Ordering::SeqCst) {
                return;
            }
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                let mut stream = stream;
                // Who hangs up is not told anything.
                let _ = Request::read(&mut stream).and_then(|request| answer(&shared, &mut stream, &request));
                let _ = stream.shutdown(Shutdown::Both);
            });
        }
    });
}

/// A request's head; what is pulled with has no body.
#[derive(Debug)]
struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
}

impl Request {
    fn read(stream: &mut TcpStream) -> io::Result<Self> {
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        let (head, _) = head(stream)?;
        let mut lines = head.lines();
        let mut first = lines.next().unwrap_or_default().split(' ').map(str::to_owned);
        let (method, path) = (first.next().unwrap_or_default(), first.next().unwrap_or_default());
        Ok(Self { method, path, headers: headers(lines) })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

/// An answer of the registry's, whole.
#[derive(Debug, Clone)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn of(status: u16, headers: &[(&str, &str)]) -> Self {
        let headers = headers.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        Self { status, headers, body: Vec::new() }
    }

    fn send(&self, to: &mut TcpStream, length: usize) -> io::Result<()> {
        let mut head =
            format!("HTTP/1.1 {} .\r\nconnection: close\r\ncontent-length: {length}\r\n", self.status);
        for (key, value) in &self.headers {
            if !matches!(key.as_str(), "connection" | "content-length" | "transfer-encoding") {
                head.push_str(&format!("{key}: {value}\r\n"));
            }
        }
        to.write_all(format!("{head}\r\n").as_bytes())?;
        to.write_all(&self.body)
    }
}

impl Shared {
    fn front(&self, to: &mut TcpStream, request: &Request) -> io::Result<()> {
        let fate = self.fate(request);
        match fate {
            Fate::Status(status, later) => {
                let after: &[_] = if later { &[("retry-after", "1")] } else { &[] };
                return Answer::of(status, after).send(to, 0);
            }
            Fate::Stall => {
                thread::sleep(FOR_EVER);
                return Ok(());
            }
            Fate::Pause => thread::sleep(Duration::from_millis(700)),
            _ => {}
        }
        if let Some(refusal) = self.refusal(request) {
            return refusal.send(to, refusal.body.len());
        }
        let blob = request.path.contains("/blobs/");
        if fate == Fate::Elsewhere && blob {
            let location = format!("http://{}{}", self.elsewhere, request.path);
            return Answer::of(307, &[("location", &location)]).send(to, 0);
        }
        let range = request.header("range").filter(|_| fate != Fate::RangeIgnored);
        let mut answer = self.ask(&request.method, &request.path, (range, request))?;
        if fate == Fate::Swapped
            && let Some(other) = other(&request.path)
        {
            answer.body = self.ask("GET", &other, (None, request))?.body;
        }
        spoil(answer, fate, self.dice(&request.path, 1), to)
    }

    /// The other host: gives what is asked for, and notes what it was shown.
    fn give(&self, to: &mut TcpStream, request: &Request) -> io::Result<()> {
        let shown = request.headers.iter().find(|(key, value)| {
            matches!(key.as_str(), "authorization" | "cookie" | "proxy-authorization")
                || value.contains(PASSWORD)
        });
        if let Some((key, value)) = shown {
            self.see(|seen| seen.leaks.push(format!("{} {key}: {value}", request.path)));
        }
        let fate = self.fate(request);
        let answer = self.ask(&request.method, &request.path, (request.header("range"), request))?;
        spoil(answer, fate, self.dice(&request.path, 2), to)
    }

    /// What befalls this request, which is noted.
    fn fate(&self, request: &Request) -> Fate {
        let key = format!("{} {}", request.method, request.path);
        let again = self.see(|seen| {
            seen.requests += 1;
            let asked = seen.asked.entry(key.clone()).or_insert(0);
            *asked += 1;
            *asked
        });
        let dice = self.dice(&key, again * 2 + 1);
        let statuses = [500, 502, 503, 504, 429, 429];
        let fate = match self.dice(&key, again * 2) % 10_000 {
            0..3000 => Fate::Status(statuses[remainder(dice, statuses.len())], dice.is_multiple_of(10)),
            3000..3500 => Fate::Truncated,
            3500..3600 => Fate::Flipped,
            3600..3900 => Fate::Pause,
            3900..4400 => Fate::Elsewhere,
            4400..4900 => Fate::RangeIgnored,
            4900..5100 => Fate::LengthTooLong,
            5100..5300 => Fate::LengthTooShort,
            5300..5600 => Fate::Swapped,
            n if n < 5600 + self.stalls => Fate::Stall,
            _ => Fate::Well,
        };
        self.see(|seen| *seen.fates.entry(fate).or_insert(0) += 1);
        fate
    }

    fn dice(&self, key: &str, n: u64) -> u64 {
        let text = digest(format!("{} {key} {n}", self.seed).as_bytes());
        u64::from_str_radix(&text[7..22], 16).expect("hexadecimal")
    }

    fn see<T>(&self, change: impl FnOnce(&mut Seen) -> T) -> T {
        change(&mut self.seen.lock().expect("nobody panics with it"))
    }

    /// What is said to who does not show what is wanted.
    fn refusal(&self, request: &Request) -> Option<Answer> {
        let basic = format!("Basic {BASIC}");
        let token = format!("token{}", self.seed);
        let shown = request.header("authorization");
        if request.path.starts_with("/token") {
            if shown != Some(basic.as_str()) {
                return Some(Answer::of(401, &[]));
            }
            let body = format!("{{\"token\":\"{token}\"}}").into_bytes();
            return Some(Answer { body, ..Answer::of(200, &[("content-type", "application/json")]) });
        }
        let (wanted, challenge) = if self.bearer {
            let host = request.header("host").unwrap_or_default();
            (format!("Bearer {token}"), format!("Bearer realm=\"http://{host}/token\",service=\"chaos\""))
        } else {
            (basic, "Basic realm=\"chaos\"".to_owned())
        };
        (shown != Some(wanted.as_str())).then(|| Answer::of(401, &[("www-authenticate", &challenge)]))
    }

    /// Asks the registry itself.
    fn ask(&self, method: &str, path: &str, (range, like): (Option<&str>, &Request)) -> io::Result<Answer> {
        let mut stream = TcpStream::connect(&self.registry)?;
        // An older one, in which nothing comes in chunks.
        let mut text = format!("{method} {path} HTTP/1.0\r\nhost: {}\r\n", self.registry);
        for accept in like.headers.iter().filter(|(key, _)| key == "accept") {
            text.push_str(&format!("accept: {}\r\n", accept.1));
        }
        if let Some(range) = range {
            text.push_str(&format!("range: {range}\r\n"));
        }
        stream.write_all(format!("{text}\r\n").as_bytes())?;
        let (head, mut body) = head(&mut stream)?;
        stream.read_to_end(&mut body)?;
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or(io::ErrorKind::InvalidData)?;
        Ok(Answer { status, headers: headers(lines), body })
    }
}

/// Sends an answer as its fate has it.
fn spoil(mut answer: Answer, fate: Fate, dice: u64, to: &mut TcpStream) -> io::Result<()> {
    let len = answer.body.len();
    let at = remainder(dice, len.max(1));
    match fate {
        Fate::Truncated => {
            answer.body.truncate(at);
            answer.send(to, len)
        }
        Fate::Flipped => {
            if let Some(byte) = answer.body.get_mut(at) {
                *byte ^= 1 << (dice % 8);
            }
            answer.send(to, len)
        }
        Fate::LengthTooLong => answer.send(to, len + 100),
        Fate::LengthTooShort => answer.send(to, len / 2),
        _ => {
            let len = answer.body.len();
            answer.send(to, len)
        }
    }
}

fn remainder(dice: u64, of: usize) -> usize {
    usize::try_from(dice % of as u64).expect("less than what it came from")
}

/// Another of the test's documents: `image5` instead of `image4`, by whatever it was asked for.
fn other(path: &str) -> Option<String> {
    let (start, _) = path.split_once("/manifests/")?;
    let cut = start.trim_end_matches(|c: char| c.is_ascii_digit());
    let n: u32 = start[cut.len()..].parse().ok()?;
    Some(format!("{cut}{}/manifests/1", n ^ 1))
}

/// A message's head, and what came with it of the body.
fn head(stream: &mut TcpStream) -> io::Result<(String, Vec<u8>)> {
    let (mut bytes, mut piece) = (Vec::new(), [0; 4096]);
    loop {
        if let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
            let rest = bytes.split_off(end + 4);
            return Ok((String::from_utf8_lossy(&bytes).into_owned(), rest));
        }
        let n = stream.read(&mut piece)?;
        // Who begins with TLS is told at once that there is none, as by any server.
        if bytes.is_empty() && n > 0 && piece[0] == TLS_HANDSHAKE {
            stream.write_all(b"HTTP/1.0 400 Bad Request\r\n\r\n")?;
            return Err(io::ErrorKind::InvalidData.into());
        }
        if n == 0 || bytes.len() > HEAD_MAX {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        bytes.extend_from_slice(&piece[..n]);
    }
}

fn headers<'a>(lines: impl Iterator<Item = &'a str>) -> Vec<(String, String)> {
    let split = lines.filter_map(|line| line.split_once(':'));
    split.map(|(key, value)| (key.trim().to_ascii_lowercase(), value.trim().to_owned())).collect()
}
