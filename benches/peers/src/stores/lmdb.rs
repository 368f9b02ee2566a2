//! LMDB through its safe wrapper `lmdb-rkv`; one environment for all threads.
//!
//! `NO_SYNC` without `WRITE_MAP` survives a kill: each commit writes its pages, then its meta page,
//! with system calls, and what the operating system has been given outlives the process.

use std::path::Path;
use std::sync::Arc;

use lmdb::{
    Cursor, Database, DatabaseFlags, Environment, EnvironmentFlags, Error, Iter, Transaction,
    WriteFlags,
};

use super::{Class, Peer};
use crate::pairs::Pair;

/// Address space, not memory: more than any run fills.
const MAP_BYTES: usize = 256 << 30;

/// Places for readers in its lock file, one for each thread that reads at a time.
const READERS_MAX: u32 = 1024;

struct Lmdb {
    environment: Arc<Environment>,
    database: Database,
}

pub fn open(directory: &Path, class: Class) -> Box<dyn Peer> {
    let flags = match class {
        Class::Kill => EnvironmentFlags::NO_SYNC,
        Class::Power => EnvironmentFlags::empty(),
    };
    let environment = Environment::new()
        .set_flags(flags)
        .set_map_size(MAP_BYTES)
        .set_max_readers(READERS_MAX)
        .open(directory)
        .unwrap();
    let database = environment.create_db(None, DatabaseFlags::empty());
    Box::new(Lmdb {
        database: database.unwrap(),
        environment: Arc::new(environment),
    })
}

impl Peer for Lmdb {
    fn set(&mut self, key: &[u8], value: &[u8]) {
        let mut write = self.environment.begin_rw_txn().unwrap();
        let put = write.put(self.database, &key, &value, WriteFlags::empty());
        put.unwrap();
        write.commit().unwrap();
    }

    fn set_batch(&mut self, pairs: &[Pair]) {
        let mut write = self.environment.begin_rw_txn().unwrap();
        for (key, value) in pairs {
            let put = write.put(self.database, key, value, WriteFlags::empty());
            put.unwrap();
        }
        write.commit().unwrap();
    }

    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let read = self.environment.begin_ro_txn().unwrap();
        match read.get(self.database, &key) {
            Ok(value) => Some(value.to_vec()),
            Err(Error::NotFound) => None,
            Err(error) => panic!("{error}"),
        }
    }

    fn range(&mut self, start: &[u8], limit: usize) -> (usize, usize) {
        let read = self.environment.begin_ro_txn().unwrap();
        let mut cursor = read.open_ro_cursor(self.database).unwrap();
        // An empty key is none to LMDB.
        let pairs: Iter<'_> = if start.is_empty() {
            cursor.iter_start()
        } else {
            cursor.iter_from(start)
        };
        let pairs = pairs.take(limit).map(Result::unwrap);
        pairs.fold((0, 0), |(count, bytes), (_, value)| {
            (count + 1, bytes + value.to_vec().len())
        })
    }

    fn another(&self) -> Box<dyn Peer> {
        Box::new(Self {
            environment: Arc::clone(&self.environment),
            database: self.database,
        })
    }
}
