//! The record of all that changed a simulated world, in order.
//!
//! The world writes it; `crash` makes crash states of it, `order`
//! checks that the store kept the order its promises rest on.
//!
//! Invariants:
//! 1. Replaying the operations on the base image gives the world's page cache.
//! 2. A call that a planted bug swallowed is not in it: the journal is what the disk was asked.
//!
//! Threads: a journal is a value; a clone shares everything.

use std::path::Path;
use std::sync::Arc;

use super::crash::{CrashPoint, CrashPoints};
use super::disk::Image;
use super::order::{self, OrderRules, Violation};

/// One change of the world, or a mark of the test that drives it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Operation {
    /// A directory was made, durably.
    MakeDirectory {
        /// The directory's inode.
        inode: u64,
        /// Its absolute path.
        path: Arc<Path>,
    },
    /// An empty file was made.
    Create {
        /// The inode of the directory it is in.
        directory: u64,
        /// Its name there.
        name: Arc<str>,
        /// The file's inode.
        inode: u64,
    },
    /// A file got another name.
    Link {
        /// The inode of the directory the name is in.
        directory: u64,
        /// The name there.
        name: Arc<str>,
        /// The file's inode.
        inode: u64,
    },
    /// A file's length changed; new bytes are zero.
    Resize {
        /// The file's inode.
        inode: u64,
        /// The new length.
        len_bytes: u64,
    },
    /// Bytes within a file's length changed.
    Write {
        /// The file's inode.
        inode: u64,
        /// Where the bytes begin.
        offset: u64,
        /// The new bytes.
        bytes: Arc<[u8]>,
    },
    /// A word of a shared page changed.
    PageStore {
        /// The inode of the page's file.
        inode: u64,
        /// Which word.
        index: usize,
        /// Its new value.
        value: u64,
    },
    /// A file was synced.
    Sync {
        /// The file's inode.
        inode: u64,
    },
    /// A sync of a file failed: some of the bytes that were pending are durable, the rest never
    /// will be; its length is durable or still pending.
    SyncFailed {
        /// The file's inode.
        inode: u64,
        /// Decides what was lost.
        seed: u64,
        /// Whether a length that is not durable never will be, either.
        forgets_growth: bool,
    },
    /// A file got another name in its directory.
    Rename {
        /// The directory's inode.
        directory: u64,
        /// The old name.
        from: Arc<str>,
        /// The new name.
        to: Arc<str>,
    },
    /// A name went.
    Unlink {
        /// The directory's inode.
        directory: u64,
        /// The name.
        name: Arc<str>,
    },
    /// A directory was synced.
    SyncDirectory {
        /// The directory's inode.
        directory: u64,
    },
    /// The test began the commit with this number.
    Begin(u64),
    /// The store told the test that a commit is done.
    Acknowledge {
        /// The commit's number.
        mark: u64,
        /// Whether it promised to survive a power cut.
        durable: bool,
    },
}

/// All operations of a world since the image it started from.
#[derive(Debug, Clone)]
pub struct Journal {
    pub(super) base: Arc<Image>,
    pub(super) operations: Arc<Vec<Operation>>,
}

impl Journal {
    /// A journal of nothing yet.
    pub(super) fn new(base: Image) -> Self {
        Self {
            base: Arc::new(base),
            operations: Arc::default(),
        }
    }

    /// Adds an operation.
    pub(super) fn push(&mut self, operation: Operation) {
        Arc::make_mut(&mut self.operations).push(operation);
    }

    /// The disk before the first operation.
    pub fn base(&self) -> &Image {
        &self.base
    }

    /// The operations, in order.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// The journal as it was after `position` operations.
    #[must_use]
    pub fn prefix(&self, position: usize) -> Self {
        let position = position.min(self.operations.len());
        let operations = Arc::new(self.operations[..position].to_vec());
        Self {
            base: self.base.clone(),
            operations,
        }
    }

    /// The points at which a power cut leaves something new, with up to `samples` images each
    /// where there are too many pending units to try all subsets.
    ///
    /// Left out are the position before an acknowledgement and the one after a begin, whose
    /// neighbours allow the same images and ask more of them, and those after a
    /// [`Operation::PageStore`], since every image chooses the shared words by chance anyway.
    pub fn crash_points(&self, samples: usize, seed: u64) -> CrashPoints {
        CrashPoints::new(self, samples, seed, false)
    }

    /// Every position from 0 to the number of operations: where processes may be killed.
    pub fn kill_points(&self, samples: usize, seed: u64) -> CrashPoints {
        CrashPoints::new(self, samples, seed, true)
    }

    /// The point after all operations.
    pub fn last_point(&self, samples: usize, seed: u64) -> CrashPoint {
        CrashPoint::last(self, samples, seed)
    }

    /// Where the store broke the order that its promises rest on.
    pub fn violations(&self, rules: &OrderRules) -> Vec<Violation> {
        order::check(self, rules)
    }
}
