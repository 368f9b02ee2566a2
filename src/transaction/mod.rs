//! Where a write waits: transactions, nested to any depth.
//!
//! A transaction takes the writer lock at its begin, keeps its changes in an [`overlay`], and
//! hands them to `engine::commit` as one batch. It leans on the engine through two things only:
//! reads at a snapshot, and one atomic commit.
//!
//! Invariants:
//! 1. Only the innermost open level can be touched; the others answer `ChildActive`.
//! 2. Whatever way a level ends without a commit, its changes are undone, and nothing else.
//! 3. No user code (serializers, closures) runs while the shared core is borrowed.
//!
//! Threads: a transaction stays on the thread that began it, which holds the writer lock.

mod overlay;
pub(crate) mod view;

use std::cell::{Cell, RefCell, RefMut};
use std::marker::PhantomData;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use crate::cursor::{Cursor, Selection};
use crate::engine::snapshot::Pin;
use crate::engine::writer_lock::WriteTurn;
use crate::engine::{Engine, Opening};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::options::{Durability, check_durability, check_label, check_lock_timeout};
use crate::query::{Query, Scan, Source};
use crate::serializer::{Cbor, Decode, Encode, Serializer, decode, encode};
use overlay::Overlay;
use view::View;

/// What a single transaction does differently from its store.
///
/// # Examples
/// ```
/// use std::time::Duration;
/// use happystore::{Durability, Store, TxOptions};
///
/// let store = Store::in_memory();
/// let options = TxOptions::new().timeout(Duration::ZERO).durability(Durability::Os).label("job");
/// let tx = store.begin_with(&options)?;
/// tx.set("a", &1)?;
/// tx.commit()?;
/// # Ok::<(), happystore::Error>(())
/// ```
#[derive(Debug, Clone, Default)]
pub struct TxOptions {
    timeout: Option<Duration>,
    durability: Option<Durability>,
    label: Option<Arc<str>>,
}

impl TxOptions {
    /// Everything as the store has it.
    pub fn new() -> Self {
        Self::default()
    }

    /// How long to wait for the writer lock; zero tries once.
    #[must_use]
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// What the commit has reached when it returns.
    #[must_use]
    pub fn durability(mut self, durability: Durability) -> Self {
        self.durability = Some(durability);
        self
    }

    /// What the transaction is called to those who wait for it; at most
    /// [`LABEL_BYTES_MAX`](crate::limits::LABEL_BYTES_MAX) bytes.
    #[must_use]
    pub fn label(mut self, label: impl AsRef<str>) -> Self {
        self.label = Some(label.as_ref().into());
        self
    }
}

/// What all levels of one transaction share.
struct Core {
    /// `None` once the outermost level has ended.
    turn: Option<WriteTurn<Arc<Engine>>>,
    /// What is below the changes: all that is appended.
    sequence: u64,
    durability: Durability,
    overlay: Overlay,
}

/// A transaction: its writes are seen by itself alone until it commits, all at once or not at all.
///
/// Made by `transaction` (a closure) or `begin` (a guard) of a [`Store`](crate::Store) or of
/// another transaction. A guard that is dropped without [`Transaction::commit`] is rolled back.
/// While a nested transaction is open, its parent answers [`Error::ChildActive`]. A transaction
/// cannot be sent to another thread.
///
/// `E` is the error type of the closure it is given to, and of the closures nested in that. A
/// function that is called from closures of several error types takes `&impl Write` instead of a
/// transaction, see [`Write`](crate::Write); a nested closure with an error type of its own is
/// `Write::transaction(tx, ..)`.
///
/// # Examples
/// ```
/// let store = happystore::Store::in_memory();
/// let tx = store.begin()?;
/// tx.set("a", &1)?;
/// {
///     let inner = tx.begin()?;
///     inner.set("b", &2)?;
/// } // dropped: undone
/// tx.commit()?;
/// assert!(store.has("a")? && !store.has("b")?);
/// # Ok::<(), happystore::Error>(())
/// ```
#[must_use = "a transaction that is dropped is rolled back; call commit()"]
pub struct Transaction<'a, S: Serializer = Cbor, K: Key + ?Sized = str, E = Error> {
    opening: Arc<Opening>,
    core: Rc<RefCell<Core>>,
    serializer: S,
    /// 0 is the outermost.
    level: usize,
    aborted: Cell<bool>,
    ended: bool,
    parent: PhantomData<&'a ()>,
    kinds: PhantomData<fn(&K) -> E>,
}

