//! The stores, each behind the same few calls, a file each.
//!
//! A commit of [`Class::Kill`] survives a killed process, one of [`Class::Power`] a power cut:
//!
//! | store | `Kill` | `Power` |
//! |---|---|---|
//! | happystore | `Durability::Os` | `Durability::Sync` |
//! | RocksDB | WAL, `sync=false` | WAL, `sync=true` |
//! | LMDB | `NO_SYNC`: pages are written to the operating system, never through a map | its default |
//! | redb | `Durability::None`, which does not survive a kill: unranked | `Durability::Immediate` |
//! | fjall | its default, `PersistMode::Buffer` | `PersistMode::SyncData` after each set |
//! | sled | its default, which syncs twice a second and survives no kill: unranked | `flush` after each set |
//! | SQLite | WAL, `synchronous=OFF` | WAL, `synchronous=FULL` |
//!
//! All may cache 4 GiB, or map as much as there is.
//!
//! Several processes may open happystore, LMDB, SQLite and redb in its multi-writer mode, which
//! has commits of `Power` alone. RocksDB, fjall and sled are one process's.

mod fjall;
pub mod happystore;
mod lmdb;
mod redb;
#[cfg(feature = "rocksdb")]
mod rocksdb;
mod sled;
mod sqlite;

use std::path::Path;

use crate::pairs::Pair;

/// What all caches may take.
const CACHE_BYTES: usize = 4 << 30;

/// The same few calls for every store. Anything unexpected ends the run.
pub trait Peer: Send {
    fn set(&mut self, key: &[u8], value: &[u8]);
    /// All in one commit.
    fn set_batch(&mut self, pairs: &[Pair]);
    fn get(&mut self, key: &[u8]) -> Option<Vec<u8>>;
    /// Up to `limit` pairs from `start`: how many, and the bytes of their values.
    fn range(&mut self, start: &[u8], limit: usize) -> (usize, usize);
    /// The same open store, for another thread.
    fn another(&self) -> Box<dyn Peer>;
    /// Commits and syncs since it was opened, if it counts them.
    fn commits_and_syncs(&self) -> Option<(u64, u64)> {
        None
    }
}

/// What a commit survives.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Kill,
    Power,
}

/// A store that can be opened.
pub struct Kind {
    /// On the command line.
    pub name: &'static str,
    /// In tables.
    pub title: &'static str,
    /// Whether it has a commit of [`Class::Kill`].
    pub kill_safe: bool,
    /// Opens it in a directory that is there, and makes it if there is none.
    pub open: Open,
    /// The same for one of several processes, if it can be open in several.
    pub share: Option<Open>,
}

pub type Open = fn(&Path, Class) -> Box<dyn Peer>;

/// What stands beside each other.
pub static STORES: &[Kind] = &[
    Kind {
        name: "happystore",
        title: "happystore",
        kill_safe: true,
        open: happystore::open,
        share: Some(happystore::open),
    },
    #[cfg(feature = "rocksdb")]
    Kind {
        name: "rocksdb",
        title: "RocksDB",
        kill_safe: true,
        open: rocksdb::open,
        share: None,
    },
    Kind {
        name: "lmdb",
        title: "LMDB",
        kill_safe: true,
        open: lmdb::open,
        share: Some(lmdb::open),
    },
    Kind {
        name: "redb",
        title: "redb",
        kill_safe: false,
        open: redb::open,
        share: Some(redb::share),
    },
    Kind {
        name: "fjall",
        title: "fjall",
        kill_safe: true,
        open: fjall::open,
        share: None,
    },
    Kind {
        name: "sled",
        title: "sled",
        kill_safe: false,
        open: sled::open,
        share: None,
    },
    Kind {
        name: "sqlite",
        title: "SQLite WAL",
        kill_safe: true,
        open: sqlite::open,
        share: Some(sqlite::open),
    },
];

/// The store of this name.
pub fn find(name: &str) -> Result<&'static Kind, String> {
    let names: Vec<&str> = STORES.iter().map(|kind| kind.name).collect();
    let found = STORES.iter().find(|kind| kind.name == name);
    found.ok_or_else(|| format!("there is no store {name}; there are {}", names.join(", ")))
}
