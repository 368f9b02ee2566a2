//! Compaction because somebody asks for it: of everything.

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use super::{Asked, Candidate, Election, Run, Step, candidates, plan, sweep};
use crate::engine::Engine;
use crate::error::{Error, Result};

/// How far a compaction has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactProgress {
    /// About how many bytes of the log are done with.
    pub bytes_done: u64,
    /// How many there are.
    pub bytes_total: u64,
    /// How many bytes were written.
    pub bytes_written: u64,
}

/// What a compaction did; made by [`Store::compact`](crate::Store::compact).
///
/// # Examples
/// ```
/// let store = happystore::Store::in_memory();
/// for n in 0..100 {
///     store.set("a", &n)?;
/// }
/// let report = store.compact()?;
/// assert!(report.is_finished && report.bytes_after < report.bytes_before);
/// assert_eq!(store.get("a")?, Some(99));
/// # Ok::<(), happystore::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct CompactReport {
    /// The lengths of the records of all segments before.
    pub bytes_before: u64,
    /// And afterwards.
    pub bytes_after: u64,
    /// How many segments were rewritten.
    pub segments: u64,
    /// How many bytes were written for that.
    pub bytes_written: u64,
    /// Whether all was done; false if it was cancelled.
    pub is_finished: bool,
}

/// Rewrites everything that is not as it is after that, waiting for the writer lock, and for another
/// process that compacts, up to `timeout` each; until `progress` says stop.
///
/// # Errors
/// `LockTimeout`, `DiskFull`, `Corrupt`, `Io`; what makes writes impossible.
pub(crate) fn compact(
    engine: &Arc<Engine>,
    timeout: Duration,
    progress: &mut dyn FnMut(CompactProgress) -> ControlFlow<()>,
) -> Result<CompactReport> {
    let segment_bytes = u64::from(engine.log.segment_bytes());
    let choose = |candidates: &[Candidate]| plan::everything(candidates, segment_bytes);
    compact_chosen(engine, timeout, &choose, progress)
}

/// The same, of what `choose` says.
///
/// # Errors
/// As [`compact`].
pub(crate) fn compact_chosen(
    engine: &Arc<Engine>,
    timeout: Duration,
    choose: &dyn Fn(&[Candidate]) -> Vec<u32>,
    progress: &mut dyn FnMut(CompactProgress) -> ControlFlow<()>,
) -> Result<CompactReport> {
    engine.check_writable()?;
    let _wanted = engine.compactor.want();
    let election = Election::wait(engine, timeout)?;
    sweep(engine, timeout)?;
    let before = log_bytes(engine);
    match Engine::seal_active(engine, timeout) {
        // There may be something that goes without taking space first.
        Err(Error::DiskFull { .. }) | Ok(()) => {}
        Err(error) => return Err(error),
    }
    let manifest = engine.settled_manifest()?;
    let ids = choose(&candidates(engine, &manifest));
    let mut report = CompactReport {
        bytes_before: before,
        bytes_after: before,
        segments: ids.len() as u64,
        bytes_written: 0,
        is_finished: true,
    };
    if !ids.is_empty() {
        let mut run = Run::new(engine, manifest, &ids, Asked::ByHand, timeout)?;
        loop {
            election.check()?;
            let step = run.step()?;
            let done = run.done();
            report.bytes_written = done.written_bytes;
            let now = CompactProgress {
                bytes_done: before * done.of_thousand / 1000,
                bytes_total: before,
                bytes_written: done.written_bytes,
            };
            if step == Step::Finished {
                break;
            }
            if progress(now).is_break() {
                report.is_finished = false;
                break;
            }
        }
    }
    report.bytes_after = log_bytes(engine);
    Ok(report)
}

fn log_bytes(engine: &Engine) -> u64 {
    let segments = engine.log.segments();
    segments
        .iter()
        .map(|segment| u64::from(segment.end()))
        .sum()
}
