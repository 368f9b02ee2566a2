//! What a model test does: operations as plain values, made by chance and shrunk by quickcheck.
//!
//! A [`Workload`] is a flat list; [`Op::Begin`] and [`Op::End`] are matched by the interpreter, so
//! that any sublist is a workload too and shrinking may cut anywhere.

use std::ops::Bound;
use std::rc::Rc;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use happystore::Durability;
use happystore::limits::KEY_BYTES_MAX;
use happystore::vfs::sim::Random;
use quickcheck::{Arbitrary, Gen};

/// How long a failure is shrunk.
const SHRINK_MAX: Duration = Duration::from_secs(20);

/// The number of a key, see [`Keys`].
pub(crate) type KeyId = u16;

/// The keys below this number are short.
const SHORT_KEYS: KeyId = 600;

/// Every key there is: [`SHORT_KEYS`] short ones, then two at the limit.
const ALL_KEYS: KeyId = SHORT_KEYS + 2;

/// A value, as its length and what it begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Value {
    pub(crate) len: u16,
    pub(crate) tag: u32,
}

impl Value {
    /// The value's bytes.
    pub(crate) fn bytes(self) -> Rc<[u8]> {
        let tag = self.tag.to_le_bytes();
        (0..usize::from(self.len))
            .map(|at| tag[at % 4].wrapping_add((at >> 2) as u8))
            .collect()
    }
}

/// What a query selects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Filter {
    pub(crate) within: Within,
    pub(crate) after: Option<KeyId>,
    pub(crate) limit: Option<usize>,
    pub(crate) reverse: bool,
}

/// A prefix or a range.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Within {
    All,
    Prefix(KeyId),
    Range(Bound<KeyId>, Bound<KeyId>),
}

/// What a query is asked for; the bits say from which end each step of an iterator comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Ask {
    Pairs,
    Keys,
    Count,
    Iter(u64),
    Delete,
}

/// How a transaction is begun.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Style {
    Guard,
    Closure,
}

/// How a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    Commit,
    Abort,
    /// `Err` from a closure, a dropped guard.
    Fail,
    Panic,
}

/// How a store is opened anew.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Again {
    Close,
    Drop,
    /// The process is killed; on a real machine, as `Drop`.
    Kill,
    /// A second opening beside the first, which is dropped then.
    Share,
}

/// One operation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Op {
    Set(KeyId, Value),
    Get(KeyId),
    Has(KeyId),
    Delete(KeyId),
    BulkSet(Vec<(KeyId, Value)>),
    BulkGet(Vec<KeyId>),
    BulkDelete(Vec<KeyId>),
    Query(Filter, Ask),
    WrongQuery(KeyId),
    Scan {
        page_size: usize,
        reverse: bool,
        ends: u64,
    },
    /// Begins an iterator that is held over what follows.
    Hold(Filter),
    /// Takes a pair from a held iterator.
    Step {
        which: u8,
        back: bool,
    },
    LetGo(u8),
    Snapshot,
    /// Reads a held snapshot.
    Look(u8, Filter),
    Forget(u8),
    Begin(Style),
    End(How),
    /// Reads and writes through the store while a transaction is open.
    Outside(KeyId, Value),
    TooLarge,
    Sync,
    Verify,
    /// Rewrites the finished segments whose ids have a bit in this mask, or all of them.
    Compact(u32),
    Reopen(Again, Setup),
}

/// How many kinds of operations there are.
const KINDS: u64 = 24;

/// What a store is opened with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Setup {
    pub(crate) segment_bytes: u64,
    pub(crate) durability: Durability,
}

impl Setup {
    /// Tiny segments mostly, any durability.
    pub(crate) fn random(random: &mut Random) -> Self {
        let sizes = [512, 700, 1024, 4096, 16 << 10, 64 << 10];
        let durability = match random.below(4) {
            0 | 1 => Durability::Os,
            2 => Durability::Sync,
            _ => Durability::Deferred(Duration::from_millis(50)),
        };
        Self {
            segment_bytes: sizes[random.index(sizes.len())],
            durability,
        }
    }
}

/// A store's setup, and what is done to it.
#[derive(Debug, Clone)]
pub(crate) struct Workload {
    pub(crate) setup: Setup,
    pub(crate) ops: Vec<Op>,
}

