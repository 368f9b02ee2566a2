//! Opening a store: what is made, what is refused, and what the refusal says.

use std::time::Duration;

use happystore::limits::{
    DEFERRED_DELAY_MAX, DEFERRED_DELAY_MIN, LABEL_BYTES_MAX, LOCK_TIMEOUT_MAX, SEGMENT_BYTES_MAX,
    SEGMENT_BYTES_MIN, SERIALIZER_NAME_BYTES_MAX,
};
use happystore::{
    Access, Compaction, Create, Durability, ErrorKind, Json, OpenProgress, Options, Raw,
    Serializer, Store,
};

use crate::support::{Place, assert_refused, everywhere, real, with_a_disk};

fn shown(place: &Place) -> String {
    place.path().display().to_string()
}

#[test]
fn a_file_is_not_a_store() {
    for place in with_a_disk() {
        place.write_file(&place.path(), b"a letter");
        let parts = [&*shown(&place), "a file, not a directory"];
        for access in [Access::Shared, Access::Exclusive, Access::ReadOnly] {
            let opened = place.open_with(place.options().access(access));
            assert_refused(opened, ErrorKind::NotAStore, &parts);
        }
    }
}

#[test]
fn a_new_store_is_made_only_where_there_is_none() {
    for place in with_a_disk() {
        let new = || place.options().create(Create::New);
        let store = place.open_with(new()).unwrap();
        store.set("a", &1).unwrap();
        let parts = [&*shown(&place), "already", "Create::IfMissing"];
        assert_refused(place.open_with(new()), ErrorKind::AlreadyExists, &parts);
        store.set("a", &2).unwrap();
        store.close().unwrap();
        assert_refused(place.open_with(new()), ErrorKind::AlreadyExists, &parts);
        assert_eq!(place.open().get("a").unwrap(), Some(2));
    }
}

#[test]
fn a_missing_store_is_not_made_if_that_is_not_wanted() {
    for place in with_a_disk() {
        let never = || place.options().create(Create::Never);
        let read_only = || place.options().access(Access::ReadOnly);
        let parts = [&*shown(&place), "no store", "Create::IfMissing"];
        assert_refused(place.open_with(never()), ErrorKind::NotFound, &parts);
        assert_refused(place.open_with(read_only()), ErrorKind::NotFound, &parts);
        // A directory, but no store.
        place.write_file(&place.path().join("notes.txt"), b"");
        assert_refused(place.open_with(never()), ErrorKind::NotFound, &parts);
        assert_refused(place.open_with(read_only()), ErrorKind::NotFound, &parts);
        assert_eq!(place.files().len(), 1, "nothing was made");
        drop(place.open());
        place.open_with(never()).unwrap().set("a", &1).unwrap();
        assert_eq!(
            place.open_with(read_only()).unwrap().get("a").unwrap(),
            Some(1)
        );
    }
}

#[test]
fn a_store_for_reading_refuses_writes_and_changes_no_byte() {
    for place in with_a_disk() {
        place.open().bulk_set([("a", 1), ("b", 2)]).unwrap();
        let before = place.files();
        let store = place
            .open_with(place.options().access(Access::ReadOnly))
            .unwrap();
        assert_eq!(store.get("a").unwrap(), Some(1));
        assert_eq!(store.query().reverse().keys().unwrap(), ["b", "a"]);
        store.snapshot().unwrap();
        store.stats().unwrap();
        store.verify().unwrap();
        store.sync().unwrap();
        let refused = |result: happystore::Result<()>| {
            let parts = [&*shown(&place), "reading only", "Access::Shared"];
            assert_refused(result, ErrorKind::ReadOnly, &parts);
        };
        refused(store.set("a", &2));
        refused(store.delete("a").map(drop));
        refused(store.delete("missing").map(drop));
        refused(store.bulk_set([("a", 1)]));
        refused(store.bulk_delete(["a"]).map(drop));
        refused(store.query().delete().map(drop));
        refused(store.begin().map(drop));
        refused(store.transaction(|_| Ok(())));
        store.close().unwrap();
        assert!(before == place.files(), "the directory is as it was");
    }
}

#[test]
fn a_store_copied_without_its_lock_is_read_without_making_one() {
    for place in with_a_disk() {
        place.open().set("a", &1).unwrap();
        for name in ["STATE", "LOCK"] {
            place.remove_file(name);
            let before = place.files();
            let store = place
                .open_with(place.options().access(Access::ReadOnly))
                .unwrap();
            assert_eq!(store.get("a").unwrap(), Some(1));
            drop(store);
            assert!(
                before == place.files(),
                "without {name}, the directory is as it was"
            );
        }
    }
}

