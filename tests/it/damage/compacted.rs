//! Damage to segments that compaction has made, whose entries are of many batches and moments.

use happystore::ErrorKind;
use happystore::vfs::sim::World;

use super::cases::Damage;
use super::check;
use super::fixtures::{Fixture, compacted, compacted_at_random, long_hints, open};
use super::format::{SEGMENT_HEADER, records, u32_at};
use super::hint_format::{TOMBSTONE, hints};
use super::verdict::{Change, damaged_world};

/// How many stores are made at random.
const SEEDS: u64 = 12;

/// What becomes of the compacted fixture, with hints and without.
const PINNED: [&str; 7] = [
    "bits: 6240 Exact, 16056 Corrupt",
    "bytes: 780 Exact, 3029 Corrupt",
    "truncations: 624 Exact, 2163 Corrupt",
    "sectors: 16 Corrupt",
    "records: 171 Corrupt",
    "files: 12 Exact, 58 Corrupt",
    "lock and state: 1074 Exact",
];

/// The files of a fixture whose names end like that.
pub(crate) fn files(fixture: &Fixture, ending: &str) -> Vec<String> {
    let mut files = fixture.files();
    files.retain(|name| name.ends_with(ending));
    files
}

/// Whether a segment was made by compaction.
pub(crate) fn is_compacted(segment: &[u8]) -> bool {
    segment[48] == 1
}

/// The fixture without any hints: all segments are walked over when it is opened.
fn without_hints(fixture: &Fixture) -> Fixture {
    let change: Change = files(fixture, ".hint")
        .into_iter()
        .map(|name| (name, None))
        .collect();
    Fixture {
        name: "compacted, without hints",
        image: damaged_world(&fixture.image, &change).image_now(),
        history: fixture.history.clone(),
        old_manifest: fixture.old_manifest.clone(),
    }
}

#[test]
fn the_compacted_fixtures_have_what_they_are_there_for() {
    let fixture = compacted();
    let (mut moved, mut needed, mut of_log) = (0, 0, 0);
    for name in files(&fixture, ".seg") {
        let bytes = fixture.bytes(&name);
        if is_compacted(&bytes) {
            let all = records(&bytes);
            assert!(all.iter().all(|(at, _)| bytes[at + 4] == 3), "{name}");
            moved += all.len();
        }
        let Some(found) = fixture
            .image
            .read(format!("/s/{}", name.replace(".seg", ".hint")))
        else {
            continue;
        };
        let tombstones = hints(&found)
            .iter()
            .filter(|hint| hint.value == TOMBSTONE)
            .count();
        if is_compacted(&bytes) {
            needed += tombstones;
        } else {
            of_log += 1;
        }
    }
    assert!(
        moved >= 2 && needed >= 2 && of_log == 1,
        "{moved} {needed} {of_log}"
    );
    let fixture = long_hints();
    let file = fixture.bytes(&files(&fixture, ".hint")[0]);
    assert!(super::hint_format::blocks(&file).len() > 2);
}

#[test]
fn damage_to_compacted_segments_is_found() {
    check(&compacted(), &PINNED);
}

#[test]
fn damage_to_compacted_segments_without_hints_is_found() {
    check(&without_hints(&compacted()), &PINNED);
}

#[test]
fn damage_to_stores_that_were_compacted_at_random_is_found() {
    let (mut cases, mut of_compaction) = (0, 0);
    for seed in 0..SEEDS {
        let fixture = compacted_at_random(seed);
        let segments = files(&fixture, ".seg");
        of_compaction += segments
            .iter()
            .filter(|name| is_compacted(&fixture.bytes(name)))
            .count();
        for fixture in [&fixture, &without_hints(&fixture)] {
            let mut damage = Damage::new(fixture);
            damage.few_bits(7);
            damage.truncations();
            damage.sectors();
            damage.records();
            cases += damage.count();
            let line = damage.line();
            assert!(!line.contains("Other"), "seed {seed}: {line}");
        }
    }
    eprintln!("{cases} cases in {of_compaction} compacted segments");
    assert!(
        cases > 100_000 && of_compaction > 20,
        "{cases} {of_compaction}"
    );
}

/// Rewrites what it can of a damaged store; whatever it says, no value is wrong afterwards, and what is
/// missing is refused.
fn compact_damaged(fixture: &Fixture, change: &Change, what: &str) -> bool {
    let world = damaged_world(&fixture.image, change);
    let Ok(store) = open(&world.process(), 1024) else {
        return false;
    };
    let compacted = store.compact();
    let is_refused = compacted
        .as_ref()
        .is_err_and(|error| error.kind() == ErrorKind::Corrupt);
    assert!(compacted.is_ok() || is_refused, "{what}: {compacted:?}");
    let _ = store.close();
    let content = fixture.history.last().unwrap();
    // Whatever was refused before, it is not forgotten.
    let again = World::from_image(world.image_now(), 3);
    let Ok(store) = open(&again.process(), 1024) else {
        return is_refused;
    };
    let keys = store.query().keys().unwrap();
    assert!(keys.iter().eq(content.keys()), "{what}");
    for (key, value) in content {
        match store.get(key) {
            Ok(found) => assert_eq!(found.as_ref(), Some(value), "{what}"),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{what}");
                assert!(is_refused, "{what}: copied, though it cannot be read");
            }
        }
    }
    is_refused
}

#[test]
fn a_damaged_segment_is_never_rewritten_into_another_truth() {
    let fixture = compacted();
    let (mut refused, mut cases) = (0, 0);
    for name in files(&fixture, ".seg") {
        let bytes = fixture.bytes(&name);
        let end = records(&bytes)
            .last()
            .map_or(SEGMENT_HEADER, |(_, end)| *end);
        for at in 0..end {
            let mut damaged = bytes.clone();
            damaged[at] ^= 1 << (at % 8);
            let change = vec![(name.clone(), Some(damaged))];
            let is_refused = compact_damaged(&fixture, &change, &format!("{name}: byte {at}"));
            refused += usize::from(is_refused);
            cases += 1;
        }
    }
    eprintln!("{refused} of {cases} were refused");
    assert!(refused > 100 && cases > 1000, "{refused} {cases}");
    assert_eq!(u32_at(&fixture.bytes("00000001.seg"), 32), 1);
}
