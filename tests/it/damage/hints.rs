//! Damage to hints. They are a cache: whatever is wrong with them, every value is right.
//!
//! What is damaged is passed over, which is seen by this: it is written again, as it was. So is what
//! has right checksums, and cannot be right.

use std::sync::Arc;
use std::time::Duration;

use happystore::limits::KEY_BYTES_MAX;
use happystore::vfs::Vfs;
use happystore::vfs::sim::World;
use happystore::{Compaction, Options, Raw, Store};

use super::compacted::files;
use super::fixtures::{
    Content, DIRECTORY, Fixture, compacted, compacted_of, long_hints, longest_key_compacted,
};
use super::format::{put_u32, put_u64, u32_at, u64_at};
use super::hint_format::{
    FOOTER, Hint, PREFIX, TOMBSTONE, blocks, ends, hints, seal, seal_footer, with_hints,
};
use super::verdict::{Change, damaged_world};

/// Opens a store whose worker writes hints, and rewrites nothing.
pub(crate) fn open(process: Arc<dyn Vfs>) -> Store<Raw> {
    let policy = Compaction::automatic().dead_ratio(1.0).dead_bytes(u64::MAX);
    let options = Options::new().serializer(Raw).vfs(process);
    let options = options.compaction(policy).segment_bytes(1 << 20);
    options.open(DIRECTORY).unwrap()
}

fn content(store: &Store<Raw>) -> Content {
    let content: Content = store.query().pairs().unwrap().into_iter().collect();
    for (key, value) in &content {
        assert_eq!(store.get(key).unwrap().as_ref(), Some(value));
    }
    content
}

/// Lets the worker do all that there is to do.
fn rest(world: &World) {
    for _ in 0..2 {
        while world.run_background() > 0 {}
        world.advance(Duration::from_millis(50));
    }
}

/// A store with these files instead of its hints has every value, and writes them again.
fn assert_passed_over(fixture: &Fixture, change: &Change, what: &str) {
    let world = damaged_world(&fixture.image, change);
    let store = open(world.process());
    assert_eq!(&content(&store), fixture.history.last().unwrap(), "{what}");
    rest(&world);
    let image = world.image_now();
    for (name, _) in change {
        let path = format!("{DIRECTORY}/{name}");
        let is_as_before = image.read(&path) == fixture.image.read(&path);
        assert!(is_as_before, "{what}: {name} was taken for whole");
    }
}

/// The same, and a compaction that has to know what the segments hold that stay: what was deleted
/// does not come back.
fn assert_compacts(fixture: &Fixture, change: &Change, what: &str) {
    let world = damaged_world(&fixture.image, change);
    let store = open(world.process());
    store.compact_segments(|id| id > 1).unwrap();
    let right = fixture.history.last().unwrap();
    assert_eq!(&content(&store), right, "{what}");
    store.close().unwrap();
    assert_eq!(&content(&open(world.process())), right, "{what}");
}

#[test]
fn what_is_whole_is_not_written_again_and_what_is_missing_is() {
    for fixture in [compacted(), long_hints()] {
        let before = fixture.image.list(DIRECTORY);
        let world = World::from_image(fixture.image.clone(), 1);
        let store = open(world.process());
        rest(&world);
        let image = world.image_now();
        rest(&world);
        let names = files(&fixture, ".hint");
        for path in names.iter().map(|name| format!("{DIRECTORY}/{name}")) {
            assert_eq!(fixture.image.read(&path), image.read(&path), "{path}");
        }
        assert_eq!(&content(&store), fixture.history.last().unwrap());
        for name in files(&fixture, ".hint") {
            assert_passed_over(&fixture, &vec![(name.clone(), None)], &name);
            assert!(before.contains(&name));
        }
    }
}

