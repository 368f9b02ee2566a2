//! A store as lines, and back.

use std::collections::BTreeMap;
use std::io::{BufRead, BufWriter, ErrorKind as IoErrorKind, Write};
use std::path::Path;

use happystore::{Access, Create, DumpedEntry, DumpedKind, ErrorKind, Options, Raw};
use serde_json::{Value, json};

use crate::output::{Outcome, Output};
use crate::{Failure, open};

/// How many keys are set or deleted at once.
const KEYS_AT_ONCE: usize = 1000;

pub(crate) fn dump(path: &Path, output: &Output) -> Result<Outcome, Failure> {
    let mut out = BufWriter::new(std::io::stdout().lock());
    let mut outcome = Outcome::Done;
    for entry in happystore::dump(path)? {
        let line = match entry {
            Ok(entry) if output.is_json() => json_line(&entry).to_string(),
            Ok(entry) => line(&entry),
            Err(error) if error.kind() == ErrorKind::Corrupt => {
                output.error(&error.to_string());
                outcome = Outcome::Damaged;
                continue;
            }
            Err(error) => return Err(error.into()),
        };
        match writeln!(out, "{line}") {
            // Whoever reads has seen enough.
            Err(error) if error.kind() == IoErrorKind::BrokenPipe => return Ok(outcome),
            written => written?,
        }
    }
    match out.flush() {
        Err(error) if error.kind() != IoErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(outcome),
    }
}

fn kind(entry: &DumpedEntry) -> &'static str {
    match entry.kind {
        DumpedKind::Batch => "batch",
        DumpedKind::SealMark => "seal",
        DumpedKind::Moved => "moved",
        _ => "other",
    }
}

fn line(entry: &DumpedEntry) -> String {
    let place = format!(
        "{:08} {:>10} #{} {}",
        entry.segment,
        entry.offset,
        entry.sequence,
        kind(entry)
    );
    let key = match std::str::from_utf8(&entry.key) {
        Ok(text) => format!("{text:?}"),
        Err(_) => format!("0x{}", hex(&entry.key)),
    };
    match &entry.value {
        Some(value) => format!("{place} {key} {} bytes", value.len()),
        None if entry.kind == DumpedKind::SealMark => place,
        None => format!("{place} {key} deleted"),
    }
}

fn json_line(entry: &DumpedEntry) -> Value {
    let mut line = json!({
        "segment": entry.segment,
        "offset": entry.offset,
        "sequence": entry.sequence,
        "kind": kind(entry),
    });
    if entry.kind == DumpedKind::SealMark {
        return line;
    }
    match std::str::from_utf8(&entry.key) {
        Ok(text) => line["key"] = json!(text),
        Err(_) => line["key_hex"] = json!(hex(&entry.key)),
    }
    if let Some(value) = &entry.value {
        line["value_bytes"] = json!(value.len());
        line["value_hex"] = json!(hex(value));
    }
    line
}

/// The newest change of each key.
type Changes = BTreeMap<Vec<u8>, (u64, Option<Vec<u8>>)>;

pub(crate) fn load(path: &Path, output: &Output) -> Result<Outcome, Failure> {
    let is_text = has_text_keys(path)?;
    let mut changes = Changes::new();
    for (number, line) in (1..).zip(std::io::stdin().lock().lines()) {
        take(&line?, is_text, &mut changes).map_err(|what| format!("line {number}: {what}"))?;
    }
    let store = open(path, Access::Shared)?;
    let changes: Vec<_> = changes.into_iter().collect();
    let mut deleted = 0_u64;
    for part in changes.chunks(KEYS_AT_ONCE) {
        store.transaction(|tx| -> happystore::Result<()> {
            for (key, (_, value)) in part {
                match value {
                    Some(value) => tx.set(key, value)?,
                    None => deleted += u64::from(tx.delete(key)?),
                }
            }
            Ok(())
        })?;
    }
    let set = changes
        .iter()
        .filter(|(_, (_, value))| value.is_some())
        .count();
    store.close()?;
    let lines = [format!("{set} keys set, {deleted} deleted")];
    output.tell(&lines, &json!({ "set": set, "deleted": deleted }));
    Ok(Outcome::Done)
}

/// Whether the keys of the store in `path` are text.
fn has_text_keys(path: &Path) -> Result<bool, Failure> {
    let options = Options::new()
        .serializer(Raw)
        .byte_keys()
        .any_serializer(true)
        .create(Create::Never)
        .access(Access::ReadOnly);
    match options.open(path) {
        Ok(_) => Ok(false),
        Err(error) if error.kind() == ErrorKind::KeyKindMismatch => Ok(true),
        Err(error) => Err(error.into()),
    }
}

/// Takes the change of a line in, if there is none that is newer.
fn take(line: &str, is_text: bool, changes: &mut Changes) -> Result<(), String> {
    let line: Value = serde_json::from_str(line).map_err(|error| error.to_string())?;
    if line["kind"] == "seal" {
        return Ok(());
    }
    let key = match (&line["key"], &line["key_hex"]) {
        (Value::String(text), Value::Null) => text.clone().into_bytes(),
        (Value::Null, Value::String(hex)) => bytes(hex).ok_or("key_hex is no hex")?,
        _ => return Err("it has no key, or two".to_owned()),
    };
    if is_text && std::str::from_utf8(&key).is_err() {
        return Err("the keys of this store are text, and this one is not".to_owned());
    }
    let value = match &line["value_hex"] {
        Value::Null => None,
        Value::String(hex) => Some(bytes(hex).ok_or("value_hex is no hex")?),
        _ => return Err("value_hex is no text".to_owned()),
    };
    let sequence = match &line["sequence"] {
        Value::Null => 0,
        sequence => sequence.as_u64().ok_or("the sequence is no number")?,
    };
    let newest = changes.get(&key).map_or(0, |(newest, _)| *newest);
    if sequence >= newest {
        changes.insert(key, (sequence, value));
    }
    Ok(())
}

fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::with_capacity(bytes.len() * 2);
    for byte in bytes {
        // A string takes all that is written into it.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

fn bytes(hex: &str) -> Option<Vec<u8>> {
    let digits = hex.as_bytes();
    let digit = |at: usize| char::from(digits[at]).to_digit(16);
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    let pairs = (0..digits.len()).step_by(2);
    let byte = |at| u8::try_from(digit(at)? * 16 + digit(at + 1)?).ok();
    pairs.map(byte).collect()
}
