//! What a disk holds for certain, and what it was asked to keep but never promised.
//!
//! [`crash`](super::crash) steps a [`CrashState`] through a journal and asks it for images; a
//! selection says of each pending unit whether it survived.
//!
//! Invariants:
//! 1. Each write, each change of a length and each end of a change of names is a unit of its own
//!    and may survive without the others; those that do take effect in their order.
//! 2. A file's sync makes its units durable and no name; a directory's sync makes its names
//!    durable and no bytes.
//! 3. The target of a rename leads to the old or the new inode, whatever survives.
//! 4. A selection has a place for every data unit, by inode and in order, then for every name
//!    unit, by directory and in order.
//!
//! Threads: plain values.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::super::SHARED_PAGE_BYTES;
use super::content::{Content, hash_bytes};
use super::disk::{Entries, Image};
use super::journal::Operation;
use super::random::{Random, mix};

/// The unit in which real disks tear a write.
pub(super) const SECTOR_BYTES: u64 = 512;

/// How many former values of a shared word may come back.
const WORD_HISTORY_COUNT: usize = 4;

/// A pending change of a file.
#[derive(Debug, Clone)]
pub(super) enum Unit {
    Size(u64),
    Write { offset: u64, bytes: Arc<[u8]> },
}

/// A pending change of a directory. Removals name the inode, so that one whose name leads
/// elsewhere by now does nothing.
#[derive(Debug, Clone)]
enum NameUnit {
    Set { name: Arc<str>, inode: u64 },
    Remove { name: Arc<str>, inode: u64 },
}

/// What a power cut left of one unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Keep {
    Lost,
    Whole,
    /// The first so many bytes of a write.
    Prefix(usize),
    /// Sectors of a write by chance, decided by this seed.
    Sectors(u64),
}

/// All of a unit, or nothing.
pub(super) fn whole_if(kept: bool) -> Keep {
    if kept { Keep::Whole } else { Keep::Lost }
}

/// Former values of the words of one shared page.
type PageHistory = BTreeMap<usize, Vec<u64>>;

/// A disk in the middle of a journal.
#[derive(Debug, Clone)]
pub(super) struct CrashState {
    /// What processes see: it survives their death.
    pub(super) cached: Image,
    durable: Image,
    data: BTreeMap<u64, Vec<Unit>>,
    names: BTreeMap<u64, Vec<NameUnit>>,
    pages: BTreeMap<u64, PageHistory>,
}

impl CrashState {
    /// A disk on which everything is durable.
    pub(super) fn new(base: &Image) -> Self {
        Self {
            cached: base.clone(),
            durable: base.clone(),
            data: BTreeMap::new(),
            names: BTreeMap::new(),
            pages: BTreeMap::new(),
        }
    }

    /// The pending data units of each file.
    pub(super) fn data_units(&self) -> impl Iterator<Item = &[Unit]> {
        self.data.values().map(Vec::as_slice)
    }

    /// How many pending name units each directory has.
    pub(super) fn name_counts(&self) -> impl Iterator<Item = usize> {
        self.names.values().map(Vec::len)
    }

    /// Goes one operation further.
    pub(super) fn step(&mut self, operation: &Operation) {
        match operation {
            Operation::MakeDirectory { .. } => self.durable.apply(operation),
            Operation::Create {
                directory,
                name,
                inode,
            } => {
                self.durable.files.insert(*inode, Arc::default());
                self.set_name(*directory, name, *inode);
            }
            Operation::Link {
                directory,
                name,
                inode,
            } => self.set_name(*directory, name, *inode),
            Operation::Resize { inode, len_bytes } => {
                self.add(*inode, Unit::Size(*len_bytes));
            }
            Operation::Write {
                inode,
                offset,
                bytes,
            } => {
                let (offset, bytes) = (*offset, bytes.clone());
                self.add(*inode, Unit::Write { offset, bytes });
            }
            Operation::PageStore {
                inode,
                index,
                value,
            } => {
                self.remember_word(*inode, *index, *value);
            }
            Operation::Sync { inode } => self.sync(*inode, |_| Keep::Whole),
            Operation::SyncFailed {
                inode,
                seed,
                forgets_growth,
            } => self.fail_sync(*inode, *seed, *forgets_growth),
            Operation::Rename {
                directory,
                from,
                to,
            } => {
                if let Some(inode) = self.cached_name(*directory, from) {
                    self.set_name(*directory, to, inode);
                    self.remove_name(*directory, from, inode);
                }
            }
            Operation::Unlink { directory, name } => {
                if let Some(inode) = self.cached_name(*directory, name) {
                    self.remove_name(*directory, name, inode);
                }
            }
            Operation::SyncDirectory { directory } => self.sync_directory(*directory),
            Operation::Begin(_) | Operation::Acknowledge { .. } => {}
        }
        self.cached.apply(operation);
    }