#[test]
fn every_bit_and_every_length_of_hints_is_looked_at_and_no_value_depends_on_it() {
    let fixture = compacted();
    let mut cases = 0;
    for name in files(&fixture, ".hint") {
        let bytes = fixture.bytes(&name);
        for bit in 0..bytes.len() * 8 {
            let mut damaged = bytes.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            let change = vec![(name.clone(), Some(damaged))];
            let what = format!("{name}: bit {bit} flipped");
            assert_passed_over(&fixture, &change, &what);
            if bit % 3 == 0 {
                assert_compacts(&fixture, &change, &what);
            }
            cases += 1;
        }
        for len in 0..bytes.len() {
            let change = vec![(name.clone(), Some(bytes[..len].to_vec()))];
            let what = format!("{name}: cut to {len} bytes");
            assert_passed_over(&fixture, &change, &what);
            if len % 3 == 0 {
                assert_compacts(&fixture, &change, &what);
            }
            cases += 1;
        }
        for longer in [vec![0], bytes.clone(), vec![0; 5000]] {
            let change = vec![(name.clone(), Some([bytes.clone(), longer].concat()))];
            assert_passed_over(&fixture, &change, &format!("{name}: longer"));
        }
    }
    eprintln!("{cases} cases");
    assert!(cases > 5_000, "{cases}");
}

#[test]
fn every_byte_of_hints_of_several_blocks_is_looked_at() {
    let fixture = long_hints();
    let name = files(&fixture, ".hint")[0].clone();
    let bytes = fixture.bytes(&name);
    for at in 0..bytes.len() {
        let mut damaged = bytes.clone();
        damaged[at] ^= 1 << (at % 8);
        let change = vec![(name.clone(), Some(damaged))];
        assert_passed_over(&fixture, &change, &format!("byte {at}"));
    }
}

/// Other files that are whole, in the place of hints: each other's, those of another store, those of a
/// shorter or longer segment, or of what it held before.
#[test]
fn hints_of_anything_else_are_passed_over() {
    let (fixture, other) = (compacted(), compacted_of(21));
    let names = files(&fixture, ".hint");
    assert_eq!(names, files(&other, ".hint"));
    for name in &names {
        let bytes = fixture.bytes(name);
        let theirs = other.bytes(name);
        assert_eq!(theirs.len(), bytes.len());
        assert_passed_over(
            &fixture,
            &vec![(name.clone(), Some(theirs.clone()))],
            "another store's",
        );
        assert_compacts(
            &fixture,
            &vec![(name.clone(), Some(theirs))],
            "another store's",
        );
        let mut swapped = Change::new();
        for second in names.iter().filter(|second| *second > name) {
            swapped.extend([
                (name.clone(), Some(fixture.bytes(second))),
                (second.clone(), Some(bytes.clone())),
            ]);
            assert_passed_over(&fixture, &swapped, &format!("{name} and {second} swapped"));
            assert_compacts(&fixture, &swapped, &format!("{name} and {second} swapped"));
            swapped.clear();
        }
        // Of the same segment, and right in themselves, when it was shorter, or held less.
        let fewer = hints(&bytes);
        let fewer = with_hints(&bytes, &fewer[..fewer.len() - 1]);
        for (field, less) in [(20, 4), (24, 1)] {
            let mut old = fewer.clone();
            let at = old.len() - FOOTER + field;
            if field == 20 {
                let len = u32_at(&old, at) - less;
                put_u32(&mut old, at, len);
            } else {
                let last = u64_at(&old, at) - u64::from(less);
                put_u64(&mut old, at, last);
            }
            seal(&mut old);
            assert_passed_over(
                &fixture,
                &vec![(name.clone(), Some(old))],
                "what it was before",
            );
        }
    }
}

#[test]
fn hints_written_again_by_the_tests_own_encoder_are_the_same() {
    let fixture = compacted();
    for name in files(&fixture, ".hint") {
        let bytes = fixture.bytes(&name);
        assert_eq!(with_hints(&bytes, &hints(&bytes)), bytes, "{name}");
    }
    let fixture = long_hints();
    let mut bytes = fixture.bytes(&files(&fixture, ".hint")[0]);
    let before = bytes.clone();
    seal(&mut bytes);
    assert_eq!(bytes, before);
}

