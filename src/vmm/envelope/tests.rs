// SPDX-License-Identifier: Apache-2.0

use super::header;
use super::*;
use crate::config::Assist;
use crate::memory::GuestMemory;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use serde_json::json;
use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt};
use tempfile::tempfile;
use vm_memory::{Bytes, GuestAddress};

const MIB: u64 = 1 << 20;
const STATE: &[u8] = b"registers and the like";

pub(super) fn identity() -> Identity {
    Identity {
        kind: Kind::Template,
        isopod: "0.1.0".into(),
        kernel: "ab".repeat(32),
        agent: "cd".repeat(32),
        cpu: "one that is here".into(),
        vcpus: 2,
        memory_mib: 2,
        assist: Assist::None,
        devices: vec!["fs".into(), "rng".into()],
        extra: json!({"made": [1, 2.5, null]}),
    }
}

/// Two regions of a MiB each, with few pages that are not zero.
fn memory() -> GuestMemory {
    let memory =
        GuestMemory::from_ranges(&[(GuestAddress(0), 1 << 20), (GuestAddress(4 << 20), 1 << 20)]).unwrap();
    for (at, byte) in [(0, 1), (0x5fff, 2), (0x6000, 3), (0xf_ffff, 4), (0x40_0000, 5), (0x4f_e000, 6)] {
        memory.write_obj::<u8>(byte, GuestAddress(at)).unwrap();
    }
    memory
}

fn sealed() -> (File, Digest) {
    let file = tempfile().unwrap();
    let digest = seal(&file, &identity(), STATE, &memory()).unwrap();
    (file, digest)
}

/// All that can be found wrong with a file.
fn check(file: &File) -> Result<Envelope, OpenError> {
    let envelope = open(file)?;
    envelope.verify_memory(file)?;
    Ok(envelope)
}

fn xor(file: &File, at: u64, bits: u8) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, at).unwrap();
    file.write_all_at(&[byte[0] ^ bits], at).unwrap();
}

/// Changes the header, and gives the head the digest that it has then.
fn forge(file: &File, at: u64, bytes: &[u8]) {
    let mut head = vec![0; PAGE_LEN];
    file.write_all_at(bytes, at).unwrap();
    file.read_exact_at(&mut head, 0).unwrap();
    header::put_digest(&mut head);
    file.write_all_at(&head, 0).unwrap();
}

#[test]
fn what_was_sealed_is_what_is_opened() {
    let (file, digest) = sealed();
    let envelope = check(&file).unwrap();
    assert_eq!((envelope.identity, envelope.state.as_slice()), (identity(), STATE));
    assert_eq!((envelope.memory_offset, envelope.memory_len), (2 * MIB, 2 * MIB));
    assert_eq!((envelope.digest, file.metadata().unwrap().len()), (digest, 4 * MIB));
}

#[test]
fn regions_lie_one_after_the_other() {
    let (file, _) = sealed();
    let offset = open(&file).unwrap().memory_offset;
    let at = |place: u64| {
        let mut byte = [0];
        file.read_exact_at(&mut byte, offset + place).unwrap();
        byte[0]
    };
    assert_eq!([0, 1, 0x5fff, 0x6000, 0xf_ffff, MIB, MIB + 0xf_e000].map(at), [1, 0, 2, 3, 4, 5, 6]);
}

#[test]
fn pages_of_zeros_are_holes_and_old_contents_are_gone() {
    let (file, _) = sealed();
    assert!(file.metadata().unwrap().blocks() * 512 <= 20 * PAGE);
    file.write_all_at(&[9; 1 << 20], 3 * MIB).unwrap();
    file.set_len(9 * MIB).unwrap();
    seal(&file, &identity(), STATE, &memory()).unwrap();
    check(&file).unwrap();
}

#[test]
fn the_same_machine_makes_the_same_file_whatever_its_holes() {
    let ((file, digest), (_, again)) = (sealed(), sealed());
    assert_eq!(digest, again);
    let mut all = vec![0; 4 << 20];
    file.read_exact_at(&mut all, 0).unwrap();
    let copy = tempfile().unwrap();
    copy.write_all_at(&all, 0).unwrap();
    assert_eq!(check(&copy).unwrap().digest, digest);
}

