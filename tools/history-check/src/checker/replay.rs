//! Performs all transactions in their order on a map, and compares every answer.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Bound;

use super::witness::{Chain, Role};
use super::{Checked, Place, Violation};
use crate::history::{Id, Operation, Selection, Transaction};

/// The values of a key, each with the position from which on it was there.
pub(super) type Versions<'h> = HashMap<&'h str, Vec<(u64, Option<&'h str>)>>;

/// What a replay without a violation gives.
pub(super) struct Replayed<'h> {
    /// Answers, and what was shown.
    pub(super) checked: Checked,
    /// The versions of all keys that single reads have read.
    pub(super) versions: Versions<'h>,
}

/// Performs `history` and compares the end with `content`.
pub(super) fn run<'h>(
    history: &'h [Transaction<'_>],
    chain: &Chain,
    roles: &[Role],
    places: &[Option<Place>],
    content: &[(String, String)],
) -> Result<Replayed<'h>, Violation> {
    let mut order: Vec<(Place, usize)> = (0..history.len())
        .filter_map(|at| places[at].map(|place| (place, at)))
        .collect();
    order.sort_unstable();
    let mut state = State::default();
    let mut versions = watched(history, roles);
    let mut checked = Checked::default();
    for (place, at) in order {
        let transaction = &history[at];
        Step {
            state: &mut state,
            checked: &mut checked,
            id: transaction.id,
            position: place.position(),
        }
        .perform(&transaction.operations)?;
        if place.is_writer() {
            state.keep(place.position(), &mut versions);
        } else {
            state.undo_to(0);
        }
    }
    let author = chain.writers.last().map(|&at| history[at].id);
    state.compare(content, author)?;
    Ok(Replayed { checked, versions })
}

/// A list of versions, empty so far, for each key that single reads have read.
fn watched<'h>(history: &'h [Transaction<'_>], roles: &[Role]) -> Versions<'h> {
    let plain = (0..history.len()).filter(|&at| roles[at] == Role::Plain);
    let operations = plain.flat_map(|at| &history[at].operations);
    let keys: HashSet<&str> = operations
        .filter_map(|operation| match operation {
            Operation::Get { key, .. } | Operation::Has { key, .. } => Some(key.as_ref()),
            _ => None,
        })
        .collect();
    keys.into_iter().map(|key| (key, vec![(0, None)])).collect()
}

/// The content, and how to undo what the running transaction has changed.
#[derive(Default)]
struct State<'h> {
    map: BTreeMap<&'h str, &'h str>,
    undo: Vec<(&'h str, Option<&'h str>)>,
}

impl<'h> State<'h> {
    fn set(&mut self, key: &'h str, value: &'h str) {
        let old = self.map.insert(key, value);
        self.undo.push((key, old));
    }

    fn delete(&mut self, key: &'h str) -> bool {
        let old = self.map.remove(key);
        self.undo.extend(old.map(|old| (key, Some(old))));
        old.is_some()
    }

    fn undo_to(&mut self, mark: usize) {
        for (key, old) in self.undo.drain(mark..).rev() {
            match old {
                Some(old) => self.map.insert(key, old),
                None => self.map.remove(key),
            };
        }
    }

    /// Commits: notes the new versions of the keys that are watched.
    fn keep(&mut self, position: u64, versions: &mut Versions<'h>) {
        for (key, _) in self.undo.drain(..) {
            let Some(versions) = versions.get_mut(key) else {
                continue;
            };
            if versions.last().is_none_or(|(last, _)| *last != position) {
                versions.push((position, self.map.get(key).copied()));
            }
        }
    }

    /// The selected pairs, in the order asked for.
    fn select(&self, selection: &Selection<'_>) -> Vec<(&'h str, &'h str)> {
        let low = selection.low.as_ref().map(AsRef::as_ref);
        let high = selection.high.as_ref().map(AsRef::as_ref);
        if is_inverted(low, high) {
            return Vec::new();
        }
        let limit = selection.limit.unwrap_or(usize::MAX);
        let range = self.map.range::<str, _>((low, high));
        let pairs = range.map(|(key, value)| (*key, *value));
        if selection.reverse {
            pairs.rev().take(limit).collect()
        } else {
            pairs.take(limit).collect()
        }
    }

    fn compare(&self, content: &[(String, String)], author: Option<Id>) -> Result<(), Violation> {
        let found: BTreeMap<&str, &str> = content
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let keys = self.map.keys().chain(found.keys());
        for key in keys {
            let (expected, found) = (self.map.get(key), found.get(key));
            if expected != found {
                return Err(Violation::Final {
                    key: (*key).to_owned(),
                    expected: expected.map(|&value| value.to_owned()),
                    found: found.map(|&value| value.to_owned()),
                    author,
                });
            }
        }
        Ok(())
    }
}

