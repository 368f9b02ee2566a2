//! Backups that are killed, or lose their power, at any call: what is left is a backup, and what its
//! source shares with it stays what it is, whoever writes to it afterwards.

use std::sync::Arc;

use happystore::vfs::Vfs;
use happystore::vfs::sim::{Call, Fault, FaultScope, World};
use happystore::{Access, ErrorKind, Options, Store};

use crate::backup::{check_prefix, commit, options};

/// The commits of the source when the backup is killed, and when the one before was taken.
const LAST: u64 = 60;
const LAST_BEFORE: u64 = 20;

#[test]
fn a_backup_that_is_killed_anywhere_leaves_the_one_before_and_can_be_taken_again() {
    // What was active is retired by the compaction, and finished without it.
    assert!(kill_everywhere(Between::Compaction, Fault::kill) > 200);
    assert!(kill_everywhere(Between::Commits, Fault::kill_halfway) > 200);
    // The copy of the active segment gets records of another epoch.
    assert!(kill_everywhere(Between::Repair, Fault::kill) > 200);
}

/// A process whose store is never closed.
fn opened(world: &World, path: &str, access: Access) -> Store {
    let process = options().vfs(world.process());
    process.access(access).open(path).unwrap()
}

fn reader(world: &World, path: &str) -> Store {
    let store = opened(world, path, Access::ReadOnly);
    store.verify().unwrap();
    store
}

/// What happens to the source between its two backups.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Between {
    Commits,
    Compaction,
    /// A commit dies half-way, and is repaired.
    Repair,
}

/// Kills a process in the middle of the write of a commit, and opens the store again; in the epoch
/// that follows, that commit is made once more.
fn tear(world: &World, process: &Arc<dyn Vfs>, store: Store) -> (Arc<dyn Vfs>, Store) {
    let value = (0_u64, vec![7_u8; 100]);
    world.fail_call(
        1,
        Fault::kill_halfway().scope(FaultScope::Only(Call::Write)),
    );
    store.set("torn", &value).unwrap_err();
    world.heal();
    world.kill(process);
    drop(store);
    let process = world.process();
    let store = options().vfs(process.clone()).open("/from").unwrap();
    assert_eq!(store.get::<(u64, Vec<u8>)>("torn").unwrap(), None);
    (process, store)
}

fn kill_everywhere(between: Between, fault: fn() -> Fault) -> usize {
    let mut checked = 0;
    for call in 1.. {
        let world = World::new(call);
        let mut process = world.process();
        let mut store = options().vfs(process.clone()).open("/from").unwrap();
        (1..=LAST_BEFORE).for_each(|number| commit(&store, number));
        store.backup_to("/to").unwrap();
        // Somebody has it open and dies: the shared words say that they tell of a store.
        let other = world.process();
        let opened = options().vfs(other.clone()).open("/to").unwrap();
        world.kill(&other);
        drop(opened);
        if between == Between::Repair {
            (process, store) = tear(&world, &process, store);
        }
        (LAST_BEFORE + 1..=50).for_each(|number| commit(&store, number));
        if between == Between::Compaction {
            store.compact().unwrap();
        }
        (51..=LAST).for_each(|number| commit(&store, number));
        store.sync().unwrap();
        let fired_before = world.faults_fired();
        world.fail_call(call, fault());
        let _ = store.backup_to("/to");
        let fired = world.faults_fired() - fired_before;
        world.heal();
        world.kill(&process);
        drop(store);
        let case = format!("call {call}, {between:?}");
        let cuts = world.journal().last_point(1, call);
        // Each image is looked at in one way: there are many.
        for (number, image) in (call..).zip(std::iter::once(world.image_now()).chain(cuts.images()))
        {
            checked += 1;
            let world = World::from_image(image, 1);
            match number % 8 {
                0 => kill_again(&world, call, &case),
                3 => kill_opening(&world, call, &case),
                5 => check_opened(&world, &case),
                7 => check_unmarked(&world, call, &case),
                1 | 4 => check_written(&world, true, &case),
                2 | 6 => check_written(&world, false, &case),
                _ => check_taken_again(&world, &case),
            }
        }
        // With the words as the dead have left them.
        if call % 3 == 0 {
            check_written(&world, true, &case);
        }
        if fired == 0 {
            break;
        }
    }
    checked
}

