//! The tables at the end: a column a store, and the ratios the project cares about.

use crate::asked::{Asked, Part};
use crate::durable::{self, COMMITS, OF_RAW, OF_RAW_P50, RAW};
use crate::figures::{Figures, median, show_rounds};
use crate::processes::table;
use crate::single::{BATCHES, HIT, KILL_ROWS, MISS, OVERWRITES, RANGE, SCAN, SETS};
use crate::stores::Kind;

/// A disk that syncs more often a second than this is none.
const DISK_SYNCS_A_SECOND_MAX: f64 = 200_000.0;

/// All figures of one store, of one round after another.
pub struct Column {
    pub kind: &'static Kind,
    pub rounds: Vec<Figures>,
}

impl Column {
    fn values(&self, row: &str) -> Vec<f64> {
        let values = self.rounds.iter().map(|round| round.get(row));
        values.flatten().collect()
    }

    /// A store without kill-safe commits stands in some rows without being compared.
    fn is_ranked(&self, row: &str) -> bool {
        let is_unsafe = !self.kind.kill_safe && KILL_ROWS.contains(&row);
        !is_unsafe && !table::is_durable_alone(self, row)
    }

    fn cell(&self, row: &str) -> String {
        let values = self.values(row);
        let mark = match self.is_ranked(row) || values.is_empty() {
            true => "",
            false if table::is_mine(row) => " †",
            false => " *",
        };
        format!("{}{mark}", show_rounds(row, values))
    }
}

/// Prints everything.
pub fn print(asked: &Asked, columns: &[Column]) {
    let of_durable = |row: &str| row.contains(": ") && !table::is_mine(row);
    let rounds = match asked.rounds {
        1 => "one round".to_owned(),
        rounds => format!("median of {rounds} rounds (least–most)"),
    };
    if asked.parts.contains(&Part::Single) {
        println!("One thread; its commits survive a killed process.");
        println!(
            "{} keys of 24 B, values of 150 B; {rounds}.",
            asked.plan.keys
        );
        println!("Higher is better, but for memory, disk and opening. * does not survive a kill:");
        println!(
            "redb cannot without a sync, this is its `None`; sled syncs twice a second. Both stand"
        );
        println!("unranked.\n");
        print_table(columns, |row| !of_durable(row) && !table::is_mine(row));
    }
    if asked.parts.contains(&Part::Durable) {
        println!("Commits of one set each; they survive a power cut.");
        println!(
            "Keys of 24 B, values of 150 B; {} s a cell; {rounds}.",
            asked.plan.seconds(Part::Durable)
        );
        println!(
            "The raw loop writes 210 B into written space and calls fdatasync: it ran in turn"
        );
        println!("with the store in whose column it stands.\n");
        print_table(columns, of_durable);
    }
    if asked.parts.contains(&Part::Processes) {
        table::print(asked, columns, &rounds);
    }
    print_ratios(asked, columns);
    print_warnings(columns);
}

/// Prints the rows that are wanted, and the stores that have any of them.
pub fn print_table(columns: &[Column], wanted: impl Fn(&str) -> bool) {
    let has_any = |column: &&Column| {
        let rows = column.rounds.iter().flat_map(|round| &round.rows);
        rows.into_iter().any(|(row, _)| wanted(row))
    };
    let columns: Vec<&Column> = columns.iter().filter(has_any).collect();
    let titles: Vec<&str> = columns.iter().map(|column| column.kind.title).collect();
    println!("| | {} |", titles.join(" | "));
    println!("|---|{}", "---:|".repeat(titles.len()));
    let mut rows: Vec<&str> = Vec::new();
    for round in columns.iter().filter_map(|column| column.rounds.first()) {
        for (row, _) in round.rows.iter().filter(|(row, _)| wanted(row)) {
            if !rows.contains(&row.as_str()) {
                rows.push(row);
            }
        }
    }
    for row in rows {
        let cells: Vec<String> = columns.iter().map(|column| column.cell(row)).collect();
        println!("| {row} | {} |", cells.join(" | "));
    }
    println!();
}

/// Ratios are taken inside each round, as figures drift from one to the next.
fn print_ratios(asked: &Asked, columns: &[Column]) {
    let column = |name: &str| columns.iter().find(|column| column.kind.name == name);
    let Some(ours) = column("happystore") else {
        return;
    };
    println!("| happystore in proportion to | |");
    println!("|---|---:|");
    for row in [OF_RAW, OF_RAW_P50] {
        let ratios = ours.values(&durable::row(1, row));
        if !ratios.is_empty() {
            let ratios = show_rounds(row, ratios);
            let what = row.trim_start_matches("of ");
            println!("| {what}, durable sets, 1 thread | {ratios} |");
        }
    }
    for &threads in asked.threads.iter().filter(|threads| **threads > 1) {
        if let Some(rocksdb) = column("rocksdb") {
            print_ratio(ours, rocksdb, &durable::row(threads, COMMITS));
        }
    }
    let peers = columns
        .iter()
        .filter(|peer| peer.kind.name != ours.kind.name);
    let peers: Vec<&Column> = peers.collect();
    for row in [SETS, OVERWRITES, BATCHES, HIT, MISS, RANGE, SCAN] {
        if let Some(best) = best(&peers, row) {
            print_ratio(ours, best, row);
        }
    }
    table::print_ratios(asked, ours, &peers);
    println!();
}

/// The one with the highest figure in a row, of those that are compared there.
pub fn best<'a>(peers: &[&'a Column], row: &str) -> Option<&'a Column> {
    peers
        .iter()
        .filter(|peer| peer.is_ranked(row))
        .filter_map(|peer| Some((median(peer.values(row))?, *peer)))
        .max_by(|(one, _), (other, _)| one.total_cmp(other))
        .map(|(_, peer)| peer)
}

/// Prints in what proportion `ours` is to `other`, in one row.
pub fn print_ratio(ours: &Column, other: &Column, row: &str) {
    let rounds = ours.rounds.iter().zip(&other.rounds);
    let ratios = rounds.filter_map(|(ours, other)| Some(ours.get(row)? / other.get(row)?));
    let ratios: Vec<f64> = ratios.collect();
    if !ratios.is_empty() {
        let title = other.kind.title;
        let what = row.trim_end_matches(" /s");
        println!("| {title}, {what} | {} |", show_rounds("", ratios));
    }
}

/// What would make the figures mean something else.
fn print_warnings(columns: &[Column]) {
    let raw = columns
        .iter()
        .flat_map(|column| column.values(&durable::row(1, RAW)));
    if raw.fold(0.0, f64::max) > DISK_SYNCS_A_SECOND_MAX {
        println!("These stores did not lie on a disk: nothing here was durable. See --directory.");
    }
    if cfg!(all(target_arch = "x86_64", not(target_feature = "sse4.2"))) {
        println!("RocksDB was built without the checksum instructions of the processor, and is");
        println!("slower than it could be: build from benches/peers, see its .cargo/config.toml.");
    }
}
