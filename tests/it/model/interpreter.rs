//! Runs a workload on a store and on a stack of maps, and compares after every operation.
//!
//! Nested transactions recurse: each level is a call of [`Run::inside`], with a map of its own on
//! the stack, which takes the place of the one below it if the level commits.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;

use happystore::limits::KEY_BYTES_MAX;
use happystore::{Error, ErrorKind, Iter, Raw, Snapshot, Transaction, Write};

use super::Map;
use super::operations::{Again, Ask, Filter, How, Keys, Op, Setup, Style, Within, Workload};
use super::place::{ByteStore, Place};
use super::queries::{Selected, both_ends, compare, delete, query, same_pair, select};

/// Transactions are nested to this depth at most.
const DEPTH_MAX: usize = 8;

/// How many iterators, and how many snapshots, are held at once.
const HELD_MAX: usize = 6;

/// Everything, in order.
pub(crate) const ALL: Filter = Filter {
    within: Within::All,
    after: None,
    limit: None,
    reverse: false,
};

/// Why a closure does not return `Ok`.
#[derive(Debug)]
enum Stop {
    Asked,
    Store(Error),
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

/// The panic that a workload asks for.
struct AskedPanic;

/// A workload on its way.
pub(crate) struct Run<'w> {
    place: Place,
    ops: std::slice::Iter<'w, Op>,
    keys: Keys,
    /// The store, and each open transaction on top.
    maps: Vec<Map>,
    iters: Vec<(Iter<Vec<u8>, Raw, [u8]>, Selected)>,
    snapshots: Vec<(Snapshot<Raw, [u8]>, Map)>,
    /// Whether what is held may belong to another opening than the store.
    is_shared: bool,
    /// Operations that did something.
    count: u64,
}

impl<'w> Run<'w> {
    /// Runs `workload` at `place`; the content at its end, and how many operations there were.
    pub(crate) fn new(place: Place, workload: &'w Workload) -> Self {
        Self {
            place,
            ops: workload.ops.iter(),
            keys: Keys::new(),
            maps: vec![Map::new()],
            iters: Vec::new(),
            snapshots: Vec::new(),
            is_shared: false,
            count: 0,
        }
    }

    /// Runs all of it; the content at its end, and how many operations there were.
    pub(crate) fn run(mut self, setup: Setup) -> (Map, u64) {
        let mut store = self.place.open(setup);
        while let Some(op) = self.ops.next() {
            self.count += 1;
            match op {
                Op::Reopen(..) if !self.place.lasts() => self.count -= 1,
                Op::Reopen(again, setup) => store = self.reopen(store, *again, *setup),
                Op::Compact(mask) => compact(&store, *mask),
                Op::Begin(style) => self.begin(&store, &store, *style),
                Op::End(_) | Op::Outside(..) => self.count -= 1,
                op => self.apply(&store, &store, op),
            }
        }
        self.compare_all(&store);
        store.verify().unwrap();
        store = self.reopen(store, Again::Close, setup);
        self.compare_all(&store);
        store.verify().unwrap();
        (self.maps.remove(0), self.count)
    }

    fn map(&mut self) -> &mut Map {
        self.maps.last_mut().unwrap()
    }

    fn apply(&mut self, store: &ByteStore, target: &impl Write<Raw, [u8]>, op: &Op) {
        let map = self.maps.last_mut().unwrap();
        let keys = &self.keys;
        match op {
            Op::Set(key, value) => {
                let (key, value) = (keys.bytes(*key), value.bytes());
                target.set(key, &value[..]).unwrap();
                map.insert(key.clone(), value);
            }
            Op::Get(key) => {
                let found = target.get::<Vec<u8>>(keys.bytes(*key)).unwrap();
                assert_eq!(
                    found.as_deref(),
                    map.get(keys.bytes(*key)).map(|value| &**value)
                );
            }
            Op::Has(key) => {
                let key = keys.bytes(*key);
                assert_eq!(target.has(key).unwrap(), map.contains_key(key));
            }
            Op::Delete(key) => {
                let key = keys.bytes(*key);
                assert_eq!(target.delete(key).unwrap(), map.remove(key).is_some());
            }
            Op::BulkSet(_) | Op::BulkGet(_) | Op::BulkDelete(_) => self.bulk(target, op),
            Op::Query(filter, Ask::Delete) => delete(target, map, filter, keys),
            Op::Query(filter, ask) => compare(target, map, filter, *ask, keys),
            Op::WrongQuery(key) => {
                let key = keys.bytes(*key);
                let wrong = target.query().prefix(key).range(key..).count();
                assert_eq!(wrong.unwrap_err().kind(), ErrorKind::InvalidQuery);
            }
            Op::Scan {
                page_size,
                reverse,
                ends,
            } => {
                let scan = target.scan().page_size(*page_size);
                let scan = if *reverse { scan.reverse() } else { scan };
                let expected = select(
                    map,
                    &Filter {
                        reverse: *reverse,
                        ..ALL
                    },
                    keys,
                );
                both_ends(scan.iter().unwrap(), expected, *ends);
            }
            Op::TooLarge => {
                let error = target.set(&vec![1; KEY_BYTES_MAX + 1], b"").unwrap_err();
                assert_eq!(error.kind(), ErrorKind::TooLarge);
            }
            Op::Sync => store.sync().unwrap(),
            Op::Verify => assert_eq!(store.verify().unwrap().keys, self.maps[0].len() as u64),
            Op::Hold(_) | Op::Step { .. } | Op::LetGo(_) => self.iterate(target, op),
            Op::Snapshot | Op::Look(..) | Op::Forget(_) => self.look(store, op),
            Op::Begin(_) | Op::End(_) | Op::Outside(..) | Op::Reopen(..) | Op::Compact(_) => {
                self.count -= 1;
            }
        }
    }

