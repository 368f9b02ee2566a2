//! The order that the store's promises rest on, checked over a journal.
//!
//! A crash state shows a broken order only if the power fails at the right moment; these checks
//! see it on every run. They know names, not formats.
//!
//! Invariants:
//! 1. Bytes and names of the journal's base image count as durable.
//!
//! Threads: pure functions over a journal.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::content::Content;
use super::journal::{Journal, Operation};

/// Which names mean what. Tests may replace any of them.
pub struct OrderRules {
    /// The number of a segment of the log, from its file name; `None` exempts a file.
    pub segment_number: SegmentNumber,
    /// The name of the manifest.
    pub manifest: String,
    /// The name under which a new manifest is written.
    pub manifest_temporary: String,
    /// Whether a segment that begins with these bytes is a part of the log, in which the rules of
    /// its order count; else compaction makes it, before anybody knows of it.
    pub is_of_log: IsOfLog,
    /// A segment that was never written beyond this many bytes needs no manifest to go.
    pub segment_header_bytes: u64,
    /// Whether the manifest with these bytes lists the segment with this name. Without it,
    /// [`Rule::ManifestDurableBeforeUnlink`] can only compare the order of things.
    pub lists: Option<Lists>,
}

/// Reads a segment's number off its file name.
pub type SegmentNumber = Box<dyn Fn(&str) -> Option<u64>>;

/// Tells a segment of the log by its first bytes.
pub type IsOfLog = Box<dyn Fn(&[u8]) -> bool>;

/// Looks up a segment's name in a manifest's bytes.
pub type Lists = Box<dyn Fn(&[u8], &str) -> bool>;

impl Default for OrderRules {
    /// The names of a store.
    fn default() -> Self {
        Self {
            segment_number: Box::new(|name| name.strip_suffix(".seg")?.parse().ok()),
            // Byte 48 of the header says how its records came there, if all of it is there.
            is_of_log: Box::new(|head| {
                let is_whole = head.get(60..64).is_some_and(|crc| crc != [0; 4]);
                is_whole && head.get(48) == Some(&0)
            }),
            manifest: "MANIFEST".to_owned(),
            manifest_temporary: "MANIFEST.tmp".to_owned(),
            segment_header_bytes: 64,
            lists: None,
        }
    }
}

/// Which rule was broken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rule {
    /// A new manifest is renamed only when all its bytes are synced.
    ManifestSyncedBeforeRename,
    /// A segment is unlinked only when no manifest that may be there after a power cut lists it.
    ///
    /// Without [`OrderRules::lists`]: a segment made in this journal, and in use, is unlinked
    /// only after a manifest was renamed and its name synced since the segment's own name was,
    /// and while no manifest's rename is pending.
    ManifestDurableBeforeUnlink,
    /// A commit is acknowledged as durable only when every segment is synced up to what was
    /// written before the next commit began.
    SyncedBeforeAcknowledgement,
    /// A segment is written only when the one before it is synced.
    SyncedBeforeRollOver,
    /// Synced bytes of a segment are never replaced, but by zeros or by themselves, and records
    /// are never cut off.
    NothingOverwritten,
}

/// A place in a journal where a rule was broken.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// Which rule.
    pub rule: Rule,
    /// The index of the operation that broke it.
    pub position: usize,
    /// The name of the file.
    pub file: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "operation {}: {:?}: {}",
            self.position, self.rule, self.file
        )
    }
}

/// A file, as far as the rules look at it.
struct Tracked {
    name: Arc<str>,
    segment: Option<u64>,
    cached: Arc<Content>,
    synced: Arc<Content>,
    /// The position of the first write that is not synced.
    unsynced_since: Option<usize>,
    /// Whether any change at all is not synced.
    is_dirty: bool,
    /// The highest byte ever written.
    written_bytes: u64,
    /// The position at which its name got durable; none for files of the base image, which may
    /// be left-overs that no manifest ever listed.
    durable_since: Option<usize>,
    is_of_base: bool,
}

struct Checker<'rules> {
    rules: &'rules OrderRules,
    files: BTreeMap<u64, Tracked>,
    names: BTreeMap<(u64, Arc<str>), u64>,
    begins: Vec<(u64, usize)>,
    /// A manifest rename that is not durable: directory, inode, position.
    manifest_pending: Option<(u64, u64, usize)>,
    /// The manifest whose name is durable.
    manifest_durable: Option<Arc<Content>>,
    /// The position of the newest manifest rename that is durable.
    manifest_renamed: Option<usize>,
    violations: Vec<Violation>,
    position: usize,
}

