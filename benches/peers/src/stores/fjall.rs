//! fjall with one keyspace; a clone of the handles for each thread.

use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};

use super::{CACHE_BYTES, Class, Peer};
use crate::pairs::Pair;

struct Fjall {
    database: Database,
    keyspace: Keyspace,
    class: Class,
}

pub fn open(directory: &Path, class: Class) -> Box<dyn Peer> {
    let builder = Database::builder(directory).cache_size(CACHE_BYTES as u64);
    let database = builder.open().unwrap();
    let keyspace = database.keyspace("t", KeyspaceCreateOptions::default);
    Box::new(Fjall {
        keyspace: keyspace.unwrap(),
        database,
        class,
    })
}

impl Fjall {
    fn sync(&self) {
        if self.class == Class::Power {
            self.database.persist(PersistMode::SyncData).unwrap();
        }
    }
}

impl Peer for Fjall {
    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.keyspace.insert(key, value).unwrap();
        self.sync();
    }

    fn set_batch(&mut self, pairs: &[Pair]) {
        let mut batch = self.database.batch();
        for (key, value) in pairs {
            batch.insert(&self.keyspace, key, value);
        }
        batch.commit().unwrap();
        self.sync();
    }

    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.keyspace.get(key).unwrap();
        value.map(|value| value.to_vec())
    }

    fn range(&mut self, start: &[u8], limit: usize) -> (usize, usize) {
        let pairs = self.keyspace.range(start..).take(limit);
        let pairs = pairs.map(|pair| pair.into_inner().unwrap());
        pairs.fold((0, 0), |(count, bytes), (_, value)| {
            (count + 1, bytes + value.to_vec().len())
        })
    }

    fn another(&self) -> Box<dyn Peer> {
        Box::new(Self {
            database: self.database.clone(),
            keyspace: self.keyspace.clone(),
            class: self.class,
        })
    }
}
