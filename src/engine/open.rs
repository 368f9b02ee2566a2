//! Opening: find or make the directory, lock it, recover the log, fill the index.
//!
//! `store` comes in with a path and settings, and gets an [`Opening`]. Only the process that
//! holds `LOCK` changes anything here. What a crash in the middle leaves, step by step: a
//! directory without `MANIFEST` (made anew next time); a torn tail zeroed in part (found again);
//! a zeroed tail under the old epoch (clean, nothing of it verifies). Opening may be killed and
//! repeated at any point.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::baton::Baton;
use super::compactor::Compactor;
use super::create::{load_or_create, make_directory};
use super::keeper::Keeper;
use super::process_lock::{Company, ProcessLock};
use super::recovery::Recovery;
use super::refresh::attach;
use super::writer_lock::WriterLock;
use super::{Counters, Engine, Identity, Opening, deferred, registry, snapshot};
use crate::error::{Error, Result};
use crate::format::manifest::{KeyKind, Manifest};
use crate::index::Index;
use crate::log::directory::Directory;
use crate::log::group_sync::{Number, Numbers};
use crate::log::leftovers::{has_segments, remove_abandoned, remove_leftovers};
use crate::log::shared::PageOf;
use crate::log::tail::place;
use crate::log::writer::Writer;
use crate::log::{self, Log};
use crate::options::{Access, Create, OpenProgress, Settings};
use crate::vfs::{DirectoryId, Locality, OpenMode, Vfs};

/// What the store above wants its directory to be made with.
pub(crate) struct Wanted<'a> {
    pub(crate) key_kind: KeyKind,
    pub(crate) serializer: &'a str,
}

/// Opens the store at `path`.
///
/// # Errors
/// Nearly every kind; `Options::open` lists them.
pub(crate) fn open(
    vfs: &Arc<dyn Vfs>,
    path: &Path,
    settings: &Settings,
    wanted: &Wanted<'_>,
) -> Result<Arc<Opening>> {
    make_directory(vfs.as_ref(), path, settings)?;
    let directory = vfs
        .absolute(path)
        .map_err(|error| Error::io("look at", path, error))?;
    let begun = vfs.monotonic();
    let open = |id| {
        // One deadline bounds the wait for threads and for processes together.
        let passed = vfs.monotonic().saturating_sub(begun);
        let timeout = settings.lock_timeout.saturating_sub(passed);
        open_engine(vfs, &directory, id, settings, wanted, timeout, true)
    };
    let (engine, was_open) = registry::find_or_open(vfs, &directory, settings.lock_timeout, open)?;
    let opening = Arc::new(Opening {
        engine,
        lock_timeout: settings.lock_timeout,
        durability: settings.durability,
        label: settings.label.clone(),
        closing: AtomicBool::new(false),
        closed: AtomicBool::new(false),
    });
    if was_open {
        // From here on the opening's drop gives back what was counted.
        check_reopen(&opening.engine.identity, settings, wanted)?;
    }
    Ok(opening)
}

/// A directory that is open already is shared only with the same meaning.
fn check_reopen(open: &Identity, settings: &Settings, wanted: &Wanted<'_>) -> Result<()> {
    if settings.create == Create::New {
        return Err(Error::AlreadyExists {
            path: open.path.clone(),
        });
    }
    if open.access != settings.access {
        return Err(Error::InvalidOption {
            option: "access",
            value: format!("{:?}", settings.access),
            what: format!(
                "this process has the store open as {:?}; open it the same way, or close it first",
                open.access
            ),
        });
    }
    check_identity(
        &open.path,
        open.key_kind,
        &open.serializer,
        settings,
        wanted,
    )
}

