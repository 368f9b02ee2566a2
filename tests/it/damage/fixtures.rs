//! Stores to be damaged: built in a simulated world with fixed seeds, so that every byte is known.

use std::collections::BTreeMap;

use happystore::limits::KEY_BYTES_MAX;
use happystore::vfs::Vfs;
use happystore::vfs::sim::{Image, Random, World};
use happystore::{Durability, Options, Raw, Result, Store};
use std::sync::Arc;

/// Where the store lies on its simulated disk.
pub(crate) const DIRECTORY: &str = "/s";

/// What a store holds.
pub(crate) type Content = BTreeMap<String, Vec<u8>>;

/// A store on a disk, and what it held after each commit, the empty store first.
pub(crate) struct Fixture {
    pub(crate) name: &'static str,
    pub(crate) image: Image,
    pub(crate) history: Vec<Content>,
    /// A manifest from before, to be put back.
    pub(crate) old_manifest: Vec<u8>,
}

impl Fixture {
    /// The names of the store's files.
    pub(crate) fn files(&self) -> Vec<String> {
        self.image.list(DIRECTORY)
    }

    /// The bytes of a file.
    pub(crate) fn bytes(&self, file: &str) -> Vec<u8> {
        self.image.read(format!("{DIRECTORY}/{file}")).unwrap()
    }
}

/// A store that is being filled.
pub(crate) struct Builder {
    world: World,
    process: Arc<dyn Vfs>,
    segment_bytes: u64,
    store: Store<Raw>,
    history: Vec<Content>,
    old_manifest: Vec<u8>,
}

impl Builder {
    pub(crate) fn new(seed: u64, segment_bytes: u64) -> Self {
        let world = World::new(seed);
        let process = world.process();
        let store = open(&process, segment_bytes).unwrap();
        let history = vec![Content::new()];
        Self {
            world,
            process,
            segment_bytes,
            store,
            history,
            old_manifest: Vec::new(),
        }
    }

    /// The content now, as the next commit's to change.
    fn next(&mut self) -> &mut Content {
        let now = self.history.last().unwrap().clone();
        self.history.push(now);
        self.history.last_mut().unwrap()
    }

    fn set(&mut self, key: &str, value: &[u8]) {
        self.store.set(key, value).unwrap();
        self.next().insert(key.to_owned(), value.to_vec());
    }

    fn delete(&mut self, key: &str) {
        assert!(self.store.delete(key).unwrap());
        self.next().remove(key);
    }

    /// A transaction with a nested one that is kept and one that is not.
    fn nested(&mut self, keys: [&str; 3]) {
        self.store
            .transaction(|tx| -> Result<()> {
                tx.set(keys[0], b"outer")?;
                tx.transaction(|inner| inner.set(keys[1], b"inner"))?;
                tx.transaction(|inner| {
                    inner.delete(keys[0])?;
                    inner.set(keys[2], b"undone")?;
                    inner.abort(())
                })
            })
            .unwrap();
        let next = self.next();
        next.insert(keys[0].to_owned(), b"outer".to_vec());
        next.insert(keys[1].to_owned(), b"inner".to_vec());
    }

    fn reopen(&mut self) {
        let store = open(&self.process, self.segment_bytes);
        drop(std::mem::replace(&mut self.store, store.unwrap()));
    }

    /// Closes the store, and opens it again.
    fn reopen_closed(&mut self) {
        self.store.clone().close().unwrap();
        self.store = open(&self.process, self.segment_bytes).unwrap();
    }

    /// Remembers the manifest as it is now.
    fn keep_manifest(&mut self) {
        self.old_manifest = self
            .world
            .image_now()
            .read(format!("{DIRECTORY}/MANIFEST"))
            .unwrap();
    }

    /// Cuts the store's process off, without a seal mark.
    fn killed(self, name: &'static str) -> Fixture {
        self.world.kill(&self.process);
        self.finish(name)
    }

    /// Closes the store, with a seal mark.
    fn closed(self, name: &'static str) -> Fixture {
        self.store.clone().close().unwrap();
        self.finish(name)
    }

    fn finish(self, name: &'static str) -> Fixture {
        let Self {
            world,
            history,
            old_manifest,
            ..
        } = self;
        Fixture {
            name,
            image: world.image_now(),
            history,
            old_manifest,
        }
    }
}

/// Opens the store of a fixture.
pub(crate) fn open(process: &Arc<dyn Vfs>, segment_bytes: u64) -> Result<Store<Raw>> {
    Options::new()
        .serializer(Raw)
        .vfs(process.clone())
        .segment_bytes(segment_bytes)
        .durability(Durability::Sync)
        .open(DIRECTORY)
}

/// One active segment, without a seal mark.
pub(crate) fn active_only() -> Fixture {
    let mut builder = Builder::new(11, 4096);
    builder.keep_manifest();
    for n in 0..40 {
        builder.set(
            &format!("key/{:02}", n % 9),
            format!("value {n}").repeat(n % 4).as_bytes(),
        );
    }
    builder.killed("active only")
}

/// Several sealed segments behind each other.
pub(crate) fn sealed_segments() -> Fixture {
    let mut builder = Builder::new(12, 512);
    for n in 0..60 {
        if n == 48 {
            builder.keep_manifest();
        }
        builder.set(
            &format!("key/{:02}", n % 10),
            format!("<{n}>").repeat(1 + n % 5).as_bytes(),
        );
    }
    builder.killed("sealed segments")
}

/// Closed cleanly twice: two seal marks, one of them last.
pub(crate) fn closed_cleanly() -> Fixture {
    let mut builder = Builder::new(13, 4096);
    builder.keep_manifest();
    for n in 0..20 {
        builder.set(&format!("key/{n}"), b"before");
    }
    builder.reopen_closed();
    for n in 13..27 {
        builder.set(&format!("key/{n}"), b"after");
    }
    builder.closed("closed cleanly")
}

