//! The store: each method a few lines into the rooms below.
//!
//! Users come in here. A value goes on through its serializer, into a batch or a transaction, and
//! from there to `engine::commit`; a read goes to the engine, or through a view to a cursor.

mod care;

use std::collections::HashSet;
use std::marker::PhantomData;
use std::path::Path;
use std::sync::Arc;

use crate::batch::{Batch, change_bytes, check_key, check_total, check_value};
use crate::compaction;
use crate::cursor::{Cursor, Selection};
use crate::engine::open::{Wanted, open};
use crate::engine::snapshot::Pin;
use crate::engine::writer_lock::WriteTurn;
use crate::engine::{Engine, Opening};
use crate::error::{Error, Result};
use crate::format::manifest::KeyKind;
use crate::key::Key;
use crate::options::{Options, Settings};
use crate::query::{Query, Scan, Source};
use crate::serializer::{Cbor, Decode, Encode, Serializer, decode, encode};
use crate::snapshot::Snapshot;
use crate::transaction::view::View;
use crate::transaction::{Transaction, TxOptions};
use crate::vfs::Vfs;

/// An embedded, ordered key-value store.
///
/// `S` turns values into bytes ([`Cbor`] by default), `K` is what keys are (`str` by default).
/// Clones share one engine, and may be used from any thread. Each call is a strictly
/// serializable transaction of its own; several calls in one are a
/// [`transaction`](Store::transaction).
///
/// The store is closed when the last clone, transaction, snapshot and iterator is gone, or by
/// [`Store::close`], which tells of errors.
///
/// # Examples
/// ```
/// use happystore::Store;
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("data");
/// let store = Store::open(&path)?;
/// store.set("user/1", "Anna")?;
/// assert_eq!(store.get::<String>("user/1")?.as_deref(), Some("Anna"));
/// assert!(store.delete("user/1")?);
/// store.close()?;
/// # Ok::<(), happystore::Error>(())
/// ```
pub struct Store<S: Serializer = Cbor, K: Key + ?Sized = str> {
    opening: Arc<Opening>,
    serializer: S,
    keys: PhantomData<fn(&K)>,
}

impl Store {
    /// Opens the store in the directory `path`, made if it is missing, with the defaults of
    /// [`Options`].
    ///
    /// # Errors
    /// As [`Options::open`].
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        Options::new().open(path)
    }

    /// A new store in memory, gone with its last handle; same type, same semantics, no files.
    ///
    /// # Panics
    /// Never: an empty machine in memory refuses nothing.
    pub fn in_memory() -> Self {
        Options::new()
            .in_memory()
            .expect("OK because defaults are in bounds and memory has no errors")
    }
}

impl<S: Serializer, K: Key + ?Sized> Store<S, K> {
    pub(crate) fn open_on(
        vfs: &Arc<dyn Vfs>,
        path: &Path,
        settings: &Settings,
        serializer: S,
    ) -> Result<Self> {
        let key_kind = if K::TEXT {
            KeyKind::Text
        } else {
            KeyKind::Bytes
        };
        let wanted = Wanted {
            key_kind,
            serializer: serializer.name(),
        };
        let opening = open(vfs, path, settings, &wanted)?;
        compaction::start(&opening.engine, &settings.compaction);
        Ok(Self {
            opening,
            serializer,
            keys: PhantomData,
        })
    }

    /// The same store, read and written with another serializer. The name in the store stays.
    ///
    /// # Examples
    /// ```
    /// use happystore::{Raw, Store};
    ///
    /// let store = Store::in_memory();
    /// store.with(Raw).set("bytes", &[1, 2, 3])?;
    /// assert_eq!(store.with(Raw).get("bytes")?, Some(vec![1, 2, 3]));
    /// # Ok::<(), happystore::Error>(())
    /// ```
    pub fn with<T: Serializer>(&self, serializer: T) -> Store<T, K> {
        Store {
            opening: self.opening.clone(),
            serializer,
            keys: PhantomData,
        }
    }

