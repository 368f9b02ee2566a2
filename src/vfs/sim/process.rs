//! One simulated process's view of its machine.
//!
//! A store is opened on it as on any other [`Vfs`]; calls go on into the machine that all
//! processes of a world share.
//!
//! Invariants:
//! 1. Processes of a world share its page cache, its locks and its clock, and nothing else.
//! 2. After [`World::kill`], every call that can fail does.
//!
//! Threads: any; one call at a time under the world's mutex.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::super::os::page::{Page, PlainWords};
use super::super::{
    DirectoryId, Locality, NodeKind, OpenMode, SHARED_PAGE_BYTES, SharedPage, Signal, Step, Vfs,
    VfsDirectory, VfsFile, Worker,
};
use super::World;
use super::background::SimSignal;
use super::call::Call;
use super::disk::normal;
use super::fault::FaultEffect;
use super::file::{SimDirectory, SimFile, SimPage, answer, part_of};
use super::journal::Operation;
use super::machine::Machine;

/// The simulated clock's start in real time: a day in 2023.
const UNIX_START: Duration = Duration::from_hours(24 * 19_700);

/// How long asking for the time takes, so that a loop that only asks comes to its deadline.
const CLOCK_STEP: Duration = Duration::from_micros(1);

/// The device that all directories are on.
const DEVICE: u64 = 1;

/// A simulated process.
pub(super) struct Process {
    pub(super) world: World,
    pub(super) id: u32,
    pub(super) machine_number: u64,
}

/// A path as the directory's inode and the name in it.
fn split(machine: &Machine, path: &Path) -> io::Result<(u64, Arc<str>)> {
    let path = normal(path);
    let parent = path.parent().ok_or(io::ErrorKind::InvalidInput)?;
    let name = path.file_name().and_then(|name| name.to_str());
    let name = name.ok_or(io::ErrorKind::InvalidInput)?;
    let (directory, _) = machine
        .disk
        .directory(parent)
        .ok_or(io::ErrorKind::NotFound)?;
    Ok((directory, name.into()))
}

/// The inode of an existing directory.
fn directory(machine: &Machine, path: &Path) -> io::Result<u64> {
    let (inode, _) = machine
        .disk
        .directory(&normal(path))
        .ok_or(io::ErrorKind::NotFound)?;
    Ok(inode)
}

/// The inode a name leads to.
fn named(machine: &Machine, directory: u64, name: &str) -> Option<u64> {
    machine
        .disk
        .directories
        .get(&directory)?
        .entries
        .get(name)
        .copied()
}

/// Finds or makes the file `path`; gives its inode and its name.
fn find_or_make(machine: &mut Machine, path: &Path, mode: OpenMode) -> io::Result<(u64, Arc<str>)> {
    if machine.disk.directory(&normal(path)).is_some() {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "a directory is no file",
        ));
    }
    let (directory, name) = split(machine, path)?;
    let inode = match (named(machine, directory, &name), mode) {
        (Some(inode), OpenMode::CreateEmpty) => {
            machine.resize(inode, 0)?;
            inode
        }
        (Some(inode), _) => inode,
        (None, OpenMode::WriteOrCreate | OpenMode::CreateEmpty) => {
            machine.create(directory, &name)?
        }
        (None, OpenMode::Read | OpenMode::Write) => return Err(io::ErrorKind::NotFound.into()),
    };
    Ok((inode, name))
}

impl Process {
    /// Opens `path` and grows it to `len_bytes` at least.
    fn open_file(
        &self,
        kind: Call,
        path: &Path,
        mode: OpenMode,
        len_bytes: u64,
    ) -> io::Result<SimFile> {
        let (inode, name, handle) = self.world.change_call(self.id, kind, |machine, fault| {
            if part_of(fault) != FaultEffect::Done {
                answer(fault)?;
            }
            let (inode, name) = find_or_make(machine, path, mode)?;
            if machine.len(inode) < len_bytes {
                machine.resize(inode, len_bytes)?;
            }
            answer(fault)?;
            Ok((inode, name, machine.open(inode, self.id)))
        })?;
        let is_writable = mode != OpenMode::Read;
        let world = self.world.clone();
        Ok(SimFile {
            world,
            process: self.id,
            handle,
            inode,
            name,
            is_writable,
        })
    }
}

impl Vfs for Process {
    fn create_dir_all(&self, directory: &Path) -> io::Result<()> {
        self.world
            .change_call(self.id, Call::CreateDirAll, |machine, fault| {
                if part_of(fault) != FaultEffect::Done {
                    return answer(fault);
                }
                let path = normal(directory);
                let mut missing: Vec<&Path> = path
                    .ancestors()
                    .take_while(|each| machine.disk.directory(each).is_none())
                    .collect();
                missing.reverse();
                if missing
                    .first()
                    .is_some_and(|first| machine.disk.file(first).is_some())
                {
                    return Err(io::ErrorKind::NotADirectory.into());
                }
                for path in missing {
                    let inode = machine.disk.next_inode;
                    machine.change(Operation::MakeDirectory {
                        inode,
                        path: path.into(),
                    });
                }
                answer(fault)
            })
    }

    fn node(&self, path: &Path) -> io::Result<Option<NodeKind>> {
        self.world.read_call(self.id, Call::Node, |machine| {
            let path = normal(path);
            if machine.disk.directory(&path).is_some() {
                return Ok(Some(NodeKind::Directory));
            }
            Ok(machine.disk.file(&path).map(|_| NodeKind::File))
        })
    }

