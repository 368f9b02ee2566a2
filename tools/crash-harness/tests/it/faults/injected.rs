//! Each system call of a fixed work fails once, or from then on for ever: strace does it.
//!
//! To the program as it was built for these tests; `cargo test --release` does it to a release
//! build. Writes that are cut short are in [`super::limits`], where the kernel cuts them: what
//! strace can do is to say that a part was written when nothing was, which no kernel does.

use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;

use super::supervise;
use crate::support::{counted, program, quick_directory, skipped};

/// How many operations the child performs; enough for several roll-overs.
const OPERATIONS: &str = "12";
const SEGMENT_BYTES: &str = "2048";

/// More calls of one kind than the work can make.
const CALLS_MAX: u32 = 400;

/// What came of all faults of one kind.
#[derive(Debug, Default)]
struct Sum {
    runs: u64,
    fired: u64,
    errors: u64,
    disk_full: u64,
    poisoned: u64,
    /// Runs in which a call failed and nobody was told.
    silent: u64,
}

/// Makes the call `name` fail with `fault`, for each n the n-th one, until there is no n-th.
fn each(name: &str, fault: &str, mode: &str, files: &[&str]) -> Sum {
    let directory = quick_directory();
    let place = directory.path();
    let jobs = u32::try_from(thread::available_parallelism().map_or(1, usize::from)).unwrap();
    let mut sum = Sum::default();
    let first = if files.is_empty() {
        calls_before_main(place, name) + 1
    } else {
        1
    };
    for from in (first..CALLS_MAX).step_by(jobs as usize) {
        let one = |nth: u32| {
            let inject = match fault.strip_suffix('+') {
                Some(fault) => format!("{name}:{fault}:when={nth}+"),
                None => format!("{name}:{fault}:when={nth}"),
            };
            let mut arguments = vec!["--operations", OPERATIONS, "--inject", &inject];
            arguments.extend(files.iter().flat_map(|file| ["--file", file]));
            supervise(place, mode, SEGMENT_BYTES, &arguments)
        };
        let reports: Vec<_> = thread::scope(|scope| {
            let runs: Vec<_> = (from..from + jobs)
                .map(|nth| scope.spawn(move || one(nth)))
                .collect();
            runs.into_iter().map(|run| run.join().unwrap()).collect()
        });
        for report in &reports {
            sum.runs += 1;
            sum.fired += report.count("fired");
            sum.disk_full += report.figure("DiskFull");
            sum.poisoned += report.figure("Poisoned");
            let errors = ["DiskFull", "Poisoned", "Io"].map(|kind| report.figure(kind));
            let errors: u64 = errors.iter().sum();
            sum.errors += errors;
            sum.silent += u64::from(errors == 0 && report.count("fired") > 0);
        }
        if reports.iter().any(|report| report.count("fired") == 0) {
            counted(&format!("{name} {fault} in mode {mode}: {sum:?}"));
            return sum;
        }
    }
    panic!("{name} is called without an end");
}

/// How often the loader and the runtime call `name` before the program begins: not the store's.
fn calls_before_main(place: &Path, name: &str) -> u32 {
    let trace = place.join("trace");
    let store = place.join("dry");
    let mut command = Command::new("strace");
    command.args(["-f", "-qqq", "-e", &format!("trace=?{name},write"), "-o"]);
    command.arg(&trace);
    let child = program(&["fault", "--mode", "os", "--seed", "5", "--operations", "1"]);
    command.arg(child.get_program()).args(child.get_args());
    command
        .args(["--segment-bytes", SEGMENT_BYTES, "--store"])
        .arg(store);
    assert!(command.stdout(Stdio::null()).status().unwrap().success());
    let trace = std::fs::read_to_string(trace).unwrap();
    let before = trace.lines().take_while(|line| !line.contains("\"hello "));
    let calls = before.filter(|line| !line.contains("write("));
    u32::try_from(calls.count()).unwrap()
}

/// Whether there is a strace that may trace; says so if not.
fn has_strace() -> bool {
    let mut command = Command::new("strace");
    command.args([
        "-f",
        "-qqq",
        "-o",
        "/dev/null",
        "-e",
        "inject=?flock:error=EIO",
        "true",
    ]);
    let works = command.status().is_ok_and(|status| status.success());
    if !works {
        skipped("injected faults, because there is no strace that may trace");
    }
    works
}

