//! Killed processes lose nothing; a child that breaks a promise is caught.

use std::path::PathBuf;

use crate::support::{Report, counted, seed};

/// Kills of the short run.
const KILLS: u64 = 400;

/// The points of compaction, at each of which somebody dies in a campaign.
const POINTS: [&str; 7] = [
    "created",
    "written",
    "hints-written",
    "finished",
    "listed",
    "retired",
    "removing",
];

/// Whether this machine does not allow kills of this kind.
pub(crate) fn is_skipped(report: &Report, kind: &str) -> bool {
    let skipped = |what| report.text.contains(&format!("SKIPPED: kills {what}"));
    kind.contains("system call") && skipped("at system")
        || kind.contains("while compacting") && skipped("while compacting")
}

/// At least three in ten of all kills hit somebody who was compacting.
pub(crate) fn assert_kills_come_during_compaction(report: &Report) {
    let (of_compaction, all) = (
        report.count("kills during compaction"),
        report.count("kills"),
    );
    let are_skipped = is_skipped(report, "while compacting");
    assert!(
        are_skipped || of_compaction * 10 >= all * 3,
        "{of_compaction} of {all}"
    );
}

#[test]
fn killed_processes_lose_nothing_acknowledged_in_any_durability() {
    let (seed, kills) = (seed().to_string(), KILLS.to_string());
    let report = Report::of(&["--processes", "1", "--seed", &seed, "--kills", &kills]);
    counted(&report.text);
    assert_eq!(report.code, Some(0));
    assert!(report.count("kills") >= KILLS);
    let kinds = [
        "at a random time",
        "at a system call",
        "at a byte of a file",
        "at a named point",
        "while opening",
        "while stopped",
        "at a named point of compaction",
        "while compacting",
    ];
    for kind in kinds {
        let least = if is_skipped(&report, kind) { 0 } else { 5 };
        assert!(report.count(&format!("kills {kind}")) >= least, "{kind}");
    }
    assert_kills_come_during_compaction(&report);
    for point in POINTS {
        assert!(report.count(&format!("kills at the point compaction-{point}")) > 0);
    }
    assert!(report.count("of which right after another one") >= 10);
    for mode in ["sync", "deferred", "os", "mix"] {
        assert!(
            report.count(&format!("stores of mode {mode}")) > 0,
            "{mode}"
        );
    }
    let counts = [
        ("openings checked", 200),
        ("acknowledged commits", 2000),
        ("unacknowledged, there as a whole", 5),
        ("unacknowledged, not there", 5),
        ("seen by readers", 500),
        ("keys compared", 2000),
    ];
    for (name, least) in counts {
        assert!(report.count(name) >= least, "{name}");
    }
}

/// Runs children with a fault until it is found, within the kills of the short run.
fn assert_caught(fault: &str, words: &[&str]) {
    let (seed, kills) = (seed().to_string(), KILLS.to_string());
    let report = Report::of(&[
        "--processes",
        "1",
        "--seed",
        &seed,
        "--kills",
        &kills,
        "--planted",
        fault,
    ]);
    assert_found(&report, words);
}

/// The report says what is broken in one of these words, and what was kept of it, which is removed.
pub(crate) fn assert_found(report: &Report, words: &[&str]) {
    let text = &report.text;
    assert_eq!(report.code, Some(1), "{text}");
    assert!(words.iter().any(|word| text.contains(word)), "{text}");
    assert!(text.contains("repeat: happystore-crash-harness --seed "));
    let kept = text
        .lines()
        .filter_map(|line| line.trim().strip_prefix("kept: "));
    let mut count = 0;
    for path in kept.filter_map(|line| line.split(" (").next()) {
        let path = PathBuf::from(path);
        assert!(path.join("store").is_dir() && path.join("killed").is_dir());
        std::fs::remove_dir_all(path).unwrap();
        count += 1;
    }
    assert!(count > 0, "the directory of a failure is kept and named");
}

#[test]
fn an_acknowledgement_before_its_commit_is_caught() {
    assert_caught("early-acknowledgement", &["is lost", "keys to delete"]);
}

#[test]
fn a_batch_in_two_commits_is_caught() {
    assert_caught("split-batch", &["in part", "keys to delete"]);
}

#[test]
fn a_delete_that_was_not_done_is_caught() {
    assert_caught("forgotten-delete", &["is back", "keys to delete"]);
}

#[test]
fn a_write_that_nobody_announced_is_caught() {
    assert_caught("unannounced", &["never begun"]);
}

#[test]
fn a_value_seen_before_its_commit_is_caught() {
    assert_caught("early-sight", &["a reader has seen"]);
}

#[test]
fn a_segment_that_is_removed_before_its_manifest_is_caught() {
    assert_caught("early-removal", &["but it is gone"]);
}

#[test]
fn a_temporary_file_that_is_left_is_caught() {
    assert_caught("leftover", &["is left after opening"]);
}
