//! The bytes of a file in memory: chunks of a fixed size.
//!
//! Growing never copies a byte, and a chunk nobody wrote to takes no memory.
//!
//! Invariants:
//! 1. The bytes at and beyond the length are zero.
//!
//! Threads and processes: plain data, guarded by the file.

use std::io;

/// The size of a chunk.
const CHUNK_BYTES: usize = 64 * 1024;

/// What is in a file.
#[derive(Debug, Default)]
pub(super) struct Content {
    pub(super) len_bytes: u64,
    /// `None` is a chunk of zeros, and so is what lies beyond the last one.
    chunks: Vec<Option<Box<[u8]>>>,
}

impl Content {
    /// Makes the file at least `len_bytes` long.
    pub(super) fn grow(&mut self, len_bytes: u64) {
        self.len_bytes = self.len_bytes.max(len_bytes);
    }

    /// Copies bytes below the length into `out`.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`] beyond what memory can address.
    pub(super) fn copy_to(&self, mut offset: u64, mut out: &mut [u8]) -> io::Result<()> {
        while !out.is_empty() {
            let (number, start) = place(offset)?;
            let (piece, rest) = out.split_at_mut(out.len().min(CHUNK_BYTES - start));
            match self.chunks.get(number) {
                Some(Some(chunk)) => piece.copy_from_slice(&chunk[start..start + piece.len()]),
                Some(None) | None => piece.fill(0),
            }
            offset += piece.len() as u64;
            out = rest;
        }
        Ok(())
    }

    /// Writes the part of `bytes` that lies in the first chunk they touch; gives its length.
    ///
    /// # Errors
    /// [`io::ErrorKind::FileTooLarge`] beyond what memory can address,
    /// [`io::ErrorKind::OutOfMemory`].
    pub(super) fn write_piece(&mut self, offset: u64, bytes: &[u8]) -> io::Result<usize> {
        let (number, start) = place(offset)?;
        let piece = &bytes[..bytes.len().min(CHUNK_BYTES - start)];
        if number >= self.chunks.len() {
            self.chunks.try_reserve(number + 1 - self.chunks.len())?;
            self.chunks.resize(number + 1, None);
        }
        let chunk =
            self.chunks[number].get_or_insert_with(|| vec![0; CHUNK_BYTES].into_boxed_slice());
        chunk[start..start + piece.len()].copy_from_slice(piece);
        self.grow(offset + piece.len() as u64);
        Ok(piece.len())
    }
}

/// The chunk an offset lies in, and where in it.
fn place(offset: u64) -> io::Result<(usize, usize)> {
    let offset = usize::try_from(offset).map_err(|_| io::ErrorKind::FileTooLarge)?;
    Ok((offset / CHUNK_BYTES, offset % CHUNK_BYTES))
}
