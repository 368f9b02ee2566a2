//! Closing beside other threads: it waits for a transaction, and ends all or nothing.

use std::io;
use std::thread;
use std::time::{Duration, Instant};

use happystore::vfs::sim::{Fault, FaultEffect, World};
use happystore::{Durability, ErrorKind, Options, Store};

use crate::support::{Place, assert_refused, real, with_threads};

#[test]
fn a_close_that_waited_in_vain_closes_nothing_and_can_be_tried_again() {
    for place in with_threads() {
        let options = place.options().lock_timeout(Duration::from_millis(20));
        let store = place.open_with(options).unwrap();
        let tx = store.begin().unwrap();
        let late = thread::scope(|scope| scope.spawn(|| store.clone().close()).join());
        assert_refused(late.unwrap(), ErrorKind::LockTimeout, &["has held it"]);
        tx.set("a", &1).unwrap();
        tx.commit().unwrap();
        let clone = store.clone();
        store.close().unwrap();
        assert_refused(clone.has("a"), ErrorKind::Closed, &[]);
    }
}

#[test]
fn a_close_waits_for_the_transaction_of_another_thread_which_commits() {
    let place = real();
    let options = place.options().lock_timeout(Duration::from_mins(1));
    let store = place.open_with(options).unwrap();
    let tx = store.begin().unwrap();
    let closed = thread::scope(|scope| {
        let close = scope.spawn(|| store.clone().close());
        let begun = Instant::now();
        while store.stats().unwrap().lock_waits == 0 {
            assert!(
                begun.elapsed() < Duration::from_mins(1),
                "close does not wait"
            );
            thread::sleep(Duration::from_millis(1));
        }
        tx.set("a", &1).unwrap();
        assert_eq!(tx.get::<i32>("a").unwrap(), Some(1));
        tx.commit().unwrap();
        close.join().unwrap()
    });
    closed.unwrap();
    assert_refused(store.get::<i32>("a"), ErrorKind::Closed, &[]);
    drop(store);
    assert_eq!(place.open().get::<i32>("a").unwrap(), Some(1));
}

#[test]
fn what_a_clean_close_has_made_whole_cannot_be_cut_off_unnoticed() {
    let fill = |place: &Place| {
        let store = place.open();
        store
            .bulk_set((0..150).map(|n| (format!("{n:03}"), vec![7_u8; 1000])))
            .unwrap();
        store.set("last", &1).unwrap();
        store.close().unwrap();
        let segment = place.path().join("00000001.seg");
        let bytes = std::fs::read(&segment).unwrap();
        (segment, bytes)
    };
    for cut in [40_000, 100_000, 150_000] {
        let place = real();
        let (segment, bytes) = fill(&place);
        std::fs::write(&segment, &bytes[..cut]).unwrap();
        assert_refused(
            place.options().open(place.path()),
            ErrorKind::Corrupt,
            &["00000001.seg"],
        );
        let mut zeroed = bytes.clone();
        zeroed[cut..].fill(0);
        std::fs::write(&segment, &zeroed).unwrap();
        assert_refused(
            place.options().open(place.path()),
            ErrorKind::Corrupt,
            &["00000001.seg"],
        );
        std::fs::write(&segment, &bytes).unwrap();
        assert_eq!(place.open().query().count().unwrap(), 151);
    }
}

#[test]
fn a_close_makes_all_durable_even_while_another_opening_goes_on() {
    let world = World::new(1);
    let process = world.process();
    let open = || {
        let options = Options::new().vfs(process.clone());
        options.durability(Durability::Os).open("/s").unwrap()
    };
    let (first, second) = (open(), open());
    first.set("a", &1).unwrap();
    first.close().unwrap();
    second.set("not promised", &2).unwrap();
    for image in world.journal().last_point(64, 1).images() {
        let after: Store = Options::new()
            .vfs(World::from_image(image, 1).process())
            .open("/s")
            .unwrap();
        assert_eq!(after.get::<i32>("a").unwrap(), Some(1));
    }
}

#[test]
fn a_close_that_reports_a_failure_leaves_another_opening_open() {
    let world = World::new(1);
    let process = world.process();
    let open = || {
        let options = Options::new().vfs(process.clone());
        options.durability(Durability::Os).open("/s").unwrap()
    };
    let (first, second): (Store, Store) = (open(), open());
    first.set("a", &1).unwrap();
    world.fail_call(1, Fault::once(FaultEffect::Clean, io::ErrorKind::Other));
    assert_refused(first.close(), ErrorKind::Io, &["00000001.seg"]);
    assert_eq!(second.get::<i32>("a").unwrap(), Some(1));
    assert_refused(second.set("b", &2), ErrorKind::Poisoned, &["/s"]);
    assert_refused(second.close(), ErrorKind::Poisoned, &["/s"]);
    open().set("b", &2).unwrap();
}

/// Each mark behind the one before would take the room of nothing, and in the end the segment's.
#[test]
fn a_log_has_one_mark_of_a_clean_close_however_often_processes_come_and_go() {
    let world = World::new(1);
    let open = || {
        let options = Options::new().segment_bytes(512).vfs(world.process());
        options.open("/s").unwrap()
    };
    let store = open();
    store.set("a", &[7_u8; 100][..]).unwrap();
    store.close().unwrap();
    let segment_bytes = || {
        let store = open();
        let bytes = store.stats().unwrap().live_bytes + store.stats().unwrap().dead_bytes;
        store.close().unwrap();
        bytes
    };
    let before = segment_bytes();
    for _ in 0..20 {
        let first = open();
        let second = open();
        second.close().unwrap();
        first.close().unwrap();
    }
    assert_eq!(segment_bytes(), before);
    let store = open();
    assert_eq!(store.get::<Vec<u8>>("a").unwrap(), Some(vec![7; 100]));
    store.set("b", &1).unwrap();
    store.close().unwrap();
    assert_eq!(open().get::<i32>("b").unwrap(), Some(1));
}
