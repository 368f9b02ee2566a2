//! Compaction by itself: it keeps a store small, leaves space and turns to others, and says how it is.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use happystore::vfs::sim::World;
use happystore::vfs::{OpenMode, Vfs};
use happystore::{Access, Compaction, CompactionState, Durability, ErrorKind, Options, Store};

use crate::support::refused;

const SEGMENT_BYTES: u64 = 16 << 10;

/// So much space is left to commits.
const SPARED_BYTES: u64 = SEGMENT_BYTES + (1 << 20);

/// With whatever is the default, for small segments.
fn open(process: Arc<dyn Vfs>) -> Store {
    open_with(process, Compaction::default().dead_bytes(0))
}

fn open_with(process: Arc<dyn Vfs>, compaction: Compaction) -> Store {
    let options = Options::new().vfs(process).durability(Durability::Os);
    let options = options.lock_timeout(Duration::from_millis(100));
    let options = options.segment_bytes(SEGMENT_BYTES).compaction(compaction);
    options.open("/d").unwrap()
}

/// Lets workers run for a while.
fn rest(world: &World) {
    for _ in 0..40 {
        world.advance(Duration::from_millis(1100));
        world.run_background();
    }
}

fn set(store: &Store, numbers: std::ops::Range<u32>, fill: u8, len: usize) {
    for n in numbers {
        store.set(&format!("k{n:04}"), &vec![fill; len]).unwrap();
    }
}

/// The lengths of all segments and hints.
fn file_bytes(world: &World) -> u64 {
    let image = world.image_now();
    let names = image.list("/d").into_iter();
    let files = names.filter(|name| is_like(name, "seg") || is_like(name, "hint"));
    let lens = files.map(|name| image.read(format!("/d/{name}")).unwrap().len() as u64);
    lens.sum()
}

fn is_like(name: &str, extension: &str) -> bool {
    Path::new(name)
        .extension()
        .is_some_and(|found| found == extension)
}

fn hints(world: &World) -> usize {
    let names = world.image_now().list("/d");
    names.iter().filter(|name| is_like(name, "hint")).count()
}

#[test]
fn a_store_that_is_overwritten_for_ever_stays_small_without_being_asked_for_it() {
    // Long values and short ones, whose hints are longer than they are.
    for (len, keys) in [(200, 400), (3, 2000)] {
        let world = World::new(1);
        let store = open(world.process());
        for round in 0..30 {
            set(&store, 0..keys, round, len);
            rest(&world);
            let live = store.stats().unwrap().live_bytes;
            let hints = u64::from(keys) * 35;
            let bound = (2 * live).max((live + hints) * 3 / 2) + 2 * SEGMENT_BYTES;
            let taken = file_bytes(&world);
            assert!(taken <= bound, "{len}: {taken} for {live} in round {round}");
            assert_eq!(store.stats().unwrap().compaction, CompactionState::Idle);
        }
        store.query().delete().unwrap();
        rest(&world);
        assert!(file_bytes(&world) <= 4 * SEGMENT_BYTES, "{len}");
        store.verify().unwrap();
    }
}

#[test]
fn ten_keys_take_little_however_often_they_are_set() {
    let world = World::new(1);
    let options = Options::new().vfs(world.process());
    let options = options.durability(Durability::Os);
    let store: Store = options.segment_bytes(1 << 20).open("/d").unwrap();
    for round in 0..2000_u32 {
        set(&store, 0..10, u8::try_from(round % 251).unwrap(), 100);
        if round % 100 == 99 {
            rest(&world);
        }
    }
    store.compact().unwrap();
    store.close().unwrap();
    assert!(file_bytes(&world) < 100 << 10, "{}", file_bytes(&world));
}

#[test]
fn a_full_disk_stops_it_until_there_is_space_and_commits_find_what_it_leaves() {
    let world = World::new(1);
    let store = open(world.process());
    set(&store, 0..800, 1, 200);
    for n in (0..800).filter(|n| n % 3 > 0) {
        set(&store, n..n + 1, 2, 200);
    }
    world.set_free_bytes(Some(SPARED_BYTES - 1));
    let before = file_bytes(&world);
    rest(&world);
    let state = store.stats().unwrap().compaction;
    assert_eq!(state, CompactionState::Failed(ErrorKind::DiskFull));
    assert!(file_bytes(&world) <= before, "{before}");
    // Not even of this it takes away.
    set(&store, 0..40, 3, 200);
    rest(&world);
    world.set_free_bytes(Some(SPARED_BYTES + (1 << 20)));
    for _ in 0..4 {
        rest(&world);
    }
    assert_eq!(store.stats().unwrap().compaction, CompactionState::Idle);
    assert!(file_bytes(&world) < before);
    assert_eq!(store.query().count().unwrap(), 800);
    store.verify().unwrap();
}

