//! Reading and writing, whatever it is: a store, a transaction, a snapshot.
//!
//! [`Read`] and [`Write`] say once what these types have in common, so that a function can take
//! any of them. Every method does what the type's own method of that name does.

use crate::error::{Error, Result};
use crate::key::Key;
use crate::query::{Query, Scan};
use crate::serializer::{Cbor, Decode, Encode, Serializer};
use crate::snapshot::Snapshot;
use crate::store::Store;
use crate::transaction::Transaction;

/// What can be read: [`Store`], [`Transaction`], [`Snapshot`].
///
/// # Examples
/// ```
/// use happystore::{Read, Result, Store};
///
/// fn total(db: &impl Read) -> Result<i64> {
///     let pairs = db.query().prefix("account/").pairs::<i64>()?;
///     Ok(pairs.into_iter().map(|(_, amount)| amount).sum())
/// }
///
/// let store = Store::in_memory();
/// store.bulk_set([("account/1", 10), ("account/2", 5)])?;
/// assert_eq!(total(&store)?, 15);
/// assert_eq!(total(&store.snapshot()?)?, 15);
/// # Ok::<(), happystore::Error>(())
/// ```
pub trait Read<S: Serializer = Cbor, K: Key + ?Sized = str> {
    /// The value of `key`; `None` if it is missing.
    ///
    /// # Errors
    /// As the type's own `get`.
    fn get<V>(&self, key: &K) -> Result<Option<V>>
    where
        S: Decode<V>;

    /// Whether `key` is there.
    ///
    /// # Errors
    /// As the type's own `has`.
    fn has(&self, key: &K) -> Result<bool>;

    /// The values of `keys`, in the order asked.
    ///
    /// # Errors
    /// As the type's own `bulk_get`.
    fn bulk_get<V>(&self, keys: impl IntoIterator<Item = impl AsRef<K>>) -> Result<Vec<Option<V>>>
    where
        S: Decode<V>;

    /// Reads or counts a range of keys.
    fn query(&self) -> Query<'_, S, K>;

    /// Everything, in pages.
    fn scan(&self) -> Scan<'_, S, K>;
}

/// What can be written: [`Store`], [`Transaction`].
///
/// # Examples
/// ```
/// use happystore::{Result, Store, Write};
///
/// fn transfer(db: &impl Write, from: &str, to: &str, amount: i64) -> Result<()> {
///     db.transaction(|tx| {
///         let (a, b) = (tx.get(from)?.unwrap_or(0), tx.get(to)?.unwrap_or(0));
///         tx.set(from, &(a - amount))?;
///         tx.set(to, &(b + amount))
///     })
/// }
///
/// let store = Store::in_memory();
/// transfer(&store, "anna", "ben", 5)?; // a transaction of its own
/// let tx = store.begin()?;
/// transfer(&tx, "anna", "ben", 5)?; // nested in another
/// tx.commit()?;
/// assert_eq!(store.get("ben")?, Some(10_i64));
/// # Ok::<(), happystore::Error>(())
/// ```
pub trait Write<S: Serializer = Cbor, K: Key + ?Sized = str>: Read<S, K> {
    /// Sets `key` to `value`.
    ///
    /// # Errors
    /// As the type's own `set`.
    fn set<V: ?Sized>(&self, key: &K, value: &V) -> Result<()>
    where
        S: Encode<V>;

    /// Deletes `key`; true if it was there.
    ///
    /// # Errors
    /// As the type's own `delete`.
    fn delete(&self, key: &K) -> Result<bool>;

    /// Sets all of `pairs`, or none of them; the last of equal keys wins.
    ///
    /// # Errors
    /// As the type's own `bulk_set`.
    fn bulk_set<V>(&self, pairs: impl IntoIterator<Item = (impl AsRef<K>, V)>) -> Result<()>
    where
        S: Encode<V>;

    /// Deletes `keys`; for each, in the order asked, whether it was there.
    ///
    /// # Errors
    /// As the type's own `bulk_delete`.
    fn bulk_delete(&self, keys: impl IntoIterator<Item = impl AsRef<K>>) -> Result<Vec<bool>>;

    /// Begins a transaction: of its own on a store, nested on a transaction.
    ///
    /// # Errors
    /// As the type's own `begin`.
    fn begin(&self) -> Result<Transaction<'_, S, K>>;

    /// Runs `body` in a transaction: of its own on a store, nested on a transaction.
    ///
    /// # Errors
    /// As the type's own `transaction`.
    fn transaction<T, E: From<Error>>(
        &self,
        body: impl FnMut(&Transaction<'_, S, K, E>) -> Result<T, E>,
    ) -> Result<T, E>;
}

macro_rules! forward_read {
    ([$($generics:tt)*] $type:ty) => {
        impl<$($generics)*> Read<S, K> for $type {
            fn get<V>(&self, key: &K) -> Result<Option<V>>
            where
                S: Decode<V>,
            {
                <$type>::get(self, key)
            }

            fn has(&self, key: &K) -> Result<bool> {
                <$type>::has(self, key)
            }

            fn bulk_get<V>(
                &self,
                keys: impl IntoIterator<Item = impl AsRef<K>>,
            ) -> Result<Vec<Option<V>>>
            where
                S: Decode<V>,
            {
                <$type>::bulk_get(self, keys)
            }

            fn query(&self) -> Query<'_, S, K> {
                <$type>::query(self)
            }

            fn scan(&self) -> Scan<'_, S, K> {
                <$type>::scan(self)
            }
        }
    };
}

macro_rules! forward_write {
    ([$($generics:tt)*] $type:ty, $begin:ident) => {
        impl<$($generics)*> Write<S, K> for $type {
            fn set<V: ?Sized>(&self, key: &K, value: &V) -> Result<()>
            where
                S: Encode<V>,
            {
                <$type>::set(self, key, value)
            }

            fn delete(&self, key: &K) -> Result<bool> {
                <$type>::delete(self, key)
            }

            fn bulk_set<V>(
                &self,
                pairs: impl IntoIterator<Item = (impl AsRef<K>, V)>,
            ) -> Result<()>
            where
                S: Encode<V>,
            {
                <$type>::bulk_set(self, pairs)
            }

            fn bulk_delete(
                &self,
                keys: impl IntoIterator<Item = impl AsRef<K>>,
            ) -> Result<Vec<bool>> {
                <$type>::bulk_delete(self, keys)
            }

            fn begin(&self) -> Result<Transaction<'_, S, K>> {
                self.$begin()
            }

            fn transaction<T, F: From<Error>>(
                &self,
                body: impl FnMut(&Transaction<'_, S, K, F>) -> Result<T, F>,
            ) -> Result<T, F> {
                self.$begin()?.run(body)
            }
        }
    };
}

forward_read!([S: Serializer, K: Key + ?Sized] Store<S, K>);
forward_read!([S: Serializer, K: Key + ?Sized] Snapshot<S, K>);
forward_read!([S: Serializer, K: Key + ?Sized, E] Transaction<'_, S, K, E>);
forward_write!([S: Serializer, K: Key + ?Sized] Store<S, K>, begin_any);
forward_write!([S: Serializer, K: Key + ?Sized, E] Transaction<'_, S, K, E>, nested);
