//! Each order check passes what is right and catches what it is for.

use super::*;

/// The rules broken so far.
fn broken(world: &World) -> Vec<Rule> {
    broken_under(
        world,
        &OrderRules {
            segment_header_bytes: 4,
            is_of_log: Box::new(|_| true),
            ..OrderRules::default()
        },
    )
}

fn broken_under(world: &World, rules: &OrderRules) -> Vec<Rule> {
    world
        .journal()
        .violations(rules)
        .iter()
        .map(|violation| violation.rule)
        .collect()
}

/// Writes a new manifest, in the right order but for what `syncs` leaves out.
fn manifest(process: &Arc<dyn Vfs>, bytes: &[u8], syncs: [bool; 2]) {
    let path = Path::new("/d/MANIFEST.tmp");
    let file = process.open(path, OpenMode::CreateEmpty).unwrap();
    file.write_at(0, bytes).unwrap();
    if syncs[0] {
        file.sync().unwrap();
    }
    process.rename(path, Path::new("/d/MANIFEST")).unwrap();
    if syncs[1] {
        sync_dir(process);
    }
}

#[test]
fn a_manifest_is_synced_before_its_rename() {
    let (world, process) = world();
    manifest(&process, b"one", [true, true]);
    assert_eq!(broken(&world), []);
    manifest(&process, b"two", [false, true]);
    assert_eq!(broken(&world), [Rule::ManifestSyncedBeforeRename]);
}

#[test]
fn a_segment_goes_only_after_a_durable_manifest() {
    for (syncs, expected) in [
        ([true, true], vec![]),
        ([true, false], vec![Rule::ManifestDurableBeforeUnlink]),
    ] {
        let (world, process) = world();
        durable(&process, "/d/00000001.seg", b"header and more");
        durable(&process, "/d/00000003.seg", b"head");
        process.unlink(Path::new("/d/00000003.seg")).unwrap();
        manifest(&process, b"new", syncs);
        process.unlink(Path::new("/d/00000001.seg")).unwrap();
        assert_eq!(broken(&world), expected);
    }
    let (world, process) = world();
    manifest(&process, b"old", [true, true]);
    durable(&process, "/d/00000001.seg", b"header and more");
    process.unlink(Path::new("/d/00000001.seg")).unwrap();
    assert_eq!(broken(&world), [Rule::ManifestDurableBeforeUnlink]);
}

#[test]
fn a_listed_segment_never_goes() {
    let rules = OrderRules {
        lists: Some(Box::new(|bytes, name| {
            String::from_utf8_lossy(bytes)
                .split(' ')
                .any(|listed| listed == name)
        })),
        ..OrderRules::default()
    };
    let (world, process) = world();
    for name in ["/d/1.seg", "/d/3.seg", "/d/5.seg"] {
        durable(&process, name, b"bytes");
    }
    manifest(&process, b"1.seg 3.seg", [true, true]);
    process.unlink(Path::new("/d/5.seg")).unwrap();
    assert_eq!(broken_under(&world, &rules), []);
    manifest(&process, b"1.seg", [true, false]);
    process.unlink(Path::new("/d/3.seg")).unwrap();
    assert_eq!(broken_under(&world, &rules).len(), 1);
    sync_dir(&process);
    process.unlink(Path::new("/d/1.seg")).unwrap();
    assert_eq!(broken_under(&world, &rules).len(), 2);
}

#[test]
fn a_durable_commit_is_synced_before_its_acknowledgement() {
    let (world, process) = world();
    let segment = durable(&process, "/d/00000001.seg", b"header");
    world.begin(1);
    segment.write_at(10, b"one").unwrap();
    segment.sync().unwrap();
    world.begin(2);
    segment.write_at(20, b"two").unwrap();
    world.acknowledge(1, true);
    world.acknowledge(2, false);
    assert_eq!(broken(&world), []);
    world.begin(3);
    world.acknowledge(3, true);
    assert_eq!(broken(&world), [Rule::SyncedBeforeAcknowledgement]);
}

#[test]
fn a_segment_is_synced_before_the_next_one_is_written() {
    let (world, process) = world();
    let segments =
        [1, 2].map(|number| durable(&process, &format!("/d/0000000{number}.seg"), b"header"));
    segments[1].write_at(10, b"fine").unwrap();
    segments[0].write_at(10, b"late").unwrap();
    assert_eq!(broken(&world), []);
    segments[1].write_at(20, b"early").unwrap();
    assert_eq!(broken(&world), [Rule::SyncedBeforeRollOver]);
}

#[test]
fn synced_bytes_are_never_replaced_but_by_zeros() {
    let (world, process) = world();
    let segment = durable(&process, "/d/00000001.seg", b"header");
    segment.write_at(10, b"torn").unwrap();
    segment.write_at(10, b"TORN").unwrap();
    segment.sync().unwrap();
    segment.write_at(10, &[0; 4]).unwrap();
    segment.sync().unwrap();
    segment.write_at(10, b"next").unwrap();
    segment.sync().unwrap();
    segment.write_at(10, b"next and more").unwrap();
    assert_eq!(broken(&world), []);
    segment.write_at(3, b"over").unwrap();
    assert_eq!(broken(&world), [Rule::NothingOverwritten]);
    // What a world starts with counts as synced.
    let world = World::from_image(world.image_now(), 1);
    open(&world.process(), "/d/00000001.seg")
        .write_at(10, b"again")
        .unwrap();
    assert_eq!(broken(&world), [Rule::NothingOverwritten]);
}

#[test]
fn a_segment_without_records_may_be_emptied_and_made_again() {
    let (world, process) = world();
    durable(&process, "/d/00000001.seg", b"head");
    let make_again = || {
        let path = Path::new("/d/00000001.seg");
        process.open(path, OpenMode::CreateEmpty).unwrap()
    };
    let segment = make_again();
    segment.write_at(0, b"HEAD").unwrap();
    assert_eq!(broken(&world), []);
    segment.write_at(4, b"record").unwrap();
    make_again();
    assert_eq!(broken(&world), [Rule::NothingOverwritten]);
}
