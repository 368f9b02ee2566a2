//! Every limit of a store: one constant each, with its unit, and how they relate.
//!
//! A number that bounds something stands nowhere else. What is over a limit is refused by
//! [`Error::TooLarge`](crate::Error::TooLarge) or
//! [`Error::InvalidOption`](crate::Error::InvalidOption), before anything has changed.

use std::time::Duration;

/// The longest key, in bytes. The empty key is a key.
pub const KEY_BYTES_MAX: usize = 64 << 10;

/// The longest encoded value, in bytes.
pub const VALUE_BYTES_MAX: usize = 1 << 30;

/// The largest batch, in bytes: keys, encoded values and 12 bytes for each change of one
/// transaction.
pub const BATCH_BYTES_MAX: usize = 2 << 30;

/// The smallest segment target, in bytes.
pub const SEGMENT_BYTES_MIN: u64 = 512;

/// The segment target unless another is set, in bytes.
pub const SEGMENT_BYTES_DEFAULT: u64 = 64 << 20;

/// The largest segment target, in bytes.
pub const SEGMENT_BYTES_MAX: u64 = 1 << 30;

/// The first step in which a segment's space is allocated, in bytes; later steps double.
pub const ALLOCATE_BYTES_MIN: u64 = 32 << 10;

/// The largest step in which a segment's space is allocated, in bytes.
pub const ALLOCATE_BYTES_MAX: u64 = 8 << 20;

/// The most space that is kept free behind the last record, so that deletes go on while the disk
/// is full, in bytes: an eighth of what the segment has, up to this.
pub const RESERVE_BYTES_MAX: u64 = 256 << 10;

/// The longest name of a serializer, in bytes.
pub const SERIALIZER_NAME_BYTES_MAX: usize = 64;

/// The longest label, in bytes.
pub const LABEL_BYTES_MAX: usize = 64;

/// How long a writer waits for the writer lock unless another time is set: five seconds.
pub const LOCK_TIMEOUT_DEFAULT: Duration = Duration::from_secs(5);

/// The longest wait for the writer lock that can be asked for: a year.
pub const LOCK_TIMEOUT_MAX: Duration = Duration::from_hours(365 * 24);

/// The shortest delay of [`Durability::Deferred`](crate::Durability::Deferred): a millisecond.
pub const DEFERRED_DELAY_MIN: Duration = Duration::from_millis(1);

/// The longest delay of [`Durability::Deferred`](crate::Durability::Deferred): an hour.
pub const DEFERRED_DELAY_MAX: Duration = Duration::from_hours(1);

/// The keys in a page of a scan unless another number is set.
pub const PAGE_SIZE_DEFAULT: usize = 100;

/// The most keys in a page of a scan.
pub const PAGE_SIZE_MAX: usize = 1 << 20;

/// An encode buffer above this size is freed after its commit instead of kept, in bytes.
pub const SPARE_BUFFER_BYTES_MAX: usize = 1 << 20;

/// The largest segment file there can be, in bytes: a batch of the largest size with its frame
/// and a reserve.
pub const SEGMENT_FILE_BYTES_MAX: u64 = BATCH_BYTES_MAX as u64 + RESERVE_BYTES_MAX + (64 << 10);

// Offsets in a segment are stored in 32 bits.
const _: () = assert!(SEGMENT_FILE_BYTES_MAX <= u32::MAX as u64);
// A single change of the largest key and value fits in a batch.
const _: () = assert!(KEY_BYTES_MAX + VALUE_BYTES_MAX + 64 <= BATCH_BYTES_MAX);
// The top bit of a value's length marks a tombstone.
const _: () = assert!(VALUE_BYTES_MAX < 1 << 31);
const _: () = assert!(SEGMENT_BYTES_MIN <= SEGMENT_BYTES_DEFAULT);
const _: () = assert!(SEGMENT_BYTES_DEFAULT <= SEGMENT_BYTES_MAX);
const _: () = assert!(SEGMENT_BYTES_MAX <= SEGMENT_FILE_BYTES_MAX);
const _: () = assert!(ALLOCATE_BYTES_MIN <= ALLOCATE_BYTES_MAX);
// A serializer's name and a label are stored with a length of one byte.
const _: () = assert!(SERIALIZER_NAME_BYTES_MAX <= u8::MAX as usize);
const _: () = assert!(LABEL_BYTES_MAX <= u8::MAX as usize);