#[test]
fn an_interrupted_call_is_no_error() {
    if !has_strace() {
        return;
    }
    for name in ["pwrite64", "fdatasync", "fsync", "fallocate", "flock"] {
        let sum = each(name, "error=EINTR", "sync", &[]);
        assert_eq!(sum.errors, 0, "{name}");
        assert!(sum.fired > 0, "{name} is not called any more");
    }
}

#[test]
fn an_interrupted_opening_of_a_file_or_directory_is_no_error() {
    if !has_strace() {
        return;
    }
    let sum = each("openat", "error=EINTR", "sync", &[]);
    assert_eq!(sum.errors, 0, "{sum:?}");
    assert!(sum.fired > 0, "{sum:?}");
}

#[test]
fn space_that_cannot_be_reserved_is_a_full_disk_that_poisons_nothing() {
    if !has_strace() {
        return;
    }
    for error in ["error=ENOSPC", "error=EDQUOT"] {
        let sum = each("fallocate", error, "sync", &[]);
        assert!(sum.disk_full > 0, "{sum:?}");
        assert_eq!(sum.poisoned, 0, "{sum:?}");
    }
    // Where space cannot be reserved at all, zeros are written instead.
    assert_eq!(each("fallocate", "error=EOPNOTSUPP", "sync", &[]).errors, 0);
}

#[test]
fn a_file_that_cannot_be_mapped_is_read_all_the_same() {
    if !has_strace() {
        return;
    }
    let files: Vec<_> = (1..40).map(|id| format!("{id:08}.seg")).collect();
    let files: Vec<_> = files.iter().map(String::as_str).collect();
    for error in ["error=ENOMEM", "error=EMFILE"] {
        let sum = each("mmap", error, "sync", &files);
        assert_eq!(sum.errors, 0, "{sum:?}");
        assert!(sum.fired > 0, "nothing is mapped any more");
        // What processes share cannot be had without: opening says so, and loses nothing.
        let sum = each("mmap", error, "sync", &["STATE"]);
        assert!(sum.errors > 0 && sum.poisoned == 0, "{sum:?}");
    }
}

#[test]
fn a_refused_write_or_sync_is_a_typed_error_and_loses_nothing() {
    if !has_strace() {
        return;
    }
    let faults = [
        ("pwrite64", "error=EIO", "sync"),
        ("pwrite64", "error=ENOSPC", "os"),
        ("pwrite64", "retval=0", "sync"),
        ("fdatasync", "error=EIO", "sync"),
        ("fdatasync", "error=EIO", "deferred"),
        ("fdatasync", "error=ENOSPC", "mix"),
        ("fsync", "error=EIO", "sync"),
    ];
    for (name, fault, mode) in faults {
        let sum = each(name, fault, mode, &[]);
        assert!(sum.fired > 0 && sum.poisoned > 0, "{name} {fault}: {sum:?}");
        // A full disk may leave out what only protects the end of the log a little more.
        let may_be_silent = fault.contains("ENOSPC");
        assert!(sum.silent == 0 || may_be_silent, "{name} {fault}: {sum:?}");
    }
}

#[test]
fn a_refused_opening_reserving_or_renaming_is_a_typed_error_and_loses_nothing() {
    if !has_strace() {
        return;
    }
    let faults = [
        ("openat", "error=EMFILE"),
        ("openat", "error=EIO"),
        ("openat", "error=ENOSPC"),
        ("fallocate", "error=EIO"),
        ("/^rename", "error=EIO"),
        ("/^rename", "error=ENOSPC"),
    ];
    for (name, fault) in faults {
        let sum = each(name, fault, "sync", &[]);
        assert!(sum.fired > 0 && sum.errors > 0, "{name} {fault}: {sum:?}");
    }
}

#[test]
fn a_fault_that_lasts_is_a_typed_error_every_time_and_the_healed_store_is_whole() {
    if !has_strace() {
        return;
    }
    let faults = [
        ("pwrite64", "error=EIO+", "os"),
        ("fdatasync", "error=EIO+", "sync"),
        ("fallocate", "error=ENOSPC+", "sync"),
        ("fsync", "error=EIO+", "sync"),
        ("openat", "error=EMFILE+", "sync"),
        ("/^rename", "error=EIO+", "sync"),
    ];
    for (name, fault, mode) in faults {
        let sum = each(name, fault, mode, &[]);
        assert!(
            sum.fired > sum.runs && sum.errors > 0,
            "{name} {fault}: {sum:?}"
        );
    }
}
