//! The words and bells of a shared page, wherever they lie.
//!
//! Invariants:
//! 1. Every access is sequentially consistent, as [`SharedPage`] promises, but for releases.
//! 2. Nothing is stored into a page that is only to be read; what is asked of it all the same
//!    does nothing.
//!
//! Threads and processes: as many as have the words. One that is killed while it waits leaves
//! nothing behind: the kernel knows who waits.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use super::super::{SHARED_BELLS, SHARED_WORDS, SharedPage};
use super::{host, system};

/// Where words and bells lie.
pub(in crate::vfs) trait Words: Send + Sync {
    /// [`SHARED_WORDS`] of them.
    fn words(&self) -> &[AtomicU64];

    /// [`SHARED_BELLS`] of them.
    fn bells(&self) -> &[AtomicU32];
}

/// Words and bells in plain memory.
#[derive(Debug)]
pub(in crate::vfs) struct PlainWords {
    words: Box<[AtomicU64]>,
    bells: Box<[AtomicU32]>,
}

impl PlainWords {
    /// A page of zeros.
    pub(in crate::vfs) fn new() -> Self {
        Self {
            words: (0..SHARED_WORDS).map(|_| AtomicU64::new(0)).collect(),
            bells: (0..SHARED_BELLS).map(|_| AtomicU32::new(0)).collect(),
        }
    }
}

impl Words for PlainWords {
    fn words(&self) -> &[AtomicU64] {
        &self.words
    }

    fn bells(&self) -> &[AtomicU32] {
        &self.bells
    }
}

/// A [`SharedPage`].
#[derive(Debug)]
pub(in crate::vfs) struct Page<W> {
    words: W,
    is_writable: bool,
}

impl<W: Words> Page<W> {
    /// The page whose words are `words`.
    pub(in crate::vfs) fn new(words: W, is_writable: bool) -> Self {
        Self { words, is_writable }
    }
}

impl<W: Words> SharedPage for Page<W> {
    fn load(&self, index: usize) -> u64 {
        self.words.words()[index].load(Ordering::SeqCst)
    }

    fn store(&self, index: usize, value: u64) {
        if self.is_writable {
            self.words.words()[index].store(value, Ordering::SeqCst);
        }
    }

    fn release(&self, index: usize, value: u64) {
        if self.is_writable {
            self.words.words()[index].store(value, Ordering::Release);
        }
    }

    fn compare_exchange(&self, index: usize, current: u64, new: u64) -> Result<u64, u64> {
        if !self.is_writable {
            return Err(self.load(index));
        }
        let word = &self.words.words()[index];
        word.compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
    }

    fn fetch_add(&self, index: usize, value: u64) -> u64 {
        if !self.is_writable {
            return self.load(index);
        }
        self.words.words()[index].fetch_add(value, Ordering::SeqCst)
    }

    fn rings(&self, bell: usize) -> u32 {
        self.words.bells()[bell].load(Ordering::SeqCst)
    }

    fn ring(&self, bell: usize) {
        if self.is_writable {
            let bell = &self.words.bells()[bell];
            bell.fetch_add(1, Ordering::SeqCst);
            system::wake_all(bell);
        }
    }

    fn wait(&self, bell: usize, rings: u32, deadline: Duration) {
        let left = deadline.saturating_sub(host::monotonic());
        if !left.is_zero() {
            system::wait_while(&self.words.bells()[bell], rings, left);
        }
    }
}
