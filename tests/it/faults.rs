//! After a killed process or a failed call: what was acknowledged stays, whatever comes then.

use std::io;

use happystore::vfs::sim::{Fault, FaultEffect, World};
use happystore::{Options, Store};

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
