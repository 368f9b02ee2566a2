//! The one replay: records of a segment become versions in the index.

use std::sync::Arc;

use crate::error::{Error, Result};
use crate::format::record::RecordKind;
use crate::index::{Horizon, Index, Put};
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

    /// Gives `key` this version, and counts which bytes of `segments` live.
    pub(crate) fn put(&self, key: &[u8], version: Version, segments: &[Arc<Segment>]) {
        let put = match self.readers {
            Readers::None => self.index.replay(key, version),
            Readers::Some(horizon) => self.index.apply(key, version, horizon),
        };
        if let Put::Newest(before) = put {
            count_live(segments, key, version, before);
        }
    }

    /// Says where the version of `key` that lies at `version` now is to be found.
    pub(crate) fn relocate(&self, key: &[u8], version: Version, segments: &[Arc<Segment>]) {
        let Version { sequence, location } = version;
        if version.is_tombstone() {
            count_live(segments, key, version, None);
            return;
        }
        // First: as soon as the index has the new place somebody may supersede what lies there, and
        // count it as dead.
        count_live(segments, key, version, None);
        let before = match self.index.relocate(key, sequence, location) {
            Some((before, true)) => before,
            _ => location,
        };
        if let Some(segment) = find(segments, before.segment) {
            let before = Version {
                sequence,
                location: before,
            };
            segment.remove_live(before.entry_bytes(key.len()));
        }
    }

    /// Says of all keys whose newest versions lie in none of the segments that `is_listed` that
    /// they were deleted, by `sequence`.
    pub(crate) fn sweep(
        &self,
        is_listed: impl Fn(u32) -> bool,
        sequence: u64,
        segments: &[Arc<Segment>],
    ) {
        let version = Version {
            sequence,
            location: Location::new(0, 0, 0, None),
        };
        let gone = |newest: Version| !is_listed(newest.location.segment);
        for key in self.index.keys_where(gone) {
            self.put(&key, version, segments);
        }
    }
}

/// Counts the bytes of an entry that lives now, and of the one that does not any more.
pub(super) fn count_live(
    segments: &[Arc<Segment>],
    key: &[u8],
    now: Version,
    before: Option<Version>,
) {
    let count = |version: Version, count: fn(&Segment, u64)| {
        if let Some(segment) = find(segments, version.location.segment) {
            count(segment, version.entry_bytes(key.len()));
        }
    };
    if now.is_tombstone() {
        count(now, Segment::add_tombstone);
    } else {
        count(now, Segment::add_live);
    }
    if let Some(before) = before.filter(|before| !before.is_tombstone()) {
        count(before, Segment::remove_live);
    }
}

/// Replays the whole records that `scanner` finds in `segment`, up to the batch `until`, into
/// `sink`. Where the walk ended and why, the scanner tells afterwards. `segments` are all there
/// are, this one too. True if the last record is a seal mark.
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
        if !marked {
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
    for entry in record.entries() {
        let entry =
            entry.map_err(|what| Error::corrupt(&segment.path, u64::from(record.offset), what))?;
        sink.put(entry.key, record.version(segment, &entry), segments);
    }
    Ok(())
}
