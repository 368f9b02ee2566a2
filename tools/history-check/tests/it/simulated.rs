//! Right histories, of a serial store whose transactions seem to overlap.

use std::collections::BTreeMap;
use std::ops::Bound;

use fastrand::Rng;
use happystore_history_check::checker::check;
use happystore_history_check::history::{
    CLOCK, Claim, Id, NEVER, Operation, Outcome, Selection, Transaction,
};

/// Between the moments of two transactions.
pub(crate) const STEP_NS: u64 = 1000;

type Map = BTreeMap<String, String>;

/// A history and what is in the store behind it.
#[derive(Clone)]
pub(crate) struct Case {
    pub(crate) history: Vec<Transaction<'static>>,
    pub(crate) content: Vec<(String, String)>,
    /// The position of the last writer, and who it was.
    pub(crate) last: Option<Claim>,
    /// When everything has ended.
    pub(crate) now: u64,
}

/// Makes transactions, one after the other.
struct World {
    random: Rng,
    map: Map,
    last: Option<Claim>,
    history: Vec<Transaction<'static>>,
    values: u32,
}

/// A history of so many transactions that follows from `seed`.
pub(crate) fn history(seed: u64, count: usize) -> Case {
    let mut world = World {
        random: Rng::with_seed(seed),
        map: Map::new(),
        last: None,
        history: Vec::new(),
        values: 0,
    };
    for _ in 0..count {
        match world.random.u8(..10) {
            0..=5 => world.writer(),
            6 => world.snapshot(),
            7 => world.query(),
            _ => world.plain(),
        }
    }
    Case {
        now: (world.history.len() as u64 + 10) * STEP_NS,
        history: world.history,
        content: world.map.into_iter().collect(),
        last: world.last,
    }
}

pub(crate) fn get(key: &str, value: Option<&str>) -> Operation<'static> {
    Operation::Get {
        key: key.to_owned().into(),
        value: value.map(|value| value.to_owned().into()),
    }
}

pub(crate) fn set(key: &str, value: &str) -> Operation<'static> {
    Operation::Set {
        key: key.to_owned().into(),
        value: value.to_owned().into(),
    }
}

/// What the clock says behind `last`.
pub(crate) fn clock(last: Option<Claim>) -> Operation<'static> {
    get(CLOCK, last.map(|claim| claim.to_string()).as_deref())
}

pub(crate) fn claim(last: Option<Claim>, author: Id) -> Claim {
    Claim {
        position: last.map_or(0, |claim| claim.position) + 1,
        author,
    }
}

/// The answer of a map to a query, found without a range of the standard library.
fn select(map: &Map, selection: &Selection<'_>) -> Vec<(String, String)> {
    let above = |key: &str| match &selection.low {
        Bound::Included(low) => key >= low.as_ref(),
        Bound::Excluded(low) => key > low.as_ref(),
        Bound::Unbounded => true,
    };
    let below = |key: &str| match &selection.high {
        Bound::Included(high) => key <= high.as_ref(),
        Bound::Excluded(high) => key < high.as_ref(),
        Bound::Unbounded => true,
    };
    let mut pairs: Vec<_> = map
        .iter()
        .filter(|(key, _)| above(key) && below(key))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    if selection.reverse {
        pairs.reverse();
    }
    pairs.truncate(selection.limit.unwrap_or(usize::MAX));
    pairs
}

impl World {
    fn id(&self) -> Id {
        Id {
            process: 0,
            thread: 0,
            number: u32::try_from(self.history.len()).unwrap(),
        }
    }

    fn push(&mut self, kind: char, outcome: Outcome, operations: Vec<Operation<'static>>) {
        let id = self.id();
        let moment = (self.history.len() as u64 + 3) * STEP_NS;
        let end = match outcome {
            Outcome::Unknown => NEVER,
            _ => moment + self.random.u64(..3 * STEP_NS),
        };
        self.history.push(Transaction {
            id,
            kind,
            begin: moment - self.random.u64(..3 * STEP_NS),
            end,
            outcome,
            operations,
        });
    }

    fn key(&mut self) -> String {
        let number = self.random.u8(..12);
        let family = if self.random.bool() { "hot" } else { "cell" };
        format!("{family}/{number:02}")
    }

