//! Records and their entries: the frame of a batch, and of one change in it.
//!
//! [`crate::batch`] lays entries out with [`push_entry`], compaction with [`push_moved`]; when
//! their place is known, [`seal_record`] fills in every checksum. On the way back, [`RecordHeader::decode`] believes a
//! length only after the header's own checksum, and [`entries`] walks a verified payload.

use super::checksum::{Place, Stamp, content_crc, header_crc};
use super::{read_u32, read_u64};
use crate::limits::KEY_BYTES_MAX;

/// The length of a record's header.
pub(crate) const RECORD_HEADER_BYTES: u32 = 36;

/// The length of an entry before its key.
pub(crate) const ENTRY_HEADER_BYTES: u32 = 12;

/// Records begin at multiples of this.
pub(crate) const RECORD_ALIGN: u32 = 4;

const HEADER_LEN: usize = RECORD_HEADER_BYTES as usize;
const ENTRY_LEN: usize = ENTRY_HEADER_BYTES as usize;
const TOMBSTONE_BIT: u32 = 1 << 31;

/// The length of what stands before an entry that was moved: its sequence number.
pub(crate) const MOVED_BYTES: u32 = 8;

const MOVED_LEN: usize = MOVED_BYTES as usize;

/// What a record is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RecordKind {
    /// The changes of one outermost commit.
    Batch,
    /// All before it is durable.
    SealMark,
    /// Entries of other records, moved here by compaction, each with its own sequence number.
    Moved,
}

impl RecordKind {
    /// How many bytes stand before each entry.
    fn before_entry(self) -> usize {
        match self {
            Self::Moved => MOVED_LEN,
            Self::Batch | Self::SealMark => 0,
        }
    }
}

/// A record's header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    /// What it is.
    pub(crate) kind: RecordKind,
    /// The length of what follows, in bytes.
    pub(crate) payload_bytes: u32,
    /// How many entries follow.
    pub(crate) entry_count: u32,
    /// Sequence number and epoch.
    pub(crate) stamp: Stamp,
    /// Up to where this segment was durable when this was written.
    pub(crate) synced_upto: u32,
    /// The checksum of the payload.
    payload_crc: u32,
}

impl RecordHeader {
    /// Takes the header at `place` apart; `None` if there is no whole header here.
    pub(crate) fn decode(place: Place, bytes: &[u8]) -> Option<Self> {
        let bytes = bytes.get(..HEADER_LEN)?;
        let kind = match bytes[4..8] {
            [1, 0, 0, 0] => RecordKind::Batch,
            [2, 0, 0, 0] => RecordKind::SealMark,
            [3, 0, 0, 0] => RecordKind::Moved,
            _ => return None,
        };
        if header_crc(place, &bytes[4..]) != read_u32(bytes, 0) {
            return None;
        }
        Some(Self {
            kind,
            payload_bytes: read_u32(bytes, 8),
            entry_count: read_u32(bytes, 12),
            stamp: Stamp {
                sequence: read_u64(bytes, 16),
                epoch: read_u32(bytes, 24),
            },
            synced_upto: read_u32(bytes, 28),
            payload_crc: read_u32(bytes, 32),
        })
    }

    /// Whether `payload` is what was written behind this header at `place`.
    pub(crate) fn verifies(&self, place: Place, payload: &[u8]) -> bool {
        payload.len() == self.payload_bytes as usize
            && content_crc(place, self.stamp, payload) == self.payload_crc
    }
}

/// One change as it lies in a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct EntryRef<'a> {
    /// Where the entry begins, from the start of the payload, in bytes.
    pub(crate) at: u32,
    /// The key.
    pub(crate) key: &'a [u8],
    /// The value; `None` is a tombstone.
    pub(crate) value: Option<&'a [u8]>,
    /// The entry's own sequence number, if it was moved; else it is the record's.
    pub(crate) sequence: Option<u64>,
}