/// Nested transactions, tombstones, keys of every length, a repaired tail's epoch.
pub(crate) fn nested_batches() -> Fixture {
    let mut builder = Builder::new(14, 2048);
    builder.set("", b"the empty key");
    for n in 0..9 {
        builder.nested([&format!("a{n}"), &format!("b{n}"), &format!("c{n}")]);
        if n == 5 {
            builder.keep_manifest();
        }
        builder.delete(&format!("a{n}"));
    }
    builder.reopen();
    builder.set(&"long".repeat(40), b"");
    builder.killed("nested batches")
}

/// Few records before a long tail of zeros.
pub(crate) fn allocated_tail() -> Fixture {
    let mut builder = Builder::new(15, 4096);
    builder.keep_manifest();
    for n in 0..4 {
        builder.set(&format!("key/{n}"), b"value");
    }
    builder.delete("key/2");
    builder.killed("allocated tail")
}

/// A store whose tail was torn and repaired: epoch 2.
pub(crate) fn repaired() -> Fixture {
    let mut builder = Builder::new(16, 4096);
    for n in 0..4 {
        builder.set(&format!("key/{n}"), b"epoch one");
    }
    builder.keep_manifest();
    let Builder {
        world,
        process,
        segment_bytes,
        store,
        history,
        old_manifest,
    } = builder;
    world.kill(&process);
    drop(store);
    let process = world.process();
    let path = format!("{DIRECTORY}/00000001.seg");
    let file = process
        .open(path.as_ref(), happystore::vfs::OpenMode::Write)
        .unwrap();
    file.write_at(800, &[7; 40]).unwrap();
    let store = open(&process, segment_bytes).unwrap();
    let mut builder = Builder {
        world,
        process,
        segment_bytes,
        store,
        history,
        old_manifest,
    };
    for n in 2..30 {
        builder.set(&format!("key/{n}"), b"epoch two");
    }
    builder.killed("repaired")
}

/// A seal mark with one commit behind it, which alone proves that the mark was whole.
pub(crate) fn one_after_the_mark() -> Fixture {
    let mut builder = Builder::new(18, 512);
    builder.set("before", b"value");
    builder.keep_manifest();
    builder.reopen_closed();
    builder.set("after", b"value");
    builder.killed("one after the mark")
}

/// Two compacted segments, with tombstones that are needed as long as the first segment stays, which is
/// of the log and has hints too; behind them segments without hints, the last one closed cleanly.
pub(crate) fn compacted() -> Fixture {
    compacted_of(19)
}

/// The same, as another store.
pub(crate) fn compacted_of(seed: u64) -> Fixture {
    let mut builder = Builder::new(seed, 512);
    for n in 0..7 {
        builder.set(&format!("a{n}"), format!("old {n}").repeat(2).as_bytes());
    }
    for n in 0..3 {
        builder.delete(&format!("a{n}"));
    }
    for n in 0..12 {
        builder.set(
            &format!("b{n:02}"),
            format!("<{n}>").repeat(1 + n % 5).as_bytes(),
        );
        if n % 3 == 0 {
            builder.delete(&format!("b{n:02}"));
        }
    }
    builder.keep_manifest();
    builder.store.compact_segments(|id| id > 1).unwrap();
    // One key of each compacted segment stays as it is there.
    for n in (5..16).filter(|n| *n != 10) {
        builder.set(&format!("b{n:02}"), format!("new {n}").repeat(2).as_bytes());
    }
    builder.closed("compacted")
}

/// A store that lived, with what was compacted now and then, some segments at a time.
pub(crate) fn compacted_at_random(seed: u64) -> Fixture {
    let mut random = Random::new(seed);
    let mut builder = Builder::new(seed, 512 << random.below(2));
    builder.keep_manifest();
    for step in 0..90 {
        let key = format!("k{}", random.below(10));
        match random.below(10) {
            0..=5 => builder.set(&key, &vec![step; random.index(60)]),
            6..=8 if builder.history.last().unwrap().contains_key(&key) => builder.delete(&key),
            6..=8 => {}
            _ => {
                let mask = random.below(1 << 32);
                let wanted = |id: u32| mask >> (id % 32) & 1 == 1;
                builder.store.compact_segments(wanted).unwrap();
            }
        }
    }
    // What takes commits comes behind all that was compacted.
    for n in 0..6 {
        builder.set(&format!("last {n}"), &[7; 150]);
    }
    builder.killed("compacted at random")
}

/// Hints of several blocks: few keys, all of them long.
pub(crate) fn long_hints() -> Fixture {
    let mut builder = Builder::new(20, 32 << 10);
    for n in 0..12 {
        builder.set(&format!("{n:02}{}", "k".repeat(900)), b"value");
    }
    builder.delete(&format!("03{}", "k".repeat(900)));
    builder.keep_manifest();
    builder.store.compact_segments(|_| true).unwrap();
    builder.set("last", b"value");
    builder.closed("long hints")
}

/// A key at the limit.
pub(crate) fn longest_key() -> Fixture {
    let mut builder = Builder::new(17, 128 << 10);
    builder.set(&"k".repeat(KEY_BYTES_MAX), b"value");
    builder.killed("longest key")
}

/// The same, rewritten.
pub(crate) fn longest_key_compacted() -> Fixture {
    let mut builder = Builder::new(17, 256 << 10);
    builder.set(&"k".repeat(KEY_BYTES_MAX), b"value");
    builder.keep_manifest();
    builder.store.compact_segments(|_| true).unwrap();
    builder.closed("longest key, compacted")
}
