//! A reader among several processes: each snapshot holds just what the operations of its order make.
//!
//! It knows nothing but the store and the seed. The order in a snapshot names the operations that
//! were committed; it performs them on a model, and all that the order covers must be as there: the
//! keys are compared, found whole, and nothing is there of what comes later. So a snapshot that
//! misses a commit in the middle, or shows a part of one, or a deleted key, is found at once.

use std::collections::BTreeMap;
use std::sync::PoisonError;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use happystore::{Access, Compaction, Error, ErrorKind, Result, Snapshot, Store};

use super::{LOCK_PATIENCE, Shared, options};
use crate::arguments::{ChildArguments, Planted, Reads};
use crate::protocol::Event;
use crate::work::model::{Content, Model};
use crate::work::{COMMON, COUNTER, Fate, Id, ORDER, Operation, SHARED, Value, chained, order_key};

/// How long it rests between two looks, so that the writers get on.
const REST: Duration = Duration::from_millis(2);

/// How long who only reads waits for a store that is not there yet.
const NOT_YET: Duration = Duration::from_millis(1);

/// How many looks who only reads takes before it closes the store and opens it again.
const LOOKS: u32 = 40;

/// After how many looks a snapshot is looked at once more.
const HELD_LOOKS: u64 = 8;

/// Each how many looks everything is read, the whole order too.
const WHOLE_EVERY: u64 = 16;

/// All that was ever committed, as far as it was seen.
pub(super) struct Watch {
    seed: u64,
    is_blind: bool,
    position: u64,
    chain: u64,
    model: Model,
    looks: u64,
    /// A snapshot that is held, and what it showed at first.
    held: Option<(Snapshot, Content)>,
}

/// Looks until the writers' shift is over.
///
/// # Errors
/// Whatever the store says.
pub(super) fn watch(shared: &Shared<'_>, store: &Store) -> Result<()> {
    while !shared.is_over.load(Ordering::Relaxed) {
        look(shared, store)?;
        thread::sleep(REST);
    }
    drop_held(shared);
    Ok(())
}

/// The work of a child that only reads: looks, closes the store, opens it again.
///
/// # Errors
/// Whatever the store says.
pub(super) fn only_watch(shared: &Shared<'_>, access: Reads) -> Result<()> {
    let arguments = shared.arguments;
    loop {
        let mut options = options(arguments.mode, arguments.segment_bytes);
        options = options.lock_timeout(LOCK_PATIENCE);
        // Who looks at what is left when no writer lives finds no files in the making.
        options = options.compaction(Compaction::manual());
        if access == Reads::ReadOnly {
            options = options.access(Access::ReadOnly);
        }
        let store = match options.open(&arguments.store) {
            Err(error) if is_not_there_yet(&error, access) => {
                thread::sleep(NOT_YET);
                continue;
            }
            opened => opened?,
        };
        shared.reporter.say(&Event::Opened);
        for _ in 0..LOOKS {
            look(shared, &store)?;
            thread::sleep(REST);
        }
        drop_held(shared);
        store.close()?;
        shared.reporter.say(&Event::Closed);
    }
}

fn is_not_there_yet(error: &Error, access: Reads) -> bool {
    access == Reads::ReadOnly && error.kind() == ErrorKind::NotFound
}

fn drop_held(shared: &Shared<'_>) {
    let mut watch = shared.watch.lock().unwrap_or_else(PoisonError::into_inner);
    watch.held = None;
}

/// Takes a snapshot, and reports what it holds.
fn look(shared: &Shared<'_>, store: &Store) -> Result<()> {
    let mut watch = shared.watch.lock().unwrap_or_else(PoisonError::into_inner);
    shared.reporter.say(&Event::Looking);
    let snapshot = match &watch.held {
        Some((held, _)) if watch.is_blind => held.clone(),
        _ => store.snapshot()?,
    };
    let event = match watch.look(&snapshot)? {
        Ok(()) => Event::Saw(watch.position, watch.chain),
        Err(what) => Event::Broken(what),
    };
    shared.reporter.say(&event);
    if let Err(what) = watch.hold(snapshot)? {
        shared.reporter.say(&Event::Broken(what));
    }
    Ok(())
}

/// What a look says: nothing, or what is broken.
type Verdict = std::result::Result<(), String>;

