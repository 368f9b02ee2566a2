//! Histories as lines of text, as a child writes them down and its parent reads them.
//!
//! A transaction is two lines in the file of its thread. The first is written before its commit:
//! a question mark, its kind, when it began, and what it did. The second says how it ended: `+`
//! for committed, `-` for rolled back, and when.
//!
//! ```text
//! ? t 123450 gclock=7:0.1.3 sclock=8:2.0.5 gaccount/1=90 ( saccount/1=80 )
//! + 130000
//! ```
//!
//! A process that is killed leaves a first line without a second: its outcome is unknown. What
//! is behind the last newline was never finished, and its commit not begun: it is left out.
//!
//! | written | operation |
//! |---|---|
//! | `gKEY=VALUE`, `gKEY!` | read a key; it is missing |
//! | `hKEY=`, `hKEY!` | asked for a key: it is there; it is not |
//! | `sKEY=VALUE` | set a key |
//! | `dKEY=`, `dKEY!` | deleted a key that was there; that was not |
//! | `pSELECTION{KEY=VALUE;…` | read a range |
//! | `kSELECTION{KEY;…` | read the keys of a range |
//! | `nSELECTION{COUNT`, `xSELECTION{COUNT` | counted, deleted a range |
//! | `(`, `)`, `/` | began, committed, undid a nested transaction |
//!
//! A selection is `LOW|HIGH|DIRECTION|LIMIT`: an end is `[KEY` with the key, `]KEY` without it, or
//! `*`; the direction `>` or `<`; the limit a number, or `*`. Bytes that mean something here, or
//! cannot be seen, are `%` and two digits.

use std::borrow::Cow;
use std::fmt::Write;
use std::ops::Bound;

use crate::history::{Id, NEVER, Operation, Outcome, Selection, Text, Transaction};

/// A line that says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the history of process {process}, thread {thread} cannot be read")]
pub struct BadLine {
    /// The process.
    pub process: u32,
    /// The thread.
    pub thread: u32,
    /// The line, from 1.
    pub line: usize,
}

/// Begins the first line of a transaction.
pub fn write_begin(out: &mut String, kind: char, begin: u64) {
    let _ = write!(out, "? {kind} {begin}");
}

/// Adds what was done to the first line of a transaction.
pub fn write_operation(out: &mut String, operation: &Operation<'_>) {
    out.push(' ');
    match operation {
        Operation::Get { key, value } => {
            out.push('g');
            write_answer(out, key, value.as_deref());
        }
        Operation::Has { key, there } => {
            out.push('h');
            write_answer(out, key, there.then_some(""));
        }
        Operation::Set { key, value } => {
            out.push('s');
            write_answer(out, key, Some(value));
        }
        Operation::Delete { key, there } => {
            out.push('d');
            write_answer(out, key, there.then_some(""));
        }
        Operation::Pairs { selection, pairs } => {
            write_selection(out, 'p', selection);
            for (key, value) in pairs {
                write_answer(out, key, Some(value));
                out.push(';');
            }
        }
        Operation::Keys { selection, keys } => {
            write_selection(out, 'k', selection);
            for key in keys {
                write_text(out, key);
                out.push(';');
            }
        }
        Operation::Count { selection, count } => {
            write_selection(out, 'n', selection);
            let _ = write!(out, "{count}");
        }
        Operation::DeleteRange { selection, count } => {
            write_selection(out, 'x', selection);
            let _ = write!(out, "{count}");
        }
        Operation::Begin => out.push('('),
        Operation::Commit => out.push(')'),
        Operation::Abort => out.push('/'),
    }
}

/// Ends the first line, and writes the second.
pub fn write_end(out: &mut String, is_committed: bool, end: u64) {
    let mark = if is_committed { '+' } else { '-' };
    let _ = writeln!(out, "{mark} {end}");
}

fn write_answer(out: &mut String, key: &str, value: Option<&str>) {
    write_text(out, key);
    match value {
        Some(value) => {
            out.push('=');
            write_text(out, value);
        }
        None => out.push('!'),
    }
}

fn write_selection(out: &mut String, letter: char, selection: &Selection<'_>) {
    out.push(letter);
    for end in [&selection.low, &selection.high] {
        match end {
            Bound::Included(key) => {
                out.push('[');
                write_text(out, key);
            }
            Bound::Excluded(key) => {
                out.push(']');
                write_text(out, key);
            }
            Bound::Unbounded => out.push('*'),
        }
        out.push('|');
    }
    out.push(if selection.reverse { '<' } else { '>' });
    out.push('|');
    match selection.limit {
        Some(limit) => {
            let _ = write!(out, "{limit}");
        }
        None => out.push('*'),
    }
    out.push('{');
}

