//! Hints: the keys of a finished segment in order, from a file or from the segment itself.
//!
//! `engine` fills the index from them, compaction merges them. A file of hints is a cache: one that
//! is missing, unfinished, of another segment or damaged is passed over, and the segment is walked
//! over instead ([`SortedKeys::of`]).
//!
//! What a crash leaves: an unfinished temporary file, which the next compaction removes; hints whose
//! bytes are not on the disk, which their checksums tell.

use std::borrow::Cow;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::file_name;
use super::location::{Location, Version};
use super::merge::Merge;
use super::scanner::Scanner;
use super::segment::Segment;
use crate::error::{Error, Result};
use crate::format::header::PREFIX_BYTES;
use crate::format::hint::{Block, FOOTER_BYTES, Footer, HINT_BYTES, Hint, HintsOf, split_hint};
use crate::format::record::ENTRY_HEADER_BYTES;
use crate::vfs::{OpenMode, Vfs, VfsFile};

/// The finished hints of a segment.
pub(crate) struct Hints {
    file: Arc<dyn VfsFile>,
    path: PathBuf,
    footer: Footer,
    file_bytes: u64,
    blocks: Vec<Block>,
}

impl Hints {
    /// The hints of what `of` says, if there are whole ones of just that; every byte of them is
    /// verified.
    pub(crate) fn open(vfs: &dyn Vfs, directory: &Path, of: &HintsOf) -> Option<Self> {
        let path = file_name::hints(directory, of.segment);
        vfs.node(&path).ok()??;
        match Self::open_file(vfs, path.clone(), of) {
            Ok(hints) => Some(hints),
            Err(cause) => {
                tracing::warn!(path = %path.display(), cause, "hints are passed over");
                None
            }
        }
    }

    fn open_file(vfs: &dyn Vfs, path: PathBuf, of: &HintsOf) -> Result<Self, String> {
        let said = |error: io::Error| error.to_string();
        let file = vfs.open(&path, OpenMode::Read).map_err(said)?;
        let len = file.len().map_err(said)?;
        let footer_at = len
            .checked_sub((PREFIX_BYTES + FOOTER_BYTES) as u64)
            .ok_or("they end within their first bytes")?
            + PREFIX_BYTES as u64;
        file.map(len);
        let (footer, blocks) = {
            let prefix = file.view(0, PREFIX_BYTES).map_err(said)?;
            let footer = file.view(footer_at, FOOTER_BYTES).map_err(said)?;
            let defect = |defect| format!("{defect:?}");
            let footer = Footer::decode(&prefix, &footer, len).map_err(defect)?;
            if footer.of != *of {
                return Err("they are of something else".to_owned());
            }
            let index_bytes = usize::try_from(footer_at - footer.index_at);
            let index_bytes = index_bytes.map_err(|_| "their index is too long")?;
            let index = file.view(footer.index_at, index_bytes).map_err(said)?;
            let blocks = footer.blocks(&index).map_err(defect)?;
            let mut check = Check::default();
            for block in &blocks {
                let bytes = file.view(block.at, block.bytes as usize).map_err(said)?;
                if !footer.verifies(block, &bytes) {
                    return Err(format!("the block at {} is damaged", block.at));
                }
                check.block(block, &bytes, &footer)?;
            }
            let counted = (check.keys, check.entry_bytes, check.tombstones);
            if counted != (footer.keys, footer.entry_bytes, footer.tombstones) {
                return Err("they are not as many as they say".to_owned());
            }
            (footer, blocks)
        };
        Ok(Self {
            file,
            path,
            footer,
            file_bytes: len,
            blocks,
        })
    }

    /// Their length, in bytes.
    pub(crate) fn file_bytes(&self) -> u64 {
        self.file_bytes
    }

    /// The length of the entries of all keys, in bytes.
    pub(crate) fn entry_bytes(&self) -> u64 {
        self.footer.entry_bytes
    }

    /// How many of the keys have a tombstone.
    pub(crate) fn tombstones(&self) -> u64 {
        self.footer.tombstones
    }

    /// How many keys there are.
    pub(crate) fn keys(&self) -> u64 {
        self.footer.keys
    }

    /// Keys that cut them into `parts` of about the same length, rising; fewer if they are short.
    pub(crate) fn cuts(&self, parts: usize) -> Vec<Box<[u8]>> {
        let at = |part: usize| self.blocks.get(self.blocks.len() * part / parts);
        let mut cuts: Vec<_> = (1..parts)
            .filter_map(at)
            .map(|block| block.first_key.clone())
            .collect();
        cuts.dedup();
        cuts
    }

