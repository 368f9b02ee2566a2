//! SQLite in WAL mode with cached statements and no row ids; a connection for each thread.
//!
//! A set is a statement of its own: it takes the right to write before it reads anything, as
//! `BEGIN IMMEDIATE` does, and needs no retries of ours.

use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};

use super::{CACHE_BYTES, Class, Peer};
use crate::pairs::Pair;

/// Writers of SQLite look again and again until they may write: long enough to never give up.
const BUSY_TIMEOUT: Duration = Duration::from_secs(3600);

const TABLE: &str =
    "CREATE TABLE IF NOT EXISTS t (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID";
const UPSERT: &str = "INSERT INTO t VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = excluded.v";

struct Sqlite {
    connection: Connection,
    path: PathBuf,
    class: Class,
}

pub fn open(directory: &Path, class: Class) -> Box<dyn Peer> {
    connect(directory.join("sqlite"), class)
}

fn connect(path: PathBuf, class: Class) -> Box<dyn Peer> {
    let connection = Connection::open(&path).unwrap();
    connection.busy_timeout(BUSY_TIMEOUT).unwrap();
    let synchronous = match class {
        Class::Kill => "OFF",
        Class::Power => "FULL",
    };
    let pragma = |name, value: &dyn rusqlite::ToSql| {
        connection.pragma_update(None, name, value).unwrap();
    };
    pragma("journal_mode", &"WAL");
    pragma("synchronous", &synchronous);
    // A number below nothing is in KiB.
    pragma("cache_size", &-((CACHE_BYTES >> 10) as i64));
    connection.execute(TABLE, []).unwrap();
    Box::new(Sqlite {
        connection,
        path,
        class,
    })
}

impl Peer for Sqlite {
    fn set(&mut self, key: &[u8], value: &[u8]) {
        let mut statement = self.connection.prepare_cached(UPSERT).unwrap();
        statement.execute(params![key, value]).unwrap();
    }

    fn set_batch(&mut self, pairs: &[Pair]) {
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .unwrap();
        {
            let mut statement = transaction.prepare_cached(UPSERT).unwrap();
            for (key, value) in pairs {
                statement.execute(params![&key[..], &value[..]]).unwrap();
            }
        }
        transaction.commit().unwrap();
    }

    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let text = "SELECT v FROM t WHERE k = ?1";
        let mut statement = self.connection.prepare_cached(text).unwrap();
        let value = statement.query_row([key], |row| row.get(0));
        value.optional().unwrap()
    }

    fn range(&mut self, start: &[u8], limit: usize) -> (usize, usize) {
        let text = "SELECT k, v FROM t WHERE k >= ?1 ORDER BY k LIMIT ?2";
        let mut statement = self.connection.prepare_cached(text).unwrap();
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let mut rows = statement.query(params![start, limit]).unwrap();
        let mut seen = (0, 0);
        while let Some(row) = rows.next().unwrap() {
            let key: Vec<u8> = row.get(0).unwrap();
            let value: Vec<u8> = row.get(1).unwrap();
            assert_eq!(key.len(), 24);
            seen = (seen.0 + 1, seen.1 + value.len());
        }
        seen
    }

    fn another(&self) -> Box<dyn Peer> {
        connect(self.path.clone(), self.class)
    }
}
