//! Backups in whose middle, at each call, another process commits and compacts.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use happystore::vfs::Vfs;
use happystore::vfs::sim::{Call, Fault, FaultEffect, FaultScope, World};
use happystore::{Access, Store};

use crate::backup::{check_prefix, commit, options};
use crate::support::hooked::Hooked;

/// The commits before the opening and before the backup, and those in the middle of it: some are
/// compacted, some come after that.
const OPENED: u64 = 20;
const BEFORE: u64 = 30;
const COMPACTED: u64 = 50;
const LAST: u64 = 60;

fn open(vfs: Arc<dyn Vfs>, path: &str, access: Access) -> Store {
    let options = options().vfs(vfs).access(access);
    options.open(path).unwrap()
}

/// Takes a backup, in whose call `at` the other process comes in; whether there was such a call.
/// Without links all is copied, also what the other one has compacted meanwhile.
fn take(at: u64, access: Access, has_links: bool) -> bool {
    let world = World::new(at);
    let other = open(world.process(), "/from", Access::Shared);
    (1..=OPENED).for_each(|number| commit(&other, number));
    // Nobody keeps the lock for a later turn.
    other.close().unwrap();
    // Counts from when it is told to.
    let calls = Arc::new(AtomicU64::new(u64::MAX / 2));
    let hook = {
        let (calls, world) = (calls.clone(), world.clone());
        move |_: &'static str| {
            if calls.fetch_add(1, Ordering::SeqCst) + 1 == at {
                let process = world.process();
                let other = open(process.clone(), "/from", Access::Shared);
                (BEFORE + 1..=COMPACTED).for_each(|number| commit(&other, number));
                other.compact().unwrap();
                (COMPACTED + 1..=LAST).for_each(|number| commit(&other, number));
                world.kill(&process);
            }
        }
    };
    let hooked = Arc::new(Hooked {
        process: world.process(),
        hook: Arc::new(hook),
    });
    let store = open(hooked, "/from", access);
    // So that there is something to catch up with, in the middle of which the other one comes.
    let other = open(world.process(), "/from", Access::Shared);
    (OPENED + 1..=BEFORE).for_each(|number| commit(&other, number));
    other.compact().unwrap();
    other.close().unwrap();
    if !has_links {
        let refusal = Fault::lasting(FaultEffect::Clean, std::io::ErrorKind::Unsupported);
        world.fail_call(1, refusal.scope(FaultScope::Only(Call::Link)));
    }
    calls.store(0, Ordering::SeqCst);
    let report = store.backup_to("/to").unwrap();
    let came = calls.swap(u64::MAX / 2, Ordering::SeqCst) >= at;
    let backup = open(world.process(), "/to", Access::ReadOnly);
    backup.verify().unwrap();
    let last = check_prefix(&backup);
    assert!((BEFORE..=LAST).contains(&last), "call {at}: {last}");
    assert_eq!(report.sequence, last, "call {at}");
    // What is in the backup is in its source, whatever comes.
    for image in world.journal().last_point(2, at).images() {
        let world = World::from_image(image, 1);
        let source = check_prefix(&open(world.process(), "/from", Access::Shared));
        assert!(source >= last, "call {at}: {source} of {last}");
    }
    came
}

#[test]
fn whatever_others_do_in_the_middle_a_backup_is_of_one_moment_and_durable_in_its_source() {
    for access in [Access::Shared, Access::ReadOnly] {
        for has_links in [true, false] {
            let mut at = 1;
            while take(at, access, has_links) {
                at += 1;
            }
            assert!(at > 50, "{at}");
        }
    }
}
