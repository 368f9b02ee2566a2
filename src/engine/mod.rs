//! Where log and index meet: one engine for each open directory.
//!
//! `store`, `transaction` and `query` come in with keys, pins and batches. The engine opens and
//! replays a directory ([`open`], [`replay`]), hands the writer lock from thread to thread
//! ([`writer_lock`]), commits batches ([`commit`]), and pins what snapshots read ([`snapshot`]).
//!
//! Invariants:
//! 1. `visible` rises only over batches that are in the index, and, in `Sync` durability, durable.
//! 2. Whoever reads at a sequence number for longer than one lookup holds a [`snapshot::Pin`].
//! 3. After a failed write or sync the engine is poisoned: nothing more is written.
//! 4. A forked child touches none of the engine's mutexes and files.
//!
//! Threads and processes: any thread of any process reads at any time; writers take turns, first
//! those of a process ([`writer_lock`]), then processes ([`process_lock`]). What others append comes
//! in by [`refresh`].
//!
//! What a crash leaves: see `log`; the engine itself has no files but `LOCK`, `OPEN` and `STATE`,
//! which mean nothing without a living process.

pub(crate) mod absorb;
pub(crate) mod alone;
mod baton;
pub(crate) mod commit;
pub(crate) mod compactor;
mod create;
pub(crate) mod cut;
mod deferred;
mod install;
mod keeper;
mod load;
pub(crate) mod open;
mod process_lock;
mod recovery;
mod refresh;
mod registry;
pub(crate) mod replay;
pub(crate) mod snapshot;
mod state;
mod waiting_line;
pub(crate) mod writer_lock;

use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use crate::error::{Error, Holder, Result};
use crate::format::manifest::KeyKind;
use crate::index::{Horizon, Index};
use crate::log::Log;
use crate::log::fault::Fault;
use crate::log::location::Version;
use crate::log::writer::Writer;
use crate::options::{Access, Durability};
use crate::vfs::{DirectoryId, Vfs};
use baton::Baton;
use process_lock::ProcessLock;
use writer_lock::WriteTurn;

/// How long one who closes waits for the writer lock of another process, to find out whether that
/// one will be left.
const LAST_PATIENCE: Duration = Duration::from_millis(20);

/// What an open directory was opened with, as far as the engine needs to know.
pub(crate) struct Identity {
    /// The directory, absolute.
    pub(crate) path: PathBuf,
    /// Which directory that was when it was opened.
    pub(crate) id: DirectoryId,
    /// How it was opened.
    pub(crate) access: Access,
    /// What its keys are.
    pub(crate) key_kind: KeyKind,
    /// The name of its serializer.
    pub(crate) serializer: String,
    /// Whether every read verifies the checksum of what it returns.
    pub(crate) verify_reads: bool,
}

/// What the engine counts.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    pub(crate) commits: AtomicU64,
    pub(crate) lock_waits: AtomicU64,
}

/// One open directory.
pub(crate) struct Engine {
    pub(crate) vfs: Arc<dyn Vfs>,
    pub(crate) identity: Identity,
    pub(crate) log: Log,
    pub(crate) index: Index,
    pub(crate) counters: Counters,
    writer_lock: writer_lock::WriterLock,
    /// Where the log ends, as far as the index knows it.
    cursor: Baton<Box<Writer>>,
    /// The batch up to which the index has all.
    applied: AtomicU64,
    /// The right to take in what was moved.
    absorbing: Baton<()>,
    /// The generation of the manifest that the cursor has.
    known_generation: AtomicU64,
    pins: snapshot::Pins,
    deferred: deferred::Deferred,
    closed: AtomicBool,
    poison: OnceLock<Arc<str>>,
    fork_count: u64,
    process_lock: ProcessLock,
    keeper: keeper::Keeper,
    pub(crate) compactor: compactor::Compactor,
}

/// One opening of a store: what [`crate::Store`] and its clones, transactions, snapshots and
/// iterators share. The engine lives as long as its last opening.
pub(crate) struct Opening {
    pub(crate) engine: Arc<Engine>,
    /// How long this opening's writers wait for the writer lock.
    pub(crate) lock_timeout: Duration,
    /// How durable this opening's commits are.
    pub(crate) durability: Durability,
    /// What this opening calls itself.
    pub(crate) label: Arc<str>,
    /// Whether somebody is closing this opening, or has.
    closing: AtomicBool,
    closed: AtomicBool,
}

