//! What children that work beside each other have seen of the order of all commits.
//!
//! A child that looks has compared its snapshot with what the operations of its order make; here it
//! is compared with what the parent knows: nothing that was acknowledged before the look may be
//! missing in it, and what any of them has seen is the begin of the order that is found at last.

use std::collections::BTreeMap;

use super::{Broken, History};
use crate::protocol::Event;
use crate::work::{Id, chained};

/// All looks of all children.
#[derive(Debug, Default)]
pub(super) struct Sights {
    /// The chain at each position that is settled.
    chains: Vec<u64>,
    /// What was seen behind those.
    ahead: BTreeMap<u64, u64>,
    lookers: BTreeMap<u16, Looker>,
    /// The end of the order when the parent last said that what it has found is settled.
    settled_for_all: u64,
}

/// A child that looks.
#[derive(Debug, Default)]
struct Looker {
    /// What was acknowledged when its look began.
    floor: u64,
    /// What it saw last.
    position: u64,
}

impl History {
    /// Takes in what the child `life` has reported, which works beside others.
    ///
    /// # Errors
    /// As [`History::take`]; a look that cannot be right.
    pub(crate) fn take_from(&mut self, life: u16, event: &Event) -> Result<(), Broken> {
        match event {
            Event::Looking => {
                // What the parent has found since the last of those lines may be newer than the look.
                let acked = self.acked.last_key_value();
                let acked = acked.map_or(0, |(position, _)| *position);
                let floor = acked.max(self.sights.settled_for_all);
                self.sights.lookers.entry(life).or_default().floor = floor;
            }
            Event::Settled => self.sights.settled_for_all = self.settled,
            Event::Saw(position, chain) => {
                self.checked.looks += 1;
                self.sights.saw(life, *position, *chain)?;
            }
            _ => self.take(std::slice::from_ref(event))?,
        }
        Ok(())
    }
}

impl Sights {
    fn saw(&mut self, life: u16, position: u64, chain: u64) -> Result<(), Broken> {
        let looker = self.lookers.entry(life).or_default();
        let (floor, before) = (looker.floor, looker.position);
        looker.position = position;
        if position < floor {
            return Broken::new(format!(
                "child {life} saw the order up to {position}, when {floor} had been acknowledged"
            ));
        }
        if position < before {
            return Broken::new(format!(
                "child {life} saw the order up to {before}, and then up to {position}"
            ));
        }
        let known = self.chain(position);
        let known = known.unwrap_or_else(|| *self.ahead.entry(position).or_insert(chain));
        same(position, known, chain)
    }

    fn chain(&self, position: u64) -> Option<u64> {
        match usize::try_from(position).ok()?.checked_sub(1) {
            None => Some(0),
            Some(at) => self.chains.get(at).copied(),
        }
    }

    /// Takes in that `id` was found at `position`, which is the next.
    pub(super) fn settled(&mut self, position: u64, id: Id) -> Result<(), Broken> {
        let chain = chained(self.chains.last().copied().unwrap_or(0), id);
        self.chains.push(chain);
        match self.ahead.remove(&position) {
            Some(seen) => same(position, chain, seen),
            None => Ok(()),
        }
    }

    /// Takes in that the order ends at `last`.
    pub(super) fn end(&self, last: u64) -> Result<(), Broken> {
        match self.ahead.last_key_value() {
            Some((seen, _)) => Broken::new(format!(
                "a reader has seen the order up to {seen}, and it ends at {last}"
            )),
            None => Ok(()),
        }
    }
}

fn same(position: u64, one: u64, other: u64) -> Result<(), Broken> {
    if one == other {
        return Ok(());
    }
    Broken::new(format!(
        "two have seen different orders of the commits up to {position}"
    ))
}

#[cfg(test)]
mod tests {
    use super::History;
    use crate::protocol::Event;
    use crate::work::perform::Outcome;
    use crate::work::{Fate, Id, Operation, chained};

    const SEED: u64 = 4;

    /// A history with `count` acknowledged commits of an order, and their ids.
    fn ordered(count: u64) -> (History, Vec<Id>) {
        let mut history = History::new(SEED);
        let id = |number| Id {
            life: 1,
            writer: crate::work::TOGETHER,
            number,
        };
        let mut ids = Vec::new();
        for id in (0..1000).map(id) {
            let operation = Operation::new(SEED, id);
            if ids.len() as u64 == count {
                break;
            }
            if operation.fate == Fate::Commit {
                ids.push(id);
                let position = ids.len() as u64;
                let outcome = Outcome { found: 0, position };
                history.take_from(1, &Event::Begun(id)).unwrap();
                history.take_from(1, &Event::Acked(id, outcome)).unwrap();
            }
        }
        (history, ids)
    }

    fn chain(ids: &[Id]) -> u64 {
        ids.iter().fold(0, |chain, id| chained(chain, *id))
    }

    #[test]
    fn a_look_that_misses_what_was_acknowledged_before_is_refused() {
        let (mut history, ids) = ordered(5);
        history.take_from(2, &Event::Looking).unwrap();
        let all = Event::Saw(5, chain(&ids));
        history.take_from(2, &all).unwrap();
        let short = Event::Saw(4, chain(&ids[..4]));
        let refused = history.take_from(2, &short).unwrap_err();
        assert!(refused.0.contains("had been acknowledged"), "{}", refused.0);
        // One whose look began before may miss it.
        history.take_from(3, &short).unwrap();
    }

    #[test]
    fn a_look_that_goes_back_is_refused() {
        let (mut history, ids) = ordered(5);
        history.take_from(2, &Event::Saw(5, chain(&ids))).unwrap();
        let short = Event::Saw(4, chain(&ids[..4]));
        let refused = history.take_from(2, &short).unwrap_err();
        assert!(refused.0.contains("and then up to 4"), "{}", refused.0);
    }

    #[test]
    fn two_orders_are_refused_whoever_saw_them() {
        let (mut history, ids) = ordered(3);
        history.take_from(2, &Event::Saw(3, chain(&ids))).unwrap();
        let refused = history.take_from(3, &Event::Saw(3, 7)).unwrap_err();
        assert!(refused.0.contains("different orders"), "{}", refused.0);
        for (at, id) in ids.iter().enumerate() {
            history.sights.settled(at as u64 + 1, *id).unwrap();
        }
        let refused = history.take_from(4, &Event::Saw(2, 7)).unwrap_err();
        assert!(refused.0.contains("different orders"), "{}", refused.0);
    }

    #[test]
    fn what_was_seen_and_is_not_found_is_refused() {
        let (mut history, ids) = ordered(3);
        history.take_from(2, &Event::Saw(3, chain(&ids))).unwrap();
        history.sights.settled(1, ids[0]).unwrap();
        assert!(history.sights.end(1).is_err());
    }
}