    fn cached_name(&self, directory: u64, name: &str) -> Option<u64> {
        self.cached
            .directories
            .get(&directory)?
            .entries
            .get(name)
            .copied()
    }

    fn set_name(&mut self, directory: u64, name: &Arc<str>, inode: u64) {
        let name = name.clone();
        let units = self.names.entry(directory).or_default();
        units.push(NameUnit::Set { name, inode });
    }

    fn remove_name(&mut self, directory: u64, name: &Arc<str>, inode: u64) {
        let name = name.clone();
        let units = self.names.entry(directory).or_default();
        units.push(NameUnit::Remove { name, inode });
    }

    fn add(&mut self, inode: u64, unit: Unit) {
        if self.durable.files.contains_key(&inode) {
            self.data.entry(inode).or_default().push(unit);
        }
    }

    fn remember_word(&mut self, inode: u64, index: usize, value: u64) {
        let before = self.cached.files.get(&inode);
        let before = before.map_or(0, |content| content.word(index as u64 * 8));
        let values = self
            .pages
            .entry(inode)
            .or_default()
            .entry(index)
            .or_insert(vec![before]);
        if values.len() == WORD_HISTORY_COUNT {
            values.remove(0);
        }
        values.push(value);
    }

    fn sync(&mut self, inode: u64, keep: impl FnMut(usize) -> Keep) {
        if let Some(units) = self.data.remove(&inode)
            && let Some(content) = self.durable.content_mut(inode)
        {
            keep_units(content, &units, keep);
        }
    }

    /// Loses some of what is pending for ever. A length is not lost but stays pending, unless
    /// `forgets_growth`: it is the file system's own, which it does not take for durable because
    /// bytes could not be written.
    fn fail_sync(&mut self, inode: u64, seed: u64, forgets_growth: bool) {
        let mut random = Random::new(seed);
        let units = self.data.get(&inode).cloned().unwrap_or_default();
        let kept: Vec<Keep> = units.iter().map(|_| whole_if(random.coin())).collect();
        self.sync(inode, |number| kept[number]);
        let is_size = |unit: &Unit| matches!(unit, Unit::Size(_));
        if let Some(last) = units.iter().rposition(is_size)
            && kept[last] == Keep::Lost
            && !forgets_growth
        {
            self.add(inode, units[last].clone());
        }
    }

    fn sync_directory(&mut self, directory: u64) {
        let Some(units) = self.names.remove(&directory) else {
            return;
        };
        if let Some(entries) = self.durable.entries_mut(directory) {
            for unit in &units {
                keep_name(entries, unit);
            }
        }
        let mut wanted = self.durable.named();
        for unit in self.names.values().flatten() {
            if let NameUnit::Set { inode, .. } = unit {
                wanted.insert(*inode);
            }
        }
        self.durable.files.retain(|inode, _| wanted.contains(inode));
        self.data.retain(|inode, _| wanted.contains(inode));
        self.pages.retain(|inode, _| wanted.contains(inode));
        self.cached.drop_unnamed();
    }