impl Engine {
    /// Refuses if the engine was closed, or belongs to the parent of a forked process.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.is_forked() {
            return Err(Error::Forked {
                path: self.identity.path.clone(),
            });
        }
        if self.closed.load(Ordering::Acquire) {
            return Err(self.closed_error());
        }
        Ok(())
    }

    /// Refuses if the engine takes no writes.
    pub(crate) fn check_writable(&self) -> Result<()> {
        self.check_open()?;
        if self.is_read_only() {
            return Err(Error::ReadOnly {
                path: self.identity.path.clone(),
            });
        }
        self.check_poison()
    }

    /// Refuses if a write or a sync has failed.
    pub(crate) fn check_poison(&self) -> Result<()> {
        if self.poison.get().is_none()
            && let Some(failure) = self.log.failure()
        {
            self.note_poison(&failure.to_string());
        }
        match self.poison.get() {
            Some(cause) => Err(Error::Poisoned {
                path: self.identity.path.clone(),
                cause: cause.clone(),
            }),
            None => Ok(()),
        }
    }

    /// Whether the store was opened for reading alone.
    fn is_read_only(&self) -> bool {
        self.identity.access == Access::ReadOnly
    }

    /// Whether the engine has ended.
    fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether this process is a forked child of the one that opened the store.
    pub(crate) fn is_forked(&self) -> bool {
        self.vfs.fork_count() != self.fork_count
    }

    /// Takes note of a failure on the way to the disk; gives its error.
    pub(crate) fn failed(&self, fault: Fault) -> Error {
        if fault.poisons {
            self.note_poison(&fault.error.to_string());
            if !fault.is_told {
                self.log.tell_failure();
            }
        }
        fault.error
    }

    /// Hands the newest visible value of `key` to `take`.
    ///
    /// # Errors
    /// `Corrupt`, `Io`, `Closed`, `Forked`.
    pub(crate) fn read_visible<R>(
        &self,
        key: &[u8],
        take: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        self.check_open()?;
        self.catch_up()?;
        let look = || self.index.get_visible(key, self.log.visible());
        self.read_found(key, self.identity.verify_reads, look, take)
    }

    /// Hands the value of `key` at `sequence`, which is pinned, to `take`.
    ///
    /// # Errors
    /// As [`Engine::read_visible`].
    pub(crate) fn read_at<R>(
        &self,
        key: &[u8],
        sequence: u64,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Result<Option<R>> {
        self.check_open()?;
        let look = || self.index.get(key, sequence);
        self.read_found(key, self.identity.verify_reads, look, take)
    }

    /// Hands the value at `version` of `key`, which a pin keeps, to `take`.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(crate) fn read_version<R>(
        &self,
        key: &[u8],
        version: Version,
        verify: bool,
        take: impl FnOnce(&[u8]) -> R,
    ) -> Result<R> {
        let mut found = Some(version);
        let look = || {
            let first = found.take();
            first.or_else(|| self.index.get(key, version.sequence))
        };
        let read = self.read_found(key, verify, look, take)?;
        read.ok_or_else(|| self.log.gone_at(version))
    }

    /// Hands the value of `key` to `take`, where `look` finds it; again, if compaction has moved it
    /// since.
    fn read_found<R, F: FnOnce(&[u8]) -> R>(
        &self,
        key: &[u8],
        verify: bool,
        mut look: impl FnMut() -> Option<Version>,
        take: F,
    ) -> Result<Option<R>> {
        let mut take = take;
        let mut before = None;
        while let Some(version) = look() {
            if before == Some(version) {
                return Err(self.log.gone_at(version));
            }
            match self.log.read(key, version, verify, take)? {
                Ok(taken) => return Ok(Some(taken)),
                Err(back) => take = back,
            }
            before = Some(version);
        }
        Ok(None)
    }

    /// Whether `key` is there, for a reader without a pin.
    pub(crate) fn has_visible(&self, key: &[u8]) -> Result<bool> {
        self.check_open()?;
        self.catch_up()?;
        Ok(self.index.get_visible(key, self.log.visible()).is_some())
    }

    /// Makes everything that is committed by now durable.
    ///
    /// # Errors
    /// `Poisoned`, or the `Io` that poisons.
    pub(crate) fn sync(&self) -> Result<()> {
        self.check_open()?;
        if self.is_read_only() {
            return Ok(());
        }
        self.check_poison()?;
        self.log.sync().map_err(|fault| self.failed(fault))
    }

    /// The processes that have the store open, and who of them may write now.
    ///
    /// # Errors
    /// `Io`.
    pub(crate) fn holders(&self) -> Result<(Vec<u32>, Option<Holder>)> {
        let processes = self.process_lock.processes()?;
        // Who died while it wrote has left its name.
        let is_there = |holder: &Holder| processes.contains(&holder.process_id);
        let writer = self.process_lock.holder(self.vfs.as_ref());
        Ok((processes.clone(), writer.filter(is_there)))
    }

    /// How many pins there are.
    pub(crate) fn pins_count(&self) -> usize {
        self.pins.count()
    }

    /// The sequence number of the newest visible batch.
    pub(crate) fn visible(&self) -> u64 {
        self.log.visible().load(Ordering::Acquire)
    }

    /// Which sequence numbers somebody reads at.
    fn horizon(&self) -> Horizon {
        self.pins.horizon(self.log.visible())
    }

    /// Refuses all writes from now on, in all processes.
    fn poison(&self, cause: &str) {
        self.note_poison(cause);
        self.log.tell_failure();
    }

    /// Refuses all writes from now on.
    fn note_poison(&self, cause: &str) {
        if self.poison.set(cause.into()).is_ok() {
            tracing::error!(path = %self.identity.path.display(), cause, "store poisoned");
        }
    }

    fn closed_error(&self) -> Error {
        Error::Closed {
            path: self.identity.path.clone(),
        }
    }

    /// Ends the engine: waits for the running transaction, makes all durable, writes the seal
    /// mark, frees the directory for others.
    ///
    /// # Errors
    /// `LockTimeout` or `WouldDeadlock` if a transaction stays open, and then nothing is ended;
    /// `Poisoned`, or the `Io` of the last sync, and then everything is ended.
    fn shutdown(&self, lock_timeout: Duration) -> Result<()> {
        // First: it may be in the middle of a long step. Others commit meanwhile, and what is deferred
        // goes on being synced.
        self.compactor.stop();
        let turn = self.writer_lock.lock_threads(self, lock_timeout, None);
        let turn = turn.inspect_err(|_| self.compactor.start_again())?;
        self.keeper.stop();
        self.deferred.stop();
        let sealed = self.end_log(&turn);
        // Whoever waits for the turn finds the engine closed when it comes.
        self.closed.store(true, Ordering::Release);
        self.process_lock.leave(self.vfs.as_ref());
        drop(turn);
        sealed
    }

    /// Makes all durable; whoever is the last to leave also ends the log with a seal mark.
    fn end_log(&self, turn: &WriteTurn<&Self>) -> Result<()> {
        if self.is_read_only() {
            return Ok(());
        }
        self.check_poison()?;
        let deadline = self.vfs.monotonic().saturating_add(LAST_PATIENCE);
        match turn.enter(deadline, false, None) {
            Ok(()) if self.process_lock.is_last() => turn.seal(),
            // Somebody else writes, and is going to be the last.
            Ok(()) | Err(Error::LockTimeout { .. }) => {
                self.log.sync().map_err(|fault| self.failed(fault))
            }
            Err(error) => Err(error),
        }
    }
}

