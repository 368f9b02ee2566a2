//! Of several processes that write to one store some are killed: nothing is lost, and others go on.

use std::os::unix::process::CommandExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, kill_process};

use crate::kills::{assert_found, assert_kills_come_during_compaction, is_skipped};
use crate::support::{Report, counted, program, seed};

/// Kills of the short run.
const KILLS: u64 = 200;

fn campaign(seed: u64, kills: u64, more: &[&str]) -> Report {
    let (seed, kills) = (seed.to_string(), kills.to_string());
    let mut arguments = vec!["--processes", "2,3,4", "--seed", &seed, "--kills", &kills];
    arguments.extend(more);
    Report::of(&arguments)
}

#[test]
fn processes_killed_beside_others_lose_nothing_and_keep_nobody_waiting() {
    let report = campaign(seed(), KILLS, &[]);
    counted(&report.text);
    assert_eq!(report.code, Some(0));
    assert!(report.count("kills") >= KILLS);
    let kinds = [
        ("beside others, at a random time", 8),
        ("with the writer lock, while others wait", 2),
        ("with the writer lock or without, after a stop", 2),
        ("all at once", 20),
        ("while several open", 3),
        ("beside others, at a system call", 2),
        ("beside others, at a byte of a file", 1),
        ("beside others, at a named point", 2),
        ("beside others, at a named point of compaction", 5),
        ("beside others, while compacting", 20),
    ];
    for (kind, least) in kinds {
        let least = if is_skipped(&report, kind) { 0 } else { least };
        assert!(report.count(&format!("kills {kind}")) >= least, "{kind}");
    }
    assert_kills_come_during_compaction(&report);
    for writing in 2..=4 {
        let kills = report.count(&format!("kills with {writing} writing"));
        assert!(kills > 0, "{writing} writing");
    }
    let counts = [
        ("openings checked", 20),
        ("acknowledged commits", 1000),
        ("unacknowledged, there as a whole", 1),
        ("unacknowledged, not there", 10),
        ("snapshots of readers compared", 2000),
        ("keys compared", 2000),
        ("went on after a death", 50),
    ];
    for (name, least) in counts {
        assert!(report.count(name) >= least, "{name}");
    }
}

#[test]
fn commits_that_take_one_position_twice_are_caught() {
    let report = campaign(seed(), KILLS, &["--planted", "lost-turn"]);
    assert_found(
        &report,
        &["both at position", "began behind", "must be", "order"],
    );
}

#[test]
fn a_reader_that_stays_behind_is_caught() {
    let report = campaign(seed(), KILLS, &["--planted", "old-sight"]);
    assert_found(&report, &["had been acknowledged"]);
}

#[test]
fn a_process_that_does_not_go_on_is_caught() {
    let more = ["--planted", "asleep", "--patience", "2", "--jobs", "1"];
    let report = campaign(seed(), KILLS, &more);
    assert_found(&report, &["did not go on within"]);
}

#[test]
fn an_acknowledgement_before_its_commit_is_caught_among_several_processes() {
    // Stores of odd seeds have commits beside their order.
    let report = campaign(
        seed() | 1,
        KILLS,
        &["--planted", "early-acknowledgement", "--jobs", "1"],
    );
    assert_found(&report, &["is lost", "keys to delete"]);
}

#[test]
fn a_campaign_that_is_interrupted_says_how_far_it_came_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let place = directory.path().to_str().unwrap();
    let child = program(&["--minutes", "5", "--directory", place])
        .process_group(0)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let begun = Instant::now();
    while std::fs::read_dir(directory.path()).unwrap().count() < 2 {
        assert!(
            begun.elapsed() < Duration::from_mins(1),
            "no store is begun"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
    let process_id = Pid::from_raw(i32::try_from(child.id()).unwrap()).unwrap();
    kill_process(process_id, Signal::INT).unwrap();
    let output = child.wait_with_output().unwrap();
    let text = String::from_utf8(output.stdout).unwrap();
    assert_eq!(output.status.code(), Some(130), "{text}");
    assert!(
        text.contains("kills: ") && text.contains("interrupted"),
        "{text}"
    );
    assert_eq!(std::fs::read_dir(directory.path()).unwrap().count(), 0);
}
