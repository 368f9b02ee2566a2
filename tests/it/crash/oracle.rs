//! What a store may hold after a crash, and the check that it does.
//!
//! A [`History`] has the model's state after every commit; [`Bounds`] say which of them a crash
//! may leave; [`check`] opens a machine's store and holds it against both.
//!
//! Invariants:
//! 1. What an open showed is a commit of its own in the history, acknowledged as durable: it must
//!    not be lost again, and what it did not show must not come back.

use std::collections::BTreeMap;
use std::sync::Arc;

use happystore::vfs::Vfs;
use happystore::vfs::sim::{CrashPoint, OrderRules, Plant, Random, World};
use happystore::{Access, Compaction, Durability, ErrorKind, Options, Raw, Store, TxOptions};

/// The keys of all workloads. The lengths of some are multiples of four, so that records inside
/// of values lie where records may lie.
pub(crate) const KEYS: [&[u8]; 5] = [b"", b"a", b"key1", b"key2", b"longer/key/0"];

/// What a store holds.
pub(crate) type Model = BTreeMap<Vec<u8>, Arc<[u8]>>;

/// A store of bytes.
pub(crate) type Bytes = Store<Raw, [u8]>;

/// How the machines of a run differ from others.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Setup {
    pub(crate) segment_bytes: u64,
    /// Whether the store is compacted in the background.
    pub(crate) is_compacted: bool,
    pub(crate) plant: Option<Plant>,
}

impl Setup {
    /// Opens the store, as `process`.
    pub(crate) fn open(self, process: Arc<dyn Vfs>) -> happystore::Result<Bytes> {
        self.open_for(Access::Shared, process)
    }

    pub(crate) fn open_for(
        self,
        access: Access,
        process: Arc<dyn Vfs>,
    ) -> happystore::Result<Bytes> {
        let options = Options::new().serializer(Raw).byte_keys().access(access);
        let compaction = if self.is_compacted {
            Compaction::automatic().dead_bytes(0)
        } else {
            Compaction::manual()
        };
        options
            .segment_bytes(self.segment_bytes)
            .compaction(compaction)
            .vfs(process)
            .open("/s")
    }

    /// Makes `world` a machine of this run.
    pub(crate) fn prepare(self, world: World) -> World {
        if let Some(plant) = self.plant {
            world.plant(plant);
        }
        world
    }
}

/// The model's state after every commit; the commit's mark is its index.
#[derive(Debug, Clone)]
pub(crate) struct History {
    shared: Arc<Vec<Arc<Model>>>,
    own: Vec<Arc<Model>>,
}

impl History {
    /// Nothing was ever committed.
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::new(vec![Arc::default()]),
            own: Vec::new(),
        }
    }

    /// The newest state.
    pub(crate) fn last(&self) -> &Arc<Model> {
        self.own.last().or(self.shared.last()).unwrap()
    }

    /// Adds a state; gives its mark.
    pub(crate) fn push(&mut self, state: Arc<Model>) -> u64 {
        self.own.push(state);
        self.len() - 1
    }

    /// How many states there are: the next one's mark.
    pub(crate) fn len(&self) -> u64 {
        (self.shared.len() + self.own.len()) as u64
    }

    /// Makes clones cheap from here on.
    pub(crate) fn freeze(&mut self) {
        Arc::make_mut(&mut self.shared).append(&mut self.own);
    }

    /// The state after commit `mark`.
    pub(crate) fn get(&self, mark: u64) -> &Arc<Model> {
        let mark = usize::try_from(mark).unwrap();
        self.shared
            .get(mark)
            .unwrap_or_else(|| &self.own[mark - self.shared.len()])
    }
}

/// Which commits may be the last that a crash left.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Bounds {
    low: u64,
    high: u64,
    /// Whether the machine has stayed on since.
    is_killed: bool,
}

impl Bounds {
    /// After a power cut at `point` of a machine that started within these bounds.
    pub(crate) fn cut(self, point: &CrashPoint) -> Self {
        self.raised(point.last_durable_ack, point.last_begin, false)
    }

    /// After the death of all processes at `point`.
    pub(crate) fn killed(self, point: &CrashPoint) -> Self {
        self.raised(point.last_ack, point.last_begin, true)
    }

    fn raised(self, low: Option<u64>, high: Option<u64>, is_killed: bool) -> Self {
        Self {
            is_killed,
            low: self.low.max(low.unwrap_or(0)),
            high: self.high.max(high.unwrap_or(0)),
        }
    }
}

