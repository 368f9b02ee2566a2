//! The growing end of the log, and the one stream of syncs that makes it durable.
//!
//! The writer moves the end; whoever needs it durable or visible comes in at [`GrowingTail::wait`]:
//! a commit, the background sync, `store.sync()`, a roll-over, closing. [`super::group_sync`]
//! decides who syncs and who waits. One sync runs at a time: two at once on one file would be told
//! of a failure only once, and the other one would take lost bytes for durable.
//!
//! Invariants:
//! 1. The active segment changes only when all of the one before is durable, so not while a sync
//!    is running.
//! 2. Whoever leads a sync ends it, also by a panic: that is a failed sync.
//!
//! What a crash leaves: what was appended after the last sync is there or not; none of it that is
//! awaited was shown to anybody.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::fault::Fault;
use super::group_sync::{End, GroupSync, Todo, Wake, Wanted};
use super::segment::Segment;
use crate::error::Error;
use crate::failpoint;
use crate::vfs::{Signal, Vfs};
use crate::yielding::Yielding;

/// How long a waiter sleeps at a time.
const LOOK_AGAIN: Duration = Duration::from_mins(1);

/// The share of a sync's time, one in so many, that its leader waits at most for those who
/// committed of late and may do so again.
const PATIENCE: u64 = 2;

/// The longest that a leader waits, however long syncs take.
const PATIENCE_MAX: Duration = Duration::from_millis(2);

impl Wake for Arc<dyn Signal> {
    fn raise(&self) {
        Signal::raise(self.as_ref());
    }
}

/// The end of the log.
pub(crate) struct GrowingTail {
    active: Mutex<Option<Arc<Segment>>>,
    group: GroupSync<Arc<dyn Signal>, Error>,
    /// How long the last sync took, in nanoseconds.
    sync_nanos: AtomicU64,
    yielding: Yielding,
}

/// A place in the log as one number, which rises with every record.
fn position(segment: u32, offset: u32) -> u64 {
    u64::from(segment) << 32 | u64::from(offset)
}

impl GrowingTail {
    /// The end of an empty log.
    pub(super) fn new() -> Self {
        Self {
            active: Mutex::default(),
            group: GroupSync::new(),
            sync_nanos: AtomicU64::new(0),
            yielding: Yielding::default(),
        }
    }

    /// Takes the end `offset` of `segment`, before which all is durable, as the end of a log whose
    /// last batch is `sequence`; without a segment, that of an empty log.
    pub(super) fn restart(&self, segment: Option<(Arc<Segment>, u32)>, sequence: u64) {
        let end = segment.as_ref().map(|(segment, offset)| End {
            position: position(segment.id, *offset),
            sequence,
        });
        *self.lock_active() = segment.map(|(segment, _)| segment);
        self.group.restart(end.unwrap_or_default());
    }

    /// Notes that whole records reach up to `offset` of `segment`, the active one, and that the
    /// index has them.
    ///
    /// # Errors
    /// A poisoning fault if a sync has failed before.
    pub(super) fn append(
        &self,
        segment: u32,
        offset: u32,
        sequence: u64,
        is_awaited: bool,
    ) -> Result<(), Fault> {
        let position = position(segment, offset);
        self.group
            .append(End { position, sequence }, is_awaited)
            .map_err(told)
    }

    /// The sequence number that new readers read at.
    pub(super) fn visible(&self) -> &AtomicU64 {
        self.group.visible()
    }

    /// Up to where `segment`, the active one, is durable.
    pub(super) fn synced_upto(&self, segment: u32) -> u32 {
        let offset = self.group.durable().checked_sub(position(segment, 0));
        offset
            .and_then(|offset| u32::try_from(offset).ok())
            .unwrap_or(0)
    }

    /// How many syncs have succeeded.
    pub(super) fn sync_count(&self) -> u64 {
        self.group.sync_count()
    }

