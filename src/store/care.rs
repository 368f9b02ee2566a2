//! Looking after a store: durability on demand, figures, checks, compaction.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;

use super::Store;
use crate::compaction::{
    Candidate, CompactProgress, CompactReport, CompactionPause, compact, compact_chosen,
};
use crate::engine::snapshot::Pin;
use crate::error::Result;
use crate::key::Key;
use crate::serializer::Serializer;
use crate::upkeep::{
    BackupReport, Holders, SegmentStats, Stats, VerifyReport, backup, holders, segments, stats,
    verify,
};

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

    /// Figures about each segment, by their ids.
    ///
    /// # Errors
    /// `Corrupt`, `Io`; `Closed`, `Forked`.
    ///
    /// # Examples
    /// ```
    /// let store = happystore::Store::in_memory();
    /// store.set("a", &1)?;
    /// let segments = store.segments()?;
    /// assert!(segments.len() == 1 && segments[0].is_active && segments[0].live_bytes > 0);
    /// # Ok::<(), happystore::Error>(())
    /// ```
    pub fn segments(&self) -> Result<Vec<SegmentStats>> {
        segments(self.engine()?)
    }

    /// Which processes have the store open, and who of them may write now.
    ///
    /// # Errors
    /// `Io`; `Closed`, `Forked`.
    ///
    /// # Examples
    /// ```
    /// # let directory = tempfile::tempdir().unwrap();
    /// let store = happystore::Store::open(directory.path().join("data"))?;
    /// let holders = store.holders()?;
    /// # #[cfg(target_os = "linux")]
    /// assert_eq!(holders.processes, [std::process::id()]);
    /// # Ok::<(), happystore::Error>(())
    /// ```
    pub fn holders(&self) -> Result<Holders> {
        holders(self.engine()?)
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
    /// `ReadOnly`, `Poisoned`, `Closed`, `Forked`.
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

    /// The same, but only of segments of which at least the share `dead_ratio` is dead, from 0 to 1.
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
    /// store.bulk_set((0..100).map(|n| (n.to_string(), n)))?;
    /// let report = store.compact_dead(0.5, |_| ControlFlow::Continue(()))?;
    /// assert_eq!(report.segments, 0); // all of it lives
    /// # Ok::<(), happystore::Error>(())
    /// ```
    pub fn compact_dead(
        &self,
        dead_ratio: f64,
        mut progress: impl FnMut(CompactProgress) -> ControlFlow<()>,
    ) -> Result<CompactReport> {
        let choose = |candidates: &[Candidate]| {
            let dead = candidates
                .iter()
                .filter(|one| one.has_dead_share(dead_ratio));
            dead.map(|candidate| candidate.id).collect()
        };
        let timeout = self.opening.lock_timeout;
        compact_chosen(self.engine()?, timeout, &choose, &mut progress)
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

    /// Copies the store, while others write to it and compact it, into the directory `to`, which is
    /// made if it is missing. The backup is a store like any other: the same keys with the same
    /// values as at a moment within this call, and the same identity.
    ///
    /// Finished segments get a second name instead of a copy, where the file system can do that; it
    /// takes no space, and it is no protection against a broken disk. A backup that is repeated into
    /// the same directory brings what is missing there, and removes what the store does not have any
    /// more. Open a backup with [`Access::ReadOnly`](crate::Access::ReadOnly) if more of them are to
    /// go into it: one that was written to, or compacted, takes no other.
    ///
    /// # Durability
    /// The backup is on disk when this returns. Killed in the middle, this leaves the backup that
    /// was there before, perhaps with some later commits, or no store; then it can be called again.
    ///
    /// # Blocking
    /// For a sync, the copy of what is in the segment that takes records, and for one who has the
    /// backup open, up to the lock timeout. Others read and write on meanwhile.
    ///
    /// # Errors
    /// `NotABackup` if there is another store in `to`, one that was written to, or anything else;
    /// `LockTimeout` if somebody has the backup open; `DiskFull`, `Io`, `Corrupt`; `Poisoned`,
    /// `Closed`, `Forked`.
    ///
    /// # Examples
    /// ```
    /// use happystore::{Access, Options, Store};
    ///
    /// # let directory = tempfile::tempdir().unwrap();
    /// # let (data, backup) = (directory.path().join("data"), directory.path().join("backup"));
    /// let store = Store::open(&data)?;
    /// store.set("a", &1)?;
    /// store.backup_to(&backup)?;
    /// store.set("a", &2)?;
    ///
    /// let then = Options::new().access(Access::ReadOnly).open(&backup)?;
    /// assert_eq!(then.get("a")?, Some(1));
    /// # Ok::<(), happystore::Error>(())
    /// ```
    pub fn backup_to(&self, to: impl AsRef<Path>) -> Result<BackupReport> {
        backup(self.engine()?, to.as_ref(), self.opening.lock_timeout)
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