#[test]
fn a_head_of_any_length_is_read_whole() {
    // Around the first read, around a page, around the place for the memory, and the most there may be.
    for len in [0, 65_000, 65_536, 70_000, (2 << 20) - 400, (2 << 20) - 4096, 2 << 20, 16 << 20] {
        let (file, state) = (tempfile().unwrap(), vec![7; len]);
        seal(&file, &identity(), &state, &memory()).unwrap();
        let envelope = check(&file).unwrap();
        assert!(envelope.state == state, "{len}");
        assert_eq!(envelope.memory_offset % MEMORY_ALIGN, 0, "{len}");
    }
}

#[test]
fn a_head_that_ends_where_the_memory_begins_leaves_no_gap() {
    let json = serde_json::to_vec(&identity()).unwrap().len();
    let file = tempfile().unwrap();
    seal(&file, &identity(), &vec![1; (2 << 20) - header::LEN - json], &memory()).unwrap();
    assert_eq!(check(&file).unwrap().memory_offset, 2 * MIB);
    xor(&file, 2 * MIB - 1, 1);
    assert!(matches!(check(&file), Err(OpenError::Head { .. })));
}

#[test]
fn what_is_too_large_or_of_another_size_is_not_sealed() {
    let file = tempfile().unwrap();
    let state = vec![0; (16 << 20) + 1];
    let long = Identity { cpu: "x".repeat(1 << 20), ..identity() };
    let other = Identity { memory_mib: 3, ..identity() };
    let errors = [
        seal(&file, &identity(), &state, &memory()),
        seal(&file, &long, STATE, &memory()),
        seal(&file, &other, STATE, &memory()),
    ];
    let texts = errors.map(|error| error.unwrap_err().to_string());
    assert_eq!(texts[0], "a state of 16777217 bytes is too large; 16777216 are possible");
    assert!(texts[1].starts_with("an identity of") && texts[2].contains("3 MiB"), "{texts:?}");
}

#[test]
fn regions_that_are_no_whole_pages_are_not_sealed() {
    let ragged = [(GuestAddress(0), 100), (GuestAddress(4096), (2 << 20) - 100)];
    let memory = GuestMemory::from_ranges(&ragged).unwrap();
    let error = seal(&tempfile().unwrap(), &identity(), STATE, &memory).unwrap_err();
    assert!(matches!(error, SealError::Region { len: 100 }), "{error}");
}

#[test]
fn a_file_that_is_none_is_told_from_one_that_is_cut_off() {
    let file = tempfile().unwrap();
    assert!(matches!(open(&file), Err(OpenError::CutShort { have: 0, expected: 100 })));
    file.write_all_at(b"\x7fELF", 0).unwrap();
    assert!(matches!(open(&file), Err(OpenError::NotOurs)));
    file.write_all_at(b"isopodEV\x01", 0).unwrap();
    assert!(matches!(open(&file), Err(OpenError::CutShort { have: 9, expected: 100 })));
}

#[test]
fn each_thing_that_is_wrong_has_its_name() {
    let refused = |change: &dyn Fn(&File)| {
        let (file, _) = sealed();
        change(&file);
        check(&file).unwrap_err()
    };
    assert_eq!(refused(&|file| xor(file, 8, 3)).to_string(), "it has version 2; this reads version 1");
    assert!(matches!(refused(&|file| xor(file, 15, 1)), OpenError::TooLarge { what: "an identity", .. }));
    assert!(matches!(refused(&|file| xor(file, 19, 2)), OpenError::TooLarge { what: "a state", .. }));
    assert!(matches!(refused(&|file| xor(file, 34, 1)), OpenError::TooLarge { what: "a memory", .. }));
    assert!(matches!(refused(&|file| xor(file, 21, 0x10)), OpenError::Misplaced { .. }));
    assert!(matches!(refused(&|file| xor(file, 28, 1)), OpenError::Misplaced { .. }));
    assert!(matches!(refused(&|file| xor(file, 31, 1)), OpenError::CutShort { .. }));
    assert!(matches!(refused(&|file| xor(file, 120, 1)), OpenError::Head { .. }));
    assert!(matches!(refused(&|file| xor(file, 68, 1)), OpenError::Head { .. }));
    assert!(matches!(refused(&|file| xor(file, 4095, 1)), OpenError::Head { .. }));
    assert!(matches!(refused(&|file| xor(file, 4096, 1)), OpenError::Memory { .. }));
    assert!(matches!(refused(&|file| xor(file, 4 * MIB - 1, 1)), OpenError::Memory { .. }));
}

