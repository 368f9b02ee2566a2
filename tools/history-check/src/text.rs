//! Histories as lines of text, as a child writes them down and its parent reads them.
//!
//! A transaction is two lines in the file of its thread, of JSON values with spaces between them.
//! The first is written before its commit: its kind and when it began, and each thing that it did.
//! The second says whether it was committed, and when it ended.
//!
//! ```text
//! {"kind":"t","begin":123450} {"Get":{"key":"clock","value":"7:0.1.3"}} "Begin" "Commit"
//! {"is_committed":true,"end":130000}
//! ```
//!
//! A process that is killed leaves a first line without a second: its outcome is unknown. What
//! is behind the last newline was never finished, and its commit not begun: it is left out.

use serde::{Deserialize, Serialize};

use crate::history::{Id, NEVER, Operation, Outcome, Transaction};

/// A line that says nothing.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the history of process {process}, thread {thread} cannot be read: {cause}")]
pub struct BadLine {
    /// The process.
    pub process: u32,
    /// The thread.
    pub thread: u32,
    /// The line, from 1.
    pub line: usize,
    /// What is wrong with it.
    pub cause: String,
}

/// What the first line of a transaction begins with.
#[derive(Serialize, Deserialize)]
struct Begun {
    kind: char,
    begin: u64,
}

/// The second line.
#[derive(Serialize, Deserialize)]
struct Ended {
    is_committed: bool,
    end: u64,
}

/// Begins the first line of a transaction.
pub fn write_begin(out: &mut String, kind: char, begin: u64) {
    write(out, &Begun { kind, begin });
}

/// Adds what was done to the first line of a transaction.
pub fn write_operation(out: &mut String, operation: &Operation<'_>) {
    out.push(' ');
    write(out, operation);
}

/// Writes the second line.
pub fn write_end(out: &mut String, is_committed: bool, end: u64) {
    write(out, &Ended { is_committed, end });
    out.push('\n');
}

fn write(out: &mut String, value: &impl Serialize) {
    let value = serde_json::to_string(value);
    out.push_str(&value.expect("OK because these types have nothing that JSON has not"));
}

/// Reads the history of a thread.
///
/// # Errors
/// [`BadLine`], but for a last line without its end.
pub fn read(text: &str, process: u32, thread: u32) -> Result<Vec<Transaction<'static>>, BadLine> {
    let mut transactions: Vec<Transaction<'static>> = Vec::new();
    let mut is_open = false;
    let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
    for (at, line) in whole.lines().enumerate() {
        let bad = |cause: serde_json::Error| BadLine {
            process,
            thread,
            line: at + 1,
            cause: cause.to_string(),
        };
        // Only the end of a process leaves a transaction without its second line.
        if let Some(last) = transactions.last_mut().filter(|_| is_open) {
            let Ended { is_committed, end } = serde_json::from_str(line).map_err(bad)?;
            last.end = end;
            last.outcome = if is_committed {
                Outcome::Committed
            } else {
                Outcome::Aborted
            };
        } else {
            let id = Id {
                process,
                thread,
                number: u32::try_from(transactions.len()).unwrap_or(u32::MAX),
            };
            transactions.push(begun(line, id).map_err(bad)?);
        }
        is_open = !is_open;
    }
    Ok(transactions)
}

/// A transaction from its first line.
fn begun(line: &str, id: Id) -> serde_json::Result<Transaction<'static>> {
    let mut values = serde_json::Deserializer::from_str(line);
    let Begun { kind, begin } = Begun::deserialize(&mut values)?;
    Ok(Transaction {
        id,
        kind,
        begin,
        end: NEVER,
        outcome: Outcome::Unknown,
        operations: values.into_iter().collect::<serde_json::Result<_>>()?,
    })
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
        let lines: Vec<&str> = text.lines().take(2).collect();
        for torn in ["", "{", &lines[0][..20], lines[0], lines[1]] {
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
        let begun = r#"{"kind":"a","begin":1}"#;
        let refused = [
            "{\"is_committed\":true,\"end\":2}\n".to_owned(),
            format!("{begun}\n{begun}\n"),
            format!("{begun} {{\"Guess\":1}}\n"),
            format!("{begun} {{\"Set\":{{\"key\":\"k\"}}}}\n"),
            format!("{begun} {{\"Has\":\n"),
            "{\"kind\":\"a\",\"begin\":\"x\"}\n".to_owned(),
            "\n".to_owned(),
            format!("{begun}\n\"Commit\"\n"),
        ];
        for text in refused {
            assert!(read(&text, 0, 0).is_err(), "{text:?}");
        }
        assert_eq!(read("", 0, 0), Ok(vec![]));
    }
}
