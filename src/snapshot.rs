//! The store at one moment, to read from as long as one likes.

use std::marker::PhantomData;
use std::sync::Arc;

use crate::cursor::Selection;
use crate::engine::Opening;
use crate::engine::snapshot::Pin;
use crate::error::{Error, Result};
use crate::key::Key;
use crate::query::{Query, Scan, Source};
use crate::serializer::{Cbor, Decode, Serializer, decode};
use crate::transaction::view::View;

/// The store at one moment: it never changes, and blocks nobody.
///
/// Clones are of the same moment. What a snapshot sees is kept in memory and on disk until its
/// last clone is dropped.
///
/// # Examples
/// ```
/// let store = happystore::Store::in_memory();
/// store.set("a", &1)?;
/// let snapshot = store.snapshot()?;
/// store.set("a", &2)?;
/// assert_eq!(snapshot.get("a")?, Some(1));
/// assert_eq!(store.get("a")?, Some(2));
/// # Ok::<(), happystore::Error>(())
/// ```
pub struct Snapshot<S: Serializer = Cbor, K: Key + ?Sized = str> {
    view: View,
    serializer: S,
    keys: PhantomData<fn(&K)>,
}

impl<S: Serializer, K: Key + ?Sized> Snapshot<S, K> {
    pub(crate) fn new(opening: &Arc<Opening>, serializer: &S) -> Result<Self> {
        let view = View {
            pin: Arc::new(Pin::new(opening)?),
            changes: None,
        };
        Ok(Self {
            view,
            serializer: serializer.clone(),
            keys: PhantomData,
        })
    }

    /// The value of `key` at the snapshot's moment.
    ///
    /// # Errors
    /// `Decode` with the key; `Corrupt`, `Io`; `Closed`, `Forked`.
    pub fn get<V>(&self, key: &K) -> Result<Option<V>>
    where
        S: Decode<V>,
    {
        let key = key.as_bytes();
        self.view.check_open()?;
        self.view
            .read(key, |bytes| decode(&self.serializer, key, bytes))
    }

    /// Whether `key` was there at the snapshot's moment.
    ///
    /// # Errors
    /// `Closed`, `Forked`.
    pub fn has(&self, key: &K) -> Result<bool> {
        self.view.check_open()?;
        Ok(self
            .view
            .pin
            .engine()
            .index
            .get(key.as_bytes(), self.view.pin.sequence)
            .is_some())
    }

    /// The values of `keys` at the snapshot's moment, in the order asked.
    ///
    /// # Errors
    /// As [`Snapshot::get`].
    pub fn bulk_get<V>(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<K>>,
    ) -> Result<Vec<Option<V>>>
    where
        S: Decode<V>,
    {
        keys.into_iter().map(|key| self.get(key.as_ref())).collect()
    }

    /// Reads or counts a range of keys at the snapshot's moment.
    pub fn query(&self) -> Query<'_, S, K> {
        Query::new(self, &self.serializer)
    }

    /// Everything at the snapshot's moment, in pages.
    pub fn scan(&self) -> Scan<'_, S, K> {
        Scan::new(self, &self.serializer)
    }
}

impl<S: Serializer, K: Key + ?Sized> Source for Snapshot<S, K> {
    fn view(&self) -> Result<View> {
        self.view.check_open()?;
        Ok(self.view.clone())
    }

    fn delete_selected(&self, _selection: Selection) -> Result<u64> {
        Err(Error::InvalidQuery {
            what: "a snapshot never changes; delete from its store",
        })
    }
}

impl<S: Serializer, K: Key + ?Sized> Clone for Snapshot<S, K> {
    fn clone(&self) -> Self {
        let (view, serializer) = (self.view.clone(), self.serializer.clone());
        Self {
            view,
            serializer,
            keys: PhantomData,
        }
    }
}

impl<S: Serializer, K: Key + ?Sized> std::fmt::Debug for Snapshot<S, K> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Snapshot")
            .field("sequence", &self.view.pin.sequence)
            .finish_non_exhaustive()
    }
}
