//! The growing end of the log, and the one stream of syncs that makes it durable.
//!
//! The writer moves the end; whoever needs it durable or visible comes in at [`GrowingTail::wait`]:
//! a commit, the background sync, `store.sync()`, a roll-over, closing. [`super::group_sync`]
//! decides who syncs and who waits among threads, [`super::shared`] among processes.
//!
//! Invariants:
//! 1. One sync of a process runs at a time: two at once on one open file would be told of a
//!    failure only once, and the other one would take lost bytes for durable. Files that other
//!    processes have opened are told by themselves.
//! 2. A new segment takes records only when all of the one before is durable: so a sync of the
//!    segment of its target is a sync of all before it.
//! 3. Whoever leads a sync ends it, also by a panic: that is a failed sync.
//!
//! What a crash leaves: what was appended after the last sync is there or not; none of it that is
//! awaited was shown to anybody.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::Log;
use super::fault::Fault;
use super::group_sync::{End, GroupSync, Number, Numbers, Target, Todo, Wake, Wanted};
use super::repair;
use super::shared::Shared;
use crate::error::Error;
use crate::failpoint;
use crate::format::header::SEGMENT_HEADER_BYTES;
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
    group: GroupSync<Shared, Arc<dyn Signal>, Error>,
    yielding: Yielding,
}

/// A place in the log as one number, which rises with every record.
pub(crate) fn position(segment: u32, offset: u32) -> u64 {
    u64::from(segment) << 32 | u64::from(offset)
}

/// The segment of a position, and the offset in it.
pub(crate) fn place(position: u64) -> (u32, u32) {
    let half = |bits: u64| u32::try_from(bits & u64::from(u32::MAX)).unwrap_or(u32::MAX);
    (half(position >> 32), half(position))
}

impl GrowingTail {
    /// The end of the log that `shared` tells of; `foreign` is the error of other processes'
    /// failures.
    pub(super) fn new(shared: Shared, foreign: Error) -> Self {
        Self {
            group: GroupSync::new(shared, foreign),
            yielding: Yielding::default(),
        }
    }

    /// The page of shared words.
    pub(super) fn shared(&self) -> &Shared {
        self.group.numbers()
    }

    /// Takes the end `offset` of `segment`, before which all is durable, as the end of a log whose
    /// last batch is `sequence`; without a segment, that of an empty log.
    pub(super) fn restart(&self, segment: Option<(u32, u32)>, sequence: u64) {
        let end = segment.map(|(segment, offset)| End {
            position: position(segment, offset),
            sequence,
        });
        self.group.restart(end.unwrap_or_default());
    }

