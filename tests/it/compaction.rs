//! Compaction: what lives stays, what is dead goes, and its space with it.

use std::collections::BTreeMap;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use happystore::vfs::sim::{Fault, Random, World};
use happystore::vfs::{OpenMode, Vfs};
use happystore::{Access, Compaction, Durability, Options, Store};

fn options(world: &World, segment_bytes: u64) -> Options {
    Options::new()
        .vfs(world.process())
        .durability(Durability::Os)
        .compaction(Compaction::manual())
        .segment_bytes(segment_bytes)
}

fn open(world: &World) -> Store {
    options(world, 4096).open("/d").unwrap()
}

fn content(store: &Store) -> BTreeMap<String, Vec<u8>> {
    let pairs = store.scan().iter::<Vec<u8>>().unwrap();
    let content: BTreeMap<_, _> = pairs.map(Result::unwrap).collect();
    for (key, value) in &content {
        assert_eq!(store.get(key).unwrap().as_ref(), Some(value), "{key}");
    }
    content
}

#[test]
fn what_lives_is_there_afterwards_and_after_opening_again() {
    let world = World::new(1);
    let store = open(&world);
    for n in 0..2000_u32 {
        let key = format!("k{:03}", n % 300);
        if n % 7 == 0 {
            store.delete(&key).unwrap();
        } else {
            store
                .set(&key, &vec![u8::try_from(n % 251).unwrap(); 100])
                .unwrap();
        }
    }
    let before = content(&store);
    let report = store.compact().unwrap();
    assert!(
        report.is_finished && report.bytes_after < report.bytes_before / 4,
        "{report:?}"
    );
    assert_eq!(content(&store), before);
    store.verify().unwrap();
    let again = store.compact().unwrap();
    assert_eq!((again.segments, again.bytes_written), (0, 0), "{again:?}");
    store.set("new", &vec![1]).unwrap();
    let before = content(&store);
    store.close().unwrap();
    let store = open(&world);
    assert_eq!(content(&store), before);
    store.verify().unwrap();
    let reader: Store = options(&world, 4096)
        .access(Access::ReadOnly)
        .open("/d")
        .unwrap();
    assert_eq!(content(&reader), before);
}

#[test]
fn deleting_everything_gives_the_space_back() {
    let world = World::new(1);
    let store = open(&world);
    for n in 0..1000_u32 {
        store.set(&n.to_string(), &vec![1; 100]).unwrap();
    }
    store.query().delete().unwrap();
    store.compact().unwrap();
    let stats = store.stats().unwrap();
    assert_eq!((stats.keys, stats.live_bytes), (0, 0));
    assert!(stats.disk_bytes < 50_000, "{stats:?}");
    store.close().unwrap();
    let files = world.image_now().list("/d");
    let is_of_segment = |name: &&String| is_like(name, ".seg") || is_like(name, ".hint");
    let count = files.iter().filter(is_of_segment).count();
    assert_eq!(count, 1, "{files:?}");
}

/// A deleted key never comes back, nor an older version, whatever segments are rewritten in whatever
/// order, and however often the store is opened in between, with whatever hints.
#[test]
fn what_is_gone_never_comes_back_whatever_is_compacted_in_part() {
    for seed in 0..300 {
        let mut random = Random::new(seed);
        let world = World::new(seed);
        let mut store = open(&world);
        let mut model: BTreeMap<String, Vec<u8>> = BTreeMap::new();
        for step in 0..120_u32 {
            let key = format!("k{}", random.below(12));
            match random.below(12) {
                0..=4 => {
                    let value = vec![u8::try_from(step % 251).unwrap(); random.index(600)];
                    store.set(&key, &value).unwrap();
                    model.insert(key, value);
                }
                5..=7 => {
                    assert_eq!(store.delete(&key).unwrap(), model.remove(&key).is_some());
                }
                8 | 9 => {
                    let mask = random.below(1 << 32);
                    let wanted = |id: u32| mask >> (id % 32) & 1 == 1;
                    store.compact_segments(wanted).unwrap();
                }
                10 => {
                    store.close().unwrap();
                    damage_hints(&world, &mut random);
                    store = open(&world);
                }
                _ => {
                    store.compact().unwrap();
                }
            }
            assert_eq!(content(&store), model, "seed {seed}, step {step}");
        }
    }
}

