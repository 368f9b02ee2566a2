//! A panic inside the store's own code leaves a store that refuses writes, and nothing wrong.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use happystore::vfs::Vfs;
use happystore::vfs::sim::{Fault, FaultEffect, World};
use happystore::{Durability, ErrorKind, Options, Store};

use crate::support::hooked::Hooked;
use crate::support::refused;

/// The calls on the way of a commit that change something.
const CALLS: [&str; 6] = [
    "open",
    "allocate",
    "write_at",
    "sync",
    "rename",
    "sync directory",
];

/// A process that panics at the n-th of [`CALLS`] from when `left` is set to n.
fn panicking(process: Arc<dyn Vfs>) -> (Arc<dyn Vfs>, Arc<AtomicU64>) {
    let left = Arc::new(AtomicU64::new(0));
    let counted = left.clone();
    let hook = Arc::new(move |call: &'static str| {
        let is_next = CALLS.contains(&call)
            && counted
                .fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| {
                    left.checked_sub(1)
                })
                .is_ok_and(|left| left == 1);
        assert!(!is_next, "a planned panic at {call}");
    });
    (Arc::new(Hooked { process, hook }), left)
}

fn open(process: Arc<dyn Vfs>) -> Store {
    let options = Options::new().vfs(process).segment_bytes(600);
    options.open("/d").unwrap()
}

#[test]
fn a_panic_inside_a_commit_poisons_and_loses_nothing() {
    let value = vec![7_u8; 100];
    for nth in 1.. {
        let world = World::new(nth);
        let (process, left) = panicking(world.process());
        let store = open(process);
        store.set("before", &value).unwrap();
        left.store(nth, Ordering::SeqCst);
        let set = |n: &u8| {
            let key = format!("a{n}");
            match catch_unwind(AssertUnwindSafe(|| store.set(&key, &value))) {
                Ok(Ok(())) => true,
                Ok(Err(error)) => {
                    assert_eq!(error.kind(), ErrorKind::Poisoned, "{nth}: {error}");
                    false
                }
                Err(_) => false,
            }
        };
        let done = (0..6).filter(set).count();
        let has_panicked = left.swap(0, Ordering::SeqCst) == 0;
        if has_panicked {
            // It was the first that did not return, and none was taken after it.
            assert!(done < 6, "{nth}");
            let error = refused(store.set("after", &value));
            assert_eq!(error.kind(), ErrorKind::Poisoned, "{nth}: {error}");
        }
        let keys = store.query().prefix("a").keys().unwrap();
        assert_eq!(keys.len(), done, "{nth}: {keys:?}");
        assert_eq!(store.get("before").unwrap(), Some(value.clone()));
        assert_eq!(store.close().is_err(), has_panicked, "{nth}");
        for world in [
            world.clone(),
            World::from_image(
                world.journal().last_point(1, nth).images().next().unwrap(),
                1,
            ),
        ] {
            let store = open(world.process());
            assert_eq!(store.get("before").unwrap(), Some(value.clone()));
            let found = store.query().prefix("a").count().unwrap();
            let unknown = usize::from(has_panicked);
            assert!(
                (done as u64..=(done + unknown) as u64).contains(&found),
                "{nth}: {found} of {done}"
            );
            store.set("after", &value).unwrap();
        }
        if !has_panicked {
            assert!(nth > 20, "only {nth} calls were on the way");
            break;
        }
    }
}

/// Three threads share a sync; the one that leads it panics in it.
#[test]
fn a_panic_inside_a_sync_is_a_failed_sync_for_all_who_wait_for_it() {
    let is_armed = Arc::new(AtomicBool::new(false));
    let writes = Arc::new(AtomicU64::new(0));
    let (armed, written) = (is_armed.clone(), writes.clone());
    let hook = Arc::new(move |call: &'static str| {
        if call == "write_at" {
            written.fetch_add(1, Ordering::SeqCst);
        }
        if call == "sync" && armed.swap(false, Ordering::SeqCst) {
            while written.load(Ordering::SeqCst) < 3 {
                thread::sleep(Duration::from_millis(1));
            }
            // They join the queue behind their writes; who comes later finds the failure.
            thread::sleep(Duration::from_millis(20));
            panic!("a planned panic in a sync");
        }
    });
    let world = World::new(1);
    let process = world.process();
    let options = Options::new().vfs(Arc::new(Hooked { process, hook }));
    let store: Store = options.open("/d").unwrap();
    store.set("before", &1).unwrap();
    writes.store(0, Ordering::SeqCst);
    is_armed.store(true, Ordering::SeqCst);
    let outcomes: Vec<_> = thread::scope(|scope| {
        let commit = |n: u8| {
            let store = store.clone();
            scope.spawn(move || {
                let set = || store.set(&format!("a{n}"), &1);
                catch_unwind(AssertUnwindSafe(set)).map_err(|_| "panicked")
            })
        };
        let threads: Vec<_> = (0..3).map(commit).collect();
        let joined = threads.into_iter().map(|thread| thread.join().unwrap());
        joined.collect()
    });
    let panicked = outcomes.iter().filter(|outcome| outcome.is_err()).count();
    assert_eq!(panicked, 1, "{outcomes:?}");
    for outcome in outcomes.into_iter().flatten() {
        assert_eq!(refused(outcome).kind(), ErrorKind::Io);
    }
    assert_eq!(refused(store.set("after", &1)).kind(), ErrorKind::Poisoned);
    assert_eq!(store.query().keys().unwrap(), ["before"]);
    assert_eq!(refused(store.sync()).kind(), ErrorKind::Poisoned);
}