    /// Takes the first `failures` of all processes as mended.
    pub(super) fn mend(&self, failures: u64) {
        self.group.mend(failures);
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

    /// Up to where `segment`, the active one, is durable.
    pub(super) fn synced_upto(&self, segment: u32) -> u32 {
        let durable = self.shared().get(Number::Durable);
        let offset = durable.checked_sub(position(segment, 0));
        offset
            .and_then(|offset| u32::try_from(offset).ok())
            .unwrap_or(0)
    }

    /// How many syncs have succeeded.
    pub(super) fn sync_count(&self) -> u64 {
        self.group.sync_count()
    }

    /// The sync that has failed here, or what stands for failures of other processes.
    pub(super) fn failure(&self) -> Option<Error> {
        self.group.failure()
    }

    /// Refuses if another process has recovered the log since this one opened it.
    pub(super) fn check_history(&self) -> Result<(), Error> {
        self.group.check_history()
    }

    /// Tells all processes that a write or a sync has failed.
    pub(super) fn tell_failure(&self) {
        self.group.tell_failure();
    }

    /// Makes all that is appended by now durable.
    ///
    /// # Errors
    /// A poisoning fault if this sync fails, or any before it has.
    pub(super) fn sync(&self, log: &Log) -> Result<(), Fault> {
        let wanted = Wanted::Durable(self.shared().get(Number::Appended));
        self.wait(log, wanted, false)
    }

    /// Waits until readers see `sequence`; for a commit, together with the commits of others.
    ///
    /// # Errors
    /// As [`GrowingTail::sync`].
    pub(super) fn wait_visible(&self, log: &Log, sequence: u64) -> Result<(), Fault> {
        self.wait(log, Wanted::Visible(sequence), true)
    }

    /// Waits for `wanted`, or leads the sync that brings it; `is_patient` gives others the chance
    /// to share that sync.
    fn wait(&self, log: &Log, wanted: Wanted, is_patient: bool) -> Result<(), Fault> {
        let vfs = log.vfs.as_ref();
        let (mut brought, mut has_waited) = (None, false);
        let done = loop {
            match self.group.todo(wanted, brought.take()) {
                Ok(Todo::Nothing) => break Ok(()),
                Ok(Todo::BringWaker) => brought = Some(vfs.signal()),
                Ok(Todo::Wait(signal)) => {
                    while !signal.wait(vfs.monotonic().saturating_add(LOOK_AGAIN)) {}
                    has_waited = true;
                    self.group.woken(signal);
                }
                Ok(Todo::Lead) => {
                    has_waited = false;
                    if let Err(error) = self.lead(log, wanted, is_patient) {
                        break Err(told(error));
                    }
                }
                Err(error) => break Err(told(error)),
            }
        };
        if has_waited {
            self.group.pass_on();
        }
        done
    }

    /// Syncs what is appended, for all who wait; unless another process brings what is wanted.
    ///
    /// # Errors
    /// What keeps this process from syncing; the log is none the worse for it.
    fn lead(&self, log: &Log, wanted: Wanted, is_patient: bool) -> Result<(), Error> {
        let vfs = log.vfs.as_ref();
        let mut leader = Leader {
            tail: self,
            leads: false,
            target: None,
            synced: None,
        };
        let mut overtakes = false;
        while let Err(other) = self.shared().try_lead() {
            overtakes = !self.shared().wait_for_leader(vfs, other);
            if overtakes {
                break;
            }
            if self.group.has(wanted) || self.group.failure().is_some() {
                leader.synced = Some(Ok(()));
                return Ok(());
            }
        }
        leader.leads = true;
        if self.group.has(wanted) {
            leader.synced = Some(Ok(()));
            return Ok(());
        }
        if is_patient {
            self.let_others_come(vfs);
        }
        let target = self.group.begin_sync();
        leader.target = Some(target);
        let (id, offset) = place(target.end.position);
        let segment = match log.known_segment(id) {
            Ok(Some(segment)) => segment,
            // Nobody waits for anything in a log without segments.
            Ok(None) => {
                (leader.target, leader.synced) = (None, Some(Ok(())));
                return Ok(());
            }
            Err(error) => {
                (leader.target, leader.synced) = (None, Some(Ok(())));
                let cause = io::Error::other(error.to_string());
                return Err(Error::io("sync", &log.directory.path, cause));
            }
        };
        if overtakes && self.shared().get(Number::Durable) < target.end.position {
            // The sync of one who died may have failed, and nobody was told.
            let from = self.synced_upto(id).max(SEGMENT_HEADER_BYTES);
            if let Err(fault) = repair::rewrite(&segment, from, offset) {
                leader.synced = Some(Err(fault.error));
                return Ok(());
            }
        }
        failpoint::hit!("sync-before");
        let begun = vfs.monotonic();
        let synced = segment.file.sync();
        let took = vfs.monotonic().saturating_sub(begun);
        failpoint::hit!("sync-after");
        let nanos = u64::try_from(took.as_nanos()).unwrap_or(u64::MAX);
        self.shared().set_sync_nanos(nanos);
        leader.synced = Some(synced.map_err(|error| Error::io("sync", &segment.path, error)));
        Ok(())
    }

    /// Gives those who committed of late the time to come again, so that all of them share one
    /// sync instead of every other one.
    fn let_others_come(&self, vfs: &dyn Vfs) {
        if self.group.is_complete() || !self.yielding.is_worth_it() {
            return;
        }
        let patience = Duration::from_nanos(self.shared().sync_nanos() / PATIENCE);
        let mut now = vfs.monotonic();
        let until = now.saturating_add(patience.min(PATIENCE_MAX));
        while now < until && !self.group.is_complete() {
            match self.yielding.yield_at(vfs, now) {
                Some(then) => now = then,
                None => break,
            }
        }
    }
}

/// One who leads a sync; ends it when dropped.
struct Leader<'a> {
    tail: &'a GrowingTail,
    /// Whether it leads for all processes, or waits for another one's leader yet.
    leads: bool,
    /// `None` until it was taken.
    target: Option<Target>,
    /// What the sync said; `None` until it has.
    synced: Option<Result<(), Error>>,
}

impl Drop for Leader<'_> {
    fn drop(&mut self) {
        let synced = self.synced.take().unwrap_or_else(|| Err(panicked()));
        self.tail.group.end_sync(self.target, &synced, || {
            if self.leads {
                self.tail.shared().end_lead();
            }
        });
    }
}

/// The fault that a failed sync is to everybody who is told of it.
fn told(error: Error) -> Fault {
    Fault {
        error,
        poisons: true,
        is_told: true,
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