fn write_text(out: &mut String, text: &str) {
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"/.,:-_~".contains(&byte);
    if text.bytes().all(is_plain) {
        out.push_str(text);
        return;
    }
    for byte in text.bytes() {
        if is_plain(byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02x}");
        }
    }
}

/// Reads the history of a thread.
///
/// # Errors
/// [`BadLine`], but for a last line without its end.
pub fn read(text: &str, process: u32, thread: u32) -> Result<Vec<Transaction<'_>>, BadLine> {
    let mut transactions: Vec<Transaction<'_>> = Vec::new();
    let mut is_open = false;
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    for (at, line) in whole.lines().enumerate() {
        let bad = || BadLine {
            process,
            thread,
            line: at + 1,
        };
        if line.starts_with('?') {
            let number = u32::try_from(transactions.len()).map_err(|_| bad())?;
            let id = Id {
                process,
                thread,
                number,
            };
            // Only the end of a process leaves a transaction without its second line.
            let transaction = (!is_open).then(|| begun(line, id)).flatten();
            transactions.push(transaction.ok_or_else(bad)?);
            is_open = true;
        } else {
            let last = transactions.last_mut().filter(|_| is_open);
            last.and_then(|last| ended(line, last)).ok_or_else(bad)?;
            is_open = false;
        }
    }
    Ok(transactions)
}

/// A transaction from its first line.
fn begun(line: &str, id: Id) -> Option<Transaction<'_>> {
    let mut words = line.strip_prefix("? ")?.split(' ');
    let kind = words.next()?.chars().next()?;
    let begin = words.next()?.parse().ok()?;
    Some(Transaction {
        id,
        kind,
        begin,
        end: NEVER,
        outcome: Outcome::Unknown,
        operations: words.map(read_operation).collect::<Option<_>>()?,
    })
}

/// Adds the second line.
fn ended(line: &str, transaction: &mut Transaction<'_>) -> Option<()> {
    let (mark, end) = line.split_once(' ')?;
    transaction.outcome = match mark {
        "+" => Outcome::Committed,
        "-" => Outcome::Aborted,
        _ => return None,
    };
    transaction.end = end.parse().ok()?;
    Some(())
}

fn read_operation(word: &str) -> Option<Operation<'_>> {
    let (letter, rest) = word.split_at_checked(1)?;
    let operation = match letter {
        "g" => {
            let (key, value) = read_answer(rest)?;
            Operation::Get { key, value }
        }
        "h" => {
            let (key, value) = read_answer(rest)?;
            let there = value.is_some();
            Operation::Has { key, there }
        }
        "s" => {
            let (key, value) = read_answer(rest)?;
            Operation::Set { key, value: value? }
        }
        "d" => {
            let (key, value) = read_answer(rest)?;
            let there = value.is_some();
            Operation::Delete { key, there }
        }
        "p" | "k" | "n" | "x" => return read_query(letter, rest),
        "(" => Operation::Begin,
        ")" => Operation::Commit,
        "/" => Operation::Abort,
        _ => return None,
    };
    Some(operation)
}

fn read_query<'t>(letter: &str, rest: &'t str) -> Option<Operation<'t>> {
    let (selection, answer) = rest.split_once('{')?;
    let selection = read_selection(selection)?;
    let items = || answer.split_terminator(';');
    let operation = match letter {
        "p" => {
            let pair = |item| {
                let (key, value) = read_answer(item)?;
                Some((key, value?))
            };
            Operation::Pairs {
                selection,
                pairs: items().map(pair).collect::<Option<_>>()?,
            }
        }
        "k" => Operation::Keys {
            selection,
            keys: items().map(read_text).collect::<Option<_>>()?,
        },
        "n" => Operation::Count {
            selection,
            count: answer.parse().ok()?,
        },
        _ => Operation::DeleteRange {
            selection,
            count: answer.parse().ok()?,
        },
    };
    Some(operation)
}

fn read_selection(text: &str) -> Option<Selection<'_>> {
    let mut parts = text.split('|');
    let mut end = || {
        let part = parts.next()?;
        Some(match part.split_at_checked(1)? {
            ("[", key) => Bound::Included(read_text(key)?),
            ("]", key) => Bound::Excluded(read_text(key)?),
            ("*", "") => Bound::Unbounded,
            _ => return None,
        })
    };
    let (low, high) = (end()?, end()?);
    let reverse = match parts.next()? {
        "<" => true,
        ">" => false,
        _ => return None,
    };
    let limit = match parts.next()? {
        "*" => None,
        limit => Some(limit.parse().ok()?),
    };
    parts.next().is_none().then_some(Selection {
        low,
        high,
        reverse,
        limit,
    })
}

