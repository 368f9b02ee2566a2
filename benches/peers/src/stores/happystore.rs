//! happystore with raw values and byte keys; a clone of the handle for each thread.

use std::path::Path;
use std::time::Duration;

use happystore::{Access, Durability, Options, Raw, Store};

use super::{Class, Peer};
use crate::pairs::Pair;

/// Who waits for another process to be done never gives up: how long it took is in the latencies.
const LOCK_TIMEOUT: Duration = Duration::from_secs(3600);

struct Happystore(Store<Raw, [u8]>);

pub fn open(directory: &Path, class: Class) -> Box<dyn Peer> {
    open_as(directory, class, Access::Shared)
}

/// Opens it beside others or for this process alone.
pub fn open_as(directory: &Path, class: Class, access: Access) -> Box<dyn Peer> {
    let durability = match class {
        Class::Kill => Durability::Os,
        Class::Power => Durability::Sync,
    };
    let options = Options::new()
        .serializer(Raw)
        .byte_keys()
        .durability(durability)
        .access(access)
        .lock_timeout(LOCK_TIMEOUT);
    Box::new(Happystore(options.open(directory).unwrap()))
}

impl Peer for Happystore {
    fn set(&mut self, key: &[u8], value: &[u8]) {
        self.0.set(key, value).unwrap();
    }

    fn set_batch(&mut self, pairs: &[Pair]) {
        let pairs = pairs.iter().map(|(key, value)| (key, value));
        self.0.bulk_set(pairs).unwrap();
    }

    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>> {
        self.0.get(key).unwrap()
    }

    fn range(&mut self, start: &[u8], limit: usize) -> (usize, usize) {
        let query = self.0.query().range(start..).limit(limit);
        let pairs = query.iter::<Vec<u8>>().unwrap().map(Result::unwrap);
        pairs.fold((0, 0), |(count, bytes), (_, value)| {
            (count + 1, bytes + value.len())
        })
    }

    fn another(&self) -> Box<dyn Peer> {
        Box::new(Self(self.0.clone()))
    }

    fn commits_and_syncs(&self) -> Option<(u64, u64)> {
        let stats = self.0.stats().unwrap();
        Some((stats.commits, stats.syncs))
    }
}
