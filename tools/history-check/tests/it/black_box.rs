//! The black box accepts right histories of lists, and refuses every anomaly that it knows.

use std::collections::BTreeMap;

use fastrand::Rng;
use happystore_history_check::black_box::{Judged, judge};
use happystore_history_check::history::{Id, NEVER, Operation, Outcome, Transaction};

use crate::simulated::{STEP_NS, get, set};

/// A transaction that runs from `begin` to `end`, and does what `script` says: `x=1,2` has read a
/// list, `x+1,2` has set it to one element more, `(`, `)` and `/` are of nested transactions.
fn transaction(number: u32, begin: u64, end: u64, script: &str) -> Transaction<'static> {
    let operation = |word: &str| match word.split_once('=') {
        Some((key, "")) => get(&format!("list/{key}"), None),
        Some((key, list)) => get(&format!("list/{key}"), Some(list)),
        None => match word.split_once('+') {
            Some((key, list)) => set(&format!("list/{key}"), list),
            None => match word {
                "(" => Operation::Begin,
                ")" => Operation::Commit,
                _ => Operation::Abort,
            },
        },
    };
    Transaction {
        id: Id {
            process: 0,
            thread: 0,
            number,
        },
        kind: 'l',
        begin,
        end,
        outcome: Outcome::Committed,
        operations: script.split(' ').map(operation).collect(),
    }
}

