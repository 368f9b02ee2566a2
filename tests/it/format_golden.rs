//! Format version 1, byte for byte: what it once was it is for ever.
//!
//! The fixture was written by the simulated machine under a fixed seed, and lies beside this file
//! as one file a store file. A store that opens it must read the same for ever; and the same
//! operations must make the very same bytes, for as long as version 1 is what is written.
//! `HAPPYSTORE_WRITE_GOLDEN=1` writes it anew, which is right only before a release.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;

use happystore::vfs::sim::World;
use happystore::vfs::{OpenMode, Vfs};
use happystore::{Access, Cbor, Compaction, Options, Result, Store};

/// The files of locks and of what processes tell each other are not of the format.
const OTHERS: [&str; 4] = ["COMPACT", "LOCK", "OPEN", "STATE"];

/// The files of the fixture.
fn files() -> Vec<String> {
    let listed = fs::read_dir(fixture("")).unwrap();
    let names = listed.map(|entry| entry.unwrap().file_name().into_string().unwrap());
    let mut names: Vec<String> = names.collect();
    names.sort();
    names
}

fn fixture(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/fixtures/format-1")
        .join(file)
}

fn options(process: &Arc<dyn Vfs>) -> Options<Cbor> {
    Options::new()
        .vfs(process.clone())
        .segment_bytes(512)
        .compaction(Compaction::manual())
}

/// Every feature of the format: puts, tombstones, batches, seal marks, a repaired tail, entries and
/// a tombstone that compaction has moved, hints.
fn write_store() -> World {
    let world = World::new(2024);
    let process = world.process();
    let store = options(&process).open("/s").unwrap();
    store.set("", &0).unwrap();
    store.set("user/anna", &("Anna", 31)).unwrap();
    store
        .bulk_set([("user/ben", ("Ben", 27)), ("user/cid", ("Cid", 5))])
        .unwrap();
    assert!(store.delete("user/cid").unwrap());
    store.close().unwrap();
    let store = options(&process).open("/s").unwrap();
    store
        .transaction(|tx| -> Result<()> {
            tx.set("tx/outer", &[1, 2, 3])?;
            tx.transaction(|inner| inner.set("tx/inner", &1.5))?;
            tx.transaction(|inner| {
                inner.delete("tx/outer")?;
                inner.abort(())
            })
        })
        .unwrap();
    store.set("long", &"x".repeat(600)).unwrap();
    store.set("user/anna", &("Anna", 32)).unwrap();
    world.kill(&process);
    drop(store);
    let process = world.process();
    let torn = process
        .open("/s/00000003.seg".as_ref(), OpenMode::Write)
        .unwrap();
    torn.write_at(400, b"a record that was never finished")
        .unwrap();
    let store = options(&process).open("/s").unwrap();
    store.set("after the repair", &true).unwrap();
    store.set("long", &"y".repeat(600)).unwrap();
    assert!(store.delete("user/ben").unwrap());
    store.set("tx/inner", &2.5).unwrap();
    store.set("more", &"z".repeat(400)).unwrap();
    // All but the first: it has an older version of what was deleted.
    store.compact_segments(|id| id > 1).unwrap();
    store.set("after the compaction", &7).unwrap();
    store.close().unwrap();
    world
}

fn golden(file: &str) -> Vec<u8> {
    fs::read(fixture(file)).unwrap()
}

/// What the fixture holds, told by hand.
fn check_content(store: &Store) {
    assert_eq!(store.get::<i32>("").unwrap(), Some(0));
    assert_eq!(
        store.get::<(String, u32)>("user/anna").unwrap(),
        Some(("Anna".into(), 32))
    );
    assert_eq!(store.get::<(String, u32)>("user/ben").unwrap(), None);
    assert_eq!(
        store.get::<Vec<u8>>("tx/outer").unwrap(),
        Some(vec![1, 2, 3])
    );
    assert_eq!(store.get::<f64>("tx/inner").unwrap(), Some(2.5));
    assert_eq!(store.get::<String>("long").unwrap(), Some("y".repeat(600)));
    assert_eq!(store.get::<String>("more").unwrap(), Some("z".repeat(400)));
    assert_eq!(store.get::<u8>("after the compaction").unwrap(), Some(7));
    assert_eq!(store.get::<bool>("after the repair").unwrap(), Some(true));
    let keys = [
        "",
        "after the compaction",
        "after the repair",
        "long",
        "more",
        "tx/inner",
        "tx/outer",
        "user/anna",
    ];
    assert_eq!(store.query().keys().unwrap(), keys);
    let report = store.verify().unwrap();
    assert_eq!(
        (report.segments, report.records, report.entries, report.keys),
        (6, 12, 14, 8)
    );
}

#[test]
fn the_same_operations_write_the_same_bytes_of_format_1() {
    let image = write_store().image_now();
    let mut written = image.list("/s");
    written.retain(|name| !OTHERS.contains(&name.as_str()));
    written.sort();
    if std::env::var_os("HAPPYSTORE_WRITE_GOLDEN").is_some() {
        // OK because it is made again.
        let _ = fs::remove_dir_all(fixture(""));
        fs::create_dir_all(fixture("")).unwrap();
        for file in &written {
            fs::write(fixture(file), image.read(format!("/s/{file}")).unwrap()).unwrap();
        }
    }
    assert_eq!(written, files());
    for file in files() {
        let bytes = image.read(format!("/s/{file}")).unwrap();
        let golden = golden(&file);
        let differs = bytes
            .iter()
            .zip(&golden)
            .position(|(one, other)| one != other);
        assert_eq!(
            (differs, bytes.len()),
            (None, golden.len()),
            "{file}, first difference"
        );
    }
}

#[test]
fn a_store_of_format_1_reads_the_same_for_ever() {
    let world = World::new(1);
    let process = world.process();
    process.create_dir_all("/s".as_ref()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for file in &files() {
        let bytes = golden(file);
        let copy = process
            .open(format!("/s/{file}").as_ref(), OpenMode::CreateEmpty)
            .unwrap();
        copy.write_at(0, &bytes).unwrap();
        fs::write(directory.path().join(file), &bytes).unwrap();
    }
    check_content(&options(&process).open("/s").unwrap());
    check_content(
        &Options::new()
            .access(Access::ReadOnly)
            .open(directory.path())
            .unwrap(),
    );
    let store = Options::new().open(directory.path()).unwrap();
    check_content(&store);
    store.set("more", &1).unwrap();
    store.close().unwrap();
    let store: Store = Options::new().open(directory.path()).unwrap();
    assert_eq!(store.get::<i32>("more").unwrap(), Some(1));
}

#[test]
fn opening_and_closing_again_writes_no_byte() {
    let world = write_store();
    let before = world.image_now();
    for _ in 0..3 {
        let store = options(&world.process()).open("/s").unwrap();
        check_content(&store);
        store.close().unwrap();
    }
    let after = world.image_now();
    for file in &files() {
        let path = format!("/s/{file}");
        assert!(before.read(&path) == after.read(&path), "{file}");
    }
}