fn read_answer(text: &str) -> Option<(Text<'_>, Option<Text<'_>>)> {
    if let Some(key) = text.strip_suffix('!') {
        return Some((read_text(key)?, None));
    }
    let (key, value) = text.split_once('=')?;
    Some((read_text(key)?, Some(read_text(value)?)))
}

fn read_text(text: &str) -> Option<Text<'_>> {
    if !text.contains('%') {
        return Some(Cow::Borrowed(text));
    }
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok().map(Cow::Owned)
}

#[cfg(test)]
mod tests {
    use super::{read, write_begin, write_end, write_operation};
    use crate::history::{NEVER, Operation, Outcome, Selection, Text};
    use std::ops::Bound;

    /// Each operation, with bytes that mean something in a line.
    fn operations() -> Vec<Operation<'static>> {
        let selection = Selection {
            low: Bound::Included("a|{%=;! \n".into()),
            high: Bound::Excluded("ä".into()),
            reverse: true,
            limit: Some(3),
        };
        let everything = Selection {
            low: Bound::Unbounded,
            high: Bound::Unbounded,
            reverse: false,
            limit: None,
        };
        let mut all = vec![Operation::Begin, Operation::Commit, Operation::Abort];
        for (key, value) in [("", None), ("k 1", Some("a=b")), ("k!", Some(""))] {
            let (key, value): (Text<'_>, Option<Text<'_>>) = (key.into(), value.map(Into::into));
            let there = value.is_some();
            all.extend([
                Operation::Has {
                    key: key.clone(),
                    there,
                },
                Operation::Delete {
                    key: key.clone(),
                    there,
                },
                Operation::Get { key, value },
            ]);
        }
        let (key, value): (Text<'_>, Text<'_>) = ("k/1".into(), "1,2".into());
        for selection in [selection, everything] {
            for more in [false, true] {
                let (pair, selection) = ((key.clone(), value.clone()), selection.clone());
                all.push(Operation::Keys {
                    selection: selection.clone(),
                    keys: if more {
                        vec![key.clone(), value.clone()]
                    } else {
                        vec![]
                    },
                });
                all.push(Operation::Pairs {
                    selection,
                    pairs: if more {
                        vec![pair.clone(), pair]
                    } else {
                        vec![]
                    },
                });
            }
            let count = 7;
            all.push(Operation::Count {
                selection: selection.clone(),
                count,
            });
            all.push(Operation::DeleteRange { selection, count });
        }
        all.push(Operation::Set { key, value });
        all
    }

    #[test]
    fn a_history_is_read_back_from_its_lines() {
        let mut text = String::new();
        for (kind, end) in [('a', Some(true)), ('b', Some(false)), ('c', None)] {
            write_begin(&mut text, kind, 5);
            for operation in operations() {
                write_operation(&mut text, &operation);
            }
            text.push('\n');
            if let Some(is_committed) = end {
                write_end(&mut text, is_committed, 6);
            }
        }
        // However much of the next line there is, it was never finished.
        for torn in ["", "?", "? d 1", "? d 17 gk=v", "+ 5"] {
            let torn = format!("{text}{torn}");
            let read = read(&torn, 1, 2).unwrap();
            let found: Vec<_> = read.iter().map(|t| (t.kind, t.outcome, t.end)).collect();
            assert_eq!(
                found,
                [
                    ('a', Outcome::Committed, 6),
                    ('b', Outcome::Aborted, 6),
                    ('c', Outcome::Unknown, NEVER)
                ]
            );
            assert!(
                read.iter()
                    .all(|transaction| transaction.operations == operations())
            );
            assert_eq!(read[2].id.to_string(), "1.2.2");
        }
    }

    #[test]
    fn lines_that_say_nothing_are_refused() {
        let refused = [
            "+ 1\n",
            "? a 1\n? b 2\n",
            "? a 1 qk\n",
            "? a x\n",
            "\n",
            "? a 1\n* 2\n",
            "? a 1 sk!\n",
            "? a 1 gk=%4\n",
            "? a 1 p[a|]b|>{\n",
        ];
        for text in refused {
            assert!(read(text, 0, 0).is_err(), "{text:?}");
        }
        assert_eq!(read("", 0, 0), Ok(vec![]));
    }
}