fn check_identity(
    path: &Path,
    key_kind: KeyKind,
    serializer: &str,
    settings: &Settings,
    wanted: &Wanted<'_>,
) -> Result<()> {
    let is_any = settings.any_key_kind && wanted.key_kind == KeyKind::Bytes;
    if key_kind != wanted.key_kind && !is_any {
        let (stored, asked) = (key_kind.name(), wanted.key_kind.name());
        return Err(Error::KeyKindMismatch {
            path: path.to_owned(),
            stored,
            asked,
        });
    }
    if serializer != wanted.serializer && !settings.any_serializer {
        return Err(Error::SerializerMismatch {
            path: path.to_owned(),
            stored: serializer.to_owned(),
            asked: wanted.serializer.to_owned(),
        });
    }
    Ok(())
}

fn open_engine(
    vfs: &Arc<dyn Vfs>,
    path: &Path,
    id: DirectoryId,
    settings: &Settings,
    wanted: &Wanted<'_>,
    timeout: Duration,
    is_first: bool,
) -> Result<Arc<Engine>> {
    refuse_remote(vfs.as_ref(), path, settings)?;
    refuse_missing(vfs.as_ref(), path, settings)?;
    let directory = Directory::open(vfs.as_ref(), path, id)?;
    let lock = ProcessLock::open(vfs.as_ref(), &directory, settings.access)?;
    let begun = vfs.monotonic();
    let deadline = begun.saturating_add(timeout);
    let company = lock.enter(vfs.as_ref(), deadline, timeout.is_zero())?;
    lock.sign(vfs.as_ref(), &settings.label, begun);
    // The files of locks must be those of the log, and may have been opened long ago.
    let checked = lock.check_files(vfs.as_ref());
    let recovered =
        checked.and_then(|()| recover(vfs, directory, settings, wanted, &lock, company));
    let let_in = |recovered| match company {
        Company::Alone => lock.let_others_in().map(|()| recovered),
        Company::Others => Ok(recovered),
    };
    match recovered.and_then(let_in) {
        Ok(recovered) => {
            if settings.access == Access::Shared {
                lock.leave_turns(vfs.as_ref());
            }
            let engine = start(vfs, settings, recovered, lock);
            if settings.access == Access::Shared && engine.process_lock.holds() {
                engine.look_after_lock();
            }
            let Err(error) = settle(&engine, company, settings.lock_timeout) else {
                return Ok(engine);
            };
            let has_failed = engine.log.failure().is_some() || engine.log.check_history().is_err();
            engine.process_lock.leave(vfs.as_ref());
            drop(engine);
            if has_failed && is_first {
                // A write or a sync failed meanwhile, somewhere: opening again is what mends it.
                return open_engine(vfs, path, id, settings, wanted, timeout, false);
            }
            Err(error)
        }
        Err(error) => {
            lock.leave(vfs.as_ref());
            Err(error)
        }
    }
}

/// Sees to it that what others have left is there from now on, or never: whoever finds after a death
/// that something is not there may rely on that, and what is there survives whatever comes. So the
/// log's end is mended if somebody died in front of it, and what is appended is made durable.
fn settle(engine: &Arc<Engine>, company: Company, timeout: Duration) -> Result<()> {
    if engine.identity.access != Access::Shared || company == Company::Alone {
        return Ok(());
    }
    let (vfs, shared) = (engine.vfs.as_ref(), engine.log.shared());
    let deadline = vfs.monotonic().saturating_add(timeout);
    while shared.is_writing() {
        // Somebody writes at this moment, or died then.
        let left = deadline.saturating_sub(vfs.monotonic());
        match Engine::begin(engine, left, None) {
            Err(Error::LockTimeout { .. }) if !left.is_zero() || !shared.is_writing() => {}
            Err(error) => return Err(error),
            Ok(_) => break,
        }
    }
    // CRASH: who died between its append and its sync, or before it raised what is visible.
    engine.sync()?;
    engine.wait_visible(shared.get(Number::Sequence))
}

/// What there is of an engine before anybody may use it.
struct Recovered {
    identity: Identity,
    log: Log,
    index: Index,
    writer: Writer,
}