/// Kills the next attempt too, somewhere.
fn kill_again(world: &World, call: u64, case: &str) {
    let process = world.process();
    let store = options().vfs(process.clone()).open("/from").unwrap();
    // What the attempt before has brought is not the source's any more.
    store.compact().unwrap();
    let (nth, scope) = match call % 2 {
        0 => (1 + call * 37 % 113, FaultScope::Every),
        _ => (1 + call / 2 % 6, FaultScope::Only(Call::SyncDir)),
    };
    world.fail_call(nth, Fault::kill().scope(scope));
    let _ = store.backup_to("/to");
    world.heal();
    world.kill(&process);
    drop(store);
    let cuts = world.journal().last_point(1, call);
    for (number, image) in (0..).zip(std::iter::once(world.image_now()).chain(cuts.few_images(4))) {
        let case = format!("{case}, then image {number}");
        check_written(&World::from_image(image.clone(), 1), false, &case);
        check_taken_again(&World::from_image(image, 1), &case);
    }
}

/// Kills, somewhere in its opening, who opens what a kill left.
fn kill_opening(world: &World, call: u64, case: &str) {
    let process = world.process();
    // At any call, or where it makes names durable.
    let (nth, scope) = match call % 2 {
        0 => (1 + call * 37 % 83, FaultScope::Every),
        _ => (1 + call / 2 % 3, FaultScope::Only(Call::SyncDir)),
    };
    world.fail_call(nth, Fault::kill().scope(scope));
    let store = options().vfs(process.clone()).open("/to");
    world.heal();
    world.kill(&process);
    drop(store);
    let cuts = world.journal().last_point(4, call);
    for image in std::iter::once(world.image_now()).chain(cuts.few_images(6)) {
        let world = World::from_image(image, 1);
        let store = opened(&world, "/to", Access::Shared);
        let last = check_prefix(&store);
        assert!((LAST_BEFORE..=LAST).contains(&last), "{case}: {last}");
    }
}

/// Opens what a kill left and closes it: if all but the mark was done, it stays a backup.
fn check_opened(world: &World, case: &str) {
    let left = |name: &str| world.image_now().read(format!("/to/{name}"));
    let was_done = left("BACKUP.tmp").is_some() && left("BACKUP.tmp") == left("MANIFEST");
    let writer = opened(world, "/to", Access::Shared);
    let last = check_prefix(&writer);
    writer.close().unwrap();
    let source = opened(world, "/from", Access::Shared);
    match source.backup_to("/to") {
        Ok(_) => assert_eq!(check_prefix(&reader(world, "/to")), LAST, "{case}"),
        // It has commits of the attempt that was killed, as if they were its own.
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::NotABackup, "{case}: {error}");
            assert!(!was_done && last > LAST_BEFORE, "{case}: {error}");
        }
    }
}

/// Writes a little to what a kill left, and cuts the power: the next backup knows of it.
fn check_unmarked(world: &World, call: u64, case: &str) {
    let writer = opened(world, "/to", Access::Shared);
    let last = check_prefix(&writer);
    commit(&writer, last + 1);
    writer.sync().unwrap();
    let cuts = world.journal().last_point(3, call);
    for image in std::iter::once(world.image_now()).chain(cuts.few_images(4)) {
        let world = World::from_image(image, 1);
        let source = opened(&world, "/from", Access::Shared);
        let refused = source.backup_to("/to").unwrap_err();
        assert_eq!(refused.kind(), ErrorKind::NotABackup, "{case}: {refused}");
    }
}

fn source_files(world: &World) -> Vec<(String, Option<Vec<u8>>)> {
    let image = world.image_now();
    let mut names = image.list("/from");
    names.retain(|name| name.contains(".seg") || name.contains(".hint"));
    let read = |name: String| {
        let bytes = image.read(format!("/from/{name}"));
        (name, bytes)
    };
    names.into_iter().map(read).collect()
}

