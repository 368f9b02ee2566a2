//! Compacting.

use std::ops::ControlFlow;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use happystore::{Access, CompactProgress, CompactReport, SegmentStats};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use crate::arguments::CompactArguments;
use crate::output::{Outcome, Output, size};
use crate::{Failure, RawStore, open};

pub(crate) fn run(
    path: &Path,
    arguments: &CompactArguments,
    output: &Output,
) -> Result<Outcome, Failure> {
    if arguments.dry_run {
        return dry_run(path, arguments, output);
    }
    let is_interrupted = Arc::new(AtomicBool::new(false));
    ctrlc::set_handler({
        let is_interrupted = is_interrupted.clone();
        move || is_interrupted.store(true, Ordering::SeqCst)
    })?;
    let store = open(path, Access::Shared)?;
    let before = disk_bytes(&store)?;
    let bar = output.has_progress().then(progress_bar);
    let mut pace = Pace::new(arguments.rate_limit);
    let watch = |now: CompactProgress| {
        if let Some(bar) = &bar {
            bar.set_length(now.bytes_total);
            bar.set_position(now.bytes_done);
        }
        pace.wait(now.bytes_written, &is_interrupted);
        if is_interrupted.load(Ordering::SeqCst) {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    };
    let report = match arguments.min_dead {
        Some(ratio) => store.compact_dead(ratio, watch),
        None => store.compact_with(watch),
    };
    if let Some(bar) = &bar {
        bar.finish_and_clear();
    }
    let report = report?;
    let after = disk_bytes(&store)?;
    let left = Found::in_store(&store, arguments.min_dead)?;
    store.close()?;
    tell(&report, [before, after], &left, output);
    Ok(if report.is_finished {
        Outcome::Done
    } else {
        Outcome::Interrupted
    })
}

/// Tells what was done, and how long the files were before and after.
fn tell(report: &CompactReport, disk_bytes: [u64; 2], left: &Found, output: &Output) {
    let [before, after] = disk_bytes;
    let state = if report.is_finished {
        "compacted"
    } else {
        "interrupted; the store is whole, and what was finished stays"
    };
    let lines = [
        format!(
            "{state}: {} segments rewritten, {} written",
            report.segments,
            size(report.bytes_written)
        ),
        format!(
            "records   {} before, {} after",
            size(report.bytes_before),
            size(report.bytes_after)
        ),
        format!("on disk   {} before, {} after", size(before), size(after)),
        format!(
            "a second run would still find {} segments with {} of dead bytes",
            left.segments,
            size(left.dead_bytes)
        ),
    ];
    let value = json!({
        "finished": report.is_finished,
        "segments_rewritten": report.segments,
        "bytes_written": report.bytes_written,
        "bytes_before": report.bytes_before,
        "bytes_after": report.bytes_after,
        "disk_bytes_before": before,
        "disk_bytes_after": after,
        "left_segments": left.segments,
        "left_dead_bytes": left.dead_bytes,
    });
    output.tell(&lines, &value);
}

fn dry_run(path: &Path, arguments: &CompactArguments, output: &Output) -> Result<Outcome, Failure> {
    let store = open(path, Access::ReadOnly)?;
    let found = Found::in_store(&store, arguments.min_dead)?;
    let lines = [format!(
        "would rewrite {} segments with {} of live and {} of dead bytes",
        found.segments,
        size(found.live_bytes),
        size(found.dead_bytes)
    )];
    let value = json!({
        "segments": found.segments,
        "live_bytes": found.live_bytes,
        "dead_bytes": found.dead_bytes,
    });
    output.tell(&lines, &value);
    Ok(Outcome::Done)
}

fn disk_bytes(store: &RawStore) -> Result<u64, Failure> {
    let segments = store.segments()?;
    Ok(segments.iter().map(|segment| segment.disk_bytes).sum())
}

/// What there is to be rewritten.
#[derive(Debug, Default)]
struct Found {
    segments: u64,
    live_bytes: u64,
    dead_bytes: u64,
}

impl Found {
    fn in_store(store: &RawStore, min_dead: Option<f64>) -> Result<Self, Failure> {
        let segments = store.segments()?;
        // Without dead bytes and in key order there is nothing to be won; if one is not so, all but the
        // long ones that are are rewritten, unless a share was asked for.
        let is_compact = |one: &SegmentStats| one.is_compacted && one.live_bytes == one.bytes;
        let is_all =
            min_dead.is_none() && !segments.iter().all(|one| is_compact(one) || one.bytes == 0);
        let stays = |one: &SegmentStats| is_compact(one) && one.is_long;
        #[expect(clippy::cast_precision_loss, reason = "a share needs no more digits")]
        let is_dead = |one: &SegmentStats| {
            min_dead.is_some_and(|share| dead_bytes(one) as f64 >= one.bytes as f64 * share)
        };
        let mut found = Self::default();
        for segment in segments.iter().filter(|one| one.bytes > 0) {
            if is_all && !stays(segment) || is_dead(segment) {
                found.segments += 1;
                found.live_bytes += segment.live_bytes;
                found.dead_bytes += dead_bytes(segment);
            }
        }
        Ok(found)
    }
}

/// The bytes of `segment` that compaction would leave out.
pub(crate) fn dead_bytes(segment: &SegmentStats) -> u64 {
    let kept = segment.live_bytes.saturating_add(segment.needed_bytes);
    segment.bytes.saturating_sub(kept)
}

fn progress_bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:40} {bytes} of {total_bytes}, {bytes_per_sec}");
    let bar = ProgressBar::new(0);
    bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
    bar
}

/// Keeps to so many bytes a second.
struct Pace {
    begun: Instant,
    limit: Option<u64>,
}

impl Pace {
    fn new(limit: Option<u64>) -> Self {
        Self {
            begun: Instant::now(),
            limit,
        }
    }

    /// Waits until `written` bytes may have been written, or somebody interrupts.
    fn wait(&mut self, written: u64, is_interrupted: &AtomicBool) {
        let Some(limit) = self.limit else {
            return;
        };
        let millis = u128::from(written) * 1000 / u128::from(limit);
        let due = Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX));
        while !is_interrupted.load(Ordering::SeqCst) {
            let left = due.saturating_sub(self.begun.elapsed());
            if left.is_zero() {
                return;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}