#[test]
fn what_is_dead_as_a_whole_goes_on_a_full_disk_too() {
    let world = World::new(1);
    let store = open_with(world.process(), Compaction::manual());
    set(&store, 0..400, 1, 200);
    store.query().delete().unwrap();
    set(&store, 1000..1100, 1, 200);
    store.close().unwrap();
    let before = file_bytes(&world);
    world.set_free_bytes(Some(8 << 10));
    let store = open(world.process());
    rest(&world);
    assert!(file_bytes(&world) < before / 2, "{before}");
    assert_eq!(store.query().count().unwrap(), 100);
}

#[test]
fn hints_are_written_in_the_background_but_not_on_a_nearly_full_disk() {
    let world = World::new(1);
    let store = open(world.process());
    set(&store, 0..700, 1, 200);
    world.set_free_bytes(Some(SPARED_BYTES));
    rest(&world);
    assert_eq!(hints(&world), 0);
    assert_eq!(store.stats().unwrap().compaction, CompactionState::Idle);
    world.set_free_bytes(None);
    rest(&world);
    let segments = store.stats().unwrap().segments;
    assert_eq!(hints(&world) as u64, segments - 1);
}

#[test]
fn nobody_compacts_during_a_pause_and_all_do_after_it() {
    let world = World::new(1);
    let (store, other) = (open(world.process()), open(world.process()));
    let pause = store.pause_compaction().unwrap();
    set(&store, 0..400, 1, 200);
    rest(&world);
    set(&other, 0..400, 2, 200);
    let before = file_bytes(&world);
    rest(&world);
    assert_eq!((file_bytes(&world), hints(&world)), (before, 0));
    let said = |store: &Store| store.stats().unwrap().compaction;
    assert_eq!(said(&store), CompactionState::Paused);
    assert_eq!(said(&other), CompactionState::Idle);
    for waiting in [&store, &other] {
        assert_eq!(refused(waiting.compact()).kind(), ErrorKind::LockTimeout);
        let second = waiting.pause_compaction();
        assert_eq!(refused(second).kind(), ErrorKind::LockTimeout);
    }
    drop(pause);
    rest(&world);
    assert!(file_bytes(&world) < before);
    assert_eq!(said(&store), CompactionState::Idle);
    // It outlives the store, and keeps others from compacting.
    rest(&world);
    set(&store, 0..400, 3, 200);
    let pause = store.pause_compaction().unwrap();
    store.clone().close().unwrap();
    assert_eq!(refused(other.compact()).kind(), ErrorKind::LockTimeout);
    assert_eq!(refused(store.pause_compaction()).kind(), ErrorKind::Closed);
    drop(pause);
    other.compact().unwrap();
    assert_eq!(other.query().count().unwrap(), 400);
}

#[test]
fn one_who_died_during_a_pause_keeps_nobody_from_compacting() {
    let world = World::new(1);
    let killed = world.process();
    let (store, other) = (open(killed.clone()), open(world.process()));
    set(&store, 0..400, 1, 200);
    let pause = store.pause_compaction().unwrap();
    world.kill(&killed);
    other.compact().unwrap();
    drop((pause, store));
    assert_eq!(other.query().count().unwrap(), 400);
}

#[test]
fn no_more_is_written_in_a_second_than_was_allowed() {
    const RATE: u64 = 20 << 10;
    let world = World::new(1);
    let policy = Compaction::automatic().dead_bytes(0).rate_limit_bytes(RATE);
    let store = open_with(world.process(), policy);
    set(&store, 0..2000, 1, 100);
    set(&store, 0..1000, 2, 100);
    let begun = world.now();
    let mut idle = 0;
    for round in 0.. {
        if round < 30 {
            // Each segment that is finished wakes it.
            set(&store, 0..200, 3, 100);
        } else if idle == 3 {
            break;
        }
        if round == 30 {
            let seconds = world.now().saturating_sub(begun).as_secs() + 1;
            // It rests behind what it has done, which is a segment at most.
            let most = RATE * seconds + 3 * SEGMENT_BYTES;
            let written = hints_and_compacted_bytes(&world);
            assert!(written <= most, "{written} bytes in {seconds} s");
        }
        world.advance(Duration::from_millis(100));
        world.run_background();
        let is_idle = store.stats().unwrap().compaction == CompactionState::Idle;
        idle = if is_idle { idle + 1 } else { 0 };
    }
    // At least what is there now was written, and what it has hints of was read.
    let written = hints_and_compacted_bytes(&world);
    let seconds = world.now().saturating_sub(begun).as_secs();
    assert!(written > 100 << 10, "{written}");
    assert!(seconds >= written / RATE, "{written} bytes in {seconds} s");
}

