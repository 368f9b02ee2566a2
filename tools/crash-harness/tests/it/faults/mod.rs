//! Calls that the machine refuses: a typed error, right reads, and a store that goes on.

mod full_disk;
mod injected;
mod limits;
mod refused;

use std::path::Path;

use crate::support::Report;

/// A supervised child on a store in `place`.
fn supervise(place: &Path, mode: &str, segment_bytes: &str, others: &[&str]) -> Report {
    let store = tempfile::tempdir_in(place).unwrap();
    let mut arguments = vec![
        "supervise",
        "--mode",
        mode,
        "--segment-bytes",
        segment_bytes,
    ];
    arguments.extend(["--store", store.path().to_str().unwrap(), "--seed", "5"]);
    arguments.extend(others);
    let report = Report::of(&arguments);
    assert_eq!(report.code, Some(0), "{arguments:?}: {}", report.text);
    report
}