/// A value that no other commit writes.
pub(crate) fn value(mark: u64, len_bytes: usize) -> Arc<[u8]> {
    let mut random = Random::stream(mark, len_bytes as u64);
    let mut bytes = Vec::with_capacity(len_bytes + 8);
    while bytes.len() < len_bytes {
        bytes.extend_from_slice(&random.bits().to_le_bytes());
    }
    bytes.truncate(len_bytes);
    bytes.into()
}

/// Changes that share their longest value, and with it whole sectors, with all others of their
/// kind: where one is torn and another one torn in its place, both halves may fit.
pub(crate) fn twin(mark: u64) -> [(&'static [u8], Arc<[u8]>); 2] {
    [(KEYS[1], value(mark, 40)), (KEYS[2], value(0, 1400))]
}

/// Everything in `store`, with every way to read it saying the same.
pub(crate) fn contents(store: &Bytes) -> Result<Model, String> {
    let told = |error: happystore::Error| format!("reading: {error}");
    let forwards: Vec<(Vec<u8>, Vec<u8>)> = store
        .scan()
        .iter()
        .map_err(told)?
        .collect::<Result<_, _>>()
        .map_err(told)?;
    let mut backwards: Vec<(Vec<u8>, Vec<u8>)> = store.query().reverse().pairs().map_err(told)?;
    backwards.reverse();
    if forwards != backwards {
        return Err("backwards is not forwards reversed".to_owned());
    }
    if store.stats().map_err(told)?.keys != forwards.len() as u64 {
        return Err("the count of keys is not the number of keys".to_owned());
    }
    let found: Model = forwards
        .into_iter()
        .map(|(key, value)| (key, value.into()))
        .collect();
    for key in KEYS {
        let got: Option<Vec<u8>> = store.get(key).map_err(told)?;
        if got.as_deref() != found.get(key).map(|value| &**value) {
            return Err(format!("get and scan differ at {key:?}"));
        }
    }
    store
        .verify()
        .map_err(|error| format!("verifying: {error}"))?;
    Ok(found)
}

/// A store that a crash left, open.
pub(crate) struct Recovered {
    pub(crate) process: Arc<dyn Vfs>,
    pub(crate) store: Bytes,
    /// The commit after which it stands.
    mark: u64,
}

/// Opens the store of `world` in a new process: it must hold a state within `bounds`. From then
/// on that state is durable.
pub(crate) fn recover(
    world: &World,
    setup: Setup,
    bounds: Bounds,
    history: &mut History,
) -> Result<Recovered, String> {
    let process = world.process();
    let store = setup
        .open(process.clone())
        .map_err(|error| format!("opening: {error}"))?;
    let found = contents(&store)?;
    let mut allowed = (bounds.low..=bounds.high).rev();
    let Some(mark) = allowed.find(|&mark| **history.get(mark) == found) else {
        let other = (0..bounds.low)
            .rev()
            .find(|&mark| **history.get(mark) == found);
        let found = found
            .iter()
            .map(|(key, value)| (String::from_utf8_lossy(key), value.len()));
        let found: Vec<_> = found.collect();
        return Err(format!(
            "no state of {bounds:?} was recovered but {other:?}, with key and value lengths {found:?}"
        ));
    };
    let state = history.get(mark).clone();
    let shown = history.push(state);
    world.begin(shown);
    world.acknowledge(shown, true);
    Ok(Recovered {
        process,
        store,
        mark,
    })
}

/// What a process that may only read shows of the store of `world`; nothing where there is none.
fn read_only(world: &World, setup: Setup, bounds: Bounds) -> Result<Model, String> {
    match setup.open_for(Access::ReadOnly, world.process()) {
        Ok(store) => contents(&store),
        Err(error) if error.kind() == ErrorKind::NotFound && bounds.low == 0 => Ok(Model::new()),
        Err(error) => Err(format!("opening for reading: {error}")),
    }
}

/// The order that a store keeps, with what its manifest lists.
pub(crate) fn rules() -> OrderRules {
    let listed_ids = |manifest: &[u8]| -> Vec<u32> {
        let name_bytes = usize::from(manifest.get(49).copied().unwrap_or(0));
        let list = manifest.get(60 + name_bytes..manifest.len().saturating_sub(4));
        let ids = list.unwrap_or_default().chunks_exact(32);
        ids.map(|entry| u32::from_le_bytes([entry[0], entry[1], entry[2], entry[3]]))
            .collect()
    };
    OrderRules {
        lists: Some(Box::new(move |manifest, name| {
            let id = name.strip_suffix(".seg").and_then(|id| id.parse().ok());
            id.is_some_and(|id: u32| listed_ids(manifest).contains(&id))
        })),
        ..OrderRules::default()
    }
}

/// Checks the store of `world`: what it holds, that it takes commits, that it reopens with them.
/// `random` decides what is committed.
pub(crate) fn check(
    world: &World,
    setup: Setup,
    bounds: Bounds,
    history: &mut History,
    random: &mut Random,
) -> Result<(), String> {
    let before = match random.below(8) {
        0 => Some(read_only(world, setup, bounds)?),
        _ => None,
    };
    let Recovered { store, mark, .. } = recover(world, setup, bounds, history)?;
    // As long as the machine stays on, who only reads sees what those who died have published; a
    // writer also finds what they had appended behind that.
    let oldest = if bounds.is_killed { bounds.low } else { mark };
    let is_published = |before: &Model| (oldest..=mark).any(|mark| **history.get(mark) == *before);
    if before.is_some_and(|before| !is_published(&before)) {
        return Err("who only reads sees something else".to_owned());
    }
    let lines_up = random.coin();
    let steps = 1 + random.below(3);
    for step in 0..steps {
        let lost = mark + 1 + step;
        let lost = if lines_up && lost <= bounds.high {
            like(history.get(lost - 1), history.get(lost), random)
        } else {
            Vec::new()
        };
        let pairs = if lost.is_empty() { any(random) } else { lost };
        let durability = if step + 1 < steps && random.coin() {
            Durability::Os
        } else {
            Durability::Sync
        };
        go_on(world, &store, &pairs, durability, history)
            .map_err(|error| format!("going on: {error}"))?;
    }
    let last = history.last().clone();
    store.close().map_err(|error| format!("closing: {error}"))?;
    let store = setup
        .open(world.process())
        .map_err(|error| format!("opening again: {error}"))?;
    let found: Result<Vec<(Vec<u8>, Vec<u8>)>, _> = store.query().pairs();
    let found = found.map_err(|error| format!("reading again: {error}"))?;
    let same = found.len() == last.len()
        && found
            .iter()
            .zip(last.iter())
            .all(|(a, b)| a.0 == *b.0 && *a.1 == **b.1);
    if same {
        Ok(())
    } else {
        Err("closed and opened again, it holds something else".to_owned())
    }
}

/// Something to set.
fn any(random: &mut Random) -> Vec<(Vec<u8>, Arc<[u8]>)> {
    let len_bytes = [40, 40, 40, 200][random.index(4)];
    vec![(
        KEYS[random.index(KEYS.len())].to_vec(),
        value(random.bits(), len_bytes),
    )]
}

/// What one commit set, with other values of the same lengths, but for those longer than a
/// sector: so that old records line up with new ones, and halves of them fit together.
fn like(before: &Model, after: &Model, random: &mut Random) -> Vec<(Vec<u8>, Arc<[u8]>)> {
    let changed = after
        .iter()
        .filter(|(key, value)| before.get(*key) != Some(value));
    let other = |value_before: &Arc<[u8]>, random: &mut Random| match value_before.len() {
        0..512 => value(random.bits(), value_before.len()),
        512.. => value_before.clone(),
    };
    changed
        .map(|(key, value)| (key.clone(), other(value, random)))
        .collect()
}

/// Commits `pairs`.
fn go_on(
    world: &World,
    store: &Bytes,
    pairs: &[(Vec<u8>, Arc<[u8]>)],
    durability: Durability,
    history: &mut History,
) -> happystore::Result<()> {
    let mut state = (**history.last()).clone();
    state.extend(pairs.iter().cloned());
    let mark = history.push(state.into());
    world.begin(mark);
    let tx = store.begin_with(&TxOptions::new().durability(durability))?;
    pairs
        .iter()
        .try_for_each(|(key, value)| tx.set(key, &**value))?;
    tx.commit()?;
    world.acknowledge(mark, durability == Durability::Sync);
    Ok(())
}

/// Whether there is a segment that compaction has made, as its header says.
pub(crate) fn has_moved_entries(world: &World) -> bool {
    let image = world.image_now();
    let mut segments = image.list("/s").into_iter();
    segments.any(|name| {
        let bytes = image.read(format!("/s/{name}"));
        bytes.is_some_and(|bytes| bytes.starts_with(b"hpystore") && bytes.get(48) == Some(&1))
    })
}
