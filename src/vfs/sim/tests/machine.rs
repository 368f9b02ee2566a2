//! Processes, locks, shared words, workers, clock and planned failures.

use std::sync::atomic::{AtomicU32, Ordering};

use super::super::super::{LockKind, Next, NodeKind};
use super::*;

const MILLISECOND: Duration = Duration::from_millis(1);

#[test]
fn files_grow_read_and_live_on_after_their_name() {
    let (_world, process) = world();
    let file = open(&process, "/d/a");
    file.write_at(5000, b"end").unwrap();
    assert_eq!(file.len().unwrap(), 5003);
    let mut bytes = [9; 8];
    assert_eq!(file.read_at(4998, &mut bytes).unwrap(), 5);
    assert_eq!(&bytes[..5], b"\0\0end");
    assert_eq!(&*file.view(5000, 3).unwrap(), b"end");
    assert_eq!(
        file.view(5000, 4).unwrap_err().kind(),
        io::ErrorKind::UnexpectedEof
    );
    file.allocate(9000).unwrap();
    file.allocate(10).unwrap();
    assert_eq!(file.len().unwrap(), 9000);
    process.unlink(Path::new("/d/a")).unwrap();
    assert_eq!(process.node(Path::new("/d/a")).unwrap(), None);
    assert_eq!(&*file.view(5000, 3).unwrap(), b"end");
}

#[test]
fn directories_nest_and_keep_their_identity() {
    let (_world, process) = world();
    process.create_dir_all(Path::new("/d/x/y")).unwrap();
    open(&process, "/d/x/f");
    let mut names = process.list(Path::new("/d/x")).unwrap();
    names.sort();
    assert_eq!(names, ["f", "y"]);
    assert_eq!(
        process.node(Path::new("/d/x/y")).unwrap(),
        Some(NodeKind::Directory)
    );
    let id = process.directory_id(Path::new("/d/x")).unwrap();
    assert_eq!(process.directory_id(Path::new("d/./x/y/..")).unwrap(), id);
    assert_eq!(
        process.absolute(Path::new("d/x")).unwrap(),
        Path::new("/d/x")
    );
    assert!(process.directory_id(Path::new("/nowhere")).is_err());
    let error = process
        .open(Path::new("/d/x"), OpenMode::Read)
        .err()
        .unwrap();
    assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    assert!(process.create_dir_all(Path::new("/d/x/f/g")).is_err());
}

#[test]
fn locks_belong_to_open_files_and_go_with_them() {
    let (_world, process) = world();
    let files: Vec<_> = (0..3).map(|_| open(&process, "/d/LOCK")).collect();
    assert!(files[0].try_lock(LockKind::Shared).unwrap());
    assert!(files[1].try_lock(LockKind::Shared).unwrap());
    assert!(!files[2].try_lock(LockKind::Exclusive).unwrap());
    files[0].unlock().unwrap();
    assert!(files[1].try_lock(LockKind::Exclusive).unwrap());
    assert!(!files[0].try_lock(LockKind::Shared).unwrap());
    drop(files);
    assert!(
        open(&process, "/d/LOCK")
            .try_lock(LockKind::Exclusive)
            .unwrap()
    );
}

#[test]
fn a_refused_change_of_a_lock_loses_it() {
    let (_world, process) = world();
    let files: Vec<_> = (0..3).map(|_| open(&process, "/d/LOCK")).collect();
    assert!(files[0].try_lock(LockKind::Shared).unwrap());
    assert!(files[1].try_lock(LockKind::Shared).unwrap());
    assert!(!files[0].try_lock(LockKind::Exclusive).unwrap());
    assert!(files[1].try_lock(LockKind::Exclusive).unwrap());
}

