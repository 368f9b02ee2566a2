//! Backups: each is a whole store as of one moment, whatever others do meanwhile.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write as _};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use happystore::vfs::sim::{Call, Fault, FaultEffect, FaultScope, World};
use happystore::{Access, Compaction, Durability, ErrorKind, Options, Store};

/// How many backups are taken while another process writes.
const BACKUPS: usize = 100;

/// How many keys that process writes to.
const KEYS: u64 = 150;

pub(crate) fn options() -> Options {
    Options::new()
        .durability(Durability::Os)
        .compaction(Compaction::manual())
        .segment_bytes(4096)
}

fn open(path: &Path) -> Store {
    options().open(path).unwrap()
}

fn look(path: &Path) -> Store {
    let store = options().access(Access::ReadOnly).open(path).unwrap();
    store.verify().unwrap();
    store
}

fn content(store: &Store) -> BTreeMap<String, u64> {
    let pairs = store.scan().iter::<(u64, Vec<u8>)>().unwrap();
    pairs
        .map(|pair| pair.map(|(key, (number, _))| (key, number)).unwrap())
        .collect()
}

/// The commit `number`, one of many whose prefixes all differ.
pub(crate) fn commit(store: &Store, number: u64) {
    let padding = vec![7_u8; usize::try_from(number % 300).unwrap()];
    let done = store.transaction(|tx| -> happystore::Result<()> {
        if number.is_multiple_of(5) {
            tx.delete(&key(number))?;
        } else {
            tx.set(&key(number), &(number, &padding))?;
        }
        tx.set("last", &(number, &padding))
    });
    done.unwrap();
}

fn key(number: u64) -> String {
    format!("k{:04}", number * 7 % KEYS)
}

/// What the first `last` commits leave.
fn model(last: u64) -> BTreeMap<String, u64> {
    let mut model = BTreeMap::new();
    for number in 1..=last {
        if number.is_multiple_of(5) {
            model.remove(&key(number));
        } else {
            model.insert(key(number), number);
        }
    }
    if last > 0 {
        model.insert("last".to_owned(), last);
    }
    model
}

/// The last commit in `store`, which holds just the commits up to there.
pub(crate) fn check_prefix(store: &Store) -> u64 {
    let content = content(store);
    let last = content.get("last").copied().unwrap_or(0);
    assert_eq!(content, model(last), "no prefix of the commit order");
    last
}

fn files(path: &Path, suffix: &str) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.to_str().unwrap().ends_with(suffix));
    files.sort();
    files
}

fn inode(path: &Path) -> u64 {
    std::fs::metadata(path).unwrap().ino()
}

fn bytes_of(path: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let read = |file: PathBuf| (file.clone(), std::fs::read(file).unwrap());
    files(path, ".seg").into_iter().map(read).collect()
}

#[test]
fn a_backup_is_the_store_as_it_was_and_shares_what_is_finished() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let store = open(&from);
    (1..=200).for_each(|number| commit(&store, number));
    let report = store.backup_to(&to).unwrap();
    (201..=400).for_each(|number| commit(&store, number));
    assert!(report.linked > 3 && report.copied == 1, "{report:?}");
    assert_eq!(check_prefix(&look(&to)), 200);
    let segments = files(&to, ".seg");
    let (active, finished) = segments.split_last().unwrap();
    let in_source = |file: &Path| from.join(file.file_name().unwrap());
    for file in finished {
        assert_eq!(inode(file), inode(&in_source(file)));
    }
    assert_ne!(inode(active), inode(&in_source(active)));
}

#[test]
fn a_backup_that_is_written_to_changes_nothing_of_its_source() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let store = open(&from);
    (1..=200).for_each(|number| commit(&store, number));
    store.backup_to(&to).unwrap();
    (201..=300).for_each(|number| commit(&store, number));
    store.backup_to(&to).unwrap();
    let before = bytes_of(&from);
    let copy = open(&to);
    (301..=500).for_each(|number| commit(&copy, number));
    copy.compact().unwrap();
    (501..=600).for_each(|number| commit(&copy, number));
    assert_eq!(check_prefix(&copy), 600);
    copy.close().unwrap();
    assert_eq!(check_prefix(&look(&to)), 600);
    assert!(before == bytes_of(&from), "the source's files have changed");
    assert_eq!(check_prefix(&store), 300);
    let refused = store.backup_to(&to).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotABackup, "{refused}");
    assert_eq!(check_prefix(&look(&to)), 600);
}

#[test]
fn one_batch_in_the_active_segment_of_a_backup_is_found_too() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let store = open(&from);
    (1..=20).for_each(|number| commit(&store, number));
    store.backup_to(&to).unwrap();
    // Opened and closed, it stays a backup.
    open(&to).close().unwrap();
    store.backup_to(&to).unwrap();
    let copy = open(&to);
    copy.set("mine", &(1_u64, Vec::<u8>::new())).unwrap();
    copy.close().unwrap();
    let refused = store.backup_to(&to).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotABackup, "{refused}");
}

