//! Hints that lie, and cannot be told from right ones without reading their segment.
//!
//! No damage makes them: their checksums are right. They may be refused when a value is read, make an
//! older truth of the same segment come back, or hide a key. Each such lie is here, with what becomes
//! of it; what is read is never what nobody wrote, nor another key's.

use std::collections::{BTreeMap, BTreeSet};

use happystore::ErrorKind;
use happystore::vfs::sim::Random;

use super::compacted::{files, is_compacted};
use super::fixtures::{Fixture, compacted};
use super::hint_format::{Hint, TOMBSTONE, hints, seal, with_hints};
use super::hints::open;
use super::verdict::{Change, damaged_world};

/// All values that each key has ever had.
fn ever(fixture: &Fixture) -> BTreeMap<String, BTreeSet<Vec<u8>>> {
    let mut ever: BTreeMap<String, BTreeSet<Vec<u8>>> = BTreeMap::new();
    for (key, value) in fixture.history.iter().flatten() {
        ever.entry(key.clone()).or_default().insert(value.clone());
    }
    ever
}

/// What became of the keys of a store whose hints lie: read right, refused as `Corrupt`, not there,
/// there with what they held before.
#[derive(Debug, Default, PartialEq, Eq, Clone, Copy)]
struct Became {
    right: usize,
    refused: usize,
    hidden: usize,
    older: usize,
}

/// Reads all that a store with such hints has.
///
/// # Panics
/// If a value was never true, or an error is not `Corrupt`.
fn became(fixture: &Fixture, change: &Change, what: &str) -> Became {
    let world = damaged_world(&fixture.image, change);
    let store = open(world.process());
    let ever = ever(fixture);
    let right = fixture.history.last().unwrap();
    let mut became = Became::default();
    for (key, values) in &ever {
        match (store.get(key), right.get(key)) {
            (Ok(found), expected) if found.as_ref() == expected => became.right += 1,
            (Ok(None), _) => became.hidden += 1,
            (Ok(Some(value)), _) => {
                assert!(values.contains(&value), "{what}: {key} was never that");
                became.older += 1;
            }
            (Err(error), _) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}: {error}");
                became.refused += 1;
            }
        }
    }
    for made_up in store.query().keys().unwrap() {
        // A key that nobody wrote has no value.
        let has_value = matches!(store.get(&made_up), Ok(Some(_)));
        let is_known = ever.contains_key(&made_up);
        assert!(is_known || !has_value, "{what}: {made_up}");
    }
    // Whatever it does with them, it does not fall over.
    drop(store.compact());
    drop(store.verify());
    became
}

/// The hints of the first compacted segment, or of the first one of the log.
fn of(fixture: &Fixture, compacted: bool) -> String {
    let names = files(fixture, ".hint").into_iter();
    let mut of_kind = names
        .filter(|name| is_compacted(&fixture.bytes(&name.replace(".hint", ".seg"))) == compacted);
    of_kind.next().unwrap()
}

/// A lie about the hints of a compacted segment or of one of the log, and how many keys are refused and
/// hidden because of it.
type Lie = (&'static str, bool, fn(&mut Vec<Hint>), usize, usize);

const LIES: &[Lie] = &[
    (
        "an entry that begins earlier",
        true,
        |hints| living(hints).offset -= 4,
        1,
        0,
    ),
    (
        "an entry of another epoch",
        true,
        |hints| living(hints).epoch += 1,
        1,
        0,
    ),
    (
        "an entry of another commit",
        true,
        |hints| living(hints).sequence -= 1,
        1,
        0,
    ),
    (
        "a value that is shorter",
        true,
        |hints| living(hints).value -= 1,
        1,
        0,
    ),
    (
        "no value",
        true,
        |hints| living(hints).value = TOMBSTONE,
        0,
        1,
    ),
    (
        "a key left out",
        true,
        |hints| hints.retain(|hint| hint.key != b"b02"),
        0,
        1,
    ),
    (
        "another key's entry",
        false,
        |hints| {
            hints[4] = Hint {
                key: hints[4].key.clone(),
                ..hints[3].clone()
            }
        },
        1,
        0,
    ),
];

/// Whoever can write right checksums around a lie could write other values, too.
#[test]
fn lies_that_only_the_segment_could_tell_are_refused_or_hide_a_key() {
    let fixture = compacted();
    let keys = ever(&fixture).len();
    for (what, is_of_compaction, lie, refused, hidden) in LIES {
        let name = of(&fixture, *is_of_compaction);
        let bytes = fixture.bytes(&name);
        let mut lying = hints(&bytes);
        lie(&mut lying);
        let change = vec![(name.clone(), Some(with_hints(&bytes, &lying)))];
        let expected = Became {
            right: keys - refused - hidden,
            refused: *refused,
            hidden: *hidden,
            older: 0,
        };
        assert_eq!(became(&fixture, &change, what), expected, "{what}");
    }
}

/// The first hint of a key that lives, and has its newest version there.
fn living(hints: &mut [Hint]) -> &mut Hint {
    hints.iter_mut().find(|hint| hint.key == b"b02").unwrap()
}

/// Any bytes changed, with right checksums around them: no panic, nothing that was never true.
#[test]
fn hints_that_lie_at_random_show_nothing_that_was_never_true() {
    let fixture = compacted();
    let names = files(&fixture, ".hint");
    let mut total = Became::default();
    for seed in 0..6_000 {
        let mut random = Random::new(seed);
        let name = &names[random.index(names.len())];
        let mut bytes = fixture.bytes(name);
        for _ in 0..=random.index(3) {
            let at = random.index(bytes.len());
            match random.below(4) {
                0 => bytes[at] = 0,
                1 => bytes[at] = 0xff,
                2 => bytes[at] ^= 1 << random.below(8),
                _ => bytes[at] = bytes[random.index(bytes.len())],
            }
        }
        seal(&mut bytes);
        let change = vec![(name.clone(), Some(bytes))];
        let now = became(&fixture, &change, &format!("seed {seed}"));
        total.right += now.right;
        total.refused += now.refused;
        total.hidden += now.hidden;
        total.older += now.older;
    }
    eprintln!("{total:?}");
    assert!(total.refused > 100, "{total:?}");
}
