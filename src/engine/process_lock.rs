//! The locks between processes: who has the directory open, and who may write.
//!
//! `LOCK` is the writer lock. A process that writes a lot keeps it from commit to commit, without
//! a system call, until somebody else waits for it or it has nothing to write for a moment. `OPEN`
//! is held shared by everybody who has the store open; who gets it exclusively is alone. Its
//! locks are changed under `LOCK` alone, so that nobody is alone while another one opens. Both
//! are the kernel's, and go when their process dies, however it dies; nothing is left to sweep.
//!
//! | access | `LOCK` | `OPEN` |
//! |---|---|---|
//! | `Shared` | for its turns | shared |
//! | `Exclusive` | as long as it is open | exclusive |
//! | `ReadOnly` | never | shared |

use std::io::ErrorKind::{NotFound, UnexpectedEof};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use super::state;
use super::waiting_line::WaitingLine;
use crate::error::{Error, Holder, Result, is_disk_full};
use crate::log::directory::Directory;
use crate::log::file_name;
use crate::log::shared::Shared;
use crate::options::Access;
use crate::vfs::{LockKind, OpenMode, SharedPage, Vfs, VfsFile};

/// How long between two looks at `OPEN`, at first and at most.
const RETRY_MIN: Duration = Duration::from_millis(1);
const RETRY_MAX: Duration = Duration::from_millis(10);

/// How long a process keeps the writer lock while others wait for it; and how long without them
/// if it has nothing to write.
pub(super) const KEEP: Duration = Duration::from_millis(1);

/// How long after another process had the writer lock it may come for it again at any moment.
const COMPANY: Duration = Duration::from_millis(100);

/// The files of a directory's locks, open.
pub(super) struct ProcessLock {
    directory: Directory,
    access: Access,
    /// `LOCK`; none for readers.
    lock: Option<Arc<dyn VfsFile>>,
    /// `OPEN`; none for readers of a directory that has none.
    open: Option<Arc<dyn VfsFile>>,
    /// The page of `STATE`, where it can be mapped.
    page: Option<Arc<dyn SharedPage>>,
    /// `STATE` as a file; none for readers.
    state: Option<Arc<dyn VfsFile>>,
    /// The paths of the three, made once: taking the lock allocates nothing.
    paths: [PathBuf; 3],
    /// Whether this process holds `LOCK`. Changed by the holder of the writer lock between threads.
    holds: AtomicBool,
    /// When it took it, and when its last turn began, in nanoseconds.
    taken_at: AtomicU64,
    last_began: AtomicU64,
    /// Whether it paused before its last turn.
    was_slow: AtomicBool,
    /// When it last took it from another process, in nanoseconds; 0 if never.
    taken_over_at: AtomicU64,
    /// How many turns there were.
    turns: AtomicU64,
    /// The address of the label that the page shows, or 0.
    signed: AtomicUsize,
}

/// Who else has the store open.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Company {
    /// Nobody.
    Alone,
    /// Somebody; perhaps only readers.
    Others,
}

impl ProcessLock {
    /// Opens the files of `directory`.
    ///
    /// # Errors
    /// `DiskFull`, `Io`.
    pub(super) fn open(vfs: &dyn Vfs, directory: &Directory, access: Access) -> Result<Self> {
        let is_reader = access == Access::ReadOnly;
        let path = &directory.path;
        let lock = if is_reader {
            None
        } else {
            open_file(vfs, path, file_name::LOCK, false)?
        };
        let open = open_file(vfs, path, file_name::OPEN, is_reader)?;
        // Before the page: if the name leads to this file afterwards, the page is of it too.
        let state = if is_reader {
            None
        } else {
            open_file(vfs, path, file_name::STATE, false)?
        };
        let page = open_page(vfs, path, access)?;
        Ok(Self {
            directory: directory.clone(),
            access,
            lock,
            open,
            page,
            state,
            paths: [file_name::LOCK, file_name::OPEN, file_name::STATE].map(|name| path.join(name)),
            holds: AtomicBool::new(false),
            taken_at: AtomicU64::new(0),
            last_began: AtomicU64::new(0),
            was_slow: AtomicBool::new(false),
            taken_over_at: AtomicU64::new(0),
            turns: AtomicU64::new(0),
            signed: AtomicUsize::new(0),
        })
    }

