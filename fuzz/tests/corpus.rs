// SPDX-License-Identifier: Apache-2.0
//! A short replay: what the fuzzers found worth keeping, and some bytes nobody chose.

use isopod_fuzz::TARGETS;
use std::fs;
use std::path::Path;

#[test]
fn every_target_holds_on_its_corpus() {
    for (name, body) in TARGETS {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
        let mut files: Vec<_> = fs::read_dir(&folder)
            .unwrap_or_else(|error| panic!("{}: {error}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .collect();
        files.sort();
        assert!(!files.is_empty(), "{name} has no corpus");
        for file in files {
            println!("{}", file.display());
            body(&fs::read(&file).unwrap());
        }
    }
}

#[test]
fn every_target_holds_on_nothing_and_on_noise() {
    for (name, body) in TARGETS {
        println!("{name}");
        body(&[]);
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        for round in 0..100 {
            let mut noise = Vec::new();
            while noise.len() < 8 * (round + 1) {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                noise.extend_from_slice(&state.to_le_bytes());
            }
            body(&noise);
        }
    }
}
