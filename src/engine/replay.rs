//! The one replay: records of a segment become versions in the index.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::record::RecordKind;
use crate::index::{Horizon, Index};
use crate::log::find;
use crate::log::location::{Location, Version};
use crate::log::scanner::{Record, Scanner};
use crate::log::segment::Segment;

const REPORT_EVERY_BYTES: u32 = 1 << 20;

/// Who reads the index while it is filled.
#[derive(Clone, Copy)]
pub(crate) enum Readers<'a> {
    /// Nobody yet: a key needs one version.
    None,
    /// Those at this horizon: what they see stays.
    Some(&'a Horizon),
}

/// Where records go.
pub(crate) struct Sink<'a> {
    index: &'a Index,
    readers: Readers<'a>,
    /// Told how far a segment was read, after every so many bytes.
    pub(crate) report: Option<&'a mut dyn FnMut(u32)>,
}

impl<'a> Sink<'a> {
    /// Into `index`, beside `readers`.
    pub(crate) fn new(index: &'a Index, readers: Readers<'a>) -> Self {
        Self {
            index,
            readers,
            report: None,
        }
    }
}

/// Replays the whole records that `scanner` finds in `segment`, up to the batch `until`, into
/// `sink`. Where the walk ended and why, the scanner tells afterwards. `segments` are those
/// replayed before. True if the last record is a seal mark.
///
/// # Errors
/// `Corrupt`, `Io`.
pub(crate) fn replay(
    scanner: &mut Scanner<'_>,
    until: u64,
    segment: &Segment,
    segments: &[Arc<Segment>],
    sink: &mut Sink<'_>,
) -> Result<bool> {
    let mut reported = 0;
    let mut marked = false;
    while scanner.sequence() < until
        && let Some(record) = scanner.next()?
    {
        marked = record.header.kind == RecordKind::SealMark;
        if record.header.kind == RecordKind::Batch {
            replay_record(&record, segment, segments, sink)?;
        }
        if scanner.offset() - reported >= REPORT_EVERY_BYTES {
            reported = scanner.offset();
            if let Some(report) = &mut sink.report {
                report(reported);
            }
        }
    }
    Ok(marked)
}

fn replay_record(
    record: &Record<'_>,
    segment: &Segment,
    segments: &[Arc<Segment>],
    sink: &Sink<'_>,
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
        let before = match sink.readers {
            Readers::None => sink.index.replay(entry.key, version),
            Readers::Some(horizon) => sink.index.apply(entry.key, version, horizon),
        };
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