    /// Makes all that is appended by now durable.
    ///
    /// # Errors
    /// A poisoning fault if this sync fails, or any before it has.
    pub(super) fn sync(&self, vfs: &dyn Vfs) -> Result<(), Fault> {
        let wanted = Wanted::Durable(self.group.appended());
        self.wait(vfs, wanted, false)
    }

    /// Waits until readers see `sequence`; for a commit, together with the commits of others.
    ///
    /// # Errors
    /// As [`GrowingTail::sync`].
    pub(super) fn wait_visible(&self, vfs: &dyn Vfs, sequence: u64) -> Result<(), Fault> {
        self.wait(vfs, Wanted::Visible(sequence), true)
    }

    /// Waits for `wanted`, or leads the sync that brings it; `is_patient` gives others the chance
    /// to share that sync.
    fn wait(&self, vfs: &dyn Vfs, wanted: Wanted, is_patient: bool) -> Result<(), Fault> {
        let mut brought = None;
        loop {
            let todo = self.group.todo(wanted, brought.take());
            match todo.map_err(told)? {
                Todo::Nothing => return Ok(()),
                Todo::BringWaker => brought = Some(vfs.signal()),
                Todo::Wait(signal) => {
                    while !signal.wait(vfs.monotonic().saturating_add(LOOK_AGAIN)) {}
                    self.group.woken(signal);
                }
                Todo::Lead => self.lead(vfs, is_patient),
            }
        }
    }

    /// Syncs what is appended, for all who wait.
    fn lead(&self, vfs: &dyn Vfs, is_patient: bool) {
        let mut leader = Leader {
            tail: self,
            target: End::default(),
            synced: None,
        };
        if is_patient {
            self.let_others_come(vfs);
        }
        leader.target = self.group.begin_sync();
        let Some(segment) = self.lock_active().clone() else {
            // Nobody waits for anything in a log without segments.
            leader.synced = Some(Ok(()));
            return;
        };
        failpoint::hit!("sync-before");
        let begun = vfs.monotonic();
        let synced = segment.file.sync();
        let took = vfs.monotonic().saturating_sub(begun);
        failpoint::hit!("sync-after");
        self.sync_nanos.store(
            u64::try_from(took.as_nanos()).unwrap_or(u64::MAX),
            Ordering::Relaxed,
        );
        leader.synced = Some(synced.map_err(|error| Error::io("sync", &segment.path, error)));
    }

    /// Gives those who committed of late the time to come again, so that all of them share one
    /// sync instead of every other one.
    fn let_others_come(&self, vfs: &dyn Vfs) {
        if self.group.is_complete() || !self.yielding.is_worth_it() {
            return;
        }
        let patience = Duration::from_nanos(self.sync_nanos.load(Ordering::Relaxed) / PATIENCE);
        let mut now = vfs.monotonic();
        let until = now.saturating_add(patience.min(PATIENCE_MAX));
        while now < until && !self.group.is_complete() {
            match self.yielding.yield_at(vfs, now) {
                Some(then) => now = then,
                None => break,
            }
        }
    }

    fn lock_active(&self) -> MutexGuard<'_, Option<Arc<Segment>>> {
        self.active.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// One who leads a sync; ends it when dropped.
struct Leader<'a> {
    tail: &'a GrowingTail,
    target: End,
    /// What the sync said; `None` until it has.
    synced: Option<Result<(), Error>>,
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let synced = self.synced.take().unwrap_or_else(|| Err(panicked()));
        self.tail.group.end_sync(self.target, synced);
    }
}

/// The fault that a failed sync is to everybody who is told of it.
fn told(error: Error) -> Fault {
    Fault {
        error,
        poisons: true,
    }
}

/// The error of a sync that never came to its end.
fn panicked() -> Error {
    Error::io(
        "sync",
        std::path::Path::new("the log"),
        io::Error::other("a panic in the middle"),
    )
}
