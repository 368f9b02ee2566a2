//! Where the store of a model test lies: on a simulated disk, in memory, in real files.

use happystore::vfs::Vfs;
use happystore::vfs::sim::World;
use happystore::{Compaction, Options, Raw, Store};
use std::sync::Arc;
use tempfile::TempDir;

use super::operations::Setup;

/// The stores of the model tests: bytes for keys and values.
pub(crate) type ByteStore = Store<Raw, [u8]>;

/// A machine with one store.
pub(crate) enum Place {
    Simulated { world: World, process: Arc<dyn Vfs> },
    Memory,
    Files(TempDir),
}

impl Place {
    /// A simulated machine.
    pub(crate) fn simulated() -> Self {
        let world = World::new(1);
        let process = world.process();
        Self::Simulated { world, process }
    }

    /// The real machine, in a directory of its own.
    pub(crate) fn files() -> Self {
        Self::Files(tempfile::tempdir().unwrap())
    }

    /// Opens the store; in memory, a new one.
    pub(crate) fn open(&self, setup: Setup) -> ByteStore {
        let options = Options::new()
            .serializer(Raw)
            .byte_keys()
            .segment_bytes(setup.segment_bytes)
            // What is asked of its figures holds when nobody moves anything at that moment.
            .compaction(Compaction::manual())
            .durability(setup.durability);
        match self {
            Self::Simulated { process, .. } => {
                options.vfs(process.clone()).open("/data/store").unwrap()
            }
            Self::Memory => options.in_memory().unwrap(),
            Self::Files(directory) => options.open(directory.path().join("store")).unwrap(),
        }
    }

    /// Whether what was closed can be opened again.
    pub(crate) fn lasts(&self) -> bool {
        !matches!(self, Self::Memory)
    }

    /// Kills the process and starts another one; nothing on a real machine.
    pub(crate) fn kill(&mut self) {
        if let Self::Simulated { world, process } = self {
            world.kill(process);
            *process = world.process();
        }
    }
}
