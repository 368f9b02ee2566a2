//! Threads: writers take turns and lose nothing, readers see one moment, waits have an end.
//!
//! Whatever these tests wait for has a generous deadline; none of them measures how fast it is.

use std::collections::HashSet;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use happystore::vfs::sim::World;
use happystore::{Durability, Error, ErrorKind, Holder, Options, Result, Store, TxOptions};

use crate::support::{assert_refused, real, refused, with_threads};

/// How long anything may take before a test says that it will never happen.
const PATIENCE: Duration = Duration::from_mins(1);

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "{what} did not happen");
        thread::sleep(Duration::from_millis(1));
    }
}

/// Waits until `count` more writers have to wait for the lock than `before`.
fn wait_for_waiters(store: &Store, before: u64, count: u64) {
    wait_until("waiting", || {
        store.stats().unwrap().lock_waits >= before + count
    });
}

#[test]
fn transactions_of_many_threads_lose_no_update() {
    for place in with_threads() {
        let store = place
            .open_with(place.options().lock_timeout(PATIENCE))
            .unwrap();
        thread::scope(|scope| {
            for thread in 0..8 {
                let store = store.clone();
                scope.spawn(move || {
                    for n in 0..500 {
                        let key = ((thread + n) % 10).to_string();
                        store
                            .transaction(|tx| {
                                let value: u64 = tx.get(&key)?.unwrap_or(0);
                                tx.set(&key, &(value + 1))
                            })
                            .unwrap();
                    }
                });
            }
        });
        let total: u64 = store
            .query()
            .pairs::<u64>()
            .unwrap()
            .iter()
            .map(|pair| pair.1)
            .sum();
        assert_eq!(total, 8 * 500);
        assert_eq!(store.stats().unwrap().commits, 8 * 500);
        store.verify().unwrap();
    }
}

fn sum(pairs: impl Iterator<Item = Result<(String, i64)>>) -> i64 {
    pairs.map(|pair| pair.unwrap().1).sum()
}

/// Moves one from one account to another, sometimes by way of deleting and setting again.
fn transfer(store: &Store, from: u32, to: u32) -> Result<()> {
    let (from, to) = (format!("account/{from:02}"), format!("account/{to:02}"));
    store.transaction(|tx| {
        let (a, b): (i64, i64) = (tx.get(&from)?.unwrap_or(0), tx.get(&to)?.unwrap_or(0));
        if a == 1 {
            tx.delete(&from)?;
        } else {
            tx.set(&from, &(a - 1))?;
        }
        tx.set(&to, &(b + 1))
    })
}