/// Writes to what a kill left, beside a reader or alone: it is a store like any other then, and its
/// source does not see that.
fn check_written(world: &World, with_reader: bool, case: &str) {
    let before = source_files(world);
    let beside = with_reader.then(|| reader(world, "/to"));
    let writer = opened(world, "/to", Access::Shared);
    let last = check_prefix(&writer);
    // The copy of the active segment may have grown already.
    assert!((LAST_BEFORE..=LAST).contains(&last), "{case}: {last}");
    let left = world.image_now().list("/to");
    let is_temporary = |name: &String| name.contains("tmp");
    assert!(!left.iter().any(is_temporary), "{case}: {left:?}");
    let is_of_none = |name: &String| {
        let segment = name.strip_suffix(".hint");
        segment.is_some_and(|segment| !left.contains(&format!("{segment}.seg")))
    };
    assert!(!left.iter().any(is_of_none), "{case}: {left:?}");
    (last + 1..=last + 20).for_each(|number| commit(&writer, number));
    writer.close().unwrap();
    assert!(
        before == source_files(world),
        "{case}: the source's files have changed"
    );
    drop(beside);
    let source = opened(world, "/from", Access::Shared);
    source.verify().unwrap();
    assert_eq!(check_prefix(&source), LAST, "{case}");
    let refused = source.backup_to("/to").unwrap_err();
    assert_eq!(
        refused.kind(),
        ErrorKind::NotABackup,
        "{case}: written to, and written over"
    );
    let writer = opened(world, "/to", Access::Shared);
    assert_eq!(check_prefix(&writer), last + 20, "{case}");
    writer.compact().unwrap();
    writer.verify().unwrap();
    assert_eq!(check_prefix(&writer), last + 20, "{case}");
    source.verify().unwrap();
    assert_eq!(
        check_prefix(&source),
        LAST,
        "{case}: the source has changed"
    );
}

/// Reads what a kill left, and brings it up to date.
fn check_taken_again(world: &World, case: &str) {
    let left = reader(world, "/to");
    let last = check_prefix(&left);
    assert!((LAST_BEFORE..=LAST).contains(&last), "{case}: {last}");
    left.close().unwrap();
    let source = opened(world, "/from", Access::Shared);
    source.backup_to("/to").unwrap();
    let taken = reader(world, "/to");
    assert_eq!(check_prefix(&taken), LAST, "{case}");
    let names = |path: &str| {
        let mut names = world.image_now().list(path);
        names.retain(|name| name.contains(".seg") || name.contains("tmp"));
        names.sort();
        names
    };
    assert_eq!(names("/from"), names("/to"), "{case}");
}

#[test]
fn a_backup_whose_writer_was_killed_is_known_as_written_to() {
    let world = World::new(1);
    let store = opened(&world, "/from", Access::Shared);
    (1..=LAST_BEFORE).for_each(|number| commit(&store, number));
    store.backup_to("/to").unwrap();
    let process = world.process();
    let writer = options().vfs(process.clone()).open("/to").unwrap();
    commit(&writer, LAST_BEFORE + 1);
    // Nothing but a record behind the others tells.
    world.kill(&process);
    drop(writer);
    let refused = store.backup_to("/to").unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotABackup, "{refused}");
    assert_eq!(check_prefix(&reader(&world, "/to")), LAST_BEFORE + 1);
}

#[test]
fn the_first_backup_that_is_killed_anywhere_is_no_store_and_can_be_taken_again() {
    for call in 1.. {
        let world = World::new(call);
        let process = world.process();
        let store = options().vfs(process.clone()).open("/from").unwrap();
        (1..=50).for_each(|number| commit(&store, number));
        store.sync().unwrap();
        world.fail_call(call, Fault::kill());
        let _ = store.backup_to("/to");
        let fired = world.faults_fired();
        world.heal();
        world.kill(&process);
        drop(store);
        let cuts = world.journal().last_point(2, call);
        for image in std::iter::once(world.image_now()).chain(cuts.images()) {
            let world = World::from_image(image, 1);
            let options = || -> Options { options().vfs(world.process()) };
            // All of it, or nothing.
            match options().access(Access::ReadOnly).open("/to") {
                Ok(store) => {
                    store.verify().unwrap();
                    assert_eq!(check_prefix(&store), 50, "call {call}");
                }
                Err(error) => assert!(
                    matches!(
                        error.kind(),
                        ErrorKind::NotFound | ErrorKind::Corrupt | ErrorKind::NotAStore
                    ),
                    "call {call}: {error}"
                ),
            }
            let store = options().open("/from").unwrap();
            store.verify().unwrap();
            store.backup_to("/to").unwrap();
            assert_eq!(check_prefix(&reader(&world, "/to")), 50, "call {call}");
        }
        if fired == 0 {
            break;
        }
    }
}
