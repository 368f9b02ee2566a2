//! The one write path: a batch is appended, made durable, indexed, published.
//!
//! A [`WriteTurn`] comes in with a [`Batch`]; nothing else appends user data. What a crash in the
//! middle leaves: before the append, nothing; during it, a torn tail that repair zeroes; after
//! it and before the sync, a batch that is there or not as a whole; after the sync, the batch.

use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::time::Duration;

use super::Engine;
use super::writer_lock::WriteTurn;
use crate::batch::Batch;
use crate::error::Result;
use crate::failpoint;
use crate::log::fault::Fault;
use crate::log::location::{Location, Version};
use crate::log::writer::Appended;
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
    /// The sequence number this turn's own reads are at: all that is appended. It needs no pin,
    /// because nobody else appends.
    pub(crate) fn sequence(&mut self) -> u64 {
        self.parts().1.sequence
    }

    /// Commits `batch`: all of it, or nothing.
    ///
    /// # Durability
    /// As `durability` says.
    ///
    /// # Errors
    /// `DiskFull`, and nothing has changed. Any other error poisons the store: whether the batch
    /// is there is known after reopening.
    pub(crate) fn commit(&mut self, batch: &mut Batch, durability: Durability) -> Result<()> {
        self.engine.check_writable()?;
        if batch.is_empty() {
            return Ok(());
        }
        self.committing = true;
        let done = self.append_and_publish(batch, durability);
        self.committing = false;
        done.map_err(|fault| self.engine.failed(fault))
    }

    /// Makes all durable and writes the seal mark of a clean close.
    pub(super) fn seal(&mut self) -> Result<()> {
        let (engine, writer) = self.parts();
        writer
            .seal_mark(&engine.log)
            .map_err(|fault| engine.failed(fault))?;
        Ok(())
    }

    fn append_and_publish(
        &mut self,
        batch: &mut Batch,
        durability: Durability,
    ) -> Result<(), Fault> {
        let (engine, writer) = self.parts();
        let (record, count) = batch.record_mut();
        let appended = writer.append(&engine.log, record, count)?;
        failpoint::hit!("commit-appended");
        if durability == Durability::Sync {
            // CRASH: the batch is there or not, as a whole; nobody was told either way.
            engine.log.sync()?;
        }
        engine.index_batch(batch, &appended);
        failpoint::hit!("commit-indexed");
        engine
            .visible
            .store(appended.stamp.sequence, Ordering::Release);
        engine.counters.commits.fetch_add(1, Ordering::Relaxed);
        engine.index.prune(&engine.horizon(), count as usize);
        if let Durability::Deferred(delay) = durability {
            engine.sync_within(delay)?;
        }
        Ok(())
    }
}

impl Engine {
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
            if !version.is_tombstone() {
                segment.add_live(version.entry_bytes(key.len()));
            }
            if let Some(before) = self.index.apply(key, version, &horizon) {
                self.log.count_dead(before, key.len());
            }
        }
    }
}
