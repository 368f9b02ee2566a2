//! The tester, tested: every planted bug is found, and soon.
//!
//! That a sync failed and yet an operation succeeded is overlooked here, so that bugs show in
//! what is lost by them.

use happystore::vfs::sim::Plant;

use super::sweep::{Tally, sweep};
use super::workload;

/// Within how many faults every planted bug must show.
const RUNS_MAX: u64 = 20_000;

/// Goes through workloads until the bug shows.
fn runs_until(plant: Plant) -> u64 {
    let mut tally = Tally::default();
    let mut shown = None;
    for workload in workload::all() {
        shown = sweep(&workload, 8, Some(plant), &mut tally).err();
        if shown.is_some() {
            break;
        }
    }
    let shown = shown.map(|shown| shown.chars().take(300).collect::<String>());
    eprintln!("{plant:?}: {} runs: {shown:?}", tally.runs);
    if shown.is_some() {
        tally.runs
    } else {
        u64::MAX
    }
}

#[test]
fn a_failed_sync_that_is_hidden_is_noticed() {
    assert!(runs_until(Plant::HiddenSyncFailure) < RUNS_MAX);
}

#[test]
fn a_failed_write_that_is_hidden_is_noticed() {
    assert!(runs_until(Plant::HiddenWriteFailure) < RUNS_MAX);
}

#[test]
fn a_failed_read_that_is_hidden_is_noticed() {
    assert!(runs_until(Plant::HiddenReadFailure) < RUNS_MAX);
}

#[test]
fn syncs_that_do_nothing_are_noticed() {
    assert!(runs_until(Plant::NoSegmentSync) < RUNS_MAX);
    assert!(runs_until(Plant::EveryOtherSegmentSync) < RUNS_MAX);
    assert!(runs_until(Plant::NoDirectorySync) < RUNS_MAX);
    assert!(runs_until(Plant::NoManifestSync) < RUNS_MAX);
}