/// Appends an entry without its checksum. The caller has checked the lengths against `limits`.
pub(crate) fn push_entry(out: &mut Vec<u8>, key: &[u8], value: Option<&[u8]>) {
    let value_len = value.map_or(0, <[u8]>::len);
    out.reserve(ENTRY_LEN + key.len() + value_len);
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&len_u32(key.len()).to_le_bytes());
    let value_field = if value.is_some() {
        len_u32(value_len)
    } else {
        TOMBSTONE_BIT
    };
    out.extend_from_slice(&value_field.to_le_bytes());
    out.extend_from_slice(key);
    out.extend_from_slice(value.unwrap_or_default());
}

/// Appends an entry with the sequence number that it came with, for a [`RecordKind::Moved`].
pub(crate) fn push_moved(out: &mut Vec<u8>, sequence: u64, key: &[u8], value: Option<&[u8]>) {
    out.extend_from_slice(&sequence.to_le_bytes());
    push_entry(out, key, value);
}

/// What a record's frame says, apart from what follows from its bytes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Frame {
    /// What it is.
    pub(crate) kind: RecordKind,
    /// How many entries its payload has.
    pub(crate) entry_count: u32,
    /// Sequence number and epoch.
    pub(crate) stamp: Stamp,
    /// Up to where the segment is durable.
    pub(crate) synced_upto: u32,
}

/// Fills in the header and all checksums of `record`: room for a header, then entries. Pads it
/// to a multiple of [`RECORD_ALIGN`].
pub(crate) fn seal_record(record: &mut Vec<u8>, place: Place, frame: Frame) {
    let mut at = HEADER_LEN;
    for _ in 0..frame.entry_count {
        let mut stamp = frame.stamp;
        if frame.kind == RecordKind::Moved {
            stamp.sequence = read_u64(record, at);
            at += MOVED_LEN;
        }
        let key_len = read_u32(record, at + 4) as usize;
        let value_len = (read_u32(record, at + 8) & !TOMBSTONE_BIT) as usize;
        let end = at + ENTRY_LEN + key_len + value_len;
        let entry_place = Place {
            offset: place.offset + len_u32(at),
            ..place
        };
        let crc = content_crc(entry_place, stamp, &record[at + 4..end]);
        record[at..at + 4].copy_from_slice(&crc.to_le_bytes());
        at = end;
    }
    record.resize(record.len().next_multiple_of(RECORD_ALIGN as usize), 0);
    let payload_crc = content_crc(payload_place(place), frame.stamp, &record[HEADER_LEN..]);
    let payload_bytes = len_u32(record.len() - HEADER_LEN);
    record[4] = match frame.kind {
        RecordKind::Batch => 1,
        RecordKind::SealMark => 2,
        RecordKind::Moved => 3,
    };
    record[5..8].fill(0);
    record[8..12].copy_from_slice(&payload_bytes.to_le_bytes());
    record[12..16].copy_from_slice(&frame.entry_count.to_le_bytes());
    record[16..24].copy_from_slice(&frame.stamp.sequence.to_le_bytes());
    record[24..28].copy_from_slice(&frame.stamp.epoch.to_le_bytes());
    record[28..32].copy_from_slice(&frame.synced_upto.to_le_bytes());
    record[32..36].copy_from_slice(&payload_crc.to_le_bytes());
    let crc = header_crc(place, &record[4..HEADER_LEN]);
    record[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Where the payload of the record at `place` lies, for its seed. Told apart from the first
/// entry, which begins there too.
pub(crate) fn payload_place(place: Place) -> Place {
    Place {
        offset: place.offset + 1,
        ..place
    }
}

/// The entries of a payload of a `kind` of record, of which `count` are said to be there. Ends with
/// an error message if they do not fill the payload exactly.
pub(crate) fn entries(payload: &[u8], kind: RecordKind, count: u32) -> Entries<'_> {
    Entries {
        payload,
        before_entry: kind.before_entry(),
        at: 0,
        left: count,
        failed: false,
    }
}

/// See [`entries`].
#[derive(Debug)]
pub(crate) struct Entries<'a> {
    payload: &'a [u8],
    before_entry: usize,
    at: usize,
    left: u32,
    failed: bool,
}

impl<'a> Iterator for Entries<'a> {
    type Item = Result<EntryRef<'a>, &'static str>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.failed {
            return None;
        }
        let item = self.advance();
        self.failed = matches!(item, Some(Err(_)));
        item
    }
}