#[test]
fn a_backup_takes_nothing_from_a_copy_of_its_store_that_went_another_way() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let store = open(&path("store"));
    let set = |store: &Store, value: &str, numbers: std::ops::Range<u64>| {
        for number in numbers {
            store.set(&format!("k{number}"), value).unwrap();
        }
    };
    set(&store, "both", 0..100);
    store.backup_to(path("backup")).unwrap();
    let backup = look(&path("backup"));
    backup.backup_to(path("restored")).unwrap();
    backup.close().unwrap();
    // Both write records of one length under the same numbers, into segments of the same names.
    let restored = open(&path("restored"));
    set(&restored, "here", 100..300);
    set(&store, "they", 100..300);
    store.backup_to(path("backup")).unwrap();
    let refused = restored.backup_to(path("backup")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotABackup, "{refused}");
    let backup = look(&path("backup"));
    assert_eq!(backup.get("k299").unwrap(), Some("they".to_owned()));
    backup.close().unwrap();
    // Nor one that is behind it.
    set(&store, "they", 300..400);
    store.backup_to(path("backup")).unwrap();
    let refused = restored.backup_to(path("backup")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotABackup, "{refused}");
    // Nor if none of its segments is there any more, which would tell.
    let old = look(&path("backup"));
    old.backup_to(path("old")).unwrap();
    old.close().unwrap();
    store.compact().unwrap();
    set(&store, "they", 400..500);
    store.backup_to(path("backup")).unwrap();
    let refused = look(&path("old")).backup_to(path("backup")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotABackup, "{refused}");
    // What was copied because it was active then is known by its bytes, and stays.
    let report = store.backup_to(path("backup")).unwrap();
    assert!(report.kept > 3 && report.copied == 1, "{report:?}");
}

#[test]
fn a_segment_that_a_backup_has_lost_is_brought_again() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let store = open(&from);
    (1..=200).for_each(|number| commit(&store, number));
    store.backup_to(&to).unwrap();
    let segments = files(&to, ".seg");
    std::fs::remove_file(&segments[1]).unwrap();
    // Not in place: the source has that file too.
    let short = std::fs::read(&segments[2]).unwrap()[..700].to_vec();
    std::fs::remove_file(&segments[2]).unwrap();
    std::fs::write(&segments[2], short).unwrap();
    store.backup_to(&to).unwrap();
    assert_eq!(check_prefix(&look(&to)), 200);
    let mut damaged = std::fs::read(&segments[2]).unwrap();
    damaged[700] ^= 1;
    std::fs::remove_file(&segments[2]).unwrap();
    std::fs::write(&segments[2], damaged).unwrap();
    let refused = store.backup_to(&to).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotABackup, "{refused}");
}

#[test]
fn the_hints_of_a_segment_come_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let store = open(&from);
    (1..=400).for_each(|number| commit(&store, number));
    store.compact().unwrap();
    (401..=420).for_each(|number| commit(&store, number));
    store.backup_to(&to).unwrap();
    let hints = files(&from, ".hint");
    assert!(hints.len() > 1);
    let check = || {
        let backup = look(&to);
        let segments = backup.segments().unwrap();
        let hinted = segments.iter().filter(|segment| segment.has_hints);
        assert_eq!(hinted.count(), hints.len(), "whole, and of their segments");
        assert_eq!(files(&to, ".hint").len(), hints.len());
    };
    check();
    // Those of a segment that has to be brought again are taken for wrong.
    let there = files(&to, ".hint");
    std::fs::remove_file(&there[0]).unwrap();
    std::fs::write(&there[0], "of something else").unwrap();
    std::fs::remove_file(there[0].with_extension("seg")).unwrap();
    std::fs::remove_file(&there[1]).unwrap();
    store.backup_to(&to).unwrap();
    check();
}

#[test]
fn a_repeated_backup_brings_what_is_new_and_removes_what_is_gone() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let store = open(&from);
    let mut last = 0;
    for round in 1..=12 {
        for _ in 0..60 {
            last += 1;
            commit(&store, last);
        }
        if round % 4 == 0 {
            store.compact().unwrap();
        }
        let report = store.backup_to(&to).unwrap();
        assert_eq!(check_prefix(&look(&to)), last);
        let names = |path: &Path| -> Vec<String> {
            let files = files(path, ".seg").into_iter();
            let name = |file: PathBuf| file.file_name().unwrap().to_str().unwrap().to_owned();
            files.map(name).collect()
        };
        assert_eq!(names(&from), names(&to));
        if round % 4 == 0 {
            assert!(report.removed > 0, "{report:?}");
        } else if round > 1 {
            assert!(report.kept > 0, "{report:?}");
        }
        let again = store.backup_to(&to).unwrap();
        assert_eq!((again.linked, again.removed), (0, 0), "{again:?}");
    }
    store.close().unwrap();
    let store = open(&from);
    store.backup_to(&to).unwrap();
    assert_eq!(check_prefix(&look(&to)), last);
}

