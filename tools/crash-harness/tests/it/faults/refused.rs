//! A directory that may not be read, may not be written, or is gone: typed errors, no panic.

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::full_disk::{Disk, run};
use crate::support::{Report, program, skipped};

/// The user of nobody in particular, whom permissions bind.
const NOBODY: u32 = 65534;

/// A store with one key, all of it owned by nobody, in a place that anybody may go to.
struct Place {
    directory: TempDir,
}

impl Place {
    /// None, loudly, where this user cannot give files away: then permissions cannot be tried.
    fn new() -> Option<Self> {
        let directory = tempfile::tempdir().unwrap();
        let place = Self { directory };
        allow(place.directory.path(), 0o755);
        if let Err(error) = chown(place.directory.path(), Some(NOBODY), Some(NOBODY)) {
            skipped(&format!(
                "refused files, because they cannot be given away: {error}"
            ));
            return None;
        }
        let built = program(&[]).get_program().to_owned();
        std::fs::copy(built, place.program()).unwrap();
        let report = place.attempt(&[]);
        assert_eq!(report.done(), "open=ok keys=1 set=ok close=ok");
        Some(place)
    }

    fn program(&self) -> PathBuf {
        self.directory.path().join("program")
    }

    fn store(&self) -> PathBuf {
        self.directory.path().join("store")
    }

    /// Tries to open the store, as nobody.
    fn attempt(&self, more: &[&str]) -> Report {
        let mut command = std::process::Command::new(self.program());
        command.uid(NOBODY).gid(NOBODY);
        command
            .arg("attempt")
            .arg("--store")
            .arg(self.store())
            .args(more);
        Report::from(command)
    }
}

fn allow(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

#[test]
fn a_directory_that_may_not_be_entered_is_an_io_error() {
    let Some(place) = Place::new() else { return };
    for mode in [0o000, 0o444, 0o222] {
        allow(&place.store(), mode);
        assert_eq!(place.attempt(&[]).done(), "open=Io");
        assert_eq!(place.attempt(&["--read-only"]).done(), "open=Io");
    }
    allow(&place.store(), 0o755);
    assert_eq!(place.attempt(&[]).done(), "open=ok keys=1 set=ok close=ok");
}

#[test]
fn a_directory_that_may_not_be_written_is_an_io_error_and_can_be_read() {
    let Some(place) = Place::new() else { return };
    for file in std::fs::read_dir(place.store()).unwrap() {
        allow(&file.unwrap().path(), 0o444);
    }
    allow(&place.store(), 0o555);
    assert_eq!(place.attempt(&[]).done(), "open=Io");
    let read = place.attempt(&["--read-only"]);
    assert_eq!(read.done(), "open=ok keys=1 set=ReadOnly close=ok");
}

#[test]
fn each_file_that_may_not_be_read_is_an_io_error_or_is_not_needed() {
    let Some(place) = Place::new() else { return };
    let mut refused = 0;
    for file in std::fs::read_dir(place.store()).unwrap() {
        let path = file.unwrap().path();
        allow(&path, 0o000);
        for more in [&[][..], &["--read-only"][..]] {
            let report = place.attempt(more);
            let is_refused = report.done() == "open=Io";
            assert!(
                is_refused || report.done().starts_with("open=ok keys=1 "),
                "{}: {}",
                path.display(),
                report.text
            );
            refused += u64::from(is_refused);
        }
        allow(&path, 0o644);
    }
    assert!(refused >= 4, "{refused}");
}

#[test]
fn a_store_that_may_not_be_made_is_an_io_error() {
    let Some(place) = Place::new() else { return };
    std::fs::remove_dir_all(place.store()).unwrap();
    allow(place.directory.path(), 0o555);
    assert_eq!(place.attempt(&[]).done(), "open=Io");
    assert_eq!(place.attempt(&["--read-only"]).done(), "open=NotFound");
}

#[test]
fn a_file_system_for_reading_only_is_an_io_error_and_can_be_read() {
    let disk = match Disk::mount(1024) {
        Ok(disk) => disk,
        Err(error) => {
            skipped(&format!("a file system for reading only: {error}"));
            return;
        }
    };
    let store = disk.path().join("store");
    let attempt = |more: &[&str]| {
        let mut command = program(&["attempt", "--store", store.to_str().unwrap()]);
        command.args(more);
        Report::from(command)
    };
    assert_eq!(attempt(&[]).done(), "open=ok keys=1 set=ok close=ok");
    run("mount", &["-o", "remount,ro"], disk.path()).unwrap();
    assert_eq!(attempt(&[]).done(), "open=Io");
    let read = attempt(&["--read-only"]);
    assert_eq!(read.done(), "open=ok keys=1 set=ReadOnly close=ok");
}

#[test]
fn a_directory_that_vanishes_is_a_typed_error_and_reads_go_on() {
    let directory = tempfile::tempdir().unwrap();
    let store = directory.path().join("store");
    let arguments = ["attempt", "--vanish", "--store", store.to_str().unwrap()];
    let report = Report::of(&arguments);
    assert_eq!(report.code, Some(0), "{}", report.text);
    assert_eq!(report.figure("read"), 1);
    assert!(
        report.figure("Io") + report.figure("Poisoned") > 0,
        "{}",
        report.text
    );
}
