//! Figures about each segment.

use std::sync::atomic::Ordering;

use crate::engine::Engine;
use crate::error::Result;
use crate::log::file_name;
use crate::log::segment::Segment;
use crate::vfs::OpenMode;

/// Figures about one segment; made by [`Store::segments`](crate::Store::segments).
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
#[expect(
    clippy::struct_excessive_bools,
    reason = "each is a fact apart from the others"
)]
pub struct SegmentStats {
    /// Its id, which names its file.
    pub id: u32,
    /// Whether compaction has made it.
    pub is_compacted: bool,
    /// Whether it takes records.
    pub is_active: bool,
    /// Whether it is at least half as long as compaction makes them: one of those in which all lives is
    /// not compacted again.
    pub is_long: bool,
    /// The length of its records in bytes; of a compacted one, of their entries.
    pub bytes: u64,
    /// The bytes of entries that the index points to.
    pub live_bytes: u64,
    /// The bytes of tombstones that were still needed when compaction made it.
    pub needed_bytes: u64,
    /// The length of its file, allocated space included.
    pub disk_bytes: u64,
    /// Whether it is known to have hints, by which the store opens without reading all of it.
    pub has_hints: bool,
    /// The length of the file of its hints; 0 if there is none.
    pub hint_bytes: u64,
}

pub(crate) fn segments(engine: &Engine) -> Result<Vec<SegmentStats>> {
    engine.check_open()?;
    let manifest = engine.settled_manifest()?;
    let segments = engine.log.segments();
    let figures = |segment: &Segment| {
        let mut listed = manifest.segments.iter();
        let entry = listed.find(|entry| entry.id == segment.id)?;
        Some((entry.is_sealed(), segment.file_bytes()))
    };
    let mut all = Vec::with_capacity(segments.len());
    for segment in segments.iter() {
        // One that is retired is not the store's any more.
        let Some((is_sealed, disk_bytes)) = figures(segment) else {
            continue;
        };
        all.push(SegmentStats {
            id: segment.id,
            is_compacted: !segment.is_log(),
            is_active: !is_sealed,
            is_long: segment.content_bytes() >= u64::from(engine.log.segment_bytes()) / 2,
            bytes: segment.content_bytes(),
            live_bytes: segment.live_bytes.load(Ordering::Relaxed),
            needed_bytes: segment.needed_bytes.load(Ordering::Relaxed),
            disk_bytes: u64::from(disk_bytes?),
            has_hints: is_sealed && segment.hint_bytes() > 0,
            hint_bytes: hint_bytes(engine, segment),
        });
    }
    Ok(all)
}

/// How long the hints of `segment` are: a cache, which may go at any moment.
fn hint_bytes(engine: &Engine, segment: &Segment) -> u64 {
    let path = file_name::hints(&engine.log.directory.path, segment.id);
    let file = engine.vfs.open(&path, OpenMode::Read);
    file.and_then(|file| file.len()).unwrap_or(0)
}