#[test]
fn what_is_no_backup_of_this_store_is_refused_and_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let store = open(&path("from"));
    commit(&store, 1);
    let other = open(&path("other"));
    commit(&other, 1);
    other.close().unwrap();
    std::fs::create_dir(path("full")).unwrap();
    std::fs::write(path("full").join("notes.txt"), "mine").unwrap();
    std::fs::write(path("file"), "mine").unwrap();
    // A copy without the mark of a backup, and one that has lost its manifest.
    store.backup_to(path("copy")).unwrap();
    std::fs::remove_file(path("copy").join("BACKUP")).unwrap();
    std::fs::create_dir(path("lost")).unwrap();
    std::fs::copy(path("from/00000001.seg"), path("lost/00000001.seg")).unwrap();
    for name in ["other", "full", "file", "from", "copy", "lost"] {
        let refused = store.backup_to(path(name)).unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotABackup, "{name}: {refused}");
    }
    assert_eq!(files(&path("full"), "").len(), 1);
    assert_eq!(check_prefix(&look(&path("other"))), 1);
    let refused = Store::in_memory().backup_to(path("memory")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotABackup);
    store.close().unwrap();
    let reader = look(&path("from"));
    reader.backup_to(path("beside")).unwrap();
    assert_eq!(check_prefix(&look(&path("beside"))), 1);
}

#[test]
fn a_backup_that_is_open_is_waited_for() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let brief = options().lock_timeout(std::time::Duration::from_millis(20));
    let store = brief.open(&from).unwrap();
    commit(&store, 1);
    store.backup_to(&to).unwrap();
    let copy = look(&to);
    commit(&store, 2);
    let refused = store.backup_to(&to).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LockTimeout, "{refused}");
    copy.close().unwrap();
    store.backup_to(&to).unwrap();
    assert_eq!(check_prefix(&look(&to)), 2);
}

#[test]
fn on_a_machine_without_links_segments_are_copied() {
    let world = World::new(1);
    let refusal = Fault::lasting(FaultEffect::Clean, std::io::ErrorKind::Unsupported);
    world.fail_call(1, refusal.scope(FaultScope::Only(Call::Link)));
    let machine = world.process();
    let options = || options().vfs(machine.clone());
    let store = options().open("/from").unwrap();
    (1..=200).for_each(|number| commit(&store, number));
    let report = store.backup_to("/to").unwrap();
    assert!(report.linked == 0 && report.copied > 3, "{report:?}");
    (201..=300).for_each(|number| commit(&store, number));
    let report = store.backup_to("/to").unwrap();
    assert!(report.kept > 3, "{report:?}");
    let copy = options().access(Access::ReadOnly).open("/to").unwrap();
    copy.verify().unwrap();
    assert_eq!(check_prefix(&copy), 300);
}

#[test]
#[ignore = "a process of another test"]
fn writing_process() {
    let path = std::env::var_os("HAPPYSTORE_BACKUP_PATH").unwrap();
    let busy = Compaction::automatic().dead_ratio(0.3).dead_bytes(0);
    let options = options().segment_bytes(32 << 10).compaction(busy);
    let store = options.open(Path::new(&path)).unwrap();
    for number in 1.. {
        commit(&store, number);
        let _ = writeln!(std::io::stdout(), "commit: {number}");
    }
}

#[test]
fn a_hundred_backups_while_another_process_writes_and_compacts() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "backup::writing_process", "--ignored"])
        .arg("--nocapture")
        .env("HAPPYSTORE_BACKUP_PATH", &from)
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let told = Arc::new(AtomicU64::new(0));
    let output = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn({
        let told = told.clone();
        move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some((_, number)) = line.split_once("commit: ") {
                    told.store(number.parse().unwrap_or(0), Ordering::SeqCst);
                }
            }
        }
    });
    while told.load(Ordering::SeqCst) < 100 {
        std::thread::sleep(std::time::Duration::from_millis(5));
    }
    let store = open(&from);
    let (mut linked, mut removed) = (0, 0);
    for round in 0..BACKUPS {
        let fresh = directory.path().join(format!("fresh{round}"));
        let to = if round % 3 == 0 { &fresh } else { &to };
        let before = told.load(Ordering::SeqCst);
        let report = store.backup_to(to).unwrap();
        (linked, removed) = (linked + report.linked, removed + report.removed);
        let last = check_prefix(&look(to));
        assert!(last >= before, "round {round}: {last} of {before}");
        if round % 3 == 0 {
            std::fs::remove_dir_all(&fresh).unwrap();
        }
    }
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap();
    assert!(linked > 100 && removed > 0, "{linked} {removed}");
}