/// Checks the whole of `journal`.
pub(super) fn check(journal: &Journal, rules: &OrderRules) -> Vec<Violation> {
    let mut checker = Checker {
        rules,
        files: BTreeMap::new(),
        names: BTreeMap::new(),
        begins: Vec::new(),
        manifest_pending: None,
        manifest_durable: None,
        manifest_renamed: None,
        violations: Vec::new(),
        position: 0,
    };
    for (&directory, each) in &journal.base().directories {
        for (name, &inode) in &each.entries {
            let content = journal
                .base()
                .files
                .get(&inode)
                .cloned()
                .unwrap_or_default();
            if **name == *rules.manifest {
                checker.manifest_durable = Some(content.clone());
            }
            checker.add_file(directory, name, inode, content, true);
        }
    }
    for (position, operation) in journal.operations().iter().enumerate() {
        checker.position = position;
        checker.step(operation);
    }
    checker.violations
}

impl Checker<'_> {
    fn add_file(
        &mut self,
        directory: u64,
        name: &Arc<str>,
        inode: u64,
        content: Arc<Content>,
        is_of_base: bool,
    ) {
        self.names.insert((directory, name.clone()), inode);
        let tracked = Tracked {
            name: name.clone(),
            segment: (self.rules.segment_number)(name),
            written_bytes: content.len(),
            cached: content.clone(),
            synced: content,
            unsynced_since: None,
            is_dirty: false,
            durable_since: None,
            is_of_base,
        };
        self.files.insert(inode, tracked);
    }

    /// The number of `file`, if it is a segment of the log.
    fn number_in_log(&self, file: &Tracked) -> Option<u64> {
        let header_bytes = usize::try_from(self.rules.segment_header_bytes).unwrap_or(0);
        let mut head = vec![0; header_bytes];
        file.cached.read(0, &mut head);
        file.segment.filter(|_| (self.rules.is_of_log)(&head))
    }

    fn report(&mut self, rule: Rule, file: &str) {
        self.violations.push(Violation {
            rule,
            position: self.position,
            file: file.to_owned(),
        });
    }

    fn step(&mut self, operation: &Operation) {
        match operation {
            Operation::Create {
                directory,
                name,
                inode,
            } => {
                self.add_file(*directory, name, *inode, Arc::default(), false);
            }
            Operation::Resize { inode, len_bytes } => self.resize(*inode, *len_bytes),
            Operation::Write {
                inode,
                offset,
                bytes,
            } => self.write(*inode, *offset, bytes),
            Operation::Sync { inode } => {
                if let Some(file) = self.files.get_mut(inode) {
                    file.is_dirty = false;
                    file.unsynced_since = None;
                    file.synced = file.cached.clone();
                }
            }
            Operation::Rename {
                directory,
                from,
                to,
            } => self.rename(*directory, from, to),
            Operation::Unlink { directory, name } => self.unlink(*directory, name),
            Operation::SyncDirectory { directory } => self.sync_directory(*directory),
            Operation::Begin(mark) => self.begins.push((*mark, self.position)),
            Operation::Acknowledge {
                mark,
                durable: true,
            } => self.acknowledge(*mark),
            Operation::Acknowledge { durable: false, .. }
            | Operation::MakeDirectory { .. }
            | Operation::Link { .. }
            | Operation::PageStore { .. }
            | Operation::SyncFailed { .. } => {}
        }
    }

    /// A segment that was made and then not used is emptied when its number comes again; nothing
    /// else of a segment is ever cut off.
    fn resize(&mut self, inode: u64, len_bytes: u64) {
        let Some(file) = self.files.get_mut(&inode) else {
            return;
        };
        file.is_dirty = true;
        Arc::make_mut(&mut file.cached).set_len(len_bytes);
        if len_bytes >= file.written_bytes {
            return;
        }
        let has_records = file.written_bytes > self.rules.segment_header_bytes;
        if file.segment.is_some() && has_records {
            let name = file.name.clone();
            self.report(Rule::NothingOverwritten, &name);
        } else {
            file.written_bytes = len_bytes;
            Arc::make_mut(&mut file.synced).set_len(len_bytes);
        }
    }

    fn write(&mut self, inode: u64, offset: u64, bytes: &[u8]) {
        let Some(file) = self.files.get_mut(&inode) else {
            return;
        };
        let name = file.name.clone();
        let segment = file.segment;
        let zeroes = bytes.iter().all(|&byte| byte == 0);
        let mut before = vec![0; bytes.len()];
        file.synced.read(offset, &mut before);
        // What is zero behind the last synced byte was not written yet.
        let synced_bytes = before.iter().rposition(|&byte| byte != 0);
        let synced_bytes = synced_bytes.map_or(0, |last| last + 1);
        let replaces = before[..synced_bytes] != bytes[..synced_bytes];
        let overwrites = segment.is_some() && !zeroes && replaces;
        // Whatever the disk does to what is written over itself, it is the same afterwards.
        if before != bytes || file.synced.len() < offset + bytes.len() as u64 {
            file.is_dirty = true;
            file.unsynced_since.get_or_insert(self.position);
        }
        file.written_bytes = file.written_bytes.max(offset + bytes.len() as u64);
        Arc::make_mut(&mut file.cached).write(offset, bytes);
        if overwrites {
            self.report(Rule::NothingOverwritten, &name);
        }
        let number = self
            .files
            .get(&inode)
            .and_then(|file| self.number_in_log(file));
        let in_log = self
            .files
            .values()
            .map(|file| (self.number_in_log(file), file));
        let before = in_log.filter(|(other, _)| other.is_some() && *other < number);
        let before = before.max_by_key(|(other, _)| *other);
        if before.is_some_and(|(_, file)| file.unsynced_since.is_some()) {
            self.report(Rule::SyncedBeforeRollOver, &name);
        }
    }

    fn rename(&mut self, directory: u64, from: &Arc<str>, to: &Arc<str>) {
        let Some(inode) = self.names.remove(&(directory, from.clone())) else {
            return;
        };
        if let Some(old) = self.names.insert((directory, to.clone()), inode) {
            self.files.remove(&old);
        }
        let Some(file) = self.files.get_mut(&inode) else {
            return;
        };
        file.name = to.clone();
        file.segment = (self.rules.segment_number)(to);
        file.durable_since = None;
        let is_dirty = file.is_dirty;
        if **to == *self.rules.manifest {
            self.manifest_pending = Some((directory, inode, self.position));
            if **from == *self.rules.manifest_temporary && is_dirty {
                self.report(Rule::ManifestSyncedBeforeRename, from);
            }
        }
    }

    fn unlink(&mut self, directory: u64, name: &Arc<str>) {
        let Some(inode) = self.names.remove(&(directory, name.clone())) else {
            return;
        };
        let Some(file) = self.files.remove(&inode) else {
            return;
        };
        if file.segment.is_none() {
            return;
        }
        let is_early = match &self.rules.lists {
            Some(lists) => self.may_list(lists, name),
            None => self.comes_early(&file),
        };
        if is_early {
            self.report(Rule::ManifestDurableBeforeUnlink, name);
        }
    }

    /// Whether a manifest that may be there after a power cut lists the segment `name`.
    fn may_list(&self, lists: &Lists, name: &str) -> bool {
        let pending = self
            .manifest_pending
            .and_then(|(_, inode, _)| self.files.get(&inode));
        let pending = pending.map(|file| &file.cached);
        let mut manifests = self.manifest_durable.iter().chain(pending);
        manifests.any(|manifest| lists(&manifest.to_vec(), name))
    }

    /// Whether the order of things says that a manifest may still list `file`.
    fn comes_early(&self, file: &Tracked) -> bool {
        let Some(durable_since) = file.durable_since else {
            return false;
        };
        let in_use = !file.is_of_base && file.written_bytes > self.rules.segment_header_bytes;
        let dropped = self
            .manifest_renamed
            .is_some_and(|position| position >= durable_since);
        in_use && (self.manifest_pending.is_some() || !dropped)
    }

    fn sync_directory(&mut self, directory: u64) {
        if let Some((pending, inode, position)) = self.manifest_pending
            && pending == directory
        {
            self.manifest_pending = None;
            self.manifest_durable = self.files.get(&inode).map(|file| file.synced.clone());
            self.manifest_renamed = Some(position);
        }
        for ((within, _), inode) in &self.names {
            if *within == directory
                && let Some(file) = self.files.get_mut(inode)
            {
                file.durable_since.get_or_insert(self.position);
            }
        }
    }

    /// Writes after a later commit began are that commit's, and need not be synced yet.
    fn acknowledge(&mut self, mark: u64) {
        let later = self.begins.iter().find(|(begun, _)| *begun > mark);
        let end = later.map_or(self.position, |(_, position)| *position);
        let unsynced = |file: &&Tracked| {
            file.unsynced_since.is_some_and(|since| since < end)
                && self.number_in_log(file).is_some()
        };
        let names: Vec<_> = self
            .files
            .values()
            .filter(unsynced)
            .map(|file| file.name.clone())
            .collect();
        for name in names {
            self.report(Rule::SyncedBeforeAcknowledgement, &name);
        }
    }
}
