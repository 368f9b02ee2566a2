//! The shortest way through everything: written, closed, opened, read; on every machine.

use happystore::vfs::sim::World;
use happystore::{Options, Store};

#[test]
fn a_value_survives_closing_and_a_new_process() {
    let world = World::new(1);
    let store: Store = Options::new()
        .vfs(world.process())
        .open("/data/store")
        .unwrap();
    store.set("a", &1).unwrap();
    store
        .bulk_set((0..1000).map(|n| (format!("k{n:04}"), n)))
        .unwrap();
    assert_eq!(store.get::<i32>("a").unwrap(), Some(1));
    assert_eq!(store.query().prefix("k000").count().unwrap(), 10);
    store
        .transaction(|tx| -> happystore::Result<()> {
            tx.set("b", &2)?;
            tx.transaction(|inner| {
                inner.delete("a")?;
                inner.abort(())
            })
        })
        .unwrap();
    store.verify().unwrap();
    store.close().unwrap();
    let store: Store = Options::new()
        .vfs(world.process())
        .open("/data/store")
        .unwrap();
    assert_eq!(store.get::<i32>("a").unwrap(), Some(1));
    assert_eq!(store.get::<i32>("b").unwrap(), Some(2));
    assert_eq!(store.scan().iter::<i32>().unwrap().count(), 1002);
}

#[test]
fn the_same_on_real_files_and_in_memory() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("s");
    let store = Store::open(&path).unwrap();
    store.set("a", &1).unwrap();
    store
        .bulk_set((0..1000).map(|n| (format!("k{n:04}"), n)))
        .unwrap();
    store.verify().unwrap();
    store.close().unwrap();
    let store = Store::open(&path).unwrap();
    assert_eq!(store.get::<i32>("a").unwrap(), Some(1));
    assert_eq!(store.scan().iter::<i32>().unwrap().count(), 1001);
    let store = Store::in_memory();
    store.set("a", &1).unwrap();
    assert_eq!(store.get::<i32>("a").unwrap(), Some(1));
}