impl<S: Serializer, K: Key + ?Sized, E> Transaction<'static, S, K, E> {
    pub(crate) fn begin_top(
        opening: &Arc<Opening>,
        serializer: &S,
        options: &TxOptions,
    ) -> Result<Self> {
        opening.check_open()?;
        let timeout = options.timeout.unwrap_or(opening.lock_timeout);
        let durability = options.durability.unwrap_or(opening.durability);
        let label = options.label.as_ref().unwrap_or(&opening.label);
        check_lock_timeout(timeout)?;
        check_durability(durability)?;
        check_label(label)?;
        let turn = Engine::begin(&opening.engine, timeout, Some(label))?;
        let sequence = turn.sequence();
        let overlay = Overlay::default();
        let core = Core {
            turn: Some(turn),
            sequence,
            durability,
            overlay,
        };
        Ok(Self {
            opening: opening.clone(),
            core: Rc::new(RefCell::new(core)),
            serializer: serializer.clone(),
            level: 0,
            aborted: Cell::new(false),
            ended: false,
            parent: PhantomData,
            kinds: PhantomData,
        })
    }
}

impl<S: Serializer, K: Key + ?Sized, E> Transaction<'_, S, K, E> {
    /// The value of `key` as this transaction sees it, its own writes included.
    ///
    /// It may be of a commit that a power cut can still take back; the transaction's end waits
    /// until it is not. Keep to yourself what you read until then.
    ///
    /// # Errors
    /// `Decode` with the key; `ChildActive`, `Aborted`; `Corrupt`, `Io`; `Closed`, `Forked`.
    pub fn get<V>(&self, key: &K) -> Result<Option<V>>
    where
        S: Decode<V>,
    {
        let key = key.as_bytes();
        let (change, sequence) = {
            let core = self.core()?;
            (core.overlay.get(key).cloned(), core.sequence)
        };
        let decode = |bytes: &[u8]| decode(&self.serializer, key, bytes);
        match change {
            Some(change) => change.value.as_deref().map(decode).transpose(),
            None => self
                .opening
                .engine
                .read_at(key, sequence, decode)?
                .transpose(),
        }
    }

    /// Whether `key` is there, as this transaction sees it.
    ///
    /// # Errors
    /// As [`Transaction::get`], but for `Decode` and `Corrupt`.
    pub fn has(&self, key: &K) -> Result<bool> {
        self.core()
            .map(|core| core.has(&self.opening.engine, key.as_bytes()))
    }

    /// The values of `keys`, in the order asked.
    ///
    /// # Errors
    /// As [`Transaction::get`].
    pub fn bulk_get<V>(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<K>>,
    ) -> Result<Vec<Option<V>>>
    where
        S: Decode<V>,
    {
        keys.into_iter().map(|key| self.get(key.as_ref())).collect()
    }

    /// Reads, counts or deletes a range of keys as this transaction sees them.
    pub fn query(&self) -> Query<'_, S, K> {
        Query::new(self, &self.serializer)
    }

    /// Everything as this transaction sees it, in pages.
    pub fn scan(&self) -> Scan<'_, S, K> {
        Scan::new(self, &self.serializer)
    }

    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// `Encode` with the key, `TooLarge`, and the transaction is as it was; `ChildActive`,
    /// `Aborted`; `Closed`, `Forked`.
    pub fn set<V: ?Sized>(&self, key: &K, value: &V) -> Result<()>
    where
        S: Encode<V>,
    {
        let key = key.as_bytes();
        let mut bytes = Vec::new();
        encode(&self.serializer, key, value, &mut bytes)?;
        self.core()?.overlay.change(key, Some(&bytes))
    }

    /// Deletes `key`; true if it was there.
    ///
    /// # Errors
    /// As [`Transaction::set`], but for `Encode`.
    pub fn delete(&self, key: &K) -> Result<bool> {
        self.core()?.delete(&self.opening.engine, key.as_bytes())
    }

    /// Sets all of `pairs`, or none of them; the last of equal keys wins.
    ///
    /// # Errors
    /// As [`Transaction::set`].
    pub fn bulk_set<V>(&self, pairs: impl IntoIterator<Item = (impl AsRef<K>, V)>) -> Result<()>
    where
        S: Encode<V>,
    {
        // Whatever the iterator does, reading this transaction say, it does it before the nested
        // one is open.
        let mut encoded = Vec::new();
        for (key, value) in pairs {
            let key = key.as_ref().as_bytes();
            let mut bytes = Vec::new();
            encode(&self.serializer, key, &value, &mut bytes)?;
            encoded.push((key.to_vec(), bytes));
        }
        let inner = self.begin()?;
        for (key, bytes) in encoded {
            inner.core()?.overlay.change(&key, Some(&bytes))?;
        }
        inner.commit()
    }

    /// Deletes `keys`; for each, in the order asked, whether it was there. A key named twice was
    /// there once.
    ///
    /// # Errors
    /// As [`Transaction::delete`].
    pub fn bulk_delete(&self, keys: impl IntoIterator<Item = impl AsRef<K>>) -> Result<Vec<bool>> {
        let keys: Vec<_> = keys.into_iter().collect();
        let inner = self.begin()?;
        let gone = keys
            .iter()
            .map(|key| inner.delete(key.as_ref()))
            .collect::<Result<_>>()?;
        inner.commit()?;
        Ok(gone)
    }

    /// Begins a nested transaction, which can be undone by itself.
    ///
    /// # Errors
    /// `ChildActive`, `Aborted`; `Closed`, `Forked`.
    pub fn begin(&self) -> Result<Transaction<'_, S, K, E>> {
        self.nested()
    }

    /// Runs `body` in a nested transaction: committed into this one if it returns `Ok`, undone if
    /// it returns `Err`, panics, or returns what [`Transaction::abort`] gave.
    ///
    /// # Errors
    /// What `body` returns; as [`Transaction::begin`].
    pub fn transaction<T>(
        &self,
        body: impl FnMut(&Transaction<'_, S, K, E>) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<Error>,
    {
        self.begin()?.run(body)
    }

    /// Marks this transaction as aborted, and gives `value` for the closure to return: it is
    /// rolled back, and `transaction` returns `Ok(value)`. Until then it answers `Aborted`.
    ///
    /// # Errors
    /// `ChildActive`, `Aborted`; `Closed`, `Forked`.
    pub fn abort<T>(&self, value: T) -> Result<T, E>
    where
        E: From<Error>,
    {
        self.core().map_err(E::from)?;
        self.aborted.set(true);
        Ok(value)
    }

    /// Commits: a nested transaction into its parent; the outermost into the store, all or
    /// nothing.
    ///
    /// # Durability
    /// The outermost: as the store's durability, or that of the transaction's options, says. A
    /// nested one: nothing is on disk.
    ///
    /// # Errors
    /// `ChildActive`, `Aborted`, `TooLarge`, `DiskFull`: rolled back. `Io` of the outermost one: as
    /// [`Store::set`](crate::Store::set).
    pub fn commit(mut self) -> Result<()> {
        {
            let mut core = self.core()?;
            if self.level > 0 {
                core.overlay.commit_level();
            } else {
                let mut batch = match core.overlay.to_batch() {
                    Ok(batch) => batch,
                    Err(error) => {
                        drop(core);
                        return self.roll_back().and(Err(error));
                    }
                };
                let durability = core.durability;
                let turn = core.turn.take();
                drop(core);
                if let Some(turn) = turn {
                    turn.commit(&mut batch, durability)?;
                }
            }
        }
        self.ended = true;
        Ok(())
    }

    /// Runs the closure of `transaction`, and ends this transaction as it says.
    pub(crate) fn run<T>(
        mut self,
        mut body: impl FnMut(&Transaction<'_, S, K, E>) -> Result<T, E>,
    ) -> Result<T, E>
    where
        E: From<Error>,
    {
        let answer = body(&self);
        if answer.is_ok() && !self.aborted.get() {
            self.commit()?;
        } else {
            // Its failure goes before the closure's own error: that may rest on what is lost.
            self.roll_back()?;
        }
        answer
    }

    /// Undoes this level; at the outermost, waits until what it has read is as durable as it was
    /// to be: what the caller concludes from it must not be taken back.
    fn roll_back(&mut self) -> Result<()> {
        if std::mem::replace(&mut self.ended, true) {
            return Ok(());
        }
        let Ok(mut core) = self.core.try_borrow_mut() else {
            return Ok(());
        };
        if self.level > 0 {
            while core.overlay.depth() >= self.level {
                core.overlay.abort_level();
            }
            return Ok(());
        }
        // The lock goes back before the memory of a large transaction is freed.
        let (turn, sequence) = (core.turn.take(), core.sequence);
        drop(core);
        match turn {
            Some(turn) => turn.end(sequence),
            None => Ok(()),
        }
    }

    /// A nested transaction, for a closure with an error type of its own.
    pub(crate) fn nested<F>(&self) -> Result<Transaction<'_, S, K, F>> {
        // Before the level is open: it is user code, which may panic.
        let serializer = self.serializer.clone();
        let level = {
            let mut core = self.core()?;
            core.overlay.begin_level();
            core.overlay.depth()
        };
        Ok(Transaction {
            opening: self.opening.clone(),
            core: self.core.clone(),
            serializer,
            level,
            aborted: Cell::new(false),
            ended: false,
            parent: PhantomData,
            kinds: PhantomData,
        })
    }

    /// The shared core, if this level may be touched now.
    fn core(&self) -> Result<RefMut<'_, Core>> {
        self.opening.check_open()?;
        self.opening.engine.check_open()?;
        if self.aborted.get() {
            return Err(Error::Aborted);
        }
        // Nobody holds a borrow while user code runs (invariant 3), so this never fails.
        let core = self.core.try_borrow_mut().map_err(|_| Error::ChildActive)?;
        if core.overlay.depth() == self.level {
            Ok(core)
        } else {
            Err(Error::ChildActive)
        }
    }
}

