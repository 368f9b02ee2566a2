//! The real machine keeps what the trait promises.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::OsVfs;
use crate::vfs::{LockKind, Next, NodeKind, OpenMode, Vfs, VfsFile};

fn vfs() -> Arc<dyn Vfs> {
    OsVfs::new()
}

fn file_in(directory: &Path, name: &str) -> Arc<dyn VfsFile> {
    vfs()
        .open(&directory.join(name), OpenMode::WriteOrCreate)
        .unwrap()
}

#[test]
fn bytes_written_after_mapping_are_viewed_and_none_beyond_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let file = file_in(directory.path(), "f");
    file.map(1 << 20);
    assert!(file.view(0, 1).is_err());
    file.allocate(8192).unwrap();
    file.write_at(4000, b"across a page").unwrap();
    assert_eq!(&*file.view(4000, 13).unwrap(), b"across a page");
    assert!(file.view(8190, 3).is_err());
    assert!(file.view(u64::MAX, 2).is_err());
    let unmapped = OsVfs::without_mapping();
    let other = unmapped
        .open(&directory.path().join("f"), OpenMode::Read)
        .unwrap();
    other.map(1 << 20);
    assert_eq!(&*other.view(4000, 13).unwrap(), b"across a page");
    file.write_at(8190, b"grown").unwrap();
    assert_eq!(&*other.view(8190, 5).unwrap(), b"grown");
}

#[test]
fn allocating_grows_and_never_shrinks() {
    let directory = tempfile::tempdir().unwrap();
    let file = file_in(directory.path(), "f");
    file.allocate(10_000).unwrap();
    assert_eq!(file.len().unwrap(), 10_000);
    file.allocate(100).unwrap();
    assert_eq!(file.len().unwrap(), 10_000);
    assert_eq!(&*file.view(9_990, 10).unwrap(), &[0; 10]);
}

#[test]
fn a_lock_is_between_opens_and_goes_with_the_file() {
    let directory = tempfile::tempdir().unwrap();
    let (a, b) = (
        file_in(directory.path(), "l"),
        file_in(directory.path(), "l"),
    );
    assert!(a.try_lock(LockKind::Exclusive).unwrap());
    assert!(!b.try_lock(LockKind::Shared).unwrap());
    a.unlock().unwrap();
    assert!(b.try_lock(LockKind::Shared).unwrap());
    assert!(a.try_lock(LockKind::Shared).unwrap());
    drop(b);
    assert!(a.try_lock(LockKind::Exclusive).unwrap());
}

#[test]
fn what_is_no_regular_file_is_refused_without_waiting() {
    let directory = tempfile::tempdir().unwrap();
    let pipe = directory.path().join("pipe");
    let status = std::process::Command::new("mkfifo").arg(&pipe).status();
    if status.is_ok_and(|status| status.success()) {
        assert!(vfs().open(&pipe, OpenMode::Read).is_err());
        assert!(vfs().open(&pipe, OpenMode::WriteOrCreate).is_err());
        assert_eq!(vfs().node(&pipe).unwrap(), Some(NodeKind::Other));
    } else {
        eprintln!("SKIPPED: there is no mkfifo here");
    }
    file_in(directory.path(), "target");
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(directory.path().join("target"), &link).unwrap();
    assert!(vfs().open(&link, OpenMode::Write).is_err());
    assert!(vfs().open(directory.path(), OpenMode::Read).is_err());
    assert_eq!(vfs().node(&directory.path().join("nothing")).unwrap(), None);
}

#[test]
fn a_directory_is_the_same_by_every_path() {
    let directory = tempfile::tempdir().unwrap();
    let inner = directory.path().join("a/b/c");
    vfs().create_dir_all(&inner).unwrap();
    vfs().create_dir_all(&inner).unwrap();
    let link = directory.path().join("link");
    std::os::unix::fs::symlink(&inner, &link).unwrap();
    assert_eq!(
        vfs().directory_id(&inner).unwrap(),
        vfs().directory_id(&link).unwrap()
    );
    assert_eq!(
        vfs().absolute(&inner).unwrap(),
        vfs().absolute(&link).unwrap()
    );
    assert!(
        vfs()
            .create_dir_all(&directory.path().join("a/b/c/../../x"))
            .is_ok()
    );
}

#[test]
fn a_shared_page_is_seen_by_every_mapping() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("page");
    let (a, b) = (
        vfs().shared_page(&path).unwrap(),
        vfs().shared_page(&path).unwrap(),
    );
    a.store(3, 7);
    assert_eq!(b.compare_exchange(3, 7, 8), Ok(7));
    assert_eq!(a.compare_exchange(3, 7, 9), Err(8));
    assert_eq!(a.fetch_add(3, 2), 8);
    assert_eq!(b.load(3), 10);
}

#[test]
fn a_signal_is_one_permit_with_a_deadline() {
    let vfs = vfs();
    let signal = vfs.signal();
    let begun = vfs.monotonic();
    assert!(!signal.wait(begun + Duration::from_millis(20)));
    assert!(vfs.monotonic() >= begun + Duration::from_millis(20));
    signal.raise();
    signal.raise();
    assert!(signal.wait(begun));
    assert!(!signal.wait(begun));
}

/// Waits, with a generous deadline, until `count` has reached `least`.
fn wait_for(count: &AtomicU32, least: u32) {
    let deadline = vfs().monotonic() + Duration::from_secs(20);
    while count.load(Ordering::SeqCst) < least {
        assert!(vfs().monotonic() < deadline, "the worker did not run");
        vfs().sleep(Duration::from_millis(1));
    }
}

#[test]
fn a_worker_runs_when_woken_and_not_after_its_stop() {
    let count = Arc::new(AtomicU32::new(0));
    let steps = count.clone();
    let step = move || {
        steps.fetch_add(1, Ordering::SeqCst);
        Next::WhenWoken
    };
    let worker = vfs().spawn("test", Box::new(step)).unwrap();
    wait_for(&count, 1);
    worker.wake();
    wait_for(&count, 2);
    worker.stop();
    worker.stop();
    assert_eq!(
        Arc::strong_count(&count),
        1,
        "the step is dropped when stop returns"
    );
    worker.wake();
}

#[test]
fn a_worker_repeats_after_its_wait_and_ends_by_itself_or_by_a_panic() {
    let count = Arc::new(AtomicU32::new(0));
    let steps = count.clone();
    let step = move || match steps.fetch_add(1, Ordering::SeqCst) {
        0..3 => Next::After(Duration::from_millis(1)),
        _ => Next::Done,
    };
    let worker = vfs().spawn("test", Box::new(step)).unwrap();
    wait_for(&count, 4);
    worker.stop();
    assert_eq!(count.load(Ordering::SeqCst), 4);
    let worker = vfs().spawn("test", Box::new(|| panic!("planned"))).unwrap();
    worker.stop();
}

#[test]
fn a_forked_child_knows_that_it_is_one() {
    let vfs = vfs();
    let before = vfs.fork_count();
    // SAFETY: the child touches an atomic and ends without unwinding or running destructors.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let code = i32::from(vfs.fork_count() != before + 1);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above, with a valid place for its status.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(status, 0);
    assert_eq!(vfs.fork_count(), before);
}
