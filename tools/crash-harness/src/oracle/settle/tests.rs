//! Histories that were kept are accepted, and each kind of broken one is refused.

use crate::oracle::{Broken, Checked, History};
use crate::protocol::Event;
use crate::work::model::{Content, Model};
use crate::work::perform::Outcome;
use crate::work::{COUNTER, Fate, Id, Operation, Step, order_key};

const SEED: u64 = 11;

fn id(number: u32) -> Id {
    Id {
        life: 0,
        writer: 0,
        number,
    }
}

/// The first operations of writer 0, acknowledged one after another, and the content after them.
struct Script {
    events: Vec<Event>,
    own: Model,
    shared: Model,
    position: u64,
}

impl Script {
    fn new() -> Self {
        Self {
            events: Vec::new(),
            own: Model::default(),
            shared: Model::default(),
            position: 0,
        }
    }

    /// Applies the operation of `number`, and says what its child would.
    fn acknowledged(&mut self, number: u32) {
        self.events.push(Event::Begun(id(number)));
        let outcome = self.apply(number);
        self.events.push(Event::Acked(id(number), outcome));
    }

    fn apply(&mut self, number: u32) -> Outcome {
        let operation = Operation::new(SEED, id(number));
        if !operation.is_shared {
            let found = self.own.apply(&operation, 0);
            return Outcome { found, position: 0 };
        }
        let position = self.position + 1;
        let found = self.shared.apply(&operation, position);
        if operation.fate != Fate::Commit {
            return Outcome { found, position: 0 };
        }
        self.position = position;
        Outcome { found, position }
    }

    fn content(&self) -> Content {
        let mut content = self.own.content().clone();
        content.extend(self.shared.content().clone());
        content
    }

    fn settle(&self, found: &Content) -> Result<Checked, Broken> {
        let mut history = History::new(SEED);
        history.take(&self.events)?;
        history.settle(found)?;
        Ok(*history.checked())
    }
}

/// The first number from `from` on whose operation is as `wanted`.
fn number_of(from: u32, wanted: impl Fn(&Operation) -> bool) -> u32 {
    let mut numbers = from..10_000;
    numbers
        .find(|number| wanted(&Operation::new(SEED, id(*number))))
        .unwrap()
}

fn is_shared_write(operation: &Operation) -> bool {
    operation.is_shared && operation.fate == Fate::Commit
}

fn is_batch(operation: &Operation) -> bool {
    let keys = match &operation.steps[..] {
        [Step::BulkSet(keys)] => keys.clone(),
        _ => Vec::new(),
    };
    !operation.is_shared && keys.iter().filter(|key| key.contains("new/")).count() > 1
}

/// Fifty acknowledged operations, and one behind them that was begun.
fn with_one_open(wanted: impl Fn(&Operation) -> bool) -> (Script, Content, Content) {
    let mut script = Script::new();
    (0..50).for_each(|number| script.acknowledged(number));
    let number = number_of(50, wanted);
    let before = script.content();
    script.events.push(Event::Begun(id(number)));
    script.apply(number);
    let after = script.content();
    (script, before, after)
}

fn refusal(script: &Script, found: &Content) -> String {
    script.settle(found).unwrap_err().0
}

#[test]
fn what_was_begun_may_be_there_or_not() {
    for wanted in [is_batch, is_shared_write] {
        let (script, before, after) = with_one_open(wanted);
        let checked = script.settle(&before).unwrap();
        assert_eq!((checked.found_whole, checked.found_absent), (0, 1));
        let checked = script.settle(&after).unwrap();
        assert_eq!((checked.found_whole, checked.found_absent), (1, 0));
        assert_eq!(checked.acknowledged, 50);
    }
}

