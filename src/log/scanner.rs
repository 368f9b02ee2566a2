//! Walking a segment's records, and telling where and why the walk ends.
//!
//! Opening, verifying and repairing come in here. The scanner believes nothing that it has not
//! checked: a header before its length, a payload before its entries. It never allocates more
//! than the file holds, because it views only bytes below the file's length.

use std::borrow::Cow;

use super::location::{Location, Version};
use super::segment::Segment;
use crate::error::{Error, Result};
use crate::format::checksum::Stamp;
use crate::format::header::{SEGMENT_HEADER_BYTES, SegmentKind};
use crate::format::manifest::SEQUENCE_MAX;
use crate::format::record::{
    ENTRY_HEADER_BYTES, Entries, EntryRef, RECORD_ALIGN, RECORD_HEADER_BYTES, RecordHeader,
    RecordKind, entries, payload_place, verify_entry,
};

/// A whole, verified record.
pub(crate) struct Record<'a> {
    /// Where it begins.
    pub(crate) offset: u32,
    /// Its header.
    pub(crate) header: RecordHeader,
    payload: Cow<'a, [u8]>,
}

impl Record<'_> {
    /// The record's entries.
    pub(crate) fn entries(&self) -> Entries<'_> {
        entries(&self.payload, self.header.kind, self.header.entry_count)
    }

    /// The version that `entry` of this record is.
    pub(crate) fn version(&self, segment: &Segment, entry: &EntryRef<'_>) -> Version {
        let Stamp { sequence, epoch } = self.header.stamp;
        let value_bytes = entry
            .value
            .map(|value| u32::try_from(value.len()).unwrap_or(u32::MAX - 1));
        let offset = self.payload_offset() + entry.at;
        Version {
            sequence: entry.sequence.unwrap_or(sequence),
            location: Location::new(segment.id, offset, epoch, value_bytes),
        }
    }

    /// Checks the checksum that single reads of `entry` check.
    pub(crate) fn verify_entry(&self, segment: &Segment, entry: &EntryRef<'_>) -> Result<(), What> {
        let len =
            ENTRY_HEADER_BYTES as usize + entry.key.len() + entry.value.map_or(0, <[u8]>::len);
        let bytes = &self.payload[entry.at as usize..][..len];
        let place = segment.place(self.payload_offset() + entry.at);
        verify_entry(bytes, place, self.version(segment, entry).stamp())
    }

    /// Where the payload begins in the segment.
    pub(crate) fn payload_offset(&self) -> u32 {
        self.offset + RECORD_HEADER_BYTES
    }
}

/// The record that begins at `at` of `segment` and ends before `end`, if it is whole, whatever comes
/// before it: for looking for what is whole among damage.
///
/// # Errors
/// `Io`.
pub(crate) fn salvage_record(
    segment: &Segment,
    at: u32,
    end: u32,
) -> Result<Result<Record<'_>, What>> {
    let left = end.saturating_sub(at);
    if left < RECORD_HEADER_BYTES {
        return Ok(Err("the segment ends within a record's header"));
    }
    let place = segment.place(at);
    let bytes = segment.view(at, RECORD_HEADER_BYTES as usize)?;
    let Some(header) = RecordHeader::decode(place, &bytes) else {
        return Ok(Err("there is no whole record header"));
    };
    if header.payload_bytes > left - RECORD_HEADER_BYTES {
        return Ok(Err("a record reaches beyond its segment"));
    }
    if !header.payload_bytes.is_multiple_of(RECORD_ALIGN) || header.stamp.sequence > SEQUENCE_MAX {
        return Ok(Err("nobody has written such a record"));
    }
    let payload = segment.view(at + RECORD_HEADER_BYTES, header.payload_bytes as usize)?;
    if !header.verifies(payload_place(place), &payload) {
        return Ok(Err("the checksum of a record is wrong"));
    }
    Ok(Ok(Record {
        offset: at,
        header,
        payload,
    }))
}

/// The header and the payload of the record of moved entries that begins at `at` of `segment` and ends
/// before `end`, if the header is whole; the payload may be damaged.
///
/// # Errors
/// `Io`.
pub(crate) fn damaged_moved(
    segment: &Segment,
    at: u32,
    end: u32,
) -> Result<Option<(RecordHeader, Cow<'_, [u8]>)>> {
    let left = end.saturating_sub(at);
    if left < RECORD_HEADER_BYTES {
        return Ok(None);
    }
    let bytes = segment.view(at, RECORD_HEADER_BYTES as usize)?;
    let Some(header) = RecordHeader::decode(segment.place(at), &bytes) else {
        return Ok(None);
    };
    if header.kind != RecordKind::Moved
        || header.payload_bytes > left - RECORD_HEADER_BYTES
        || !header.payload_bytes.is_multiple_of(RECORD_ALIGN)
    {
        return Ok(None);
    }
    let payload = segment.view(at + RECORD_HEADER_BYTES, header.payload_bytes as usize)?;
    Ok(Some((header, payload)))
}

/// Why a record is not one.
pub(crate) type What = &'static str;

/// A walk over the records of one segment.
pub(crate) struct Scanner<'a> {
    segment: &'a Segment,
    /// Where the next record begins, or where the walk ended.
    at: u32,
    /// The end of what may be looked at.
    end: u32,
    epoch: u32,
    epoch_max: u32,
    sequence: u64,
    synced_upto: u32,
    stopped: Option<What>,
}

