// SPDX-License-Identifier: Apache-2.0
//! Sparse files: GNU's old header, and its PAX versions 0.0, 0.1 and 1.0.

use super::header::{BLOCK, Block, number};
use super::pax::{Records, decimal};
use super::{Archive, Entry, TarError};
use crate::limits::PIECES_MAX;
use std::io::Read;

type Pieces = Vec<(u64, u64)>;

/// Finds out whether the entry is sparse, and if so reads its map and sets its true size.
pub(super) fn read<R: Read>(
    archive: &mut Archive<R>,
    entry: &mut Entry,
    block: &Block,
    extended: &Records,
) -> Result<(), TarError> {
    let (pieces, size) = if block.typeflag() == b'S' && block.is_gnu() {
        old(archive, block)?
    } else if extended.get("GNU.sparse.major") == Some(b"1") && extended.get("GNU.sparse.minor") == Some(b"0")
    {
        (from_contents(archive)?, extended.number("GNU.sparse.realsize")?)
    } else if extended.get("GNU.sparse.map").is_some() || extended.get("GNU.sparse.numblocks").is_some() {
        let size = extended.number("GNU.sparse.size")?;
        (from_records(extended)?, size.or(extended.number("GNU.sparse.realsize")?))
    } else if extended.get("GNU.sparse.major").is_some() || block.typeflag() == b'S' {
        return Err(TarError::Sparse("of an unknown version"));
    } else {
        return Ok(());
    };
    if let Some(name) = extended.get("GNU.sparse.name") {
        if name.contains(&0) {
            return Err(TarError::NulInName);
        }
        entry.name = name.to_vec();
    }
    let size = size.ok_or(TarError::Sparse("without a size"))?;
    check(&pieces, size, archive.left())?;
    entry.size = size;
    entry.pieces = Some(pieces);
    Ok(())
}

/// In order, within the file, and as long together as what the archive has of it.
fn check(pieces: &Pieces, size: u64, stored: u64) -> Result<(), TarError> {
    let (mut end, mut sum) = (0u64, 0u64);
    for (offset, len) in pieces {
        if *offset < end {
            return Err(TarError::Sparse("out of order"));
        }
        end =
            offset.checked_add(*len).filter(|end| *end <= size).ok_or(TarError::Sparse("beyond its end"))?;
        sum += len;
    }
    if sum == stored { Ok(()) } else { Err(TarError::Sparse("not as long as its contents")) }
}

fn push(pieces: &mut Pieces, piece: (u64, u64)) -> Result<(), TarError> {
    if pieces.len() >= PIECES_MAX {
        return Err(TarError::Sparse("too long"));
    }
    // Writers mark the end of the file with an empty piece.
    if piece.1 > 0 {
        pieces.push(piece);
    }
    Ok(())
}

/// Type `S`: four pieces in the header, 21 in each block that follows it.
fn old<R: Read>(archive: &mut Archive<R>, block: &Block) -> Result<(Pieces, Option<u64>), TarError> {
    let unsigned = |bytes: &[u8]| {
        let n = number(bytes).and_then(|n| u64::try_from(n).ok());
        n.filter(|n| *n < 1 << 62).ok_or(TarError::Sparse("malformed"))
    };
    let mut pieces = Vec::new();
    let mut take = |bytes: &[u8]| -> Result<(), TarError> {
        for pair in bytes.chunks_exact(24).take_while(|pair| pair[0] != 0) {
            push(&mut pieces, (unsigned(&pair[..12])?, unsigned(&pair[12..])?))?;
        }
        Ok(())
    };
    take(&block.0[386..482])?;
    let mut more = block.0[482] != 0;
    let mut blocks = 0;
    while more {
        let mut block = [0; BLOCK];
        archive.read_exact(&mut block)?;
        take(&block[..504])?;
        more = block[504] != 0;
        blocks += 1;
        if blocks > PIECES_MAX {
            return Err(TarError::Sparse("too long"));
        }
    }
    let size = unsigned(&block.0[483..495])?;
    Ok((pieces, Some(size)))
}

/// 0.0: an offset and a length in turn, each a record; 0.1: all of them in one record.
fn from_records(extended: &Records) -> Result<Pieces, TarError> {
    let malformed = TarError::Sparse("malformed");
    let numbers: Option<Vec<u64>> = match extended.get("GNU.sparse.map") {
        Some(map) => map.split(|b| *b == b',').map(decimal).collect(),
        None => {
            let mut keys = [&b"offset"[..], b"numbytes"].into_iter().cycle();
            let both = extended.all("GNU.sparse.").filter(|(k, _)| matches!(*k, b"offset" | b"numbytes"));
            both.map(|(key, value)| if keys.next() == Some(key) { decimal(value) } else { None }).collect()
        }
    };
    let numbers = numbers.ok_or(malformed)?;
    let mut pieces = Vec::new();
    for pair in numbers.chunks(2) {
        let [offset, len] = pair else {
            return Err(TarError::Sparse("malformed"));
        };
        push(&mut pieces, (*offset, *len))?;
    }
    Ok(pieces)
}

/// 1.0: decimal lines in front of the contents (how many pieces, then each offset and length), to a whole block.
fn from_contents<R: Read>(archive: &mut Archive<R>) -> Result<Pieces, TarError> {
    let mut block = [0; BLOCK];
    let mut used = BLOCK;
    let mut line = |archive: &mut Archive<R>| -> Result<u64, TarError> {
        let mut digits = Vec::new();
        loop {
            if used == BLOCK {
                if archive.read(&mut block)? != BLOCK {
                    return Err(TarError::Sparse("cut short"));
                }
                used = 0;
            }
            used += 1;
            match block[used - 1] {
                b'\n' => return decimal(&digits).ok_or(TarError::Sparse("malformed")),
                digit if digits.len() < 20 => digits.push(digit),
                _ => return Err(TarError::Sparse("malformed")),
            }
        }
    };
    let mut pieces = Vec::new();
    let count = line(archive)?;
    if usize::try_from(count).is_ok_and(|count| count > PIECES_MAX) {
        return Err(TarError::Sparse("too long"));
    }
    for _ in 0..count {
        let piece = (line(archive)?, line(archive)?);
        push(&mut pieces, piece)?;
    }
    Ok(pieces)
}
