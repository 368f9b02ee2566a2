//! happystore beside other embedded stores: one program, all stores, each in a process of its own.
//!
//! ```sh
//! cd benches/peers && cargo run --release -- [--only single|durable|processes] [--help]
//! ```
//!
//! Building needs the Debian packages g++, clang and libclang-dev, for RocksDB, and many minutes;
//! with `--no-default-features` neither, and RocksDB is left out.
//!
//! [`single`] is one thread's work, with commits that survive a killed process; [`durable`] is
//! several threads that commit, and survive a power cut; [`processes`] is several processes on
//! one store. Only stores of one durability class stand beside each other, see [`stores`]. Keys of
//! 24 bytes, values of 150 random bytes, other ones for each key; what is read is checked.
//!
//! The program calls itself for each store, part and number of threads or processes, and the children print
//! their figures as lines. Cells that are compared are run one after the other; each round
//! begins with another store.
#![allow(
    clippy::disallowed_methods,
    reason = "a benchmark measures the real machine"
)]

mod asked;
mod durable;
mod figures;
mod pairs;
mod processes;
mod raw;
mod report;
mod single;
mod stores;

use std::process::ExitCode;

use asked::{Asked, Cell, HELP, Part};
use figures::Figures;
use report::Column;
use stores::Kind;

fn main() -> ExitCode {
    let done = Asked::parse().and_then(|asked| match asked {
        Some(asked) => run(&asked),
        None => {
            println!("{HELP}");
            Ok(())
        }
    });
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(asked: &Asked) -> Result<(), String> {
    if let Some(kind) = asked.child {
        let figures = match (asked.cells()[0], asked.worker) {
            (Cell::Single, _) => single::run(kind, &asked.plan)?,
            (Cell::Durable { threads }, _) => durable::run(kind, threads, &asked.plan)?,
            (Cell::Processes { work, processes }, Some(worker)) => {
                processes::worker::run(asked, kind, work, processes, worker)?
            }
            (Cell::Processes { work, processes }, None) => {
                processes::run(asked, kind, work, processes)?
            }
        };
        print!("{}", figures.to_lines());
        return Ok(());
    }
    touch_memory(match asked.parts[..] {
        [Part::Processes] => asked.plan.shared_keys,
        _ => asked.plan.keys,
    });
    let mut columns: Vec<Column> = asked.stores.iter().map(|kind| column(kind)).collect();
    for round in 0..asked.rounds {
        for column in &mut columns {
            column.rounds.push(Figures::default());
        }
        for cell in asked.cells() {
            for turn in 0..columns.len() {
                let at = (turn + round) % columns.len();
                let column = &mut columns[at];
                if can_run(column.kind, cell) {
                    let figures = run_child(asked, column.kind, cell, round)?;
                    column.rounds[round].rows.extend(figures.rows);
                }
            }
        }
    }
    report::print(asked, &columns);
    Ok(())
}

fn column(kind: &'static Kind) -> Column {
    Column {
        kind,
        rounds: Vec::new(),
    }
}

fn can_run(kind: &Kind, cell: Cell) -> bool {
    match cell {
        Cell::Processes { work, .. } => work.is_for(kind),
        Cell::Single | Cell::Durable { .. } => true,
    }
}

/// Runs one cell in a process of its own, so that none inherits another's memory.
fn run_child(asked: &Asked, kind: &Kind, cell: Cell, round: usize) -> Result<Figures, String> {
    let (round, rounds) = (round + 1, asked.rounds);
    eprintln!(
        "round {round} of {rounds}: {}: {}",
        cell.title(),
        kind.title
    );
    let output = asked
        .child_of(kind, cell, &asked.plan.directory)?
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("the run of {} failed", kind.title));
    }
    Figures::from_lines(&String::from_utf8_lossy(&output.stdout))
}

/// Touches the memory that a run takes: the first touch of memory is slow on a fresh virtual
/// machine, and the first store would pay for all.
fn touch_memory(keys: u64) {
    let known = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let line = known
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"));
    let kib = line.and_then(|line| line.trim().trim_end_matches(" kB").parse::<u64>().ok());
    let bytes = (keys * 2048).min(kib.unwrap_or(0) * 1024 / 2) as usize;
    let mut memory = vec![0_u8; bytes];
    for page in memory.chunks_mut(4096) {
        page[0] = 1;
    }
    std::hint::black_box(&memory);
}