    /// The value of `key`; `None` if it is missing, as any key over the limit is.
    ///
    /// # Blocking
    /// Waits for nobody.
    ///
    /// # Errors
    /// `Decode` with the key, if the value is not of this type; `Corrupt`, `Io`; `Closed`,
    /// `Forked`.
    pub fn get<V>(&self, key: &K) -> Result<Option<V>>
    where
        S: Decode<V>,
    {
        let key = key.as_bytes();
        let decode = |bytes: &[u8]| decode(&self.serializer, key, bytes);
        self.engine()?.read_visible(key, decode)?.transpose()
    }

    /// Whether `key` is there; reads no value.
    ///
    /// # Blocking
    /// Waits for nobody.
    ///
    /// # Errors
    /// `Closed`, `Forked`.
    pub fn has(&self, key: &K) -> Result<bool> {
        self.engine()?.has_visible(key.as_bytes())
    }

    /// The values of `keys` at one moment, in the order asked.
    ///
    /// # Errors
    /// As [`Store::get`].
    pub fn bulk_get<V>(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<K>>,
    ) -> Result<Vec<Option<V>>>
    where
        S: Decode<V>,
    {
        self.snapshot()?.bulk_get(keys)
    }

    /// Sets `key` to `value`.
    ///
    /// # Durability
    /// As the store was opened: on disk ([`Durability::Sync`](crate::Durability::Sync)), or with
    /// the operating system.
    ///
    /// # Blocking
    /// Waits for other writers, up to the lock timeout; then, as its durability says, for a sync
    /// that it shares with those who commit at the same time. Waiting for the disk has no deadline.
    /// Whoever fills a segment syncs it, whatever its durability, and other writers wait for that.
    ///
    /// # Errors
    /// `Encode` with the key, `TooLarge`, `LockTimeout`, `WouldDeadlock`, `DiskFull`, `ReadOnly`,
    /// `Poisoned`, `Closed`, `Forked`: nothing has changed. `Io`: of a file that could not be made
    /// or given space (no descriptors, no permission, a limit of its length), nothing has changed;
    /// of a failed write or sync ([`Error::may_have_changed`](crate::Error::may_have_changed)), the
    /// outcome is unknown until the store is reopened: all, or nothing.
    pub fn set<V: ?Sized>(&self, key: &K, value: &V) -> Result<()>
    where
        S: Encode<V>,
    {
        let key = key.as_bytes();
        let mut batch = Batch::new();
        batch.put_with(key, |out| encode(&self.serializer, key, value, out))?;
        self.turn()?.commit(&mut batch, self.opening.durability)
    }

    /// Deletes `key`; true if it was there.
    ///
    /// # Durability
    /// As [`Store::set`].
    ///
    /// # Blocking
    /// As [`Store::set`].
    ///
    /// # Errors
    /// As [`Store::set`], but for `Encode`.
    pub fn delete(&self, key: &K) -> Result<bool> {
        Ok(self.delete_bytes(&[key.as_bytes()])?.contains(&true))
    }

    /// Sets all of `pairs` at once, as one batch with one sync; the last of equal keys wins.
    ///
    /// # Durability
    /// As [`Store::set`].
    ///
    /// # Blocking
    /// As [`Store::set`], after `pairs` has ended.
    ///
    /// # Errors
    /// As [`Store::set`]; none of the pairs is set.
    pub fn bulk_set<V>(&self, pairs: impl IntoIterator<Item = (impl AsRef<K>, V)>) -> Result<()>
    where
        S: Encode<V>,
    {
        let mut batch = self.batch_of(pairs)?;
        self.turn()?.commit(&mut batch, self.opening.durability)
    }

    /// Deletes `keys` at once; for each, in the order asked, whether it was there. A key named
    /// twice was there once: true, then false.
    ///
    /// # Durability
    /// As [`Store::set`].
    ///
    /// # Blocking
    /// As [`Store::set`].
    ///
    /// # Errors
    /// As [`Store::set`], but for `Encode`; none of the keys is deleted.
    pub fn bulk_delete(&self, keys: impl IntoIterator<Item = impl AsRef<K>>) -> Result<Vec<bool>> {
        // Whatever the iterator does, it does it before the lock is taken.
        let keys: Vec<_> = keys.into_iter().collect();
        let bytes: Vec<_> = keys.iter().map(|key| key.as_ref().as_bytes()).collect();
        self.delete_bytes(&bytes)
    }