    fn list(&self, directory: &Path) -> io::Result<Vec<String>> {
        self.world.read_call(self.id, Call::List, |machine| {
            let path = normal(directory);
            let disk = &machine.disk;
            let (_, directory) = disk.directory(&path).ok_or(io::ErrorKind::NotFound)?;
            let files = directory.entries.keys().map(ToString::to_string);
            let within = disk.directories.values().map(|each| &each.path);
            let within = within.filter(|each| each.parent() == Some(&*path));
            let within = within.filter_map(|each| each.file_name()?.to_str().map(str::to_owned));
            Ok(files.chain(within).collect())
        })
    }

    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn VfsFile>> {
        Ok(Arc::new(self.open_file(Call::Open, path, mode, 0)?))
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.world
            .change_call(self.id, Call::Rename, |machine, fault| {
                let (directory, from) = split(machine, from)?;
                let (target, to) = split(machine, to)?;
                if directory != target {
                    return Err(io::ErrorKind::Unsupported.into());
                }
                let inode = named(machine, directory, &from).ok_or(io::ErrorKind::NotFound)?;
                let replaced = named(machine, directory, &to);
                if part_of(fault) == FaultEffect::Done && replaced != Some(inode) {
                    machine.change(Operation::Rename {
                        directory,
                        from,
                        to,
                    });
                    if let Some(replaced) = replaced {
                        machine.release(replaced);
                    }
                }
                answer(fault)
            })
    }

    fn link(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.world
            .change_call(self.id, Call::Link, |machine, fault| {
                let (source, from) = split(machine, from)?;
                let (directory, name) = split(machine, to)?;
                let inode = named(machine, source, &from).ok_or(io::ErrorKind::NotFound)?;
                if named(machine, directory, &name).is_some() {
                    return Err(io::ErrorKind::AlreadyExists.into());
                }
                if part_of(fault) == FaultEffect::Done {
                    machine.change(Operation::Link {
                        directory,
                        name,
                        inode,
                    });
                }
                answer(fault)
            })
    }

    fn unlink(&self, path: &Path) -> io::Result<()> {
        self.world
            .change_call(self.id, Call::Unlink, |machine, fault| {
                let (directory, name) = split(machine, path)?;
                let inode = named(machine, directory, &name).ok_or(io::ErrorKind::NotFound)?;
                if part_of(fault) == FaultEffect::Done {
                    machine.change(Operation::Unlink { directory, name });
                    machine.release(inode);
                }
                answer(fault)
            })
    }

    fn directory(&self, path: &Path) -> io::Result<Arc<dyn VfsDirectory>> {
        let open = |machine: &mut Machine| directory(machine, path);
        Ok(Arc::new(SimDirectory {
            inode: self.world.read_call(self.id, Call::OpenDir, open)?,
            world: self.world.clone(),
            process: self.id,
        }))
    }

    fn directory_id(&self, path: &Path) -> io::Result<DirectoryId> {
        self.world.read_call(self.id, Call::DirectoryId, |machine| {
            let inode = directory(machine, path)?;
            Ok(DirectoryId {
                machine: self.machine_number,
                device: DEVICE,
                inode,
            })
        })
    }

    fn absolute(&self, path: &Path) -> io::Result<PathBuf> {
        self.world.read_call(self.id, Call::Absolute, |machine| {
            directory(machine, path)?;
            Ok(normal(path))
        })
    }

    fn free_bytes(&self, _directory: &Path) -> io::Result<u64> {
        Ok(self.world.lock().free_bytes.unwrap_or(u64::MAX))
    }

    fn parallelism(&self) -> usize {
        // So that what is cut into parts is, though they run one after another.
        3
    }

    fn locality(&self, path: &Path) -> io::Result<Locality> {
        self.world.read_call(self.id, Call::Locality, |machine| {
            directory(machine, path)?;
            Ok(machine.locality.clone())
        })
    }

    fn shared_page(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn SharedPage>> {
        let len_bytes = SHARED_PAGE_BYTES * u64::from(mode != OpenMode::Read);
        let file = self.open_file(Call::SharedPage, path, mode, len_bytes)?;
        if self.world.lock().len(file.inode) < SHARED_PAGE_BYTES {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok(Arc::new(SimPage { file }))
    }

    fn private_page(&self) -> Arc<dyn SharedPage> {
        Arc::new(Page::new(PlainWords::new(), true))
    }

    fn boot_id(&self) -> u64 {
        self.world.lock().boot
    }

    fn process_id(&self) -> u32 {
        self.id
    }

    fn fork_count(&self) -> u64 {
        self.world.lock().process(self.id).fork_count
    }

    fn thread_id(&self) -> u64 {
        self.world.lock().thread
    }

    fn monotonic(&self) -> Duration {
        let mut machine = self.world.lock();
        machine.lose_patience();
        machine.clock = machine.clock.saturating_add(CLOCK_STEP);
        machine.clock
    }

    fn unix_time(&self) -> Duration {
        UNIX_START + self.world.now()
    }

    fn unique_id(&self) -> [u8; 16] {
        let random = &mut self.world.lock().random;
        let halves = [random.bits(), random.bits()];
        let mut id = [0; 16];
        id[..8].copy_from_slice(&halves[0].to_le_bytes());
        id[8..].copy_from_slice(&halves[1].to_le_bytes());
        id
    }

    fn yield_now(&self) {
        self.world.switch();
    }

    fn sleep(&self, duration: Duration) {
        self.world
            .wait_until(self.world.now().saturating_add(duration), || false);
    }

    fn signal(&self) -> Arc<dyn Signal> {
        Arc::new(SimSignal::new(self.world.clone()))
    }

    fn spawn(&self, _name: &str, step: Step) -> io::Result<Box<dyn Worker>> {
        self.world.read_call(self.id, Call::Spawn, |_| Ok(()))?;
        Ok(Box::new(self.world.register(self.id, step)))
    }
}