impl Arbitrary for Workload {
    fn arbitrary(g: &mut Gen) -> Self {
        let mut random = Random::new(u64::arbitrary(g));
        let mut swarm = Swarm::new(&mut random);
        let count = 1 + random.index(g.size());
        let ops = (0..count).map(|_| swarm.op(&mut random)).collect();
        Self {
            setup: Setup::random(&mut random),
            ops,
        }
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        // The first failure of the process is shrunk for a while; then it is small enough.
        static FAILED: OnceLock<Instant> = OnceLock::new();
        let failed = FAILED.get_or_init(Instant::now);
        let setup = self.setup;
        let smaller = self.ops.shrink().map(move |ops| Self { setup, ops });
        Box::new(smaller.take_while(move |_| failed.elapsed() < SHRINK_MAX))
    }
}

impl Arbitrary for Op {
    fn arbitrary(g: &mut Gen) -> Self {
        let mut random = Random::new(u64::arbitrary(g));
        Swarm::new(&mut random).op(&mut random)
    }

    fn shrink(&self) -> Box<dyn Iterator<Item = Self>> {
        match self {
            Self::Set(key, value) if value.len > 0 => Box::new(
                smaller(*value)
                    .map(|value| Self::Set(*key, value))
                    .collect::<Vec<_>>()
                    .into_iter(),
            ),
            Self::BulkSet(pairs) if !pairs.is_empty() => {
                let shorter = pairs[1..].to_vec();
                Box::new([Self::BulkSet(shorter), Self::BulkSet(vec![pairs[0]])].into_iter())
            }
            Self::BulkGet(keys) if !keys.is_empty() => {
                Box::new(std::iter::once(Self::BulkGet(keys[1..].to_vec())))
            }
            Self::BulkDelete(keys) if !keys.is_empty() => {
                Box::new(std::iter::once(Self::BulkDelete(keys[1..].to_vec())))
            }
            _ => quickcheck::empty_shrinker(),
        }
    }
}

fn smaller(value: Value) -> impl Iterator<Item = Value> {
    [0, value.len / 2, value.len - 1]
        .into_iter()
        .map(move |len| Value { len, ..value })
}

/// Chance within one workload: which kinds of operations, how many keys, how long values.
struct Swarm {
    kinds: Vec<u64>,
    keys: KeyId,
    values: u16,
    /// The most keys of a bulk operation.
    bulk: usize,
}

impl Swarm {
    fn new(random: &mut Random) -> Self {
        let mask = random.bits() | 1 | 1 << random.below(KINDS);
        // Some kinds are dear, some can hardly be too many.
        let weights = [
            6, 4, 2, 4, 1, 1, 1, 3, 1, 1, 2, 4, 1, 1, 1, 1, 4, 4, 1, 0, 0, 0, 0, 0,
        ];
        let mut kinds = Vec::new();
        for kind in (0..KINDS).filter(|kind| mask >> kind & 1 == 1) {
            let weight: usize = weights[usize::try_from(kind).unwrap()];
            kinds.extend(std::iter::repeat_n(kind, weight * 8 + 1));
        }
        let (keys, bulk) = match random.below(10) {
            0 => (SHORT_KEYS, 300),
            1..4 => (60, 10),
            4..7 => (12, 6),
            _ => (3, 4),
        };
        let values = [0, 8, 40, 200][random.index(4)];
        Self {
            kinds,
            keys,
            values,
            bulk,
        }
    }

    fn key(&self, random: &mut Random) -> KeyId {
        match random.below(4000) {
            0 => SHORT_KEYS + u16::try_from(random.below(2)).unwrap(),
            1..60 => u16::try_from(random.below(SHORT_KEYS.into())).unwrap(),
            _ => u16::try_from(random.below(self.keys.into())).unwrap(),
        }
    }

    fn value(&self, random: &mut Random) -> Value {
        let max = if random.below(200) == 0 {
            5000
        } else {
            u64::from(self.values)
        };
        let len = u16::try_from(random.below(max + 1)).unwrap();
        Value {
            len,
            tag: random.bits() as u32,
        }
    }

    fn many<T>(&self, random: &mut Random, one: impl Fn(&Self, &mut Random) -> T) -> Vec<T> {
        (0..random.index(self.bulk))
            .map(|_| one(self, random))
            .collect()
    }

    fn bound(&self, random: &mut Random) -> Bound<KeyId> {
        match random.below(5) {
            0 | 1 => Bound::Included(self.key(random)),
            2 | 3 => Bound::Excluded(self.key(random)),
            _ => Bound::Unbounded,
        }
    }

