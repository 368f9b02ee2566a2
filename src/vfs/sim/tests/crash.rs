//! What a power cut leaves.

use super::*;

#[test]
fn an_unsynced_write_may_vanish_and_may_stay() {
    let (world, process) = world();
    let file = durable(&process, "/d/a", b"old");
    file.write_at(0, b"new").unwrap();
    let expected = vec![Some(b"new".to_vec()), Some(b"old".to_vec())];
    assert_eq!(contents(&world, 0, "/d/a"), expected);
}

#[test]
fn synced_bytes_stay_in_every_image_of_every_later_point() {
    let (world, process) = world();
    let file = durable(&process, "/d/a", b"kept");
    let from = world.journal().operations().len();
    file.write_at(4, b"more").unwrap();
    open(&process, "/d/b").write_at(0, b"other").unwrap();
    process
        .rename(Path::new("/d/b"), Path::new("/d/c"))
        .unwrap();
    for point in world
        .journal()
        .crash_points(64, 3)
        .filter(|point| point.position >= from)
    {
        for image in point.images() {
            assert_eq!(&image.read("/d/a").unwrap()[..4], b"kept");
        }
    }
}

#[test]
fn a_creation_may_vanish_until_the_directory_is_synced() {
    let (world, process) = world();
    let file = open(&process, "/d/a");
    file.write_at(0, b"bytes").unwrap();
    file.sync().unwrap();
    assert_eq!(
        contents(&world, 0, "/d/a"),
        vec![None, Some(b"bytes".to_vec())]
    );
    sync_dir(&process);
    assert_eq!(contents(&world, 0, "/d/a"), vec![Some(b"bytes".to_vec())]);
}

#[test]
fn an_unlinked_file_may_come_back_until_the_directory_is_synced() {
    let (world, process) = world();
    durable(&process, "/d/a", b"bytes");
    process.unlink(Path::new("/d/a")).unwrap();
    assert_eq!(
        contents(&world, 0, "/d/a"),
        vec![None, Some(b"bytes".to_vec())]
    );
    sync_dir(&process);
    assert_eq!(contents(&world, 0, "/d/a"), vec![None]);
}

#[test]
fn a_rename_leaves_its_target_old_or_new_and_may_leave_its_source() {
    let (world, process) = world();
    durable(&process, "/d/to", b"old");
    durable(&process, "/d/from", b"new");
    process
        .rename(Path::new("/d/from"), Path::new("/d/to"))
        .unwrap();
    let images = images(&world, 0);
    let mut seen: Vec<_> = images
        .iter()
        .map(|image| (image.read("/d/to").unwrap(), image.list("/d").len()))
        .collect();
    seen.sort();
    let (old, new) = (b"old".to_vec(), b"new".to_vec());
    assert_eq!(
        seen,
        vec![(new.clone(), 1), (new, 2), (old.clone(), 1), (old, 2)]
    );
    sync_dir(&process);
    assert_eq!(contents(&world, 0, "/d/to"), vec![Some(b"new".to_vec())]);
    assert_eq!(contents(&world, 0, "/d/from"), vec![None]);
}

#[test]
fn a_length_and_the_bytes_beneath_it_survive_apart() {
    let (world, process) = world();
    let file = durable(&process, "/d/a", b"");
    file.write_at(0, b"abc").unwrap();
    let expected = vec![Some(vec![]), Some(vec![0; 3]), Some(b"abc".to_vec())];
    assert_eq!(contents(&world, 0, "/d/a"), expected);
}

#[test]
fn writes_tear_at_bytes_and_at_sectors() {
    let (world, process) = world();
    let file = durable(&process, "/d/a", &[1; 2048]);
    file.write_at(100, &[2; 1500]).unwrap();
    let mut torn_within_sector = false;
    let mut torn_at_sectors = false;
    for image in images(&world, 64) {
        let bytes = image.read("/d/a").unwrap();
        assert_eq!(bytes.len(), 2048);
        assert!(bytes.iter().all(|&byte| byte == 1 || byte == 2));
        assert!(
            bytes[..100]
                .iter()
                .chain(&bytes[1600..])
                .all(|&byte| byte == 1)
        );
        let borders: Vec<_> = (101..1600)
            .filter(|&at| bytes[at] != bytes[at - 1])
            .collect();
        torn_within_sector |= borders.iter().any(|at| at % 512 != 0);
        torn_at_sectors |= !borders.is_empty() && borders.iter().all(|at| at % 512 == 0);
    }
    assert!(torn_within_sector && torn_at_sectors);
}

