//! A disk filled to the brim, in many sizes: nothing is lost, and writing goes on once it can.

use std::io;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use crate::support::{Report, counted, skipped};

/// A small disk in memory; gone when dropped.
pub(super) struct Disk {
    directory: TempDir,
}

impl Disk {
    /// Mounts one, which takes a privileged user.
    pub(super) fn mount(kib: u64) -> io::Result<Self> {
        let directory = tempfile::tempdir()?;
        let options = format!("size={kib}k,mode=755");
        let arguments = ["-t", "tmpfs", "-o", &options, "tmpfs"];
        run("mount", &arguments, directory.path())?;
        Ok(Self { directory })
    }

    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        run("umount", &[], self.directory.path()).unwrap();
    }
}

/// Runs a program on `path`.
///
/// # Errors
/// If it cannot be run, or does not succeed.
pub(super) fn run(program: &str, arguments: &[&str], path: &Path) -> io::Result<()> {
    let output = Command::new(program).args(arguments).arg(path).output()?;
    if output.status.success() {
        return Ok(());
    }
    Err(io::Error::other(
        String::from_utf8_lossy(&output.stderr).into_owned(),
    ))
}

/// Segments that roll over often, now and then, and hardly ever.
const SEGMENT_BYTES: [&str; 3] = ["4096", "20000", "100000"];

/// Runs the child on disks of many sizes; how many runs there were, or none where none is allowed.
fn fill_all(segment_bytes: [&str; 3], how: &[&str]) -> u64 {
    let (mut runs, mut commits, mut refusals, mut unopened) = (0, 0, 0, 0);
    // The child takes 192 KiB of each at first, and frees them in the end.
    for (at, kib) in (0..).zip((196..=520).step_by(4)) {
        let disk = match Disk::mount(kib) {
            Ok(disk) => disk,
            Err(error) => {
                skipped(&format!("full disks, because none can be mounted: {error}"));
                return 0;
            }
        };
        let ballast = disk.path().join("ballast");
        let durability = ["sync", "os", "deferred", "mix"][at % 4];
        let segment_bytes = segment_bytes[at % 3];
        let store = disk.path().join("store");
        let mut arguments = vec![
            "full-disk",
            "--mode",
            durability,
            "--segment-bytes",
            segment_bytes,
        ];
        arguments.extend(["--store", store.to_str().unwrap()]);
        arguments.extend(["--ballast", ballast.to_str().unwrap()]);
        arguments.extend(how);
        let report = Report::of(&arguments);
        assert_eq!(
            report.code,
            Some(0),
            "{kib} KiB, {arguments:?}: {}",
            report.text
        );
        runs += 1;
        commits += report.figure("commits");
        refusals += report.figure("DiskFull");
        unopened += u64::from(report.figure("open") == 0);
    }
    counted(&format!(
        "full disks {how:?}: {runs} runs, {unopened} too small for a store, {commits} commits, \
         {refusals} refusals"
    ));
    assert!(commits > 1000 && refusals > 10 * (runs - unopened) && unopened < runs / 4);
    runs
}

#[test]
fn a_full_disk_loses_nothing_and_writing_goes_on_without_reopening_once_there_is_space() {
    fill_all(SEGMENT_BYTES, &[]);
}

#[test]
fn a_store_opens_on_a_full_disk_and_holds_all_that_was_acknowledged() {
    fill_all(SEGMENT_BYTES, &["--reopen"]);
}

#[test]
fn keys_are_deleted_on_a_full_disk() {
    // Smaller segments keep nothing.
    fill_all(["32768", "65536", "1000000"], &["--deletes"]);
}
