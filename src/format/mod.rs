//! The bytes of a store: THE specification, and the only code that lays them out.
//!
//! Batches come in from `log` to be framed, and bytes from files to be taken apart. This room is
//! pure: it does no I/O, knows no path, and allocates nothing because of a length that it read.
//! All integers are little-endian. All checksums are CRC-32 as of `crc32fast`, started from a
//! seed that depends on where the bytes are, so that old bytes never verify in a new place; see
//! [`checksum`].
//!
//! # Every file's first 16 bytes
//!
//! | offset | bytes | what |
//! |---:|---:|---|
//! | 0 | 8 | magic: `hpystore` a segment, `hpymanif` the manifest, `hpyhints` hints |
//! | 8 | 4 | format version |
//! | 12 | 4 | CRC of bytes 0..12, unseeded |
//!
//! These stay as they are in every version, so that a newer file is told from a damaged one.
//!
//! # A segment: header, then records, then zeros up to the allocated length
//!
//! | offset | bytes | what |
//! |---:|---:|---|
//! | 0 | 16 | as above |
//! | 16 | 16 | store id |
//! | 32 | 4 | segment id |
//! | 36 | 4 | capacity: the length up to which the file may grow, in bytes |
//! | 40 | 8 | sequence number of the first batch in it; of a compacted one, the lowest of its entries |
//! | 48 | 1 | kind: 0 of the log, 1 compacted |
//! | 49 | 11 | zero |
//! | 60 | 4 | CRC of bytes 16..60, unseeded |
//!
//! # A record: header and payload, at offsets that are multiples of 4
//!
//! | offset | bytes | what |
//! |---:|---:|---|
//! | 0 | 4 | CRC of bytes 4..36, seeded with store id, segment id, offset |
//! | 4 | 1 | kind: 1 batch, 2 seal mark, 3 moved entries |
//! | 5 | 3 | zero |
//! | 8 | 4 | payload length in bytes, a multiple of 4 |
//! | 12 | 4 | how many entries |
//! | 16 | 8 | sequence number: of the batch; in a seal mark, of the last batch before it; of moved entries, the highest |
//! | 24 | 4 | epoch: how often the store's log had been repaired when this was written |
//! | 28 | 4 | `synced_upto`: all bytes of this segment before that offset were durable by then |
//! | 32 | 4 | CRC of the payload, seeded with store id, segment id, offset, sequence number, epoch |
//! | 36 | … | payload: the entries, one behind the other, then zeros up to a multiple of 4 |
//!
//! A batch is one outermost commit; its keys differ from each other. A seal mark has no payload,
//! and says that all before it is durable; it is written by a clean close. A segment of the log has
//! these two kinds of records. A compacted one has moved entries alone, in key order, each key once;
//! before each entry stand the 8 bytes of the sequence number that it came with.
//!
//! # An entry
//!
//! | offset | bytes | what |
//! |---:|---:|---|
//! | 0 | 4 | CRC of the rest of the entry, seeded like the payload's but with the entry's offset and own sequence number |
//! | 4 | 4 | key length in bytes |
//! | 8 | 4 | value length in bytes; top bit set: a tombstone, whose value is empty |
//! | 12 | … | the key, then the value |
//!
//! # The manifest
//!
//! | offset | bytes | what |
//! |---:|---:|---|
//! | 0 | 16 | as above |
//! | 16 | 4 | length of the file in bytes |
//! | 20 | 16 | store id |
//! | 36 | 8 | generation: raised by every new manifest |
//! | 44 | 4 | epoch |
//! | 48 | 1 | key kind: 1 UTF-8 strings, 2 bytes |
//! | 49 | 1 | length of the serializer's name |
//! | 50 | 2 | zero |
//! | 52 | 4 | how many segments |
//! | 56 | 4 | the id of the segment that is made next: no id is used twice |
//! | 60 | n | the serializer's name, UTF-8 |
//! | 60+n | 32 each | segments by their ids, see below |
//! | end-4 | 4 | CRC of all bytes from 16 to here, unseeded |
//!
//! A segment in the manifest: id (4), state (1: 1 active, 2 sealed, 3 compacted), zero (3), length in
//! bytes (8), first sequence number (8), last sequence number (8). Only the last segment of the log
//! may be active. Of a finished one, length and last sequence number are its end; of an active one,
//! an end that was durable when the manifest was written, by a clean close say, and below which
//! nothing may be missing; 0 and 0 if none is known. What a version of a key is worth follows from
//! its sequence number alone, wherever it lies; the same version may lie in two segments.
//!
//! # Hints
//!
//! The keys of a segment in order, each once: with the newest version there. A cache: without
//! them, or if anything is wrong with them, the segment is walked over, with the same result. After
//! the first 16 bytes come blocks, one behind the other, then the index of the blocks, then a footer.
//!
//! A hint in a block: sequence number (8), offset of the entry in the segment (4), epoch (4), value
//! length (4; top bit set: a tombstone), key length (4), the key. A block in the index: offset in
//! the file (8), length in bytes (4), CRC of its bytes, seeded with store id, segment id and that
//! offset (4), length of its first key (4), that key.
//!
//! | offset from the footer | bytes | what |
//! |---:|---:|---|
//! | 0 | 16 | store id |
//! | 16 | 4 | segment id |
//! | 20 | 4 | the length of the segment's header and records that they cover |
//! | 24 | 8 | the highest sequence number there |
//! | 32 | 8 | how many keys |
//! | 40 | 8 | where the index begins in the file |
//! | 48 | 4 | CRC of the index, seeded like a block's, with its offset |
//! | 52 | 8 | the length of the entries of these keys in the segment, in bytes |
//! | 60 | 8 | how many of these keys have a tombstone |
//! | 68 | 4 | CRC of bytes 0..68, unseeded |
//!
//! # Versions
//!
//! | version | since | what changed |
//! |---:|---|---|
//! | 1 | 0.1.0 | the first |

pub(crate) mod checksum;
pub(crate) mod header;
pub(crate) mod hint;
pub(crate) mod manifest;
pub(crate) mod record;
pub(crate) mod scraps;

/// The version this crate writes, and the newest it reads.
pub(crate) const FORMAT_VERSION: u32 = 1;

/// Why bytes were refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Defect {
    /// A version above [`FORMAT_VERSION`].
    Newer(u32),
    /// Damage, and what it is.
    Damaged(&'static str),
}

/// The four bytes at `at` as a number; 0 where the bytes end before, which no caller asks for.
fn read_u32(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..at + 4)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u32::from_le_bytes)
}

/// The eight bytes at `at` as a number; 0 where the bytes end before, which no caller asks for.
fn read_u64(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..at + 8)
        .and_then(|b| b.try_into().ok())
        .map_or(0, u64::from_le_bytes)
}
