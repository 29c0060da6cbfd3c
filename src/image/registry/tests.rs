// SPDX-License-Identifier: Apache-2.0
//! Registries that break, lie and listen: each a real server on loopback that says what a test has it say.

use super::*;
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;
use tempfile::{TempDir, tempdir};

const MANIFEST_PATH: &str = "/v2/a/b/manifests/latest";

/// A request's path, and its headers in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Request {
    path: String,
    headers: Vec<String>,
}

impl Request {
    fn header(&self, name: &str) -> Option<&str> {
        let line = self.headers.iter().find(|line| line.starts_with(&format!("{name}:")))?;
        Some(line[name.len() + 1..].trim())
    }
}

/// What was asked of a server, in order.
type Heard = Arc<Mutex<Vec<Request>>>;

/// Answers with whatever bytes `says` gives for a request and how many there were before it; then hangs up.
fn server(says: impl Fn(&Request, usize) -> Vec<u8> + Send + 'static) -> (String, Heard) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let (host, heard) = (listener.local_addr().unwrap().to_string(), Heard::default());
    let all = Arc::clone(&heard);
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            // A client that tries TLS first has nothing to say to us.
            let Some(request) = read(&stream) else { continue };
            let before = all.lock().unwrap().len();
            let answer = says(&request, before);
            all.lock().unwrap().push(request);
            let _ = stream.write_all(&answer);
        }
    });
    (host, heard)
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut lines = BufReader::new(stream).lines();
    let first = lines.next()?.ok()?;
    let path = first.strip_prefix("GET ")?.split(' ').next()?.to_owned();
    let headers = lines.map_while(|line| line.ok().filter(|line| !line.is_empty()));
    let lower = |line: String| match line.split_once(':') {
        Some((name, value)) => format!("{}:{value}", name.to_lowercase()),
        None => line,
    };
    Some(Request { path, headers: headers.map(lower).collect() })
}

fn answer(status: &str, headers: &str, body: &[u8]) -> Vec<u8> {
    let head =
        format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: {}\r\n\r\n", body.len());
    [head.as_bytes(), body].concat()
}

fn ok(body: &[u8]) -> Vec<u8> {
    answer("200 OK", &format!("content-type: {MANIFEST}; charset=utf-8\r\n"), body)
}

fn find(host: &str, settings: &Settings) -> Result<Remote> {
    Remote::find(&format!("{host}/a/b").parse().unwrap(), &Platform::host(), settings)
}