fn hints_and_compacted_bytes(world: &World) -> u64 {
    let image = world.image_now();
    let names = image.list("/d").into_iter();
    let hints = names.filter(|name| is_like(name, "hint"));
    let lens = hints.map(|name| {
        let segment = name.replace(".hint", ".seg");
        let len = |name: &str| image.read(format!("/d/{name}")).unwrap().len() as u64;
        len(&name) + len(&segment)
    });
    lens.sum()
}

#[test]
fn segments_of_one_short_entry_become_one() {
    let world = World::new(1);
    let store = open_with(world.process(), Compaction::manual());
    let newest = || {
        let names = world.image_now().list("/d").into_iter();
        let ids = names.filter_map(|name| name.strip_suffix(".seg")?.parse::<u32>().ok());
        ids.max().unwrap_or(0)
    };
    // So few that twice what they hold is no room for two of them.
    for n in 0..9_u8 {
        let before = newest();
        store.set(&format!("{n}"), &n).unwrap();
        store.compact_segments(|id| id >= before).unwrap();
    }
    assert!(store.stats().unwrap().segments >= 9);
    store.close().unwrap();
    let store = open(world.process());
    rest(&world);
    assert!(store.stats().unwrap().segments < 4);
    assert_eq!(store.stats().unwrap().compaction, CompactionState::Idle);
    assert_eq!(store.query().count().unwrap(), 9);
}

#[test]
fn a_damaged_segment_keeps_no_other_from_being_compacted() {
    let world = World::new(1);
    let store = open(world.process());
    set(&store, 0..800, 1, 200);
    // With hints, opening does not look at what is damaged.
    rest(&world);
    store.close().unwrap();
    let store = open_with(world.process(), Compaction::manual());
    for n in (0..800).filter(|n| n % 3 > 0) {
        set(&store, n..n + 1, 2, 200);
    }
    store.close().unwrap();
    let before = file_bytes(&world);
    let path = Path::new("/d/00000001.seg");
    let bytes = world.image_now().read(path).unwrap();
    // Within the first value, which lives.
    let at = bytes
        .windows(150)
        .position(|bytes| bytes == [1; 150])
        .unwrap() as u64;
    let file = world.process().open(path, OpenMode::Write).unwrap();
    file.write_at(at + 20, &[9]).unwrap();
    let store = open(world.process());
    for _ in 0..4 {
        rest(&world);
    }
    let state = store.stats().unwrap().compaction;
    assert_eq!(state, CompactionState::Failed(ErrorKind::Corrupt));
    assert!(world.image_now().read(path).is_some());
    assert!(file_bytes(&world) < before, "{before}");
    let names = world.image_now().list("/d");
    let old = (2..10).filter(|id| names.contains(&format!("{id:08}.seg")));
    assert_eq!(old.count(), 0, "{names:?}");
    assert_eq!(
        refused(store.get::<Vec<u8>>("k0000")).kind(),
        ErrorKind::Corrupt
    );
    assert_eq!(store.get("k0799").unwrap(), Some(vec![2_u8; 200]));
}

#[test]
fn who_does_not_compact_says_so() {
    let world = World::new(1);
    let manual = open_with(world.process(), Compaction::manual());
    assert_eq!(manual.stats().unwrap().compaction, CompactionState::Off);
    let options = Options::new().vfs(world.process());
    let reader: Store = options.access(Access::ReadOnly).open("/d").unwrap();
    assert_eq!(reader.stats().unwrap().compaction, CompactionState::Off);
    let paused = refused(reader.pause_compaction());
    assert_eq!(paused.kind(), ErrorKind::ReadOnly);
}

/// Of so many keys that several threads load them, where there are processors.
#[test]
fn many_keys_are_all_there_in_order_after_opening_by_hints() {
    let directory = tempfile::tempdir().unwrap();
    let open = || -> Store {
        let options = Options::new().durability(Durability::Os);
        options.open(directory.path()).unwrap()
    };
    let store = open();
    let key = |n: u32| format!("{:08x}", n.wrapping_mul(2_654_435_761));
    for n in 0..60_000 {
        store.set(&key(n), &n).unwrap();
    }
    for n in 0..60_000 {
        if n % 5 == 0 {
            store.delete(&key(n)).unwrap();
        }
    }
    store.compact().unwrap();
    store.close().unwrap();
    let store = open();
    assert_eq!(store.stats().unwrap().keys, 48_000);
    let mut before = String::new();
    for pair in store.scan().iter::<u32>().unwrap() {
        let (found, n) = pair.unwrap();
        assert!(before < found && found == key(n) && n % 5 > 0, "{found}");
        before = found;
    }
    for n in 0..60_000 {
        let value = (n % 5 > 0).then_some(n);
        assert_eq!(store.get(&key(n)).unwrap(), value);
    }
}