impl Opening {
    /// Refuses if this opening was closed, or its engine.
    pub(crate) fn check_open(&self) -> Result<()> {
        if self.closed.load(Ordering::Acquire) {
            // A forked child hears that first, whatever its parent had done.
            return self
                .engine
                .check_open()
                .and(Err(self.engine.closed_error()));
        }
        Ok(())
    }

    /// Closes this opening; the engine too, if it is the last one.
    ///
    /// # Errors
    /// `Closed` if it was closed before; as the engine's end says.
    pub(crate) fn close(&self) -> Result<()> {
        self.check_open()?;
        self.engine.check_open()?;
        if self.closing.swap(true, Ordering::AcqRel) {
            return Err(self.engine.closed_error());
        }
        let released = registry::release(&self.engine, self.lock_timeout);
        if matches!(
            released,
            Err(Error::LockTimeout { .. } | Error::WouldDeadlock { .. })
        ) {
            // A transaction is still open: nothing has ended, and the last handle closes the store.
            self.closing.store(false, Ordering::Release);
        } else {
            // Not before: the transaction that was waited for goes on until its end.
            self.closed.store(true, Ordering::Release);
        }
        released
    }
}

impl Drop for Opening {
    fn drop(&mut self) {
        // In a forked child the mutexes may be held for ever, and the locks are the parent's.
        if self.engine.is_forked() || self.closed.load(Ordering::Acquire) {
            return;
        }
        if let Err(error) = self.close() {
            tracing::warn!(%error, "a store that was dropped could not be closed cleanly");
        }
    }
}