    fn selection(&mut self) -> Selection<'static> {
        let (low, high) = (self.key(), self.key());
        let end = |random: &mut Rng, key: String| match random.u8(..5) {
            0 => Bound::Unbounded,
            1 | 2 => Bound::Excluded(key.into()),
            _ => Bound::Included(key.into()),
        };
        Selection {
            low: end(&mut self.random, low),
            high: end(&mut self.random, high),
            reverse: self.random.bool(),
            limit: self.random.bool().then(|| self.random.usize(..6)),
        }
    }

    /// Something to read, answered from `map`.
    fn read(&mut self, map: &Map) -> Operation<'static> {
        let (key, selection) = (self.key(), self.selection());
        let selected = select(map, &selection);
        match self.random.u8(..10) {
            0 => Operation::Has {
                there: map.contains_key(&key),
                key: key.into(),
            },
            1 | 2 => Operation::Pairs {
                selection,
                pairs: selected
                    .into_iter()
                    .map(|(key, value)| (key.into(), value.into()))
                    .collect(),
            },
            3 => Operation::Keys {
                selection,
                keys: selected.into_iter().map(|(key, _)| key.into()).collect(),
            },
            4 => Operation::Count {
                selection,
                count: selected.len() as u64,
            },
            _ => get(&key, map.get(&key).map(String::as_str)),
        }
    }

    /// Something to do, done to `map`.
    fn change(&mut self, map: &mut Map) -> Operation<'static> {
        let key = self.key();
        match self.random.u8(..8) {
            0 => {
                let mut selection = self.selection();
                // The clock is left alone.
                selection.low = Bound::Included("hot/".into());
                let selected = select(map, &selection);
                for (key, _) in &selected {
                    map.remove(key);
                }
                Operation::DeleteRange {
                    selection,
                    count: selected.len() as u64,
                }
            }
            1 | 2 => Operation::Delete {
                there: map.remove(&key).is_some(),
                key: key.into(),
            },
            _ => {
                // No value is written twice, so that a wrong one is surely wrong.
                self.values += 1;
                let value = format!("v{}", self.values);
                map.insert(key.clone(), value.clone());
                set(&key, &value)
            }
        }
    }

    fn writer(&mut self) {
        let own = claim(self.last, self.id());
        let mut operations = vec![clock(self.last), set(CLOCK, &own.to_string())];
        let mut levels = vec![self.map.clone()];
        levels[0].insert(CLOCK.to_owned(), own.to_string());
        for _ in 0..self.random.usize(1..10) {
            let depth = levels.len() - 1;
            match self.random.u8(..10) {
                0 if depth < 4 => {
                    levels.push(levels[depth].clone());
                    operations.push(Operation::Begin);
                }
                1 if depth > 0 => self.end_level(&mut levels, &mut operations),
                2..=4 => operations.push(self.read(&levels[depth])),
                _ => operations.push(self.change(levels.last_mut().unwrap())),
            }
        }
        while levels.len() > 1 {
            self.end_level(&mut levels, &mut operations);
        }
        let (outcome, is_there) = match self.random.u8(..10) {
            0 => (Outcome::Unknown, self.random.bool()),
            1 | 2 => (Outcome::Aborted, false),
            _ => (Outcome::Committed, true),
        };
        self.push('w', outcome, operations);
        if is_there {
            self.map = levels.swap_remove(0);
            self.last = Some(own);
        }
    }

    fn end_level(&mut self, levels: &mut Vec<Map>, operations: &mut Vec<Operation<'static>>) {
        let inner = levels.pop().unwrap();
        if self.random.bool() {
            *levels.last_mut().unwrap() = inner;
            operations.push(Operation::Commit);
        } else {
            operations.push(Operation::Abort);
        }
    }

    fn snapshot(&mut self) {
        let map = self.map.clone();
        let mut operations = vec![clock(self.last)];
        for _ in 0..self.random.usize(1..5) {
            operations.push(self.read(&map));
        }
        self.push('s', Outcome::Committed, operations);
    }

    /// A query on the store, which finds the clock behind the cells.
    fn query(&mut self) {
        let number = self.random.u8(..12);
        let selection = Selection {
            low: Bound::Included(format!("cell/{number:02}").into()),
            high: Bound::Included(CLOCK.into()),
            reverse: self.random.bool(),
            limit: None,
        };
        let pairs = select(&self.map, &selection);
        if pairs.iter().any(|(key, _)| key == CLOCK) {
            let pairs = pairs
                .into_iter()
                .map(|(key, value)| (key.into(), value.into()))
                .collect();
            let operation = Operation::Pairs { selection, pairs };
            self.push('q', Outcome::Committed, vec![operation]);
        }
    }

    fn plain(&mut self) {
        let key = self.key();
        let value = self.map.get(&key).cloned();
        let operation = if self.random.u8(..4) == 0 {
            Operation::Has {
                there: value.is_some(),
                key: key.into(),
            }
        } else {
            get(&key, value.as_deref())
        };
        self.push('g', Outcome::Committed, vec![operation]);
    }
}

#[test]
fn right_histories_are_accepted_and_counted() {
    let mut sum = [0; 6];
    for seed in 0..200 {
        let mut case = history(seed, 200);
        // The order in which they are handed in means nothing.
        Rng::with_seed(seed).shuffle(&mut case.history);
        let checked = check(&case.history, &case.content)
            .unwrap_or_else(|violation| panic!("seed {seed}: {violation}"));
        let all = checked.writers + checked.readers + checked.plain_reads;
        assert_eq!(all, case.history.len() as u64, "seed {seed}");
        assert_eq!(checked.writers, case.last.map_or(0, |claim| claim.position));
        let counts = [
            checked.writers,
            checked.readers,
            checked.plain_reads,
            checked.shown,
            checked.unknown_there,
            checked.unknown_absent,
        ];
        for (sum, count) in sum.iter_mut().zip(counts) {
            *sum += count;
        }
    }
    assert!(sum.iter().all(|&count| count > 500), "{sum:?}");
}

#[test]
fn nothing_done_is_a_right_history() {
    assert_eq!(
        check(&[], &[]),
        Ok(happystore_history_check::checker::Checked::default())
    );
}