    fn filter(&self, random: &mut Random) -> Filter {
        let within = match random.below(4) {
            0 => Within::All,
            1 => Within::Prefix(self.key(random)),
            _ => Within::Range(self.bound(random), self.bound(random)),
        };
        let after = (random.below(4) == 0).then(|| self.key(random));
        let limit = (random.below(3) == 0).then(|| random.index(2 * usize::from(self.keys)));
        Filter {
            within,
            after,
            limit,
            reverse: random.coin(),
        }
    }

    fn op(&mut self, random: &mut Random) -> Op {
        match self.kinds[random.index(self.kinds.len())] {
            0 => Op::Set(self.key(random), self.value(random)),
            1 => Op::Get(self.key(random)),
            2 => Op::Has(self.key(random)),
            3 => Op::Delete(self.key(random)),
            4 => Op::BulkSet(self.many(random, |swarm, random| {
                (swarm.key(random), swarm.value(random))
            })),
            5 => Op::BulkGet(self.many(random, Self::key)),
            6 => Op::BulkDelete(self.many(random, Self::key)),
            7 => Op::Query(self.filter(random), ask(random)),
            8 => Op::WrongQuery(self.key(random)),
            9 => Op::Scan {
                page_size: 1 + random.index(30),
                reverse: random.coin(),
                ends: random.bits(),
            },
            10 => Op::Hold(self.filter(random)),
            11 => Op::Step {
                which: random.bits() as u8,
                back: random.coin(),
            },
            12 => Op::LetGo(random.bits() as u8),
            13 => Op::Snapshot,
            14 => Op::Look(random.bits() as u8, self.filter(random)),
            15 => Op::Forget(random.bits() as u8),
            16 => Op::Begin(if random.coin() {
                Style::Guard
            } else {
                Style::Closure
            }),
            17 => Op::End(how(random)),
            18 => Op::Outside(self.key(random), self.value(random)),
            19 => Op::TooLarge,
            20 => Op::Sync,
            21 => Op::Verify,
            22 => Op::Compact(if random.coin() {
                u32::MAX
            } else {
                random.bits() as u32
            }),
            _ => Op::Reopen(again(random), Setup::random(random)),
        }
    }
}

fn ask(random: &mut Random) -> Ask {
    match random.below(8) {
        0 | 1 => Ask::Pairs,
        2 => Ask::Keys,
        3 => Ask::Count,
        4 => Ask::Delete,
        _ => Ask::Iter(random.bits()),
    }
}

fn how(random: &mut Random) -> How {
    match random.below(8) {
        0 => How::Abort,
        1 => How::Fail,
        2 => How::Panic,
        _ => How::Commit,
    }
}

fn again(random: &mut Random) -> Again {
    match random.below(4) {
        0 => Again::Close,
        1 => Again::Drop,
        2 => Again::Share,
        _ => Again::Kill,
    }
}

/// The bytes of every key.
pub(crate) struct Keys {
    keys: Vec<Rc<[u8]>>,
}

impl Keys {
    /// Odd keys first: empty, zeros, runs of 0xFF, prefixes of each other.
    pub(crate) fn new() -> Self {
        let mut keys: Vec<Vec<u8>> = vec![
            b"".to_vec(),
            b"a".to_vec(),
            vec![0xff],
            vec![0xff, 0xff],
            vec![0xff; 20],
            vec![0],
            vec![0, 0],
            b"a\0".to_vec(),
            b"a\xff".to_vec(),
            b"a\xff\xff".to_vec(),
            b"b".to_vec(),
            b"shared/prefix/".to_vec(),
        ];
        for at in keys.len()..usize::from(SHORT_KEYS) {
            keys.push(match at % 3 {
                0 => format!("shared/prefix/{at}").into_bytes(),
                1 => format!("shared/prefix/{:0width$}", 0, width = at / 3).into_bytes(),
                _ => format!("k{at:02}").into_bytes(),
            });
        }
        keys.push(vec![b's'; KEY_BYTES_MAX]);
        keys.push(vec![0xff; KEY_BYTES_MAX]);
        assert_eq!(keys.len(), usize::from(ALL_KEYS));
        Self {
            keys: keys.into_iter().map(Rc::from).collect(),
        }
    }

    /// The bytes of `key`.
    pub(crate) fn bytes(&self, key: KeyId) -> &Rc<[u8]> {
        &self.keys[usize::from(key)]
    }
}