#[test]
fn a_killed_process_loses_its_locks_and_can_do_nothing() {
    let (world, first) = world();
    let second = world.process();
    let (mine, other) = (open(&first, "/d/a"), open(&second, "/d/a"));
    let page = first
        .shared_page(Path::new("/d/STATE"), OpenMode::WriteOrCreate)
        .unwrap();
    mine.write_at(0, b"seen").unwrap();
    page.store(0, 1);
    assert!(mine.try_lock(LockKind::Exclusive).unwrap());
    assert!(!other.try_lock(LockKind::Exclusive).unwrap());
    let _worker = first.spawn("worker", Box::new(|| Next::Done)).unwrap();
    world.kill(&first);
    assert!(other.try_lock(LockKind::Exclusive).unwrap());
    assert_eq!(&*other.view(0, 4).unwrap(), b"seen");
    assert!(mine.write_at(0, b"dead").is_err() && mine.len().is_err());
    assert!(first.list(Path::new("/d")).is_err());
    page.store(0, 2);
    assert_eq!(page.compare_exchange(0, 1, 3), Ok(1));
    assert_eq!(
        second
            .shared_page(Path::new("/d/STATE"), OpenMode::WriteOrCreate)
            .unwrap()
            .load(0),
        1
    );
    assert_eq!(world.run_background(), 0);
    drop(mine);
    assert!(!open(&second, "/d/a").try_lock(LockKind::Shared).unwrap());
}

#[test]
fn processes_share_words_and_nothing_else() {
    let (world, first) = world();
    let second = world.process();
    assert_ne!(first.process_id(), second.process_id());
    let path = Path::new("/d");
    let ids = [
        first.directory_id(path).unwrap(),
        second.directory_id(path).unwrap(),
    ];
    assert_ne!(ids[0], ids[1]);
    assert_eq!(ids[0].inode, ids[1].inode);
    assert_ne!(first.unique_id(), second.unique_id());
    let pages = [&first, &second].map(|each| {
        each.shared_page(Path::new("/d/STATE"), OpenMode::WriteOrCreate)
            .unwrap()
    });
    pages[0].store(511, 4);
    assert_eq!(pages[1].fetch_add(511, u64::MAX), 4);
    assert_eq!(pages[0].compare_exchange(511, 4, 9), Err(3));
    assert_eq!(pages[0].compare_exchange(511, 3, 9), Ok(3));
    assert_eq!(pages[1].load(511), 9);
    world.fork(&first);
    assert_eq!((first.fork_count(), second.fork_count()), (1, 0));
}

#[test]
fn workers_run_when_due_or_woken() {
    let (world, process) = world();
    let count = Arc::new(AtomicU32::new(0));
    let threads = Arc::new(Mutex::new(Vec::new()));
    let step = {
        let (count, threads, process) = (count.clone(), threads.clone(), process.clone());
        move || {
            count.fetch_add(1, Ordering::SeqCst);
            threads.lock().unwrap().push(process.thread_id());
            Next::After(MILLISECOND)
        }
    };
    let worker = process.spawn("worker", Box::new(step)).unwrap();
    assert_eq!((world.run_background(), world.run_background()), (1, 0));
    world.advance(MILLISECOND);
    assert_eq!((world.run_background(), world.run_background()), (1, 0));
    worker.wake();
    assert_eq!((world.run_background(), world.run_background()), (1, 0));
    assert!(world.next_due().is_some());
    worker.stop();
    worker.stop();
    world.advance(MILLISECOND);
    assert_eq!(world.run_background(), 0);
    assert_eq!(count.load(Ordering::SeqCst), 3);
    assert!(
        threads
            .lock()
            .unwrap()
            .iter()
            .all(|&thread| thread != process.thread_id())
    );
}

#[test]
fn a_worker_may_stop_itself_and_be_woken_while_it_runs() {
    let (world, process) = world();
    let handle: Arc<Mutex<Option<Box<dyn super::super::super::Worker>>>> = Arc::default();
    let runs = Arc::new(AtomicU32::new(0));
    let step = {
        let (handle, runs) = (handle.clone(), runs.clone());
        move || {
            let worker = handle.lock().unwrap();
            let worker = worker.as_ref().unwrap();
            if runs.fetch_add(1, Ordering::SeqCst) == 0 {
                worker.wake();
            } else {
                worker.stop();
            }
            Next::WhenWoken
        }
    };
    *handle.lock().unwrap() = Some(process.spawn("worker", Box::new(step)).unwrap());
    assert_eq!([(); 3].map(|()| world.run_background()), [1, 1, 0]);
    assert_eq!(runs.load(Ordering::SeqCst), 2);
}

