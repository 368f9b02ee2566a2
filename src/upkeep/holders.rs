//! Who has a store open.
//!
//! The kernel tells it: everybody who has a store open holds a lock on `OPEN`, which goes when its
//! process dies, however it dies. Nobody writes himself into a list.

use crate::engine::Engine;
use crate::error::{Holder, Result};

/// Who has a store open; made by [`Store::holders`](crate::Store::holders).
#[derive(Debug, Clone, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Holders {
    /// The processes that have it open, this one too, by their ids. Empty where the machine does not
    /// tell; those of other containers are not among them.
    pub processes: Vec<u32>,
    /// Who has the right to write at this moment, and calls itself what.
    pub writer: Option<Holder>,
}

pub(crate) fn holders(engine: &Engine) -> Result<Holders> {
    engine.check_open()?;
    let (processes, writer) = engine.holders()?;
    Ok(Holders { processes, writer })
}