impl<'a> Entries<'a> {
    fn advance(&mut self) -> Option<Result<EntryRef<'a>, &'static str>> {
        let rest = &self.payload[self.at..];
        if self.left == 0 {
            let whole = rest.len() < RECORD_ALIGN as usize && rest.iter().all(|&byte| byte == 0);
            return (!whole).then_some(Err("the entries do not fill their record"));
        }
        let Some((before, rest)) = rest.split_at_checked(self.before_entry) else {
            return Some(Err("an entry's sequence number reaches beyond its record"));
        };
        let (entry, len) = match split_entry(rest) {
            Ok(found) => found,
            Err(what) => return Some(Err(what)),
        };
        let at = len_u32(self.at + before.len());
        let sequence = (!before.is_empty()).then(|| read_u64(before, 0));
        self.at += before.len() + len;
        self.left -= 1;
        Some(Ok(EntryRef {
            at,
            sequence,
            ..entry
        }))
    }
}

/// The entry at the start of `bytes`, and its length.
pub(super) fn split_entry(bytes: &[u8]) -> Result<(EntryRef<'_>, usize), &'static str> {
    let Some((head, rest)) = bytes.split_at_checked(ENTRY_LEN) else {
        return Err("an entry's header reaches beyond its record");
    };
    let key_len = read_u32(head, 4) as usize;
    let value_field = read_u32(head, 8);
    if key_len > KEY_BYTES_MAX {
        return Err("an entry's key is longer than any key");
    }
    let value_len = (value_field & !TOMBSTONE_BIT) as usize;
    let tombstone = value_field & TOMBSTONE_BIT != 0;
    if tombstone && value_len > 0 {
        return Err("a tombstone has a value");
    }
    let Some((key, rest)) = rest.split_at_checked(key_len) else {
        return Err("an entry's key reaches beyond its record");
    };
    let Some(value) = rest.get(..value_len) else {
        return Err("an entry's value reaches beyond its record");
    };
    let entry = EntryRef {
        at: 0,
        key,
        value: (!tombstone).then_some(value),
        sequence: None,
    };
    Ok((entry, ENTRY_LEN + key_len + value_len))
}

/// The value in the bytes of one entry, after checking them against what the index knows;
/// `verify` asks for the checksum too.
pub(crate) fn entry_value<'a>(
    bytes: &'a [u8],
    place: Place,
    stamp: Stamp,
    key: &[u8],
    verify: bool,
) -> Result<&'a [u8], &'static str> {
    if verify {
        verify_entry(bytes, place, stamp)?;
    }
    let (entry, len) = split_entry(bytes)?;
    if len != bytes.len() || entry.key != key {
        return Err("an entry is not the one the index points to");
    }
    entry
        .value
        .ok_or("an entry is a tombstone where a value was expected")
}

/// Checks the checksum of the entry that `bytes` are, all of them.
pub(crate) fn verify_entry(bytes: &[u8], place: Place, stamp: Stamp) -> Result<(), &'static str> {
    let content = bytes.get(4..).unwrap_or_default();
    if content_crc(place, stamp, content) == read_u32(bytes, 0) {
        Ok(())
    } else {
        Err("the checksum of an entry is wrong")
    }
}

