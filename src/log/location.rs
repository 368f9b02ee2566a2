//! Where an entry lies, and from when it is.

use crate::format::checksum::Stamp;
use crate::format::record::ENTRY_HEADER_BYTES;

/// The value length that marks a tombstone; no value is that long.
const TOMBSTONE: u32 = u32::MAX;

/// Where an entry lies in the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Location {
    /// The segment's id.
    pub(crate) segment: u32,
    /// The entry's offset in it.
    pub(crate) offset: u32,
    /// The epoch it was written in, which its checksum is seeded with.
    pub(crate) epoch: u32,
    value_bytes: u32,
}

impl Location {
    /// The location of an entry; `value_bytes` is `None` for a tombstone.
    pub(crate) fn new(segment: u32, offset: u32, epoch: u32, value_bytes: Option<u32>) -> Self {
        Self {
            segment,
            offset,
            epoch,
            value_bytes: value_bytes.unwrap_or(TOMBSTONE),
        }
    }

    /// The value's length in bytes; `None` is a tombstone.
    pub(crate) fn value_bytes(&self) -> Option<u32> {
        (self.value_bytes != TOMBSTONE).then_some(self.value_bytes)
    }
}

/// One version of a key: from when, and where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Version {
    /// The sequence number of the batch that wrote it.
    pub(crate) sequence: u64,
    /// Where it lies.
    pub(crate) location: Location,
}

impl Version {
    /// Whether this version says that the key is deleted.
    pub(crate) fn is_tombstone(&self) -> bool {
        self.location.value_bytes().is_none()
    }

    /// What the entry's checksum is seeded with.
    pub(crate) fn stamp(&self) -> Stamp {
        Stamp {
            sequence: self.sequence,
            epoch: self.location.epoch,
        }
    }

    /// The length of the whole entry in bytes, for a key of `key_len` bytes.
    pub(crate) fn entry_bytes(&self, key_len: usize) -> u64 {
        let value_bytes = self.location.value_bytes().unwrap_or(0);
        u64::from(ENTRY_HEADER_BYTES) + key_len as u64 + u64::from(value_bytes)
    }
}
