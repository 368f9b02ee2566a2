//! The stores, each behind the same few calls.

use std::path::{Path, PathBuf};

use happystore::{Durability, Options, Raw, Store};
use redb::{Database, ReadableDatabase, TableDefinition};
use rusqlite::{Connection, OptionalExtension, params};

/// What stands beside each other.
pub const STORES: [&str; 3] = ["happystore", "redb", "SQLite WAL"];

/// The same few calls for every store. Anything unexpected ends the run.
pub trait Peer {
    fn set(&mut self, key: &[u8], value: &[u8]);
    fn set_batch(&mut self, pairs: &[([u8; 24], [u8; 150])]);
    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>>;
    /// Up to `limit` pairs from `start`: how many, and their bytes.
    fn range(&mut self, start: &[u8], limit: usize) -> (usize, usize);
}

/// What a commit survives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Kill,
    Power,
}

pub fn open(name: &str, directory: &Path, class: Class) -> Result<Box<dyn Peer>, String> {
    match name {
        "happystore" => Ok(Box::new(Happy::open(directory, class))),
        "redb" => Ok(Box::new(Redb::open(directory, class))),
        "SQLite WAL" => Ok(Box::new(Sqlite::open(directory, class))),
        _ => Err(format!("there is no store {name}")),
    }
}

struct Happy(Store<Raw, [u8]>);

impl Happy {
    fn open(directory: &Path, class: Class) -> Self {
        let durability = match class {
            Class::Kill => Durability::Os,
            Class::Power => Durability::Sync,
        };
        let options = Options::new()
            .serializer(Raw)
            .byte_keys()
            .durability(durability);
        Self(options.open(directory).unwrap())
    }
}

impl Peer for Happy {
    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.0.set(key, value).unwrap();
    }

    fn set_batch(&mut self, pairs: &[([u8; 24], [u8; 150])]) {
        self.0
            .bulk_set(pairs.iter().map(|(key, value)| (key, value)))
            .unwrap();
    }

    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key).unwrap()
    }

    fn range(&mut self, start: &[u8], limit: usize) -> (usize, usize) {
        let pairs = self
            .0
            .query()
            .range(start..)
            .limit(limit)
            .iter::<Vec<u8>>()
            .unwrap();
        pairs
            .map(Result::unwrap)
            .fold((0, 0), |(count, bytes), (_, value)| {
                (count + 1, bytes + value.len())
            })
    }
}

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("t");

struct Redb {
    database: Database,
    class: Class,
}

impl Redb {
    fn open(directory: &Path, class: Class) -> Self {
        let path: PathBuf = directory.join("redb");
        let database = Database::builder()
            .set_cache_size(4 << 30)
            .create(path)
            .unwrap();
        let write = database.begin_write().unwrap();
        write.open_table(TABLE).unwrap();
        write.commit().unwrap();
        Self { database, class }
    }

    fn write(&self) -> redb::WriteTransaction {
        let mut write = self.database.begin_write().unwrap();
        let durability = match self.class {
            Class::Kill => redb::Durability::None,
            Class::Power => redb::Durability::Immediate,
        };
        write.set_durability(durability).unwrap();
        write
    }
}

impl Peer for Redb {
    fn set(&mut self, key: &[u8], value: &[u8]) {
        let write = self.write();
        write.open_table(TABLE).unwrap().insert(key, value).unwrap();
        write.commit().unwrap();
    }

    fn set_batch(&mut self, pairs: &[([u8; 24], [u8; 150])]) {
        let write = self.write();
        {
            let mut table = write.open_table(TABLE).unwrap();
            for (key, value) in pairs {
                table.insert(&key[..], &value[..]).unwrap();
            }
        }
        write.commit().unwrap();
    }

    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let read = self.database.begin_read().unwrap();
        let table = read.open_table(TABLE).unwrap();
        table.get(key).unwrap().map(|value| value.value().to_vec())
    }

    fn range(&mut self, start: &[u8], limit: usize) -> (usize, usize) {
        let read = self.database.begin_read().unwrap();
        let table = read.open_table(TABLE).unwrap();
        let range = table.range::<&[u8]>(start..).unwrap().take(limit);
        range
            .map(Result::unwrap)
            .fold((0, 0), |(count, bytes), (_, value)| {
                (count + 1, bytes + value.value().to_vec().len())
            })
    }
}

struct Sqlite(Connection);

impl Sqlite {
    fn open(directory: &Path, class: Class) -> Self {
        let connection = Connection::open(directory.join("sqlite")).unwrap();
        connection
            .pragma_update(None, "journal_mode", "WAL")
            .unwrap();
        let synchronous = match class {
            Class::Kill => "OFF",
            Class::Power => "FULL",
        };
        connection
            .pragma_update(None, "synchronous", synchronous)
            .unwrap();
        connection
            .pragma_update(None, "cache_size", -(4 << 20))
            .unwrap();
        connection
            .execute(
                "CREATE TABLE IF NOT EXISTS t (k BLOB PRIMARY KEY, v BLOB NOT NULL) WITHOUT ROWID",
                [],
            )
            .unwrap();
        Self(connection)
    }
}

const UPSERT: &str = "INSERT INTO t VALUES (?1, ?2) ON CONFLICT (k) DO UPDATE SET v = excluded.v";

impl Peer for Sqlite {
    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.0
            .prepare_cached(UPSERT)
            .unwrap()
            .execute(params![key, value])
            .unwrap();
    }

    fn set_batch(&mut self, pairs: &[([u8; 24], [u8; 150])]) {
        let transaction = self.0.transaction().unwrap();
        {
            let mut statement = transaction.prepare_cached(UPSERT).unwrap();
            for (key, value) in pairs {
                statement.execute(params![&key[..], &value[..]]).unwrap();
            }
        }
        transaction.commit().unwrap();
    }

    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let mut statement = self
            .0
            .prepare_cached("SELECT v FROM t WHERE k = ?1")
            .unwrap();
        statement
            .query_row([key], |row| row.get(0))
            .optional()
            .unwrap()
    }

    fn range(&mut self, start: &[u8], limit: usize) -> (usize, usize) {
        let text = "SELECT k, v FROM t WHERE k >= ?1 ORDER BY k LIMIT ?2";
        let mut statement = self.0.prepare_cached(text).unwrap();
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
}
