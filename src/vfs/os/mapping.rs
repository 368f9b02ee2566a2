//! Mapped memory: the first of two addresses of `unsafe`.
//!
//! [`FileMapping`] is the read-only view of a segment, [`WriteWindow`] the part of one that is
//! being written, [`PageMapping`] the shared words of a store. All map the file shared, so what
//! any process writes is seen without a further call.
//!
//! Invariants:
//! 1. A reference into a mapping is made only for bytes below a length the file has had, and
//!    files are never shrunk (see the room's sign): there is always a page behind it.
//! 2. A reference to plain bytes is made only for the range that is asked for, never for the
//!    whole mapping: other parts of the file may be written at that moment.
//! 3. The words of a page are only ever reached as atomics.
//! 4. A window is stored to, never read from, and only where space is reserved: a page of it
//!    that the kernel has no room for would end the process.
//!
//! Threads and processes: mappings are shared by all threads, and inherited by a forked child.
//!
//! What cannot be kept by this process alone: a file that somebody outside shortens while it is
//! mapped ends the process with a SIGBUS when the lost part is read, or written; so does a disk
//! that fails when a page is needed from it.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU32, AtomicU64};

use memmap2::{MmapOptions, MmapRaw};

use super::super::{SHARED_BELLS, SHARED_WORDS};
use super::page::Words;

/// A file mapped for reading, possibly further than it reaches yet.
#[derive(Debug)]
pub(super) struct FileMapping(MmapRaw);

impl FileMapping {
    /// Maps the first `len_bytes` of `file`, which may end before; no page is touched.
    ///
    /// # Errors
    /// What the machine says: no address space, too many mappings, a file system without them.
    pub(super) fn new(file: &File, len_bytes: usize) -> io::Result<Self> {
        MmapOptions::new()
            .len(len_bytes)
            .map_raw_read_only(file)
            .map(Self)
    }

    /// The bytes from `start` to `end`, if they are mapped.
    ///
    /// `file_len_bytes` is a length that the kernel told or granted for this very file; beyond it
    /// nothing is given. Nobody may change the bytes of the range as long as they are borrowed:
    /// that is the duty of the caller of [`VfsFile::view`](super::super::VfsFile::view).
    pub(super) fn slice(&self, start: u64, end: u64, file_len_bytes: u64) -> Option<&[u8]> {
        let mapped_start = usize::try_from(start).ok()?;
        let mapped_end = usize::try_from(end).ok()?;
        if mapped_start > mapped_end || mapped_end > self.0.len() || end > file_len_bytes {
            return None;
        }
        // SAFETY: the range lies within the mapping, which lives as long as `self`, is readable
        // and at most isize::MAX bytes long (memmap2 refuses more). Its pages are backed, as it
        // lies within the file (invariant 1). Nobody writes the bytes while they are borrowed: the
        // only writes to a file go through `write_at` of this and other processes of the
        // store, and callers of `view` ask only for bytes that no writer changes any more; files
        // mapped here are never emptied (`OpenMode::CreateEmpty` is for names nobody has open).
        let bytes = unsafe {
            std::slice::from_raw_parts(self.0.as_ptr().add(mapped_start), mapped_end - mapped_start)
        };
        Some(bytes)
    }
}

/// The part of a file that is being written, mapped for that alone.
///
/// It is no larger than it has to be, so that a wild store of somebody else's hits little.
#[derive(Debug)]
pub(super) struct WriteWindow {
    mapping: MmapRaw,
    /// Where in the file it begins.
    start: u64,
}

impl WriteWindow {
    /// Maps `file`, which is open for writing, from `from` up to `to`; the start is rounded down
    /// to a page.
    ///
    /// The space up to `to` is reserved: no store into it will find the disk full.
    ///
    /// # Errors
    /// What the machine says.
    pub(super) fn new(file: &File, from: u64, to: u64) -> io::Result<Self> {
        /// A multiple of the page size on every machine.
        const ALIGN: u64 = 64 << 10;
        let start = from - from % ALIGN;
        let len = to
            .checked_sub(start)
            .and_then(|len| usize::try_from(len).ok())
            .filter(|&len| len > 0)
            .ok_or(io::ErrorKind::InvalidInput)?;
        let mapping = MmapOptions::new().offset(start).len(len).map_raw(file)?;
        Ok(Self { mapping, start })
    }

    /// Stores `bytes` at `offset` of the file; false, and nothing is stored, if they do not lie
    /// within the window.
    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> bool {
        let Some(at) = offset
            .checked_sub(self.start)
            .and_then(|at| usize::try_from(at).ok())
        else {
            return false;
        };
        let room = self.mapping.len().checked_sub(at);
        if room.is_none_or(|room| room < bytes.len()) {
            return false;
        }
        // SAFETY: the target lies within the mapping, which is writable and lives as long as
        // `self`; its pages are backed, as `new` was told that their space is reserved and files
        // are never shrunk. `bytes` is memory of Rust's, so it cannot overlap the mapping, from
        // which no reference is ever made. References into the same bytes of the file by other
        // mappings do not exist: `view` is asked only for bytes that no writer changes any more.
        unsafe {
            std::ptr::copy_nonoverlapping(
                bytes.as_ptr(),
                self.mapping.as_mut_ptr().add(at),
                bytes.len(),
            );
        }
        true
    }
}

/// The first page of a file as shared words and bells.
#[derive(Debug)]
pub(super) struct PageMapping(MmapRaw);

impl PageMapping {
    /// How long a file must be to be mapped as a page.
    pub(super) const LEN_BYTES: usize =
        SHARED_WORDS * size_of::<AtomicU64>() + SHARED_BELLS * size_of::<AtomicU32>();

    /// Maps the words of `file`, which is [`Self::LEN_BYTES`] long at least; to change them too if
    /// `is_writable`.
    ///
    /// # Errors
    /// [`io::ErrorKind::UnexpectedEof`] if the file is too short; what the machine says.
    pub(super) fn new(file: &File, is_writable: bool) -> io::Result<Self> {
        if file.metadata()?.len() < Self::LEN_BYTES as u64 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let mut options = MmapOptions::new();
        options.len(Self::LEN_BYTES);
        let mapping = if is_writable {
            options.map_raw(file)
        } else {
            options.map_raw_read_only(file)
        };
        mapping.map(Self)
    }
}

impl Words for PageMapping {
    #[expect(clippy::cast_ptr_alignment, reason = "mappings begin at a page")]
    fn words(&self) -> &[AtomicU64] {
        // SAFETY: the mapping is LEN_BYTES long and readable, and begins at a multiple of the page
        // size, so of eight; it lives as long as `self`. Any bytes are valid words. This process
        // reaches them as atomics only, and so do all others that hold the store: they run this
        // code on the same page of memory. The page is backed: `new` found the file long enough,
        // and nobody shrinks it. Where it is mapped for reading alone only loads are made: that is
        // the duty of `page::Page`, which refuses all others.
        unsafe { std::slice::from_raw_parts(self.0.as_mut_ptr().cast::<AtomicU64>(), SHARED_WORDS) }
    }

    #[expect(clippy::cast_ptr_alignment, reason = "mappings begin at a page")]
    fn bells(&self) -> &[AtomicU32] {
        const START: usize = SHARED_WORDS * size_of::<AtomicU64>();
        // SAFETY: as above; the bells lie behind the words, at a multiple of eight, and end where
        // the mapping does. No byte is reached both as a word and as a bell.
        unsafe {
            let start = self.0.as_mut_ptr().add(START);
            std::slice::from_raw_parts(start.cast::<AtomicU32>(), SHARED_BELLS)
        }
    }
}
