//! Small histories, judged by trying all orders that there are.

use fastrand::Rng;
use happystore_history_check::checker::{Violation, check};
use happystore_history_check::history::{CLOCK, Claim, Id, Operation, Outcome, Transaction};

use crate::simulated::{claim, clock, get, set};

const KEYS: [&str; 2] = ["a", "b"];

/// Writers, a snapshot and single reads at random times, and reads that have seen whatever.
struct Small {
    history: Vec<Transaction<'static>>,
    content: Vec<(String, String)>,
    /// Behind each position, what the keys hold.
    states: Vec<[Option<String>; 2]>,
    /// The places (twice the position, one more for readers) of those that claim one.
    fixed: Vec<Option<u64>>,
}

fn small(random: &mut Rng) -> Small {
    let mut last: Option<Claim> = None;
    let mut states = vec![[None, None]];
    let (mut history, mut fixed) = (Vec::new(), Vec::new());
    let mut push = |random: &mut Rng, place: Option<u64>, operations| {
        let id = Id {
            process: 0,
            thread: 0,
            number: u32::try_from(history.len()).unwrap(),
        };
        let near = place.map_or_else(|| random.u64(..12), |place| place * 2);
        let begin = near + random.u64(..8);
        history.push(Transaction {
            id,
            kind: 'x',
            begin,
            end: begin + random.u64(..8),
            outcome: Outcome::Committed,
            operations,
        });
        fixed.push(place);
        id
    };
    let mut clocks = vec![clock(None)];
    for position in 1..=3 {
        let key = random.usize(..2);
        // Few values, so that they come again.
        let value = random.bool().then(|| random.u8(..2).to_string());
        let change = match &value {
            Some(value) => set(KEYS[key], value),
            None => Operation::Delete {
                key: KEYS[key].into(),
                there: states[position - 1][key].is_some(),
            },
        };
        let author = Id {
            process: 0,
            thread: 0,
            number: u32::try_from(position - 1).unwrap(),
        };
        let own = claim(last, author);
        let operations = vec![clock(last), set(CLOCK, &own.to_string()), change];
        push(random, Some(2 * position as u64), operations);
        let mut state = states[position - 1].clone();
        state[key] = value;
        states.push(state);
        last = Some(own);
        clocks.push(clock(last));
    }
    let at = random.usize(..4);
    push(
        random,
        Some(2 * at as u64 + 1),
        vec![clocks.swap_remove(at)],
    );
    for _ in 0..3 {
        let key = random.usize(..2);
        let seen = states[random.usize(..4)][key].clone();
        let read = if random.bool() {
            get(KEYS[key], seen.as_deref())
        } else {
            Operation::Has {
                key: KEYS[key].into(),
                there: seen.is_some(),
            }
        };
        push(random, None, vec![read]);
    }
    let end = states[3].iter().zip(KEYS);
    let mut content: Vec<_> = end
        .filter_map(|(value, key)| Some((key.to_owned(), value.clone()?)))
        .collect();
    content.push((CLOCK.to_owned(), last.unwrap().to_string()));
    Small {
        history,
        content,
        states,
        fixed,
    }
}

impl Small {
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
    let mut random = Rng::with_seed(7);
    let (mut right, mut nowhere, mut real_time) = (0, 0, 0);
    for round in 0..20_000 {
        let small = small(&mut random);
        let verdict = check(&small.history, &small.content);
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