    /// The newest version of `key` in the segment, if it has any.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(crate) fn find(&self, key: &[u8]) -> Result<Option<Version>> {
        let after = self
            .blocks
            .partition_point(|block| block.first_key.as_ref() <= key);
        let Some(block) = after.checked_sub(1).and_then(|at| self.blocks.get(at)) else {
            return Ok(None);
        };
        let bytes = self.block(block)?;
        let mut rest = bytes.as_ref();
        while !rest.is_empty() {
            let (hint, len) = split_hint(rest).map_err(|what| self.corrupt(block, what))?;
            if hint.key == key {
                return Ok(Some(self.version(&hint)));
            }
            rest = &rest[len..];
        }
        Ok(None)
    }

    fn version(&self, hint: &Hint<'_>) -> Version {
        let segment = self.footer.of.segment;
        Version {
            sequence: hint.sequence,
            location: Location::new(segment, hint.offset, hint.epoch, hint.value_bytes),
        }
    }

    fn block(&self, block: &Block) -> Result<Cow<'_, [u8]>> {
        self.file
            .view(block.at, block.bytes as usize)
            .map_err(|error| Error::io("read", &self.path, error))
    }

    fn corrupt(&self, block: &Block, what: &'static str) -> Error {
        Error::corrupt(&self.path, block.at, what)
    }
}

/// What whole bytes do not show: that hints are in order, and are what they say.
#[derive(Default)]
struct Check {
    last: Option<Vec<u8>>,
    keys: u64,
    entry_bytes: u64,
    tombstones: u64,
}

impl Check {
    fn block(&mut self, block: &Block, bytes: &[u8], footer: &Footer) -> Result<(), String> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let (hint, len) = split_hint(rest)?;
            let is_first = rest.len() == bytes.len();
            if is_first && hint.key != block.first_key.as_ref() {
                return Err("a block begins with another key than the index says".to_owned());
            }
            if self.last.as_deref().is_some_and(|last| last >= hint.key) {
                return Err("the keys are not in order".to_owned());
            }
            let value_bytes = u64::from(hint.value_bytes.unwrap_or(0));
            let entry_bytes = u64::from(ENTRY_HEADER_BYTES) + hint.key.len() as u64 + value_bytes;
            let end = u64::from(hint.offset) + entry_bytes;
            if end > u64::from(footer.of.len_bytes) || hint.sequence > footer.of.last_sequence {
                return Err("a hint leads beyond its segment".to_owned());
            }
            let last = self.last.get_or_insert_default();
            last.clear();
            last.extend_from_slice(hint.key);
            self.keys += 1;
            self.entry_bytes += entry_bytes;
            self.tombstones += u64::from(hint.value_bytes.is_none());
            rest = &rest[len..];
        }
        Ok(())
    }
}

/// The keys of a segment in order, each once, with their newest versions there: a place among them.
pub(crate) enum SortedKeys {
    /// From its hints.
    Hinted(HintedKeys),
    /// From a walk over a part of it.
    Run(Run),
    /// From a walk over several parts.
    Runs(Box<Merge>),
}

/// How many keys a run has, and how many bytes they have, at most about. Pieces of this size go back
/// to the machine when they are let go; of larger ones allocators keep what they had in all.
const RUN_KEYS: usize = 8 << 10;
const RUN_BYTES: usize = 512 << 10;

/// Some keys that a walk has found, sorted.
pub(crate) struct Run {
    bytes: Vec<u8>,
    entries: std::vec::IntoIter<WalkedKey>,
}

/// Keys with their versions, as a walk finds them.
#[derive(Default)]
pub(crate) struct KeysInAnyOrder {
    runs: Vec<Run>,
    bytes: Vec<u8>,
    entries: Vec<WalkedKey>,
}

struct WalkedKey {
    /// Eight bytes of the key, as a number of the same order.
    next_bytes: u64,
    begin: usize,
    end: usize,
    version: Version,
}

impl KeysInAnyOrder {
    /// Adds a key.
    pub(crate) fn push(&mut self, key: &[u8], version: Version) {
        let begin = self.bytes.len();
        self.bytes.extend_from_slice(key);
        self.entries.push(WalkedKey {
            next_bytes: 0,
            begin,
            end: self.bytes.len(),
            version,
        });
        if self.entries.len() >= RUN_KEYS || self.bytes.len() >= RUN_BYTES {
            self.end_run();
        }
    }

    fn end_run(&mut self) {
        let (bytes, entries) = (
            std::mem::take(&mut self.bytes),
            std::mem::take(&mut self.entries),
        );
        self.runs.push(Run::new(bytes, entries));
    }
}

impl Run {
    /// Of keys in any order, of which the newest version of each counts.
    fn new(bytes: Vec<u8>, mut entries: Vec<WalkedKey>) -> Self {
        let key = |entry: &WalkedKey| &bytes[entry.begin..entry.end];
        // Most keys differ in a few bytes behind what all of them begin with.
        let first = entries.first().map_or(&[][..], key);
        let common = entries.iter().fold(first.len(), |common, entry| {
            let same = first.iter().zip(key(entry)).take(common);
            same.take_while(|(one, other)| one == other).count()
        });
        for entry in &mut entries {
            let mut next = [0; 8];
            let rest = &bytes[entry.begin + common..entry.end];
            let len = rest.len().min(8);
            next[..len].copy_from_slice(&rest[..len]);
            entry.next_bytes = u64::from_be_bytes(next);
        }
        // The newest one of a key comes first, and the others go.
        entries.sort_unstable_by(|one, other| {
            let by_bytes = one.next_bytes.cmp(&other.next_bytes);
            by_bytes
                .then_with(|| key(one).cmp(key(other)))
                .then_with(|| other.version.sequence.cmp(&one.version.sequence))
        });
        entries.dedup_by(|next, one| key(next) == key(one));
        Self {
            bytes,
            entries: entries.into_iter(),
        }
    }

