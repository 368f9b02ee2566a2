//! What real processes do is strictly serializable; children with a fault are caught.

use std::io::Write;
use std::process::Command;

/// Of the long run.
const TRANSACTIONS: u64 = 200_000;

/// Of the run with kills.
const KILLS: u64 = 30;

/// A seed from the environment, to repeat a run that printed it, or a new one for each run.
fn seed() -> String {
    std::env::var("HAPPYSTORE_SEED")
        .unwrap_or_else(|_| (u64::from(std::process::id()) * 1000).to_string())
}

/// What the program printed, and how it ended.
struct Report {
    text: String,
    code: Option<i32>,
}

impl Report {
    fn of(arguments: &[&str]) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_happystore-history-check"));
        let output = command
            .args(arguments)
            .args(["--seed", &seed()])
            .output()
            .unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        Self {
            text: text + &String::from_utf8(output.stderr).unwrap(),
            code: output.status.code(),
        }
    }

    /// The same, told past the test harness.
    fn told(self) -> Self {
        // Not by a macro that prints: the test harness hides what those say in tests that pass.
        std::io::stderr().write_all(self.text.as_bytes()).unwrap();
        self
    }

    /// The number behind `name: `, at the begin of a line.
    fn count(&self, name: &str) -> u64 {
        let mut lines = self.text.lines();
        let number = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        let number = number.unwrap_or_else(|| panic!("no {name} in {}", self.text));
        number.parse().unwrap()
    }

    fn assert_right(&self) {
        assert_eq!(self.code, Some(0), "{}", self.text);
        for line in [
            "witness checker: strictly serializable",
            "black box: strictly serializable",
            "verdict: strictly serializable",
        ] {
            assert!(
                self.text.lines().any(|other| other == line),
                "{line}: {}",
                self.text
            );
        }
    }

    fn assert_counts(&self, counts: &[(&str, u64)]) {
        for (name, least) in counts {
            assert!(self.count(name) >= *least, "{name}: {}", self.text);
        }
    }
}

#[test]
fn four_processes_with_two_threads_each_are_strictly_serializable() {
    let transactions = TRANSACTIONS.to_string();
    let report = Report::of(&["--transactions", &transactions]).told();
    report.assert_right();
    report.assert_counts(&[
        ("transactions", TRANSACTIONS),
        ("transactions, increments", 10_000),
        ("transactions, transfers", 10_000),
        ("transactions, list appends", 10_000),
        (
            "transactions, inserts, deletes and queries of cells",
            10_000,
        ),
        ("transactions, bulk writes", 2_000),
        ("transactions, aborted", 5_000),
        ("transactions, ended by an error", 2_000),
        ("transactions, snapshots", 2_000),
        ("transactions, queries", 10_000),
        ("transactions, bulk reads", 5_000),
        ("transactions, walks by iterators and scans", 1_000),
        ("transactions, single reads", 40_000),
        (
            "transactions, single questions whether a key is there",
            5_000,
        ),
        ("nested transactions, undone", 10_000),
        ("writers in one line", 80_000),
        ("answers checked", 500_000),
        ("keys shown by queries checked", 500_000),
        ("list transactions", 30_000),
        ("list appends", 30_000),
    ]);
    let each = report
        .text
        .lines()
        .find_map(|line| line.strip_prefix("transactions of each process: "));
    // The one that has made the store, and four.
    assert_eq!(each.unwrap().split(' ').count(), 5);
}

#[test]
fn killed_processes_leave_a_strictly_serializable_history() {
    let kills = KILLS.to_string();
    let report = Report::of(&["--transactions", "20000", "--kills", &kills]).told();
    report.assert_right();
    report.assert_counts(&[
        ("kills", KILLS),
        ("transactions", 20_000),
        ("transactions of unknown outcome", 1),
        ("writers in one line", 5_000),
    ]);
}

/// Lets children work that have a fault, and expects both judges to say this.
fn assert_caught(fault: &str, witness: &[&str], black_box: &str) {
    let scratch = tempfile::tempdir().unwrap();
    let directory = scratch.path().to_str().unwrap();
    let arguments = [
        "--transactions",
        "8000",
        "--planted",
        fault,
        "--directory",
        directory,
    ];
    let report = Report::of(&arguments);
    assert_eq!(report.code, Some(1), "{}", report.text);
    let line = |start: &str| {
        let mut lines = report.text.lines();
        lines
            .find_map(|line| line.strip_prefix(start))
            .unwrap_or_else(|| panic!("{}", report.text))
    };
    let said = line("witness checker: REFUSED: ");
    assert!(witness.iter().any(|words| said.contains(words)), "{said}");
    assert!(
        line("black box: ").contains(black_box),
        "{}",
        line("black box: ")
    );
    assert!(std::path::Path::new(line("kept: ")).join("store").is_dir());
    assert_eq!(line("verdict: "), "BROKEN");
}

#[test]
fn stale_single_reads_are_caught() {
    assert_caught("stale-read", &["which is there at no position"], "realtime");
}

#[test]
fn a_clock_read_before_its_transaction_is_caught() {
    assert_caught(
        "lost-update",
        &["both claim position", "no transaction stands"],
        "",
    );
}

#[test]
fn a_write_that_nobody_tells_of_is_caught() {
    assert_caught("hidden-write", &["hidden"], "strictly serializable");
}

#[test]
fn a_rollback_that_is_none_is_caught() {
    assert_caught("committed-abort", &["no transaction stands"], "G1a");
}
