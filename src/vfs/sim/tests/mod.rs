//! Proofs that the simulated world does to a disk what a real one may, and no less.

use std::path::Path;
use std::sync::Arc;

use super::super::{OpenMode, Vfs, VfsFile};
use super::*;

mod crash;
mod machine;
mod order;
mod turns;

/// A world with a process and a directory `/d`.
fn world() -> (World, Arc<dyn Vfs>) {
    let world = World::new(1);
    let process = world.process();
    process.create_dir_all(Path::new("/d")).unwrap();
    (world, process)
}

/// Opens a file, created if missing.
fn open(process: &Arc<dyn Vfs>, path: &str) -> Arc<dyn VfsFile> {
    process
        .open(Path::new(path), OpenMode::WriteOrCreate)
        .unwrap()
}

fn sync_dir(process: &Arc<dyn Vfs>) {
    process.directory(Path::new("/d")).unwrap().sync().unwrap();
}

/// A durable file of these bytes.
fn durable(process: &Arc<dyn Vfs>, path: &str, bytes: &[u8]) -> Arc<dyn VfsFile> {
    let file = open(process, path);
    file.write_at(0, bytes).unwrap();
    file.sync().unwrap();
    sync_dir(process);
    file
}

/// All images after the last operation.
fn images(world: &World, samples: usize) -> Vec<Image> {
    world.journal().last_point(samples, 7).images().collect()
}

/// What a file holds in all images after the last operation, sorted, each once.
fn contents(world: &World, samples: usize, path: &str) -> Vec<Option<Vec<u8>>> {
    let mut contents: Vec<_> = images(world, samples)
        .iter()
        .map(|image| image.read(path))
        .collect();
    contents.sort();
    contents.dedup();
    contents
}
