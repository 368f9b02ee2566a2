//! Small histories, judged by trying all orders that there are.

use fastrand::Rng;
use happystore_history_check::checker::{Violation, check};
use happystore_history_check::history::{CLOCK, Claim, Id, Operation, Outcome, Transaction};

use crate::simulated::{claim, clock, get, set};

const KEYS: [&str; 2] = ["a", "b"];

/// Writers, a snapshot and single reads at random times, and reads that have seen whatever.
struct Small {
    random: Rng,
    history: Vec<Transaction<'static>>,
    /// Behind each position, what the keys hold, and the clock.
    states: Vec<[Option<String>; 2]>,
    clocks: Vec<Option<Claim>>,
    /// The places (twice the position, one more for readers) of those that claim one.
    fixed: Vec<Option<u64>>,
}

impl Small {
    fn new(random: Rng) -> Self {
        let mut small = Self {
            random,
            history: Vec::new(),
            states: vec![[None, None]],
            clocks: vec![None],
            fixed: Vec::new(),
        };
        for position in 1..=3 {
            small.add_writer(position);
        }
        let at = small.random.usize(..4);
        let snapshot = clock(small.clocks[at]);
        small.push(Some(2 * at as u64 + 1), vec![snapshot]);
        for _ in 0..3 {
            small.add_read();
        }
        small
    }

    fn id(&self) -> Id {
        Id {
            process: 0,
            thread: 0,
            number: u32::try_from(self.history.len()).unwrap(),
        }
    }

    /// Adds a transaction at a time near its place, which is right now and then.
    fn push(&mut self, place: Option<u64>, operations: Vec<Operation<'static>>) {
        let near = place.map_or_else(|| self.random.u64(..12), |place| place * 2);
        let begin = near + self.random.u64(..8);
        self.history.push(Transaction {
            id: self.id(),
            kind: 'x',
            begin,
            end: begin + self.random.u64(..8),
            outcome: Outcome::Committed,
            operations,
        });
        self.fixed.push(place);
    }

    fn add_writer(&mut self, position: u64) {
        let key = self.random.usize(..2);
        let mut state = self.states.last().unwrap().clone();
        // Few values, so that they come again.
        let value = self.random.bool().then(|| self.random.u8(..2).to_string());
        let change = match &value {
            Some(value) => set(KEYS[key], value),
            None => Operation::Delete {
                key: KEYS[key].into(),
                there: state[key].is_some(),
            },
        };
        let before = *self.clocks.last().unwrap();
        let own = claim(before, self.id());
        let operations = vec![clock(before), set(CLOCK, &own.to_string()), change];
        self.push(Some(2 * position), operations);
        state[key] = value;
        self.states.push(state);
        self.clocks.push(Some(own));
    }

    fn add_read(&mut self) {
        let key = self.random.usize(..2);
        let seen = self.states[self.random.usize(..4)][key].clone();
        let read = if self.random.bool() {
            get(KEYS[key], seen.as_deref())
        } else {
            Operation::Has {
                key: KEYS[key].into(),
                there: seen.is_some(),
            }
        };
        self.push(None, vec![read]);
    }

    fn content(&self) -> Vec<(String, String)> {
        let [a, b] = self.states[3].clone();
        let clock = self.clocks[3].map(|claim| claim.to_string());
        let all = KEYS.into_iter().chain([CLOCK]).zip([a, b, clock]);
        all.filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect()
    }

    /// Whether there is an order at all, by trying each.
    fn has_order(&self) -> bool {
        let plain: Vec<usize> = (0..self.history.len())
            .filter(|&at| self.fixed[at].is_none())
            .collect();
        (0..4_usize.pow(u32::try_from(plain.len()).unwrap())).any(|assignment| {
            let mut places = self.fixed.clone();
            let mut rest = assignment;
            for &at in &plain {
                places[at] = Some(2 * (rest % 4) as u64 + 1);
                rest /= 4;
            }
            let places: Vec<u64> = places.into_iter().flatten().collect();
            plain.iter().all(|&at| self.sees_right(at, places[at])) && self.respects_time(&places)
        })
    }

    fn sees_right(&self, at: usize, place: u64) -> bool {
        let state = &self.states[usize::try_from(place / 2).unwrap()];
        let there = |key: &str| state[usize::from(key == KEYS[1])].as_deref();
        match &self.history[at].operations[0] {
            Operation::Get { key, value } => there(key) == value.as_deref(),
            Operation::Has { key, there: seen } => there(key).is_some() == *seen,
            _ => false,
        }
    }

    fn respects_time(&self, places: &[u64]) -> bool {
        let all = || self.history.iter().zip(places);
        all().all(|(a, place_a)| all().all(|(b, place_b)| a.end >= b.begin || place_a <= place_b))
    }
}

#[test]
fn small_histories_are_judged_as_by_trying_all_orders() {
    let (mut right, mut nowhere, mut real_time) = (0, 0, 0);
    for round in 0..20_000 {
        let small = Small::new(Rng::with_seed(round));
        let verdict = check(&small.history, &small.content());
        assert_eq!(
            verdict.is_ok(),
            small.has_order(),
            "round {round}: {verdict:?}, {:#?}",
            small.history
        );
        match verdict {
            Ok(_) => right += 1,
            Err(Violation::Nowhere { .. }) => nowhere += 1,
            Err(Violation::RealTime { .. }) => real_time += 1,
            Err(other) => panic!("round {round}: {other}"),
        }
    }
    assert!(
        right > 1000 && nowhere > 1000 && real_time > 1000,
        "{right} {nowhere} {real_time}"
    );
}