impl<'a> Scanner<'a> {
    /// A walk over the first `end` bytes of `segment`, in a store whose epoch is `epoch_max`.
    pub(crate) fn new(segment: &'a Segment, end: u32, epoch_max: u32) -> Self {
        Self {
            segment,
            at: SEGMENT_HEADER_BYTES.min(end),
            end,
            epoch: 0,
            epoch_max,
            sequence: segment.first_sequence.saturating_sub(1),
            synced_upto: SEGMENT_HEADER_BYTES.min(end),
            stopped: None,
        }
    }

    /// A walk that goes on at `at`, behind a record, up to `end`; the last batch was `sequence`.
    pub(crate) fn resume(
        segment: &'a Segment,
        at: u32,
        end: u32,
        epoch_max: u32,
        sequence: u64,
    ) -> Self {
        let mut scanner = Self::new(segment, end, epoch_max);
        if at > scanner.at {
            scanner.at = at;
            scanner.sequence = sequence;
        }
        // Nothing lies between the two if a segment shrank, which none does.
        scanner.end = end.max(scanner.at);
        scanner
    }

    /// Where the next record would begin: behind the last whole one.
    pub(crate) fn offset(&self) -> u32 {
        self.at
    }

    /// Up to where the records say that the segment was durable.
    pub(crate) fn synced_upto(&self) -> u32 {
        self.synced_upto
    }

    /// The sequence number of the last batch, or the one before the segment's first.
    pub(crate) fn sequence(&self) -> u64 {
        self.sequence
    }

    /// Why the walk ended, once it has: `None` if exactly at the end.
    pub(crate) fn stopped(&self) -> Option<What> {
        self.stopped
    }

    /// The next record; `None` when there is no whole one at [`Scanner::offset`].
    ///
    /// # Errors
    /// `Io`; `Corrupt` for what no crash can leave: a record of an epoch that the manifest does
    /// not know yet.
    pub(crate) fn next(&mut self) -> Result<Option<Record<'a>>> {
        if self.stopped.is_some() || self.at == self.end {
            return Ok(None);
        }
        match self.read_record()? {
            Ok(record) => {
                self.at = record.payload_offset() + record.header.payload_bytes;
                self.epoch = record.header.stamp.epoch;
                self.sequence = self.sequence.max(record.header.stamp.sequence);
                self.synced_upto = self.synced_upto.max(record.header.synced_upto);
                Ok(Some(record))
            }
            Err(what) => {
                self.stopped = Some(what);
                Ok(None)
            }
        }
    }

    fn read_record(&self) -> Result<Result<Record<'a>, What>> {
        let segment = self.segment;
        let left = self.end - self.at;
        if left < RECORD_HEADER_BYTES {
            return Ok(Err("the segment ends within a record's header"));
        }
        let place = segment.place(self.at);
        let bytes = segment.view(self.at, RECORD_HEADER_BYTES as usize)?;
        let Some(header) = RecordHeader::decode(place, &bytes) else {
            return Ok(Err("there is no whole record header"));
        };
        if header.stamp.epoch > self.epoch_max {
            return Err(Error::corrupt(
                &segment.path,
                u64::from(self.at),
                "a record is newer than the manifest; an old manifest was put back",
            ));
        }
        if let Some(what) = self.out_of_order(&header) {
            return Ok(Err(what));
        }
        if header.payload_bytes > left - RECORD_HEADER_BYTES {
            return Ok(Err("a record reaches beyond its segment"));
        }
        let payload = segment.view(self.at + RECORD_HEADER_BYTES, header.payload_bytes as usize)?;
        if !header.verifies(payload_place(place), &payload) {
            return Ok(Err("the checksum of a record is wrong"));
        }
        Ok(Ok(Record {
            offset: self.at,
            header,
            payload,
        }))
    }

    /// What no writer would have written here.
    fn out_of_order(&self, header: &RecordHeader) -> Option<What> {
        let sequence = header.stamp.sequence;
        let is_next = match (header.kind, self.segment.kind) {
            (RecordKind::Batch, SegmentKind::Log) => sequence == self.sequence.saturating_add(1),
            (RecordKind::SealMark, SegmentKind::Log) => sequence == self.sequence,
            // In key order; the number is the highest of its entries.
            (RecordKind::Moved, SegmentKind::Compacted) => sequence >= self.segment.first_sequence,
            _ => return Some("a record is of a kind that does not belong into its segment"),
        };
        let least_bytes = u64::from(header.entry_count) * u64::from(ENTRY_HEADER_BYTES);
        if sequence > SEQUENCE_MAX {
            Some("a record has a sequence number that nobody can have reached")
        } else if header.stamp.epoch < self.epoch {
            Some("a record is of an older epoch than the one before it")
        } else if !is_next {
            Some("a record does not have the next sequence number")
        } else if header.synced_upto > self.at {
            Some("a record says that bytes behind it were durable before it")
        } else if least_bytes > u64::from(header.payload_bytes)
            || !header.payload_bytes.is_multiple_of(RECORD_ALIGN)
        {
            Some("a record is too short for its entries")
        } else {
            None
        }
    }
}
