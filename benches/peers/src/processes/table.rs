//! The rows of the processes part, and what is said above its table.

use super::Work;
use crate::asked::{Asked, Part};
use crate::figures::TAKES;
use crate::report::{self, Column};

/// In the name of a row, behind the work and the number of processes.
pub const RATE: &str = " /s";
pub const FAIR: &str = ": fair";
pub const SLEEPS: &str = ": sleeps for 1,000 sets";
pub const SYNCS: &str = ": syncs for 1,000 sets";

pub const SEEN: &str = "a set to the get in another process that sees it takes";
pub const OVERTAKEN: &str = "sets that the next one in that process overtook, of all";
pub const EXCLUSIVE: &str = "get in a lone process, Exclusive /s";
pub const SHARED: &str = "get in a lone process, Shared, in turn with it /s";
pub const OF_EXCLUSIVE: &str = "get in a lone process, Shared of Exclusive's";

/// The name of a row.
pub fn row(work: Work, processes: usize, what: &str) -> String {
    let work = match work {
        Work::Gets => "get, hit",
        Work::Sets => "set, surviving a kill",
        Work::Durable => "set, durable",
        Work::Mixed => "nine gets, one set",
        Work::Seen | Work::Alone => "",
    };
    let label = if processes == 1 {
        "process"
    } else {
        "processes"
    };
    format!("{work}, {processes} {label}{what}")
}

/// Whether a row is of this part.
pub fn is_mine(row: &str) -> bool {
    row.contains("process")
}

/// A store whose commits survive a power cut or nothing has those in the rows where the others
/// survive a kill alone: it stands there without being compared.
pub fn is_durable_alone(column: &Column, row: &str) -> bool {
    !column.kind.kill_safe && (row.contains("one set") || row.starts_with(SEEN))
}

/// Prints the tables.
pub fn print(asked: &Asked, columns: &[Column], rounds: &str) {
    let (keys, seconds) = (asked.plan.shared_keys, asked.plan.seconds(Part::Processes));
    println!("Several processes on one store, each opens it for itself; sums over all of them.");
    println!("{keys} keys of 24 B, values of 150 B; {seconds} s a cell; {rounds}.");
    println!(
        "Sets overwrite random keys that are there; they survive a killed process, or a power"
    );
    println!("cut where it says durable. Fair: what the slowest process did, of the fastest's.");
    println!("The time until a set is seen is from before the call of set, of a process that sets");
    println!(
        "every 0.2 to 1 ms, to the return of the get that saw it, of one that gets all the time."
    );
    println!("redb is in its multi-writer mode, which has durable commits alone: where they stand");
    println!("beside others (†) they are not compared. RocksDB and fjall are one process's.\n");
    let is_detail = |row: &str| {
        let is_set = row.contains(TAKES) && !row.starts_with(SEEN);
        is_set || row.ends_with(SLEEPS) || row.ends_with(SYNCS)
    };
    report::print_table(columns, |row| is_mine(row) && !is_detail(row));
    println!(
        "How long one set takes, how often its process sleeps for it, and how often it syncs:\n"
    );
    report::print_table(columns, |row| is_mine(row) && is_detail(row));
}

/// Prints in what proportion happystore is to the best of the others, and to LMDB.
pub fn print_ratios(asked: &Asked, ours: &Column, peers: &[&Column]) {
    for work in [Work::Gets, Work::Sets, Work::Durable, Work::Mixed] {
        for processes in work.counts(&asked.processes) {
            let row = row(work, processes, RATE);
            let best = report::best(peers, &row);
            for peer in peers {
                let is_best = best.is_some_and(|best| best.kind.name == peer.kind.name);
                if is_best || peer.kind.name == "lmdb" {
                    report::print_ratio(ours, peer, &row);
                }
            }
        }
    }
    for peer in peers.iter().filter(|peer| peer.kind.name == "lmdb") {
        report::print_ratio(ours, peer, &format!("{SEEN}, p50"));
    }
}
