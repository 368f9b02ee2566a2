//! After a killed process or a failed call: what was acknowledged stays, whatever comes then.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::thread;
use std::time::Duration;

use happystore::vfs::sim::{Fault, FaultEffect, World};
use happystore::{Access, Durability, ErrorKind, Options, Store, TxOptions};

use crate::support::hooked::Hooked;

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

/// The failing sync begins first, and ends when the other thread waits for it.
#[test]
fn a_commit_beside_a_sync_that_fails_is_not_acknowledged() {
    for seed in 0..20 {
        let world = World::new(seed);
        let is_armed = Arc::new(AtomicBool::new(false));
        let (syncing, begun) = mpsc::channel();
        let (release, released) = mpsc::channel::<()>();
        let held = Mutex::new((syncing, released));
        let (armed, failing) = (is_armed.clone(), world.clone());
        let hook = Arc::new(move |call: &'static str| {
            if call == "sync" && armed.swap(false, Ordering::SeqCst) {
                let held = held.lock().unwrap();
                held.0.send(()).unwrap();
                held.1.recv().unwrap();
                let fault = Fault::once(FaultEffect::Clean, io::ErrorKind::Other);
                failing.fail_call(1, fault);
            }
        });
        let process = world.process();
        let options = Options::new().vfs(Arc::new(Hooked { process, hook }));
        let store: Store = options.durability(Durability::Os).open("/d").unwrap();
        store.set("before", &1).unwrap();
        is_armed.store(true, Ordering::SeqCst);
        thread::scope(|scope| {
            let failing = scope.spawn(|| store.sync());
            begun.recv().unwrap();
            let beside = scope.spawn(|| {
                let options = TxOptions::new().durability(Durability::Sync);
                let tx = store.begin_with(&options)?;
                tx.set("durable", &1)?;
                tx.commit()
            });
            // It is appended, and waits.
            while store.stats().unwrap().keys < 2 {
                thread::yield_now();
            }
            thread::sleep(Duration::from_millis(5));
            assert!(!beside.is_finished(), "seed {seed}: it did not wait");
            release.send(()).unwrap();
            let error = beside.join().unwrap().unwrap_err();
            assert!(error.may_have_changed(), "seed {seed}: {error}");
            assert_eq!(failing.join().unwrap().unwrap_err().kind(), ErrorKind::Io);
        });
        assert_eq!(
            store.set("later", &1).unwrap_err().kind(),
            ErrorKind::Poisoned
        );
        assert_eq!(store.get("before").unwrap(), Some(1));
    }
}

/// Lets whoever keeps the writer lock see that he needs it no more.
fn rest(world: &World) {
    for _ in 0..3 {
        world.advance(Duration::from_millis(2));
        world.run_background();
    }
}

#[test]
fn a_failed_sync_stops_all_processes_until_each_has_opened_again_and_no_longer() {
    let world = World::new(1);
    let mut stores: Vec<Store> = Vec::new();
    for _ in 0..3 {
        stores.push(open(&world, 4096).unwrap());
        rest(&world);
    }
    let set = |store: &Store, n: u8| {
        rest(&world);
        store
            .set(&format!("a{n}"), &n)
            .map_err(|error| error.kind())
    };
    set(&stores[0], 0).unwrap();
    let fault = Fault::once(FaultEffect::Clean, io::ErrorKind::Other);
    rest(&world);
    world.fail_segment_sync(1, fault);
    assert_eq!(set(&stores[0], 1), Err(ErrorKind::Io));
    for at in 0..3 {
        let refused = set(&stores[at], 2);
        assert_eq!(refused, Err(ErrorKind::Poisoned), "process {at}");
        assert!(stores[at].clone().close().is_err());
        rest(&world);
        stores[at] = open(&world, 4096).unwrap();
        // Whoever has opened again stays well, also when others notice the failure later.
        for mended in &stores[..=at] {
            assert_eq!(
                set(mended, 3),
                Ok(()),
                "after process {at} has opened again"
            );
        }
    }
    assert!(
        stores
            .iter()
            .all(|store| store.get("a3").unwrap() == Some(3))
    );
}

#[test]
fn a_reader_that_syncs_does_nothing() {
    let world = World::new(1);
    let options = Options::new().vfs(world.process());
    let writer: Store = options.durability(Durability::Os).open("/d").unwrap();
    writer.set("a", &1).unwrap();
    let options = Options::new().vfs(world.process());
    let reader: Store = options.access(Access::ReadOnly).open("/d").unwrap();
    assert_eq!(reader.get("a").unwrap(), Some(1));
    reader.sync().unwrap();
    writer.set("a", &2).unwrap();
    assert_eq!(reader.get("a").unwrap(), Some(2));
    reader.close().unwrap();
}