/// Whether no key lies between the ends; a map of the standard library panics at such a range.
fn is_inverted(low: Bound<&str>, high: Bound<&str>) -> bool {
    match (low, high) {
        (Bound::Excluded(low), Bound::Excluded(high)) => low >= high,
        (
            Bound::Included(low) | Bound::Excluded(low),
            Bound::Included(high) | Bound::Excluded(high),
        ) => low > high,
        _ => false,
    }
}

/// One transaction at its place.
struct Step<'s, 'h> {
    state: &'s mut State<'h>,
    checked: &'s mut Checked,
    id: Id,
    position: u64,
}

impl<'h> Step<'_, 'h> {
    fn perform(mut self, operations: &'h [Operation<'_>]) -> Result<(), Violation> {
        let nesting = Violation::Nesting { id: self.id };
        let mut marks = Vec::new();
        for operation in operations {
            match operation {
                Operation::Begin => marks.push(self.state.undo.len()),
                Operation::Commit => {
                    marks.pop().ok_or_else(|| nesting.clone())?;
                }
                Operation::Abort => {
                    let mark = marks.pop().ok_or_else(|| nesting.clone())?;
                    self.state.undo_to(mark);
                }
                Operation::Set { key, value } => self.state.set(key, value),
                answered => {
                    self.checked.answers += 1;
                    self.answer(answered)?;
                }
            }
        }
        if marks.is_empty() {
            Ok(())
        } else {
            Err(nesting)
        }
    }

    /// Compares what was answered; deletes what was deleted.
    fn answer(&mut self, operation: &'h Operation<'_>) -> Result<(), Violation> {
        match operation {
            Operation::Get { key, value } => {
                let expected = self.state.map.get(key.as_ref()).copied();
                if expected != value.as_deref() {
                    return Err(Violation::Read {
                        id: self.id,
                        position: self.position,
                        key: key.to_string(),
                        expected: expected.map(str::to_owned),
                        seen: value.as_deref().map(str::to_owned),
                    });
                }
                Ok(())
            }
            Operation::Has { key, there } => {
                self.presence(key, self.state.map.contains_key(key.as_ref()), *there)
            }
            Operation::Delete { key, there } => {
                let expected = self.state.delete(key);
                self.presence(key, expected, *there)
            }
            Operation::Pairs { selection, pairs } => {
                let seen = pairs.iter().map(|(key, value)| (&**key, Some(&**value)));
                let expected = self.state.select(selection);
                self.range(
                    expected.iter().map(|&(key, value)| (key, Some(value))),
                    seen,
                )
            }
            Operation::Keys { selection, keys } => {
                let seen = keys.iter().map(|key| (&**key, None));
                let expected = self.state.select(selection);
                self.range(expected.iter().map(|&(key, _)| (key, None)), seen)
            }
            Operation::Count { selection, count } => {
                let expected = self.state.select(selection).len();
                self.count(selection, expected, *count)
            }
            Operation::DeleteRange { selection, count } => {
                let selected = self.state.select(selection);
                for (key, _) in &selected {
                    self.state.delete(key);
                }
                self.count(selection, selected.len(), *count)
            }
            Operation::Set { .. } | Operation::Begin | Operation::Commit | Operation::Abort => {
                Ok(())
            }
        }
    }

    fn presence(&self, key: &str, expected: bool, seen: bool) -> Result<(), Violation> {
        if expected == seen {
            return Ok(());
        }
        Err(Violation::Presence {
            id: self.id,
            position: self.position,
            key: key.to_owned(),
            seen,
        })
    }

    fn range<'a>(
        &mut self,
        mut expected: impl Iterator<Item = (&'a str, Option<&'a str>)>,
        mut seen: impl Iterator<Item = (&'a str, Option<&'a str>)>,
    ) -> Result<(), Violation> {
        let owned = |(key, value): (&str, Option<&str>)| (key.to_owned(), value.map(str::to_owned));
        loop {
            let (expected, seen) = (expected.next(), seen.next());
            if expected != seen {
                return Err(Violation::Range {
                    id: self.id,
                    position: self.position,
                    expected: expected.map(owned),
                    seen: seen.map(owned),
                });
            }
            if expected.is_none() {
                return Ok(());
            }
            self.checked.shown += 1;
        }
    }

    fn count(
        &self,
        selection: &Selection<'_>,
        expected: usize,
        seen: u64,
    ) -> Result<(), Violation> {
        let expected = expected as u64;
        if expected == seen {
            return Ok(());
        }
        let key = match &selection.low {
            Bound::Included(key) | Bound::Excluded(key) => key.to_string(),
            Bound::Unbounded => String::new(),
        };
        Err(Violation::Count {
            id: self.id,
            position: self.position,
            key,
            expected,
            seen,
        })
    }
}
