//! Runs operations while calls fail, and judges every answer.
//!
//! Invariants:
//! 1. An operation fails only if one of its calls failed as planned, or because the store says
//!    `Poisoned` after an operation that failed with `Io`, a background sync that failed, or such.
//! 2. An operation of which calls that only look failed never poisons.
//! 3. A sync of a file that failed within an operation makes it fail, however it goes on.
//! 4. `DiskFull`, and nothing else, is retryable; it changes nothing and does not poison. Where
//!    the only calls that failed were to allocate space, and said that there is none, it is what
//!    a commit says.

use std::sync::Arc;

use happystore::vfs::Vfs;
use happystore::vfs::sim::{Call, World};
use happystore::{Access, Error, ErrorKind, Options, Raw, Store};

use super::expected::Expected;
use super::workload::{DELAY, KEYS, Op};

/// A store of bytes.
pub(super) type Bytes = Store<Raw, [u8]>;

/// How often background work may go on by itself.
const ROUNDS_MAX: usize = 16;

/// Opens the store, as `process`.
pub(super) fn open(
    process: &Arc<dyn Vfs>,
    segment_bytes: u64,
    access: Access,
) -> happystore::Result<Bytes> {
    let options = Options::new().serializer(Raw).byte_keys().access(access);
    let options = options.segment_bytes(segment_bytes).vfs(process.clone());
    options.open("/s")
}

/// Which calls failed as planned.
#[derive(Debug, Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "answers to questions apart")]
pub(super) struct Fired {
    pub(super) any: bool,
    /// Whether one did that may change something.
    pub(super) changing: bool,
    /// Whether a sync of a file did.
    pub(super) sync: bool,
    /// Whether one did that is not an allocation.
    pub(super) not_allocating: bool,
}

/// A world with a store in it, and what is expected of both.
#[expect(clippy::struct_excessive_bools, reason = "answers to questions apart")]
pub(super) struct Runner {
    pub(super) world: World,
    pub(super) segment_bytes: u64,
    pub(super) process: Arc<dyn Vfs>,
    pub(super) store: Option<Bytes>,
    pub(super) expected: Expected,
    /// Whether planned failures say that no space is left.
    pub(super) is_full: bool,
    /// Whether the disk may be full without any planned failure.
    pub(super) is_limited: bool,
    /// How often the store said that the disk is full.
    pub(super) full_count: u64,
    /// Whether success over a failed sync is wrong at once, or only when something is lost.
    pub(super) looks_at_syncs: bool,
    /// Whether the opening that is there may say `Poisoned`.
    pub(super) may_be_poisoned: bool,
    /// Whether the opening that is there has not told yet what became of a commit that failed.
    is_unresolved: bool,
    /// Whether a store was ever made.
    exists: bool,
    /// The number of the last commit that was begun.
    pub(super) mark: u64,
}

impl Runner {
    pub(super) fn new(world: World, segment_bytes: u64, expected: Expected, exists: bool) -> Self {
        Self {
            process: world.process(),
            world,
            segment_bytes,
            store: None,
            expected,
            is_full: false,
            is_limited: false,
            full_count: 0,
            looks_at_syncs: true,
            may_be_poisoned: false,
            is_unresolved: false,
            exists,
            mark: 0,
        }
    }

    /// Whether a store was ever made.
    pub(super) fn exists(&self) -> bool {
        self.exists
    }

    /// Whether it is known what the opening shows.
    pub(super) fn is_resolved(&self) -> bool {
        !self.is_unresolved
    }

    /// Does `op`, and judges how it went.
    pub(super) fn step(&mut self, op: Op) -> Result<(), String> {
        match op {
            Op::Close => self.close(),
            Op::Kill => {
                self.kill();
                Ok(())
            }
            Op::ReadOnly => self.read_only(),
            _ => {
                let Some(store) = self.opened()? else {
                    return Ok(());
                };
                self.step_open(op, &store)
            }
        }
    }

    fn step_open(&mut self, op: Op, store: &Bytes) -> Result<(), String> {
        match op {
            Op::Set {
                key,
                len_bytes,
                mode,
            } => self.put(store, mode, &[(KEYS[key], self.next_value(len_bytes))]),
            Op::Batch {
                key,
                len_bytes,
                mode,
            } => {
                let value = self.next_value(len_bytes);
                let pairs = [0, 1, 2].map(|at| (KEYS[(key + at) % KEYS.len()], value.clone()));
                self.put(store, mode, &pairs)
            }
            Op::Delete { key, mode } => self.delete(store, KEYS[key], mode),
            Op::Nested {
                key,
                len_bytes,
                mode,
            } => self.nest(store, key, len_bytes, mode),
            Op::QueryDelete { key } => self.query_delete(store, KEYS[key]),
            Op::Sync => {
                let before = self.world.faults_by_call();
                let done = store.sync();
                self.synced("sync", done, &before)
            }
            Op::SecondOpening => self.second_opening(),
            Op::Background => self.background(),
            Op::Look => self.look(store, true),
            Op::Open | Op::Close | Op::Kill | Op::ReadOnly => Ok(()),
        }
    }

    /// Which calls failed since `before`.
    pub(super) fn fired_since(&self, before: &std::collections::BTreeMap<Call, u64>) -> Fired {
        let now = self.world.faults_by_call();
        let new = now
            .iter()
            .filter(|(call, count)| before.get(call) != Some(count));
        let mut fired = Fired::default();
        for (call, _) in new {
            fired.any = true;
            fired.changing |= !call.only_looks();
            fired.sync |= self.looks_at_syncs && *call == Call::Sync;
            fired.not_allocating |= *call != Call::Allocate;
        }
        fired
    }

