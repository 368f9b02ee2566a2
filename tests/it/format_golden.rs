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
use happystore::{Access, Cbor, Options, Result, Store};

const FILES: [&str; 4] = ["MANIFEST", "00000001.seg", "00000002.seg", "00000003.seg"];

fn fixture(file: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/it/fixtures/format-1")
        .join(file)
}

fn options(process: &Arc<dyn Vfs>) -> Options<Cbor> {
    Options::new().vfs(process.clone()).segment_bytes(512)
}

/// Every feature of the format: puts, tombstones, batches, seal marks, a repaired tail.
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
    assert_eq!(
        store.get::<(String, u32)>("user/ben").unwrap(),
        Some(("Ben".into(), 27))
    );
    assert_eq!(
        store.get::<Vec<u8>>("tx/outer").unwrap(),
        Some(vec![1, 2, 3])
    );
    assert_eq!(store.get::<f64>("tx/inner").unwrap(), Some(1.5));
    assert_eq!(store.get::<String>("long").unwrap(), Some("x".repeat(600)));
    assert_eq!(store.get::<bool>("after the repair").unwrap(), Some(true));
    let keys = [
        "",
        "after the repair",
        "long",
        "tx/inner",
        "tx/outer",
        "user/anna",
        "user/ben",
    ];
    assert_eq!(store.query().keys().unwrap(), keys);
    let report = store.verify().unwrap();
    assert_eq!(
        (report.segments, report.records, report.entries, report.keys),
        (3, 10, 10, 7)
    );
}

#[test]
fn the_same_operations_write_the_same_bytes_of_format_1() {
    let image = write_store().image_now();
    for file in FILES {
        let bytes = image.read(format!("/s/{file}")).unwrap();
        if std::env::var_os("HAPPYSTORE_WRITE_GOLDEN").is_some() {
            fs::create_dir_all(fixture("")).unwrap();
            fs::write(fixture(file), &bytes).unwrap();
        }
        let golden = golden(file);
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
    let files = ["LOCK", "MANIFEST", "OPEN", "STATE"];
    let others: Vec<_> = image
        .list("/s")
        .into_iter()
        .filter(|f| !FILES.contains(&&**f) || f == "MANIFEST")
        .collect();
    assert_eq!(others, files);
}

#[test]
fn a_store_of_format_1_reads_the_same_for_ever() {
    let world = World::new(1);
    let process = world.process();
    process.create_dir_all("/s".as_ref()).unwrap();
    let directory = tempfile::tempdir().unwrap();
    for file in FILES {
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
    for file in FILES {
        let path = format!("/s/{file}");
        assert!(before.read(&path) == after.read(&path), "{file}");
    }
}
