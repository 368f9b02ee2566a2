//! Files that no crash and no cosmic ray leave: right checksums around lies.
//!
//! Whoever can write files can compute checksums. Each lie is a typed error, or, where it cannot
//! be told from what a crash leaves, a store whose content was there once; quickly, and without
//! allocating what a lie asks for.

use std::path::Path;
use std::time::{Duration, Instant};

use happystore::limits::KEY_BYTES_MAX;
use happystore::vfs::sim::World;
use happystore::{Error, ErrorKind};

use super::fixtures::{Fixture, active_only, closed_cleanly, longest_key, open, sealed_segments};
use super::format::{
    Listed, put_u32, put_u64, records, seal_header, seal_manifest, seal_record, u32_at, u64_at,
    with_segments,
};
use super::verdict::{Change, Verdict, damaged_world, judge};

/// Files of a fixture with `lie` told in the record `at`, counted from the end: 0 is the last.
fn record_lie(fixture: &Fixture, file: &str, from_end: usize, lie: &dyn Fn(&mut [u8])) -> Change {
    let mut bytes = fixture.bytes(file);
    let found = records(&bytes);
    let (at, end) = found[found.len() - 1 - from_end];
    lie(&mut bytes[at..end]);
    seal_record(&mut bytes, at, end);
    vec![(file.to_owned(), Some(bytes))]
}

fn verdict(fixture: &Fixture, what: &str, change: &Change) -> Verdict {
    judge(fixture, change, &|| what.to_owned())
}

#[test]
fn a_record_written_again_by_the_tests_own_encoder_is_the_same() {
    for fixture in [active_only(), sealed_segments(), closed_cleanly()] {
        for file in fixture.files().iter().filter(|name| name.ends_with(".seg")) {
            let bytes = fixture.bytes(file);
            let mut again = bytes.clone();
            for (at, end) in records(&bytes) {
                put_u32(&mut again, at, 0);
                put_u32(&mut again, at + 32, 0);
                seal_record(&mut again, at, end);
            }
            put_u32(&mut again, 60, 0);
            seal_header(&mut again);
            assert_eq!(again, bytes, "{}: {file}", fixture.name);
        }
        let manifest = fixture.bytes("MANIFEST");
        let mut again = manifest.clone();
        seal_manifest(&mut again);
        assert_eq!(again, manifest);
    }
}

