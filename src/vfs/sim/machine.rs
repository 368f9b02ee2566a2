//! What a simulated machine is at one moment: its disk, processes, locks, clock and plans.
//!
//! Reached through [`World`](super::World) alone, which holds it behind one mutex; files and
//! processes make their changes here.
//!
//! Invariants:
//! 1. Every change of the disk goes through [`Machine::change`], so that the journal has it.
//! 2. Nothing here is dropped that could call back into the world; steps of dead workers are
//!    handed out to be dropped after the mutex.
//!
//! Threads: one at a time, under the world's mutex.

use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use super::super::{Locality, LockKind, Step};
use super::background::Registered;
use super::call::Call;
use super::disk::Image;
use super::fault::{Fault, Faults, Plant, Plants};
use super::journal::{Journal, Operation};
use super::random::Random;

/// The first id of open files and workers; clients number their threads below.
const FIRST_ID: u64 = 1 << 32;

/// The id of the first process.
const FIRST_PROCESS_ID: u32 = 100;

/// One simulated process.
#[derive(Debug, Default)]
pub(super) struct ProcessState {
    pub(super) is_dead: bool,
    pub(super) fork_count: u64,
}

/// A lock that is held.
#[derive(Debug)]
struct Held {
    inode: u64,
    handle: u64,
    kind: LockKind,
}

/// An open file.
#[derive(Debug)]
struct Handle {
    inode: u64,
    process: u32,
    /// How many failed syncs of its file it was opened after, or has told of.
    failures: u64,
}

/// All state of a simulated machine.
pub(super) struct Machine {
    pub(super) disk: Image,
    pub(super) journal: Journal,
    pub(super) random: Random,
    pub(super) clock: Duration,
    pub(super) thread: u64,
    pub(super) plants: Plants,
    pub(super) locality: Locality,
    pub(super) free_bytes: Option<u64>,
    pub(super) calls: u64,
    pub(super) faults: Faults,
    /// How many more calls and looks at the clock there may be.
    pub(super) patience: Option<u64>,
    pub(super) workers: BTreeMap<u64, Registered>,
    /// For a sync of a segment, by its number among those.
    sync_fault: Option<(u64, Fault)>,
    /// How many more changes of shared pages there are before one at which its process dies.
    stores_to_death: Option<u64>,
    processes: BTreeMap<u32, ProcessState>,
    handles: BTreeMap<u64, Handle>,
    locks: Vec<Held>,
    /// How many syncs of a file have failed.
    failures: BTreeMap<u64, u64>,
    /// How often each bell of a page was rung.
    bells: BTreeMap<(u64, usize), u32>,
    /// What the machine says to be the time since it was switched on.
    pub(super) boot: u64,
    next_id: u64,
}

impl Machine {
    pub(super) fn new(journal: Journal, disk: Image, seed: u64) -> Self {
        let boot = disk.boot;
        Self {
            disk,
            journal,
            random: Random::new(seed),
            clock: Duration::ZERO,
            thread: 1,
            plants: Plants::default(),
            locality: Locality::Local,
            free_bytes: None,
            calls: 0,
            faults: Faults::default(),
            patience: None,
            workers: BTreeMap::new(),
            sync_fault: None,
            stores_to_death: None,
            processes: BTreeMap::new(),
            handles: BTreeMap::new(),
            locks: Vec::new(),
            failures: BTreeMap::new(),
            bells: BTreeMap::new(),
            boot,
            next_id: FIRST_ID,
        }
    }

    /// A number this world never gave before.
    pub(super) fn new_id(&mut self) -> u64 {
        self.next_id += 1;
        self.next_id - 1
    }

    /// Does and records a change of the disk.
    pub(super) fn change(&mut self, operation: Operation) {
        self.disk.apply(&operation);
        self.journal.push(operation);
    }

    // Processes and planned failures.

    pub(super) fn add_process(&mut self) -> u32 {
        let last = self.processes.last_key_value().map(|(&process, _)| process);
        let process = last.map_or(FIRST_PROCESS_ID, |last| last + 1);
        self.processes.insert(process, ProcessState::default());
        process
    }