    /// The image that `selection` leaves, and a hash by which images of this state that differ
    /// in more than shared pages can be told apart.
    pub(super) fn image(&self, selection: &[Keep], random: &mut Random) -> (Image, u64) {
        let mut image = Image {
            directories: self.durable.directories.clone(),
            files: BTreeMap::new(),
            next_inode: self.cached.next_inode,
            boot: self.cached.boot,
        };
        let data_count = self.data.values().map(Vec::len).sum();
        let (of_data, mut of_names) = selection.split_at(data_count);
        let mut hash = 0;
        for (directory, units) in &self.names {
            let (keep, rest) = of_names.split_at(units.len());
            of_names = rest;
            if let Some(entries) = image.entries_mut(*directory) {
                let kept = units
                    .iter()
                    .zip(keep)
                    .filter(|(_, keep)| **keep != Keep::Lost);
                kept.for_each(|(unit, _)| keep_name(entries, unit));
                hash = hash_names(hash, entries);
            }
        }
        self.keep_files(&mut image);
        let mut from = 0;
        for (inode, units) in &self.data {
            let keep = &of_data[from..from + units.len()];
            from += units.len();
            if keep.iter().any(|keep| *keep != Keep::Lost)
                && let Some(content) = image.content_mut(*inode)
            {
                keep_units(content, units, |number| keep[number]);
                let difference = content.hash_against(&self.durable.files[inode]);
                if difference != 0 {
                    hash = mix(hash ^ mix(inode ^ difference));
                }
            }
        }
        for (inode, words) in &self.pages {
            if let Some(content) = image.content_mut(*inode) {
                keep_page(content, words, random);
            }
        }
        (image, hash)
    }

    /// Gives `image` the durable bytes of every file it names.
    fn keep_files(&self, image: &mut Image) {
        for inode in image.named() {
            if let Some(content) = self.durable.files.get(&inode) {
                image.files.insert(inode, content.clone());
            }
        }
    }
}

fn keep_name(entries: &mut Entries, unit: &NameUnit) {
    match unit {
        NameUnit::Set { name, inode } => {
            entries.insert(name.clone(), *inode);
        }
        NameUnit::Remove { name, inode } => {
            if entries.get(name) == Some(inode) {
                entries.remove(name);
            }
        }
    }
}

fn hash_names(hash: u64, entries: &Entries) -> u64 {
    let fold =
        |hash, (name, inode): (&Arc<str>, &u64)| mix(hash_bytes(hash, name.as_bytes()) ^ inode);
    entries.iter().fold(mix(hash), fold)
}

/// Applies what is kept of `units`; bytes beyond the length that results vanish.
fn keep_units(content: &mut Content, units: &[Unit], mut keep: impl FnMut(usize) -> Keep) {
    let mut len_bytes = content.len();
    for (number, unit) in units.iter().enumerate() {
        match (unit, keep(number)) {
            (_, Keep::Lost) => {}
            (Unit::Size(new), _) => {
                if *new < len_bytes {
                    content.set_len(*new);
                }
                len_bytes = *new;
            }
            (Unit::Write { offset, bytes }, Keep::Whole) => content.write(*offset, bytes),
            (Unit::Write { offset, bytes }, Keep::Prefix(len)) => {
                content.write(*offset, &bytes[..len.min(bytes.len())]);
            }
            (Unit::Write { offset, bytes }, Keep::Sectors(seed)) => {
                keep_sectors(content, *offset, bytes, seed);
            }
        }
    }
    content.set_len(len_bytes);
}

fn keep_sectors(content: &mut Content, offset: u64, bytes: &[u8], seed: u64) {
    let mut random = Random::new(seed);
    let mut rest = bytes;
    let mut at = offset;
    while !rest.is_empty() {
        let to_border = usize::try_from(SECTOR_BYTES - at % SECTOR_BYTES).unwrap_or(rest.len());
        let (sector, after) = rest.split_at(to_border.min(rest.len()));
        if random.coin() {
            content.write(at, sector);
        }
        at += sector.len() as u64;
        rest = after;
    }
}

/// Gives a shared page zeros, its newest words, or any mixture of former ones.
fn keep_page(content: &mut Content, words: &PageHistory, random: &mut Random) {
    let len_bytes = SHARED_PAGE_BYTES;
    if content.len() < len_bytes {
        return;
    }
    match random.below(4) {
        0 => {
            content.set_len(0);
            content.set_len(len_bytes);
        }
        1 => {
            for (&index, values) in words {
                let newest = values.last().copied().unwrap_or(0);
                content.write(index as u64 * 8, &newest.to_le_bytes());
            }
        }
        _ => {
            for (&index, values) in words {
                let value = values
                    .get(random.index(values.len() + 1))
                    .copied()
                    .unwrap_or(0);
                content.write(index as u64 * 8, &value.to_le_bytes());
            }
        }
    }
}
