//! Mapped memory: segments for reading, and the page of shared words.
//!
//! The proofs lean on three facts. A mapping lives as long as the value that holds it. Nobody
//! touches a mapped byte beyond the file's length, and no file of a store is ever shrunk. Bytes
//! that are handed out as a slice were written before, and no writer changes them again.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};

use memmap2::{MmapOptions, MmapRaw};

use crate::vfs::{SHARED_WORDS, SharedPage};

const PAGE_BYTES: usize = SHARED_WORDS * size_of::<u64>();

/// A file mapped for reading, up to a length that it may not have yet.
pub(super) struct MappedFile {
    map: MmapRaw,
}

impl MappedFile {
    /// Maps the first `len_bytes` of `file`; `None` if the machine refuses.
    pub(super) fn new(file: &File, len_bytes: u64) -> Option<Self> {
        let len = usize::try_from(len_bytes).ok().filter(|&len| len > 0)?;
        let map = MmapOptions::new().len(len).map_raw_read_only(file).ok()?;
        Some(Self { map })
    }

    /// The mapped bytes of a range that lies within the file; `None` beyond the mapping.
    ///
    /// The caller has made sure that the file is at least `offset + len_bytes` long, and, as
    /// [`VfsFile::view`](crate::vfs::VfsFile::view) asks, that no writer changes these bytes.
    pub(super) fn bytes(&self, offset: u64, len_bytes: usize) -> Option<&[u8]> {
        let start = usize::try_from(offset).ok()?;
        let end = start.checked_add(len_bytes)?;
        if end > self.map.len() {
            return None;
        }
        // SAFETY: start..end lies within the mapping (checked above), which lives as long as
        // self; it lies within the file (the caller's part), so touching it raises no SIGBUS as
        // long as nobody shrinks the file, which no code of this crate does; it is initialized
        // memory of the page cache; and it is not written any more (the caller's part), so a
        // shared reference is sound.
        Some(unsafe { std::slice::from_raw_parts(self.map.as_ptr().add(start), len_bytes) })
    }
}

/// The page of shared words, mapped for reading and writing.
pub(super) struct MappedPage {
    map: MmapRaw,
}

impl MappedPage {
    /// Maps the first page of `file`, which is made as long as a page if it is shorter.
    pub(super) fn new(file: &File) -> io::Result<Self> {
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "it is not a regular file",
            ));
        }
        if file.metadata()?.len() < PAGE_BYTES as u64 {
            file.set_len(PAGE_BYTES as u64)?;
        }
        Ok(Self {
            map: MmapOptions::new().len(PAGE_BYTES).map_raw(file)?,
        })
    }

    fn word(&self, index: usize) -> &AtomicU64 {
        assert!(
            index < SHARED_WORDS,
            "OK because indices are constants, asserted where they are"
        );
        #[expect(clippy::cast_ptr_alignment, reason = "a mapping is aligned to a page")]
        let pointer = self.map.as_mut_ptr().cast::<u64>();
        // SAFETY: index is below SHARED_WORDS (checked above), so the word lies within the mapping,
        // which is aligned to a page and lives as long as self; all access to the page, in every
        // process, is atomic.
        unsafe { AtomicU64::from_ptr(pointer.add(index)) }
    }
}

impl SharedPage for MappedPage {
    fn load(&self, index: usize) -> u64 {
        self.word(index).load(Ordering::SeqCst)
    }

    fn store(&self, index: usize, value: u64) {
        self.word(index).store(value, Ordering::SeqCst);
    }

    fn compare_exchange(&self, index: usize, current: u64, new: u64) -> Result<u64, u64> {
        self.word(index)
            .compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
    }

    fn fetch_add(&self, index: usize, value: u64) -> u64 {
        self.word(index).fetch_add(value, Ordering::SeqCst)
    }
}