/// A length that the limits keep below 4 GiB.
fn len_u32(len: usize) -> u32 {
    u32::try_from(len).expect("OK because limits::SEGMENT_FILE_BYTES_MAX bounds every length")
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: Place = Place {
        store: 7,
        segment: 2,
        offset: 64,
    };
    const STAMP: Stamp = Stamp {
        sequence: 5,
        epoch: 1,
    };

    fn record() -> Vec<u8> {
        let mut record = vec![0; HEADER_LEN];
        push_entry(&mut record, b"key", Some(b"value"));
        push_entry(&mut record, b"", None);
        let frame = Frame {
            kind: RecordKind::Batch,
            entry_count: 2,
            stamp: STAMP,
            synced_upto: 64,
        };
        seal_record(&mut record, PLACE, frame);
        record
    }

    type Change = (Vec<u8>, Option<Vec<u8>>);

    fn decode(bytes: &[u8]) -> Option<Vec<Change>> {
        let header = RecordHeader::decode(PLACE, bytes)?;
        let payload = &bytes[HEADER_LEN..];
        if !header.verifies(payload_place(PLACE), payload) {
            return None;
        }
        entries(payload, header.kind, header.entry_count)
            .map(|entry| {
                entry
                    .map(|entry| (entry.key.to_vec(), entry.value.map(<[u8]>::to_vec)))
                    .ok()
            })
            .collect()
    }

    #[test]
    fn a_record_survives_the_round_trip_and_every_flipped_bit_is_found() {
        let bytes = record();
        assert_eq!(
            decode(&bytes),
            Some(vec![
                (b"key".to_vec(), Some(b"value".to_vec())),
                (vec![], None)
            ])
        );
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(decode(&damaged), None, "bit {bit}");
        }
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]), None);
        }
    }

    #[test]
    fn a_moved_entry_keeps_its_sequence_number_and_verifies_with_no_other() {
        let mut record = vec![0; HEADER_LEN];
        push_moved(&mut record, 3, b"a", Some(b"value"));
        push_moved(&mut record, 5, b"b", None);
        let frame = Frame {
            kind: RecordKind::Moved,
            entry_count: 2,
            stamp: STAMP,
            synced_upto: 64,
        };
        seal_record(&mut record, PLACE, frame);
        let header = RecordHeader::decode(PLACE, &record).unwrap();
        let payload = &record[HEADER_LEN..];
        assert!(header.verifies(payload_place(PLACE), payload));
        let walked: Vec<_> = entries(payload, header.kind, header.entry_count)
            .map(Result::unwrap)
            .collect();
        let found: Vec<_> = walked.iter().map(|e| (e.at, e.key, e.sequence)).collect();
        assert_eq!(found, [(8, &b"a"[..], Some(3)), (34, b"b", Some(5))]);
        let bytes = &payload[8..26];
        let place = Place {
            offset: PLACE.offset + RECORD_HEADER_BYTES + 8,
            ..PLACE
        };
        let stamp = |sequence| Stamp { sequence, ..STAMP };
        assert_eq!(
            entry_value(bytes, place, stamp(3), b"a", true),
            Ok(&b"value"[..])
        );
        assert!(entry_value(bytes, place, stamp(5), b"a", true).is_err());
    }

    #[test]
    fn an_entry_is_read_alone_and_every_flipped_bit_is_found() {
        let bytes = record();
        let at = HEADER_LEN;
        let entry = &bytes[at..at + ENTRY_LEN + 8];
        let place = Place {
            offset: PLACE.offset + RECORD_HEADER_BYTES,
            ..PLACE
        };
        assert_eq!(
            entry_value(entry, place, STAMP, b"key", true),
            Ok(&b"value"[..])
        );
        assert!(entry_value(entry, place, STAMP, b"kez", true).is_err());
        assert!(entry_value(entry, PLACE, STAMP, b"key", true).is_err());
        for bit in 0..entry.len() * 8 {
            let mut damaged = entry.to_vec();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(
                entry_value(&damaged, place, STAMP, b"key", true).is_err(),
                "bit {bit}"
            );
        }
    }

    #[test]
    fn entries_that_lie_about_their_lengths_end_in_one_error() {
        let payloads: [&[u8]; 4] = [
            &[0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 0, 0],
            &[0, 0, 0, 0, 0, 0, 0, 0, 255, 255, 255, 127],
            &[0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 128, 9],
            &[0; 11],
        ];
        for payload in payloads {
            for kind in [RecordKind::Batch, RecordKind::Moved] {
                let before = vec![0; kind.before_entry()];
                let payload = [&before, payload].concat();
                let walked: Vec<_> = entries(&payload, kind, 3).collect();
                assert_eq!(walked.len(), 1, "{payload:?}");
                assert!(walked[0].is_err());
            }
        }
        let none = |payload: &'static [u8]| entries(payload, RecordKind::Batch, 0).next();
        assert!(none(&[0, 0, 0, 1]).is_some_and(|entry| entry.is_err()));
        assert!(none(&[0; 4]).is_some_and(|entry| entry.is_err()));
        assert!(none(&[0; 3]).is_none());
        assert!(
            entries(&[0; 7], RecordKind::Moved, 1)
                .next()
                .is_some_and(|entry| entry.is_err())
        );
    }
}
