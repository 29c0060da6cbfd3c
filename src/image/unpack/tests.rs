// SPDX-License-Identifier: Apache-2.0
use super::*;
use crate::digest::Digest;
use crate::tar::write::Writer;
use isopod_index::Index;
use isopod_sys::map::FileMap;
use std::fs::File;
use tempfile::tempfile;

fn unpacking() -> (Unpacking, File, File) {
    let (data, index) = (tempfile().unwrap(), tempfile().unwrap());
    (Unpacking::start(Worker::Thread, Limits::default(), &data, &index).unwrap(), data, index)
}

#[test]
fn a_layer_fed_in_pieces_becomes_data_and_an_index() {
    let layer = Writer::default().folder("etc").file("etc/a", &[7; 200_000]).end();
    let (mut worker, data, index) = unpacking();
    for piece in layer.chunks(1000) {
        assert!(worker.feed(piece));
    }
    assert_eq!(worker.finish().unwrap(), Digest::of(&layer));
    assert_eq!(data.metadata().unwrap().len(), 200_000);
    assert!(Index::open(FileMap::new(&index).unwrap()).is_ok());
}

#[test]
fn a_refusal_comes_with_its_kind_and_its_causes() {
    let layer = Writer::default().file("../../etc/passwd", b"x").end();
    let (mut worker, ..) = unpacking();
    worker.feed(&layer);
    let error = worker.finish().unwrap_err();
    assert_eq!(error.kind(), Kind::Invalid);
    let mut said = error.to_string();
    let mut cause = Error::source(&error);
    while let Some(error) = cause {
        said.push_str(&format!(" / {error}"));
        cause = error.source();
    }
    assert!(said.contains("refused / entry `../../etc/passwd` / a name with `..`"), "{said}");
}

#[test]
fn the_longest_report_is_one_packet() {
    let words = "\u{1}".repeat(2 * WORDS_MAX);
    let innermost = ImageError::invalid(&words);
    let error = (0..2 * CHAIN_MAX).fold(innermost, |error, _| error.within(&words));
    assert!(serde_json::to_vec(&Report::refused(&error)).unwrap().len() <= PIECE);
}

#[test]
fn a_layer_that_stops_short_is_refused() {
    let layer = Writer::default().file("a", &[7; 5000]).end();
    let (mut worker, ..) = unpacking();
    worker.feed(&layer[..3000]);
    assert_eq!(worker.finish().unwrap_err().kind(), Kind::Invalid);
}

#[test]
fn a_worker_that_is_no_longer_needed_ends() {
    let (mut worker, data, _) = unpacking();
    worker.feed(&[0; 100]);
    drop(worker);
    assert_eq!(data.metadata().unwrap().len(), 0);
}
