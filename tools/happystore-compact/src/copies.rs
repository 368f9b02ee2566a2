//! Checking a store, and making another one of it.

use std::path::Path;

use happystore::{Access, BackupReport, Error, ErrorKind, LostBytes};
use serde_json::{Value, json};

use crate::output::{Outcome, Output, size};
use crate::{Failure, open};

pub(crate) fn verify(path: &Path, output: &Output) -> Result<Outcome, Failure> {
    let report = match open(path, Access::ReadOnly).and_then(|store| store.verify()) {
        Ok(report) => report,
        Err(error) if error.kind() == ErrorKind::Corrupt => return Ok(damaged(&error, output)),
        Err(error) => return Err(error.into()),
    };
    let lines = [format!(
        "whole: {} keys; {} entries in {} records of {} segments, {}",
        report.keys,
        report.entries,
        report.records,
        report.segments,
        size(report.bytes)
    )];
    let value = json!({
        "whole": true,
        "keys": report.keys,
        "entries": report.entries,
        "records": report.records,
        "segments": report.segments,
        "bytes": report.bytes,
    });
    output.tell(&lines, &value);
    Ok(Outcome::Done)
}

fn damaged(error: &Error, output: &Output) -> Outcome {
    let value = match error {
        Error::Corrupt { path, offset, what } => {
            json!({ "whole": false, "path": path.display().to_string(), "offset": offset, "what": what })
        }
        _ => json!({ "whole": false }),
    };
    output.tell(&[format!("damaged: {error}")], &value);
    Outcome::Damaged
}

pub(crate) fn salvage(from: &Path, to: &Path, output: &Output) -> Result<Outcome, Failure> {
    let report = happystore::salvage(from, to)?;
    let mut lines = vec![format!(
        "saved {} keys, {}, from {} whole records in {} segments",
        report.keys,
        size(report.bytes),
        report.records,
        report.segments
    )];
    if report.is_guessed {
        let what = "the manifest was lost, or is an old one: deleted keys may be back, and without any the serializer is guessed";
        lines.push(what.to_owned());
    }
    let line = |lost: &LostBytes| {
        let (path, from, to) = (lost.path.display(), lost.from, lost.to);
        format!("lost {path} from {from} to {to}: {}", lost.what)
    };
    lines.extend(report.lost.iter().map(line));
    let of_lost = |lost: &LostBytes| -> Value {
        json!({
            "path": lost.path.display().to_string(),
            "from": lost.from,
            "to": lost.to,
            "what": lost.what,
        })
    };
    let value = json!({
        "keys": report.keys,
        "bytes": report.bytes,
        "records": report.records,
        "segments": report.segments,
        "is_guessed": report.is_guessed,
        "lost": report.lost.iter().map(of_lost).collect::<Vec<_>>(),
    });
    output.tell(&lines, &value);
    Ok(if report.lost.is_empty() {
        Outcome::Done
    } else {
        Outcome::Damaged
    })
}

pub(crate) fn backup(path: &Path, to: &Path, output: &Output) -> Result<Outcome, Failure> {
    let report = open(path, Access::ReadOnly)?.backup_to(to)?;
    tell(&report, output);
    Ok(Outcome::Done)
}

pub(crate) fn restore(backup: &Path, to: &Path, output: &Output) -> Result<Outcome, Failure> {
    if to.read_dir().is_ok_and(|mut names| names.next().is_some()) {
        return Err(format!(
            "{} is not empty; restore into a new directory",
            to.display()
        )
        .into());
    }
    let store = open(backup, Access::ReadOnly)?;
    // What is damaged is better known now than later.
    store.verify()?;
    let report = store.backup_to(to)?;
    tell(&report, output);
    Ok(Outcome::Done)
}

fn tell(report: &BackupReport, output: &Output) {
    let lines = [format!(
        "{} in {} segments up to batch {}: {} kept, {} linked, {} copied ({}), {} removed",
        size(report.bytes),
        report.kept + report.linked + report.copied,
        report.sequence,
        report.kept,
        report.linked,
        report.copied,
        size(report.bytes_copied),
        report.removed
    )];
    let value = json!({
        "bytes": report.bytes,
        "sequence": report.sequence,
        "kept": report.kept,
        "linked": report.linked,
        "copied": report.copied,
        "bytes_copied": report.bytes_copied,
        "removed": report.removed,
    });
    output.tell(&lines, &value);
}