#[test]
fn waits_and_sleeps_move_the_clock_alone() {
    let (world, process) = world();
    let signal = process.signal();
    signal.raise();
    signal.raise();
    let deadline = process.monotonic() + MILLISECOND;
    assert!(signal.wait(deadline) && world.now() < deadline);
    assert!(!signal.wait(deadline) && world.now() >= deadline);
    process.sleep(MILLISECOND);
    assert!(world.now() >= deadline + MILLISECOND);
    assert!(process.monotonic() < process.monotonic());
}

#[test]
fn a_schedule_decides_who_runs_while_one_waits() {
    struct Raise(Arc<dyn super::super::super::Signal>, AtomicU32);
    impl Schedule for Raise {
        fn switch(&self) {
            self.1.fetch_add(1, Ordering::SeqCst);
        }
        fn idle(&self, _deadline: Duration) -> bool {
            self.0.raise();
            true
        }
    }
    let (world, process) = world();
    let signal = process.signal();
    let schedule = Arc::new(Raise(signal.clone(), AtomicU32::new(0)));
    world.set_schedule(Some(schedule.clone()));
    assert!(signal.wait(MILLISECOND) && world.now() < MILLISECOND);
    process
        .shared_page(Path::new("/d/STATE"), OpenMode::WriteOrCreate)
        .unwrap()
        .load(0);
    assert_eq!(schedule.1.load(Ordering::SeqCst), 2);
}

#[test]
fn a_planned_failure_hits_the_call_it_was_planned_for() {
    let (world, process) = world();
    let file = open(&process, "/d/a");
    let fault = |effect| Fault::once(effect, io::ErrorKind::Interrupted);
    let before = world.calls();
    world.fail_call(2, fault(FaultEffect::Clean));
    file.write_at(0, b"good").unwrap();
    assert_eq!(
        file.write_at(0, b"lost").unwrap_err().kind(),
        io::ErrorKind::Interrupted
    );
    assert_eq!(&*file.view(0, 4).unwrap(), b"good");
    world.fail_call(1, fault(FaultEffect::Done));
    file.write_at(0, b"done").unwrap_err();
    assert_eq!(&*file.view(0, 4).unwrap(), b"done");
    world.fail_call(1, fault(FaultEffect::Half));
    file.write_at(4, b"halfhalf").unwrap_err();
    assert!((5..12).contains(&file.len().unwrap()));
    assert_eq!(world.calls() - before, 7);
    let raw = Fault {
        effect: FaultEffect::Clean,
        error: FaultError::Os(28),
        lasting: true,
        scope: FaultScope::Every,
    };
    world.fail_call(1, raw);
    for _ in 0..2 {
        assert_eq!(file.len().unwrap_err().raw_os_error(), Some(28));
    }
    assert_eq!(world.faults_fired(), 5);
    world.heal();
    file.len().unwrap();
    world.fail_call(1, Fault::kill());
    file.len().unwrap_err();
    file.len().unwrap_err();
    assert_eq!(world.faults_fired(), 6);
}

#[test]
fn names_fail_clean_or_done() {
    let (world, process) = world();
    open(&process, "/d/a");
    let (from, to) = (Path::new("/d/a"), Path::new("/d/b"));
    for (effect, moved) in [(FaultEffect::Clean, false), (FaultEffect::Done, true)] {
        world.fail_call(1, Fault::once(effect, io::ErrorKind::Other));
        process.rename(from, to).unwrap_err();
        assert_eq!(process.node(to).unwrap().is_some(), moved);
    }
    world.fail_call(1, Fault::once(FaultEffect::Done, io::ErrorKind::Other));
    assert!(process.open(from, OpenMode::WriteOrCreate).is_err());
    assert!(process.node(from).unwrap().is_some());
}