/// A worker is no commit: nobody is told of its panic but by the store.
#[test]
fn a_panic_inside_a_background_sync_is_told_to_the_next_commit() {
    let is_armed = Arc::new(AtomicBool::new(false));
    let armed = is_armed.clone();
    let hook = Arc::new(move |call: &'static str| {
        let is_next = call == "sync" && armed.swap(false, Ordering::SeqCst);
        assert!(!is_next, "a planned panic in the background");
    });
    let world = World::new(1);
    let process = world.process();
    let delay = Duration::from_millis(5);
    let options = Options::new().vfs(Arc::new(Hooked { process, hook }));
    let options = options.durability(Durability::Deferred(delay));
    let store: Store = options.open("/d").unwrap();
    store.set("before", &1).unwrap();
    is_armed.store(true, Ordering::SeqCst);
    world.advance(delay);
    let ran = catch_unwind(AssertUnwindSafe(|| {
        world.run_background();
        world.advance(delay);
        world.run_background()
    }));
    assert!(ran.is_err() && !is_armed.load(Ordering::SeqCst));
    let error = refused(store.set("after", &1));
    assert_eq!(error.kind(), ErrorKind::Poisoned);
    assert!(
        error.to_string().contains("a panic in the middle"),
        "{error}"
    );
    assert_eq!(store.query().keys().unwrap(), ["before"]);
    assert!(store.close().is_err());
}

/// What a transaction has read may rest on a sync that is not over: a full disk is not told before.
#[test]
fn a_transaction_that_finds_the_disk_full_is_told_first_that_what_it_read_is_lost() {
    let is_armed = Arc::new(AtomicBool::new(false));
    let (armed, world) = (is_armed.clone(), World::new(1));
    let (syncing, waiting) = mpsc::channel();
    let (release, released) = mpsc::channel::<()>();
    let held = Mutex::new((syncing, released));
    let failing = world.clone();
    let hook = Arc::new(move |call: &'static str| {
        if call == "sync" && armed.swap(false, Ordering::SeqCst) {
            let held = held.lock().unwrap();
            held.0.send(()).unwrap();
            held.1.recv().unwrap();
            failing.fail_call(
                1,
                Fault::once(FaultEffect::Clean, std::io::ErrorKind::Other),
            );
        }
    });
    let process = world.process();
    let options = Options::new().vfs(Arc::new(Hooked { process, hook }));
    let store: Store = options.open("/d").unwrap();
    store.set("a", &0).unwrap();
    is_armed.store(true, Ordering::SeqCst);
    thread::scope(|scope| {
        let first = scope.spawn(|| store.set("a", &1));
        waiting.recv().unwrap();
        world.set_free_bytes(Some(0));
        let second = scope.spawn(|| {
            store.transaction(|tx| -> happystore::Result<()> {
                assert_eq!(tx.get("a")?, Some(1));
                tx.set("large", &vec![0_u8; 1 << 20])
            })
        });
        thread::sleep(Duration::from_millis(50));
        assert!(!second.is_finished(), "it was told what may be lost");
        release.send(()).unwrap();
        assert_eq!(refused(first.join().unwrap()).kind(), ErrorKind::Io);
        let kind = refused(second.join().unwrap()).kind();
        assert!(
            matches!(kind, ErrorKind::Io | ErrorKind::Poisoned),
            "{kind:?}"
        );
    });
    assert_eq!(store.get("a").unwrap(), Some(0));
}
