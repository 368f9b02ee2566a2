//! Looking after a store: durability on demand, figures, checks, compaction.

use std::ops::ControlFlow;
use std::sync::Arc;

use super::Store;
#[cfg(feature = "sim")]
use crate::compaction::{Candidate, compact_chosen};
use crate::compaction::{CompactProgress, CompactReport, CompactionPause, compact};
use crate::engine::snapshot::Pin;
use crate::error::Result;
use crate::key::Key;
use crate::serializer::Serializer;
use crate::upkeep::{Stats, VerifyReport, stats, verify};

impl<S: Serializer, K: Key + ?Sized> Store<S, K> {
    /// Makes everything that was committed so far durable.
    ///
    /// # Durability
    /// All that this process has committed is on disk when this returns.
    ///
    /// # Blocking
    /// For one sync of the disk, and for the one that is running; not for other writers. Waiting for
    /// the disk has no deadline.
    ///
    /// # Errors
    /// `Io` if the sync fails, which poisons the store; `Poisoned`, `Closed`, `Forked`.
    pub fn sync(&self) -> Result<()> {
        self.engine()?.sync()
    }

    /// Figures about the store.
    ///
    /// # Errors
    /// `Io`; `Closed`, `Forked`.
    pub fn stats(&self) -> Result<Stats> {
        stats(self.engine()?)
    }

    /// Rewrites all that lives, in key order, and gives the space of all else back.
    ///
    /// # Durability
    /// All that was committed before is on disk when this returns. Killed in the middle, it loses
    /// nothing, and the next one need not do again what was finished.
    ///
    /// # Blocking
    /// Waits for other writers, and for another process that compacts, up to the lock timeout each.
    /// Others read and write on meanwhile; writers wait for moments.
    ///
    /// # Errors
    /// `LockTimeout`; `DiskFull`, and what was written for nothing is removed; `Corrupt` for an entry
    /// that cannot be read; `Io`; `ReadOnly`, `Poisoned`, `Closed`, `Forked`.
    pub fn compact(&self) -> Result<CompactReport> {
        self.compact_with(|_| ControlFlow::Continue(()))
    }

    /// The same, telling `progress` about every mebibyte how far it has come, until that says stop.
    /// What was finished by then stays so.
    ///
    /// # Durability
    /// As [`Store::compact`].
    ///
    /// # Blocking
    /// As [`Store::compact`].
    ///
    /// # Errors
    /// As [`Store::compact`].
    ///
    /// # Examples
    /// ```
    /// use std::ops::ControlFlow;
    ///
    /// let store = happystore::Store::in_memory();
    /// store.set("a", &1)?;
    /// let report = store.compact_with(|now| {
    ///     println!("{} of {} bytes", now.bytes_done, now.bytes_total);
    ///     ControlFlow::Continue(())
    /// })?;
    /// assert!(report.is_finished);
    /// # Ok::<(), happystore::Error>(())
    /// ```
    pub fn compact_with(
        &self,
        mut progress: impl FnMut(CompactProgress) -> ControlFlow<()>,
    ) -> Result<CompactReport> {
        let engine = self.engine()?;
        compact(engine, self.opening.lock_timeout, &mut progress)
    }

    /// Keeps the store from being compacted, by this and all other processes, as long as what this
    /// returns lives: while somebody copies its files, say, or must not be slowed down.
    ///
    /// # Blocking
    /// Waits for another process that compacts, up to the lock timeout. Nobody who reads or writes
    /// waits for the pause; [`Store::compact`] does, in all processes.
    ///
    /// # Errors
    /// `LockTimeout` if another process goes on compacting, or holds a pause; `DiskFull`, `Io`;
    /// `Closed`, `Forked`.
    ///
    /// # Examples
    /// ```
    /// use happystore::{CompactionState, Store};
    ///
    /// let store = Store::in_memory();
    /// let pause = store.pause_compaction()?;
    /// store.set("a", &1)?; // nobody is kept from writing
    /// assert_eq!(store.stats()?.compaction, CompactionState::Paused);
    /// drop(pause);
    /// # Ok::<(), happystore::Error>(())
    /// ```
    pub fn pause_compaction(&self) -> Result<CompactionPause> {
        CompactionPause::new(self.engine()?, self.opening.lock_timeout)
    }

    /// Rewrites the finished segments whose ids `is_wanted` says, for tests of partial compaction.
    ///
    /// # Errors
    /// As [`Store::compact`].
    #[cfg(feature = "sim")]
    pub fn compact_segments(&self, is_wanted: impl Fn(u32) -> bool) -> Result<CompactReport> {
        let choose = |candidates: &[Candidate]| {
            let ids = candidates.iter().map(|candidate| candidate.id);
            ids.filter(|id| is_wanted(*id)).collect()
        };
        let on = |_| ControlFlow::Continue(());
        compact_chosen(self.engine()?, self.opening.lock_timeout, &choose, &mut {
            on
        })
    }

    /// Reads all that the store is made of, and checks every checksum and every key's place.
    ///
    /// # Blocking
    /// Waits for nobody; reads the whole log as it was when this began.
    ///
    /// # Errors
    /// `Corrupt` with file and offset; `Io`; `Closed`, `Forked`.
    pub fn verify(&self) -> Result<VerifyReport> {
        self.engine()?;
        verify(&Arc::new(Pin::new(&self.opening)?))
    }
}
