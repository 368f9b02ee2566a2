//! A full disk is found before anything is written: reads and deletes go on, and writes with the
//! space.

use happystore::vfs::sim::World;
use happystore::{Durability, ErrorKind, Options, Raw, Store};

use crate::support::refused;

/// What most tests set; more space than a tombstone takes.
const VALUE: &[u8] = &[7; 600];

fn open(world: &World, segment_bytes: u64) -> Store {
    Options::new()
        .vfs(world.process())
        .segment_bytes(segment_bytes)
        .open("/d")
        .unwrap()
}

/// Sets keys from `first` on until the disk is full; the first that did not fit.
fn fill(store: &Store, first: u32, value: &[u8]) -> u32 {
    for number in first..100_000 {
        if let Err(error) = store.set(&key(number), &value.to_vec()) {
            assert_eq!(error.kind(), ErrorKind::DiskFull, "{error}");
            assert!(error.is_retryable());
            return number;
        }
    }
    panic!("the disk was never full");
}

fn key(number: u32) -> String {
    format!("key/{number:06}")
}

fn assert_holds(store: &Store, numbers: std::ops::Range<u32>, value: &[u8]) {
    let keys: Vec<String> = numbers.map(key).collect();
    assert_eq!(store.query().keys().unwrap(), keys);
    for key in &keys {
        assert_eq!(store.get(key).unwrap(), Some(value.to_vec()), "{key}");
    }
    store.verify().unwrap();
}

#[test]
fn deletes_go_on_while_the_disk_is_full_and_sets_when_it_is_not() {
    // A segment that may grow; one that ends where the disk does; one of many.
    for (segment_bytes, free_bytes) in [
        (64 << 20, 200_000),
        (64 << 10, 0),
        (64 << 10, 40_000),
        (64 << 10, 100_000),
    ] {
        let world = World::new(1);
        let store = open(&world, segment_bytes);
        store.set(&key(0), &VALUE.to_vec()).unwrap();
        world.set_free_bytes(Some(free_bytes));
        let end = fill(&store, 1, VALUE);
        assert_holds(&store, 0..end, VALUE);
        let mut begin = 0;
        while begin < 40 {
            assert!(store.delete(&key(begin)).unwrap(), "{begin} of {end}");
            begin += 1;
        }
        assert_eq!(fill(&store, end, VALUE), end, "there is no space for a set");
        let gone = store.query().range(..key(begin + 2).as_str()).delete();
        assert_eq!(gone.unwrap(), 2);
        begin += 2;
        assert_holds(&store, begin..end, VALUE);
        // A close and an opening need no space.
        store.close().unwrap();
        let store = open(&world, segment_bytes);
        assert_holds(&store, begin..end, VALUE);
        assert_eq!(fill(&store, end, VALUE), end);
        world.set_free_bytes(None);
        store.set(&key(end), &VALUE.to_vec()).unwrap();
        assert_holds(&store, begin..end + 1, VALUE);
        for image in world.journal().last_point(8, 1).images() {
            let store = open(&World::from_image(image, 1), segment_bytes);
            assert_holds(&store, begin..end + 1, VALUE);
        }
    }
}

#[test]
fn a_reserve_that_is_used_up_is_a_full_disk_and_nothing_worse() {
    // As long as a tombstone, so that there are more keys than the reserve has room for.
    const SMALL: &[u8] = &[];
    let world = World::new(1);
    let store = open(&world, 64 << 20);
    store.set(&key(0), &SMALL.to_vec()).unwrap();
    world.set_free_bytes(Some(100_000));
    let end = fill(&store, 1, SMALL);
    let deleted = (0..end).find_map(|number| {
        let refused = store.delete(&key(number)).err()?;
        Some((number, refused))
    });
    let (begin, error) = deleted.expect("the reserve is used up before all keys are gone");
    assert!(begin >= 50, "{begin} deletes of {end}");
    assert_eq!(error.kind(), ErrorKind::DiskFull);
    assert!(error.is_retryable());
    assert_holds(&store, begin..end, SMALL);
    world.set_free_bytes(None);
    assert!(store.delete(&key(begin)).unwrap());
    store.set(&key(end), &SMALL.to_vec()).unwrap();
    assert_holds(&store, begin + 1..end + 1, SMALL);
}

#[test]
fn the_reserve_is_an_eighth_and_no_more() {
    let world = World::new(1);
    let options = Options::new().vfs(world.process());
    let store = options.durability(Durability::Os).open("/d").unwrap();
    store.set(&key(0), &VALUE.to_vec()).unwrap();
    let disk_bytes = store.stats().unwrap().disk_bytes;
    assert_eq!(disk_bytes, 32 << 10, "a tiny store is a tiny file");
    world.set_free_bytes(Some(0));
    let end = fill(&store, 1, VALUE);
    let stats = store.stats().unwrap();
    let used = stats.live_bytes + stats.dead_bytes;
    assert!(
        used + disk_bytes / 8 + 1024 > disk_bytes,
        "{used} bytes of {disk_bytes} used by {end} keys"
    );
    let large = store.set("large", &vec![0; 1 << 20]);
    assert_eq!(refused(large).kind(), ErrorKind::DiskFull);
}

#[test]
fn a_batch_that_never_fits_takes_nothing_however_often_it_is_tried() {
    let world = World::new(1);
    let store = open(&world, 64 << 10);
    store.set(&key(0), &VALUE.to_vec()).unwrap();
    world.set_free_bytes(Some(1 << 20));
    let try_it = || refused(store.set("large", &vec![0_u8; 4 << 20]));
    assert_eq!(try_it().kind(), ErrorKind::DiskFull);
    let before = store.stats().unwrap();
    for _ in 0..20 {
        assert_eq!(try_it().kind(), ErrorKind::DiskFull);
    }
    let after = store.stats().unwrap();
    assert_eq!(
        (after.segments, after.disk_bytes),
        (before.segments, before.disk_bytes)
    );
    fill(&store, 1, VALUE);
}

#[test]
fn a_value_that_filled_the_disk_can_be_deleted() {
    // Longer than a segment; as long as one, or a little less.
    for len_bytes in [
        2 << 20,
        1 << 20,
        (1 << 20) - 300,
        (1 << 20) - (100 << 10),
        150_000,
    ] {
        let world = World::new(1);
        let store = Options::new().vfs(world.process()).serializer(Raw);
        let store = store.segment_bytes(1 << 20).open("/d").unwrap();
        store.set("large", &vec![0_u8; len_bytes]).unwrap();
        world.set_free_bytes(Some(0));
        assert!(store.delete("large").unwrap(), "{len_bytes}");
        world.set_free_bytes(None);
        store.set("large", &vec![1_u8; len_bytes]).unwrap();
        store.verify().unwrap();
    }
}