#[test]
fn space_runs_out_and_comes_back() {
    let (world, process) = world();
    let file = open(&process, "/d/a");
    file.write_at(0, &[1; 10]).unwrap();
    world.set_free_bytes(Some(100));
    file.allocate(110).unwrap();
    assert_eq!(
        file.allocate(111).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    file.write_at(100, &[1; 10]).unwrap();
    assert_eq!(
        file.write_at(105, &[1; 10]).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );
    assert!(
        process
            .open(Path::new("/d/b"), OpenMode::CreateEmpty)
            .is_err()
    );
    process.unlink(Path::new("/d/a")).unwrap();
    assert!(
        process
            .open(Path::new("/d/b"), OpenMode::CreateEmpty)
            .is_err()
    );
    drop(file);
    open(&process, "/d/b").allocate(110).unwrap();
}

#[test]
fn planted_bugs_claim_success_and_do_nothing() {
    let (world, process) = world();
    let segment = open(&process, "/d/1.seg");
    segment.write_at(0, b"torn").unwrap();
    let plants = [
        Plant::NoDirectorySync,
        Plant::EveryOtherSegmentSync,
        Plant::NoManifestSync,
        Plant::NoZeroing,
        Plant::NoLocks,
    ];
    for plant in plants {
        world.plant(plant);
    }
    let manifest = open(&process, "/d/MANIFEST.tmp");
    let before = world.journal().operations().len();
    segment.write_at(0, &[0; 4]).unwrap();
    assert_eq!(&*segment.view(0, 4).unwrap(), b"torn");
    segment.sync().unwrap();
    manifest.sync().unwrap();
    sync_dir(&process);
    assert_eq!(world.journal().operations().len(), before);
    segment.sync().unwrap();
    assert_eq!(world.journal().operations().len(), before + 1);
    world.plant(Plant::NoSegmentSync);
    for _ in 0..2 {
        segment.sync().unwrap();
    }
    assert_eq!(world.journal().operations().len(), before + 1);
    assert!(segment.try_lock(LockKind::Exclusive).unwrap());
    assert!(
        open(&process, "/d/1.seg")
            .try_lock(LockKind::Exclusive)
            .unwrap()
    );
}

#[test]
fn a_failure_counts_and_hits_the_kinds_of_calls_in_its_scope() {
    let (world, process) = world();
    let file = open(&process, "/d/a");
    let fault = Fault::once(FaultEffect::Clean, io::ErrorKind::Other);
    world.fail_call(2, fault.scope(FaultScope::Only(Call::Write)));
    file.write_at(0, b"good").unwrap();
    file.sync().unwrap();
    file.write_at(0, b"lost").unwrap_err();
    file.write_at(0, b"good").unwrap();
    // The first is of any kind; those that follow are of its kind.
    let lasting = Fault::lasting(FaultEffect::Clean, io::ErrorKind::Other);
    world.fail_call(2, lasting.scope(FaultScope::SameKind));
    file.write_at(0, b"good").unwrap();
    file.sync().unwrap_err();
    file.write_at(0, b"good").unwrap();
    file.sync().unwrap_err();
    // Two at once, each with its own count.
    world.fail_call(1, fault.scope(FaultScope::Only(Call::Len)));
    world.also_fail_call(1, fault.scope(FaultScope::Only(Call::View)));
    file.view(0, 4).unwrap_err();
    file.len().unwrap_err();
    file.len().unwrap();
    let fired = [
        (Call::Len, 1),
        (Call::Sync, 2),
        (Call::View, 1),
        (Call::Write, 1),
    ];
    assert_eq!(world.faults_by_call(), fired.into());
    assert_eq!(world.faults_fired(), 5);
}

#[test]
fn calls_that_do_not_come_to_an_end_panic_when_a_test_wants_it() {
    let (world, process) = world();
    let file = open(&process, "/d/a");
    world.set_patience(Some(3));
    file.len().unwrap();
    process.monotonic();
    file.len().unwrap();
    let endless = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| file.len()));
    assert!(endless.is_err());
    world.set_patience(None);
    file.len().unwrap();
}