    fn bulk(&mut self, target: &impl Write<Raw, [u8]>, op: &Op) {
        let map = self.maps.last_mut().unwrap();
        let keys = &self.keys;
        match op {
            Op::BulkSet(pairs) => {
                let pairs: Vec<_> = pairs
                    .iter()
                    .map(|(key, value)| (keys.bytes(*key).clone(), value.bytes()))
                    .collect();
                target
                    .bulk_set(pairs.iter().map(|(key, value)| (key, value.to_vec())))
                    .unwrap();
                map.extend(pairs);
            }
            Op::BulkGet(asked) => {
                let asked: Vec<_> = asked.iter().map(|key| keys.bytes(*key)).collect();
                let found = target.bulk_get::<Vec<u8>>(&asked).unwrap();
                let expected: Vec<_> = asked
                    .iter()
                    .map(|key| map.get(*key).map(|value| value.to_vec()))
                    .collect();
                assert_eq!(found, expected);
            }
            Op::BulkDelete(asked) => {
                let asked: Vec<_> = asked.iter().map(|key| keys.bytes(*key)).collect();
                let found = target.bulk_delete(&asked).unwrap();
                let expected: Vec<_> = asked.iter().map(|key| map.remove(*key).is_some()).collect();
                assert_eq!(found, expected);
            }
            _ => {}
        }
    }

    /// Iterators that are held while other operations go on.
    fn iterate(&mut self, target: &impl Write<Raw, [u8]>, op: &Op) {
        let held = self.iters.len();
        match op {
            Op::Hold(filter) if held < HELD_MAX => {
                let expected = select(self.maps.last().unwrap(), filter, &self.keys);
                let iter = query(target, filter, &self.keys).iter().unwrap();
                self.iters.push((iter, expected));
            }
            Op::Step { which, back } if held > 0 => {
                let (iter, expected) = &mut self.iters[usize::from(*which) % held];
                if *back {
                    same_pair(iter.next_back(), expected.pop_back().as_ref());
                } else {
                    same_pair(iter.next(), expected.pop_front().as_ref());
                }
            }
            Op::LetGo(which) if held > 0 => {
                let (iter, expected) = self.iters.swap_remove(usize::from(*which) % held);
                both_ends(iter, expected, u64::from(*which) * 0x0101_0101_0101_0101);
            }
            _ => self.count -= 1,
        }
    }

    /// Snapshots that are held while other operations go on.
    fn look(&mut self, store: &ByteStore, op: &Op) {
        let held = self.snapshots.len();
        match op {
            Op::Snapshot if held < HELD_MAX => {
                self.snapshots
                    .push((store.snapshot().unwrap(), self.maps[0].clone()));
            }
            Op::Look(which, filter) if held > 0 => {
                let (snapshot, map) = &self.snapshots[usize::from(*which) % held];
                compare(snapshot, map, filter, Ask::Pairs, &self.keys);
                let refused = snapshot.query().delete().unwrap_err();
                assert_eq!(refused.kind(), ErrorKind::InvalidQuery);
            }
            Op::Forget(which) if held > 0 => {
                let (snapshot, map) = self.snapshots.swap_remove(usize::from(*which) % held);
                compare(&snapshot, &map, &ALL, Ask::Iter(0), &self.keys);
            }
            _ => self.count -= 1,
        }
    }

    /// Begins a transaction in `parent`, runs what is inside, and ends it.
    fn begin(&mut self, store: &ByteStore, parent: &impl Write<Raw, [u8]>, style: Style) {
        let below = self.map().clone();
        self.maps.push(below);
        let how = match style {
            Style::Guard => self.guard(store, parent),
            Style::Closure => self.closure(store, parent),
        };
        let map = self.maps.pop().unwrap();
        if how == How::Commit {
            *self.map() = map;
        }
    }

