//! What a child does: every operation follows from the seed of its store and its own id.
//!
//! The child performs an [`Operation`] on a store ([`perform`]); the parent performs the same one
//! on a [`model`]. Each writer has keys of its own, so the parent knows their content exactly;
//! shared operations take turns with a counter inside their transaction, which puts them all in
//! one order that can be read back: `order/<position>` names the operation at that position.
//! Where several processes write at once, most operations or all of them are shared, so the
//! counter is a clock that each commit moves on, and says what the store held at each moment.

pub(crate) mod model;
pub(crate) mod perform;
mod plan;

use std::fmt;
use std::str::FromStr;

/// What lies behind every key: the operation that wrote it, its position in the order of shared
/// operations (0 for others), and a filler that follows from both and the key.
pub(crate) type Value = (u64, u64, String);

/// The key that counts the shared operations.
pub(crate) const COUNTER: &str = "counter";

/// What the keys begin with that no single writer owns.
pub(crate) const SHARED: &str = "shared/";

/// Writers from this number on work in one of several processes. No two children have the same.
pub(crate) const TOGETHER: u8 = 16;

/// What the keys begin with that the writers of several processes change without any division.
pub(crate) const COMMON: &str = "common/";

/// How many parts the common keys have; each operation keeps to one of them.
const COMMON_PARTS: u8 = 3;

/// What the keys of the orders begin with.
pub(crate) const ORDER: &str = "order/";

/// How many keys a group has, which are always written and deleted together.
pub(crate) const GROUP_KEYS: usize = 3;

/// How many groups there are.
pub(crate) const GROUPS: usize = 4;

/// What the keys of a writer begin with.
pub(crate) fn own_prefix(writer: u8) -> String {
    format!("own/{writer}/")
}

/// What the common keys begin with that `writer` changes.
fn common_prefix(writer: u8) -> String {
    format!("{COMMON}{}/", writer % COMMON_PARTS)
}

/// The key that says which shared operation came at `position`.
pub(crate) fn order_key(position: u64) -> String {
    format!("{ORDER}{position:08}")
}

/// What the keys of group `group` begin with.
pub(crate) fn group_prefix(group: usize) -> String {
    format!("{SHARED}{group}/")
}

/// The keys of group `group`.
pub(crate) fn group_keys(group: usize) -> Vec<String> {
    let prefix = group_prefix(group);
    (0..GROUP_KEYS).map(|at| format!("{prefix}{at}")).collect()
}

/// The value that the operation `id` at `position` gives to `key`.
pub(crate) fn value(id: Id, position: u64, key: &str) -> Value {
    // Most are short; some fill a segment of the smallest sizes by themselves.
    let mut random = key.bytes().fold(id.bits(), |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    random ^= random >> 29;
    let length = match random % 64 {
        0 => 3000,
        1..=4 => 600,
        other => other,
    };
    let letters = usize::try_from(length).unwrap_or(0);
    let letter = char::from(b'a' + u8::try_from(id.number % 26).unwrap_or(0));
    (id.bits(), position, letter.to_string().repeat(letters))
}

/// A number that follows from all operations of an order: from `chain`, that of those before, and
/// `next`.
pub(crate) fn chained(chain: u64, next: Id) -> u64 {
    let mixed = (chain ^ next.bits()).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed ^ mixed >> 31
}

/// Names an operation: the life of the child, its writer, and the number among that writer's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Id {
    pub(crate) life: u16,
    pub(crate) writer: u8,
    pub(crate) number: u32,
}

impl Id {
    pub(crate) fn bits(self) -> u64 {
        u64::from(self.life) << 40 | u64::from(self.writer) << 32 | u64::from(self.number)
    }

    /// The id whose bits these are; `None` if no id has them.
    pub(crate) fn from_bits(bits: u64) -> Option<Self> {
        Some(Self {
            life: u16::try_from(bits >> 40).ok()?,
            writer: u8::try_from(bits >> 32 & 0xff).ok()?,
            number: u32::try_from(bits & 0xffff_ffff).ok()?,
        })
    }
}

impl fmt::Display for Id {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.life, self.writer, self.number)
    }
}

impl FromStr for Id {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let mut parts = text.split('.');
        let mut next = || parts.next().ok_or(());
        let id = Self {
            life: next()?.parse().map_err(drop)?,
            writer: next()?.parse().map_err(drop)?,
            number: next()?.parse().map_err(drop)?,
        };
        parts.next().is_none().then_some(id).ok_or(())
    }
}

/// How a level of a transaction ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Fate {
    Commit,
    Abort,
    /// Its guard is dropped.
    Drop,
}

/// How an operation calls the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// One call of the store, without a transaction around it.
    Plain,
    Closure,
    Guard,
}

/// What one commit of an operation has reached, where each has its own durability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    Sync,
    Deferred,
    Os,
}

/// One thing that is done to keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Step {
    Set(String),
    Delete(String),
    BulkSet(Vec<String>),
    BulkDelete(Vec<String>),
    QueryDelete {
        prefix: String,
        limit: Option<usize>,
        reverse: bool,
    },
    Nested(Vec<Step>, Fate),
}

/// All that happens in one outermost commit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Operation {
    pub(crate) id: Id,
    /// Whether it touches keys that other writers touch too, and takes a position in their order.
    pub(crate) is_shared: bool,
    pub(crate) form: Form,
    pub(crate) reach: Reach,
    pub(crate) steps: Vec<Step>,
    pub(crate) fate: Fate,
}

impl Operation {
    /// The operation of this id in the store of this seed.
    pub(crate) fn new(seed: u64, id: Id) -> Self {
        plan::operation(seed, id)
    }
}

#[cfg(test)]
mod tests {
    use super::{Id, Operation};

    #[test]
    fn an_id_is_read_back_from_its_text_and_its_bits() {
        let id = Id {
            life: 300,
            writer: 3,
            number: 70_000,
        };
        assert_eq!(id.to_string().parse(), Ok(id));
        assert_eq!(Id::from_bits(id.bits()), Some(id));
        assert_eq!("1.2".parse::<Id>(), Err(()));
        assert_eq!("1.2.3.4".parse::<Id>(), Err(()));
        assert_eq!(Id::from_bits(u64::MAX), None);
    }

    #[test]
    fn an_operation_follows_from_its_seed_and_id_alone() {
        let id = |number| Id {
            life: 1,
            writer: 2,
            number,
        };
        let some = |seed| -> Vec<_> { (0..100).map(|n| Operation::new(seed, id(n))).collect() };
        assert_eq!(some(7), some(7));
        assert_ne!(some(7), some(8));
    }
}