/// A lie about some hints, told with right checksums and counts.
type Lie = (&'static str, fn(&mut Vec<Hint>));

/// Lies that are told from what hints must be.
const TOLD: &[Lie] = &[
    ("two in the wrong order", |hints| hints.swap(0, 1)),
    ("the last one first", |hints| hints.rotate_right(1)),
    ("one twice", |hints| hints.insert(1, hints[0].clone())),
    ("an entry that begins behind the end", |hints| {
        hints[1].offset = u32::MAX - 40
    }),
    ("a value that ends behind the end", |hints| {
        hints[1].value = TOMBSTONE - 1
    }),
    ("a commit that was later", |hints| {
        hints[1].sequence += 1 << 40
    }),
    ("a key that is too long", |hints| {
        hints[1].key = vec![b'b'; KEY_BYTES_MAX + 1]
    }),
];

#[test]
fn hints_that_cannot_be_are_passed_over() {
    let fixture = compacted();
    for name in files(&fixture, ".hint") {
        let bytes = fixture.bytes(&name);
        for (what, lie) in TOLD {
            let mut lying = hints(&bytes);
            lie(&mut lying);
            let change = vec![(name.clone(), Some(with_hints(&bytes, &lying)))];
            assert_passed_over(&fixture, &change, &format!("{name}: {what}"));
        }
    }
}

fn add_u64(bytes: &mut [u8], at: usize, more: u64) {
    let sum = u64_at(bytes, at) + more;
    put_u64(bytes, at, sum);
}

/// A lie about the frame of hints, told with right checksums; the file, where its index is, where its
/// footer is.
type FrameLie = (&'static str, fn(&mut Vec<u8>, usize, usize));

const FRAME: &[FrameLie] = &[
    ("one key more", |f, _, at| add_u64(f, at + 32, 1)),
    ("all keys there could be", |f, _, at| {
        put_u64(f, at + 32, u64::MAX)
    }),
    ("no keys", |f, _, at| put_u64(f, at + 32, 0)),
    ("longer entries", |f, _, at| add_u64(f, at + 52, 1)),
    ("endless entries", |f, _, at| put_u64(f, at + 52, u64::MAX)),
    ("one tombstone more", |f, _, at| add_u64(f, at + 60, 1)),
    ("an index behind the footer", |f, _, at| {
        put_u64(f, at + 40, at as u64 + 1)
    }),
    ("an index at the end of all", |f, _, at| {
        put_u64(f, at + 40, u64::MAX)
    }),
    ("an index within the first bytes", |f, _, at| {
        put_u64(f, at + 40, 3)
    }),
    ("no index", |f, _, at| put_u64(f, at + 40, at as u64)),
    ("another store", |f, _, at| f[at] ^= 1),
    ("another segment", |f, _, at| put_u32(f, at + 16, 77)),
    ("a shorter segment", |f, _, at| f[at + 20] -= 4),
    ("a longer segment", |f, _, at| put_u32(f, at + 20, u32::MAX)),
    ("a later commit", |f, _, at| put_u64(f, at + 24, u64::MAX)),
    ("a block that begins later", |f, index, _| {
        put_u64(f, index, PREFIX as u64 + 1)
    }),
    ("a block without end", |f, index, _| {
        put_u32(f, index + 8, u32::MAX)
    }),
    ("an empty block", |f, index, _| put_u32(f, index + 8, 0)),
    ("a first key without end", |f, index, _| {
        put_u32(f, index + 16, u32::MAX)
    }),
    ("another first key", |f, index, _| f[index + 20] ^= 1),
    ("a hint's key without end", |f, _, _| {
        put_u32(f, PREFIX + 20, u32::MAX)
    }),
    ("a hint's key that is a byte longer", |f, _, _| {
        f[PREFIX + 20] += 1
    }),
    ("something between blocks and index", |f, index, at| {
        f.splice(index..index, [0; 24]);
        put_u64(f, at + 24 + 40, index as u64 + 24);
    }),
    ("something behind the index", |f, _, at| {
        drop(f.splice(at..at, [0; 8]))
    }),
    ("less than a footer", |f, _, _| {
        drop(f.drain(..f.len() - FOOTER - 10))
    }),
];

#[test]
fn lies_in_the_frame_of_hints_are_passed_over() {
    for fixture in [compacted(), long_hints()] {
        for name in files(&fixture, ".hint") {
            for (what, lie) in FRAME {
                let mut bytes = fixture.bytes(&name);
                let (index, footer) = ends(&bytes);
                lie(&mut bytes, index, footer);
                seal(&mut bytes);
                let change = vec![(name.clone(), Some(bytes))];
                assert_passed_over(&fixture, &change, &format!("{name}: {what}"));
            }
        }
    }
}

/// Checksums that are wrong, each in a frame that is right.
#[test]
fn every_checksum_of_hints_counts_by_itself() {
    let fixture = long_hints();
    let name = files(&fixture, ".hint")[0].clone();
    let bytes = fixture.bytes(&name);
    let (index, footer) = ends(&bytes);
    let passed = |change: &dyn Fn(&mut Vec<u8>), what: &str| {
        let mut bytes = bytes.clone();
        change(&mut bytes);
        assert_passed_over(&fixture, &vec![(name.clone(), Some(bytes))], what);
    };
    passed(&|bytes| bytes[12] ^= 1, "of the first bytes");
    passed(
        &|bytes| put_u32(bytes, 8, 2),
        "a newer version, and its checksum",
    );
    passed(&|bytes| bytes[footer + FOOTER - 4] ^= 1, "of the footer");
    let of_index = |bytes: &mut Vec<u8>| {
        bytes[footer + 48] ^= 1;
        seal_footer(bytes);
    };
    passed(&of_index, "of the index");
    for block in blocks(&bytes) {
        let of_block = |bytes: &mut Vec<u8>| {
            bytes[block + 12] ^= 1;
            let store = bytes[footer..footer + 16].to_vec();
            let segment = u32_at(bytes, footer + 16);
            let sum = super::format::place_crc(&store, segment, index, &bytes[index..footer]);
            put_u32(bytes, footer + 48, sum);
            seal_footer(bytes);
        };
        passed(&of_block, "of a block");
    }
    let swapped = |bytes: &mut Vec<u8>| {
        // The first keys are equally long.
        let all = blocks(bytes);
        let (first, second) = (
            bytes[all[0]..all[1]].to_vec(),
            bytes[all[1]..all[2]].to_vec(),
        );
        bytes[all[0]..all[2]].copy_from_slice(&[second, first].concat());
        seal(bytes);
    };
    passed(&swapped, "blocks in the wrong order");
    let parted = |bytes: &mut Vec<u8>| {
        let all = blocks(bytes);
        let second = u64_at(bytes, all[1]) as usize;
        bytes.splice(second..second, [0; 24]);
        for at in all[1..].iter().map(|at| at + 24) {
            add_u64(bytes, at, 24);
        }
        add_u64(bytes, footer + 24 + 40, 24);
        seal(bytes);
    };
    passed(&parted, "something between two blocks");
}

/// A key that is longer than any key, where its segment is long enough for it.
#[test]
fn a_hint_of_a_key_that_is_longer_than_any_key_is_passed_over() {
    let fixture = longest_key_compacted();
    let name = files(&fixture, ".hint")[0].clone();
    let bytes = fixture.bytes(&name);
    let mut lying = hints(&bytes);
    assert_eq!(lying[0].key.len(), KEY_BYTES_MAX);
    lying[0].key.push(b'k');
    lying[0].value = 0;
    let change = vec![(name.clone(), Some(with_hints(&bytes, &lying)))];
    assert_passed_over(&fixture, &change, "a longer key");
}