    /// Reads, counts or deletes a range of keys.
    pub fn query(&self) -> Query<'_, S, K> {
        Query::new(self, &self.serializer)
    }

    /// Everything, in pages, of one moment.
    pub fn scan(&self) -> Scan<'_, S, K> {
        Scan::new(self, &self.serializer)
    }

    /// The store as it is now, to read from later.
    ///
    /// # Errors
    /// `Closed`, `Forked`.
    pub fn snapshot(&self) -> Result<Snapshot<S, K>> {
        Snapshot::new(&self.opening, &self.serializer)
    }

    /// Runs `body` in a transaction: committed if it returns `Ok`; rolled back if it returns
    /// `Err`, panics, or returns what [`Transaction::abort`] gave.
    ///
    /// If the compiler cannot tell the error type, say it: `|tx| -> happystore::Result<_> { .. }`.
    /// The closure returns, and does not call `commit`; a function that it calls takes
    /// `&impl Write` or `&impl Read`, see [`Write`](crate::Write).
    ///
    /// `body` runs exactly once. It is `FnMut` so that the same closure can serve an optimistic
    /// engine one day. Inside, write through the transaction: writing through the store is
    /// `WouldDeadlock`, reading through it shows the last committed state.
    ///
    /// # Examples
    /// ```
    /// use happystore::{Error, Store};
    ///
    /// let store = Store::in_memory();
    /// store.set("stock", &3)?;
    /// let left = store.transaction(|tx| -> Result<i64, Error> {
    ///     let stock: i64 = tx.get("stock")?.unwrap_or(0);
    ///     if stock == 0 {
    ///         return tx.abort(0); // rolled back
    ///     }
    ///     tx.set("stock", &(stock - 1))?;
    ///     Ok(stock - 1)
    /// })?;
    /// assert_eq!(left, 2);
    /// # Ok::<(), happystore::Error>(())
    /// ```
    ///
    /// # Durability
    /// As [`Store::set`].
    ///
    /// # Blocking
    /// At its begin for other writers, up to the lock timeout; at its end, committed or not, for
    /// the sync of what it has written or read.
    ///
    /// # Errors
    /// What `body` returns; as [`Store::begin`] and [`Transaction::commit`].
    pub fn transaction<T, E: From<Error>>(
        &self,
        body: impl FnMut(&Transaction<'_, S, K, E>) -> Result<T, E>,
    ) -> Result<T, E> {
        self.begin_any()?.run(body)
    }

    /// Begins a transaction; dropped without [`Transaction::commit`], it is rolled back.
    ///
    /// # Blocking
    /// Waits for other writers, up to the lock timeout. Its end waits as [`Store::transaction`]'s.
    ///
    /// # Errors
    /// `LockTimeout`, `WouldDeadlock`, `ReadOnly`, `Poisoned`, `Closed`, `Forked`.
    pub fn begin(&self) -> Result<Transaction<'static, S, K>> {
        self.begin_any()
    }

    /// Begins a transaction that differs from the store in some options.
    ///
    /// # Blocking
    /// Waits for other writers, up to the transaction's timeout.
    ///
    /// # Errors
    /// As [`Store::begin`]; `InvalidOption` for an option out of bounds.
    pub fn begin_with(&self, options: &TxOptions) -> Result<Transaction<'static, S, K>> {
        Transaction::begin_top(&self.opening, &self.serializer, options)
    }

    /// Closes the store, whatever clones there are: they answer `Closed` from then on. Another
    /// opening of the same directory in this process stays open.
    ///
    /// # Durability
    /// Everything is on disk when this returns, whatever the durability.
    ///
    /// # Blocking
    /// Waits for the transaction that is open, up to the lock timeout.
    ///
    /// # Errors
    /// `WouldDeadlock`, `LockTimeout` if a transaction stays open: nothing is closed then, and the
    /// store closes with its last handle. `Poisoned`, or the `Io` of the last sync: it is closed all the same.
    /// `Closed` if it was closed before; `Forked`.
    pub fn close(self) -> Result<()> {
        self.opening.close()
    }

    pub(crate) fn begin_any<E>(&self) -> Result<Transaction<'static, S, K, E>> {
        Transaction::begin_top(&self.opening, &self.serializer, &TxOptions::default())
    }

    fn engine(&self) -> Result<&Arc<Engine>> {
        self.opening.check_open()?;
        Ok(&self.opening.engine)
    }

    fn turn(&self) -> Result<WriteTurn<&Engine>> {
        let engine = self.engine()?;
        Engine::begin(
            &engine.as_ref(),
            self.opening.lock_timeout,
            Some(&self.opening.label),
        )
    }

    /// A batch of `pairs` in key order, encoded before any lock is taken.
    fn batch_of<V>(&self, pairs: impl IntoIterator<Item = (impl AsRef<K>, V)>) -> Result<Batch>
    where
        S: Encode<V>,
    {
        let mut encoded: Vec<(Vec<u8>, Vec<u8>)> = Vec::new();
        let mut total = 0;
        for (key, value) in pairs {
            let key = key.as_ref().as_bytes();
            check_key(key)?;
            let mut bytes = Vec::new();
            encode(&self.serializer, key, &value, &mut bytes)?;
            check_value(key, bytes.len())?;
            total += change_bytes(key, Some(&bytes));
            check_total(total)?;
            encoded.push((key.to_vec(), bytes));
        }
        // Stable, so that the last of equal keys stays the last of them.
        encoded.sort_by(|(a, _), (b, _)| a.cmp(b));
        let mut batch = Batch::new();
        for (at, (key, value)) in encoded.iter().enumerate() {
            if encoded.get(at + 1).is_none_or(|(next, _)| next != key) {
                batch.change(key, Some(value))?;
            }
        }
        Ok(batch)
    }

    fn delete_bytes(&self, keys: &[&[u8]]) -> Result<Vec<bool>> {
        let turn = self.turn()?;
        let sequence = turn.sequence();
        let index = &self.opening.engine.index;
        let mut seen = HashSet::new();
        let mut batch = Batch::new();
        let mut gone = Vec::new();
        for &key in keys {
            let there = index.get(key, sequence).is_some() && seen.insert(key);
            if there {
                batch.change(key, None)?;
            }
            gone.push(there);
        }
        turn.commit(&mut batch, self.opening.durability)?;
        Ok(gone)
    }
}

impl<S: Serializer, K: Key + ?Sized> Source for Store<S, K> {
    fn view(&self) -> Result<View> {
        Ok(View {
            pin: Arc::new(Pin::new(&self.opening)?),
            changes: None,
        })
    }

    fn delete_selected(&self, selection: Selection) -> Result<u64> {
        let turn = self.turn()?;
        let pin = Arc::new(Pin::at(&self.opening, turn.sequence())?);
        let mut cursor = Cursor::new(View { pin, changes: None }, selection);
        let mut batch = Batch::new();
        let mut count = 0;
        while let Some(item) = cursor.next() {
            batch.change(item.key(), None)?;
            count += 1;
        }
        turn.commit(&mut batch, self.opening.durability)?;
        Ok(count)
    }
}

impl<S: Serializer, K: Key + ?Sized> Clone for Store<S, K> {
    fn clone(&self) -> Self {
        self.with(self.serializer.clone())
    }
}

impl<S: Serializer, K: Key + ?Sized> std::fmt::Debug for Store<S, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Store")
            .field("path", &self.opening.engine.identity.path)
            .field("access", &self.opening.engine.identity.access)
            .field("serializer", &self.serializer.name())
            .finish_non_exhaustive()
    }
}