#[test]
fn few_pending_units_give_every_subset_once() {
    let (world, process) = world();
    let file = durable(&process, "/d/a", &[0; 64]);
    for number in 0..6 {
        file.write_at(u64::from(number) * 8, &[number + 1; 8])
            .unwrap();
    }
    let point = world.journal().last_point(0, 1);
    assert_eq!(point.pending_unit_count(), 6);
    assert_eq!(point.images().count(), 1 << 6);
    // A name in addition doubles the images: it has no bytes.
    open(&process, "/d/b");
    assert_eq!(images(&world, 0).len(), 1 << 7);
    // A length and a write in a file that may have no name: none, empty, short, zeros or bytes.
    open(&process, "/d/b").write_at(0, b"x").unwrap();
    assert_eq!(images(&world, 0).len(), (1 << 6) * 4);
}

#[test]
fn many_pending_units_are_sampled_with_both_ends() {
    let (world, process) = world();
    let file = durable(&process, "/d/a", &[0; 4096]);
    for number in 0..20 {
        file.write_at(number * 100, &[1; 100]).unwrap();
    }
    let images = images(&world, 64);
    assert!((32..=64).contains(&images.len()), "{}", images.len());
    assert_eq!(images[0].read("/d/a").unwrap(), vec![0; 4096]);
    assert_eq!(&images[1].read("/d/a").unwrap()[..2000], &[1; 2000]);
}

#[test]
fn a_failed_sync_loses_bytes_for_ever() {
    let mut lost = 0;
    for seed in 0..20 {
        let world = World::new(seed);
        let process = world.process();
        process.create_dir_all(Path::new("/d")).unwrap();
        let file = durable(&process, "/d/a", &[0; 8]);
        file.write_at(0, &[1; 8]).unwrap();
        world.fail_call(1, Fault::once(FaultEffect::Clean, io::ErrorKind::Other));
        file.sync().unwrap_err();
        file.sync().unwrap();
        let mut seen = [9; 8];
        file.read_at(0, &mut seen).unwrap();
        assert_eq!(seen, [1; 8], "the page cache keeps what the disk lost");
        let contents = contents(&world, 8, "/d/a");
        assert_eq!(contents.len(), 1);
        lost += usize::from(contents[0] == Some(vec![0; 8]));
    }
    assert!((1..20).contains(&lost), "{lost}");
}

#[test]
fn shared_words_come_back_old_or_zero() {
    let (world, process) = world();
    let page = process
        .shared_page(Path::new("/d/STATE"), OpenMode::WriteOrCreate)
        .unwrap();
    open(&process, "/d/STATE").sync().unwrap();
    sync_dir(&process);
    for value in 1..=3 {
        page.store(5, value);
        page.fetch_add(6, 10);
    }
    let mut values = Vec::new();
    for seed in 0..64 {
        for image in world.journal().last_point(0, seed).images() {
            let bytes = image.read("/d/STATE").unwrap();
            assert_eq!(bytes.len(), 4096);
            values.push(bytes[40]);
        }
    }
    values.sort_unstable();
    values.dedup();
    assert_eq!(values, vec![0, 1, 2, 3]);
}

#[test]
fn the_same_seed_gives_the_same_images() {
    let (world, process) = world();
    let file = durable(&process, "/d/a", &[0; 4096]);
    for number in 0..12 {
        file.write_at(number * 300, &[3; 300]).unwrap();
    }
    let run = |seed| -> Vec<_> {
        let journal = world.journal();
        let points = journal.crash_points(16, seed);
        points
            .flat_map(|point| point.images().collect::<Vec<_>>())
            .map(|image| image.read("/d/a"))
            .collect()
    };
    assert_eq!(run(1), run(1));
    assert_ne!(run(1), run(2));
}

#[test]
fn points_tell_what_was_promised() {
    let (world, process) = world();
    let file = durable(&process, "/d/a", b"");
    for mark in 1..=2 {
        world.begin(mark);
        file.write_at(mark, &[1]).unwrap();
        world.acknowledge(mark, mark == 1);
    }
    let points: Vec<_> = world.journal().crash_points(0, 0).collect();
    assert!(points.len() < world.journal().operations().len());
    assert!(
        points
            .iter()
            .all(|point| point.last_durable_ack <= point.last_begin)
    );
    let last = points.last().unwrap();
    assert_eq!(
        (last.last_begin, last.last_ack, last.last_durable_ack),
        (Some(2), Some(2), Some(1))
    );
    assert_eq!(
        world.journal().kill_points(0, 0).count(),
        world.journal().operations().len() + 1
    );
}

