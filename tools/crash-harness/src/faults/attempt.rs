//! A child that tries to open a store and to write to it, and says what it was told.

use std::process::ExitCode;

use happystore::{Access, ErrorKind, Options, Result, Store};

use super::{Errors, Trouble};
use crate::arguments::AttemptArguments;
use crate::protocol::{Event, Reporter};

/// What may be said to one who may not.
const REFUSALS: &[ErrorKind] = &[
    ErrorKind::Io,
    ErrorKind::DiskFull,
    ErrorKind::Poisoned,
    ErrorKind::ReadOnly,
    ErrorKind::NotFound,
];

/// Segments so small that a few dozen commits need several of them.
const SEGMENT_BYTES: u64 = 4096;

/// How many commits are tried in a directory that is gone.
const COMMITS: u32 = 300;

/// Runs the child.
pub(crate) fn run(arguments: &AttemptArguments) -> ExitCode {
    let reporter = match Reporter::new() {
        Ok(reporter) => reporter,
        Err(error) => return crate::cannot(format!("report to the parent: {error}")),
    };
    reporter.say(&Event::Hello(std::process::id()));
    match attempt(arguments) {
        Ok(text) => {
            reporter.say(&Event::Done(text));
            ExitCode::SUCCESS
        }
        Err(Trouble::Broken(what)) => {
            reporter.say(&Event::Broken(what));
            ExitCode::FAILURE
        }
        Err(Trouble::GaveUp) => ExitCode::FAILURE,
    }
}

fn attempt(arguments: &AttemptArguments) -> std::result::Result<String, Trouble> {
    let access = if arguments.read_only {
        Access::ReadOnly
    } else {
        Access::Shared
    };
    let mut errors = Errors::default();
    let opened = Options::new()
        .access(access)
        .segment_bytes(SEGMENT_BYTES)
        .open(&arguments.store);
    let store = match opened {
        Ok(store) => store,
        Err(error) => {
            let kind = errors.expect("open", &error, REFUSALS)?;
            return Ok(format!("open={kind:?}"));
        }
    };
    let first = answer(&mut errors, store.set("attempt", &1).map(ok))?;
    if arguments.vanish {
        return vanish(arguments, &store, errors);
    }
    let keys = answer(&mut errors, store.query().count())?;
    let closed = answer(&mut errors, store.close().map(ok))?;
    Ok(format!("open=ok keys={keys} set={first} close={closed}"))
}

/// Removes the store's directory under its feet, and writes and reads on.
fn vanish(
    arguments: &AttemptArguments,
    store: &Store,
    mut errors: Errors,
) -> std::result::Result<String, Trouble> {
    let removed = std::fs::remove_dir_all(&arguments.store);
    removed.map_err(|error| Trouble::Broken(format!("cannot remove the store: {error}")))?;
    let mut right = 0;
    for number in 0..COMMITS {
        let set = store.set(&format!("vanished/{number}"), &"x".repeat(200));
        if answer(&mut errors, set.map(ok))? == "ok" {
            right += 1;
        }
    }
    let count = answer(&mut errors, store.query().prefix("vanished/").count())?;
    if count != right.to_string() {
        return Err(Trouble::Broken(format!(
            "{right} were acknowledged, {count} are read"
        )));
    }
    let read = store.get::<i32>("attempt");
    let read = answer(&mut errors, read.map(Option::unwrap_or_default))?;
    let closed = answer(&mut errors, store.clone().close().map(ok))?;
    Ok(format!("acked={right} read={read} close={closed}{errors}"))
}

/// What the store answered, in a word; its error must be one that may come.
fn answer(
    errors: &mut Errors,
    answer: Result<impl ToString>,
) -> std::result::Result<String, Trouble> {
    match answer {
        Ok(word) => Ok(word.to_string()),
        Err(error) => {
            let kind = errors.expect("do this", &error, REFUSALS)?;
            Ok(format!("{kind:?}"))
        }
    }
}

/// The word for an answer that says nothing.
fn ok((): ()) -> &'static str {
    "ok"
}
