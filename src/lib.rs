//! An embedded, ordered, log-structured key-value store for write-heavy programs.
//!
//! ```
//! use happystore::Store;
//!
//! # let directory = tempfile::tempdir().unwrap();
//! # let path = directory.path().join("data");
//! let store = Store::open(&path)?; // CBOR values, str keys, made if missing
//! store.set("user/1", &("Anna", 31))?; // on disk when it returns
//! let user: Option<(String, u32)> = store.get("user/1")?;
//! assert_eq!(user, Some(("Anna".to_owned(), 31)));
//!
//! store.transaction(|tx| -> happystore::Result<()> {
//!     tx.set("user/2", &("Ben", 27))?;
//!     tx.transaction(|inner| {
//!         inner.delete("user/1")?;
//!         inner.abort(()) // only the inner part is undone
//!     })
//! })?;
//! assert_eq!(store.query().prefix("user/").count()?, 2);
//! # Ok::<(), happystore::Error>(())
//! ```
//!
//! - [`Store`]: open, one key, many keys, close; [`Options`]: how to open.
//! - [`Query`], [`Scan`], [`Iter`]: prefixes and ranges, both ways, with limits, in pages.
//! - [`Transaction`]: all or nothing, nested to any depth; [`Snapshot`]: one moment, to read.
//! - [`Serializer`], [`Encode`], [`Decode`]: [`Cbor`], [`Json`], [`Raw`], or an own one.
//! - [`Error`]: what happened, where, and what to do; [`limits`]: every limit.
//!
//! # Guarantees
//!
//! Every call is a strictly serializable transaction. A commit is all there or not at all, after
//! a crash too; what is lost is always the end of the commit order. What survives what is said at
//! [`Durability`]. Damage is found by checksums and reported, never guessed over. Readers wait
//! for nobody. All of this holds across the processes of a host that have a store open: see
//! [`Access`].
//!
//! # What it is not
//!
//! All keys are held in memory (values are not), in every process that has the store open. Space of
//! overwritten values is not taken back yet.

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct ReadmeExamples;

// In the order in which a value walks through them.
mod store;

mod query;

mod cursor;

mod snapshot;

mod traits;

mod options;

mod serializer;

mod transaction;

mod batch;

mod key;

mod compaction;

mod engine;

mod upkeep;

mod index;

mod log;

mod format;

pub mod limits;

mod error;

mod failpoint;

mod sync;
mod yielding;

#[cfg(feature = "sim")]
pub mod vfs;

#[cfg(not(feature = "sim"))]
#[expect(
    unreachable_pub,
    dead_code,
    reason = "public, and all in use, with the feature `sim`"
)]
mod vfs;

pub use compaction::{CompactProgress, CompactReport, CompactionPause};
pub use cursor::Iter;
pub use engine::compactor::CompactionState;
pub use error::{Cause, Error, ErrorKind, Holder, Result};
#[cfg(feature = "failpoints")]
pub use failpoint::FAILPOINTS;
pub use key::Key;
pub use options::{Access, Compaction, Create, Durability, OpenProgress, Options};
pub use query::{KeyRange, Query, Scan};
pub use serializer::{BoxError, Cbor, Decode, Encode, Json, Raw, Serializer};
pub use snapshot::Snapshot;
pub use store::Store;
pub use traits::{Read, Write};
pub use transaction::{Transaction, TxOptions};
pub use upkeep::{
    BackupReport, Dump, DumpedEntry, DumpedKind, Holders, LostBytes, SalvageReport, SegmentStats,
    Stats, VerifyReport, dump, salvage,
};
