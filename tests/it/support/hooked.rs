//! A simulated machine for real threads, which tells a test of every call before it makes it; the
//! test may wait or panic there.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use happystore::vfs::{
    DirectoryId, Locality, LockKind, NodeKind, OpenMode, SharedPage, Signal, Step, Vfs,
    VfsDirectory, VfsFile, Worker,
};

/// Is told the name of a call.
pub(crate) type Hook = Arc<dyn Fn(&'static str) + Send + Sync>;

/// A process whose calls are told.
pub(crate) struct Hooked {
    pub(crate) process: Arc<dyn Vfs>,
    pub(crate) hook: Hook,
}

struct HookedFile {
    file: Arc<dyn VfsFile>,
    hook: Hook,
}

struct HookedDirectory {
    directory: Arc<dyn VfsDirectory>,
    hook: Hook,
}

/// Methods that are told and then forwarded.
macro_rules! forward {
    ($to:ident: $($name:ident($($arg:ident: $type:ty),*) -> $result:ty;)*) => {
        $(fn $name(&self, $($arg: $type),*) -> $result {
            (self.hook)(stringify!($name));
            self.$to.$name($($arg),*)
        })*
    };
}

impl Vfs for Hooked {
    forward! { process:
        create_dir_all(directory: &Path) -> io::Result<()>;
        node(path: &Path) -> io::Result<Option<NodeKind>>;
        list(directory: &Path) -> io::Result<Vec<String>>;
        rename(from: &Path, to: &Path) -> io::Result<()>;
        link(from: &Path, to: &Path) -> io::Result<()>;
        unlink(path: &Path) -> io::Result<()>;
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

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        (self.hook)("open");
        Ok(Arc::new(HookedFile {
            file: self.process.open(path, mode)?,
            hook: self.hook.clone(),
        }))
    }

    fn thread_id(&self) -> u64 {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        thread_local! {
            static ID: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
        }
        ID.with(|id| *id)
    }

    fn signal(&self) -> Arc<dyn Signal> {
        Arc::new(Permit::default())
    }

    fn directory(&self, path: &Path) -> io::Result<Arc<dyn VfsDirectory>> {
        (self.hook)("directory");
        Ok(Arc::new(HookedDirectory {
            directory: self.process.directory(path)?,
            hook: self.hook.clone(),
        }))
    }
}

/// A permit between real threads.
#[derive(Default)]
struct Permit {
    is_there: Mutex<bool>,
    raised: Condvar,
}

impl Signal for Permit {
    fn raise(&self) {
        *self.is_there.lock().unwrap() = true;
        self.raised.notify_one();
    }

    /// The deadline is one of the simulated clock, which nobody moves: it never comes.
    fn wait(&self, _deadline: Duration) -> bool {
        let is_there = self.is_there.lock().unwrap();
        let mut is_there = self
            .raised
            .wait_while(is_there, |is_there| !*is_there)
            .unwrap();
        std::mem::take(&mut *is_there)
    }
}

impl VfsDirectory for HookedDirectory {
    fn sync(&self) -> io::Result<()> {
        (self.hook)("sync directory");
        self.directory.sync()
    }
}

impl VfsFile for HookedFile {
    forward! { file:
        len() -> io::Result<u64>;
        read_at(offset: u64, out: &mut [u8]) -> io::Result<usize>;
        map(len_bytes: u64) -> ();
        write_at(offset: u64, bytes: &[u8]) -> io::Result<()>;
        allocate(len_bytes: u64) -> io::Result<()>;
        expect_writes(from: u64, to: u64) -> ();
        sync() -> io::Result<()>;
        try_lock(kind: LockKind) -> io::Result<bool>;
        unlock() -> io::Result<()>;
    }

    fn view(&self, offset: u64, len_bytes: usize) -> io::Result<Cow<'_, [u8]>> {
        (self.hook)("view");
        self.file.view(offset, len_bytes)
    }
}