    /// This process's view of the shared words: its own if nobody else may write.
    pub(super) fn shared(&self, vfs: &dyn Vfs) -> Shared {
        match &self.page {
            Some(page) if self.access != Access::Exclusive => Shared::new(vfs, page.clone()),
            _ => Shared::private(vfs),
        }
    }

    /// Takes `LOCK` and `OPEN` for an opening, waiting up to `deadline`; with `once`, tries once.
    /// `LOCK` stays taken, for those who write.
    ///
    /// # Errors
    /// `LockTimeout` with the holder; `Io`.
    pub(super) fn enter(&self, vfs: &dyn Vfs, deadline: Duration, once: bool) -> Result<Company> {
        let begun = vfs.monotonic();
        let mut pause = RETRY_MIN;
        loop {
            if self.lock.is_some() {
                self.take(vfs, begun, deadline, once)?;
            }
            if let Some(company) = self.try_open()? {
                // From now on the words are its own; a reader without `LOCK` must not see them.
                if self.access == Access::Exclusive
                    && let Some(page) = &self.page
                {
                    Shared::new(vfs, page.clone()).invalidate();
                    self.invalidate_file()?;
                }
                return Ok(company);
            }
            self.leave_turns(vfs);
            let now = vfs.monotonic();
            if once || now >= deadline {
                // Of those who only read nobody knows who they are.
                let holder = self.page.as_deref().filter(|_| self.lock.is_none());
                return Err(self.timeout(vfs, begun, holder));
            }
            vfs.sleep(pause.min(deadline.saturating_sub(now)));
            pause = (pause * 2).min(RETRY_MAX);
        }
    }

    /// The same by a write, for those who can map what this process could not.
    fn invalidate_file(&self) -> Result<()> {
        let Some(state) = &self.state else {
            return Ok(());
        };
        state
            .write_at(0, &[0; 8])
            .map_err(|error| Error::io("write", &self.directory.path.join(file_name::STATE), error))
    }

    /// Tries `OPEN`, as far as this access needs it; `None` if others keep it out.
    fn try_open(&self) -> Result<Option<Company>> {
        let Some(open) = &self.open else {
            return Ok(Some(Company::Alone));
        };
        let refused = |error| Error::io("lock", &self.directory.path.join(file_name::OPEN), error);
        let lock = |kind| open.try_lock(kind).map_err(refused);
        if self.lock.is_some() && lock(LockKind::Exclusive)? {
            return Ok(Some(Company::Alone));
        }
        if self.access != Access::Exclusive && lock(LockKind::Shared)? {
            return Ok(Some(Company::Others));
        }
        Ok(None)
    }