#[test]
fn a_killed_machine_keeps_its_page_cache_and_what_is_pending() {
    let (world, process) = world();
    let file = durable(&process, "/d/a", b"old");
    file.write_at(0, b"new").unwrap();
    let after = world.journal().last_point(0, 0).kill(5);
    assert_eq!(after.image_now().read("/d/a").unwrap(), b"new");
    assert_eq!(contents(&after, 0, "/d/a").len(), 2);
    let process = after.process();
    open(&process, "/d/a").sync().unwrap();
    assert_eq!(contents(&after, 0, "/d/a"), vec![Some(b"new".to_vec())]);
}

#[test]
fn worlds_of_images_do_not_disturb_each_other() {
    let (world, process) = world();
    durable(&process, "/d/a", b"base");
    let image = world.image_now();
    let first = World::from_image(image.clone(), 1);
    open(&first.process(), "/d/a")
        .write_at(0, b"FIRST")
        .unwrap();
    let second = World::from_image(image.clone(), 1);
    assert_eq!(second.image_now().read("/d/a").unwrap(), b"base");
    assert_eq!(image.read("/d/a").unwrap(), b"base");
    assert_eq!(first.image_now().read("/d/a").unwrap(), b"FIRST");
}

/// Runs a log of one-byte commits over two segments; gives in how many crash states it lost a
/// commit that it had acknowledged as durable.
fn losses_of_a_toy_log(plant: Option<Plant>) -> usize {
    let (world, process) = world();
    if let Some(plant) = plant {
        world.plant(plant);
    }
    for mark in 1..=6 {
        world.begin(u64::from(mark));
        let segment = if mark <= 3 { "/d/1.seg" } else { "/d/2.seg" };
        let is_new = process.node(Path::new(segment)).unwrap().is_none();
        let file = open(&process, segment);
        if is_new {
            file.allocate(16).unwrap();
            sync_dir(&process);
        }
        file.write_at(u64::from(mark), &[mark]).unwrap();
        file.sync().unwrap();
        world.acknowledge(u64::from(mark), true);
    }
    let survives = |image: &Image, mark: u8| {
        let segment = if mark <= 3 { "/d/1.seg" } else { "/d/2.seg" };
        image
            .read(segment)
            .is_some_and(|bytes| bytes.get(usize::from(mark)) == Some(&mark))
    };
    let mut losses = 0;
    for point in world.journal().crash_points(SAMPLE_COUNT_DEFAULT, 11) {
        let promised = u8::try_from(point.last_durable_ack.unwrap_or(0)).unwrap();
        let lost = |image: &Image| (1..=promised).any(|mark| !survives(image, mark));
        losses += point.images().filter(lost).count();
    }
    losses
}

#[test]
fn a_planted_bug_shows_and_a_sound_log_does_not() {
    assert_eq!(losses_of_a_toy_log(None), 0);
    for plant in [
        Plant::NoDirectorySync,
        Plant::NoSegmentSync,
        Plant::EveryOtherSegmentSync,
    ] {
        assert!(losses_of_a_toy_log(Some(plant)) > 0, "{plant:?}");
    }
}

#[test]
fn a_failed_sync_forgets_no_length_unless_that_is_planted() {
    for planted in [false, true] {
        let mut forgotten = 0;
        for seed in 0..20 {
            let world = World::new(seed);
            if planted {
                world.plant(Plant::ForgottenGrowth);
            }
            let process = world.process();
            process.create_dir_all(Path::new("/d")).unwrap();
            let file = durable(&process, "/d/a", &[0; 8]);
            file.allocate(4096).unwrap();
            world.fail_call(1, Fault::once(FaultEffect::Clean, io::ErrorKind::Other));
            file.sync().unwrap_err();
            file.sync().unwrap();
            let image = world.journal().last_point(0, 1).images().next().unwrap();
            forgotten += usize::from(image.read("/d/a").unwrap().len() == 8);
        }
        assert_eq!(forgotten > 0, planted, "{forgotten}");
    }
}

#[test]
fn few_images_begin_with_nothing_and_everything() {
    let (world, process) = world();
    let file = durable(&process, "/d/a", &[0; 8]);
    for at in 0..8 {
        file.write_at(at, &[1]).unwrap();
    }
    let point = world.journal().last_point(0, 1);
    let few: Vec<_> = point.few_images(5).collect();
    assert!((3..=5).contains(&few.len()), "{}", few.len());
    assert_eq!(few[0].read("/d/a").unwrap(), [0; 8]);
    assert_eq!(few[1].read("/d/a").unwrap(), [1; 8]);
}
