//! The second judge, which trusts no claim: cycles among transactions that append to lists.
//!
//! Values of the keys below [`LISTS`] are lists of unique elements, which only grow; who has seen
//! a list has seen the order of all that was appended to it. From that, and from real time, the
//! crate `adya` infers which transactions must stand before which, and looks for cycles. The clock
//! and all other keys are left out. What is in the store in the end is one more transaction, which
//! has read all lists.

use std::collections::{BTreeSet, HashMap, HashSet};

use adya::history::{Interner, Mop, Op, OpType, ReadValue, Scalar};
use adya::{Opts, Report, Valid, Workload};

use crate::history::{NEVER, Operation, Outcome, Transaction};

/// What the keys of lists begin with.
pub const LISTS: &str = "list/";

/// Between the elements of a list.
pub const SEPARATOR: char = ',';

/// What was judged, and how.
#[derive(Debug)]
pub struct Judged {
    /// Transactions that have read a list or appended to one.
    pub transactions: u64,
    /// Reads of lists.
    pub reads: u64,
    /// Elements appended, rolled back or not.
    pub appends: u64,
    /// The verdict, and why.
    pub report: Report,
}

impl Judged {
    /// Whether strict serializability was confirmed.
    pub fn is_right(&self) -> bool {
        self.report.valid == Valid::True
    }
}

/// Judges what `history` says of lists, and what `content` they have in the end.
pub fn judge<'h>(history: &'h [Transaction<'_>], content: &'h [(String, String)]) -> Judged {
    let mut lists = Lists::default();
    for transaction in history {
        lists.add(transaction);
    }
    lists.add_end(content);
    lists.forget_absent();
    lists.judge()
}

/// When something of a transaction happened; at one time begins come before ends, because what
/// ended just when another began may have overlapped it.
type Event = (u64, bool, usize);

/// What is told of one transaction, as a whole.
struct Told {
    index: u64,
    kind: OpType,
    value: Vec<Mop>,
}

#[derive(Default)]
struct Lists<'h> {
    interner: Interner,
    /// What was interned, found without a copy.
    interned: HashMap<&'h str, u32>,
    /// All keys that were appended to, rolled back or not.
    keys: BTreeSet<&'h str>,
    told: Vec<Told>,
    events: Vec<Event>,
    transactions: u64,
    reads: u64,
    appends: u64,
}

/// The lists that a transaction has read and appended to.
#[derive(Default)]
struct Micro {
    /// What was not undone.
    kept: Vec<Mop>,
    /// What a nested transaction, or this one, has undone.
    undone: Vec<Mop>,
    /// Where in `kept` the open nested transactions have begun.
    marks: Vec<usize>,
}

impl<'h> Lists<'h> {
    fn add(&mut self, transaction: &'h Transaction<'_>) {
        let mut micro = Micro::default();
        for operation in &transaction.operations {
            match operation {
                Operation::Get { key, value } if key.starts_with(LISTS) => {
                    let read = self.read(key, value.as_deref());
                    micro.kept.push(read);
                }
                Operation::Pairs { pairs, .. } => {
                    let lists = pairs.iter().filter(|(key, _)| key.starts_with(LISTS));
                    micro
                        .kept
                        .extend(lists.map(|(key, value)| self.read(key, Some(value))));
                }
                Operation::Set { key, value } if key.starts_with(LISTS) => {
                    let append = self.append(key, value);
                    micro.kept.push(append);
                }
                Operation::Begin => micro.marks.push(micro.kept.len()),
                Operation::Commit => drop(micro.marks.pop()),
                Operation::Abort => {
                    let mark = micro.marks.pop().unwrap_or_default();
                    micro.undo(mark);
                }
                _ => {}
            }
        }
        let mut kind = OpType::Ok;
        match transaction.outcome {
            Outcome::Committed => {}
            // What it has read before it wrote is right all the same.
            Outcome::Aborted => micro.undo(0),
            // If it is not there, nobody else has seen its appends: nor does it tell of them.
            Outcome::Unknown => {
                kind = OpType::Info;
                micro.forget_own();
            }
        }
        self.transactions += u64::from(!micro.kept.is_empty() || !micro.undone.is_empty());
        let Transaction { begin, end, .. } = *transaction;
        self.tell(begin, end, kind, micro.kept);
        self.tell(begin, end, OpType::Fail, micro.undone);
    }