impl Watch {
    pub(super) fn new(arguments: &ChildArguments) -> Self {
        Self {
            seed: arguments.seed,
            is_blind: arguments.planted == Some(Planted::OldSight),
            position: 0,
            chain: 0,
            model: Model::default(),
            looks: 0,
            held: None,
        }
    }

    fn look(&mut self, snapshot: &Snapshot) -> Result<Verdict> {
        self.looks += 1;
        let counter: Option<Value> = snapshot.get(COUNTER)?;
        let position = counter.map_or(0, |(_, position, _)| position);
        if position < self.position {
            let before = self.position;
            return Ok(Err(format!(
                "a reader saw the order up to {before}, and then up to {position}"
            )));
        }
        if let Err(what) = self.follow(snapshot, position)? {
            return Ok(Err(what));
        }
        let is_whole = self.looks % WHOLE_EVERY == 1;
        let found = content(snapshot, is_whole)?;
        let model = self.model.content().iter();
        let model: BTreeMap<_, _> = model
            .filter(|(key, _)| is_whole || !key.starts_with(ORDER))
            .collect();
        Ok(difference(&found, &model).map_or(Ok(()), |what| {
            Err(format!("a reader sees at position {position}: {what}"))
        }))
    }

    /// Performs what the order of `snapshot` says up to `position`.
    fn follow(&mut self, snapshot: &Snapshot, position: u64) -> Result<Verdict> {
        let seen = order_key(self.position);
        let order: Vec<(String, Value)> = snapshot.query().prefix(ORDER).after(seen).pairs()?;
        for (key, value) in order {
            let at = self.position + 1;
            let id = Id::from_bits(value.0);
            let (Some(id), true, true) = (id, key == order_key(at), at <= position) else {
                return Ok(Err(format!(
                    "a reader sees {key} where the order goes from {at} to {position}"
                )));
            };
            let operation = Operation::new(self.seed, id);
            if !operation.is_shared || operation.fate != Fate::Commit {
                return Ok(Err(format!("{id} is in the order, and commits nothing")));
            }
            self.model.apply(&operation, at);
            self.position = at;
            self.chain = chained(self.chain, id);
        }
        if self.position == position {
            return Ok(Ok(()));
        }
        let end = self.position;
        Ok(Err(format!(
            "a reader sees the counter at {position}, and the order ends at {end}"
        )))
    }

    /// Looks once more at a snapshot that was held for a while, or begins to hold `snapshot`.
    fn hold(&mut self, snapshot: Snapshot) -> Result<Verdict> {
        if self.is_blind && self.held.is_some() {
            return Ok(Ok(()));
        }
        match &self.held {
            None => {
                let content = content(&snapshot, false)?;
                self.held = Some((snapshot, content));
            }
            Some((held, before)) if self.looks.is_multiple_of(HELD_LOOKS) => {
                if content(held, false)? != *before {
                    return Ok(Err("a snapshot has changed".to_owned()));
                }
                self.held = None;
            }
            Some(_) => {}
        }
        Ok(Ok(()))
    }
}

/// What the order covers, in `snapshot`; without the order itself unless `is_whole`.
fn content(snapshot: &Snapshot, is_whole: bool) -> Result<Content> {
    let mut content = Content::new();
    let prefixes = [COMMON, COUNTER, SHARED, ORDER];
    for prefix in &prefixes[..if is_whole { 4 } else { 3 }] {
        let pairs: Vec<(String, Value)> = snapshot.query().prefix(prefix).pairs()?;
        content.extend(pairs);
    }
    Ok(content)
}

/// The first key that is not in `found` as it is in `model`.
fn difference(found: &Content, model: &BTreeMap<&String, &Value>) -> Option<String> {
    let shown = |value: Option<&Value>| match value.map(|value| Id::from_bits(value.0)) {
        None => "missing".to_owned(),
        Some(None) => "of nobody".to_owned(),
        Some(Some(id)) => format!("of {id}"),
    };
    let mut keys = found.keys().chain(model.keys().copied());
    let key = keys.find(|key| found.get(*key) != model.get(key).copied())?;
    let (now, right) = (shown(found.get(key)), shown(model.get(key).copied()));
    Some(format!("{key} is {now}, and must be {right}"))
}
