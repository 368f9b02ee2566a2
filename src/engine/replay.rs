//! The one replay: records of a segment become versions in the index.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::record::RecordKind;
use crate::index::Index;
use crate::log::find;
use crate::log::location::{Location, Version};
use crate::log::scanner::{Record, Scanner};
use crate::log::segment::Segment;

/// How far replaying has come, told after every so many bytes.
pub(crate) type Report<'a> = &'a mut dyn FnMut(u32);

const REPORT_EVERY_BYTES: u32 = 1 << 20;

/// Replays all whole records that `scanner` finds in `segment` into `index`. Where the walk
/// ended and why, the scanner tells afterwards. `segments` are those replayed before. True if
/// the last record is a seal mark.
///
/// # Errors
/// `Corrupt`, `Io`.
pub(crate) fn replay(
    scanner: &mut Scanner<'_>,
    segment: &Segment,
    segments: &[Arc<Segment>],
    index: &Index,
    report: Report<'_>,
) -> Result<bool> {
    let mut reported = 0;
    let mut marked = false;
    while let Some(record) = scanner.next()? {
        marked = record.header.kind == RecordKind::SealMark;
        if record.header.kind == RecordKind::Batch {
            replay_record(&record, segment, segments, index)?;
        }
        if scanner.offset() - reported >= REPORT_EVERY_BYTES {
            reported = scanner.offset();
            report(reported);
        }
    }
    Ok(marked)
}

fn replay_record(
    record: &Record<'_>,
    segment: &Segment,
    segments: &[Arc<Segment>],
    index: &Index,
) -> Result<()> {
    let stamp = record.header.stamp;
    for entry in record.entries() {
        let entry =
            entry.map_err(|what| Error::corrupt(&segment.path, u64::from(record.offset), what))?;
        let value_bytes = entry
            .value
            .map(|value| u32::try_from(value.len()).unwrap_or(u32::MAX - 1));
        let offset = record.payload_offset() + entry.at;
        let location = Location::new(segment.id, offset, stamp.epoch, value_bytes);
        let version = Version {
            sequence: stamp.sequence,
            location,
        };
        if !version.is_tombstone() {
            segment.add_live(version.entry_bytes(entry.key.len()));
        }
        let before = index.replay(entry.key, version);
        if let Some(before) = before.filter(|before| !before.is_tombstone()) {
            let bytes = before.entry_bytes(entry.key.len());
            if before.location.segment == segment.id {
                segment.remove_live(bytes);
            } else if let Some(older) = find(segments, before.location.segment) {
                older.remove_live(bytes);
            }
        }
    }
    Ok(())
}
