//! happystore beside other embedded stores: one program, all stores, each in a process of its own.
//!
//! `cargo run --release --manifest-path benches/peers/Cargo.toml -- [--keys N] [--rounds N]`
//!
//! Keys of 24 bytes and values of 150 random bytes are made before the clock starts; values that
//! are read are checked. Only stores of one durability class stand beside each other: `kill`
//! (survives a killed process) and `power` (survives a power cut). redb has no mode that survives
//! a kill without a sync: its figures of the first class are its `None`, and unranked.

mod stores;
mod work;

use std::process::{Command, ExitCode};

use stores::STORES;
use work::{Figures, Plan};

/// What was asked for on the command line.
struct Asked {
    plan: Plan,
    rounds: usize,
    /// Set in a child: which store to run.
    child: Option<String>,
}

fn main() -> ExitCode {
    match ask().and_then(|asked| run(&asked)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

fn ask() -> Result<Asked, String> {
    let mut asked = Asked {
        plan: Plan { keys: 1_000_000 },
        rounds: 3,
        child: None,
    };
    let mut parser = lexopt::Parser::from_env();
    let say = |error: lexopt::Error| error.to_string();
    while let Some(argument) = parser.next().map_err(say)? {
        use lexopt::prelude::*;
        match argument {
            Long("keys") => {
                asked.plan.keys = parser.value().and_then(|v| v.parse()).map_err(say)?
            }
            Long("rounds") => asked.rounds = parser.value().and_then(|v| v.parse()).map_err(say)?,
            Long("child") => {
                asked.child = Some(parser.value().and_then(|v| v.parse()).map_err(say)?)
            }
            Long("help") | Short('h') => {
                println!("usage: happystore-peers [--keys N] [--rounds N]");
                std::process::exit(0);
            }
            other => return Err(other.unexpected().to_string()),
        }
    }
    if asked.plan.keys < 1000 || asked.rounds == 0 {
        return Err("there must be at least 1000 keys and one round".to_owned());
    }
    Ok(asked)
}

fn run(asked: &Asked) -> Result<(), String> {
    if let Some(name) = &asked.child {
        let figures = work::run(name, &asked.plan)?;
        print!("{}", figures.to_lines());
        return Ok(());
    }
    let mut all: Vec<Vec<Figures>> = STORES.iter().map(|_| Vec::new()).collect();
    for round in 1..=asked.rounds {
        for (at, name) in STORES.iter().enumerate() {
            eprintln!("round {round} of {}: {name}", asked.rounds);
            all[at].push(run_child(name, &asked.plan)?);
        }
    }
    print_table(asked, &all);
    Ok(())
}

/// Runs one store in a process of its own, so that none inherits another's memory.
fn run_child(name: &str, plan: &Plan) -> Result<Figures, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let output = Command::new(program)
        .args(["--child", name, "--keys", &plan.keys.to_string()])
        .stderr(std::process::Stdio::inherit())
        .output()
        .map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("the run of {name} failed"));
    }
    Figures::from_lines(&String::from_utf8_lossy(&output.stdout))
}

fn print_table(asked: &Asked, all: &[Vec<Figures>]) {
    println!(
        "{} keys of 24 B, values of 150 B; median of {} (least to most); higher is better, but for",
        asked.plan.keys, asked.rounds
    );
    println!("opening, memory and disk. redb's single sets, overwrites and batches are its");
    println!("Durability::None, which does not survive a kill: they stand there unranked.\n");
    println!("| work | {} |", STORES.join(" | "));
    println!("|---|{}", "---:|".repeat(STORES.len()));
    let Some(first) = all.first().and_then(|rounds| rounds.first()) else {
        return;
    };
    for (row, (name, _)) in first.rows.iter().enumerate() {
        let cells: Vec<String> = all
            .iter()
            .map(|rounds| {
                let mut values: Vec<f64> = rounds.iter().map(|round| round.rows[row].1).collect();
                values.sort_by(f64::total_cmp);
                let show = |at: usize| work::show(values[at]);
                let last = values.len() - 1;
                format!("{} ({}–{})", show(last / 2), show(0), show(last))
            })
            .collect();
        println!("| {name} | {} |", cells.join(" | "));
    }
}
