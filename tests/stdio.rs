// SPDX-License-Identifier: Apache-2.0
//! Standard streams: apart, binary-clean, and closed when they are done.

use crate::support::Host;
use sha2::{Digest, Sha256};

/// 64 MiB that no compression, text conversion or repetition survives unnoticed.
fn noise(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len / 8).flat_map(|_| next()).collect()
}

#[test]
fn sixty_four_mib_go_through_cat_unchanged_both_ways() {
    let host = Host::new();
    let input = noise(64 << 20);
    let expected = Sha256::digest(&input);
    let run = host.run(&["--entrypoint", "", "demo", "cat"], input).expect(0);
    assert_eq!(run.stdout.len(), 64 << 20);
    assert_eq!(Sha256::digest(&run.stdout), expected);
    assert_eq!(run.stderr, "");
}

#[test]
fn stdout_and_stderr_stay_apart_and_every_byte_value_passes() {
    let host = Host::new();
    let octal: String = (0..=255).map(|byte| format!("\\{byte:03o}")).collect();
    let script = format!("printf '{octal}'; echo talk >&2");
    let run = host.sh(&[], &script).expect(0);
    assert_eq!(run.stdout, (0..=255).collect::<Vec<u8>>());
    assert_eq!(run.stderr, "talk\n");
}

#[test]
fn without_i_there_is_no_input_and_with_it_the_end_arrives() {
    let host = Host::new();
    assert_eq!(host.sh(&[], "wc -c; echo done").expect(0).text(), "0\ndone\n");
    let counted = host.run(&["--entrypoint", "", "demo", "sh", "-c", "wc -c; echo done"], b"12345".to_vec());
    assert_eq!(counted.expect(0).text(), "5\ndone\n");
}