impl Core {
    fn has(&self, engine: &Engine, key: &[u8]) -> bool {
        match self.overlay.get(key) {
            Some(change) => change.value.is_some(),
            None => engine.index.get(key, self.sequence).is_some(),
        }
    }

    fn delete(&mut self, engine: &Engine, key: &[u8]) -> Result<bool> {
        let there = self.has(engine, key);
        if there {
            self.overlay.change(key, None)?;
        }
        Ok(there)
    }
}

impl<S: Serializer, K: Key + ?Sized, E> Source for Transaction<'_, S, K, E> {
    fn view(&self) -> Result<View> {
        let core = self.core()?;
        let pin = Arc::new(Pin::at(&self.opening, core.sequence)?);
        Ok(View {
            pin,
            changes: Some(core.overlay.changes()),
        })
    }

    fn delete_selected(&self, selection: Selection) -> Result<u64> {
        // A cursor that lived on would share the changes, and the first one would copy them all.
        let keys = Cursor::new(self.view()?, selection).into_keys();
        let inner = self.begin()?;
        for key in &keys {
            inner.core()?.overlay.change(key, None)?;
        }
        inner.commit()?;
        Ok(keys.len() as u64)
    }
}

impl<S: Serializer, K: Key + ?Sized, E> Drop for Transaction<'_, S, K, E> {
    fn drop(&mut self) {
        // OK because a failed sync is told to those whose commits it was for.
        let _ = self.roll_back();
    }
}

impl<S: Serializer, K: Key + ?Sized, E> std::fmt::Debug for Transaction<'_, S, K, E> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Transaction")
            .field("level", &self.level)
            .field("aborted", &self.aborted)
            .finish_non_exhaustive()
    }
}