#[test]
fn one_process_opens_a_store_in_one_way() {
    for place in with_a_disk() {
        let store = place.open();
        let opened = place.open_with(place.options().access(Access::ReadOnly));
        assert_refused(
            opened,
            ErrorKind::InvalidOption,
            &["access", "ReadOnly", "Shared"],
        );
        store.set("a", &1).unwrap();
        let other = place.open_with(place.options().serializer(Json));
        assert_refused(other, ErrorKind::SerializerMismatch, &[]);
        let other = place.open_with(place.options().byte_keys());
        assert_refused(other, ErrorKind::KeyKindMismatch, &[]);
        store.close().unwrap();
        // Whoever was refused has left nothing open.
        let store = place
            .open_with(place.options().access(Access::Exclusive))
            .unwrap();
        store.set("a", &2).unwrap();
    }
}

#[test]
fn another_serializer_is_refused_unless_any_is_asked_for() {
    for place in with_a_disk() {
        place.open().set("a", &1).unwrap();
        let opened = place.open_with(place.options().serializer(Raw));
        let parts = [
            &*shown(&place),
            "\"cbor\"",
            "\"raw\"",
            "any_serializer(true)",
        ];
        assert_refused(opened, ErrorKind::SerializerMismatch, &parts);
        let raw = place.options().serializer(Raw).any_serializer(true);
        let store = place.open_with(raw).unwrap();
        assert_eq!(store.get("a").unwrap(), Some(vec![1]));
        store.close().unwrap();
        assert_eq!(
            place.open().get("a").unwrap(),
            Some(1),
            "the name in the store stays"
        );
    }
}

#[test]
fn another_kind_of_keys_is_refused() {
    for place in with_a_disk() {
        place.open().set("a", &1).unwrap();
        let opened = place.open_with(place.options().byte_keys().any_serializer(true));
        let parts = [&*shown(&place), "str keys", "[u8] keys"];
        assert_refused(opened, ErrorKind::KeyKindMismatch, &parts);
        drop(place.open());
    }
    for place in with_a_disk() {
        drop(place.open_with(place.options().byte_keys()).unwrap());
        assert_refused(
            place.open_with(place.options()),
            ErrorKind::KeyKindMismatch,
            &[],
        );
    }
}