fn is_like(name: &str, ending: &str) -> bool {
    name.strip_suffix(ending).is_some()
}

/// Changes or removes a file of hints.
fn damage_hints(world: &World, random: &mut Random) {
    let image = world.image_now();
    let names = image.list("/d");
    let hints: Vec<_> = names.iter().filter(|name| is_like(name, ".hint")).collect();
    if hints.is_empty() || random.coin() {
        return;
    }
    let path = format!("/d/{}", hints[random.index(hints.len())]);
    let process = world.process();
    let path = std::path::Path::new(&path);
    if random.below(3) == 0 {
        process.unlink(path).unwrap();
        return;
    }
    let file = process.open(path, OpenMode::Write).unwrap();
    let at = random.below(file.len().unwrap());
    let mut byte = [0];
    file.read_at(at, &mut byte).unwrap();
    let changed = [byte[0] ^ 1 << random.below(8)];
    file.write_at(at, &changed).unwrap();
}

#[test]
fn snapshots_and_iterators_here_and_elsewhere_read_on_through_it() {
    let world = World::new(1);
    let (store, other) = (open(&world), open(&world));
    for n in 0..300_u32 {
        store.set(&format!("k{n:03}"), &vec![1; 100]).unwrap();
    }
    let (mine, theirs) = (store.snapshot().unwrap(), other.snapshot().unwrap());
    let mut iter = other.scan().iter::<Vec<u8>>().unwrap();
    let first = iter.next().unwrap().unwrap();
    assert_eq!(first.0, "k000");
    for n in 0..300_u32 {
        store.set(&format!("k{n:03}"), &vec![2; 100]).unwrap();
    }
    store.compact().unwrap();
    store.query().delete().unwrap();
    store.compact().unwrap();
    assert_eq!(other.query().count().unwrap(), 0);
    other.set("new", &vec![3]).unwrap();
    for snapshot in [&mine, &theirs] {
        let pairs = snapshot.query().pairs::<Vec<u8>>().unwrap();
        assert_eq!(pairs.len(), 300);
        assert!(pairs.iter().all(|(_, value)| *value == vec![1; 100]));
    }
    let rest: Vec<_> = iter.map(Result::unwrap).collect();
    assert_eq!(rest.len(), 299);
    assert!(rest.iter().all(|(_, value)| *value == vec![1; 100]));
    assert_eq!(store.get("new").unwrap(), Some(vec![3]));
}

#[test]
fn one_that_was_cancelled_loses_nothing_and_leaves_nothing() {
    let world = World::new(1);
    let store = options(&world, 64 << 10).open("/d").unwrap();
    for n in 0..20_000_u32 {
        store
            .set(&format!("k{:05}", n % 15_000), &vec![7; 200])
            .unwrap();
    }
    let mut heard = 0;
    let report = store.compact_with(|now| {
        heard += 1;
        assert!(now.bytes_done <= now.bytes_total);
        if heard == 2 {
            ControlFlow::Break(())
        } else {
            ControlFlow::Continue(())
        }
    });
    assert!(!report.unwrap().is_finished);
    store.verify().unwrap();
    assert_eq!(store.query().count().unwrap(), 15_000);
    let report = store.compact().unwrap();
    assert!(report.is_finished);
    assert_eq!(content(&store).len(), 15_000);
    store.close().unwrap();
    let store = options(&world, 64 << 10).open("/d").unwrap();
    assert_eq!(content(&store).len(), 15_000);
}

/// Lets workers run for a while.
fn rest(world: &World) {
    for _ in 0..4 {
        world.advance(Duration::from_secs(1));
        world.run_background();
    }
}

