//! After a killed process or a failed call: what was acknowledged stays, whatever comes then.

use std::cell::Cell;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use happystore::vfs::sim::{Fault, FaultEffect, Schedule, World};
use happystore::{Durability, ErrorKind, Options, Store, TxOptions};

fn open(world: &World, segment_bytes: u64) -> happystore::Result<Store> {
    Options::new()
        .vfs(world.process())
        .segment_bytes(segment_bytes)
        .open("/d")
}

#[test]
fn a_power_cut_after_a_kill_and_a_reopening_takes_nothing_acknowledged() {
    for nth in 1.. {
        let world = World::new(nth);
        let killed = world.process();
        let options = Options::new().vfs(killed.clone()).segment_bytes(512);
        let store: Store = options.open("/d").unwrap();
        world.fail_call(nth, Fault::kill());
        let set = |n: &u8| store.set(&format!("a{n}"), &vec![*n; 100]).is_ok();
        let acknowledged: Vec<u8> = (0..8).take_while(set).collect();
        world.heal();
        world.kill(&killed);
        drop(store);
        let store = open(&world, 512).unwrap();
        store.set("after", &1).unwrap();
        for image in world.journal().last_point(16, nth).images() {
            let store = open(&World::from_image(image, 1), 512).unwrap();
            assert!(store.has("after").unwrap(), "call {nth}");
            for n in &acknowledged {
                assert!(store.has(&format!("a{n}")).unwrap(), "call {nth}, a{n}");
            }
        }
        if world.faults_fired() == 0 {
            break;
        }
    }
}

#[test]
fn a_call_that_fails_within_a_roll_over_leaves_no_commit_behind_a_sealed_end() {
    for nth in 1.. {
        let world = World::new(nth);
        let killed = world.process();
        let options = Options::new().vfs(killed.clone()).segment_bytes(540);
        let store: Store = options.open("/d").unwrap();
        let fault = Fault::once(FaultEffect::Clean, io::ErrorKind::Other);
        world.fail_call(nth, fault);
        // The first that fails may be the one that rolls over; a smaller one fits all the same.
        let set = |n: &u8| store.set(&format!("a{n}"), &vec![1_u8; if *n < 3 { 100 } else { 4 }]);
        let acknowledged: Vec<u8> = (0..5).filter(|n| set(n).is_ok()).collect();
        world.kill(&killed);
        drop(store);
        world.heal();
        let store = open(&world, 540).unwrap();
        for n in &acknowledged {
            assert!(store.has(&format!("a{n}")).unwrap(), "call {nth}, a{n}");
        }
        if world.faults_fired() == 0 {
            break;
        }
    }
}

#[test]
fn deleted_keys_leave_the_index_however_large_the_batches_are() {
    let store = Store::in_memory();
    let round = |round: u32| {
        let keys: Vec<String> = (0..5000).map(|n| format!("{round}/{n}")).collect();
        store.bulk_set(keys.iter().map(|key| (key, 1))).unwrap();
        store.bulk_delete(&keys).unwrap();
        store.stats().unwrap().index_bytes
    };
    round(0);
    let before = round(1);
    let after = (2..12).map(round).max().unwrap();
    assert!(after < before * 3, "{before} bytes, then {after}");
}

/// What was acknowledged is in every image that a power cut may leave now.
fn assert_kept(world: &World, acknowledged: &[String], what: &str) {
    for image in world.journal().last_point(32, 7).images() {
        let store = open(&World::from_image(image, 1), 4096)
            .unwrap_or_else(|error| panic!("{what}: {error}"));
        store.verify().unwrap();
        for key in acknowledged {
            assert!(store.has(key).unwrap(), "{what}: {key} is lost");
        }
    }
}

