//! Files that are damaged under an open store: reads give the right value, or `Corrupt`.

use happystore::vfs::OpenMode;
use happystore::vfs::sim::World;
use happystore::{ErrorKind, Raw, Store};

use super::fixtures::{DIRECTORY, Fixture, open};
use super::fixtures::{active_only, compacted, nested_batches, sealed_segments};

/// Reads every key in every way; how many values were refused as `Corrupt`.
fn refused(store: &Store<Raw>, fixture: &Fixture, what: &dyn Fn() -> String) -> u64 {
    let content = fixture.history.last().unwrap();
    let mut refused = 0;
    for (key, value) in content {
        match store.get(key) {
            Ok(found) => assert_eq!(found.as_ref(), Some(value), "{}", what()),
            Err(error) => {
                assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", what());
                refused += 1;
            }
        }
    }
    let keys = store.query().keys().unwrap();
    assert!(
        keys.iter().eq(content.keys()),
        "{}: keys are in memory",
        what()
    );
    match store.query().pairs() {
        Ok(pairs) => {
            assert!(
                pairs.iter().map(|(key, value)| (key, value)).eq(content),
                "{}",
                what()
            );
            assert_eq!(refused, 0, "{}", what());
        }
        Err(error) => {
            assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", what());
            assert!(refused > 0, "{}", what());
        }
    }
    refused
}

/// Flips every bit of every segment under an open store, one at a time; how many flips were in a
/// value that is read, and how many in other bytes that `verify` finds.
fn flip_all(fixture: &Fixture) -> (u64, u64) {
    let world = World::from_image(fixture.image.clone(), 5);
    let store = open(&world.process(), 1024).unwrap();
    let other = world.process();
    let (mut in_values, mut in_others) = (0, 0);
    for name in fixture.files().iter().filter(|name| name.ends_with(".seg")) {
        let bytes = fixture.bytes(name);
        let path = format!("{DIRECTORY}/{name}");
        let file = other.open(path.as_ref(), OpenMode::Write).unwrap();
        for bit in 0..bytes.len() * 8 {
            let what = || format!("{}: {name}: bit {bit} flipped", fixture.name);
            let at = bit / 8;
            file.write_at(at as u64, &[bytes[at] ^ 1 << (bit % 8)])
                .unwrap();
            let refused = refused(&store, fixture, &what);
            assert!(refused <= 1, "{}: {refused} values", what());
            match store.verify() {
                Ok(_) => assert_eq!(refused, 0, "{}", what()),
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::Corrupt, "{}", what());
                    in_values += refused;
                    in_others += 1 - refused;
                }
            }
            file.write_at(at as u64, &bytes[at..=at]).unwrap();
        }
    }
    store.verify().unwrap();
    (in_values, in_others)
}

#[test]
fn bits_flipped_under_an_open_store_never_make_a_wrong_value() {
    let all = [
        active_only(),
        nested_batches(),
        sealed_segments(),
        compacted(),
    ];
    let found = all.map(|fixture| flip_all(&fixture));
    assert_eq!(
        found,
        [(2256, 19376), (2944, 8448), (2400, 29984), (3600, 8080)]
    );
}

#[test]
fn a_store_whose_files_are_emptied_while_it_is_open_answers_errors() {
    let fixture = sealed_segments();
    let world = World::from_image(fixture.image.clone(), 5);
    let store = open(&world.process(), 1024).unwrap();
    let other = world.process();
    for name in fixture.files().iter().filter(|name| name.ends_with(".seg")) {
        other
            .open(
                format!("{DIRECTORY}/{name}").as_ref(),
                OpenMode::CreateEmpty,
            )
            .unwrap();
    }
    let content = fixture.history.last().unwrap();
    assert_eq!(
        refused(&store, &fixture, &|| "emptied".to_owned()),
        content.len() as u64
    );
    assert!(store.verify().is_err());
}