/// Lies in a record's header or entries, told with right checksums.
type Lie = (&'static str, fn(&mut [u8]));

const LIES: &[Lie] = &[
    ("entry count one more", |r| {
        put_u32(r, 12, u32_at(r, 12) + 1)
    }),
    ("entry count zero", |r| put_u32(r, 12, 0)),
    ("entry count beyond all", |r| put_u32(r, 12, u32::MAX)),
    ("payload length zero", |r| put_u32(r, 8, 0)),
    ("payload length not aligned", |r| {
        put_u32(r, 8, u32_at(r, 8) - 1)
    }),
    ("payload length beyond the file", |r| {
        put_u32(r, 8, u32::MAX)
    }),
    ("payload length of two gibibytes", |r| {
        put_u32(r, 8, 1 << 31)
    }),
    ("payload length four more", |r| {
        put_u32(r, 8, u32_at(r, 8) + 4)
    }),
    ("sequence number jumps", |r| {
        put_u64(r, 16, u64_at(r, 16) + 1)
    }),
    ("sequence number falls back", |r| {
        put_u64(r, 16, u64_at(r, 16) - 1)
    }),
    ("sequence number at the end of time", |r| {
        put_u64(r, 16, u64::MAX)
    }),
    ("sequence number zero", |r| put_u64(r, 16, 0)),
    ("epoch jumps", |r| put_u32(r, 24, 7)),
    ("epoch at the end of time", |r| put_u32(r, 24, u32::MAX)),
    ("epoch zero", |r| put_u32(r, 24, 0)),
    ("synced beyond itself", |r| put_u32(r, 28, u32::MAX)),
    ("kind unknown", |r| r[4] = 3),
    ("kind a seal mark with entries", |r| r[4] = 2),
    ("padding of the kind set", |r| r[5] = 1),
    ("key length beyond the record", |r| put_u32(r, 40, 60_000)),
    ("key length over the limit", |r| {
        put_u32(r, 40, KEY_BYTES_MAX as u32 + 1)
    }),
    ("key length beyond all", |r| put_u32(r, 40, u32::MAX)),
    ("value length beyond the record", |r| {
        put_u32(r, 44, 1 << 20)
    }),
    ("value length beyond all", |r| put_u32(r, 44, (1 << 31) - 1)),
    ("a tombstone with a value", |r| put_u32(r, 44, 1 << 31 | 1)),
    ("a tombstone over a value", |r| {
        put_u32(r, 44, u32_at(r, 44) | 1 << 31)
    }),
];

#[test]
fn lies_in_a_record_that_a_later_one_proves_are_errors() {
    let fixture = active_only();
    let mut found = Vec::new();
    for (what, lie) in LIES {
        let change = record_lie(&fixture, "00000001.seg", 2, lie);
        found.push((*what, verdict(&fixture, what, &change)));
    }
    let wrong: Vec<_> = found
        .iter()
        .filter(|(_, verdict)| *verdict != Verdict::Corrupt)
        .collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

#[test]
fn lies_in_a_sealed_segment_are_errors() {
    let fixture = sealed_segments();
    for (what, lie) in LIES {
        let change = record_lie(&fixture, "00000002.seg", 0, lie);
        assert_eq!(verdict(&fixture, what, &change), Verdict::Corrupt, "{what}");
    }
}

#[test]
fn lies_in_the_last_record_are_errors_or_a_torn_tail() {
    let fixture = active_only();
    for (what, lie) in LIES {
        let change = record_lie(&fixture, "00000001.seg", 0, lie);
        let verdict = verdict(&fixture, what, &change);
        assert!(
            matches!(verdict, Verdict::Corrupt | Verdict::Less(1)),
            "{what}: {verdict:?}"
        );
    }
}

#[test]
fn a_key_longer_than_any_key_is_an_error() {
    let fixture = longest_key();
    let lie: fn(&mut [u8]) = |r| {
        put_u32(r, 40, u32_at(r, 40) + 1);
        put_u32(r, 44, u32_at(r, 44) - 1);
    };
    let change = record_lie(&fixture, "00000001.seg", 0, &lie);
    let found = verdict(&fixture, "a longer key", &change);
    assert_eq!(found, Verdict::Corrupt);
}

#[test]
fn two_entries_of_one_key_are_read_like_one() {
    // No writer makes such a batch; whatever is shown, it is one of the two, and no panic.
    let fixture = active_only();
    let mut bytes = fixture.bytes("00000001.seg");
    let (at, end) = *records(&bytes).last().unwrap();
    let entry = bytes[at + 36..end].to_vec();
    let entry_len = 12 + u32_at(&entry, 4) as usize + u32_at(&entry, 8) as usize;
    let mut payload = entry[..entry_len].repeat(2);
    payload.resize(payload.len().next_multiple_of(4), 0);
    bytes[at + 36..at + 36 + payload.len()].copy_from_slice(&payload);
    put_u32(&mut bytes, at + 8, payload.len() as u32);
    put_u32(&mut bytes, at + 12, 2);
    seal_record(&mut bytes, at, at + 36 + payload.len());
    let change = vec![("00000001.seg".to_owned(), Some(bytes))];
    assert_eq!(verdict(&fixture, "a key twice", &change), Verdict::Exact);
}

#[test]
fn lies_in_a_segments_header_are_errors() {
    let lies: [(&str, fn(&mut [u8])); 9] = [
        ("magic", |s| s[0] = b'H'),
        ("version zero", |s| put_u32(s, 8, 0)),
        ("another store", |s| s[16] ^= 1),
        ("another id", |s| put_u32(s, 32, 9)),
        ("id zero", |s| put_u32(s, 32, 0)),
        ("capacity zero", |s| put_u32(s, 36, 0)),
        ("capacity one less", |s| put_u32(s, 36, u32_at(s, 36) - 1)),
        ("capacity beyond all", |s| put_u32(s, 36, u32::MAX)),
        ("another first sequence number", |s| put_u64(s, 40, 2)),
    ];
    for fixture in [active_only(), sealed_segments()] {
        for (what, lie) in lies {
            let mut bytes = fixture.bytes("00000001.seg");
            lie(&mut bytes);
            seal_header(&mut bytes);
            let change = vec![("00000001.seg".to_owned(), Some(bytes))];
            assert_eq!(verdict(&fixture, what, &change), Verdict::Corrupt, "{what}");
        }
    }
}

#[test]
fn a_newer_version_is_told_by_name_in_every_file() {
    let fixture = sealed_segments();
    for file in ["MANIFEST", "00000001.seg", "00000003.seg"] {
        for version in [2, 77, u32::MAX] {
            let mut bytes = fixture.bytes(file);
            put_u32(&mut bytes, 8, version);
            if file == "MANIFEST" {
                seal_manifest(&mut bytes);
            } else {
                seal_header(&mut bytes);
            }
            let change = vec![(file.to_owned(), Some(bytes))];
            let error = open(&damaged_world(&fixture.image, &change).process(), 512).unwrap_err();
            match error {
                Error::FormatVersion {
                    path,
                    found,
                    supported,
                } => {
                    assert_eq!((found, supported), (version, 1));
                    assert!(path.ends_with(file));
                }
                other => panic!("{other}"),
            }
        }
    }
}

/// Opens a store with `manifest`; the error, which must come quickly.
fn refused(fixture: &Fixture, manifest: Vec<u8>) -> ErrorKind {
    let begun = Instant::now();
    let world: World = damaged_world(
        &fixture.image,
        &vec![("MANIFEST".to_owned(), Some(manifest))],
    );
    let error = open(&world.process(), 512).unwrap_err();
    assert!(
        begun.elapsed() < Duration::from_secs(1),
        "it took {:?}",
        begun.elapsed()
    );
    if let Error::Corrupt { path, .. } = &error {
        assert_eq!(path.parent(), Some(Path::new("/s")));
    }
    error.kind()
}

fn listed(id: u32, state: u8, len_bytes: u64, first: u64, last: u64) -> Listed {
    Listed {
        id,
        state,
        len_bytes,
        first,
        last,
    }
}

/// The segments of a manifest.
fn segments(manifest: &[u8]) -> Vec<Listed> {
    let list = 60 + usize::from(manifest[49])..manifest.len() - 4;
    let entry = |e: &[u8]| {
        listed(
            u32_at(e, 0),
            e[4],
            u64_at(e, 8),
            u64_at(e, 16),
            u64_at(e, 24),
        )
    };
    manifest[list].chunks_exact(32).map(entry).collect()
}

#[test]
fn lies_in_the_list_of_segments_are_errors() {
    let fixture = sealed_segments();
    let manifest = fixture.bytes("MANIFEST");
    let again = with_segments(&manifest, &segments(&manifest));
    assert_eq!(
        again, manifest,
        "the tests' encoder writes the same manifest"
    );
    let lies: [(&str, fn(&mut Vec<Listed>)); 16] = [
        ("no segment", Vec::clear),
        ("the last one missing", |list| list.truncate(list.len() - 1)),
        ("of another kind", |list| list[0].state = 3),
        ("one twice", |list| list.insert(1, listed(1, 2, 512, 3, 3))),
        ("two with one id", |list| list[1].id = list[0].id),
        ("id zero", |list| list[0].id = 0),
        ("the largest id, which is not there", |list| {
            list.last_mut().unwrap().id = u32::MAX
        }),
        ("swapped", |list| list.swap(0, 1)),
        ("an active one before others", |list| list[0].state = 1),
        ("an unknown state", |list| list[0].state = 4),
        ("a length beyond the file", |list| {
            list[0].len_bytes = 1 << 40
        }),
        ("a length at the end of numbers", |list| {
            list[0].len_bytes = u64::MAX
        }),
        ("a length of nothing", |list| list[0].len_bytes = 0),
        ("a length within a record", |list| list[0].len_bytes -= 4),
        ("another first sequence number", |list| list[0].first = 0),
        ("another last sequence number", |list| list[0].last -= 1),
    ];
    for (what, lie) in lies {
        let mut list = segments(&manifest);
        lie(&mut list);
        assert_eq!(
            refused(&fixture, with_segments(&manifest, &list)),
            ErrorKind::Corrupt,
            "{what}"
        );
    }
}

#[test]
fn ten_thousand_segments_that_are_not_there_are_an_error() {
    let fixture = active_only();
    let manifest = fixture.bytes("MANIFEST");
    let list: Vec<_> = (1..=10_000)
        .map(|id| listed(id, 2, 512, u64::from(id), id.into()))
        .collect();
    assert_eq!(
        refused(&fixture, with_segments(&manifest, &list)),
        ErrorKind::Corrupt
    );
    let mut count = with_segments(&manifest, &[]);
    put_u32(&mut count, 52, u32::MAX);
    seal_manifest(&mut count);
    assert_eq!(refused(&fixture, count), ErrorKind::Corrupt);
}

#[test]
fn other_lies_in_the_manifest_are_errors() {
    let fixture = active_only();
    let lies: [(&str, fn(&mut Vec<u8>), ErrorKind); 8] = [
        ("magic", |m| m[0] = b'X', ErrorKind::Corrupt),
        ("version zero", |m| put_u32(m, 8, 0), ErrorKind::Corrupt),
        ("another store", |m| m[20] ^= 1, ErrorKind::Corrupt),
        ("epoch zero", |m| put_u32(m, 44, 0), ErrorKind::Corrupt),
        ("keys of no kind", |m| m[48] = 9, ErrorKind::Corrupt),
        (
            "keys of another kind",
            |m| m[48] = 2,
            ErrorKind::KeyKindMismatch,
        ),
        ("a longer name", |m| m[49] = 255, ErrorKind::Corrupt),
        (
            "a name that is no text",
            |m| m[60] = 0xff,
            ErrorKind::Corrupt,
        ),
    ];
    for (what, lie, kind) in lies {
        let mut manifest = fixture.bytes("MANIFEST");
        lie(&mut manifest);
        seal_manifest(&mut manifest);
        assert_eq!(refused(&fixture, manifest), kind, "{what}");
    }
}

#[test]
fn a_manifest_at_the_end_of_its_numbers_is_an_error() {
    let fixture = sealed_segments();
    let manifest = fixture.bytes("MANIFEST");
    let mut generation = manifest.clone();
    put_u64(&mut generation, 36, u64::MAX);
    seal_manifest(&mut generation);
    assert_eq!(refused(&fixture, generation), ErrorKind::Corrupt);
    let mut epoch = manifest.clone();
    put_u32(&mut epoch, 44, u32::MAX);
    seal_manifest(&mut epoch);
    assert_eq!(refused(&fixture, epoch), ErrorKind::Corrupt);
    let mut list = segments(&manifest);
    list.last_mut().unwrap().first = u64::MAX;
    assert_eq!(
        refused(&fixture, with_segments(&manifest, &list)),
        ErrorKind::Corrupt
    );
}

#[test]
fn the_last_segment_id_of_all_is_never_used_twice() {
    let fixture = active_only();
    let mut segment = fixture.bytes("00000001.seg");
    let id_max = u32::MAX - 1;
    put_u32(&mut segment, 32, id_max);
    seal_header(&mut segment);
    for (at, end) in records(&segment) {
        seal_record(&mut segment, at, end);
    }
    let manifest = fixture.bytes("MANIFEST");
    let list = [listed(id_max, 1, 0, 1, 0)];
    let change = vec![
        ("00000001.seg".to_owned(), None),
        (format!("{id_max}.seg"), Some(segment)),
        ("MANIFEST".to_owned(), Some(with_segments(&manifest, &list))),
    ];
    assert_eq!(verdict(&fixture, "the last id", &change), Verdict::Exact);
    let world = damaged_world(&fixture.image, &change);
    let store = open(&world.process(), 512).unwrap();
    let error = store.set("large", &[7; 5000]).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    store.set("small", b"").unwrap();
    store.verify().unwrap();
    store.close().unwrap();
    assert!(open(&world.process(), 512).unwrap().has("small").unwrap());
}

/// What compaction has retired, and was killed before it removed it, is passed over: all of it is
/// older than the segment that takes records.
#[test]
fn segments_that_are_not_listed_any_more_are_passed_over_and_newer_ones_are_not() {
    let fixture = sealed_segments();
    let manifest = fixture.bytes("MANIFEST");
    let without = |at: usize| {
        let mut list = segments(&manifest);
        list.remove(at);
        let change = vec![("MANIFEST".to_owned(), Some(with_segments(&manifest, &list)))];
        let world = damaged_world(&fixture.image, &change);
        open(&world.process(), 512).and_then(|store| store.verify())
    };
    for at in [0, 1] {
        without(at).unwrap();
    }
    let last = segments(&manifest).len() - 1;
    assert_eq!(without(last).unwrap_err().kind(), ErrorKind::Corrupt);
}