#[test]
fn reopening_after_a_failed_sync_does_not_trust_what_only_memory_holds() {
    let mut failed = 0;
    for nth in 1.. {
        let world = World::new(nth);
        let process = world.process();
        let options = Options::new().vfs(process.clone()).segment_bytes(4096);
        let store: Store = options.open("/d").unwrap();
        world.fail_call(nth, Fault::once(FaultEffect::Clean, io::ErrorKind::Other));
        let set = |store: &Store, n: u8| {
            let key = format!("a{n}");
            store.set(&key, &vec![n; 100]).ok().map(|()| key)
        };
        let mut acknowledged: Vec<String> = (0..6).filter_map(|n| set(&store, n)).collect();
        failed += 6 - acknowledged.len();
        drop(store);
        let fired = world.faults_fired();
        world.heal();
        // The same machine, with all it has in memory: no power was cut.
        world.kill(&process);
        let store = open(&world, 4096).unwrap();
        assert_kept(&world, &acknowledged, &format!("call {nth}, reopened"));
        acknowledged.extend((10..13).filter_map(|n| set(&store, n)));
        assert_kept(&world, &acknowledged, &format!("call {nth}, written on"));
        if fired == 0 {
            break;
        }
    }
    assert!(
        failed > 6,
        "the calls that failed were not those of commits"
    );
}

thread_local! {
    /// Whether this thread is the one whose sync fails.
    static FAILS: Cell<bool> = const { Cell::new(false) };
}

/// Two threads sync one file: the failing sync begins when the other thread has written, and
/// ends before that thread's own sync, if it makes one, begins.
struct Beside {
    world: World,
    calls: AtomicU64,
    is_syncing: AtomicBool,
    has_written: AtomicBool,
    has_failed: AtomicBool,
}

impl Beside {
    fn wait_for(flag: &AtomicBool) {
        while !flag.load(Ordering::SeqCst) {
            thread::sleep(Duration::from_millis(1));
        }
    }
}

impl Schedule for Beside {
    fn switch(&self) {
        if FAILS.get() {
            self.is_syncing.store(true, Ordering::SeqCst);
            Self::wait_for(&self.has_written);
            let fault = Fault::once(FaultEffect::Clean, io::ErrorKind::Other);
            self.world.fail_call(1, fault);
        } else if self.calls.fetch_add(1, Ordering::SeqCst) == 1 {
            // The first call was the write.
            self.has_written.store(true, Ordering::SeqCst);
            Self::wait_for(&self.has_failed);
        }
    }

    fn idle(&self, _deadline: Duration) -> bool {
        self.has_written.store(true, Ordering::SeqCst);
        thread::sleep(Duration::from_millis(1));
        true
    }
}

#[test]
fn a_commit_beside_a_sync_that_fails_is_not_acknowledged() {
    for seed in 0..20 {
        let world = World::new(seed);
        let options = Options::new().vfs(world.process());
        let store: Store = options.durability(Durability::Os).open("/d").unwrap();
        store.set("before", &1).unwrap();
        let beside = Arc::new(Beside {
            world: world.clone(),
            calls: AtomicU64::new(0),
            is_syncing: AtomicBool::new(false),
            has_written: AtomicBool::new(false),
            has_failed: AtomicBool::new(false),
        });
        world.set_schedule(Some(beside.clone()));
        thread::scope(|scope| {
            let failing = scope.spawn(|| {
                FAILS.set(true);
                let synced = store.sync();
                beside.has_failed.store(true, Ordering::SeqCst);
                synced
            });
            Beside::wait_for(&beside.is_syncing);
            let options = TxOptions::new().durability(Durability::Sync);
            let tx = store.begin_with(&options).unwrap();
            tx.set("durable", &1).unwrap();
            assert!(
                tx.commit().is_err(),
                "seed {seed}: acknowledged over lost bytes"
            );
            assert_eq!(failing.join().unwrap().unwrap_err().kind(), ErrorKind::Io);
        });
        world.set_schedule(None);
        assert_eq!(
            store.set("later", &1).unwrap_err().kind(),
            ErrorKind::Poisoned
        );
        assert_eq!(store.get("before").unwrap(), Some(1));
    }
}