    fn current(&self) -> Option<(&[u8], Version)> {
        let next = self.entries.as_slice().first()?;
        Some((&self.bytes[next.begin..next.end], next.version))
    }
}

/// A place in hints.
pub(crate) struct HintedKeys {
    hints: Arc<Hints>,
    next_block: usize,
    /// The block that the place is in.
    bytes: Vec<u8>,
    at: usize,
    /// The hint there, but for its key: where that ends, and the version.
    found: Option<(usize, Version)>,
}

impl SortedKeys {
    /// The first of `hints` that is not below `low`.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(crate) fn hinted(hints: Arc<Hints>, low: &[u8]) -> Result<Self> {
        let is_before = |block: &Block| block.first_key.as_ref() <= low;
        let behind = hints.blocks.partition_point(is_before);
        let mut keys = HintedKeys {
            hints,
            next_block: behind.saturating_sub(1),
            bytes: Vec::new(),
            at: 0,
            found: None,
        };
        keys.find()?;
        let mut keys = Self::Hinted(keys);
        while keys.current().is_some_and(|(key, _)| key < low) {
            keys.advance()?;
        }
        Ok(keys)
    }

    /// The first of `keys`, of which the newest version of each counts.
    pub(crate) fn walked(mut keys: KeysInAnyOrder) -> Self {
        keys.end_run();
        let runs = keys.runs.into_iter().map(Self::Run);
        Self::Runs(Box::new(Merge::new(runs.collect())))
    }

    /// The key at this place; `None` behind the last.
    pub(crate) fn current(&self) -> Option<(&[u8], Version)> {
        match self {
            Self::Run(run) => run.current(),
            Self::Runs(runs) => runs.current(),
            Self::Hinted(keys) => {
                let (end, version) = keys.found?;
                Some((keys.bytes.get(keys.at + HINT_BYTES..end)?, version))
            }
        }
    }

    /// Goes on to the next key.
    ///
    /// # Errors
    /// `Corrupt`, `Io`.
    pub(crate) fn advance(&mut self) -> Result<()> {
        match self {
            Self::Run(run) => {
                run.entries.next();
                Ok(())
            }
            Self::Runs(runs) => runs.advance(),
            Self::Hinted(keys) => {
                if let Some((end, _)) = keys.found.take() {
                    keys.at = end;
                }
                keys.find()
            }
        }
    }
}

impl HintedKeys {
    /// Finds the hint at this place, in the next block if need be.
    fn find(&mut self) -> Result<()> {
        while self.at == self.bytes.len() {
            let Some(block) = self.hints.blocks.get(self.next_block) else {
                return Ok(());
            };
            let bytes = self.hints.block(block)?;
            self.bytes.clear();
            self.bytes.extend_from_slice(&bytes);
            self.next_block += 1;
            self.at = 0;
        }
        let block = &self.hints.blocks[self.next_block - 1];
        let hint = split_hint(&self.bytes[self.at..]);
        let (hint, len) = hint.map_err(|what| self.hints.corrupt(block, what))?;
        self.found = Some((self.at + len, self.hints.version(&hint)));
        Ok(())
    }
}

/// Walks over the first `of.len_bytes` of `segment`: all its keys with their versions, in any order.
///
/// # Errors
/// `Corrupt` if there are not whole records up to there, the last of that sequence number; `Io`.
pub(crate) fn walk(segment: &Segment, of: &HintsOf, epoch_max: u32) -> Result<KeysInAnyOrder> {
    let mut scanner = Scanner::new(segment, of.len_bytes, epoch_max);
    let mut keys = KeysInAnyOrder::default();
    while let Some(record) = scanner.next()? {
        for entry in record.entries() {
            let damaged = |what| Error::corrupt(&segment.path, u64::from(record.offset), what);
            let entry = entry.map_err(damaged)?;
            keys.push(entry.key, record.version(segment, &entry));
        }
    }
    check_end(&scanner, segment, of)?;
    Ok(keys)
}

/// A finished segment is never guessed at.
///
/// # Errors
/// `Corrupt`.
pub(crate) fn check_end(scanner: &Scanner<'_>, segment: &Segment, of: &HintsOf) -> Result<()> {
    let offset = u64::from(scanner.offset());
    if let Some(what) = scanner.stopped() {
        return Err(Error::corrupt(&segment.path, offset, what));
    }
    if scanner.offset() != of.len_bytes || scanner.sequence() != of.last_sequence {
        let what = "the segment does not end with the record that its manifest says";
        return Err(Error::corrupt(&segment.path, offset, what));
    }
    Ok(())
}
