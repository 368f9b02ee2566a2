//! What is told: a line for each figure, and what was found.

use std::collections::BTreeMap;
use std::fmt::{self, Display};
use std::io::{self, Stdout, Write};
use std::path::{Path, PathBuf};

use crate::black_box::Judged;
use crate::checker::{Checked, Violation};
use crate::history::{Operation, Outcome, Transaction};
use crate::workload::history_file;

/// What each letter stands for.
const KINDS: &[(char, &str)] = &[
    ('0', "the first content"),
    ('i', "increments"),
    ('t', "transfers"),
    ('l', "list appends"),
    ('c', "inserts, deletes and queries of cells"),
    ('b', "bulk writes"),
    ('a', "aborted"),
    ('e', "ended by an error"),
    ('s', "snapshots"),
    ('q', "queries"),
    ('m', "bulk reads"),
    ('w', "walks by iterators and scans"),
    ('g', "single reads"),
    ('h', "single questions whether a key is there"),
];

/// The longest line of a history, or anomaly, that is told in full, in characters.
const SHOWN_MAX: usize = 2000;

/// Tells on the standard output.
pub(super) struct Report {
    scratch: PathBuf,
    out: Stdout,
}

impl Report {
    pub(super) fn new(seed: u64, scratch: &Path) -> Self {
        let report = Self {
            scratch: scratch.to_owned(),
            out: io::stdout(),
        };
        report.line("seed", seed);
        report
    }

    /// A name and what it is.
    pub(super) fn line(&self, name: &str, what: impl Display) {
        // Nobody may be listening.
        let _ = writeln!(&self.out, "{name}: {what}");
    }

    /// What was done.
    pub(super) fn work(
        &self,
        history: &[Transaction<'_>],
        each: &BTreeMap<u32, u64>,
        kills: u64,
        seconds: f64,
    ) {
        let count = |wanted: &dyn Fn(&Transaction<'_>) -> bool| {
            history
                .iter()
                .filter(|transaction| wanted(transaction))
                .count()
        };
        let all = history.len();
        self.line("transactions", all);
        for (letter, name) in KINDS {
            let of_kind = count(&|transaction| transaction.kind == *letter);
            self.line(&format!("transactions, {name}"), of_kind);
        }
        let nested = history
            .iter()
            .flat_map(|transaction| &transaction.operations);
        let inner = |wanted: &Operation<'_>| nested.clone().filter(|&o| o == wanted).count();
        self.line("nested transactions", inner(&Operation::Begin));
        self.line("nested transactions, undone", inner(&Operation::Abort));
        let unknown = count(&|transaction| transaction.outcome == Outcome::Unknown);
        self.line("transactions of unknown outcome", unknown);
        self.line("kills", kills);
        let each: Vec<String> = each.values().map(ToString::to_string).collect();
        self.line("transactions of each process", each.join(" "));
        self.line("seconds", format!("{seconds:.1}"));
        #[expect(clippy::cast_precision_loss, reason = "a figure for people")]
        let rate = all as f64 / seconds;
        self.line("transactions per second", format!("{rate:.0}"));
    }

    /// What the witness checker says.
    pub(super) fn checked(
        &self,
        checked: &Result<Checked, Violation>,
        history: &[Transaction<'_>],
    ) {
        match checked {
            Ok(checked) => {
                self.line("writers in one line", checked.writers);
                self.line("readers placed by the clock", checked.readers);
                self.line("single reads placed", checked.plain_reads);
                self.line("answers checked", checked.answers);
                self.line("keys shown by queries checked", checked.shown);
                self.line("unknown outcomes, there", checked.unknown_there);
                self.line("unknown outcomes, not there", checked.unknown_absent);
                self.line("witness checker", "strictly serializable");
            }
            Err(violation) => {
                self.line("witness checker", format!("REFUSED: {violation}"));
                self.involved(&violation.to_string(), history);
            }
        }
    }

    /// The transactions that a violation names.
    fn involved(&self, violation: &str, history: &[Transaction<'_>]) {
        let words: Vec<&str> = violation
            .split(|c: char| !c.is_ascii_digit() && c != '.')
            .collect();
        for transaction in history {
            let id = transaction.id;
            if words.contains(&id.to_string().as_str()) {
                let file = history_file(&self.scratch, id.process, id.thread);
                let place = format!("{}, line {}", file.display(), 2 * id.number + 1);
                let what = Short(format!("{transaction:?}"));
                self.line(&format!("transaction {id}"), format!("{place}: {what}"));
            }
        }
    }

    /// What the black box says.
    pub(super) fn judged(&self, judged: &Judged) {
        self.line("list transactions", judged.transactions);
        self.line("list reads", judged.reads);
        self.line("list appends", judged.appends);
        if judged.is_right() {
            self.line("black box", "strictly serializable");
            return;
        }
        let report = &judged.report;
        let kinds = report.anomaly_types.join(", ");
        self.line("black box", format!("REFUSED: {:?}: {kinds}", report.valid));
        for anomaly in report.anomalies.values().filter_map(|all| all.first()) {
            self.line(&anomaly.kind, Short(anomaly.explanation.clone()));
        }
    }
}

/// A text that is cut where it gets too long.
struct Short(String);

impl Display for Short {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.char_indices().nth(SHOWN_MAX) {
            Some((end, _)) => write!(f, "{} …", &self.0[..end]),
            None => f.write_str(&self.0),
        }
    }
}
