//! Hints of format version 1, written from the specification alone: the tests' own encoder.

use super::format::{crc, place_crc, put_u32, put_u64, u32_at, u64_at};

/// The length of the footer, and of what every file begins with.
pub(crate) const FOOTER: usize = 72;
pub(crate) const PREFIX: usize = 16;

/// A hint before its key, and a block in the index before its first key.
const HINT: usize = 24;
const BLOCK: usize = 20;

/// The bit of a hint's value length that says that there is no value.
pub(crate) const TOMBSTONE: u32 = 1 << 31;

/// A hint, as it stands in its block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Hint {
    pub(crate) key: Vec<u8>,
    pub(crate) sequence: u64,
    pub(crate) offset: u32,
    pub(crate) epoch: u32,
    pub(crate) value: u32,
}

/// Where the index of a file begins, and where its footer does.
pub(crate) fn ends(file: &[u8]) -> (usize, usize) {
    let footer = file.len() - FOOTER;
    (u64_at(file, footer + 40) as usize, footer)
}

/// All hints of a file.
pub(crate) fn hints(file: &[u8]) -> Vec<Hint> {
    let (index, _) = ends(file);
    let mut found = Vec::new();
    let mut at = PREFIX;
    while at < index {
        let key = at + HINT;
        let end = key + u32_at(file, at + 20) as usize;
        found.push(Hint {
            key: file[key..end].to_vec(),
            sequence: u64_at(file, at),
            offset: u32_at(file, at + 8),
            epoch: u32_at(file, at + 12),
            value: u32_at(file, at + 16),
        });
        at = end;
    }
    found
}

/// Where the entries of a file's index begin.
pub(crate) fn blocks(file: &[u8]) -> Vec<usize> {
    let (mut at, footer) = ends(file);
    let mut found = Vec::new();
    while at < footer {
        found.push(at);
        at += BLOCK + u32_at(file, at + 16) as usize;
    }
    found
}

/// The file of these hints, all in one block, of the segment that `file` is of. All that can be right
/// is right.
pub(crate) fn with_hints(file: &[u8], hints: &[Hint]) -> Vec<u8> {
    let mut out = file[..PREFIX].to_vec();
    for hint in hints {
        out.extend_from_slice(&hint.sequence.to_le_bytes());
        out.extend_from_slice(&hint.offset.to_le_bytes());
        out.extend_from_slice(&hint.epoch.to_le_bytes());
        out.extend_from_slice(&hint.value.to_le_bytes());
        out.extend_from_slice(&(hint.key.len() as u32).to_le_bytes());
        out.extend_from_slice(&hint.key);
    }
    let index = out.len();
    if let Some(first) = hints.first() {
        out.extend_from_slice(&(PREFIX as u64).to_le_bytes());
        out.extend_from_slice(&((index - PREFIX) as u32).to_le_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&(first.key.len() as u32).to_le_bytes());
        out.extend_from_slice(&first.key);
    }
    let footer = out.len();
    out.extend_from_slice(&file[file.len() - FOOTER..]);
    let is_tombstone = |hint: &&Hint| hint.value & TOMBSTONE != 0;
    let entry = |hint: &Hint| 12 + hint.key.len() as u64 + u64::from(hint.value & !TOMBSTONE);
    put_u64(&mut out, footer + 32, hints.len() as u64);
    put_u64(&mut out, footer + 40, index as u64);
    put_u64(&mut out, footer + 52, hints.iter().map(entry).sum());
    let tombstones = hints.iter().filter(is_tombstone).count();
    put_u64(&mut out, footer + 60, tombstones as u64);
    seal(&mut out);
    out
}

/// Makes all checksums of a file right, whatever it says.
pub(crate) fn seal(file: &mut [u8]) {
    let prefix = crc(0, &file[..12]);
    put_u32(file, 12, prefix);
    let (index, footer) = ends(file);
    let (store, segment) = (
        file[footer..footer + 16].to_vec(),
        u32_at(file, footer + 16),
    );
    if index <= footer {
        let mut at = index;
        while at + BLOCK <= footer {
            let begin = u64_at(file, at) as usize;
            let end = begin.saturating_add(u32_at(file, at + 8) as usize);
            if end <= footer {
                let sum = place_crc(&store, segment, begin, &file[begin..end]);
                put_u32(file, at + 12, sum);
            }
            at = at
                .saturating_add(BLOCK)
                .saturating_add(u32_at(file, at + 16) as usize);
        }
        let sum = place_crc(&store, segment, index, &file[index..footer]);
        put_u32(file, footer + 48, sum);
    }
    seal_footer(file);
}

/// Makes the checksum of the footer right.
pub(crate) fn seal_footer(file: &mut [u8]) {
    let footer = file.len() - FOOTER;
    let sum = crc(0, &file[footer..footer + FOOTER - 4]);
    put_u32(file, footer + FOOTER - 4, sum);
}
