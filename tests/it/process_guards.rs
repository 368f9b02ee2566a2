//! What may happen to a store from outside while processes have it open: they are stopped, the
//! directory is moved, removed, replaced, or led to by another path.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use happystore::{Access, Durability, ErrorKind, Json, Options, Store};

use crate::processes::Other;
use crate::support::assert_refused;

fn impatient(path: &Path) -> Store {
    let options = Options::new().lock_timeout(Duration::from_millis(100));
    options.open(path).unwrap()
}

#[test]
fn a_stopped_process_that_has_nothing_to_write_keeps_nobody_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let mut other = Other::open(directory.path(), "os");
    other.tell("increment");
    assert_eq!(other.answer(), "1");
    // Many times longer than it keeps the lock for nothing.
    std::thread::sleep(Duration::from_millis(100));
    other.signal(libc::SIGSTOP);
    let store = impatient(directory.path());
    assert_eq!(store.get("a").unwrap(), Some(1));
    store.set("a", &10).unwrap();
    store.close().unwrap();
    let store = impatient(directory.path());
    store.set("b", &1).unwrap();
    other.signal(libc::SIGCONT);
    other.tell("increment");
    assert_eq!(other.answer(), "11");
    assert_eq!(store.get("a").unwrap(), Some(11));
    other.kill();
}

#[test]
fn a_process_stopped_in_a_transaction_is_named_to_those_who_wait_and_goes_on_when_continued() {
    let directory = tempfile::tempdir().unwrap();
    let store = impatient(directory.path());
    store.set("a", &1).unwrap();
    let mut other = Other::open(directory.path(), "");
    other.tell("hold until told");
    assert_eq!(other.answer(), "holding");
    other.signal(libc::SIGSTOP);
    let words = ["a long job", &other.id().to_string()];
    let begun = Instant::now();
    assert_refused(store.set("a", &2), ErrorKind::LockTimeout, &words);
    assert!(begun.elapsed() >= Duration::from_millis(100));
    assert_eq!(store.get("a").unwrap(), Some(1), "readers wait for nobody");
    other.signal(libc::SIGCONT);
    other.tell("commit");
    assert_eq!(other.answer(), "committed");
    assert_eq!(store.get("a").unwrap(), Some(100));
    store.set("a", &3).unwrap();
    other.kill();
}

/// Fills segments until a new one is needed, which is made by its path.
fn fill(store: &Store) -> happystore::Result<()> {
    for number in 0..200 {
        let options = happystore::TxOptions::new().durability(Durability::Os);
        let tx = store.begin_with(&options)?;
        tx.set(&format!("{number:03}"), &vec![7_u8; 1000])?;
        tx.commit()?;
    }
    Ok(())
}

#[test]
fn a_directory_that_was_moved_is_told_of_and_nothing_is_written_where_it_was() {
    let root = tempfile::tempdir().unwrap();
    let (path, moved) = (root.path().join("store"), root.path().join("moved"));
    let open = |path: &Path| Options::new().segment_bytes(64 << 10).open(path).unwrap();
    let store = open(&path);
    store.set("a", &1).unwrap();
    fs::rename(&path, &moved).unwrap();
    // Another store lies in its place, with the same files.
    let options = Options::new().segment_bytes(64 << 10);
    let intruder = options.create(happystore::Create::New).open(&path).unwrap();
    intruder.set("b", &2).unwrap();
    intruder.close().unwrap();
    let before = files(&path);
    assert_refused(fill(&store), ErrorKind::Io, &["moved or replaced"]);
    // Found by another path, it is the same store.
    assert_eq!(open(&moved).get("a").unwrap(), Some(1));
    store.set("a", &3).unwrap_or_else(|error| {
        assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    });
    drop(store);
    assert_eq!(files(&path), before, "the other store was written to");
    let intruder = open(&path);
    assert_eq!(intruder.get("b").unwrap(), Some(2));
    assert_eq!(intruder.query().count().unwrap(), 1);
    let store = open(&moved);
    assert!(store.get::<i32>("a").unwrap().is_some());
    fill(&store).unwrap();
}

/// Names and contents of all files but those of locks.
fn files(directory: &Path) -> Vec<(String, Vec<u8>)> {
    let names = fs::read_dir(directory).unwrap();
    let names = names.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let names = names.filter(|name| !["LOCK", "OPEN", "STATE"].contains(&name.as_str()));
    let mut files: Vec<_> = names
        .map(|name| (name.clone(), fs::read(directory.join(&name)).unwrap()))
        .collect();
    files.sort();
    files
}

#[test]
fn a_directory_that_was_removed_gives_errors_and_does_not_come_back() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().join("store");
    let store = Options::new().segment_bytes(64 << 10).open(&path).unwrap();
    store.set("a", &1).unwrap();
    fs::remove_dir_all(&path).unwrap();
    assert_eq!(
        store.get("a").unwrap(),
        Some(1),
        "what is open is still there"
    );
    assert_refused(fill(&store), ErrorKind::Io, &["store"]);
    drop(store);
    assert!(!path.exists());
}

#[test]
fn paths_that_lead_to_one_directory_open_one_store() {
    let root = tempfile::tempdir().unwrap();
    let (path, link) = (root.path().join("store"), root.path().join("link"));
    let store = Options::new()
        .access(Access::Exclusive)
        .open(&path)
        .unwrap();
    std::os::unix::fs::symlink(&path, &link).unwrap();
    let around = root.path().join("link/../store/.");
    for other in [link, around] {
        let options = Options::new().access(Access::Exclusive);
        let second = options.open(&other).unwrap();
        second.set("a", &1).unwrap();
        assert_eq!(store.get("a").unwrap(), Some(1));
        store.delete("a").unwrap();
    }
}

