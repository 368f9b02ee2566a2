//! What a killed compaction has finished is not done again.

use happystore::vfs::sim::{Fault, World};
use happystore::{Compaction, Durability, Options, Store};

const SEGMENT_BYTES: u64 = 32 << 10;
const KEYS: u32 = 400;

fn open(world: &World) -> Store {
    let options = Options::new().vfs(world.process());
    let options = options
        .durability(Durability::Os)
        .compaction(Compaction::manual());
    options.segment_bytes(SEGMENT_BYTES).open("/d").unwrap()
}

/// A store of which a half is dead, spread over all segments.
fn filled(world: &World) -> Store {
    let store = open(world);
    for n in 0..2 * KEYS {
        let key = format!("k{:04}", n * 7 % KEYS);
        store
            .set(&key, &vec![u8::try_from(n % 251).unwrap(); 500])
            .unwrap();
    }
    store
}

/// How long all is that compaction has made and that is listed: whatever is not, who opens alone has
/// removed.
fn made_bytes(world: &World) -> u64 {
    let image = world.image_now();
    let files = image.list("/d").into_iter();
    let is_made = |name: &String| {
        let segment = format!("/d/{}.seg", name.split('.').next().unwrap());
        let is_of_one = name
            .strip_suffix(".seg")
            .or(name.strip_suffix(".hint"))
            .is_some();
        is_of_one
            && image
                .read(segment)
                .is_some_and(|bytes| bytes.get(48) == Some(&1))
    };
    let len = |name: String| image.read(format!("/d/{name}")).unwrap().len() as u64;
    files.filter(is_made).map(len).sum()
}

/// Kills a compaction at its `nth` call, and opens the store again; none if it was done before.
fn killed(world: &World, store: Store, nth: u64) -> Option<Store> {
    world.fail_call(nth, Fault::kill());
    let is_done = store.compact().is_ok();
    world.heal();
    drop(store);
    (!is_done).then(|| open(world))
}

#[test]
fn a_compaction_begun_again_does_no_more_than_a_segment_again() {
    let world = World::new(1);
    let store = filled(&world);
    let whole = store.compact().unwrap().bytes_written;
    assert!(whole > 5 * SEGMENT_BYTES, "{whole}");
    drop(store);
    let (mut deaths, mut resumed) = (0, 0);
    for nth in (1..5000).step_by(5) {
        let world = World::new(1);
        let mut store = filled(&world);
        let (mut made, mut lives) = (0, 0);
        // Twice, from where the one before has come to.
        for _ in 0..2 {
            let Some(next) = killed(&world, store, nth) else {
                store = open(&world);
                break;
            };
            store = next;
            lives += 1;
            let now = made_bytes(&world);
            assert!(
                now >= made,
                "call {nth}: {made} bytes were made, and {now} are left"
            );
            made = now;
        }
        deaths += lives;
        resumed += u32::from(made > 0 && lives > 0);
        let again = store.compact().unwrap().bytes_written;
        assert!(
            made + again <= whole + SEGMENT_BYTES * 5 / 4,
            "call {nth}: {made} bytes were made, and {again} more, of {whole}"
        );
        assert_eq!(store.query().count().unwrap(), u64::from(KEYS));
        store.verify().unwrap();
        if lives == 0 {
            break;
        }
    }
    eprintln!("{deaths} deaths, {resumed} times there was something to go on with");
    assert!(deaths > 20 && resumed > 10, "{deaths} {resumed}");
}
