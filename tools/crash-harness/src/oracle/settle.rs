//! Comparing a content with a history, and settling what was begun and not acknowledged.

use std::collections::{BTreeMap, BTreeSet};

use super::{Broken, History, InFlight};
use crate::work::model::Content;
use crate::work::{COUNTER, Fate, Id, Operation, Value, order_key, own_prefix};

/// What the keys begin with that the parent writes.
pub(super) const PARENT: &str = "parent/";

impl History {
    /// Compares `found` with what must be there, and takes what was open as it is found.
    ///
    /// # Errors
    /// The first difference.
    pub(super) fn settle(&mut self, found: &Content) -> Result<(), Broken> {
        let mut rest = found.clone();
        let seen = std::mem::take(&mut self.seen);
        let is_shared = |key: &str| !key.starts_with("own/") && !key.starts_with(PARENT);
        self.settle_shared(&take_part(&mut rest, is_shared))?;
        for number in self.writers.keys().copied().collect::<Vec<_>>() {
            let prefix = own_prefix(number);
            let own = take_part(&mut rest, |key| key.starts_with(&prefix));
            self.settle_own(number, &own, &seen)?;
        }
        let parent = take_part(&mut rest, |key| key.starts_with(PARENT));
        compare("the parent", &parent, &self.parent, None)?;
        if let Some(key) = rest.keys().next() {
            return Broken::new(format!("{key} is there, and nobody ever wrote it"));
        }
        self.check_seen_shared(&seen)?;
        for writer in self.writers.values_mut() {
            // What is not there now was never committed, and must not come later.
            if writer.in_flight.take().is_some() {
                self.checked.found_absent += 1;
            }
        }
        self.checked.keys += found.len() as u64;
        Ok(())
    }

    /// The keys of one writer are as after its last acknowledged operation, or one more.
    fn settle_own(&mut self, number: u8, found: &Content, seen: &[Id]) -> Result<(), Broken> {
        let who = format!("writer {number}");
        let Some(writer) = self.writers.get_mut(&number) else {
            return Ok(());
        };
        let open = |in_flight: &&mut InFlight| !in_flight.operation.is_shared;
        let Some(in_flight) = writer.in_flight.as_mut().filter(open) else {
            return compare(&who, found, writer.own.content(), None);
        };
        let operation = in_flight.operation.clone();
        let mut with = writer.own.clone();
        with.apply(&operation, 0);
        if found != with.content() || found == writer.own.content() {
            compare(&who, found, writer.own.content(), Some(with.content()))?;
            if seen.contains(&operation.id) && with.content() != writer.own.content() {
                return Broken::new(format!(
                    "a reader has seen {}, which is not there any more",
                    operation.id
                ));
            }
            return Ok(());
        }
        writer.own = with;
        writer.in_flight = None;
        self.checked.found_whole += 1;
        Ok(())
    }

    /// The shared keys are as after all operations in their order.
    fn settle_shared(&mut self, found: &Content) -> Result<(), Broken> {
        let last = found.get(COUNTER).map_or(0, |(_, position, _)| *position);
        if let Some((position, (id, _))) = self.acked.last_key_value()
            && *position > last
        {
            return Broken::new(format!(
                "the acknowledged commit of {id} at position {position} is lost: the order ends at {last}"
            ));
        }
        for position in self.settled + 1..=last {
            let acked = self.acked.remove(&position);
            let (operation, said) = match acked {
                Some((id, found)) => (Operation::new(self.seed, id), Some(found)),
                None => (
                    self.take_open(position, found.get(&order_key(position)))?,
                    None,
                ),
            };
            let deleted = self.shared.apply(&operation, position);
            if said.is_some_and(|said| said != deleted) {
                let id = operation.id;
                let what = format!("{id} at {position} found {said:?} keys, not {deleted}");
                return Broken::new(what);
            }
            self.settled = position;
            self.sights.settled(position, operation.id)?;
        }
        self.sights.end(last)?;
        compare("the shared keys", found, self.shared.content(), None)
    }