/// CRC-32, bit by bit.
fn crc(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[test]
fn a_store_of_a_newer_format_is_told_from_a_damaged_one() {
    for place in with_a_disk() {
        place.open().set("a", &1).unwrap();
        let path = place.path().join("MANIFEST");
        let whole = place.read_file("MANIFEST");
        let mut newer = whole.clone();
        newer[8..12].copy_from_slice(&7_u32.to_le_bytes());
        place.write_file(&path, &newer);
        let parts = ["MANIFEST", "corrupt", "backup"];
        assert_refused(place.open_with(place.options()), ErrorKind::Corrupt, &parts);
        let sum = crc(&newer[..12]);
        newer[12..16].copy_from_slice(&sum.to_le_bytes());
        place.write_file(&path, &newer);
        let parts = ["MANIFEST", "version 7", "up to 1", "newer happystore"];
        for access in [Access::Shared, Access::ReadOnly] {
            let opened = place.open_with(place.options().access(access));
            assert_refused(opened, ErrorKind::FormatVersion, &parts);
        }
        place.write_file(&path, &whole);
        assert_eq!(place.open().get("a").unwrap(), Some(1));
    }
}

#[test]
fn a_store_whose_manifest_is_gone_is_not_made_anew_over_its_segments() {
    for place in with_a_disk() {
        place.open().set("a", &1).unwrap();
        place.remove_file("MANIFEST");
        for create in [Create::IfMissing, Create::New, Create::Never] {
            let opened = place.open_with(place.options().create(create));
            assert_refused(opened, ErrorKind::Corrupt, &["MANIFEST", "backup"]);
        }
    }
}

#[derive(Clone)]
struct Named(String);

impl Serializer for Named {
    fn name(&self) -> &str {
        &self.0
    }
}

#[test]
fn options_out_of_bounds_are_refused_by_name() {
    for place in everywhere() {
        let refused = |options: Options, parts: &[&str]| {
            assert_refused(place.open_with(options), ErrorKind::InvalidOption, parts);
        };
        let options = || place.options();
        for bytes in [0, SEGMENT_BYTES_MIN - 1, SEGMENT_BYTES_MAX + 1, u64::MAX] {
            let parts = [
                "segment_bytes",
                &bytes.to_string(),
                &SEGMENT_BYTES_MIN.to_string(),
            ];
            refused(options().segment_bytes(bytes), &parts);
        }
        let timeout = LOCK_TIMEOUT_MAX + Duration::from_nanos(1);
        refused(
            options().lock_timeout(timeout),
            &["lock_timeout", "at most"],
        );
        refused(
            options().lock_timeout(Duration::MAX),
            &["lock_timeout", "at most"],
        );
        let delays = [
            Duration::ZERO,
            DEFERRED_DELAY_MIN / 2,
            DEFERRED_DELAY_MAX * 2,
        ];
        for delay in delays {
            let durability = Durability::Deferred(delay);
            refused(
                options().durability(durability),
                &["durability", "from 1ms to", "Sync"],
            );
        }
        let label = "l".repeat(LABEL_BYTES_MAX + 1);
        refused(options().label(&label), &["label", &label, "64 bytes"]);
        for ratio in [0.0, -1.0, 1.1, f64::NAN, f64::INFINITY] {
            let compaction = Compaction::automatic().dead_ratio(ratio);
            refused(
                options().compaction(compaction),
                &["dead_ratio", &ratio.to_string()],
            );
        }
        let compaction = Compaction::manual().rate_limit_bytes(0);
        refused(
            options().compaction(compaction),
            &["rate_limit_bytes", "above 0"],
        );
        for name in [String::new(), "n".repeat(SERIALIZER_NAME_BYTES_MAX + 1)] {
            let opened = place.open_with(options().serializer(Named(name)));
            assert_refused(
                opened,
                ErrorKind::InvalidOption,
                &["serializer", "64 bytes"],
            );
        }
    }
}

#[test]
fn options_at_their_bounds_are_taken() {
    for place in everywhere() {
        let least = place
            .options()
            .segment_bytes(SEGMENT_BYTES_MIN)
            .lock_timeout(Duration::ZERO)
            .durability(Durability::Deferred(DEFERRED_DELAY_MIN))
            .label("")
            .compaction(
                Compaction::manual()
                    .dead_ratio(f64::MIN_POSITIVE)
                    .rate_limit_bytes(1),
            );
        let store = place.open_with(least).unwrap();
        store.set("a", &1).unwrap();
        store.close().unwrap();
        let most = place
            .options()
            .segment_bytes(SEGMENT_BYTES_MAX)
            .lock_timeout(LOCK_TIMEOUT_MAX)
            .durability(Durability::Deferred(DEFERRED_DELAY_MAX))
            .label("é".repeat(LABEL_BYTES_MAX / 2))
            .compaction(Compaction::automatic().dead_ratio(1.0).dead_bytes(0))
            .verify_reads(false)
            .serializer(Named("n".repeat(SERIALIZER_NAME_BYTES_MAX)))
            .any_serializer(true);
        let store = place.open_with(most).unwrap();
        store.with(Json).set("a", &1).unwrap();
        assert_eq!(store.with(Json).get("a").unwrap(), Some(1));
        store.close().unwrap();
    }
}

#[test]
fn the_progress_of_opening_is_told() {
    for place in with_a_disk() {
        place
            .open()
            .bulk_set((0..1000).map(|n| (n.to_string(), n)))
            .unwrap();
        let (told, heard) = std::sync::mpsc::channel::<OpenProgress>();
        let options = place
            .options()
            .on_open_progress(move |now| told.send(now).unwrap());
        let store = place.open_with(options).unwrap();
        let progress: Vec<_> = heard.try_iter().collect();
        let last = progress.last().unwrap();
        assert_eq!((last.bytes_done, last.keys), (last.bytes_total, 1000));
        assert!(progress.is_sorted_by_key(|now| now.bytes_done));
        drop(store);
    }
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let below_proc = Store::open("/proc/happystore/none");
    assert_refused(
        below_proc,
        ErrorKind::Io,
        &["cannot create", "/proc/happystore/none"],
    );
    let place = real();
    place.write_file(&place.path(), b"a letter");
    let below = place.path().join("below/a/file");
    let parts = [&*below.display().to_string()];
    assert_refused(Store::open(&below), ErrorKind::Io, &parts);
    let read_only = Options::new().access(Access::ReadOnly).open("/proc/tty");
    assert_refused(read_only, ErrorKind::NotFound, &["/proc/tty"]);
    assert_refused(
        Store::open("/proc/tty"),
        ErrorKind::Io,
        &["open /proc/tty/LOCK"],
    );
    assert_refused(
        Store::open("/dev/null"),
        ErrorKind::NotAStore,
        &["not a directory"],
    );
}

#[test]
fn reads_without_mapping_see_the_same() {
    let place = real();
    let store = place
        .open_with(place.options().mapped_files(false))
        .unwrap();
    store
        .bulk_set((0..100).map(|n| (n.to_string(), n)))
        .unwrap();
    assert_eq!(store.get("42").unwrap(), Some(42));
    let mapped = place.open();
    assert_eq!(mapped.get("42").unwrap(), Some(42), "it is the same engine");
    mapped.set("42", &0).unwrap();
    assert_eq!(store.get("42").unwrap(), Some(0));
}
