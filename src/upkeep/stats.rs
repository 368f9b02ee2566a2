//! Figures about an open store.

use std::sync::atomic::Ordering;

use crate::engine::Engine;
use crate::engine::compactor::CompactionState;
use crate::error::Result;
use crate::format::header::SEGMENT_HEADER_BYTES;

/// Figures about an open store; made by [`Store::stats`](crate::Store::stats).
///
/// # Examples
/// ```
/// let store = happystore::Store::in_memory();
/// store.set("a", &1)?;
/// store.set("a", &2)?;
/// let stats = store.stats()?;
/// assert_eq!((stats.keys, stats.commits, stats.segments), (1, 2, 1));
/// assert!(stats.live_bytes > 0 && stats.dead_bytes > stats.live_bytes);
/// # Ok::<(), happystore::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Keys that are there; of commits that are appended and wait for their sync, too.
    pub keys: u64,
    /// Versions of keys that the index keeps: the newest of each, and older ones, which somebody may
    /// still see or whose place in memory was not needed since.
    pub versions: u64,
    /// Bytes of the log that the index points to: newest versions, with 12 bytes each beside
    /// their keys and values.
    pub live_bytes: u64,
    /// Bytes of the log that it does not: older versions, tombstones, frames of records.
    pub dead_bytes: u64,
    /// Segments.
    pub segments: u64,
    /// The lengths of the segment files, allocated space included.
    pub disk_bytes: u64,
    /// About how much memory the index takes.
    pub index_bytes: u64,
    /// Batches committed since the store was opened.
    pub commits: u64,
    /// Syncs of segments since the store was opened: for commits, in the background, at roll-overs.
    pub syncs: u64,
    /// How often a writer had to wait for another one.
    pub lock_waits: u64,
    /// Snapshots, iterators and running queries.
    pub snapshots: u64,
    /// The sequence number of the newest visible batch.
    pub sequence: u64,
    /// What compaction by itself is doing in this process.
    pub compaction: CompactionState,
}

pub(crate) fn stats(engine: &Engine) -> Result<Stats> {
    engine.check_open()?;
    engine.catch_up()?;
    let segments = engine.log.segments();
    let mut disk_bytes = 0;
    let mut log_bytes = 0;
    let mut live_bytes = 0;
    for segment in segments.iter() {
        let file_bytes = u64::from(segment.file_bytes()?);
        disk_bytes += file_bytes;
        live_bytes += segment.live_bytes.load(Ordering::Relaxed);
        log_bytes += u64::from(segment.end() - SEGMENT_HEADER_BYTES);
    }
    let counters = &engine.counters;
    Ok(Stats {
        keys: engine.index.keys(),
        versions: engine.index.versions(),
        live_bytes,
        dead_bytes: log_bytes.saturating_sub(live_bytes),
        segments: segments.len() as u64,
        disk_bytes,
        index_bytes: engine.index.memory_bytes(),
        commits: counters.commits.load(Ordering::Relaxed),
        syncs: engine.log.sync_count(),
        lock_waits: counters.lock_waits.load(Ordering::Relaxed),
        snapshots: engine.pins_count() as u64,
        sequence: engine.visible(),
        compaction: engine.compactor.state(),
    })
}