    pub(super) fn process(&mut self, process: u32) -> &mut ProcessState {
        self.processes.entry(process).or_default()
    }

    /// Ends a process; gives what its workers would have run, to be dropped after the mutex.
    pub(super) fn kill(&mut self, process: u32) -> Vec<Step> {
        self.process(process).is_dead = true;
        let handles = self
            .handles
            .iter()
            .filter(|(_, handle)| handle.process == process);
        let handles: Vec<u64> = handles.map(|(&handle, _)| handle).collect();
        for handle in handles {
            self.close(handle);
        }
        let of_process = |worker: &Registered| worker.process == process;
        let workers: Vec<u64> = self
            .workers
            .iter()
            .filter(|(_, each)| of_process(each))
            .map(|(&id, _)| id)
            .collect();
        let workers = workers.iter().filter_map(|id| self.workers.remove(id));
        workers.filter_map(|worker| worker.step).collect()
    }

    pub(super) fn arm_store(&mut self, stores: u64) {
        self.stores_to_death = Some(stores);
    }

    /// Counts a change of a shared page. True if `process` dies before it; what its workers would
    /// have run goes to `steps`, to be dropped after the mutex.
    pub(super) fn dies_at_store(&mut self, process: u32, steps: &mut Vec<Step>) -> bool {
        let Some(left) = &mut self.stores_to_death else {
            return false;
        };
        *left -= 1;
        if *left > 0 {
            return false;
        }
        self.stores_to_death = None;
        self.faults.count_fired(Call::SharedPage);
        *steps = self.kill(process);
        true
    }

    pub(super) fn arm_sync(&mut self, sync: u64, fault: Fault) {
        self.sync_fault = Some((sync, fault));
    }

    pub(super) fn heal(&mut self) {
        self.faults.heal();
        self.sync_fault = None;
        self.stores_to_death = None;
    }

    /// Counts a sync of the file `name` and gives the failure planned for it.
    pub(super) fn count_sync(&mut self, name: &str) -> Option<Fault> {
        let number = self.plants.count_sync(name)?;
        let (sync, fault) = self.sync_fault?;
        let fires = number == sync || fault.lasting && number > sync;
        if fires {
            self.faults.count_fired(Call::Sync);
        }
        fires.then_some(fault)
    }

    /// Counts a fallible call and gives the failure planned for it.
    pub(super) fn count_call(&mut self, call: Call) -> Option<Fault> {
        self.calls += 1;
        self.lose_patience();
        self.faults.count(call)
    }

    /// Panics where calls and looks at the clock do not come to an end.
    pub(super) fn lose_patience(&mut self) {
        if let Some(patience) = &mut self.patience {
            assert!(*patience > 0, "calls do not come to an end");
            *patience -= 1;
        }
    }

    // Space.

    /// Takes `bytes` of the free space.
    pub(super) fn take_space(&mut self, bytes: u64) -> io::Result<()> {
        if let Some(free) = &mut self.free_bytes {
            let full = || io::Error::from(io::ErrorKind::StorageFull);
            *free = free.checked_sub(bytes).ok_or_else(full)?;
        }
        Ok(())
    }

    fn give_space(&mut self, bytes: u64) {
        if let Some(free) = &mut self.free_bytes {
            *free = free.saturating_add(bytes);
        }
    }

    // Files.

    /// The length of a file.
    pub(super) fn len(&self, inode: u64) -> u64 {
        self.disk
            .files
            .get(&inode)
            .map_or(0, |content| content.len())
    }

