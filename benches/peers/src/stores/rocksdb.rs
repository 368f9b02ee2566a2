//! RocksDB with a block cache and the filters its own guide recommends; one handle for all threads.

use std::path::Path;
use std::sync::Arc;

use rocksdb::{BlockBasedOptions, Cache, DB, DBCompressionType, Options, WriteBatch, WriteOptions};

use super::{CACHE_BYTES, Class, Peer};
use crate::pairs::Pair;

/// A filter for each table file, so that a miss reads none: a hundredth of the misses does.
const FILTER_BITS_A_KEY: f64 = 10.0;

struct Rocksdb {
    database: Arc<DB>,
    write: WriteOptions,
    class: Class,
}

fn peer(database: Arc<DB>, class: Class) -> Box<dyn Peer> {
    let mut write = WriteOptions::default();
    write.set_sync(class == Class::Power);
    Box::new(Rocksdb {
        database,
        write,
        class,
    })
}

pub fn open(directory: &Path, class: Class) -> Box<dyn Peer> {
    let mut tables = BlockBasedOptions::default();
    tables.set_block_cache(&Cache::new_lru_cache(CACHE_BYTES));
    tables.set_bloom_filter(FILTER_BITS_A_KEY, false);
    let mut options = Options::default();
    options.create_if_missing(true);
    options.set_block_based_table_factory(&tables);
    options.set_compression_type(DBCompressionType::None);
    peer(Arc::new(DB::open(&options, directory).unwrap()), class)
}

impl Peer for Rocksdb {
    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.database.put_opt(key, value, &self.write).unwrap();
    }

    fn set_batch(&mut self, pairs: &[Pair]) {
        let mut batch = WriteBatch::default();
        for (key, value) in pairs {
            batch.put(key, value);
        }
        self.database.write_opt(batch, &self.write).unwrap();
    }

    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.database.get(key).unwrap()
    }

    fn range(&mut self, start: &[u8], limit: usize) -> (usize, usize) {
        let mut pairs = self.database.raw_iterator();
        pairs.seek(start);
        let mut seen = (0, 0);
        while let Some((_, value)) = pairs.item().filter(|_| seen.0 < limit) {
            seen = (seen.0 + 1, seen.1 + value.to_vec().len());
            pairs.next();
        }
        pairs.status().unwrap();
        seen
    }

    fn another(&self) -> Box<dyn Peer> {
        peer(Arc::clone(&self.database), self.class)
    }
}
