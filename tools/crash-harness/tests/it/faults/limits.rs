//! Limits of the process: the size of a file, the number of open files.

use super::supervise;
use crate::support::{Report, counted, quick_directory};

const OPERATIONS: &str = "30";
const SEGMENT_BYTES: u64 = 2048;

/// The child reaches a limit, which is lifted after a few errors; sums of acknowledged commits and
/// of errors over all runs.
fn all(limit: &str, values: impl Iterator<Item = u64>) -> (u64, u64) {
    let directory = quick_directory();
    let (mut acked, mut errors, mut runs) = (0, 0, 0);
    for value in values {
        for (mode, limit_from) in [("sync", "3"), ("os", "7"), ("deferred", "0")] {
            let value = value.to_string();
            let mut more = vec!["--operations", OPERATIONS, limit, &value];
            more.extend(["--limit-from", limit_from, "--heal-after", "3"]);
            let report = supervise(directory.path(), mode, &SEGMENT_BYTES.to_string(), &more);
            assert_eq!(report.figure("gave-up"), 0, "{more:?}: {}", report.text);
            acked += report.figure("acked");
            errors += ["Io", "DiskFull", "Poisoned"]
                .map(|kind| report.figure(kind))
                .iter()
                .sum::<u64>();
            runs += 1;
        }
    }
    counted(&format!(
        "{limit}: {runs} runs, {acked} commits, {errors} errors"
    ));
    (acked, errors)
}

#[test]
fn a_file_that_may_not_grow_is_a_typed_error_and_the_store_goes_on_when_it_may() {
    // A write across the limit is cut short by the kernel; its rest is then refused.
    let edges = [1, 8, 63, 64, 65, 95, 96, 97];
    let within = (100..SEGMENT_BYTES).step_by(61);
    let (acked, errors) = all("--file-bytes-max", edges.into_iter().chain(within));
    assert!(acked > 1000 && errors > 50);
}

#[test]
fn too_many_open_files_are_a_typed_error_and_the_store_goes_on_when_there_may_be_more() {
    let (acked, errors) = all("--files-max", 3..24);
    assert!(acked > 500 && errors > 50);
}

#[test]
fn a_child_that_takes_a_failed_commit_as_done_is_caught() {
    let directory = quick_directory();
    let store = directory.path().join("store");
    let mut arguments = vec!["supervise", "--shrug", "--seed", "5", "--mode", "sync"];
    arguments.extend([
        "--store",
        store.to_str().unwrap(),
        "--operations",
        OPERATIONS,
    ]);
    arguments.extend(["--segment-bytes", "2048", "--file-bytes-max", "700"]);
    arguments.extend(["--limit-from", "3", "--heal-after", "3"]);
    let report = Report::of(&arguments);
    assert_eq!(report.code, Some(1), "{}", report.text);
    assert!(report.text.contains("BROKEN: "), "{}", report.text);
}