    /// Judges an error of a call of the store.
    pub(super) fn judge(
        &mut self,
        what: &str,
        error: &Error,
        fired: Fired,
        allowed: &[ErrorKind],
    ) -> Result<(), String> {
        let kind = error.kind();
        let wrong = |why: &str| Err(format!("{what} said {error:?}, {why}"));
        if error.is_retryable() != (kind == ErrorKind::DiskFull) {
            return wrong("and whether that is retryable is wrong");
        }
        if !allowed.contains(&kind) {
            return wrong("which it never says");
        }
        if kind == ErrorKind::Poisoned && !self.may_be_poisoned {
            return wrong("though nothing failed that poisons");
        }
        let is_full = kind == ErrorKind::DiskFull;
        self.full_count += u64::from(is_full);
        if kind != ErrorKind::Poisoned && !fired.any && !(is_full && self.is_limited) {
            return wrong("though no call failed meanwhile");
        }
        if kind == ErrorKind::Io && fired.changing {
            self.may_be_poisoned = true;
        }
        Ok(())
    }

    /// The store, opened if it is not open; `None` if that fails as it may.
    pub(super) fn opened(&mut self) -> Result<Option<Bytes>, String> {
        if self.store.is_none() {
            let before = self.world.faults_by_call();
            match open(&self.process, self.segment_bytes, Access::Shared) {
                Err(error) => {
                    let fired = self.fired_since(&before);
                    let allowed = [ErrorKind::Io, ErrorKind::DiskFull];
                    self.judge("opening", &error, fired, &allowed)?;
                    return Ok(None);
                }
                Ok(store) => {
                    self.store = Some(store);
                    self.exists = true;
                    self.may_be_poisoned = false;
                    self.is_unresolved = true;
                    self.expected.all_durable();
                }
            }
        }
        if self.is_unresolved && !self.resolve()? {
            return Ok(None);
        }
        Ok(self.store.clone())
    }

    /// Finds out what an opening shows; false if that cannot be read.
    fn resolve(&mut self) -> Result<bool, String> {
        let Some(store) = self.store.clone() else {
            return Ok(false);
        };
        if !self.expected.is_certain() || self.world.faults_fired() > 0 {
            let Some(found) = self.read_all(&store)? else {
                return Ok(false);
            };
            self.expected.reopened(found)?;
        }
        self.is_unresolved = false;
        Ok(true)
    }

    fn close(&mut self) -> Result<(), String> {
        let Some(store) = self.store.take() else {
            return Ok(());
        };
        let before = self.world.faults_by_call();
        let closed = store.close();
        if self.is_unresolved {
            // It never told; the next opening may.
            self.is_unresolved = false;
            self.may_be_poisoned |= closed.is_err();
            return Ok(());
        }
        self.synced("close", closed, &before)
    }

    /// Judges a call that makes all durable.
    fn synced(
        &mut self,
        what: &str,
        done: happystore::Result<()>,
        before: &std::collections::BTreeMap<Call, u64>,
    ) -> Result<(), String> {
        let fired = self.fired_since(before);
        match done {
            Ok(()) if fired.sync => Err(format!("{what} succeeded over a sync that failed")),
            Ok(()) => {
                self.expected.goes_on()?;
                self.expected.all_durable();
                self.may_be_poisoned = false;
                Ok(())
            }
            Err(error) => {
                let allowed = [ErrorKind::Io, ErrorKind::Poisoned];
                self.judge(what, &error, fired, &allowed)
            }
        }
    }

    fn second_opening(&mut self) -> Result<(), String> {
        let before = self.world.faults_by_call();
        match open(&self.process, self.segment_bytes, Access::Shared) {
            Ok(second) => {
                let done = second.close();
                self.synced("closing a second opening", done, &before)
            }
            Err(error) => {
                let fired = self.fired_since(&before);
                self.judge("opening again", &error, fired, &[ErrorKind::Io])
            }
        }
    }

    fn read_only(&mut self) -> Result<(), String> {
        self.close()?;
        let before = self.world.faults_by_call();
        match open(&self.process, self.segment_bytes, Access::ReadOnly) {
            Ok(store) => {
                self.exists = true;
                if let Some(found) = self.read_all(&store)? {
                    self.expected.shown_to_reader(&found)?;
                }
                let refused = store.set(KEYS[1], b"1").map_err(|error| error.kind());
                if refused != Err(ErrorKind::ReadOnly) {
                    return Err(format!("a write to a reader gave {refused:?}"));
                }
                let closed = store.close().map_err(|error| format!("closing: {error:?}"));
                if self.world.faults_fired() == 0 {
                    closed
                } else {
                    Ok(())
                }
            }
            Err(error) if error.kind() == ErrorKind::NotFound && !self.exists => Ok(()),
            Err(error) => {
                let fired = self.fired_since(&before);
                self.judge("opening to read", &error, fired, &[ErrorKind::Io])
            }
        }
    }

    pub(super) fn kill(&mut self) {
        self.world.kill(&self.process);
        self.store = None;
        self.is_unresolved = false;
        self.process = self.world.process();
    }

    fn background(&mut self) -> Result<(), String> {
        let before = self.world.faults_by_call();
        self.world.advance(DELAY);
        let mut rounds = 0;
        while self.world.run_background() > 0 {
            rounds += 1;
            if rounds > ROUNDS_MAX {
                return Err("background work does not come to rest".to_owned());
            }
        }
        if self.fired_since(&before).any {
            self.may_be_poisoned = true;
        }
        if !self.may_be_poisoned && self.expected.is_certain() {
            self.expected.deferred_durable();
        }
        Ok(())
    }
}