    /// Makes an empty file.
    pub(super) fn create(&mut self, directory: u64, name: &str) -> io::Result<u64> {
        if self.free_bytes == Some(0) {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let inode = self.disk.next_inode;
        self.change(Operation::Create {
            directory,
            name: name.into(),
            inode,
        });
        Ok(inode)
    }

    /// Changes a file's length, within the free space.
    pub(super) fn resize(&mut self, inode: u64, len_bytes: u64) -> io::Result<()> {
        let before = self.len(inode);
        self.take_space(len_bytes.saturating_sub(before))?;
        self.give_space(before.saturating_sub(len_bytes));
        if before != len_bytes {
            self.change(Operation::Resize { inode, len_bytes });
        }
        Ok(())
    }

    /// Writes, growing the file where needed.
    pub(super) fn write(&mut self, inode: u64, offset: u64, bytes: &[u8]) -> io::Result<()> {
        if bytes.is_empty() {
            return Ok(());
        }
        let end = offset
            .checked_add(bytes.len() as u64)
            .ok_or(io::ErrorKind::FileTooLarge)?;
        if end > self.len(inode) {
            self.resize(inode, end)?;
        }
        self.change(Operation::Write {
            inode,
            offset,
            bytes: bytes.into(),
        });
        Ok(())
    }

    /// Frees a file's bytes if nothing leads to them any more.
    pub(super) fn release(&mut self, inode: u64) {
        let is_open = self.handles.values().any(|handle| handle.inode == inode);
        if !is_open && !self.disk.is_named(inode) {
            let freed = self
                .disk
                .files
                .remove(&inode)
                .map_or(0, |content| content.len());
            self.give_space(freed);
        }
    }

    // Open files and their locks.

    pub(super) fn open(&mut self, inode: u64, process: u32) -> u64 {
        let handle = self.new_id();
        let failures = self.failures.get(&inode).copied().unwrap_or(0);
        let opened = Handle {
            inode,
            process,
            failures,
        };
        self.handles.insert(handle, opened);
        handle
    }

    /// The failure of a sync that was asked for through another opening of the file: every opening
    /// is told of it, once.
    pub(super) fn untold_failure(&mut self, handle: u64) -> Option<io::Error> {
        let handle = self.handles.get_mut(&handle)?;
        let failures = self.failures.get(&handle.inode).copied().unwrap_or(0);
        let is_untold = std::mem::replace(&mut handle.failures, failures) < failures;
        is_untold.then(|| io::Error::other("a sync of this file has failed before"))
    }

    /// Notes that a sync through `handle` fails.
    pub(super) fn note_failed_sync(&mut self, handle: u64) {
        if let Some(handle) = self.handles.get_mut(&handle) {
            let failures = self.failures.entry(handle.inode).or_default();
            *failures += 1;
            handle.failures = *failures;
        }
    }

    // Bells.

    /// How often a bell was rung.
    pub(super) fn rings(&self, inode: u64, bell: usize) -> u32 {
        self.bells.get(&(inode, bell)).copied().unwrap_or(0)
    }

    /// Rings a bell.
    pub(super) fn ring(&mut self, inode: u64, bell: usize) {
        let rings = self.bells.entry((inode, bell)).or_default();
        *rings = rings.wrapping_add(1);
    }

    pub(super) fn close(&mut self, handle: u64) {
        self.unlock(handle);
        if let Some(Handle { inode, .. }) = self.handles.remove(&handle) {
            self.release(inode);
        }
    }

    /// Locks as `flock` does: one lock an open file; asking for the other kind gives the held
    /// lock back first, so that a refused change loses it.
    pub(super) fn try_lock(&mut self, handle: u64, inode: u64, kind: LockKind) -> bool {
        let mine = |held: &&Held| held.handle == handle && held.kind == kind;
        if self.locks.iter().any(|held| mine(&held)) {
            return true;
        }
        self.unlock(handle);
        let exclusive = |kind: LockKind| kind == LockKind::Exclusive;
        let conflicts =
            |held: &Held| held.inode == inode && (exclusive(kind) || exclusive(held.kind));
        if self.locks.iter().any(conflicts) && !self.plants.has(Plant::NoLocks) {
            return false;
        }
        self.locks.push(Held {
            inode,
            handle,
            kind,
        });
        true
    }

    pub(super) fn unlock(&mut self, handle: u64) {
        self.locks.retain(|held| held.handle != handle);
    }

    /// The bytes of a file, shared.
    pub(super) fn content(&self, inode: u64) -> io::Result<Arc<super::content::Content>> {
        self.disk
            .files
            .get(&inode)
            .cloned()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }
}