/// Finds out what the store holds, and mends what a crash left. The caller holds the locks.
fn recover(
    vfs: &Arc<dyn Vfs>,
    directory: Directory,
    settings: &Settings,
    wanted: &Wanted<'_>,
    lock: &ProcessLock,
    company: Company,
) -> Result<Recovered> {
    let manifest = load_or_create(vfs.as_ref(), &directory, settings, wanted)?;
    let (path, serializer) = (&directory.path, manifest.serializer.clone());
    check_identity(path, manifest.key_kind, &serializer, settings, wanted)?;
    let identity = Identity {
        path: path.clone(),
        id: directory.id,
        access: settings.access,
        key_kind: manifest.key_kind,
        serializer,
        verify_reads: settings.verify_reads,
    };
    let page_of = PageOf {
        boot: vfs.boot_id(),
        store_id: manifest.store_id,
        directory: identity.id.inode ^ identity.id.device.rotate_left(32),
    };
    let make_log = |opened| {
        let mode = match settings.access {
            Access::ReadOnly => OpenMode::Read,
            Access::Shared | Access::Exclusive => OpenMode::Write,
        };
        let segment_bytes = u32::try_from(settings.segment_bytes).unwrap_or(u32::MAX);
        let shared = lock.shared(vfs.as_ref());
        Log::new(vfs.clone(), opened, shared, page_of, segment_bytes, mode)
    };
    let log = make_log(directory);
    let filled = match settings.access {
        Access::ReadOnly => read(log, settings, manifest, make_log)?,
        Access::Shared | Access::Exclusive => join(log, settings, manifest, company, lock)?,
    };
    let (log, index, writer) = filled;
    Ok(Recovered {
        identity,
        log,
        index,
        writer,
    })
}

/// A log, what its keys are, and where it ends.
type Filled = (Log, Index, Writer);

/// Fills the index of one who writes too. Who is alone, or comes after a failure, recovers the log.
/// Others follow what is published, as readers do, while those
/// who have the store open write on: what is appended behind that they walk over before they
/// write themselves.
fn join(
    log: Log,
    settings: &Settings,
    manifest: Manifest,
    company: Company,
    lock: &ProcessLock,
) -> Result<Filled> {
    let shared = log.shared().clone();
    // An end that somebody died in front of is mended by the next owner of the lock, and a sync that
    // somebody died in by the next leader.
    let is_sound =
        company == Company::Others && shared.is_of(log.page_of()) && !shared.has_unmended_failure();
    if is_sound {
        lock.leave_turns(log.vfs.as_ref());
        return follow_others(log, settings, manifest);
    }
    if company == Company::Alone || !shared.is_of(log.page_of()) {
        shared.clear();
    }
    let failures = shared.get(Number::Failures);
    // CRASH: the next one finds this, and recovers as well.
    shared.set_writing(true);
    let (vfs, directory) = (log.vfs.as_ref(), &log.directory);
    remove_leftovers(vfs, directory, &manifest, false).map_err(|fault| fault.error)?;
    let index = Index::new();
    let writer = Recovery::new(&log, &index, settings, manifest).run()?;
    if company == Company::Alone {
        // Who compacts has the store open. Only now: all that is listed was there.
        remove_abandoned(log.vfs.as_ref(), &log.directory, &writer.manifest)?;
    }
    shared.set_owner();
    shared.set_writing(false);
    shared.set_mended(failures);
    shared.validate(log.page_of());
    log.mend(failures);
    Ok((log, index, writer))
}

/// Fills the index of one who only reads: with what others publish, if somebody does; else with
/// all that is there.
fn read(
    log: Log,
    settings: &Settings,
    manifest: Manifest,
    make_log: impl FnOnce(Directory) -> Log,
) -> Result<Filled> {
    if log.shared().is_of(log.page_of()) {
        return follow_others(log, settings, manifest);
    }
    log.stand_still();
    let (vfs, directory) = (log.vfs.clone(), log.directory.clone());
    let index = Index::new();
    let recovered = remove_leftovers(vfs.as_ref(), &directory, &manifest, true)
        .map_err(|fault| fault.error)
        .and_then(|()| Recovery::new(&log, &index, settings, manifest).run());
    // Somebody may have begun to write meanwhile: what is there is more than may be seen.
    if log.shared().is_of(log.page_of()) {
        let log = make_log(directory);
        let manifest = log.load_manifest()?;
        return follow_others(log, settings, manifest);
    }
    Ok((log, index, recovered?))
}

