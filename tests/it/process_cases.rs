//! What the model library promises of several processes, case by case, and what a lone one costs.

use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::time::Duration;

use happystore::{Durability, Options, Store, Transaction, TxOptions};

use crate::processes::{ALONE_COMMITS, Other};

fn patient(path: &std::path::Path) -> Store {
    let options = Options::new().lock_timeout(Duration::from_mins(1));
    options.open(path).unwrap()
}

#[test]
fn a_thousand_threads_of_four_processes_increment_one_key_and_none_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let mut others: Vec<Other> = (0..4)
        .map(|_| Other::open(directory.path(), "os"))
        .collect();
    for other in &mut others {
        other.tell("250 threads");
    }
    for other in &mut others {
        assert_eq!(other.answer(), "done");
    }
    let store = patient(directory.path());
    assert_eq!(store.get("a").unwrap(), Some(1000));
    others.into_iter().for_each(Other::kill);
}

#[test]
fn what_a_transaction_of_another_process_has_not_committed_is_not_seen_and_its_reads_repeat() {
    let directory = tempfile::tempdir().unwrap();
    let store = patient(directory.path());
    store.set("a", &1).unwrap();
    let mut other = Other::open(directory.path(), "");
    let snapshot = store.snapshot().unwrap();
    other.tell("hold until told");
    assert_eq!(other.answer(), "holding");
    assert_eq!(store.get("a").unwrap(), Some(1), "no dirty read");
    other.tell("commit");
    assert_eq!(other.answer(), "committed");
    assert_eq!(snapshot.get("a").unwrap(), Some(1), "reads repeat");
    assert_eq!(store.get("a").unwrap(), Some(100));
    other.tell("increment");
    assert_eq!(other.answer(), "101", "on top of what was committed last");
    assert_eq!(snapshot.query().pairs::<i32>().unwrap().len(), 1);
    assert_eq!(snapshot.get("a").unwrap(), Some(1));
    other.kill();
}

/// A transaction of seconds: others wait for it, in order, and then see what it did.
#[test]
fn a_transaction_of_seconds_loses_no_update_of_those_who_wait_for_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = patient(directory.path());
    let mut others: Vec<Other> = (0..3).map(|_| Other::open(directory.path(), "")).collect();
    let slow = |tx: &Transaction<'_>| -> happystore::Result<()> {
        assert_eq!(tx.get::<i32>("a")?, None);
        for other in &mut others {
            other.tell("increment");
        }
        std::thread::sleep(Duration::from_secs(2));
        tx.set("a", &10)
    };
    store.transaction(slow).unwrap();
    let mut answers: Vec<String> = others.iter_mut().map(Other::answer).collect();
    answers.sort();
    assert_eq!(answers, ["11", "12", "13"]);
    assert_eq!(store.get("a").unwrap(), Some(13));
    others.into_iter().for_each(Other::kill);
}

/// Sets `key` to 1 if both keys are 0; says whether it did.
pub(crate) fn raise_if_both_are_0(tx: &Transaction<'_>, key: &str) -> happystore::Result<bool> {
    let both = tx.get::<i32>("a")?.unwrap_or(0) + tx.get::<i32>("b")?.unwrap_or(0);
    if both == 0 {
        tx.set(key, &1)?;
    }
    Ok(both == 0)
}

/// Two who each read both keys and write one: only one of them may find the rule kept.
#[test]
fn no_two_transactions_of_processes_break_together_what_each_would_keep() {
    let directory = tempfile::tempdir().unwrap();
    let store = patient(directory.path());
    for _ in 0..20 {
        store.bulk_set([("a", 0), ("b", 0)]).unwrap();
        let mut other = Other::open(directory.path(), "");
        other.tell("raise a if both are 0");
        let options = TxOptions::new().durability(Durability::Os);
        let tx = store.begin_with(&options).unwrap();
        let is_raised = raise_if_both_are_0(&tx, "b").unwrap();
        tx.commit().unwrap();
        let other_raised = other.answer();
        assert_eq!(other_raised, if is_raised { "false" } else { "true" });
        let values = store.bulk_get::<i32>(["a", "b"]).unwrap();
        let expected = [!is_raised, is_raised].map(|is_raised| Some(i32::from(is_raised)));
        assert_eq!(values, expected);
        other.kill();
    }
}

/// A lone process keeps the lock: it asks the machine for it only after pauses, which it may have
/// on a machine that does other things too.
#[test]
fn a_lone_process_makes_no_system_call_to_lock() {
    let directory = tempfile::tempdir().unwrap();
    let trace = directory.path().join("trace");
    let strace = ["-f", "-qq", "-e", "trace=flock", "-o"];
    let mut command = Command::new("strace");
    command.args(strace).arg(&trace);
    let Some(mut other) = Other::start(command, &directory.path().join("store"), "os") else {
        let skipped = b"SKIPPED: counting locks, because there is no strace that may trace\n";
        std::io::stderr().write_all(skipped).unwrap();
        return;
    };
    let locks = || {
        let text = fs::read_to_string(&trace).unwrap();
        text.lines().filter(|line| line.contains("flock(")).count()
    };
    let before = locks();
    other.tell("write alone");
    assert_eq!(other.answer(), "done");
    let made = locks() - before;
    let counted = format!("{made} calls of flock for {ALONE_COMMITS} commits of a lone process\n");
    std::io::stderr().write_all(counted.as_bytes()).unwrap();
    assert!(before >= 3, "opening locks: {before}");
    let commits = usize::try_from(ALONE_COMMITS).unwrap();
    assert!(made * 10 <= commits, "{counted}");
    other.kill();
}

#[test]
fn the_progress_of_an_opening_beside_another_process_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().durability(Durability::Os);
    let store = options
        .segment_bytes(256 << 10)
        .open(directory.path())
        .unwrap();
    store
        .bulk_set((0..1000).map(|n| (n.to_string(), n)))
        .unwrap();
    for n in 0..1000 {
        store.set(&n.to_string(), &vec![n; 700]).unwrap();
    }
    drop(store);
    let other = Other::open(directory.path(), "");
    let (told, heard) = std::sync::mpsc::channel();
    let options = Options::new().on_open_progress(move |now| told.send(now).unwrap());
    let store: Store = options.open(directory.path()).unwrap();
    let progress: Vec<happystore::OpenProgress> = heard.try_iter().collect();
    let last = progress.last().unwrap();
    assert_eq!((last.bytes_done, last.keys), (last.bytes_total, 1000));
    assert!(progress.is_sorted_by_key(|now| now.bytes_done));
    assert!(
        progress
            .iter()
            .all(|now| now.bytes_total == last.bytes_total)
    );
    let segments = store.stats().unwrap().segments;
    assert!(segments > 2 && last.bytes_total > (segments - 1) * (200 << 10));
    other.kill();
}