/// The verdict on `history`, if the lists are what `end` says.
fn judge_ended(history: &[Transaction<'static>], end: &str) -> Judged {
    let pairs = end.split(' ').filter_map(|word| word.split_once('='));
    let content: Vec<_> = pairs
        .map(|(key, list)| (format!("list/{key}"), list.to_owned()))
        .collect();
    judge(history, &content)
}

/// The anomalies found among transactions that all overlap, if the lists are what `end` says.
fn anomalies(scripts: &[&str], end: &str) -> Vec<String> {
    let history: Vec<_> = (0..)
        .zip(scripts)
        .map(|(n, script)| transaction(n, 0, 9, script))
        .collect();
    judge_ended(&history, end).report.anomaly_types
}

#[test]
fn each_known_anomaly_is_refused_by_its_name() {
    let known: [(&str, &[&str], &str); 11] = [
        ("G0", &["x+1 y+2,1", "x+1,2 y+2"], "x=1,2 y=2,1"),
        ("G1b", &["x+1 x+1,2", "x=1"], "x=1,2"),
        ("G1c", &["x+1 y=2", "y+2 x=1"], "x=1 y=2"),
        ("G-single-item", &["x+1 y+1", "x= y=1"], "x=1 y=1"),
        (
            "G-nonadjacent-item",
            &["x+1", "y+1", "x=1 y=", "x= y=1"],
            "x=1 y=1",
        ),
        ("G2-item", &["x= y= x+1", "x= y= y+1"], "x=1 y=1"),
        ("lost-update", &["x= x+1", "x= x+2"], "x=1,2"),
        ("incompatible-order", &["x+1", "x+1,2", "x=2,1"], "x=1,2"),
        ("duplicate-elements", &["x+1"], "x=1,1"),
        ("internal", &["x+1 x="], "x=1"),
        ("G-single-item-realtime", &["x= x+1"], ""),
    ];
    for (name, scripts, end) in known {
        let found = anomalies(scripts, end);
        assert!(found.iter().any(|found| found == name), "{name}: {found:?}");
    }
    let right = anomalies(&["x= x+1 y=", "x=1 y= y+2", "x=1 y=2"], "x=1 y=2");
    assert_eq!(right, [""; 0]);
}

#[test]
fn reads_of_what_was_rolled_back_are_refused() {
    let right = anomalies(&["x= ( x+1 x=1 / x= x+2", "x=2"], "x=2");
    assert_eq!(right, [""; 0], "an undone append, not seen by others");
    let seen = anomalies(&["x= ( x+1 / x+1,2", "x=1,2"], "x=1,2");
    assert!(seen.contains(&"G1a".to_owned()), "{seen:?}");
    let mut aborted = transaction(0, 0, 9, "x= x+1 x=1");
    aborted.outcome = Outcome::Aborted;
    let history = [aborted.clone(), transaction(1, 0, 9, "x=1")];
    let seen = judge_ended(&history, "").report.anomaly_types;
    assert!(seen.contains(&"G1a".to_owned()), "{seen:?}");
    let history = [aborted, transaction(1, 0, 9, "x= x+2")];
    assert!(judge_ended(&history, "x=2").is_right());
}

#[test]
fn what_may_be_there_is_there_as_a_whole_or_not_at_all() {
    let mut unknown = transaction(0, 0, NEVER, "x= x+1 x=1 y= y+1");
    unknown.outcome = Outcome::Unknown;
    let later = |script| [unknown.clone(), transaction(1, 7, 9, script)];
    assert!(judge_ended(&later("x= y="), "").is_right());
    assert!(judge_ended(&later("x= y="), "x=1 y=1").is_right());
    assert!(judge_ended(&later("x=1 y=1"), "x=1 y=1").is_right());
    assert!(!judge_ended(&later("x=1 y="), "x=1 y=1").is_right());
    assert!(!judge_ended(&later("x=1 y=1"), "x=1").is_right());
    assert!(!judge_ended(&later("x=1 y=1"), "").is_right());
}

#[test]
fn real_time_counts() {
    let history = |begin| {
        [
            transaction(0, 0, 5, "x= x+1"),
            transaction(1, begin, 9, "x="),
        ]
    };
    assert!(judge_ended(&history(5), "x=1").is_right(), "they overlap");
    let judged = judge_ended(&history(6), "x=1");
    assert!(!judged.is_right());
    assert_eq!(judged.report.anomaly_types, ["G-single-item-realtime"]);
}

/// A right history of lists, and what they are in the end.
fn lists(seed: u64) -> (Vec<Transaction<'static>>, String) {
    let mut random = Rng::with_seed(seed);
    let mut lists: BTreeMap<u8, Vec<String>> = BTreeMap::new();
    let mut history = Vec::new();
    for number in 0..200 {
        let mut script = Vec::new();
        let mut own = lists.clone();
        for at in 0..random.usize(1..5) {
            let key = random.u8(..4);
            let list = own.entry(key).or_default();
            script.push(format!("{key}={}", list.join(",")));
            if random.bool() {
                list.push(format!("{number}.{at}"));
                script.push(format!("{key}+{}", list.join(",")));
            }
        }
        let moment = (u64::from(number) + 3) * STEP_NS;
        let (begin, end) = (random.u64(..3 * STEP_NS), random.u64(..3 * STEP_NS));
        let mut transaction = transaction(number, moment - begin, moment + end, &script.join(" "));
        transaction.outcome = match random.u8(..8) {
            0 => Outcome::Aborted,
            1 => Outcome::Unknown,
            _ => Outcome::Committed,
        };
        if transaction.outcome == Outcome::Unknown {
            transaction.end = NEVER;
        }
        let is_there = match transaction.outcome {
            Outcome::Committed => true,
            Outcome::Aborted => false,
            Outcome::Unknown => random.bool(),
        };
        if is_there {
            lists = own;
        }
        history.push(transaction);
    }
    let end = lists
        .iter()
        .map(|(key, list)| format!("{key}={}", list.join(",")));
    (history, end.collect::<Vec<_>>().join(" "))
}

#[test]
fn right_histories_of_lists_are_accepted_and_one_wrong_read_is_not() {
    for seed in 0..40 {
        let (mut history, end) = lists(seed);
        let judged = judge_ended(&history, &end);
        assert!(
            judged.is_right(),
            "seed {seed}: {:?}",
            judged.report.anomaly_types
        );
        assert!(judged.reads > 100 && judged.appends > 50);
        // A read that has missed all but what was appended first, long ago.
        let late = history.iter_mut().skip(100);
        let reads = late
            .filter(|transaction| transaction.outcome == Outcome::Committed)
            .filter_map(|transaction| match &mut transaction.operations[0] {
                Operation::Get { value, .. } => {
                    value.as_mut().filter(|list| list.matches(',').count() > 9)
                }
                _ => None,
            });
        let list = reads.last().unwrap();
        let shorter = list.split_once(',').unwrap().0.to_owned();
        *list = shorter.into();
        assert!(!judge_ended(&history, &end).is_right(), "seed {seed}");
    }
}
