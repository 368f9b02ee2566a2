//! New keys that wait to be put into the order, some at a time.
//!
//! In a group that is sorted, neighbours find the same blocks, and what leads to them, in the cache.

use super::block::common_len;
use super::points::Handle;

/// How many bytes of keys make a group full, for each key that does.
const KEY_BYTES: usize = 32;

/// The memory that a group keeps for the next one, in keys.
const KEPT: usize = 1024;

#[derive(Clone, Copy)]
struct Item {
    /// A part of the key, to sort by.
    part: u64,
    start: u32,
    len: u32,
    handle: Handle,
}

impl Item {
    fn key<'a>(&self, bytes: &'a [u8]) -> &'a [u8] {
        &bytes[self.start as usize..][..self.len as usize]
    }
}

/// A group of new keys.
#[derive(Default)]
pub(super) struct Staged {
    items: Vec<Item>,
    bytes: Vec<u8>,
}

impl Staged {
    /// How many keys there are.
    pub(super) fn len(&self) -> usize {
        self.items.len()
    }

    /// Adds a key.
    pub(super) fn push(&mut self, key: &[u8], handle: Handle) {
        // OK because a group is full long before.
        let number = |count: usize| u32::try_from(count).expect("a group is small");
        self.items.push(Item {
            part: 0,
            start: number(self.bytes.len()),
            len: number(key.len()),
            handle,
        });
        self.bytes.extend_from_slice(key);
    }

    /// Whether `count` keys are here, or their bytes take as much as so many should.
    pub(super) fn is_full(&self, count: usize) -> bool {
        self.items.len() >= count || self.bytes.len() >= count * KEY_BYTES
    }

    /// Puts the keys in order; of equal ones, the one that came last comes last.
    pub(super) fn sort(&mut self) {
        let Self { items, bytes } = self;
        let Some((first, rest)) = items.split_first() else {
            return;
        };
        let first = first.key(bytes);
        let common = rest.iter().fold(first.len(), |common, item| {
            common_len(&first[..common], item.key(bytes))
        });
        for item in items.iter_mut() {
            let rest = &item.key(bytes)[common..];
            let mut part = [0; 8];
            let len = rest.len().min(part.len());
            part[..len].copy_from_slice(&rest[..len]);
            item.part = u64::from_be_bytes(part);
        }
        items.sort_by(|a, b| {
            a.part
                .cmp(&b.part)
                .then_with(|| a.key(bytes).cmp(b.key(bytes)))
        });
    }

    /// The keys with their handles.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&[u8], Handle)> {
        self.items
            .iter()
            .map(|item| (item.key(&self.bytes), item.handle))
    }

    /// Takes all out.
    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.bytes.clear();
        self.items.shrink_to(KEPT);
        self.bytes.shrink_to(KEPT * KEY_BYTES);
    }

    /// How many bytes this takes.
    pub(super) fn memory_bytes(&self) -> usize {
        self.items.capacity() * size_of::<Item>() + self.bytes.capacity()
    }
}
