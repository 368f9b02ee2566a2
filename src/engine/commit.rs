//! The one write path: a batch is appended, indexed, made durable together with others, published.
//!
//! A [`WriteTurn`] comes in with a [`Batch`]; nothing else appends user data. The writer lock is
//! held for the first two steps alone: the next writer works on top of what is appended, while
//! readers see what is published. A commit returns when readers see it.
//!
//! What a crash in the middle leaves: before the append, nothing; during it, a torn tail that
//! repair zeroes; after it and before the sync, a batch that is there or not as a whole, and that
//! no reader was shown if it was to be durable; after the sync, the batch.

use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Engine;
use super::writer_lock::WriteTurn;
use crate::batch::Batch;
use crate::error::Result;
use crate::failpoint;
use crate::format::header::SEGMENT_HEADER_BYTES;
use crate::index::Put;
use crate::log::fault::Fault;
use crate::log::location::{Location, Version};
use crate::log::writer::{Appended, Space};
use crate::options::Durability;

impl Engine {
    /// Takes the writer lock, for `engine` borrowed or shared.
    ///
    /// # Errors
    /// What makes writes impossible: `ReadOnly`, `Poisoned`, `Closed`, `Forked`; `LockTimeout`,
    /// `WouldDeadlock`.
    pub(crate) fn begin<E: Deref<Target = Self> + Clone>(
        engine: &E,
        timeout: Duration,
        label: Option<&std::sync::Arc<str>>,
    ) -> Result<WriteTurn<E>> {
        engine.check_writable()?;
        let turn = engine.writer_lock.lock(engine.clone(), timeout, label)?;
        // It may have been closed or poisoned while this thread waited.
        engine.check_writable()?;
        Ok(turn)
    }
}

impl<E: Deref<Target = Engine>> WriteTurn<E> {
    /// Commits `batch`: all of it, or nothing. The writer lock goes back as soon as the batch is
    /// appended; what is waited for afterwards is shared with other commits.
    ///
    /// # Durability
    /// As `durability` says. What the turn has read is as durable as it was to be, also if there
    /// is nothing to commit.
    ///
    /// # Errors
    /// `DiskFull`, and nothing has changed. Any other error poisons the store: whether the batch
    /// is there is known after reopening.
    pub(crate) fn commit(mut self, batch: &mut Batch, durability: Durability) -> Result<()> {
        self.engine.check_writable()?;
        // Still true when this turn is dropped by a panic: then the store is poisoned.
        self.committing = true;
        self.is_over = durability == Durability::Sync;
        let read = self.sequence();
        let appended = self.append(batch, durability).map_err(|fault| {
            let changed_nothing = !fault.poisons;
            // A failure is known before the next writer begins.
            (self.engine.failed(fault), changed_nothing)
        });
        self.give_back();
        let done = match appended {
            Ok(reached) => self.engine.wait_for(reached),
            // What was read counts all the same.
            Err((error, true)) => self.engine.wait_visible(read).and(Err(error)),
            Err((error, false)) => Err(error),
        };
        self.committing = false;
        done?;
        if !batch.is_empty() {
            self.engine.counters.commits.fetch_add(1, Ordering::Relaxed);
            // OK because the commit is done; who reads next is told.
            let _ = self.engine.catch_up();
            let added = batch.record_mut().1 as usize;
            self.engine.index.prune(&self.engine.horizon(), added);
        }
        Ok(())
    }

    /// Ends without a commit; waits until readers see the batch `sequence`, which was read.
    ///
    /// # Errors
    /// `Io` of the sync that failed.
    pub(crate) fn end(mut self, sequence: u64) -> Result<()> {
        if self.engine.is_forked() {
            return Ok(());
        }
        self.give_back();
        self.engine.wait_visible(sequence)
    }

    /// Makes all durable and writes the seal mark of a clean close.
    pub(super) fn seal(&self) -> Result<()> {
        let engine = &self.engine;
        let mut cursor = engine.cursor.take(engine.vfs.as_ref());
        let shared = engine.log.shared();
        shared.set_writing(true);
        cursor
            .seal_mark(&engine.log)
            .map_err(|fault| engine.failed(fault))?;
        shared.set_writing(false);
        Ok(())
    }

    /// Appends `batch` and gives its keys their new versions; says what its commit waits for.
    fn append(&self, batch: &mut Batch, durability: Durability) -> Result<Reached, Fault> {
        let engine: &Engine = &self.engine;
        if batch.is_empty() {
            return Ok(Reached::Visible(self.sequence()));
        }
        let space = if batch.only_deletes() {
            Space::Reserve
        } else {
            Space::Ordinary
        };
        let (record, count) = batch.record_mut();
        let shared = engine.log.shared();
        let mut cursor = engine.cursor.take(engine.vfs.as_ref());
        // CRASH: until it says otherwise, the next owner looks at the end of the log.
        shared.set_writing(true);
        let appended = match cursor.append(&engine.log, record, count, space) {
            Ok(appended) => appended,
            Err(fault) => {
                shared.set_writing(fault.poisons);
                return Err(fault);
            }
        };
        // CRASH: the batch is there or not, as a whole; nobody was told either way.
        failpoint::hit!("commit-appended");
        engine.index_batch(batch, &appended);
        failpoint::hit!("commit-indexed");
        let sequence = appended.stamp.sequence;
        engine.applied.store(sequence, Ordering::Release);
        let is_awaited = durability == Durability::Sync;
        let segment = &appended.segment;
        if appended.offset == SEGMENT_HEADER_BYTES {
            // The segment before is finished.
            engine.compactor.segment_finished();
        }
        engine
            .log
            .note_end(segment, appended.end, sequence, is_awaited)?;
        shared.set_writing(false);
        drop(cursor);
        match durability {
            Durability::Deferred(delay) if !engine.sync_within(delay) => Ok(Reached::Durable),
            _ => Ok(Reached::Visible(sequence)),
        }
    }
}

/// What the log must have reached before a commit returns.
#[derive(Clone, Copy)]
enum Reached {
    /// Readers see the commit. If it is to be durable first, it is, and so is what it rests on.
    Visible(u64),
    /// All that is appended is durable.
    Durable,
}

impl Engine {
    fn wait_for(&self, reached: Reached) -> Result<()> {
        match reached {
            Reached::Visible(sequence) => self.wait_visible(sequence),
            Reached::Durable => self.log.sync().map_err(|fault| self.failed(fault)),
        }
    }

    /// Waits until readers see the batch `sequence`, which a write transaction has read.
    ///
    /// # Errors
    /// `Io` of the sync that failed.
    pub(crate) fn wait_visible(&self, sequence: u64) -> Result<()> {
        self.log
            .wait_visible(sequence)
            .map_err(|fault| self.failed(fault))
    }

    /// Gives each key of `batch` its new version.
    fn index_batch(&self, batch: &Batch, appended: &Appended) {
        let horizon = self.horizon();
        let segment = &appended.segment;
        for (at, key, value) in batch.entries() {
            let value_bytes = value.map(|value| u32::try_from(value.len()).unwrap_or(u32::MAX - 1));
            let offset = appended.offset + at;
            let location = Location::new(segment.id, offset, appended.stamp.epoch, value_bytes);
            let version = Version {
                sequence: appended.stamp.sequence,
                location,
            };
            let entry_bytes = version.entry_bytes(key.len());
            if version.is_tombstone() {
                segment.add_tombstone(entry_bytes);
            } else {
                segment.add_live(entry_bytes);
            }
            if let Put::Newest(Some(before)) = self.index.apply(key, version, &horizon) {
                self.log.count_dead(before, key.len());
            }
        }
    }
}
