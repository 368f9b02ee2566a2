//! sled with its default tree; a clone of the handle for each thread.

use std::path::Path;

use super::{CACHE_BYTES, Class, Peer};
use crate::pairs::Pair;

struct Sled {
    database: sled::Db,
    class: Class,
}

pub fn open(directory: &Path, class: Class) -> Box<dyn Peer> {
    let config = sled::Config::new().path(directory);
    let database = config.cache_capacity(CACHE_BYTES as u64).open().unwrap();
    Box::new(Sled { database, class })
}

impl Sled {
    fn sync(&self) {
        if self.class == Class::Power {
            self.database.flush().unwrap();
        }
    }
}

impl Peer for Sled {
    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.database.insert(key, value).unwrap();
        self.sync();
    }

    fn set_batch(&mut self, pairs: &[Pair]) {
        let mut batch = sled::Batch::default();
        for (key, value) in pairs {
            batch.insert(&key[..], &value[..]);
        }
        self.database.apply_batch(batch).unwrap();
        self.sync();
    }

    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        let value = self.database.get(key).unwrap();
        value.map(|value| value.to_vec())
    }

    fn range(&mut self, start: &[u8], limit: usize) -> (usize, usize) {
        let pairs = self.database.range(start..).take(limit);
        pairs
            .map(Result::unwrap)
            .fold((0, 0), |(count, bytes), (_, value)| {
                (count + 1, bytes + value.to_vec().len())
            })
    }

    fn another(&self) -> Box<dyn Peer> {
        Box::new(Self {
            database: self.database.clone(),
            class: self.class,
        })
    }
}