    fn guard(&mut self, store: &ByteStore, parent: &impl Write<Raw, [u8]>) -> How {
        let tx = parent.begin().unwrap();
        if self.maps.len() > 2 {
            assert_eq!(parent.has(b"a").unwrap_err().kind(), ErrorKind::ChildActive);
        }
        let how = self.inside(store, &tx);
        match how {
            How::Commit => tx.commit().unwrap(),
            How::Abort => {
                tx.abort(()).unwrap();
                assert_eq!(tx.has(b"a").unwrap_err().kind(), ErrorKind::Aborted);
                assert_eq!(tx.commit().unwrap_err().kind(), ErrorKind::Aborted);
            }
            How::Fail => drop(tx),
            How::Panic => {
                let unwound = catch_unwind(AssertUnwindSafe(move || {
                    let _tx = tx;
                    resume_unwind(Box::new(AskedPanic));
                }));
                assert!(unwound.is_err());
            }
        }
        how
    }

    fn closure(&mut self, store: &ByteStore, parent: &impl Write<Raw, [u8]>) -> How {
        let mut how = How::Commit;
        let unwound = catch_unwind(AssertUnwindSafe(|| {
            parent.transaction(|tx: &Transaction<'_, Raw, [u8], Stop>| {
                how = self.inside(store, tx);
                match how {
                    How::Commit => Ok(7),
                    How::Abort => tx.abort(8),
                    How::Fail => Err(Stop::Asked),
                    How::Panic => resume_unwind(Box::new(AskedPanic)),
                }
            })
        }));
        match (unwound, how) {
            (Ok(Ok(7)), How::Commit)
            | (Ok(Ok(8)), How::Abort)
            | (Ok(Err(Stop::Asked)), How::Fail) => {}
            (Err(cause), How::Panic) if cause.is::<AskedPanic>() => {}
            (Err(cause), _) => resume_unwind(cause),
            (Ok(Err(Stop::Store(error))), _) => panic!("{error}"),
            (Ok(other), how) => panic!("{other:?} of a transaction that ends with {how:?}"),
        }
        how
    }

    /// Runs operations in `tx` until it ends; how it shall end.
    fn inside<E>(&mut self, store: &ByteStore, tx: &Transaction<'_, Raw, [u8], E>) -> How {
        while let Some(op) = self.ops.next() {
            self.count += 1;
            match op {
                Op::End(how) => return *how,
                Op::Begin(style) if self.maps.len() <= DEPTH_MAX => self.begin(store, tx, *style),
                Op::Outside(key, value) => {
                    let key = self.keys.bytes(*key);
                    let found = store.get::<Vec<u8>>(key).unwrap();
                    assert_eq!(
                        found.as_deref(),
                        self.maps[0].get(key).map(|value| &**value)
                    );
                    let refused = store.set(key, &value.bytes()[..]).unwrap_err();
                    assert_eq!(refused.kind(), ErrorKind::WouldDeadlock);
                }
                op => self.apply(store, tx, op),
            }
        }
        How::Commit
    }

    fn reopen(&mut self, store: ByteStore, again: Again, setup: Setup) -> ByteStore {
        if !self.place.lasts() {
            return store;
        }
        if again == Again::Share {
            let second = self.place.open(setup);
            drop(store);
            self.is_shared = true;
            return second;
        }
        if again == Again::Close {
            store.close().unwrap();
            // What was held from before answers that the store is closed.
            for (snapshot, _) in self.snapshots.iter().filter(|_| !self.is_shared) {
                assert_eq!(snapshot.has(b"a").unwrap_err().kind(), ErrorKind::Closed);
            }
        } else {
            if again == Again::Kill {
                self.place.kill();
            }
            drop(store);
        }
        self.iters.clear();
        self.snapshots.clear();
        self.is_shared = false;
        let store = self.place.open(setup);
        self.compare_all(&store);
        store
    }

    fn compare_all(&self, store: &ByteStore) {
        let entry_bytes = |(key, value): (&Rc<[u8]>, &Rc<[u8]>)| 12 + key.len() + value.len();
        let live_bytes: usize = self.maps[0].iter().map(entry_bytes).sum();
        let stats = store.stats().unwrap();
        assert_eq!(stats.keys, self.maps[0].len() as u64);
        assert_eq!(stats.live_bytes, live_bytes as u64);
        compare(store, &self.maps[0], &ALL, Ask::Pairs, &self.keys);
        for (key, value) in &self.maps[0] {
            assert_eq!(store.get(key).unwrap().as_deref(), Some(&value[..]));
        }
    }
}

fn compact(store: &ByteStore, mask: u32) {
    let compacted = if mask == u32::MAX {
        store.compact()
    } else {
        store.compact_segments(|id| mask >> (id % 32) & 1 == 1)
    };
    assert!(compacted.unwrap().is_finished);
}
