//! What was done on a store: transactions, each with what it read and wrote, in program order.
//!
//! [`text`](crate::text) reads histories from the files of children; [`checker`](crate::checker)
//! and [`black_box`](crate::black_box) judge them. Keys and values are text.
//!
//! **The witness.** Every transaction that is to commit changes reads the key [`CLOCK`] and sets
//! it to its own [`Claim`], one further, before it does anything else. The claim says at which
//! position of the serial order it stands, and who it is: whoever reads the clock knows behind
//! whom he stands.

use std::borrow::Cow;
use std::fmt;
use std::ops::Bound;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// A key or a value.
pub type Text<'t> = Cow<'t, str>;

/// The key that holds the [`Claim`] of the last committed writer.
pub const CLOCK: &str = "clock";

/// The end of a transaction of which nobody knows when it ended, or whether it has.
pub const NEVER: u64 = u64::MAX;

/// Which transaction: the n-th of a thread of a process. A process that takes the place of a
/// killed one has a number of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Id {
    /// The process, by the order in which they were started.
    pub process: u32,
    /// The thread, from 0 in each process.
    pub thread: u32,
    /// The transaction, from 0 in each thread.
    pub number: u32,
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.process, self.thread, self.number)
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut numbers = text.split('.').map(|number| number.parse().map_err(drop));
        let mut next = || numbers.next().unwrap_or(Err(()));
        let id = Self {
            process: next()?,
            thread: next()?,
            number: next()?,
        };
        next().map_or(Ok(id), |_: u32| Err(()))
    }
}

/// What a writer writes into the clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Claim {
    /// Its position in the serial order, from 1.
    pub position: u64,
    /// Who it is.
    pub author: Id,
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.position, self.author)
    }
}

impl FromStr for Claim {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let (position, author) = text.split_once(':').ok_or(())?;
        Ok(Self {
            position: position.parse().map_err(drop)?,
            author: author.parse()?,
        })
    }
}

/// Which keys, which way, how many.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Selection<'t> {
    /// The lower end.
    pub low: Bound<Text<'t>>,
    /// The upper end.
    pub high: Bound<Text<'t>>,
    /// From the last key to the first.
    pub reverse: bool,
    /// At most so many keys.
    pub limit: Option<usize>,
}

/// A thing that a transaction did, and what it was answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Operation<'t> {
    /// Read a key.
    Get {
        /// The key.
        key: Text<'t>,
        /// What it was said to be.
        value: Option<Text<'t>>,
    },
    /// Asked whether a key is there.
    Has {
        /// The key.
        key: Text<'t>,
        /// The answer.
        there: bool,
    },
    /// Set a key.
    Set {
        /// The key.
        key: Text<'t>,
        /// Its new value.
        value: Text<'t>,
    },
    /// Deleted a key.
    Delete {
        /// The key.
        key: Text<'t>,
        /// Whether it was said to have been there.
        there: bool,
    },
    /// Read a range with its values.
    Pairs {
        /// What was asked for.
        selection: Selection<'t>,
        /// All that was answered, in its order.
        pairs: Vec<(Text<'t>, Text<'t>)>,
    },
    /// Read the keys of a range.
    Keys {
        /// What was asked for.
        selection: Selection<'t>,
        /// All that was answered, in its order.
        keys: Vec<Text<'t>>,
    },
    /// Counted a range.
    Count {
        /// What was asked for.
        selection: Selection<'t>,
        /// The answer.
        count: u64,
    },
    /// Deleted a range.
    DeleteRange {
        /// What was asked for.
        selection: Selection<'t>,
        /// How many keys were said to have been there.
        count: u64,
    },
    /// Began a nested transaction.
    Begin,
    /// Committed the innermost nested transaction into the one around it.
    Commit,
    /// Undid the innermost nested transaction.
    Abort,
}

impl Operation<'_> {
    /// Whether it changes the store, if it is committed.
    pub fn is_write(&self) -> bool {
        matches!(
            self,
            Self::Set { .. } | Self::Delete { .. } | Self::DeleteRange { .. }
        )
    }
}

/// What became of a transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// Its commit has returned, or there was nothing to commit.
    Committed,
    /// It was rolled back.
    Aborted,
    /// Its process died in its commit: it may be there as a whole, or not at all.
    Unknown,
}

/// A transaction: whatever must have happened at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction<'t> {
    /// Which it is.
    pub id: Id,
    /// A letter for what it was to do; for those who count.
    pub kind: char,
    /// The monotonic clock before it began, in nanoseconds.
    pub begin: u64,
    /// The monotonic clock when its moment had passed, in nanoseconds; [`NEVER`] if that is
    /// unknown. A snapshot may be read for long after its moment.
    pub end: u64,
    /// What became of it.
    pub outcome: Outcome,
    /// What it did, in program order.
    pub operations: Vec<Operation<'t>>,
}