/// Whatever fails while it opens: a reader that has opened does not stay behind.
#[test]
fn a_reader_whose_opening_met_a_failure_follows_others_or_has_not_opened() {
    for nth in 1.. {
        let world = World::new(nth);
        let writer = open(&world, 4096).unwrap();
        writer.set("a", &1).unwrap();
        let fault = Fault::once(FaultEffect::Clean, io::ErrorKind::PermissionDenied);
        world.fail_call(nth, fault);
        let options = Options::new().vfs(world.process());
        let opened: happystore::Result<Store> = options.access(Access::ReadOnly).open("/d");
        if world.faults_fired() == 0 {
            assert!(opened.is_ok(), "{opened:?}");
            break;
        }
        world.heal();
        let Ok(reader) = opened else { continue };
        writer.set("a", &2).unwrap();
        assert_eq!(reader.get("a").unwrap(), Some(2), "call {nth} had failed");
    }
}

/// Where a process dies.
#[derive(Debug, Clone, Copy)]
enum Death {
    AtCall(u64),
    AtStore(u64),
}

/// Two processes have the store open, and one of them dies within its commit, as `death` says, which
/// begins a segment if `rolls_over`. True if it did die; then what a third one finds of that commit
/// stays so.
fn what_is_found_stays(
    death: Death,
    durability: Durability,
    access: Access,
    rolls_over: bool,
) -> bool {
    let world = World::new(1);
    let killed = world.process();
    let open = |vfs, access| -> Store {
        let options = Options::new().vfs(vfs).access(access);
        let options = options.durability(durability).segment_bytes(4096);
        options.open("/d").unwrap()
    };
    let store = open(killed.clone(), Access::Shared);
    store.set("a", &1).unwrap();
    if rolls_over {
        store.set("fill", &"x".repeat(3850)).unwrap();
    }
    rest(&world);
    let beside = open(world.process(), access);
    match death {
        Death::AtCall(nth) => world.fail_call(nth, Fault::kill()),
        Death::AtStore(nth) => world.kill_at_store(nth),
    }
    store.bulk_set([("a", 2), ("b", 2)]).ok();
    if world.is_alive(&killed) {
        return false;
    }
    drop(store);
    let opened = open(world.process(), Access::Shared);
    let found: (Option<i32>, Option<i32>) = (opened.get("a").unwrap(), opened.get("b").unwrap());
    assert!(
        matches!(found, (Some(1), None) | (Some(2), Some(2))),
        "{death:?}: {found:?}"
    );
    for image in world.journal().last_point(16, 1).images() {
        let after: Store = Options::new()
            .vfs(World::from_image(image, 1).process())
            .open("/d")
            .unwrap();
        assert_eq!(
            (after.get("a").unwrap(), after.get("b").unwrap()),
            found,
            "{death:?} and a power cut"
        );
    }
    opened.set("c", &3).unwrap();
    opened.sync().unwrap();
    for (store, who) in [(&opened, "who opened it"), (&beside, "who was there")] {
        let now = (store.get("a").unwrap(), store.get("b").unwrap());
        assert_eq!(now, found, "{death:?} with {durability:?}, seen by {who}");
    }
    true
}

#[test]
fn what_an_opening_finds_of_the_commit_of_a_dead_process_stays_so() {
    let mut deaths = 0;
    for durability in [
        Durability::Sync,
        Durability::Deferred(Duration::from_secs(1)),
        Durability::Os,
    ] {
        for access in [Access::Shared, Access::ReadOnly] {
            for rolls_over in [false, true] {
                let dies = |death| what_is_found_stays(death, durability, access, rolls_over);
                let tries = 1..1000;
                let at_calls = tries.clone().take_while(|nth| dies(Death::AtCall(*nth)));
                let at_stores = tries.take_while(|nth| dies(Death::AtStore(*nth)));
                deaths += at_calls.count() + at_stores.count();
            }
        }
    }
    assert!(deaths > 200, "{deaths}");
}

/// The page forgets what it says when the store is opened by one who may not trust it.
#[test]
fn a_reader_goes_on_when_a_writer_comes_whatever_the_page_tells_of_earlier_failures() {
    let world = World::new(1);
    let [failing, other] = [open(&world, 4096).unwrap(), open(&world, 4096).unwrap()];
    rest(&world);
    let fault = Fault::once(FaultEffect::Clean, io::ErrorKind::Other);
    world.fail_segment_sync(1, fault);
    assert!(failing.set("a", &1).is_err());
    assert!(failing.close().is_err());
    // Mended beside the other one, which is told when it ends: the page counts both.
    open(&world, 4096).unwrap().set("a", &2).unwrap();
    assert!(other.close().is_err());
    let alone = Options::new().vfs(world.process());
    let alone: Store = alone.access(Access::Exclusive).open("/d").unwrap();
    alone.close().unwrap();
    let reader = Options::new().vfs(world.process());
    let reader: Store = reader.access(Access::ReadOnly).open("/d").unwrap();
    assert_eq!(reader.get("a").unwrap(), Some(2));
    let writer = open(&world, 4096).unwrap();
    assert_eq!(reader.get("a").unwrap(), Some(2));
    writer.set("a", &3).unwrap();
    assert_eq!(reader.get("a").unwrap(), Some(3));
}