#[test]
fn readers_beside_writers_see_one_moment_each() {
    for place in with_threads() {
        let store = place
            .open_with(place.options().lock_timeout(PATIENCE))
            .unwrap();
        store
            .bulk_set((0..40).map(|n| (format!("account/{n:02}"), 5_i64)))
            .unwrap();
        let (done, checks) = (AtomicBool::new(false), AtomicUsize::new(0));
        thread::scope(|scope| {
            for reader in 0..4 {
                let (store, done, checks) = (&store, &done, &checks);
                scope.spawn(move || {
                    while !done.load(Ordering::Relaxed) {
                        let total = match reader {
                            0 => sum(store.query().prefix("account/").iter().unwrap()),
                            1 => sum(store.scan().page_size(3).iter().unwrap().rev()),
                            2 => sum(store.query().pairs().unwrap().into_iter().map(Ok)),
                            _ => {
                                let snapshot = store.snapshot().unwrap();
                                thread::sleep(Duration::from_millis(1));
                                let keys = (0..40).map(|n| format!("account/{n:02}"));
                                let found = snapshot.bulk_get::<i64>(keys).unwrap();
                                let total = found.iter().flatten().sum();
                                assert_eq!(sum(snapshot.query().iter().unwrap()), total);
                                total
                            }
                        };
                        assert_eq!(total, 200, "reader {reader}");
                        checks.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            for n in 0..3_000_u32 {
                transfer(&store, n * 7 % 40, (n * 11 + 1) % 40).unwrap();
            }
            wait_until("reading", || checks.load(Ordering::Relaxed) > 50);
            done.store(true, Ordering::Relaxed);
        });
        assert_eq!(sum(store.query().iter().unwrap()), 200);
        assert_eq!(store.stats().unwrap().snapshots, 0);
    }
}

fn holder(error: Error) -> (Duration, Box<Holder>) {
    match error {
        Error::LockTimeout {
            waited,
            holder: Some(holder),
            ..
        } => (waited, holder),
        other => panic!("a timeout with its holder, not {other}"),
    }
}

#[test]
fn a_timeout_says_how_long_it_waited_and_for_whom() {
    for place in with_threads() {
        let timeout = Duration::from_millis(50);
        let store = place
            .open_with(place.options().lock_timeout(timeout).label("us"))
            .unwrap();
        for (options, label) in [
            (TxOptions::new(), "us"),
            (TxOptions::new().label("nightly import"), "nightly import"),
        ] {
            let tx = store.begin_with(&options).unwrap();
            let error = thread::scope(|scope| scope.spawn(|| refused(store.set("a", &1))).join());
            let error = error.unwrap();
            assert!(error.is_retryable());
            let message = error.to_string();
            for part in [
                label,
                &std::process::id().to_string(),
                "lock_timeout",
                "try again",
            ] {
                assert!(message.contains(part), "{message}");
            }
            let (waited, holder) = holder(error);
            assert!(waited >= timeout);
            assert_eq!(
                (holder.process_id, &*holder.label),
                (std::process::id(), label)
            );
            assert!(holder.held_for >= waited, "it was held before we came");
            tx.commit().unwrap();
            store.set("a", &1).unwrap();
        }
    }
}

#[test]
fn zero_tries_once_and_a_longer_wait_of_a_transaction_overrides_it() {
    for place in with_threads() {
        let store = place
            .open_with(place.options().lock_timeout(Duration::ZERO))
            .unwrap();
        let tx = store.begin().unwrap();
        tx.set("a", &1).unwrap();
        thread::scope(|scope| {
            let once = scope.spawn(|| {
                assert_refused(store.set("a", &2), ErrorKind::LockTimeout, &["happystore"]);
                assert_refused(store.begin(), ErrorKind::LockTimeout, &[]);
                assert_refused(store.query().delete(), ErrorKind::LockTimeout, &[]);
            });
            once.join().unwrap();
            let before = store.stats().unwrap().lock_waits;
            let patient = scope.spawn(|| {
                let tx = store
                    .begin_with(&TxOptions::new().timeout(PATIENCE))
                    .unwrap();
                let seen: Option<i32> = tx.get("a").unwrap();
                tx.set("a", &2).unwrap();
                tx.commit().unwrap();
                seen
            });
            wait_for_waiters(&store, before, 1);
            tx.commit().unwrap();
            assert_eq!(
                patient.join().unwrap(),
                Some(1),
                "it begins behind the commit"
            );
        });
        assert_eq!(store.get("a").unwrap(), Some(2));
    }
}

#[test]
fn no_thread_starves() {
    for place in with_threads() {
        let store = place
            .open_with(place.options().lock_timeout(PATIENCE))
            .unwrap();
        let (start, stop) = (Barrier::new(8), AtomicBool::new(false));
        let counts: Vec<AtomicUsize> = (0..8).map(|_| AtomicUsize::new(0)).collect();
        thread::scope(|scope| {
            for count in &counts {
                let (store, start, stop) = (&store, &start, &stop);
                scope.spawn(move || {
                    start.wait();
                    while !stop.load(Ordering::Relaxed) {
                        let tx = store.begin().unwrap();
                        tx.set("a", &1).unwrap();
                        // Whoever holds the lock is never in a hurry.
                        thread::yield_now();
                        tx.commit().unwrap();
                        count.fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
            wait_until("progress of all", || {
                counts
                    .iter()
                    .all(|count| count.load(Ordering::Relaxed) >= 20)
            });
            stop.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn waiters_are_served_in_the_order_in_which_they_came() {
    for place in with_threads() {
        let store = place
            .open_with(place.options().lock_timeout(PATIENCE))
            .unwrap();
        store.set("order", &Vec::<u64>::new()).unwrap();
        let tx = store.begin().unwrap();
        let before = store.stats().unwrap().lock_waits;
        thread::scope(|scope| {
            for n in 0..6 {
                let store = &store;
                scope.spawn(move || {
                    store.transaction(|tx| {
                        let mut order: Vec<u64> = tx.get("order")?.unwrap();
                        order.push(n);
                        tx.set("order", &order)
                    })
                });
                wait_for_waiters(store, before, n + 1);
                // It is counted just before it joins the queue.
                thread::sleep(Duration::from_millis(20));
            }
            tx.commit().unwrap();
        });
        assert_eq!(store.get("order").unwrap(), Some(vec![0, 1, 2, 3, 4, 5]));
    }
}

#[test]
fn a_waiter_that_gives_up_does_not_take_the_turn_of_the_next() {
    for place in with_threads() {
        let store = place
            .open_with(place.options().lock_timeout(PATIENCE))
            .unwrap();
        for round in 0..100_u64 {
            let tx = store.begin().unwrap();
            let before = store.stats().unwrap().lock_waits;
            thread::scope(|scope| {
                // Its time is over about when the lock comes back.
                let hasty = TxOptions::new().timeout(Duration::from_micros(500 + round * 10));
                let gives_up = scope.spawn({
                    let store = &store;
                    move || store.begin_with(&hasty).map(drop)
                });
                wait_for_waiters(&store, before, 1);
                let patient = scope.spawn(|| store.set("a", &round));
                wait_for_waiters(&store, before, 2);
                thread::sleep(Duration::from_micros(round * 5));
                drop(tx);
                patient.join().unwrap().unwrap();
                if let Err(error) = gives_up.join().unwrap() {
                    assert_eq!(error.kind(), ErrorKind::LockTimeout);
                }
            });
            store.set("a", &round).unwrap();
        }
    }
}

#[test]
fn waiters_behind_one_that_gave_up_are_still_served() {
    for place in with_threads() {
        let store = place
            .open_with(place.options().lock_timeout(PATIENCE))
            .unwrap();
        let tx = store.begin().unwrap();
        let before = store.stats().unwrap().lock_waits;
        thread::scope(|scope| {
            let first = scope.spawn(|| {
                let timeout = TxOptions::new().timeout(Duration::from_millis(100));
                refused(store.begin_with(&timeout))
            });
            wait_for_waiters(&store, before, 1);
            let second = scope.spawn(|| store.set("a", &2));
            wait_for_waiters(&store, before, 2);
            assert_eq!(first.join().unwrap().kind(), ErrorKind::LockTimeout);
            tx.commit().unwrap();
            second.join().unwrap().unwrap();
        });
        assert_eq!(store.get("a").unwrap(), Some(2));
    }
}

#[test]
fn readers_of_a_key_never_miss_it_however_often_it_is_overwritten() {
    for place in with_threads() {
        let store = place.open();
        store.set("a", &0).unwrap();
        let done = AtomicBool::new(false);
        thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let mut last = 0;
                    while !done.load(Ordering::Relaxed) {
                        assert!(store.has("a").unwrap());
                        let value: i32 = store.get("a").unwrap().unwrap();
                        assert!(value >= last, "time goes forwards");
                        last = value;
                    }
                });
            }
            for round in 0..100_000 {
                store.set("a", &round).unwrap();
            }
            done.store(true, Ordering::Relaxed);
        });
    }
}

#[test]
fn a_writer_that_comes_back_queues_behind_those_who_wait() {
    for place in with_threads() {
        let store = place
            .open_with(place.options().lock_timeout(PATIENCE))
            .unwrap();
        for round in 0..10 {
            let tx = store.begin().unwrap();
            let before = store.stats().unwrap().lock_waits;
            thread::scope(|scope| {
                scope.spawn(|| store.set("a", &round).unwrap());
                wait_for_waiters(&store, before, 1);
                // It is counted just before it joins the queue.
                thread::sleep(Duration::from_millis(20));
                tx.commit().unwrap();
                let tx = store.begin().unwrap();
                assert_eq!(tx.get("a").unwrap(), Some(round), "it was first");
            });
        }
    }
}

#[test]
fn a_deferred_commit_is_synced_in_the_background() {
    let place = real();
    let delay = Duration::from_millis(5);
    let options = place.options().durability(Durability::Deferred(delay));
    let store = place.open_with(options).unwrap();
    for n in 0..3 {
        let before = store.stats().unwrap().syncs;
        store.set("a", &n).unwrap();
        wait_until("a sync", || store.stats().unwrap().syncs > before);
    }
    store.close().unwrap();
    assert_eq!(place.open().get("a").unwrap(), Some(2));
}

#[test]
fn closing_and_dropping_sync_what_was_deferred() {
    let hour = Durability::Deferred(Duration::from_hours(1));
    for durability in [hour, Durability::Os] {
        for by_drop in [false, true] {
            let world = World::new(1);
            let options = || Options::new().vfs(world.process()).durability(durability);
            let store = options().open("/store").unwrap();
            store.set("a", &1).unwrap();
            assert_eq!(store.stats().unwrap().syncs, 0);
            if by_drop {
                drop(store);
            } else {
                store.close().unwrap();
            }
            assert_kept_by_a_power_cut(&world);
        }
    }
}

#[test]
fn a_store_that_could_not_close_is_synced_with_its_last_handle() {
    let world = World::new(1);
    let hour = Durability::Deferred(Duration::from_hours(1));
    let store = Options::new()
        .vfs(world.process())
        .durability(hour)
        .open("/store")
        .unwrap();
    store.set("a", &1).unwrap();
    let tx = store.begin().unwrap();
    assert_refused(store.clone().close(), ErrorKind::WouldDeadlock, &[]);
    drop(store);
    drop(tx);
    assert_kept_by_a_power_cut(&world);
}

/// Cuts the power now, in every way, and looks for `a`.
fn assert_kept_by_a_power_cut(world: &World) {
    let journal = world.journal();
    let point = journal.last_point(64, 1);
    for image in point.images() {
        let world = World::from_image(image, 1);
        let store = Options::new().vfs(world.process()).open("/store").unwrap();
        assert_eq!(store.get("a").unwrap(), Some(1));
    }
}

#[test]
fn a_directory_is_opened_and_closed_by_many_threads_at_once() {
    let place = real();
    let seen = thread::scope(|scope| {
        let threads: Vec<_> = (0..8_u32)
            .map(|thread| {
                let place = &place;
                scope.spawn(move || {
                    for n in 0..30 {
                        let options = place.options().lock_timeout(PATIENCE);
                        let store = place.open_with(options).unwrap();
                        store.set(&format!("{thread}/{n}"), &n).unwrap();
                        assert!(n == 0 || store.has(&format!("{thread}/{}", n - 1)).unwrap());
                        if n % 2 == 0 {
                            store.close().unwrap();
                        }
                    }
                    thread
                })
            })
            .collect();
        threads
            .into_iter()
            .map(|thread| thread.join().unwrap())
            .collect::<HashSet<_>>()
    });
    assert_eq!(seen.len(), 8);
    let store = place.open();
    assert_eq!(store.query().count().unwrap(), 8 * 30);
    store.verify().unwrap();
}
