//! What an operation does, said with a sorted map.

use std::collections::BTreeMap;

use super::{COUNTER, Fate, Operation, Step, Value, order_key, value};

/// Keys and values, as a map from the standard library holds them.
pub(crate) type Content = BTreeMap<String, Value>;

/// A content that operations can be applied to, and be undone again inside of them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    content: Content,
    /// What was there before each change of the operation that is being applied.
    undo: Vec<(String, Option<Value>)>,
}

impl Model {
    pub(crate) fn content(&self) -> &Content {
        &self.content
    }

    /// Applies `operation` at `position`; how many keys its deletes found, undone ones included.
    pub(crate) fn apply(&mut self, operation: &Operation, position: u64) -> u64 {
        let writing = Writing {
            operation,
            position,
        };
        if operation.is_shared {
            for key in [COUNTER.to_owned(), order_key(position)] {
                let value = value(operation.id, position, &key);
                self.change(&key, Some(value));
            }
        }
        let found = self.level(&operation.steps, operation.fate, 0, writing);
        self.undo.clear();
        found
    }

    fn level(&mut self, steps: &[Step], fate: Fate, undo_to: usize, writing: Writing<'_>) -> u64 {
        let found = steps.iter().map(|step| self.step(step, writing)).sum();
        if fate != Fate::Commit {
            while self.undo.len() > undo_to {
                match self.undo.pop() {
                    Some((key, Some(before))) => self.content.insert(key, before),
                    Some((key, None)) => self.content.remove(&key),
                    None => None,
                };
            }
        }
        found
    }

    fn step(&mut self, step: &Step, writing: Writing<'_>) -> u64 {
        let value = |key: &String| value(writing.operation.id, writing.position, key);
        match step {
            Step::Set(key) => {
                self.change(key, Some(value(key)));
                0
            }
            Step::BulkSet(keys) => {
                for key in keys {
                    self.change(key, Some(value(key)));
                }
                0
            }
            Step::Delete(key) => u64::from(self.change(key, None)),
            Step::BulkDelete(keys) => {
                let found = keys.iter().map(|key| u64::from(self.change(key, None)));
                found.sum()
            }
            Step::QueryDelete {
                prefix,
                limit,
                reverse,
            } => {
                let keys = self.selected(prefix, limit.unwrap_or(usize::MAX), *reverse);
                let found = keys.iter().map(|key| u64::from(self.change(key, None)));
                found.sum()
            }
            Step::Nested(steps, fate) => self.level(steps, *fate, self.undo.len(), writing),
        }
    }

    fn selected(&self, prefix: &str, limit: usize, reverse: bool) -> Vec<String> {
        let keys = self.content.range(prefix.to_owned()..);
        let mut keys: Vec<String> = keys
            .map(|(key, _)| key.clone())
            .take_while(|key| key.starts_with(prefix))
            .collect();
        if reverse {
            keys.reverse();
        }
        keys.truncate(limit);
        keys
    }

    /// Sets or deletes `key`; whether it was there.
    fn change(&mut self, key: &str, value: Option<Value>) -> bool {
        let before = match value {
            Some(value) => self.content.insert(key.to_owned(), value),
            None => self.content.remove(key),
        };
        let was_there = before.is_some();
        self.undo.push((key.to_owned(), before));
        was_there
    }
}

/// Who writes.
#[derive(Clone, Copy)]
struct Writing<'a> {
    operation: &'a Operation,
    position: u64,
}
