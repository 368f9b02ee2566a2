//! One word for each idea, in the comments and docs of `src`.

use crate::source::{Finding, Source, has_word};

/// Words that mean something here that has another word, and that one.
///
/// Words with a meaning of their own as well (cache, journal, shard, buffer) are not here.
const WORDS: &[(&[&str], &str)] = &[
    (
        &[
            "flush",
            "flushes",
            "flushed",
            "fsync",
            "fsyncs",
            "persist",
            "persists",
            "persisted",
        ],
        "sync",
    ),
    (
        &["delete marker", "deletion marker", "whiteout"],
        "tombstone",
    ),
    (&["memtable", "memtables", "keydir"], "index"),
    (&["wal", "write-ahead"], "log"),
    (
        &["vacuum", "gc", "garbage collection", "defragmentation"],
        "compaction",
    ),
    (&["garbage", "stale bytes"], "dead bytes, or a torn tail"),
    (&["db", "database", "bucket", "datastore"], "store"),
    (
        &["rotate", "rotates", "rotated", "rotation"],
        "seal, roll over",
    ),
    (&["bundle", "write batch", "writebatch"], "batch"),
    (
        &["txn", "savepoint", "savepoints"],
        "transaction, nested transaction",
    ),
    (&["rollback segment"], "undo list"),
    (&["lsn", "txid"], "sequence number"),
    (&["dirty page", "dirty pages"], "what is not durable yet"),
];

/// Refuses words that have another one in the glossary.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    if !source.path.starts_with("src/") {
        return Vec::new();
    }
    let mut findings = Vec::new();
    for (number, line) in source.numbered().filter(|(_, line)| !line.in_example) {
        let comment = without_code(&line.comment).to_lowercase();
        for (words, instead) in WORDS {
            for word in words.iter().filter(|word| has_word(&comment, word)) {
                findings.push(source.finding(number, format!("says \"{word}\"; say {instead}")));
            }
        }
    }
    findings
}

/// A comment without what is in backticks: names are what they are.
fn without_code(comment: &str) -> String {
    comment.split('`').step_by(2).collect::<Vec<_>>().join(" ")
}

#[test]
fn a_second_word_for_an_idea_is_found() {
    let found = |text: &str| check(&Source::new("src/a.rs", text)).len();
    assert_eq!(found("/// Flushes the log."), 1);
    assert_eq!(found("// a delete marker in the WAL"), 2);
    assert_eq!(found("//! How the database is opened."), 1);
    assert_eq!(found("/// Calls `fsync`, and `File::flush`."), 0);
    assert_eq!(
        found("/// ```\n/// let db = open(); // the database\n/// ```\nfn flush() {}"),
        0
    );
    assert_eq!(found("/// The walk of a dbase."), 0);
    assert_eq!(
        check(&Source::new("tests/a.rs", "// the database")).len(),
        0
    );
}