#[test]
fn a_part_of_a_batch_is_refused() {
    let (script, before, mut after) = with_one_open(is_batch);
    let new = after.keys().find(|key| !before.contains_key(*key)).cloned();
    after.remove(&new.unwrap());
    assert!(refusal(&script, &after).contains("in part"));

    let (script, before, mut after) = with_one_open(is_shared_write);
    let changed = after
        .iter()
        .find(|(key, value)| before.get(*key) != Some(value));
    let key = changed.map(|(key, _)| key.clone()).unwrap();
    after.remove(&key);
    script.settle(&after).unwrap_err();
}

#[test]
fn a_lost_commit_is_refused() {
    let (script, mut before, _) = with_one_open(is_batch);
    let own = before.keys().find(|key| key.starts_with("own/")).cloned();
    before.remove(&own.unwrap());
    assert!(refusal(&script, &before).contains("lost"));

    let (script, mut before, _) = with_one_open(is_batch);
    before.remove(COUNTER).unwrap();
    assert!(refusal(&script, &before).contains("lost"));
}

#[test]
fn a_deleted_key_that_is_back_is_refused() {
    let mut script = Script::new();
    let mut number = 0;
    let gone = loop {
        let before = script.content();
        script.acknowledged(number);
        let after = script.content();
        number += 1;
        let gone = before.into_iter().find(|(key, _)| !after.contains_key(key));
        if let Some(gone) = gone.filter(|(key, _)| key.starts_with("own/")) {
            break gone;
        }
    };
    let mut found = script.content();
    script.settle(&found).unwrap();
    found.insert(gone.0, gone.1);
    assert!(refusal(&script, &found).contains("deleted key is back"));
}

#[test]
fn what_nobody_wrote_is_refused() {
    let (script, before, _) = with_one_open(is_batch);
    for key in ["own/0/never", "own/7/hot/1", "parent/1", "shared/9/9", "?"] {
        let mut found = before.clone();
        found.insert(key.to_owned(), (1, 0, String::new()));
        script.settle(&found).unwrap_err();
    }
}

#[test]
fn a_position_without_its_operation_is_refused() {
    let (script, _, mut after) = with_one_open(is_shared_write);
    let last = order_key(script.position);
    after.get_mut(&last).unwrap().0 = id(9_999).bits();
    assert!(refusal(&script, &after).contains("not begun"));
    after.remove(&last);
    assert!(refusal(&script, &after).contains("nothing says"));
}

#[test]
fn what_a_reader_has_seen_must_be_there() {
    for wanted in [is_batch, is_shared_write] {
        let (mut script, before, after) = with_one_open(wanted);
        let Some(Event::Begun(open)) = script.events.last().cloned() else {
            panic!("the last event is the one that was begun")
        };
        script.events.push(Event::Seen(open));
        script.settle(&after).unwrap();
        assert!(refusal(&script, &before).contains("seen"));
    }
}

#[test]
fn what_was_not_there_must_not_come_later() {
    let (script, before, after) = with_one_open(is_batch);
    let mut history = History::new(SEED);
    history.take(&script.events).unwrap();
    history.settle(&before).unwrap();
    history.settle(&before).unwrap();
    history.settle(&after).unwrap_err();
}

#[test]
fn reports_that_cannot_be_are_refused() {
    let refused = |events: &[Event]| History::new(SEED).take(events).is_err();
    let (own, shared) = (number_of(0, is_batch), number_of(0, is_shared_write));
    let acked = |number, found, position| Event::Acked(id(number), Outcome { found, position });
    assert!(!refused(&[Event::Begun(id(own)), acked(own, 0, 0)]));
    assert!(refused(&[acked(own, 0, 0)]), "never begun");
    assert!(
        refused(&[Event::Begun(id(own)), acked(own, 1, 0)]),
        "found nothing to delete"
    );
    assert!(
        refused(&[Event::Begun(id(own)), Event::Begun(id(own + 1))]),
        "never ended"
    );
    assert!(
        refused(&[Event::Begun(id(shared)), acked(shared, 0, 0)]),
        "behind its begin"
    );
    assert!(refused(&[Event::Failed("no".to_owned())]));
    assert!(refused(&[Event::Broken("no".to_owned())]));
}