#[test]
fn a_process_that_takes_the_store_for_something_else_is_refused_and_harms_nobody() {
    let directory = tempfile::tempdir().unwrap();
    let mut other = Other::open(directory.path(), "");
    other.tell("increment");
    assert_eq!(other.answer(), "1");
    let path = directory.path();
    let json = Options::new().serializer(Json).open(path).map(drop);
    assert_refused(json, ErrorKind::SerializerMismatch, &["cbor", "json"]);
    let bytes = Options::new().byte_keys().open(path).map(drop);
    assert_refused(bytes, ErrorKind::KeyKindMismatch, &[]);
    let new = Options::new().create(happystore::Create::New).open(path);
    assert_refused(new.map(drop), ErrorKind::AlreadyExists, &[]);
    let hurried = Options::new().access(Access::Exclusive);
    let hurried = hurried.lock_timeout(Duration::ZERO).open(path).map(drop);
    assert_refused(hurried, ErrorKind::LockTimeout, &[]);
    other.tell("increment");
    assert_eq!(other.answer(), "2");
    assert_eq!(impatient(path).get("a").unwrap(), Some(2));
    other.kill();
}

/// What other processes then open is not what this one has: nothing more is written beside them.
#[test]
fn a_file_of_locks_that_was_removed_is_told_of_and_nobody_writes_beside_another() {
    let names = ["LOCK", "OPEN", "STATE"];
    for (name, way) in names
        .iter()
        .flat_map(|name| [(name, "removed"), (name, "renamed")])
    {
        let directory = tempfile::tempdir().unwrap();
        let store = impatient(directory.path());
        store.set("a", &1).unwrap();
        // Longer than the lock is kept for nothing.
        std::thread::sleep(Duration::from_millis(50));
        let path = directory.path().join(name);
        match way {
            "removed" => fs::remove_file(path).unwrap(),
            _ => fs::rename(path, directory.path().join("elsewhere")).unwrap(),
        }
        let mut other = Other::open(directory.path(), "");
        other.tell("increment");
        assert_eq!(other.answer(), "2");
        let refused = store.set("a", &10);
        assert_refused(refused, ErrorKind::Io, &[name, "was removed", "close"]);
        other.tell("increment");
        assert_eq!(other.answer(), "3");
        other.kill();
        drop(store);
        let store = impatient(directory.path());
        assert_eq!(store.get("a").unwrap(), Some(3));
        store.verify().unwrap();
        store.set("a", &4).unwrap();
    }
}

/// A busy process never asks for the lock again: it is told all the same.
#[test]
fn a_process_that_writes_without_a_pause_notices_that_its_lock_was_removed() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().durability(Durability::Os);
    let store = options.open(directory.path()).unwrap();
    store.set("a", &0).unwrap();
    fs::remove_file(directory.path().join("LOCK")).unwrap();
    let begun = Instant::now();
    let error = loop {
        if let Err(error) = store.set("a", &1) {
            break error;
        }
        assert!(begun.elapsed() < Duration::from_secs(30), "it writes on");
    };
    assert_eq!(error.kind(), ErrorKind::Io, "{error}");
    assert_eq!(store.get("a").unwrap(), Some(1));
}

/// As after the disk was put back to an earlier moment while a reader had the store open.
#[test]
fn an_older_page_than_the_log_is_told_of_and_nothing_is_written_over_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let state = directory.path().join("STATE");
    let store = impatient(directory.path());
    store.set("a", &1).unwrap();
    let old = fs::read(&state).unwrap();
    store.set("a", &2).unwrap();
    store.set("b", &2).unwrap();
    drop(store);
    let reader = Other::open(directory.path(), "read");
    // Written in place: the reader keeps its page.
    fs::write(&state, old).unwrap();
    let store = impatient(directory.path());
    assert_refused(store.set("c", &3), ErrorKind::Io, &["STATE", "put back"]);
    drop(store);
    reader.kill();
    let store = impatient(directory.path());
    assert_eq!(
        store.bulk_get::<i32>(["a", "b", "c"]).unwrap(),
        [Some(2), Some(2), None]
    );
    store.set("c", &3).unwrap();
}

/// Its locks would be of one store, and its log of another.
#[test]
fn an_opening_whose_directory_is_replaced_while_it_waits_is_refused() {
    for access in [Access::Shared, Access::Exclusive] {
        let root = tempfile::tempdir().unwrap();
        let [path, old, new] = ["store", "old", "new"].map(|name| root.path().join(name));
        Store::open(&new).unwrap().set("a", &2).unwrap();
        let mut other = Other::open(&path, "");
        other.tell("increment");
        assert_eq!(other.answer(), "1");
        other.tell("hold until told");
        assert_eq!(other.answer(), "holding");
        std::thread::scope(|scope| {
            let options = Options::new().lock_timeout(Duration::from_mins(1));
            let opening = scope.spawn(|| options.access(access).open(&path).map(drop));
            std::thread::sleep(Duration::from_millis(300));
            assert!(!opening.is_finished(), "it did not wait");
            fs::rename(&path, &old).unwrap();
            fs::rename(&new, &path).unwrap();
            other.tell("commit");
            assert_eq!(other.answer(), "committed");
            other.kill();
            let refused = opening.join().unwrap();
            assert_refused(refused, ErrorKind::Io, &["moved or replaced"]);
        });
        assert_eq!(Store::open(&path).unwrap().get("a").unwrap(), Some(2));
        assert_eq!(Store::open(&old).unwrap().get("a").unwrap(), Some(100));
    }
}
