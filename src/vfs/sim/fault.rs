//! Failures that a test plans, and lies that it plants.
//!
//! A test arms one [`Fault`] for the n-th fallible call of a world, or plants bugs that every
//! suite must notice: a tester that lets a [`Plant`] pass tests nothing.
//!
//! Invariants:
//! 1. A planted call returns `Ok`, does nothing, and is not in the journal.
//!
//! Threads: plain values.

use std::collections::BTreeSet;
use std::io;

/// What a failing call does before it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultEffect {
    /// Nothing. A failing sync of a file makes a random part of the pending changes durable and
    /// marks the rest clean: no later sync brings them to the disk.
    Clean,
    /// All it was asked for, as far as it changes files or names.
    Done,
    /// A part of the bytes or of the growth; where that has no meaning, as [`FaultEffect::Clean`].
    Half,
    /// Nothing, and the calling process dies of it.
    Kill,
}

/// The error a failing call gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultError {
    /// An error of this kind.
    Kind(io::ErrorKind),
    /// The operating system's error of this number.
    Os(i32),
}

/// A failure to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What the call does before it fails.
    pub effect: FaultEffect,
    /// The error it gives.
    pub error: FaultError,
    /// Whether every later call fails as well.
    pub lasting: bool,
}

impl Fault {
    /// One failure of a given kind.
    pub fn once(effect: FaultEffect, kind: io::ErrorKind) -> Self {
        Self {
            effect,
            error: FaultError::Kind(kind),
            lasting: false,
        }
    }

    /// Failure of this and every later call.
    pub fn lasting(effect: FaultEffect, kind: io::ErrorKind) -> Self {
        Self {
            lasting: true,
            ..Self::once(effect, kind)
        }
    }

    /// The death of the calling process.
    pub fn kill() -> Self {
        Self::once(FaultEffect::Kill, io::ErrorKind::Other)
    }

    /// The error to give.
    pub(super) fn error(self) -> io::Error {
        match self.error {
            FaultError::Kind(kind) => io::Error::new(kind, "a planned failure"),
            FaultError::Os(number) => io::Error::from_raw_os_error(number),
        }
    }
}

/// A bug to plant: a call that claims success and does nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Plant {
    /// No directory is ever synced.
    NoDirectorySync,
    /// No segment is ever synced.
    NoSegmentSync,
    /// Of the syncs of segments, the first, the third and so on do nothing.
    EveryOtherSegmentSync,
    /// No new manifest is synced before its rename.
    NoManifestSync,
    /// No zeros are ever written to a segment, so torn tails stay.
    NoZeroing,
    /// Every lock is granted to everyone.
    NoLocks,
    /// Of the raises of signals, every eighth does nothing.
    LostRaises,
}

/// Which bugs are planted.
#[derive(Debug, Default)]
pub(super) struct Plants {
    planted: BTreeSet<Plant>,
    segment_sync_count: u64,
    raise_count: u64,
}

impl Plants {
    pub(super) fn plant(&mut self, plant: Plant) {
        self.planted.insert(plant);
    }

    pub(super) fn has(&self, plant: Plant) -> bool {
        self.planted.contains(&plant)
    }

    /// How many syncs of segments there were.
    pub(super) fn segment_sync_count(&self) -> u64 {
        self.segment_sync_count
    }

    /// Counts a sync of the file `name`; gives its number if it is a segment.
    pub(super) fn count_sync(&mut self, name: &str) -> Option<u64> {
        if !is_segment(name) {
            return None;
        }
        self.segment_sync_count += 1;
        Some(self.segment_sync_count)
    }

    /// Whether a raise of a signal does nothing.
    pub(super) fn swallow_raise(&mut self) -> bool {
        self.raise_count += 1;
        self.has(Plant::LostRaises) && self.raise_count.is_multiple_of(8)
    }

    /// Whether a sync of the file `name`, which was counted, does nothing.
    pub(super) fn swallow_sync(&self, name: &str) -> bool {
        if name == "MANIFEST.tmp" {
            return self.has(Plant::NoManifestSync);
        }
        if !is_segment(name) {
            return false;
        }
        let odd = self.segment_sync_count % 2 == 1;
        self.has(Plant::NoSegmentSync) || odd && self.has(Plant::EveryOtherSegmentSync)
    }

    /// Whether a write to the file `name` does nothing.
    pub(super) fn swallow_write(&self, name: &str, bytes: &[u8]) -> bool {
        is_segment(name) && self.has(Plant::NoZeroing) && bytes.iter().all(|&byte| byte == 0)
    }
}

/// Whether a file is a segment of the log.
fn is_segment(name: &str) -> bool {
    name.strip_suffix(".seg").is_some()
}
