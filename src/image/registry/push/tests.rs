// SPDX-License-Identifier: Apache-2.0
//! A registry, or what is before it, that takes only so much at once.

use super::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Mutex};
use std::thread;

const AT_ONCE: usize = 9 << 20;

#[derive(Debug, Default)]
struct Kept {
    bytes: Vec<u8>,
    /// How a blob's upload ended: its query.
    ended: Option<String>,
    asked: Vec<String>,
    /// Answers the second piece as if it had not come, though it had.
    forgets: bool,
}

struct Request {
    method: String,
    target: String,
    range: Option<String>,
    body: Vec<u8>,
}

fn read(stream: &TcpStream) -> Option<Request> {
    let mut reader = BufReader::new(stream);
    let mut first = String::new();
    reader.read_line(&mut first).ok()?;
    let mut words = first.split(' ');
    let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
    let (mut len, mut range) = (0, None);
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).ok()?;
        let Some((name, value)) = line.trim().split_once(':') else { break };
        match name.to_lowercase().as_str() {
            "content-length" => len = value.trim().parse().ok()?,
            "content-range" => range = Some(value.trim().to_owned()),
            _ => {}
        }
    }
    let mut body = vec![0; len];
    reader.read_exact(&mut body).ok()?;
    Some(Request { method, target, range, body })
}

fn answer(kept: &mut Kept, request: &Request) -> String {
    kept.asked.push(request.method.clone());
    let location = "location: /v2/a/blobs/uploads/1?state=x\r\n";
    let (status, headers) = match request.method.as_str() {
        "GET" if request.target == "/v2/" => ("200 OK", String::new()),
        "GET" => ("204 No Content", format!("{location}range: 0-{}\r\n", kept.bytes.len() - 1)),
        "POST" => ("202 Accepted", location.to_owned()),
        "PUT" if request.body.len() > AT_ONCE => ("413 Content Too Large", String::new()),
        "PUT" => {
            kept.ended = Some(request.target.clone());
            ("201 Created", String::new())
        }
        "PATCH" => {
            let begins = request.range.as_deref().and_then(|range| range.split_once('-')?.0.parse().ok());
            if begins != Some(kept.bytes.len()) {
                ("416 Range Not Satisfiable", String::new())
            } else {
                kept.bytes.extend_from_slice(&request.body);
                if kept.forgets && begins > Some(0) {
                    kept.forgets = false;
                    ("416 Range Not Satisfiable", String::new())
                } else {
                    ("202 Accepted", location.to_owned())
                }
            }
        }
        _ => ("404 Not Found", String::new()),
    };
    format!("HTTP/1.1 {status}\r\nconnection: close\r\n{headers}content-length: 0\r\n\r\n")
}

fn registry(kept: Kept) -> (Upload, Arc<Mutex<Kept>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let host = listener.local_addr().unwrap();
    let kept = Arc::new(Mutex::new(kept));
    let theirs = Arc::clone(&kept);
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let Some(request) = read(&stream) else { continue };
            let said = answer(&mut theirs.lock().unwrap(), &request);
            let _ = (&stream).write_all(said.as_bytes());
        }
    });
    let reference = format!("{host}/a").parse().unwrap();
    (Upload::open(&reference, &BTreeSet::new(), &Settings::default()).unwrap(), kept)
}

fn blob(len: usize) -> (Digest, File, Vec<u8>) {
    let bytes: Vec<u8> = (0..=250u8).cycle().take(len).collect();
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&bytes).unwrap();
    (Digest::of(&bytes), file, bytes)
}

#[test]
fn what_is_too_much_at_once_goes_in_pieces() {
    for forgets in [false, true] {
        let (upload, kept) = registry(Kept { forgets, ..Kept::default() });
        let (digest, file, bytes) = blob(20 << 20);
        assert!(upload.blob(&digest, &file, None).unwrap());
        let kept = kept.lock().unwrap();
        assert!(kept.bytes == bytes, "{} of {} bytes came", kept.bytes.len(), bytes.len());
        assert_eq!(kept.ended.as_deref(), Some(&*format!("/v2/a/blobs/uploads/1?state=x&digest={digest}")));
        assert_eq!(kept.asked.iter().filter(|method| *method == "PATCH").count(), 3);
    }
}

#[test]
fn what_is_not_too_much_goes_at_once() {
    let (upload, kept) = registry(Kept::default());
    let (digest, file, _) = blob(1 << 20);
    assert!(upload.blob(&digest, &file, None).unwrap());
    assert_eq!(kept.lock().unwrap().asked, ["GET", "POST", "PUT"]);
}
