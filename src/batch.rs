//! The changes of one outermost commit, in order, encoded once.
//!
//! `store` and `transaction` put changes in; `engine::commit` appends the bytes as they are. A
//! batch is bytes and knows no handle. Its buffer begins with room for the record's header, so
//! that a commit is one write of one piece of memory.

use std::cell::Cell;

use crate::error::{Error, Result, show_key};
use crate::format::record::{
    ENTRY_HEADER_BYTES, RECORD_HEADER_BYTES, RecordKind, entries, push_entry,
};
use crate::limits::{BATCH_BYTES_MAX, KEY_BYTES_MAX, SPARE_BUFFER_BYTES_MAX, VALUE_BYTES_MAX};

const HEADER_LEN: usize = RECORD_HEADER_BYTES as usize;

/// What a batch needs memory for.
#[derive(Debug, Default)]
struct Buffers {
    /// Room for a record's header, then entries.
    record: Vec<u8>,
    /// The value that is being encoded.
    value: Vec<u8>,
}

thread_local! {
    /// The buffers of the last small batch of this thread, so that most commits allocate none.
    static SPARE: Cell<Buffers> =
        const { Cell::new(Buffers { record: Vec::new(), value: Vec::new() }) };
}

/// Puts and tombstones of keys that differ from each other.
#[derive(Debug)]
pub(crate) struct Batch {
    buffers: Buffers,
    count: u32,
    has_puts: bool,
}

impl Batch {
    /// A batch without changes.
    pub(crate) fn new() -> Self {
        let mut buffers = SPARE.try_with(Cell::take).unwrap_or_default();
        buffers.record.clear();
        buffers.record.resize(HEADER_LEN, 0);
        Self {
            buffers,
            count: 0,
            has_puts: false,
        }
    }

    /// Whether there are no changes in it.
    pub(crate) fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// Adds a put of the value that `encode` writes into the empty buffer it is given.
    ///
    /// # Errors
    /// `TooLarge`, or what `encode` says; the batch is then as it was.
    pub(crate) fn put_with(
        &mut self,
        key: &[u8],
        encode: impl FnOnce(&mut Vec<u8>) -> Result<()>,
    ) -> Result<()> {
        let mut value = std::mem::take(&mut self.buffers.value);
        value.clear();
        let done = encode(&mut value).and_then(|()| self.change(key, Some(&value)));
        self.buffers.value = value;
        done
    }

    /// Adds a put of an encoded value, or a tombstone.
    ///
    /// # Errors
    /// `TooLarge`; the batch is then as it was.
    pub(crate) fn change(&mut self, key: &[u8], value: Option<&[u8]>) -> Result<()> {
        check_key(key)?;
        check_value(key, value.map_or(0, <[u8]>::len))?;
        let total = self.buffers.record.len() - HEADER_LEN + change_bytes(key, value);
        check_total(total)?;
        push_entry(&mut self.buffers.record, key, value);
        self.count += 1;
        self.has_puts |= value.is_some();
        Ok(())
    }

    /// Whether it only deletes: then it may use the space that is kept for a full disk.
    pub(crate) fn only_deletes(&self) -> bool {
        !self.has_puts
    }

    /// The buffer with room for the record's header, and how many entries are in it.
    pub(crate) fn record_mut(&mut self) -> (&mut Vec<u8>, u32) {
        (&mut self.buffers.record, self.count)
    }

    /// The changes: offset from the start of the record, key, value or tombstone.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (u32, &[u8], Option<&[u8]>)> {
        entries(
            &self.buffers.record[HEADER_LEN..],
            RecordKind::Batch,
            self.count,
        )
        .map_while(std::result::Result::ok)
        .map(|entry| (entry.at + RECORD_HEADER_BYTES, entry.key, entry.value))
    }
}

impl Drop for Batch {
    fn drop(&mut self) {
        let buffers = std::mem::take(&mut self.buffers);
        if buffers.record.capacity() + buffers.value.capacity() <= SPARE_BUFFER_BYTES_MAX {
            // OK because a thread that is ending just frees the buffers.
            let _ = SPARE.try_with(|spare| spare.set(buffers));
        }
    }
}

/// How many bytes a change takes in a batch.
pub(crate) fn change_bytes(key: &[u8], value: Option<&[u8]>) -> usize {
    ENTRY_HEADER_BYTES as usize + key.len() + value.map_or(0, <[u8]>::len)
}

/// Refuses a key over the limit.
pub(crate) fn check_key(key: &[u8]) -> Result<()> {
    if key.len() > KEY_BYTES_MAX {
        return Err(too_large(
            format!("the key {}", show_key(key)).into(),
            key.len(),
            KEY_BYTES_MAX,
        ));
    }
    Ok(())
}

/// Refuses an encoded value over the limit.
pub(crate) fn check_value(key: &[u8], value_len: usize) -> Result<()> {
    if value_len > VALUE_BYTES_MAX {
        let what = format!("the encoded value of key {}", show_key(key));
        return Err(too_large(what.into(), value_len, VALUE_BYTES_MAX));
    }
    Ok(())
}

/// Refuses a batch over the limit.
pub(crate) fn check_total(batch_bytes: usize) -> Result<()> {
    if batch_bytes > BATCH_BYTES_MAX {
        let what = "the batch of a transaction".into();
        return Err(too_large(what, batch_bytes, BATCH_BYTES_MAX));
    }
    Ok(())
}

fn too_large(what: std::borrow::Cow<'static, str>, actual: usize, max: usize) -> Error {
    Error::TooLarge {
        what,
        actual_bytes: actual as u64,
        max_bytes: max as u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_that_fails_to_encode_leaves_the_batch_as_it_was() {
        let mut batch = Batch::new();
        batch.change(b"a", Some(b"1")).unwrap();
        let failed = batch.put_with(b"b", |out| {
            out.extend_from_slice(b"half");
            Err(Error::Aborted)
        });
        assert!(failed.is_err());
        batch
            .put_with(b"c", |out| {
                out.extend_from_slice(b"3");
                Ok(())
            })
            .unwrap();
        batch.change(b"d", None).unwrap();
        let entries: Vec<_> = batch
            .entries()
            .map(|(_, key, value)| (key, value))
            .collect();
        assert_eq!(
            entries,
            [
                (&b"a"[..], Some(&b"1"[..])),
                (b"c", Some(b"3")),
                (b"d", None)
            ]
        );
        assert!(batch.change(&vec![0; KEY_BYTES_MAX + 1], None).is_err());
        assert_eq!(batch.entries().count(), 3);
    }
}
