// SPDX-License-Identifier: Apache-2.0
//! The files of templates and snapshots: what was sealed opens as it was; what somebody has changed does not; and a head
//! that was forged, digest and all, still promises no more than there is.

use arbitrary::{Arbitrary, Unstructured};
use isopod_vmm::Assist;
use isopod_vmm::envelope::{self, Envelope, Identity, Kind};
use rustix::fs::{MemfdFlags, memfd_create};
use sha2::{Digest, Sha256};
use std::fs::File;
use std::os::unix::fs::FileExt;
use vm_memory::{Bytes, GuestAddress, GuestMemoryMmap};

const MIB: u64 = 1 << 20;
/// Where the head's digest is, and what it is of: all before it, and all behind it to the end of the page.
const DIGEST_AT: usize = 68;
const DIGEST_END: usize = 100;
const PAGE: usize = 4096;

#[derive(Debug, Arbitrary)]
struct Script<'a> {
    state: &'a [u8],
    bytes: Vec<(u32, u8)>,
    then: Then<'a>,
}

#[derive(Debug, Arbitrary)]
enum Then<'a> {
    /// Somewhere in the file.
    Damage {
        at: u32,
        xor: u8,
    },
    Resize {
        len: u32,
    },
    /// In the first page, and the digest made to fit.
    Forge {
        places: Vec<(u16, u8)>,
    },
    /// Another file altogether.
    Replace(&'a [u8]),
}

pub(crate) fn files(data: &[u8]) {
    let Ok(script) = Script::arbitrary(&mut Unstructured::new(data)) else { return };
    let file = File::from(memfd_create("envelope", MemfdFlags::CLOEXEC).expect("a file of our own"));
    let memory = GuestMemoryMmap::<()>::from_ranges(&[(GuestAddress(0), 1 << 20)]).expect("a MiB");
    for (at, byte) in &script.bytes {
        memory.write_obj(*byte, GuestAddress(u64::from(*at) % MIB)).expect("inside");
    }
    envelope::seal(&file, &identity(), script.state, &memory).expect("sealed");
    let sealed = check(&file).expect("what was sealed opens");
    assert_eq!((sealed.identity, &sealed.state[..]), (identity(), script.state));

    let len = file.metadata().expect("ours").len();
    match script.then {
        Then::Damage { at, xor } => {
            let at = u64::from(at) % len;
            let mut byte = [0];
            file.read_exact_at(&mut byte, at).expect("inside");
            file.write_all_at(&[byte[0] ^ xor], at).expect("ours");
            assert_eq!(check(&file).is_some(), xor == 0, "byte {at}");
        }
        Then::Resize { len: new } => {
            let new = u64::from(new) % (2 * len);
            file.set_len(new).expect("ours");
            assert_eq!(check(&file).is_some(), new == len, "{new} bytes");
        }
        Then::Forge { places } => forge(&file, &places),
        Then::Replace(bytes) => {
            file.set_len(0).and_then(|()| file.write_all_at(bytes, 0)).expect("ours");
            assert!(check(&file).is_none());
        }
    }
}

fn forge(file: &File, places: &[(u16, u8)]) {
    let mut head = [0; PAGE];
    file.read_exact_at(&mut head, 0).expect("inside");
    for (at, byte) in places {
        head[usize::from(*at) % PAGE] = *byte;
    }
    let digest = Sha256::new().chain_update(&head[..DIGEST_AT]).chain_update(&head[DIGEST_END..]).finalize();
    head[DIGEST_AT..DIGEST_END].copy_from_slice(&digest);
    file.write_all_at(&head, 0).expect("ours");
    if let Some(opened) = check(file) {
        assert_eq!(opened.memory_len, u64::from(opened.identity.memory_mib) * MIB);
        assert_eq!(opened.memory_offset % (2 * MIB), 0);
        assert_eq!(opened.memory_offset + opened.memory_len, file.metadata().expect("ours").len());
    }
}

fn check(file: &File) -> Option<Envelope> {
    let envelope = envelope::open(file).ok()?;
    envelope.verify_memory(file).ok()?;
    Some(envelope)
}

fn identity() -> Identity {
    Identity {
        kind: Kind::Template,
        isopod: "1".into(),
        kernel: "k".into(),
        agent: "a".into(),
        cpu: "c".into(),
        vcpus: 1,
        memory_mib: 1,
        assist: Assist::None,
        devices: Vec::new(),
        extra: serde_json::Value::Null,
    }
}
