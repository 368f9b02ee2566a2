//! Failures that a test plans, and lies that it plants.
//!
//! A test arms a [`Fault`], or several, for the n-th fallible call of a world, or of one kind of
//! [`Call`]; or it plants bugs that every suite must notice: a tester that lets a [`Plant`] pass
//! tests nothing.
//!
//! Invariants:
//! 1. A planted call returns `Ok`; but for those that hide planned failures it does nothing, and
//!    is not in the journal.
//!
//! Threads: plain values.

use std::collections::{BTreeMap, BTreeSet};
use std::io;

use super::call::Call;

/// What a failing call does before it fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultEffect {
    /// Nothing. A failing sync of a file makes a random part of the pending changes durable and
    /// marks the rest clean: no later sync brings them to the disk. Its length is not forgotten.
    Clean,
    /// All it was asked for, as far as it changes files or names.
    Done,
    /// A part of the bytes or of the growth; where that has no meaning, as [`FaultEffect::Clean`].
    Half,
    /// Nothing, and the calling process dies of it.
    Kill,
    /// A part of the bytes of a write or of the growth, and the calling process dies of it.
    KillHalf,
}

/// The error a failing call gives.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultError {
    /// An error of this kind.
    Kind(io::ErrorKind),
    /// The operating system's error of this number.
    Os(i32),
}

/// Which calls a fault counts, and which later ones it hits if it lasts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultScope {
    /// All.
    Every,
    /// Counts all, and then lasts for calls of the kind that it hit first.
    SameKind,
    /// Counts and hits calls of this kind alone.
    Only(Call),
}

/// A failure to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fault {
    /// What the call does before it fails.
    pub effect: FaultEffect,
    /// The error it gives.
    pub error: FaultError,
    /// Whether later calls fail as well.
    pub lasting: bool,
    /// Which calls count.
    pub scope: FaultScope,
}

impl Fault {
    /// One failure of a given kind.
    pub fn once(effect: FaultEffect, kind: io::ErrorKind) -> Self {
        Self {
            effect,
            error: FaultError::Kind(kind),
            lasting: false,
            scope: FaultScope::Every,
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

    /// The death of the calling process in the middle of the call.
    pub fn kill_halfway() -> Self {
        Self::once(FaultEffect::KillHalf, io::ErrorKind::Other)
    }

    /// Whether the calling process dies.
    pub(super) fn kills(self) -> bool {
        matches!(self.effect, FaultEffect::Kill | FaultEffect::KillHalf)
    }

    /// The same failure, of other calls.
    #[must_use]
    pub fn scope(self, scope: FaultScope) -> Self {
        Self { scope, ..self }
    }

    /// The error to give.
    pub(super) fn error(self) -> io::Error {
        match self.error {
            FaultError::Kind(kind) => io::Error::new(kind, "a planned failure"),
            FaultError::Os(number) => io::Error::from_raw_os_error(number),
        }
    }
}

/// The failures to come, and those that came.
#[derive(Debug, Default)]
pub(super) struct Faults {
    armed: Vec<Armed>,
    fired: BTreeMap<Call, u64>,
}

/// A fault that waits.
#[derive(Debug)]
struct Armed {
    fault: Fault,
    /// How many calls that count are to come before it.
    left: u64,
    /// What it hit first.
    first: Option<Call>,
}

impl Armed {
    /// Whether it hits this call.
    fn hits(&mut self, call: Call) -> bool {
        let counts = match (self.fault.scope, self.first) {
            (FaultScope::Only(only), _) => only == call,
            (FaultScope::SameKind, Some(first)) => first == call,
            _ => true,
        };
        if !counts {
            return false;
        }
        if self.left > 0 {
            self.left -= 1;
            return false;
        }
        let is_first = self.first.is_none();
        self.first.get_or_insert(call);
        is_first || self.fault.lasting
    }
}

impl Faults {
    /// Lets the `nth` call that counts fail.
    pub(super) fn arm(&mut self, nth: u64, fault: Fault) {
        self.armed.push(Armed {
            fault,
            left: nth.saturating_sub(1),
            first: None,
        });
    }

    /// Takes all faults back.
    pub(super) fn heal(&mut self) {
        self.armed.clear();
    }

    /// Counts a call; the failure that was planned for it, of several the one armed first.
    pub(super) fn count(&mut self, call: Call) -> Option<Fault> {
        let mut hit = None;
        for armed in &mut self.armed {
            if armed.hits(call) {
                hit = hit.or(Some(armed.fault));
            }
        }
        if let Some(fault) = hit {
            self.count_fired(call);
            if fault.kills() {
                self.armed.clear();
            }
        }
        hit
    }

    /// Counts a call that failed as planned.
    pub(super) fn count_fired(&mut self, call: Call) {
        *self.fired.entry(call).or_default() += 1;
    }

    /// How often each kind of call failed as planned.
    pub(super) fn fired(&self) -> &BTreeMap<Call, u64> {
        &self.fired
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
    /// A sync that fails as planned forgets a file's growth too, as no file system is known to.
    ForgottenGrowth,
    /// A sync of a file that fails as planned claims success, as one does that is tried again.
    HiddenSyncFailure,
    /// A write that fails as planned claims success.
    HiddenWriteFailure,
    /// A read that fails as planned gives zeros.
    HiddenReadFailure,
    /// Of the raises of signals, every eighth does nothing.
    LostRaises,
    /// No store into this word of a shared page is seen by anybody.
    LostWord(usize),
    /// No bell of a shared page is ever heard.
    LostRings,
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

    /// Whether a planned failure of `call` is kept from its caller.
    pub(super) fn hides(&self, call: Call) -> bool {
        match call {
            Call::Sync => self.has(Plant::HiddenSyncFailure),
            Call::Write => self.has(Plant::HiddenWriteFailure),
            Call::View => self.has(Plant::HiddenReadFailure),
            _ => false,
        }
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