/// One process dies while it compacts, `death` says where; another one, which was there all the
/// time, goes on, and compacts too. False if nobody died.
fn survivors_compact_on(death: &dyn Fn(&World), with_worker: bool) -> bool {
    let world = World::new(1);
    let killed = world.process();
    let of = |process: Arc<dyn Vfs>, compaction| {
        let options = Options::new().vfs(process).durability(Durability::Os);
        options.compaction(compaction).segment_bytes(1024)
    };
    let store: Store = of(killed.clone(), Compaction::manual()).open("/d").unwrap();
    let policy = if with_worker {
        Compaction::automatic().dead_bytes(0)
    } else {
        Compaction::manual()
    };
    let other: Store = of(world.process(), policy).open("/d").unwrap();
    let reader = of(world.process(), Compaction::manual()).access(Access::ReadOnly);
    let reader: Store = reader.open("/d").unwrap();
    for n in 0..60_u8 {
        store.set(&format!("k{:02}", n % 20), &vec![n; 60]).unwrap();
        if n % 7 == 0 {
            store.delete(&format!("k{:02}", n % 13)).unwrap();
        }
    }
    let expected = content(&store);
    assert_eq!(content(&other), expected);
    assert_eq!(content(&reader), expected);
    death(&world);
    let died = store.compact().is_err() && !world.is_alive(&killed);
    world.heal();
    world.kill(&killed);
    drop(store);
    assert_eq!(content(&reader), expected);
    rest(&world);
    other.compact().unwrap();
    assert_eq!(content(&other), expected);
    other.verify().unwrap();
    other.set("more", &vec![1]).unwrap();
    other.compact().unwrap();
    rest(&world);
    let after = content(&other);
    assert_eq!(content(&reader), after);
    assert_eq!(after.len(), expected.len() + 1);
    let third: Store = of(world.process(), Compaction::manual())
        .open("/d")
        .unwrap();
    assert_eq!(content(&third), after);
    third.close().unwrap();
    other.close().unwrap();
    reader.close().unwrap();
    assert_eq!(content(&open(&world)), after);
    died
}

#[test]
fn a_process_that_dies_while_it_compacts_leaves_nothing_that_harms_those_who_live() {
    let mut deaths = 0;
    for with_worker in [false, true] {
        let at_call = |nth| move |world: &World| world.fail_call(nth, Fault::kill());
        let at_store = |nth| move |world: &World| world.kill_at_store(nth);
        let tries = 1..5000;
        let dies = |nth| survivors_compact_on(&at_call(nth), with_worker);
        deaths += tries.clone().take_while(|nth| dies(*nth)).count();
        let dies = |nth| survivors_compact_on(&at_store(nth), with_worker);
        deaths += tries.take_while(|nth| dies(*nth)).count();
    }
    assert!(deaths > 300, "{deaths}");
}

/// Who does not compact gives back what others have retired.
#[test]
fn readers_and_those_who_do_not_compact_forget_what_others_have_retired() {
    let world = World::new(1);
    let (store, manual) = (open(&world), open(&world));
    let reader = options(&world, 4096).access(Access::ReadOnly);
    let reader: Store = reader.open("/d").unwrap();
    for round in 0..20_u8 {
        for n in 0..50 {
            store.set(&format!("k{n}"), &vec![round; 100]).unwrap();
        }
        store.compact().unwrap();
        for follower in [&manual, &reader] {
            assert_eq!(follower.get("k1").unwrap(), Some(vec![round; 100]));
        }
        rest(&world);
    }
    rest(&world);
    let segments = store.stats().unwrap().segments;
    for follower in [&manual, &reader] {
        assert_eq!(follower.stats().unwrap().segments, segments);
    }
}

/// Nothing of it is left once the store was opened by somebody alone, whatever else happens then.
#[test]
fn what_a_killed_compaction_has_left_goes_when_the_store_is_opened_again() {
    let is_of_compaction = |name: &&String| is_like(name, ".seg") || is_like(name, ".hint");
    let mut left = 0;
    for nth in 1..5000 {
        let world = World::new(1);
        let killed = world.process();
        let options = Options::new().vfs(killed.clone()).segment_bytes(1024);
        let store: Store = options.open("/d").unwrap();
        for n in 0..60_u8 {
            store.set(&format!("k{:02}", n % 20), &vec![n; 60]).unwrap();
        }
        world.fail_call(nth, Fault::kill());
        let is_done = store.compact().is_ok();
        world.heal();
        world.kill(&killed);
        drop(store);
        let before = world.image_now().list("/d");
        let store = open(&world);
        let stats = store.stats().unwrap();
        let after = world.image_now().list("/d");
        let temporary = |name: &&String| is_like(name, ".tmp");
        assert_eq!(
            after.iter().filter(temporary).count(),
            0,
            "call {nth}: {after:?}"
        );
        let segments = after.iter().filter(|name| is_like(name, ".seg")).count();
        assert_eq!(segments as u64, stats.segments, "call {nth}: {after:?}");
        let count = |names: &[String]| names.iter().filter(is_of_compaction).count();
        left += usize::from(count(&before) > count(&after));
        if is_done {
            break;
        }
    }
    assert!(left > 10, "{left}");
}