/// Credentials for each of the hosts.
fn known_to(hosts: &[&str]) -> (TempDir, Settings) {
    let folder = tempdir().unwrap();
    let path = folder.path().join("config.json");
    let entries: Vec<_> = hosts.iter().map(|host| format!(r#""{host}":{{"auth":"dTpw"}}"#)).collect();
    fs::write(&path, format!(r#"{{"auths":{{{}}}}}"#, entries.join(","))).unwrap();
    (folder, Settings { docker_config: Some(path), ..Settings::default() })
}

fn blob(len: usize) -> Vec<u8> {
    (0..len).map(|n| u8::try_from(n % 251).unwrap()).collect()
}

/// Reads a blob of this size from a server that tells its manifest as anybody would.
fn download(
    len: usize,
    says: impl Fn(&Request, usize) -> Vec<u8> + Send + 'static,
) -> (io::Result<Vec<u8>>, Heard) {
    let (host, heard) = server(move |request, n| match request.path.as_str() {
        "/v2/" => ok(b""),
        MANIFEST_PATH => ok(b"{}"),
        _ => says(request, n),
    });
    let remote = find(&host, &Settings::default()).unwrap();
    let layer = manifest::descriptor(manifest::LAYER, Digest::of(&blob(len)), len as u64);
    let mut bytes = Vec::new();
    let read =
        remote.open(&layer).map_err(io::Error::other).and_then(|mut body| body.read_to_end(&mut bytes));
    (read.map(|_| bytes), heard)
}

#[test]
fn a_manifest_comes_with_its_type_and_digest() {
    let (host, heard) = server(|request, _| if request.path == "/v2/" { ok(b"") } else { ok(b"{}") });
    let remote = find(&host, &Settings::default()).unwrap();
    assert_eq!((remote.root().media_type.as_str(), remote.root().digest), (MANIFEST, Digest::of(b"{}")));
    let heard = heard.lock().unwrap();
    assert_eq!(heard[1].path, MANIFEST_PATH);
    assert!(heard[1].headers.iter().any(|line| line.contains(INDEX)), "{heard:?}");
}

#[test]
fn a_digest_that_is_answered_with_something_else_is_refused() {
    let (host, _) = server(|request, _| if request.path == "/v2/" { ok(b"") } else { ok(b"{}") });
    let reference = format!("{host}/a/b@{}", Digest::of(b"other")).parse().unwrap();
    assert_eq!(
        Remote::find(&reference, &Platform::host(), &Settings::default()).unwrap_err().kind(),
        Kind::Invalid
    );
}

#[test]
fn a_broken_download_goes_on_where_it_was() {
    let whole = blob(50_000);
    let (bytes, heard) = download(whole.len(), move |request, _| match request.header("range") {
        None => answer("200 OK", "", &blob(50_000))[..20_000].to_vec(),
        Some(range) => {
            let from: usize = range.strip_prefix("bytes=").unwrap().trim_end_matches('-').parse().unwrap();
            let headers = format!("content-range: bytes {from}-49999/50000\r\n");
            answer("206 Partial Content", &headers, &blob(50_000)[from..])
        }
    });
    assert!(bytes.unwrap() == whole);
    assert_eq!(heard.lock().unwrap().len(), 4);
}

#[test]
fn a_registry_that_does_not_listen_to_ranges_is_read_again() {
    let whole = blob(50_000);
    let (bytes, _) = download(whole.len(), move |request, _| {
        let all = answer("200 OK", "", &blob(50_000));
        if request.header("range").is_some() { all } else { all[..30_000].to_vec() }
    });
    assert!(bytes.unwrap() == whole);
}

#[test]
fn one_that_breaks_without_a_byte_in_between_is_given_up() {
    let (bytes, heard) = download(1000, |_, _| answer("200 OK", "", &blob(1000))[..60].to_vec());
    assert_eq!(bytes.unwrap_err().to_string(), "it broke off 6 times in a row");
    assert_eq!(heard.lock().unwrap().len(), 2 + 6);
}

#[test]
fn one_that_is_busy_is_asked_again_when_it_says_so() {
    let (host, heard) = server(|request, n| match (request.path.as_str(), n) {
        ("/v2/", _) => ok(b""),
        (_, 1) => answer("503 Service Unavailable", "retry-after: 0\r\n", b""),
        (_, 2) => answer("429 Too Many Requests", "retry-after: 0\r\n", b""),
        _ => ok(b"{}"),
    });
    find(&host, &Settings::default()).unwrap();
    assert_eq!(heard.lock().unwrap().len(), 4);
}

#[test]
fn a_name_and_a_password_go_to_who_asked_and_not_where_he_sends_us() {
    let (other, heard_there) = server(|_, _| ok(b"{}"));
    let location = format!("location: http://{other}/elsewhere\r\n");
    let (host, heard) = server(move |request, _| match request.header("authorization") {
        None => answer("401 Unauthorized", "www-authenticate: Basic realm=\"x\"\r\n", b""),
        Some(_) => answer("307 Temporary Redirect", &location, b""),
    });
    let (_folder, settings) = known_to(&[&host, &other]);
    find(&host, &settings).unwrap();
    assert_eq!(heard.lock().unwrap()[1].header("authorization"), Some("Basic dTpw"));
    let there = heard_there.lock().unwrap();
    assert_eq!((there.len(), there[0].header("authorization")), (1, None));
}

#[test]
fn a_token_is_fetched_with_the_password_and_shown_without_it() {
    let (tokens, heard_there) = server(|_, _| answer("200 OK", "", br#"{"token":"t0ken"}"#));
    let challenge = format!("www-authenticate: Bearer realm=\"http://{tokens}/t\",service=\"s\"\r\n");
    let (host, heard) = server(move |request, _| match request.header("authorization") {
        Some("Bearer t0ken") => ok(b"{}"),
        _ => answer("401 Unauthorized", &challenge, b""),
    });
    let (_folder, settings) = known_to(&[&host]);
    find(&host, &settings).unwrap();
    let there = heard_there.lock().unwrap();
    assert_eq!(there[0].path, "/t?service=s&scope=repository%3Aa%2Fb%3Apull");
    assert_eq!(there[0].header("authorization"), Some("Basic dTpw"));
    assert!(
        heard.lock().unwrap().iter().all(|request| request.header("authorization") != Some("Basic dTpw"))
    );
}

#[test]
fn who_is_not_let_in_is_told_what_is_missing() {
    let (host, _) = server(|_, _| answer("401 Unauthorized", "www-authenticate: Basic realm=\"x\"\r\n", b""));
    let error = find(&host, &Settings::default()).unwrap_err();
    assert_eq!(error.kind(), Kind::Denied);
    assert!(error.to_string().contains("no credentials"), "{error}");
    let (_folder, settings) = known_to(&[&host]);
    let error = find(&host, &settings).unwrap_err();
    assert!(error.kind() == Kind::Denied && error.to_string().contains("does not take"), "{error}");
}

#[test]
fn a_manifest_larger_than_any_is_refused() {
    let (host, _) = server(|request, _| match request.path.as_str() {
        "/v2/" => ok(b""),
        _ => ok(&vec![b' '; usize::try_from(DOCUMENT_MAX).unwrap() + 1]),
    });
    assert_eq!(find(&host, &Settings::default()).unwrap_err().kind(), Kind::TooLarge);
}

#[test]
fn one_that_sends_us_in_circles_is_left() {
    let (host, heard) = server(|request, _| match request.path.as_str() {
        "/v2/" => ok(b""),
        _ => answer("302 Found", "location: /v2/a/b/manifests/latest\r\n", b""),
    });
    assert_eq!(find(&host, &Settings::default()).unwrap_err().kind(), Kind::Network);
    assert_eq!(heard.lock().unwrap().len(), 1 + 5);
}

#[test]
fn one_that_takes_no_token_is_not_asked_for_ever() {
    let (tokens, heard_there) = server(|_, _| answer("200 OK", "", br#"{"token":"t0ken"}"#));
    let challenge = format!("www-authenticate: Bearer realm=\"http://{tokens}/t\"\r\n");
    let (host, heard) = server(move |_, _| answer("401 Unauthorized", &challenge, b""));
    assert_eq!(find(&host, &Settings::default()).unwrap_err().kind(), Kind::Denied);
    assert_eq!((heard.lock().unwrap().len(), heard_there.lock().unwrap().len()), (3, 2));
}

#[test]
fn a_range_that_begins_elsewhere_is_not_taken_for_the_rest() {
    let (bytes, _) = download(5000, |request, _| match request.header("range") {
        None => answer("200 OK", "", &blob(5000))[..1000].to_vec(),
        Some(_) => answer("206 Partial Content", "content-range: bytes 4000-4999/5000\r\n", &blob(5000)),
    });
    assert_eq!(bytes.unwrap_err().to_string(), "it broke off 6 times in a row");
}

#[test]
fn whom_we_are_sent_on_to_is_told_no_secret_wherever_he_wants_it_to_be_taken() {
    for challenge in ["Basic realm=\"x\"", "Bearer realm=\"http://HOST/token\""] {
        let (there, heard_there) = server(|_, _| answer("200 OK", "", br#"{"token":"t0ken"}"#));
        let challenge = challenge.replace("HOST", &there);
        let (other, heard_other) = server(move |_, _| {
            answer("401 Unauthorized", &format!("www-authenticate: {challenge}\r\n"), b"")
        });
        let (host, heard) = server(move |_, _| {
            answer("307 Temporary Redirect", &format!("location: http://{other}/v2/\r\n"), b"")
        });
        let (_folder, settings) = known_to(&[&host]);
        assert_eq!(find(&host, &settings).unwrap_err().kind(), Kind::Network);
        assert_eq!((heard.lock().unwrap().len(), heard_other.lock().unwrap().len()), (1, 1));
        assert_eq!(heard_there.lock().unwrap().len(), 0);
        assert_eq!(heard_other.lock().unwrap()[0].header("authorization"), None);
    }
}

#[test]
fn a_manifest_that_is_not_what_the_registry_says_is_asked_for_again() {
    let told = format!("docker-content-digest: {}\r\n", Digest::of(b"{}"));
    for (bent, kind) in [(1, None), (9, Some(Kind::Corrupt))] {
        let told = told.clone();
        let (host, heard) = server(move |request, n| match request.path.as_str() {
            "/v2/" => ok(b""),
            _ if n <= bent => answer("200 OK", &told, b"{ }"),
            _ => answer("200 OK", &told, b"{}"),
        });
        assert_eq!(find(&host, &Settings::default()).err().map(|e| e.kind()), kind);
        assert_eq!(heard.lock().unwrap().len(), if kind.is_some() { 1 + 5 } else { 1 + 2 });
    }
}

#[test]
fn one_that_is_busy_at_its_door_is_asked_again() {
    let (host, _) = server(|request, n| match (request.path.as_str(), n) {
        ("/v2/", 0) => answer("503 Service Unavailable", "", b""),
        ("/v2/", _) => ok(b""),
        _ => ok(b"{}"),
    });
    assert_eq!(find(&host, &Settings::default()).unwrap().root().digest, Digest::of(b"{}"));
}
