//! The bytes of one simulated file, shared between the many disks that hold nearly the same.
//!
//! The disk and the crash states come in; a crash state of a large file costs the few chunks in
//! which it differs.
//!
//! Invariants:
//! 1. A missing chunk is all zeros.
//! 2. Bytes at and beyond the length are zero, but between [`Content::write`] and the
//!    [`Content::set_len`] that must follow a write beyond the length.
//!
//! Threads: plain values; shared chunks are never changed in place.

use std::sync::Arc;

use super::random::mix;

/// The size of a shared chunk.
const CHUNK_BYTES: usize = 4096;

type Chunk = [u8; CHUNK_BYTES];

/// A file's bytes; a clone shares all chunks.
#[derive(Debug, Clone, Default)]
pub(super) struct Content {
    len_bytes: u64,
    chunks: Vec<Option<Arc<Chunk>>>,
}

/// A file offset as an index into memory.
fn index(offset: u64) -> usize {
    usize::try_from(offset).expect("OK because simulated files fit in memory")
}

impl Content {
    /// The file's length.
    pub(super) fn len(&self) -> u64 {
        self.len_bytes
    }

    /// Cuts the file, or grows it with zeros.
    pub(super) fn set_len(&mut self, len_bytes: u64) {
        self.len_bytes = len_bytes;
        let len = index(len_bytes);
        self.chunks.truncate(len.div_ceil(CHUNK_BYTES));
        let within = len % CHUNK_BYTES;
        if let Some(Some(chunk)) = self.chunks.get_mut(len / CHUNK_BYTES)
            && chunk[within..].iter().any(|&byte| byte != 0)
        {
            Arc::make_mut(chunk)[within..].fill(0);
        }
    }

    /// Puts `bytes` at `offset`; the length stays as it is.
    pub(super) fn write(&mut self, offset: u64, bytes: &[u8]) {
        for_each_piece(index(offset), bytes.len(), |number, within, from, len| {
            let bytes = &bytes[from..from + len];
            if self.chunks.len() <= number {
                self.chunks.resize(number + 1, None);
            }
            let chunk = self.chunks[number].get_or_insert_with(|| Arc::new([0; CHUNK_BYTES]));
            Arc::make_mut(chunk)[within..within + len].copy_from_slice(bytes);
        });
    }

    /// Reads into `out`; gives how many bytes there were.
    pub(super) fn read(&self, offset: u64, out: &mut [u8]) -> usize {
        let there = index(self.len_bytes.saturating_sub(offset)).min(out.len());
        for_each_piece(index(offset), there, |number, within, from, len| {
            let out = &mut out[from..from + len];
            match self.chunks.get(number) {
                Some(Some(chunk)) => out.copy_from_slice(&chunk[within..within + len]),
                Some(None) | None => out.fill(0),
            }
        });
        there
    }

    /// All bytes.
    pub(super) fn to_vec(&self) -> Vec<u8> {
        let mut bytes = vec![0; index(self.len_bytes)];
        self.read(0, &mut bytes);
        bytes
    }

    /// The 64-bit word at `offset`, which must be a multiple of 8; 0 beyond the end.
    pub(super) fn word(&self, offset: u64) -> u64 {
        let mut bytes = [0; 8];
        self.read(offset, &mut bytes);
        u64::from_le_bytes(bytes)
    }

    /// A hash of how this differs from `base`: 0 if it does not, and equal for equal contents.
    pub(super) fn hash_against(&self, base: &Self) -> u64 {
        let mut hash = if self.len_bytes == base.len_bytes {
            0
        } else {
            mix(self.len_bytes + 1)
        };
        for number in 0..self.chunks.len().max(base.chunks.len()) {
            let chunk = self.chunks.get(number).and_then(Option::as_ref);
            let other = base.chunks.get(number).and_then(Option::as_ref);
            if !same(chunk, other) {
                hash = mix(hash ^ (number as u64 + 1));
                hash = hash_bytes(hash, chunk.map_or(&[0; CHUNK_BYTES], |chunk| &**chunk));
            }
        }
        hash
    }
}

/// Whether two chunks hold the same bytes, told by address where possible.
fn same(one: Option<&Arc<Chunk>>, other: Option<&Arc<Chunk>>) -> bool {
    match (one, other) {
        (None, None) => true,
        (Some(one), Some(other)) => Arc::ptr_eq(one, other) || one == other,
        (Some(chunk), None) | (None, Some(chunk)) => chunk.iter().all(|&byte| byte == 0),
    }
}

/// Folds `bytes` into `hash`, eight at a time.
pub(super) fn hash_bytes(hash: u64, bytes: &[u8]) -> u64 {
    let (words, rest) = bytes.as_chunks::<8>();
    let mut hash = hash ^ bytes.len() as u64;
    for word in words {
        hash = (hash ^ u64::from_le_bytes(*word)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        hash ^= hash >> 29;
    }
    for &byte in rest {
        hash = (hash ^ u64::from(byte)).wrapping_mul(0x9E37_79B9_7F4A_7C15);
        hash ^= hash >> 29;
    }
    mix(hash)
}

/// Cuts a range at chunk borders; `piece` gets chunk number, offset within the chunk, offset
/// within the range, and length.
fn for_each_piece(
    offset: usize,
    len_bytes: usize,
    mut piece: impl FnMut(usize, usize, usize, usize),
) {
    let mut done = 0;
    while done < len_bytes {
        let at = offset + done;
        let within = at % CHUNK_BYTES;
        let len = (CHUNK_BYTES - within).min(len_bytes - done);
        piece(at / CHUNK_BYTES, within, done, len);
        done += len;
    }
}