/// Fills the index with what the shared words tell of.
fn follow_others(log: Log, settings: &Settings, manifest: Manifest) -> Result<Filled> {
    let index = Index::new();
    let sealed_bytes: u64 = manifest.segments.iter().map(|s| s.end.len_bytes).sum();
    let bytes_total = sealed_bytes + u64::from(place(log.shared().get(Number::Appended)).1);
    let mut report = |done: u64| {
        settings.report(OpenProgress {
            bytes_done: done.min(bytes_total),
            bytes_total,
            keys: index.keys(),
        });
    };
    let writer = attach(&log, &index, manifest, &mut report)?;
    settings.report(OpenProgress {
        bytes_done: bytes_total,
        bytes_total,
        keys: index.keys(),
    });
    Ok((log, index, writer))
}

fn start(
    vfs: &Arc<dyn Vfs>,
    settings: &Settings,
    recovered: Recovered,
    process_lock: ProcessLock,
) -> Arc<Engine> {
    let Recovered {
        identity,
        log,
        index,
        writer,
    } = recovered;
    let engine = Arc::new(Engine {
        vfs: vfs.clone(),
        identity,
        log,
        index,
        counters: Counters::default(),
        writer_lock: WriterLock::new(settings.label.clone()),
        applied: AtomicU64::new(writer.sequence),
        absorbing: Baton::new(()),
        known_generation: AtomicU64::new(writer.manifest.generation),
        cursor: Baton::new(Box::new(writer)),
        pins: snapshot::Pins::default(),
        deferred: deferred::Deferred::default(),
        closed: AtomicBool::new(false),
        poison: OnceLock::new(),
        fork_count: vfs.fork_count(),
        process_lock,
        keeper: Keeper::default(),
        compactor: Compactor::default(),
    });
    engine.deferred.attach(&engine);
    engine.keeper.attach(&engine);
    engine.index.settle();
    while engine.index.prune(&engine.horizon(), 0) {}
    let path = engine.identity.path.display();
    tracing::debug!(%path, keys = engine.index.keys(), "store opened");
    engine
}

/// Locks and mapped pages are shared with others on local file systems alone, and where it can be
/// told whether a page is older than the machine's last start.
fn refuse_remote(vfs: &dyn Vfs, directory: &Path, settings: &Settings) -> Result<()> {
    if settings.access == Access::Exclusive {
        return Ok(());
    }
    let look = |error| Error::io("look at", directory, error);
    if let Locality::Remote(file_system) = vfs.locality(directory).map_err(look)? {
        return Err(Error::NotLocal {
            path: directory.to_owned(),
            file_system,
        });
    }
    if vfs.boot_id() == 0 {
        let cause = "this machine does not tell its boot id; open the store with Access::Exclusive";
        return Err(look(std::io::Error::other(cause)));
    }
    Ok(())
}

/// Without a lock yet: says early, and without making a `LOCK` file, that there is no store.
fn refuse_missing(vfs: &dyn Vfs, directory: &Path, settings: &Settings) -> Result<()> {
    if settings.create != Create::Never && settings.access != Access::ReadOnly {
        return Ok(());
    }
    let path = directory.join(log::file_name::MANIFEST);
    let node = vfs
        .node(&path)
        .map_err(|error| Error::io("look at", &path, error))?;
    if node.is_none() && !has_segments(vfs, directory)? {
        return Err(Error::NotFound {
            path: directory.to_owned(),
        });
    }
    Ok(())
}

/// The path of the store of an engine in memory, for messages.
pub(crate) fn memory_path() -> PathBuf {
    PathBuf::from("in-memory store")
}
