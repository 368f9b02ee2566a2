//! The child's reader: what it sees is whole, stays as it was in a snapshot, and never goes back.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use fastrand::Rng;
use happystore::{Read, Result, Snapshot, Store};

use super::Shared;
use crate::arguments::Planted;
use crate::protocol::Event;
use crate::work::{COUNTER, GROUPS, Id, SHARED, Value, group_keys, order_key, own_prefix, value};

/// How long the reader rests between two looks, so that the writers get on.
const REST: Duration = Duration::from_micros(300);

/// How many looks a snapshot is held for.
const HELD_LOOKS: u32 = 20;

/// Reads until the writers' shift is over.
///
/// # Errors
/// Whatever the store says.
pub(super) fn read(shared: &Shared<'_>, store: &Store) -> Result<()> {
    let arguments = shared.arguments;
    let mut reader = Reader {
        shared,
        random: Rng::with_seed(arguments.seed ^ u64::from(arguments.life)),
        newest: HashMap::new(),
    };
    while !shared.is_over.load(Ordering::Relaxed) {
        let held = store.snapshot()?;
        let before: Vec<(String, Value)> = held.query().prefix(SHARED).pairs()?;
        for _ in 0..HELD_LOOKS {
            reader.look_at_a_group(&store.snapshot()?)?;
            reader.look_at_a_key(store)?;
            if arguments.planted == Some(Planted::EarlySight)
                && let Some(id) = Id::from_bits(shared.begun.load(Ordering::Relaxed))
            {
                shared.reporter.say(&Event::Seen(id));
            }
            thread::sleep(REST);
            if shared.is_over.load(Ordering::Relaxed) {
                break;
            }
        }
        if before != held.query().prefix(SHARED).pairs::<Value>()? {
            reader.broken("a snapshot has changed");
        }
    }
    Ok(())
}

struct Reader<'a> {
    shared: &'a Shared<'a>,
    random: Rng,
    /// The highest number of an operation of this life that was seen at each key.
    newest: HashMap<String, u32>,
}

impl Reader<'_> {
    fn broken(&self, what: impl Into<String>) {
        self.shared.reporter.say(&Event::Broken(what.into()));
    }

    /// The keys of a group are there together, written by one operation, or not at all; and the
    /// counter agrees with the order it counts.
    fn look_at_a_group(&mut self, snapshot: &Snapshot) -> Result<()> {
        let keys = group_keys(self.random.usize(..GROUPS));
        let values = snapshot.bulk_get::<Value>(&keys)?;
        let writes = |value: &Option<Value>| value.as_ref().map(|value| (value.0, value.1));
        if values
            .iter()
            .any(|value| writes(value) != writes(&values[0]))
        {
            self.broken(format!("a reader sees a part of a batch at {}", keys[0]));
        }
        for (key, value) in keys.iter().zip(&values) {
            self.check(key, value.as_ref());
        }
        if let Some((bits, position, _)) = snapshot.get::<Value>(COUNTER)? {
            let order: Option<Value> = snapshot.get(&order_key(position))?;
            if order.map(|order| order.0) != Some(bits) {
                self.broken(format!(
                    "a reader sees the counter at {position} without its order"
                ));
            }
        }
        Ok(())
    }

    /// A key of one writer never goes back to an older operation; what was seen is reported.
    fn look_at_a_key(&mut self, store: &Store) -> Result<()> {
        let writer = self.random.u8(..self.shared.arguments.writers);
        let prefix = format!("{}hot/", own_prefix(writer));
        let keys = store.query().prefix(&prefix).keys()?;
        let Some(key) = self.random.choice(keys) else {
            return Ok(());
        };
        // It may be gone by now.
        let Some(value) = Read::get::<Value>(store, &key)? else {
            return Ok(());
        };
        self.check(&key, Some(&value));
        if let Some(id) = Id::from_bits(value.0).filter(|id| id.life == self.shared.arguments.life)
        {
            let newest = self.newest.entry(key.clone()).or_default();
            if id.number < *newest {
                let newest = *newest;
                self.broken(format!("{key} has gone back from {newest} to {id}"));
            } else {
                *newest = id.number;
            }
            self.shared.reporter.say(&Event::Seen(id));
        }
        Ok(())
    }

    fn check(&self, key: &str, found: Option<&Value>) {
        let Some(found) = found else { return };
        let right = Id::from_bits(found.0).map(|id| value(id, found.1, key));
        if right.as_ref() != Some(found) {
            self.broken(format!("a reader sees a wrong value at {key}"));
        }
    }
}
