//! Open files and shared pages of a simulated process.
//!
//! The store comes in through [`VfsFile`] and [`SharedPage`]; changes go on into the machine's
//! journal.
//!
//! Invariants:
//! 1. A call of a killed process fails or does nothing; its locks and open files are gone.
//! 2. Shared words change in the page cache at once and are never promised to be durable.
//!
//! Threads: any; one call at a time under the world's mutex.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::super::{LockKind, SharedPage, VfsDirectory, VfsFile};
use super::World;
use super::call::Call;
use super::fault::{Fault, FaultEffect, Plant};
use super::journal::Operation;
use super::machine::Machine;

/// An open file: what `flock` calls an open file description.
pub(super) struct SimFile {
    pub(super) world: World,
    pub(super) process: u32,
    pub(super) handle: u64,
    pub(super) inode: u64,
    pub(super) name: Arc<str>,
    pub(super) is_writable: bool,
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.world.lock().close(self.handle);
    }
}

/// What a change does under a planned failure: all, a part, or nothing.
pub(super) fn part_of(fault: Option<Fault>) -> FaultEffect {
    fault.map_or(FaultEffect::Done, |fault| fault.effect)
}

/// The answer of a change that was done as planned.
pub(super) fn answer(fault: Option<Fault>) -> io::Result<()> {
    fault.map_or(Ok(()), |fault| Err(fault.error()))
}

impl SimFile {
    fn check_writable(&self) -> io::Result<()> {
        if self.is_writable {
            return Ok(());
        }
        Err(io::Error::new(
            io::ErrorKind::PermissionDenied,
            "the file is open for reading",
        ))
    }

    /// How many of `len` bytes a failing call still writes: some, not all.
    fn half(machine: &mut Machine, len: usize) -> usize {
        if len < 2 {
            0
        } else {
            1 + machine.random.index(len - 1)
        }
    }
}

impl VfsFile for SimFile {
    fn len(&self) -> io::Result<u64> {
        self.world.read_call(self.process, Call::Len, |machine| {
            Ok(machine.len(self.inode))
        })
    }

    fn read_at(&self, offset: u64, out: &mut [u8]) -> io::Result<usize> {
        self.world.read_call(self.process, Call::ReadAt, |machine| {
            Ok(machine.content(self.inode)?.read(offset, out))
        })
    }

    fn view(&self, offset: u64, len_bytes: usize) -> io::Result<Cow<'_, [u8]>> {
        self.world
            .change_call(self.process, Call::View, |machine, fault| {
                if fault.is_some() && machine.plants.hides(Call::View) {
                    return Ok(Cow::Owned(vec![0; len_bytes]));
                }
                answer(fault)?;
                let content = machine.content(self.inode)?;
                let end = offset.checked_add(len_bytes as u64);
                if end.is_none_or(|end| end > content.len()) {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
                let mut bytes = vec![0; len_bytes];
                content.read(offset, &mut bytes);
                Ok(Cow::Owned(bytes))
            })
    }

    fn map(&self, _len_bytes: u64) {}

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.world
            .change_call(self.process, Call::Write, |machine, fault| {
                self.check_writable()?;
                let bytes = match part_of(fault) {
                    FaultEffect::Done => bytes,
                    FaultEffect::Half | FaultEffect::KillHalf => {
                        &bytes[..Self::half(machine, bytes.len())]
                    }
                    FaultEffect::Clean | FaultEffect::Kill => &[],
                };
                if !machine.plants.swallow_write(&self.name, bytes) {
                    machine.write(self.inode, offset, bytes)?;
                }
                answer(fault.filter(|_| !machine.plants.hides(Call::Write)))
            })
    }

    fn allocate(&self, len_bytes: u64) -> io::Result<()> {
        self.world
            .change_call(self.process, Call::Allocate, |machine, fault| {
                self.check_writable()?;
                let before = machine.len(self.inode);
                let grown = len_bytes.saturating_sub(before);
                let grown = match part_of(fault) {
                    FaultEffect::Done => grown,
                    FaultEffect::Half | FaultEffect::KillHalf => grown / 2,
                    FaultEffect::Clean | FaultEffect::Kill => 0,
                };
                machine.resize(self.inode, before + grown)?;
                answer(fault)
            })
    }

    fn sync(&self) -> io::Result<()> {
        self.world
            .change_call(self.process, Call::Sync, |machine, fault| {
                let inode = self.inode;
                let fault = fault.or(machine.count_sync(&self.name));
                if let Some(untold) = machine.untold_failure(self.handle) {
                    return Err(untold);
                }
                if part_of(fault) != FaultEffect::Done {
                    machine.note_failed_sync(self.handle);
                    let seed = machine.random.bits();
                    let forgets_growth = machine.plants.has(Plant::ForgottenGrowth);
                    machine.change(Operation::SyncFailed {
                        inode,
                        seed,
                        forgets_growth,
                    });
                } else if !machine.plants.swallow_sync(&self.name) {
                    machine.change(Operation::Sync { inode });
                }
                answer(fault.filter(|_| !machine.plants.hides(Call::Sync)))
            })
    }

    fn try_lock(&self, kind: LockKind) -> io::Result<bool> {
        self.world
            .read_call(self.process, Call::TryLock, |machine| {
                Ok(machine.try_lock(self.handle, self.inode, kind))
            })
    }

    fn unlock(&self) -> io::Result<()> {
        self.world.read_call(self.process, Call::Unlock, |machine| {
            machine.unlock(self.handle);
            Ok(())
        })
    }
}

