//! A waiter whose time is over at the moment the lock comes to it passes the lock on.
//!
//! That moment is too short to be hit by chance, so the machine's signals are replaced: the first
//! one says that it was not raised in time, just after it was raised.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;
use std::time::Duration;

use happystore::vfs::sim::World;
use happystore::vfs::{
    DirectoryId, Locality, NodeKind, OpenMode, SharedPage, Signal, Step, Vfs, VfsDirectory,
    VfsFile, Worker,
};
use happystore::{ErrorKind, Options};

/// A simulated process with threads of its own and signals that are late.
struct LateWake {
    process: Arc<dyn Vfs>,
    first_was_made: AtomicBool,
}

struct LateSignal {
    raised: Mutex<bool>,
    change: Condvar,
    is_late: bool,
}

impl Signal for LateSignal {
    fn raise(&self) {
        *self.raised.lock().unwrap() = true;
        self.change.notify_one();
    }

    fn wait(&self, _deadline: Duration) -> bool {
        let raised = self.raised.lock().unwrap();
        // Far beyond all patience: only a lost wake takes this long.
        let patience = Duration::from_secs(20);
        let waiting = self
            .change
            .wait_timeout_while(raised, patience, |raised| !*raised);
        let (mut raised, late) = waiting.unwrap();
        *raised = false;
        !self.is_late && !late.timed_out()
    }
}

/// Methods that the simulated process answers.
macro_rules! forward {
    ($($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> $result {
            self.process.$name($($arg),*)
        })*
    };
}

impl Vfs for LateWake {
    forward! {
        create_dir_all(directory: &Path) -> io::Result<()>;
        node(path: &Path) -> io::Result<Option<NodeKind>>;
        list(directory: &Path) -> io::Result<Vec<String>>;
        open(path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>>;
        rename(from: &Path, to: &Path) -> io::Result<()>;
        unlink(path: &Path) -> io::Result<()>;
        directory(directory: &Path) -> io::Result<Arc<dyn VfsDirectory>>;
        directory_id(directory: &Path) -> io::Result<DirectoryId>;
        absolute(directory: &Path) -> io::Result<PathBuf>;
        locality(directory: &Path) -> io::Result<Locality>;
        shared_page(path: &Path, mode: OpenMode) -> io::Result<Arc<dyn SharedPage>>;
        private_page() -> Arc<dyn SharedPage>;
        boot_id() -> u64;
        process_id() -> u32;
        fork_count() -> u64;
        monotonic() -> Duration;
        unix_time() -> Duration;
        unique_id() -> [u8; 16];
        yield_now() -> ();
        sleep(duration: Duration) -> ();
        spawn(name: &str, step: Step) -> io::Result<Box<dyn Worker>>;
    }

    fn thread_id(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        thread_local! {
            static ID: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        ID.with(|id| *id)
    }

    fn signal(&self) -> Arc<dyn Signal> {
        let is_late = !self.first_was_made.swap(true, Ordering::Relaxed);
        let (raised, change) = (Mutex::new(false), Condvar::new());
        Arc::new(LateSignal {
            raised,
            change,
            is_late,
        })
    }
}

#[test]
fn a_wake_that_comes_too_late_goes_to_the_next_waiter() {
    let (process, first_was_made) = (World::new(1).process(), AtomicBool::new(false));
    let machine = Arc::new(LateWake {
        process,
        first_was_made,
    });
    let store = Options::new().vfs(machine).open("/store").unwrap();
    let tx = store.begin().unwrap();
    thread::scope(|scope| {
        let wait = |value: i32, waiters: u64| {
            let writer = store.clone();
            let waiting = scope.spawn(move || writer.set("a", &value));
            while store.stats().unwrap().lock_waits < waiters {
                thread::yield_now();
            }
            // It is counted just before it joins the queue.
            thread::sleep(Duration::from_millis(50));
            waiting
        };
        let late = wait(1, 1);
        let next = wait(2, 2);
        tx.commit().unwrap();
        let error = late.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::LockTimeout);
        next.join().unwrap().unwrap();
    });
    assert_eq!(store.get("a").unwrap(), Some(2));
}
