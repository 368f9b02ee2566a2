//! Checking all of a store: every record, every entry, every key's place.

use std::ops::Bound;
use std::sync::Arc;

use crate::engine::snapshot::Pin;
use crate::error::{Error, Result};
use crate::log::location::Version;
use crate::log::scanner::Scanner;
use crate::log::segment::Segment;

/// What was checked, and found whole; made by [`Store::verify`](crate::Store::verify).
///
/// # Examples
/// ```
/// let store = happystore::Store::in_memory();
/// store.bulk_set([("a", 1), ("b", 2)])?;
/// let report = store.verify()?;
/// assert_eq!((report.records, report.entries, report.keys), (1, 2, 2));
/// # Ok::<(), happystore::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct VerifyReport {
    /// Segments that were read.
    pub segments: u64,
    /// Records in them, seal marks included.
    pub records: u64,
    /// Entries in those.
    pub entries: u64,
    /// Keys whose values were read through the index.
    pub keys: u64,
    /// Bytes of records.
    pub bytes: u64,
}

/// Checks everything that is visible at `pin`, and the log it lies in.
pub(crate) fn verify(pin: &Arc<Pin>) -> Result<VerifyReport> {
    let engine = pin.engine();
    engine.check_open()?;
    let mut report = VerifyReport::default();
    for segment in engine.log.segments().iter() {
        verify_segment(segment, &mut report)?;
    }
    verify_keys(pin, &mut report)?;
    Ok(report)
}

fn verify_segment(segment: &Segment, report: &mut VerifyReport) -> Result<()> {
    // Records behind this end may be half written at this moment; those before it never change.
    let end = segment.end();
    let mut scanner = Scanner::new(segment, end, u32::MAX);
    report.bytes += u64::from(end - scanner.offset());
    report.segments += 1;
    while let Some(record) = scanner.next()? {
        report.records += 1;
        for entry in record.entries() {
            let damaged = |what| Error::corrupt(&segment.path, u64::from(record.offset), what);
            let entry = entry.map_err(damaged)?;
            record.verify_entry(segment, &entry).map_err(damaged)?;
            report.entries += 1;
        }
    }
    match scanner.stopped() {
        Some(what) => Err(Error::corrupt(
            &segment.path,
            u64::from(scanner.offset()),
            what,
        )),
        None => Ok(()),
    }
}

/// Reads every key's value the way `get` does, checksums included.
fn verify_keys(pin: &Arc<Pin>, report: &mut VerifyReport) -> Result<()> {
    const PAGE: usize = 256;
    let engine = pin.engine();
    let mut low: Bound<Vec<u8>> = Bound::Unbounded;
    loop {
        engine.check_open()?;
        let mut page: Vec<(Box<[u8]>, Version)> = Vec::with_capacity(PAGE);
        let bounds = (low.as_ref().map(Vec::as_slice), Bound::Unbounded);
        engine
            .index
            .walk(bounds, false, pin.sequence, |key, version| {
                page.push((key.into(), version));
                page.len() < PAGE
            });
        let Some((last, _)) = page.last() else {
            return Ok(());
        };
        low = Bound::Excluded(last.to_vec());
        for (key, version) in &page {
            engine.read_version(key, *version, true, |_| ())?;
            report.keys += 1;
        }
    }
}