    /// Adds a transaction that has read all lists when everything had ended.
    fn add_end(&mut self, content: &'h [(String, String)]) {
        let content: HashMap<&str, &'h str> = content
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()))
            .collect();
        let keys = std::mem::take(&mut self.keys);
        let read = |key: &'h str| self.read(key, content.get(key).copied());
        let value: Vec<Mop> = keys.into_iter().map(read).collect();
        let ends = self.events.iter().map(|(time, ..)| *time);
        let last = ends.filter(|&time| time != NEVER).max().unwrap_or_default();
        self.tell(last + 1, last + 1, OpType::Ok, value);
    }

    /// Leaves out the appends of those of unknown outcome of which nobody has seen one: they are
    /// not there, and others may have read the lists without them ever since.
    fn forget_absent(&mut self) {
        let mut seen = HashSet::new();
        for mop in self.told.iter().flat_map(|told| &told.value) {
            if let Mop::Read {
                value: ReadValue::List(list),
                ..
            } = mop
            {
                seen.extend(list.iter().copied());
            }
        }
        let is_seen = |mop: &Mop| matches!(mop, Mop::Append { value, .. } if seen.contains(value));
        for told in &mut self.told {
            if told.kind == OpType::Info && !told.value.iter().any(is_seen) {
                told.value.retain(|mop| matches!(mop, Mop::Read { .. }));
            }
        }
    }

    fn tell(&mut self, begin: u64, end: u64, kind: OpType, value: Vec<Mop>) {
        if value.is_empty() {
            return;
        }
        let told = self.told.len();
        self.events.push((begin, false, told));
        self.events.push((end, true, told));
        let index = told as u64;
        self.told.push(Told { index, kind, value });
    }

    fn intern(&mut self, text: &'h str) -> u32 {
        let interner = &mut self.interner;
        let intern = || interner.intern(Scalar::Str(text.to_owned()));
        *self.interned.entry(text).or_insert_with(intern)
    }

    fn read(&mut self, key: &'h str, value: Option<&'h str>) -> Mop {
        self.reads += 1;
        let key = self.intern(key);
        let elements = value.unwrap_or_default().split(SEPARATOR);
        let elements = elements.filter(|element| !element.is_empty());
        let list = elements.map(|element| self.intern(element)).collect();
        let value = ReadValue::List(list);
        Mop::Read { key, value }
    }

    /// The append that made `list`: its last element.
    fn append(&mut self, key: &'h str, list: &'h str) -> Mop {
        self.appends += 1;
        self.keys.insert(key);
        let element = list.rsplit(SEPARATOR).next().unwrap_or_default();
        let (key, value) = (self.intern(key), self.intern(element));
        Mop::Append { key, value }
    }

    fn judge(mut self) -> Judged {
        self.events.sort_unstable();
        let mut ops = Vec::with_capacity(self.events.len());
        for &(time, is_end, at) in &self.events {
            let told = &self.told[at];
            ops.push(Op {
                index: told.index,
                kind: if is_end { told.kind } else { OpType::Invoke },
                // Each is a process of its own: their order is told by real time alone.
                process: i64::try_from(at).ok(),
                value: told.value.clone(),
                time: i64::try_from(time).ok(),
            });
        }
        let history = adya::History::from_ops(ops, self.interner);
        let report = adya::check(&history, Workload::ListAppend, &Opts::default());
        Judged {
            transactions: self.transactions,
            reads: self.reads,
            appends: self.appends,
            report,
        }
    }
}

impl Micro {
    /// Undoes what was done from `mark` on: its appends, and what was read of lists that it had
    /// appended to.
    fn undo(&mut self, mark: usize) {
        for mop in without_own(self.kept.split_off(mark)) {
            match mop {
                Mop::Append { .. } => self.undone.push(mop),
                _ => self.kept.push(mop),
            }
        }
    }

    /// Leaves out what was read of lists that it had appended to.
    fn forget_own(&mut self) {
        self.kept = without_own(std::mem::take(&mut self.kept)).collect();
    }
}

/// All but the reads of a list behind an append to it.
fn without_own(mops: Vec<Mop>) -> impl Iterator<Item = Mop> {
    let mut appended = Vec::new();
    mops.into_iter().filter(move |mop| {
        let is_append = matches!(mop, Mop::Append { .. });
        appended.extend(is_append.then(|| mop.key()));
        is_append || !appended.contains(&mop.key())
    })
}