/// A page of an iterator knows where its values were; and nothing is committed that would keep those
/// segments for it.
#[test]
fn an_iterator_finds_what_was_moved_since_it_looked() {
    for case in 0..3 {
        let world = World::new(1);
        let (store, other) = (open(&world), open(&world));
        for n in 0..300_u32 {
            store.set(&format!("k{n:03}"), &vec![1; 100]).unwrap();
        }
        let (reads, compacts) = [(&store, &store), (&other, &store), (&store, &other)][case];
        let before = reads.stats().unwrap().segments;
        let mut iter = reads.scan().iter::<Vec<u8>>().unwrap();
        iter.next().unwrap().unwrap();
        rest(&world);
        assert!(compacts.compact().unwrap().segments > 0);
        assert!(reads.has("k000").unwrap());
        rest(&world);
        reads.compact().unwrap();
        assert!(reads.stats().unwrap().segments < before, "case {case}");
        let rest: Vec<_> = iter.map(Result::unwrap).collect();
        assert_eq!(rest.len(), 299);
        assert!(rest.iter().all(|(_, value)| *value == vec![1; 100]));
    }
}

/// What supersedes an entry may not be on the disk yet when that is left out.
#[test]
fn a_power_cut_takes_no_key_whose_older_value_was_left_out() {
    let mut cuts = 0;
    for seed in 0..20 {
        let world = World::new(seed);
        let options = Options::new()
            .vfs(world.process())
            .durability(Durability::Os);
        let options = options.compaction(Compaction::automatic().dead_bytes(0));
        let store: Store = options.segment_bytes(2048).open("/d").unwrap();
        for n in 0..40_u32 {
            store
                .set(&format!("k{:02}", n % 10), &vec![1; 150])
                .unwrap();
        }
        store.sync().unwrap();
        for n in 0..4_u32 {
            store.set(&format!("k{n:02}"), &vec![2; 150]).unwrap();
            for _ in 0..20 {
                world.advance(Duration::from_millis(1100));
                world.run_background();
            }
        }
        for image in world.journal().last_point(16, seed).images() {
            let store = open(&World::from_image(image, 1));
            assert_eq!(store.query().count().unwrap(), 10, "seed {seed}");
            cuts += 1;
        }
    }
    assert!(cuts > 40, "{cuts}");
}

/// Who lives has followed the other one up to the middle of its compaction, and does not know yet
/// which manifest that one has left.
#[test]
fn what_a_dead_process_has_just_listed_is_not_swept_away() {
    let mut deaths = 0;
    for nth in 1..400 {
        let world = World::new(1);
        let killed = world.process();
        let of = |process: Arc<dyn Vfs>| {
            let options = Options::new().vfs(process).durability(Durability::Os);
            let store = options.segment_bytes(1 << 20).open("/d");
            store.unwrap()
        };
        let (store, other): (Store, Store) = (of(killed.clone()), of(world.process()));
        for n in 0..12_u8 {
            store.set(&format!("k{n}"), &vec![n; 100 << 10]).unwrap();
        }
        rest(&world);
        let expected = content(&store);
        let mut is_armed = false;
        let compacted = store.compact_with(|_| {
            if !std::mem::replace(&mut is_armed, true) {
                // The other one, and its worker, take in what there is by now.
                assert_eq!(other.query().count().unwrap(), 12);
                rest(&world);
                world.fail_call(nth, Fault::kill());
            }
            ControlFlow::Continue(())
        });
        world.heal();
        world.kill(&killed);
        drop(store);
        assert!(is_armed);
        other.compact().unwrap();
        assert_eq!(content(&other), expected, "call {nth}");
        other.close().unwrap();
        assert_eq!(content(&of(world.process())), expected, "call {nth}");
        if compacted.is_ok() {
            break;
        }
        deaths += 1;
    }
    assert!(deaths > 20, "{deaths}");
}
