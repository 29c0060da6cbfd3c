// SPDX-License-Identifier: Apache-2.0
use super::*;
use proptest::prelude::*;

const MEMORY: usize = 0x10000;

fn memory() -> GuestMemory {
    GuestMemory::from_ranges(&[(GuestAddress(0), MEMORY), (GuestAddress(0x10000), MEMORY)]).unwrap()
}

/// A table at 0 with these descriptors, and the chain that begins with the first.
fn walk(memory: &GuestMemory, descriptors: &[Descriptor]) -> Result<Chain, Broken> {
    for (index, descriptor) in (0u64..).zip(descriptors) {
        memory.write_obj(*descriptor, GuestAddress(index * DESCRIPTOR_LEN)).unwrap();
    }
    Chain::walk(memory, Table { addr: GuestAddress(0), size: 64 }, 0, Buffer::default())
}

/// Each buffer with its place, length and whether the device writes it.
fn linked(buffers: &[(u64, u32, bool)]) -> Vec<Descriptor> {
    let last = buffers.len() - 1;
    let each = buffers.iter().enumerate().map(|(index, (addr, len, write))| {
        let flags = u16::from(index < last) | if *write { 2 } else { 0 };
        Descriptor::new(*addr, *len, flags, u16::try_from(index + 1).unwrap())
    });
    each.collect()
}

#[test]
fn a_buffer_may_span_regions_that_touch() {
    let memory = memory();
    let chain = walk(&memory, &linked(&[(0xfff0, 32, true)])).unwrap();
    assert_eq!(chain.write(&memory, 0, &[7; 40]), 32);
    assert_eq!(
        chain.writable_slices(&memory, 0, 32).iter().map(VolatileSlice::len).collect::<Vec<_>>(),
        [16, 16]
    );
    let mut seen = [0; 34];
    memory.read_slice(&mut seen, GuestAddress(0xffef)).unwrap();
    assert_eq!(seen, [&[0][..], &[7; 32], &[0]].concat()[..]);
}

#[test]
fn reads_and_writes_stop_at_the_end_of_their_part() {
    let memory = memory();
    let chain = walk(&memory, &linked(&[(0x1000, 10, false), (0x2000, 20, true)])).unwrap();
    assert_eq!((chain.readable_len(), chain.writable_len()), (10, 20));
    assert_eq!(chain.read(&memory, 4, &mut [0; 100]), 6);
    assert_eq!(chain.read(&memory, 10, &mut [0; 100]), 0);
    assert_eq!(chain.read(&memory, usize::MAX, &mut [0; 100]), 0);
    assert_eq!(chain.write(&memory, 15, &[1; 100]), 5);
    assert_eq!(chain.write(&memory, 20, &[1; 100]), 0);
}

#[test]
fn the_memory_of_a_chain_serves_the_next() {
    let memory = memory();
    let chain = walk(&memory, &linked(&[(0x1000, 10, false), (0x2000, 20, true)])).unwrap();
    let table = Table { addr: GuestAddress(0), size: 64 };
    let again = Chain::walk(&memory, table, 1, chain.into_scratch()).unwrap();
    assert_eq!((again.head(), again.readable_len(), again.writable_len()), (1, 0, 20));
}

proptest! {
    #[test]
    fn what_is_written_anywhere_is_read_there(
        lens in prop::collection::vec(1u32..600, 1..20),
        at in 0usize..8000,
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
    ) {
        let memory = memory();
        let mut place = 0x1000;
        let mut buffers = Vec::new();
        for len in &lens {
            buffers.push((place, *len, true));
            place += u64::from(*len) + 13;
        }
        let writable = walk(&memory, &linked(&buffers)).unwrap();
        let written = writable.write(&memory, at, &bytes);
        let total: u32 = lens.iter().sum();
        prop_assert_eq!(written, bytes.len().min((total as usize).saturating_sub(at)));
        let slices = writable.writable_slices(&memory, at, bytes.len());
        prop_assert_eq!(slices.iter().map(VolatileSlice::len).sum::<usize>(), written);
        for buffer in &mut buffers {
            buffer.2 = false;
        }
        let readable = walk(&memory, &linked(&buffers)).unwrap();
        let mut back = vec![0; bytes.len()];
        prop_assert_eq!(readable.read(&memory, at, &mut back), written);
        prop_assert_eq!(&back[..written], &bytes[..written]);
    }

    /// Whatever a table holds, a walk ends, and a chain's buffers are in memory.
    #[test]
    fn any_table_gives_a_chain_in_memory_or_none(
        table in prop::collection::vec((0u64..0x30000, 0u32..0x9000, 0u16..4, 0u16..9), 1..9)
    ) {
        let memory = memory();
        let each = table.iter().map(|(addr, len, flags, next)| Descriptor::new(*addr, *len, *flags, *next));
        if let Ok(chain) = walk(&memory, &each.collect::<Vec<_>>()) {
            let all = chain.segments.len();
            prop_assert!(all <= 64 && chain.readable <= all);
            for segment in &chain.segments {
                prop_assert!(segment.addr.0 + u64::from(segment.len) <= 0x20000);
            }
            let held: u32 = chain.segments.iter().map(|segment| segment.len).sum();
            prop_assert_eq!(widen(held), chain.readable_len() + chain.writable_len());
        }
    }
}
