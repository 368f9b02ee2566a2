//! The words of a shared page, wherever they lie.
//!
//! Invariants:
//! 1. Every access is sequentially consistent, as [`SharedPage`] promises.
//!
//! Threads and processes: as many as have the words.

use std::ops::Deref;
use std::sync::atomic::{AtomicU64, Ordering};

use super::super::SharedPage;

/// A [`SharedPage`] over [`SHARED_WORDS`](super::super::SHARED_WORDS) words: mapped ones, or
/// plain memory.
#[derive(Debug)]
pub(in crate::vfs) struct Page<W>(pub(in crate::vfs) W);

impl<W> SharedPage for Page<W>
where
    W: Deref<Target = [AtomicU64]> + Send + Sync,
{
    fn load(&self, index: usize) -> u64 {
        self.0[index].load(Ordering::SeqCst)
    }

    fn store(&self, index: usize, value: u64) {
        self.0[index].store(value, Ordering::SeqCst);
    }

    fn compare_exchange(&self, index: usize, current: u64, new: u64) -> Result<u64, u64> {
        self.0[index].compare_exchange(current, new, Ordering::SeqCst, Ordering::SeqCst)
    }

    fn fetch_add(&self, index: usize, value: u64) -> u64 {
        self.0[index].fetch_add(value, Ordering::SeqCst)
    }
}