    /// The operation that is found at `position` and was begun, but never acknowledged.
    fn take_open(&mut self, position: u64, found: Option<&Value>) -> Result<Operation, Broken> {
        let Some(id) = found.and_then(|value| Id::from_bits(value.0)) else {
            return Broken::new(format!("nothing says what came at position {position}"));
        };
        let open = |in_flight: &mut InFlight| {
            let operation = &in_flight.operation;
            let fits = operation.id == id && operation.is_shared && position > in_flight.behind;
            fits && operation.fate == Fate::Commit
        };
        let writer = self.writers.get_mut(&id.writer);
        match writer.and_then(|writer| writer.in_flight.take_if(open)) {
            Some(in_flight) => {
                self.checked.found_whole += 1;
                Ok(in_flight.operation)
            }
            None => Broken::new(format!(
                "{id} is at position {position}, and was not begun, or not there"
            )),
        }
    }

    /// A shared operation that a reader has seen is not open any more: it was found.
    fn check_seen_shared(&self, seen: &[Id]) -> Result<(), Broken> {
        let open = |in_flight: &&InFlight| {
            in_flight.operation.is_shared && seen.contains(&in_flight.operation.id)
        };
        let mut open_ones = self.writers.values().filter_map(|w| w.in_flight.as_ref());
        match open_ones.find(open) {
            None => Ok(()),
            Some(in_flight) => Broken::new(format!(
                "a reader has seen {}, which is not there any more",
                in_flight.operation.id
            )),
        }
    }
}

fn take_part(rest: &mut Content, belongs: impl Fn(&str) -> bool) -> Content {
    let (part, other) = std::mem::take(rest)
        .into_iter()
        .partition(|(key, _)| belongs(key));
    *rest = other;
    part
}

/// Names the first key at which `found` is neither as `before` nor as `after` the operation that
/// is open, and what that breaks.
fn compare(
    who: &str,
    found: &Content,
    before: &Content,
    after: Option<&Content>,
) -> Result<(), Broken> {
    if found == before {
        return Ok(());
    }
    let keys: BTreeSet<&String> = found.keys().chain(before.keys()).collect();
    for key in keys {
        let (now, then) = (found.get(key), before.get(key));
        let later = after.map_or(then, |after| after.get(key));
        if now == then || now == later {
            continue;
        }
        let what = match (now, then, later) {
            (None, Some(_), Some(_)) => "an acknowledged commit is lost",
            (Some(_), None, None) => "a deleted key is back, or one that was never begun is there",
            (Some(now), Some(then), _) if now.0 < then.0 => {
                "an acknowledged commit is lost, and an older one shows"
            }
            _ => "the value is of no commit",
        };
        let (now, then, later) = (shown(now), shown(then), shown(later));
        return Broken::new(format!(
            "{who}: {what}: {key} is {now}; it was acknowledged as {then}, and in flight as {later}"
        ));
    }
    Broken::new(format!(
        "{who}: a batch is there in part: {}",
        parts(found, before, after.unwrap_or(before))
    ))
}

/// Which keys of a batch are there, and which are not.
fn parts(found: &Content, before: &Content, after: &Content) -> String {
    let mut lists: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let keys: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    for key in keys {
        let (then, later) = (before.get(key), after.get(key));
        if then != later {
            let there = found.get(key) == later;
            let name = if there { "changed" } else { "not changed" };
            lists.entry(name).or_default().push(key);
        }
    }
    format!("{lists:?}")
}

fn shown(value: Option<&Value>) -> String {
    match value {
        None => "missing".to_owned(),
        Some((bits, position, filler)) => {
            let id = Id::from_bits(*bits).map_or_else(|| "nobody".to_owned(), |id| id.to_string());
            format!("of {id} at {position} with {} letters", filler.len())
        }
    }
}

#[cfg(test)]
mod tests;
