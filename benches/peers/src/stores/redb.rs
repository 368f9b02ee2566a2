//! redb with one table; one handle for all threads.
//!
//! Several processes open it in its mode `MultiWriter`, which refuses commits without a sync.

use std::path::Path;
use std::sync::Arc;

use redb::{
    ConcurrencyMode, Database, Durability, ReadableDatabase, TableDefinition, WriteTransaction,
};

use super::{CACHE_BYTES, Class, Peer};
use crate::pairs::Pair;

const TABLE: TableDefinition<'_, &[u8], &[u8]> = TableDefinition::new("t");

struct Redb {
    database: Arc<Database>,
    class: Class,
}

pub fn open(directory: &Path, class: Class) -> Box<dyn Peer> {
    open_in(ConcurrencyMode::ExclusiveWriter, directory, class)
}

pub fn share(directory: &Path, class: Class) -> Box<dyn Peer> {
    open_in(ConcurrencyMode::MultiWriter, directory, class)
}

fn open_in(mode: ConcurrencyMode, directory: &Path, class: Class) -> Box<dyn Peer> {
    let database = Database::builder()
        .set_concurrency_mode(mode)
        .set_cache_size(CACHE_BYTES)
        .create(directory.join("redb"))
        .unwrap();
    let write = database.begin_write().unwrap();
    write.open_table(TABLE).unwrap();
    write.commit().unwrap();
    Box::new(Redb {
        database: Arc::new(database),
        class,
    })
}

impl Redb {
    fn begin(&self) -> WriteTransaction {
        let mut write = self.database.begin_write().unwrap();
        let durability = match self.class {
            Class::Kill => Durability::None,
            Class::Power => Durability::Immediate,
        };
        write.set_durability(durability).unwrap();
        write
    }
}

impl Peer for Redb {
    fn set(&mut self, key: &[u8], value: &[u8]) {
        let write = self.begin();
        write.open_table(TABLE).unwrap().insert(key, value).unwrap();
        write.commit().unwrap();
    }

    fn set_batch(&mut self, pairs: &[Pair]) {
        let write = self.begin();
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
        let pairs = table.range::<&[u8]>(start..).unwrap().take(limit);
        let pairs = pairs.map(Result::unwrap);
        pairs.fold((0, 0), |(count, bytes), (_, value)| {
            (count + 1, bytes + value.value().to_vec().len())
        })
    }

    fn another(&self) -> Box<dyn Peer> {
        Box::new(Self {
            database: Arc::clone(&self.database),
            class: self.class,
        })
    }
}
