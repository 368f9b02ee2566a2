//! `happystore-compact`: looks after a store from the command line, also a live one.
//!
//! Whatever serializer and keys a store has, it is opened as bytes.
#![allow(
    clippy::disallowed_methods,
    reason = "a program looks at the real machine"
)]

mod arguments;
mod compact;
mod copies;
mod lines;
mod output;
mod stats;

use std::process::ExitCode;

use happystore::{Access, Compaction, Create, Error, Options, Raw, Store};

use arguments::{Arguments, Task};
use output::{Outcome, Output};

/// A store of whatever keys and values.
type RawStore = Store<Raw, [u8]>;

fn main() -> ExitCode {
    let arguments = Arguments::of_process();
    let output = Output::new(arguments.json);
    match run(&arguments, &output) {
        Ok(outcome) => outcome.into(),
        Err(error) => {
            output.error(&error.to_string());
            Outcome::Failed.into()
        }
    }
}

fn run(arguments: &Arguments, output: &Output) -> Result<Outcome, Failure> {
    match &arguments.task {
        None => {
            let path = arguments.path.as_deref().ok_or("no store is named")?;
            compact::run(path, &arguments.compact, output)
        }
        Some(Task::Stats { path }) => stats::run(path, output),
        Some(Task::Verify { path }) => copies::verify(path, output),
        Some(Task::Salvage { from, to }) => copies::salvage(from, to, output),
        Some(Task::Dump { path }) => lines::dump(path, output),
        Some(Task::Load { path }) => lines::load(path, output),
        Some(Task::Backup { path, to }) => copies::backup(path, to, output),
        Some(Task::Restore { backup, to }) => copies::restore(backup, to, output),
    }
}

/// What ends the program.
type Failure = Box<dyn std::error::Error>;

/// Opens the store in `path`, of whatever serializer and keys, which is never made.
fn open(path: &std::path::Path, access: Access) -> Result<RawStore, Error> {
    Options::new()
        .serializer(Raw)
        .byte_keys()
        .any_serializer(true)
        .any_key_kind(true)
        .access(access)
        .create(Create::Never)
        .compaction(Compaction::manual())
        .label("happystore-compact")
        .open(path)
}