/// An open directory.
pub(super) struct SimDirectory {
    pub(super) world: World,
    pub(super) process: u32,
    pub(super) inode: u64,
}

impl VfsDirectory for SimDirectory {
    fn sync(&self) -> io::Result<()> {
        self.world
            .change_call(self.process, Call::SyncDir, |machine, fault| {
                let directory = self.inode;
                let is_swallowed = machine.plants.has(Plant::NoDirectorySync);
                if part_of(fault) == FaultEffect::Done && !is_swallowed {
                    machine.change(Operation::SyncDirectory { directory });
                }
                answer(fault)
            })
    }
}

/// A page of shared words, kept in a file of the page cache.
pub(super) struct SimPage {
    /// Keeps the page's bytes after its name went.
    pub(super) file: SimFile,
}

impl SimPage {
    /// Changes a word by `change`, if it gives a value; the value found is the answer. What a
    /// killed process stores goes nowhere.
    fn update(&self, index: usize, change: impl FnOnce(u64) -> Option<u64>) -> u64 {
        let SimFile {
            world,
            process,
            inode,
            ..
        } = &self.file;
        world.switch();
        let mut machine = world.lock();
        let mut steps = Vec::new();
        let offset = index as u64 * 8;
        let before = machine
            .disk
            .files
            .get(inode)
            .map_or(0, |content| content.word(offset));
        if let Some(value) = change(before)
            && value != before
            && self.file.is_writable
            && !machine.plants.has(Plant::LostWord(index))
            && !machine.process(*process).is_dead
            && !machine.dies_at_store(*process, &mut steps)
        {
            machine.change(Operation::PageStore {
                inode: *inode,
                index,
                value,
            });
        }
        drop(machine);
        drop(steps);
        before
    }
}

impl SharedPage for SimPage {
    fn load(&self, index: usize) -> u64 {
        self.update(index, |_| None)
    }

    fn store(&self, index: usize, value: u64) {
        self.update(index, |_| Some(value));
    }

    fn compare_exchange(&self, index: usize, current: u64, new: u64) -> Result<u64, u64> {
        let found = self.update(index, |found| (found == current).then_some(new));
        if found == current {
            Ok(found)
        } else {
            Err(found)
        }
    }

    fn fetch_add(&self, index: usize, value: u64) -> u64 {
        self.update(index, |found| Some(found.wrapping_add(value)))
    }

    fn rings(&self, bell: usize) -> u32 {
        let SimFile { world, inode, .. } = &self.file;
        world.switch();
        world.lock().rings(*inode, bell)
    }

    fn ring(&self, bell: usize) {
        let SimFile { world, inode, .. } = &self.file;
        world.switch();
        let mut machine = world.lock();
        if machine.process(self.file.process).is_dead {
            return;
        }
        if !machine.plants.has(Plant::LostRings) {
            machine.ring(*inode, bell);
        }
        drop(machine);
        world.woken();
    }

    fn wait(&self, bell: usize, rings: u32, deadline: Duration) {
        let SimFile { world, inode, .. } = &self.file;
        world.wait_until(deadline, || world.lock().rings(*inode, bell) != rings);
    }
}
