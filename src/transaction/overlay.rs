//! The changes of an open transaction, at every nesting level.
//!
//! All levels share one map of changes; what an inner level replaced is kept in an undo list, so
//! that a read costs the same at any depth, an inner commit costs nothing, and an inner abort
//! costs what it undoes. The map is shared with iterators and copied only if it changes while one
//! of them lives.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::batch::{Batch, change_bytes, check_key, check_total, check_value};
use crate::error::Result;

/// Keys and what became of them: a new value, or `None` for deleted.
pub(crate) type Changes = BTreeMap<Arc<[u8]>, Change>;

/// What became of a key.
#[derive(Debug, Clone)]
pub(crate) struct Change {
    /// The encoded value; `None` is a tombstone.
    pub(crate) value: Option<Arc<[u8]>>,
    /// The position in the undo list behind what this change replaced; 0 if it is not there.
    undo_end: u64,
}

/// What a key was before a level changed it for the first time.
struct Undo {
    key: Arc<[u8]>,
    before: Option<Change>,
}

/// The changes of a transaction and of the nested ones in it.
#[derive(Default)]
pub(crate) struct Overlay {
    changes: Arc<Changes>,
    undo: Vec<Undo>,
    /// How much of the undo list was forgotten at its front: positions go on counting.
    forgotten: u64,
    /// For each nested level, the end of the undo list when it began.
    levels: Vec<u64>,
    /// What the changes would take in a batch.
    batch_bytes: usize,
}

impl Overlay {
    /// How many nested levels are open.
    pub(crate) fn depth(&self) -> usize {
        self.levels.len()
    }

    /// Opens a nested level.
    pub(crate) fn begin_level(&mut self) {
        self.levels.push(self.undo_end());
    }

    /// Folds the innermost level into the one around it.
    pub(crate) fn commit_level(&mut self) {
        self.levels.pop();
        if self.levels.is_empty() {
            // The outermost transaction undoes nothing but all.
            self.forgotten = self.undo_end();
            self.undo.clear();
        }
    }

    /// Undoes the innermost level.
    pub(crate) fn abort_level(&mut self) {
        let Some(level) = self.levels.pop() else {
            return;
        };
        while self.undo_end() > level {
            let Some(undo) = self.undo.pop() else { return };
            self.put_back(undo);
        }
    }

    /// What became of `key`; `None` if nothing did.
    pub(crate) fn get(&self, key: &[u8]) -> Option<&Change> {
        self.changes.get(key)
    }

    /// All changes as they are now.
    pub(crate) fn changes(&self) -> Arc<Changes> {
        self.changes.clone()
    }

    /// Sets `key` to an encoded value, or deletes it.
    ///
    /// # Errors
    /// `TooLarge`; nothing has changed.
    pub(crate) fn change(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        check_key(key)?;
        check_value(key, value.map_or(0, <[u8]>::len))?;
        let changes = Arc::make_mut(&mut self.changes);
        let before = changes.get_mut(key);
        let before_bytes = before
            .as_ref()
            .map_or(0, |before| change_bytes(key, before.value.as_deref()));
        let batch_bytes = self.batch_bytes - before_bytes + change_bytes(key, value);
        check_total(batch_bytes)?;
        self.batch_bytes = batch_bytes;
        let value = value.map(Arc::from);
        let level = self.levels.last().copied();
        match before {
            Some(change) if level.is_none_or(|level| change.undo_end > level) => {
                change.value = value;
            }
            before => {
                let before = before.map(|change| change.clone());
                let key: Arc<[u8]> = key.into();
                if level.is_some() {
                    self.undo.push(Undo {
                        key: key.clone(),
                        before,
                    });
                }
                let undo_end = if level.is_some() {
                    self.forgotten + self.undo.len() as u64
                } else {
                    0
                };
                changes.insert(key, Change { value, undo_end });
            }
        }
        Ok(())
    }

    /// The batch of all changes, in key order.
    ///
    /// # Errors
    /// `TooLarge`.
    pub(crate) fn to_batch(&self) -> Result<Batch> {
        let mut batch = Batch::new();
        for (key, change) in self.changes.iter() {
            batch.change(key, change.value.as_deref())?;
        }
        Ok(batch)
    }

    fn undo_end(&self) -> u64 {
        self.forgotten + self.undo.len() as u64
    }

    fn put_back(&mut self, undo: Undo) {
        let Undo { key, before } = undo;
        let bytes = |change: &Change| change_bytes(&key, change.value.as_deref());
        self.batch_bytes += before.as_ref().map_or(0, bytes);
        let changes = Arc::make_mut(&mut self.changes);
        let now = match before {
            Some(before) => changes.insert(key.clone(), before),
            None => changes.remove(&key),
        };
        self.batch_bytes -= now.as_ref().map_or(0, bytes);
    }
}

#[cfg(test)]
mod tests {
    use super::Overlay;

    fn shown(overlay: &Overlay) -> Vec<(String, Option<String>)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let changes = overlay.changes();
        changes
            .iter()
            .map(|(k, c)| (text(k), c.value.as_deref().map(text)))
            .collect()
    }

    fn set(overlay: &mut Overlay, key: &str, value: &str) {
        overlay
            .change(key.as_bytes(), Some(value.as_bytes()))
            .unwrap();
    }

    #[test]
    fn a_level_undoes_itself_and_what_was_folded_into_it() {
        let mut overlay = Overlay::default();
        set(&mut overlay, "a", "0");
        let at_top = shown(&overlay);
        overlay.begin_level();
        set(&mut overlay, "a", "1");
        set(&mut overlay, "b", "1");
        let at_one = shown(&overlay);
        overlay.begin_level();
        set(&mut overlay, "a", "2");
        overlay.commit_level();
        overlay.begin_level();
        set(&mut overlay, "a", "3");
        overlay.change(b"b", None).unwrap();
        overlay.abort_level();
        assert_eq!(
            overlay.get(b"a").and_then(|c| c.value.as_deref()),
            Some(&b"2"[..])
        );
        set(&mut overlay, "a", "1");
        assert_eq!(shown(&overlay), at_one);
        set(&mut overlay, "c", "1");
        overlay.abort_level();
        assert_eq!(shown(&overlay), at_top);
        assert_eq!(overlay.batch_bytes, 12 + 2);
        overlay.begin_level();
        set(&mut overlay, "a", "9");
        overlay.commit_level();
        assert!(overlay.undo.is_empty());
        overlay.begin_level();
        set(&mut overlay, "a", "8");
        overlay.abort_level();
        assert_eq!(
            overlay.get(b"a").and_then(|c| c.value.as_deref()),
            Some(&b"9"[..])
        );
    }
}
