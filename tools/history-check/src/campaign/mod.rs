//! The parent: makes a store, starts children that work on it, kills some, and judges.
//!
//! [`children`] sees to the processes; [`report`] says what was found.

mod children;
mod report;

use std::collections::BTreeMap;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use tempfile::TempDir;

use crate::arguments::{CampaignArguments, ChildArguments};
use crate::history::Transaction;
use crate::workload::{content, history_file, set_up};
use crate::{EXIT_BROKEN, black_box, checker, text};
use children::Children;
use report::Report;

/// Of how many thousand commits one waits for the disk; with kills, more, because a process that
/// waits in a commit is likely to be killed there.
const SYNC_PER_THOUSAND: u32 = 1;
const SYNC_PER_THOUSAND_KILLED: u32 = 50;

/// The process that makes the store.
const PARENT: u32 = 0;

/// Runs the campaign that `arguments` ask for.
pub(crate) fn run(arguments: &CampaignArguments) -> Result<ExitCode, String> {
    let scratch =
        scratch(arguments).map_err(|error| format!("cannot make a directory: {error}"))?;
    let seed = arguments.seed.unwrap_or_else(|| fastrand::u64(..));
    let mut report = Report::new(seed, scratch.path());
    let is_right = match judge_all(arguments, seed, scratch.path(), &mut report) {
        Ok(is_right) => is_right,
        Err(what) => return Err(format!("{what}; kept: {}", scratch.keep().display())),
    };
    if !is_right || arguments.keep {
        report.line("kept", scratch.keep().display());
    }
    report.line(
        "verdict",
        if is_right {
            "strictly serializable"
        } else {
            "BROKEN"
        },
    );
    Ok(if is_right {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(EXIT_BROKEN)
    })
}

fn scratch(arguments: &CampaignArguments) -> std::io::Result<TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("happystore-history-");
    match &arguments.directory {
        Some(directory) => builder.tempdir_in(directory),
        None => builder.tempdir(),
    }
}

/// Does everything; whether nothing was found.
fn judge_all(
    arguments: &CampaignArguments,
    seed: u64,
    scratch: &Path,
    report: &mut Report,
) -> Result<bool, String> {
    let child = ChildArguments {
        scratch: scratch.to_owned(),
        seed,
        process: PARENT,
        threads: arguments.threads,
        transactions: 0,
        sync_per_thousand: if arguments.kills == 0 {
            SYNC_PER_THOUSAND
        } else {
            SYNC_PER_THOUSAND_KILLED
        },
        pauses: arguments.kills > 0,
        planted: arguments.planted,
    };
    set_up(&child).map_err(|failure| format!("cannot make the store: {failure}"))?;
    let begin = Instant::now();
    let mut children = Children::new(arguments, child);
    if let Err(what) = children.work() {
        report.line("failure", what);
        return Ok(false);
    }
    let seconds = begin.elapsed().as_secs_f64();
    let content = match content(scratch, children.started()) {
        Ok(content) => content,
        Err(failure) => {
            report.line("failure", format!("in the end {failure}"));
            return Ok(false);
        }
    };
    let begin = Instant::now();
    let files = files(scratch, children.started(), arguments.threads)
        .map_err(|error| format!("cannot read the histories: {error}"))?;
    let mut history: Vec<Transaction<'_>> = Vec::new();
    let mut each = BTreeMap::new();
    for (process, thread, text) in &files {
        let read = text::read(text, *process, *thread).map_err(|bad| bad.to_string())?;
        *each.entry(*process).or_insert(0_u64) += read.len() as u64;
        history.extend(read);
    }
    report.work(&history, &each, children.kills(), seconds);
    let (checked, judged) = std::thread::scope(|scope| {
        let judging = scope.spawn(|| black_box::judge(&history, &content));
        (checker::check(&history, &content), judging.join())
    });
    let judged = judged.map_err(|_| "the black box has panicked")?;
    report.checked(&checked, &history);
    report.judged(&judged);
    report.line(
        "seconds of judging",
        format!("{:.1}", begin.elapsed().as_secs_f64()),
    );
    Ok(checked.is_ok() && judged.is_right())
}

/// The histories of all threads: process, thread and text.
fn files(scratch: &Path, processes: u32, threads: u32) -> std::io::Result<Vec<(u32, u32, String)>> {
    let mut files = Vec::new();
    for process in PARENT..=processes {
        for thread in 0..threads {
            let path = history_file(scratch, process, thread);
            // A process may have been killed before it made them.
            if path.exists() {
                files.push((process, thread, std::fs::read_to_string(path)?));
            }
        }
    }
    Ok(files)
}
