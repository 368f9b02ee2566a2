//! Forks, spawned programs, ids and clocks.

use std::collections::HashSet;
use std::process::Command;
use std::time::Duration;

use super::super::super::{LockKind, Next, OpenMode};
use super::super::fork::exit_code_of_forked;
use super::{machines, os};

#[test]
fn fork_count_rises_in_a_forked_child_alone() {
    let m = os();
    let before = m.vfs.fork_count();
    let risen = exit_code_of_forked(|| u8::try_from(m.vfs.fork_count() - before).unwrap_or(99));
    assert_eq!(risen, 1);
    let twice = exit_code_of_forked(|| {
        let inner = || u8::try_from(m.vfs.fork_count() - before).unwrap_or(99);
        u8::try_from(exit_code_of_forked(inner)).unwrap_or(99)
    });
    assert_eq!(twice, 2);
    assert_eq!(m.vfs.fork_count(), before);
}

#[test]
fn a_forked_child_neither_frees_nor_takes_its_parents_lock() {
    let m = os();
    let open = || {
        m.vfs
            .open(&m.path("LOCK"), OpenMode::WriteOrCreate)
            .unwrap()
    };
    let held = open();
    assert!(held.try_lock(LockKind::Exclusive).unwrap());
    let mut copy = Some(std::sync::Arc::clone(&held));
    let refused = exit_code_of_forked(|| {
        let refused = held.try_lock(LockKind::Exclusive).is_err() && held.unlock().is_err();
        drop(copy.take());
        u8::from(refused)
    });
    assert_eq!(refused, 1);
    assert!(
        !open().try_lock(LockKind::Exclusive).unwrap(),
        "still the parent's"
    );
}

#[test]
fn a_lock_dropped_by_the_parent_is_free_though_a_child_lives() {
    let m = os();
    let open = || {
        m.vfs
            .open(&m.path("LOCK"), OpenMode::WriteOrCreate)
            .unwrap()
    };
    let held = open();
    assert!(held.try_lock(LockKind::Exclusive).unwrap());
    let page = m
        .vfs
        .shared_page(&m.path("STATE"), OpenMode::WriteOrCreate)
        .unwrap();
    std::thread::scope(|scope| {
        let child = scope.spawn(|| {
            exit_code_of_forked(|| {
                page.store(0, 1);
                while page.load(0) != 2 {
                    m.vfs.sleep(Duration::from_millis(1));
                }
                0
            })
        });
        while page.load(0) != 1 {
            m.vfs.sleep(Duration::from_millis(1));
        }
        drop(held);
        let free = open().try_lock(LockKind::Exclusive).unwrap();
        page.store(0, 2);
        assert_eq!(child.join().unwrap(), 0);
        assert!(free);
    });
}

#[test]
fn a_child_sees_the_shared_page_and_its_parents_worker_is_not_there() {
    let m = os();
    let page = m
        .vfs
        .shared_page(&m.path("STATE"), OpenMode::WriteOrCreate)
        .unwrap();
    let worker = m
        .vfs
        .spawn("parent's", Box::new(|| Next::WhenWoken))
        .unwrap();
    let added = exit_code_of_forked(|| {
        worker.wake();
        worker.stop();
        u8::try_from(page.fetch_add(9, 5)).unwrap_or(99)
    });
    assert_eq!((added, page.load(9)), (0, 5));
    worker.stop();
}

#[test]
fn a_lock_is_not_inherited_by_spawned_programs() {
    let m = os();
    let open = || {
        m.vfs
            .open(&m.path("LOCK"), OpenMode::WriteOrCreate)
            .unwrap()
    };
    let held = open();
    assert!(held.try_lock(LockKind::Exclusive).unwrap());
    let mut program = Command::new("sleep").arg("60").spawn().unwrap();
    drop(held);
    let free = open().try_lock(LockKind::Exclusive).unwrap();
    program.kill().unwrap();
    program.wait().unwrap();
    assert!(free);
}

#[test]
fn ids_are_never_given_twice() {
    for m in machines() {
        let ids: HashSet<_> = (0..1000).map(|_| m.vfs.unique_id()).collect();
        assert_eq!(ids.len(), 1000, "{}", m.name);
        let here = m.vfs.thread_id();
        assert_eq!(m.vfs.thread_id(), here);
        let there = std::thread::scope(|scope| {
            let one = scope.spawn(|| m.vfs.thread_id()).join().unwrap();
            [one, scope.spawn(|| m.vfs.thread_id()).join().unwrap()]
        });
        assert!(there[0] != there[1] && !there.contains(&here) && here != 0);
        assert_eq!(m.vfs.process_id(), std::process::id());
    }
}

#[test]
fn a_forked_child_makes_ids_of_its_own() {
    let m = os();
    let page = m
        .vfs
        .shared_page(&m.path("STATE"), OpenMode::WriteOrCreate)
        .unwrap();
    let put = |index: usize| {
        for (word, half) in m.vfs.unique_id().chunks_exact(8).enumerate() {
            page.store(index + word, u64::from_le_bytes(half.try_into().unwrap()));
        }
        0
    };
    assert_eq!(exit_code_of_forked(|| put(0)), 0);
    put(2);
    assert!(page.load(0) != page.load(2) && page.load(1) != page.load(3));
}

#[test]
fn clocks_go_on() {
    for m in machines() {
        let morning = m.vfs.monotonic() + Duration::from_millis(5);
        m.vfs.sleep(Duration::from_millis(5));
        assert!(m.vfs.monotonic() >= morning);
        assert!(m.vfs.unix_time() > Duration::from_secs(1_600_000_000));
    }
    let m = os();
    let before = m.vfs.monotonic();
    assert_eq!(
        exit_code_of_forked(|| u8::from(m.vfs.monotonic() >= before)),
        1
    );
}