    /// Lets others in, after an opening that began alone.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn let_others_in(&self) -> Result<()> {
        if self.access != Access::Shared {
            return Ok(());
        }
        let Some(open) = &self.open else {
            return Ok(());
        };
        let path = self.directory.path.join(file_name::OPEN);
        let error = |error| Error::io("lock", &path, error);
        // Nobody takes it in between: who opens needs `LOCK`, and readers take it shared.
        if open.try_lock(LockKind::Shared).map_err(error)? {
            return Ok(());
        }
        Err(error(std::io::Error::other(
            "it was taken away from its holder",
        )))
    }

    /// Whether nobody else has the store open: the caller, who holds `LOCK`, is about to leave.
    pub(super) fn is_last(&self) -> bool {
        self.access == Access::Exclusive
            || self
                .open
                .as_ref()
                .is_none_or(|open| open.try_lock(LockKind::Exclusive).unwrap_or(false))
    }

    /// Whether this process holds `LOCK`.
    pub(super) fn holds(&self) -> bool {
        self.holds.load(Ordering::SeqCst)
    }

    /// How many turns there were.
    pub(super) fn turns(&self) -> u64 {
        self.turns.load(Ordering::Relaxed)
    }

    /// Takes `LOCK` for a turn that begins now, waiting up to `deadline`; with `once`, tries once.
    /// Nothing is asked of the machine if this process has kept it.
    ///
    /// # Errors
    /// `LockTimeout` with the holder; `Io`.
    pub(super) fn take(
        &self,
        vfs: &dyn Vfs,
        now: Duration,
        deadline: Duration,
        once: bool,
    ) -> Result<()> {
        // Under the writer lock between threads: nobody else changes it.
        let turns = self.turns.load(Ordering::Relaxed);
        self.turns.store(turns + 1, Ordering::Relaxed);
        if self.holds() {
            return Ok(());
        }
        let Some(line) = self.line(vfs) else {
            return Ok(());
        };
        let taken = line.take(deadline, once).map_err(|error| {
            Error::io("lock", &self.directory.path.join(file_name::LOCK), error)
        })?;
        if !taken {
            return Err(self.timeout(vfs, now, self.page.as_deref()));
        }
        self.taken_at
            .store(nanos(vfs.monotonic()), Ordering::Relaxed);
        self.holds.store(true, Ordering::SeqCst);
        self.check_files(vfs).inspect_err(|_| self.leave_turns(vfs))
    }

    /// Refuses if one of the files was removed or put elsewhere, or the directory was: whoever comes
    /// now has another one, and does not know of this process.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn check_files(&self, vfs: &dyn Vfs) -> Result<()> {
        self.directory.check(vfs)?;
        let Some(name) = self.removed_file() else {
            return Ok(());
        };
        let cause = "it was removed while the store was open; close the store in all processes, \
                     then open it again";
        let path = self.directory.path.join(name);
        Err(Error::io("lock", &path, std::io::Error::other(cause)))
    }

    /// Which file of those that all processes must share is not found by its name any more.
    fn removed_file(&self) -> Option<&'static str> {
        let files = [&self.lock, &self.open, &self.state];
        let names = [file_name::LOCK, file_name::OPEN, file_name::STATE];
        let is_gone = |file: &Option<Arc<dyn VfsFile>>, path: &Path| {
            file.as_ref()
                .is_some_and(|file| !file.is_named(path).unwrap_or(true))
        };
        let mut gone = files.into_iter().zip(&self.paths).zip(names);
        gone.find_map(|((file, path), name)| is_gone(file, path).then_some(name))
    }

    /// Notes that another process had `LOCK` before, at `now`.
    pub(super) fn note_company(&self, now: Duration) {
        self.taken_over_at.store(nanos(now), Ordering::Relaxed);
    }

    /// Says whose turn it is and when it began, for those who wait.
    pub(super) fn sign(&self, vfs: &dyn Vfs, label: &Arc<str>, since: Duration) {
        let Some(page) = &self.page else {
            return;
        };
        state::write_since(page.as_ref(), since);
        // Labels live as long as those who hold them: another one at the same address is rare,
        // and costs a message its word.
        let address = Arc::as_ptr(label).addr();
        if self.signed.load(Ordering::Relaxed) != address {
            self.signed.store(address, Ordering::Relaxed);
            state::write_holder(page.as_ref(), vfs, label);
        }
    }

    /// Ends a turn that began at `began`: keeps `LOCK` or gives it up. `is_over` says that the
    /// thread will not come back at once, `is_queued` that others of this process wait. True if it
    /// was kept, and somebody has to see to it that it is not kept for ever.
    pub(super) fn end_turn(
        &self,
        vfs: &dyn Vfs,
        began: Duration,
        is_over: bool,
        is_queued: bool,
    ) -> bool {
        if self.access == Access::Exclusive || !self.holds() {
            return false;
        }
        let began = nanos(began);
        let last_began = self.last_began.load(Ordering::Relaxed);
        self.last_began.store(began, Ordering::Relaxed);
        let Some(line) = self.line(vfs) else {
            return false;
        };
        let is_enough = if line.is_waited_for() {
            let held = nanos(vfs.monotonic()).saturating_sub(self.taken_at.load(Ordering::Relaxed));
            held >= nanos(KEEP) || is_over && !is_queued
        } else {
            // Who writes now and then asks for it each time; who writes a lot keeps it, also over
            // one pause, but not while it waits for the disk, if others have written of late.
            let was_slow = self.was_slow.load(Ordering::Relaxed);
            let pauses = began.saturating_sub(last_began) >= nanos(KEEP);
            self.was_slow.store(pauses, Ordering::Relaxed);
            let is_slow = pauses && was_slow;
            let taken_over = self.taken_over_at.load(Ordering::Relaxed);
            let has_company = began.saturating_sub(taken_over) < nanos(COMPANY);
            !is_queued && (is_slow || is_over && has_company)
        };
        if is_enough {
            self.leave_turns(vfs);
        }
        self.holds()
    }

    /// Who holds `LOCK`, as far as the page says.
    pub(super) fn holder(&self, vfs: &dyn Vfs) -> Option<Holder> {
        state::read_holder(self.page.as_deref()?, vfs)
    }

    /// The processes that have the directory open, as far as the machine tells.
    ///
    /// # Errors
    /// `Io`.
    pub(super) fn processes(&self) -> Result<Vec<u32>> {
        let Some(open) = &self.open else {
            return Ok(Vec::new());
        };
        open.lockers()
            .map_err(|error| Error::io("look at the locks of", &self.paths[1], error))
    }

    /// Whether another process waits for `LOCK`.
    pub(super) fn is_waited_for(&self, vfs: &dyn Vfs) -> bool {
        self.line(vfs).is_some_and(|line| line.is_waited_for())
    }

    /// Gives `LOCK` up, if this process holds it; holds it still if the machine refuses that. The
    /// caller has the writer lock between threads.
    pub(super) fn leave_turns(&self, vfs: &dyn Vfs) {
        if self.holds.swap(false, Ordering::SeqCst)
            && let Some(line) = self.line(vfs)
        {
            // Before it is another one's: this one may write the page at once.
            if let Some(page) = &self.page {
                state::clear_holder(page.as_ref());
                self.signed.store(0, Ordering::Relaxed);
            }
            if let Err(error) = line.give_up() {
                tracing::warn!(path = %self.directory.path.display(), %error, "the writer lock could not be given up");
                self.holds.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Gives everything back. A second call does nothing.
    pub(super) fn leave(&self, vfs: &dyn Vfs) {
        if let Some(open) = &self.open {
            // OK because dropping the file frees it too. First: who gets `LOCK` next looks whether
            // it is alone.
            let _ = open.unlock();
        }
        self.leave_turns(vfs);
    }

    fn line<'a>(&'a self, vfs: &'a dyn Vfs) -> Option<WaitingLine<'a>> {
        let (Some(file), Some(page)) = (&self.lock, &self.page) else {
            return None;
        };
        Some(WaitingLine {
            vfs,
            page: page.as_ref(),
            file: file.as_ref(),
        })
    }

    fn timeout(&self, vfs: &dyn Vfs, begun: Duration, page: Option<&dyn SharedPage>) -> Error {
        let holder = page.and_then(|page| state::read_holder(page, vfs));
        Error::LockTimeout {
            path: self.directory.path.clone(),
            waited: vfs.monotonic().saturating_sub(begun),
            holder: holder.map(Box::new),
        }
    }
}

fn nanos(time: Duration) -> u64 {
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Opens a file of locks; `None` for a reader of a store that was copied without it.
fn open_file(
    vfs: &dyn Vfs,
    directory: &Path,
    name: &str,
    is_reader: bool,
) -> Result<Option<Arc<dyn VfsFile>>> {
    let path = directory.join(name);
    let open_error = |error| match error {
        error if !is_reader && is_disk_full(&error) => Error::create(&path, error),
        error => Error::io("open", &path, error),
    };
    if is_reader && vfs.node(&path).map_err(open_error)?.is_none() {
        return Ok(None);
    }
    let mode = if is_reader {
        OpenMode::Read
    } else {
        OpenMode::WriteOrCreate
    };
    vfs.open(&path, mode).map(Some).map_err(open_error)
}

/// Opens the page of `STATE`. A reader of a store that has none goes without, and sees nothing of what
/// others write; so it may not go without for another reason. `Access::Exclusive` takes a page of its
/// own where it cannot be mapped.
fn open_page(
    vfs: &dyn Vfs,
    directory: &Path,
    access: Access,
) -> Result<Option<Arc<dyn SharedPage>>> {
    let path = directory.join(file_name::STATE);
    match access {
        Access::ReadOnly => match vfs.shared_page(&path, OpenMode::Read) {
            Ok(page) => Ok(Some(page)),
            // Not there, or not yet as long as it is going to be.
            Err(error) if matches!(error.kind(), NotFound | UnexpectedEof) => Ok(None),
            Err(error) => Err(Error::io("map", &path, error)),
        },
        Access::Exclusive => {
            let page = vfs.shared_page(&path, OpenMode::WriteOrCreate);
            Ok(Some(page.unwrap_or_else(|_| vfs.private_page())))
        }
        Access::Shared => match vfs.shared_page(&path, OpenMode::WriteOrCreate) {
            Ok(page) => Ok(Some(page)),
            Err(error) if is_disk_full(&error) => Err(Error::create(&path, error)),
            Err(error) => Err(Error::io("map", &path, error)),
        },
    }
}
