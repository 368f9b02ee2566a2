//! What a store is made of.

use std::path::Path;

use happystore::{Access, Holder, SegmentStats};
use serde_json::json;

use crate::compact::dead_bytes;
use crate::output::{Outcome, Output, size};
use crate::{Failure, open};

const BAR_WIDTH: u64 = 30;

pub(crate) fn run(path: &Path, output: &Output) -> Result<Outcome, Failure> {
    let store = open(path, Access::ReadOnly)?;
    let (stats, segments, holders) = (store.stats()?, store.segments()?, store.holders()?);
    // This program is not what anybody asks for.
    let me = std::process::id();
    let others: Vec<u32> = holders
        .processes
        .into_iter()
        .filter(|&id| id != me)
        .collect();
    let writer = holders.writer.filter(|writer| writer.process_id != me);
    let hinted = segments.iter().filter(|segment| segment.has_hints).count();
    let hint_bytes: u64 = segments.iter().map(|segment| segment.hint_bytes).sum();
    let mut lines = vec![
        format!("keys      {}", stats.keys),
        format!("versions  {}", stats.versions),
        format!("batches   {}", stats.sequence),
        format!("live      {}", size(stats.live_bytes)),
        format!("dead      {}", size(stats.dead_bytes)),
        format!("on disk   {}", size(stats.disk_bytes)),
        format!("index     {} of memory", size(stats.index_bytes)),
        format!(
            "hints     of {hinted} of {} segments, {}",
            segments.len(),
            size(hint_bytes)
        ),
        format!("holders   {}", show_holders(&others, writer.as_ref())),
    ];
    lines.extend(segments.iter().map(|segment| line(segment, output)));
    let of_segment = |segment: &SegmentStats| {
        json!({
            "id": segment.id,
            "kind": kind(segment),
            "bytes": segment.bytes,
            "live_bytes": segment.live_bytes,
            "dead_bytes": dead_bytes(segment),
            "disk_bytes": segment.disk_bytes,
            "has_hints": segment.has_hints,
            "hint_bytes": segment.hint_bytes,
        })
    };
    let value = json!({
        "keys": stats.keys,
        "versions": stats.versions,
        "sequence": stats.sequence,
        "live_bytes": stats.live_bytes,
        "dead_bytes": stats.dead_bytes,
        "disk_bytes": stats.disk_bytes,
        "index_bytes": stats.index_bytes,
        "hinted_segments": hinted,
        "hint_bytes": hint_bytes,
        "holders": others,
        "writer": writer.as_ref().map(|writer| {
            json!({ "process": writer.process_id, "label": writer.label })
        }),
        "segments": segments.iter().map(of_segment).collect::<Vec<_>>(),
    });
    output.tell(&lines, &value);
    Ok(Outcome::Done)
}

/// Who else has the store open, and who of them writes at this moment.
fn show_holders(others: &[u32], writer: Option<&Holder>) -> String {
    let one = |id: &u32| match writer.filter(|writer| writer.process_id == *id) {
        Some(writer) => format!("process {id} ({}), which may write now", writer.label),
        None => format!("process {id}"),
    };
    if others.is_empty() {
        return "nobody".to_owned();
    }
    others.iter().map(one).collect::<Vec<_>>().join(", ")
}

fn line(segment: &SegmentStats, output: &Output) -> String {
    format!(
        "{:08} {:9} {} {:>10} live {:>10} dead{}",
        segment.id,
        kind(segment),
        output.bar(segment.live_bytes, segment.bytes, BAR_WIDTH),
        size(segment.live_bytes),
        size(dead_bytes(segment)),
        if segment.has_hints { "  hints" } else { "" },
    )
}

fn kind(segment: &SegmentStats) -> &'static str {
    match (segment.is_compacted, segment.is_active) {
        (true, _) => "compacted",
        (false, true) => "active",
        (false, false) => "sealed",
    }
}
