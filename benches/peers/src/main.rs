//! happystore beside other embedded stores: one program, all stores, each in a process of its own.
//!
//! ```sh
//! cd benches/peers && cargo run --release -- [--only single|durable] [--help]
//! ```
//!
//! Building needs the Debian packages g++, clang and libclang-dev, for RocksDB, and many minutes.
//!
//! [`single`] is one thread's work, with commits that survive a killed process; [`durable`] is
//! several threads that commit, and survive a power cut. Only stores of one durability class
//! stand beside each other, see [`stores`]. Keys of 24 bytes, values of 150 random bytes, other
//! ones for each key; what is read is checked.
//!
//! The program calls itself for each store, part and number of threads, and the children print
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
mod raw;
mod report;
mod single;
mod stores;

use std::process::{Command, ExitCode, Stdio};

use asked::{Asked, HELP, Part};
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
        let figures = match asked.parts[0] {
            Part::Single => single::run(kind, &asked.plan)?,
            Part::Durable => durable::run(kind, asked.threads[0], &asked.plan)?,
        };
        print!("{}", figures.to_lines());
        return Ok(());
    }
    touch_memory(asked.plan.keys);
    let mut columns: Vec<Column> = asked.stores.iter().map(|kind| column(kind)).collect();
    for round in 0..asked.rounds {
        for column in &mut columns {
            column.rounds.push(Figures::default());
        }
        for (part, threads) in cells(asked) {
            for turn in 0..columns.len() {
                let at = (turn + round) % columns.len();
                let column = &mut columns[at];
                let figures = run_child(asked, column.kind, part, threads, round)?;
                column.rounds[round].rows.extend(figures.rows);
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

/// What each store runs, a process each: a part, and how many threads.
fn cells(asked: &Asked) -> Vec<(Part, usize)> {
    let mut cells = Vec::new();
    if asked.parts.contains(&Part::Single) {
        cells.push((Part::Single, 1));
    }
    if asked.parts.contains(&Part::Durable) {
        cells.extend(
            asked
                .threads
                .iter()
                .map(|threads| (Part::Durable, *threads)),
        );
    }
    cells
}

/// Runs one cell in a process of its own, so that none inherits another's memory.
fn run_child(
    asked: &Asked,
    kind: &Kind,
    part: Part,
    threads: usize,
    round: usize,
) -> Result<Figures, String> {
    let (only, what) = match part {
        Part::Single => ("single", "single".to_owned()),
        Part::Durable => ("durable", format!("durable, {threads} at once")),
    };
    let (round, rounds) = (round + 1, asked.rounds);
    eprintln!("round {round} of {rounds}: {what}: {}", kind.title);
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .args(["--child", kind.name, "--only", only])
        .args(["--threads", &threads.to_string()])
        .args(["--keys", &asked.plan.keys.to_string()])
        .args(["--seconds", &asked.plan.seconds.to_string()])
        .arg("--directory")
        .arg(&asked.plan.directory)
        .stderr(Stdio::inherit())
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