#[test]
fn a_false_head_with_the_right_digest_is_refused_for_what_it_says() {
    let refused = |at, bytes: &[u8]| {
        let (file, _) = sealed();
        forge(&file, at, bytes);
        check(&file).unwrap_err()
    };
    assert!(matches!(refused(100, b"["), OpenError::Identity(_)));
    assert!(matches!(refused(12, &[0; 4]), OpenError::Identity(_)));
    let error = refused(28, &MIB.to_le_bytes());
    assert!(matches!(error, OpenError::TooLong { .. }), "{error}");
    assert!(matches!(refused(20, &u64::MAX.to_le_bytes()), OpenError::Misplaced { .. }));
    assert!(matches!(refused(36, &[0; 32]), OpenError::Memory { .. }));
}

#[test]
fn the_memorys_length_is_the_identitys() {
    let (file, _) = sealed();
    forge(&file, 28, &MIB.to_le_bytes());
    file.set_len(3 * MIB).unwrap();
    assert!(matches!(open(&file), Err(OpenError::MemoryLen { mib: 2, len: MIB })));
}

#[test]
fn an_envelope_is_not_verified_against_a_file_that_became_shorter() {
    let (file, _) = sealed();
    let envelope = open(&file).unwrap();
    file.set_len(3 * MIB).unwrap();
    assert!(matches!(envelope.verify_memory(&file), Err(OpenError::CutShort { .. })));
}

/// One damage in a thousand files, so to speak: each is done to one file, looked at, and undone.
#[test]
fn no_byte_can_be_changed() {
    let (file, _) = sealed();
    let head = 0..PAGE;
    let used = (2 * MIB)..(2 * MIB + 8 * PAGE);
    let places = prop_oneof![0..4 * MIB, head, used, PAGE..2 * MIB];
    let mut runner = TestRunner::new(Config::with_cases(1000));
    let outcome = runner.run(&(places, 1..=u8::MAX), |(at, bits)| {
        xor(&file, at, bits);
        let refused = check(&file).is_err();
        xor(&file, at, bits);
        prop_assert!(refused, "the byte at {} changed by {:#x} was not found", at, bits);
        Ok(())
    });
    outcome.unwrap();
    // What was a hole may be a page of zeros now.
    check(&file).unwrap();
}

#[test]
fn no_byte_can_be_missing_or_too_many() {
    let (file, _) = sealed();
    let original: Vec<u8> = {
        let mut all = vec![0; 4 << 20];
        file.read_exact_at(&mut all, 0).unwrap();
        all
    };
    let mut runner = TestRunner::new(Config::with_cases(200));
    let lengths = prop_oneof![0..4 * MIB, 0..2 * PAGE, 4 * MIB + 1..6 * MIB];
    let outcome = runner.run(&lengths, |len| {
        file.set_len(len).unwrap();
        let refused = matches!(check(&file), Err(OpenError::CutShort { .. } | OpenError::TooLong { .. }));
        file.set_len(4 * MIB).unwrap();
        file.write_all_at(&original, 0).unwrap();
        prop_assert!(refused, "{} bytes were taken for whole", len);
        Ok(())
    });
    outcome.unwrap();
    check(&file).unwrap();
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), ours in any::<bool>()) {
        let file = tempfile().unwrap();
        file.write_all_at(&bytes, 0).unwrap();
        if ours {
            file.write_all_at(b"isopodEV\x01\0\0\0", 0).unwrap();
        }
        prop_assert!(check(&file).is_err());
    }
}
