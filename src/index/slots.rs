//! Slots: where a key and its newest version lie, one cache line for each.
//!
//! A shard adds, changes and frees slots under its lock and knows them by their numbers. They lie
//! in chunks, so that growing copies nothing, and a chunk without keys gives its memory back.

use crate::log::location::{Location, Version};

/// A link to nothing.
pub(super) const NONE: u32 = u32::MAX;

/// Slots in a chunk: the bits of the word that says which of them are in use.
const CHUNK_SLOTS: u32 = u64::BITS;

/// Keys up to this long lie in their slots: to compare one is to read what was read anyway.
const INLINE_KEY_BYTES_MAX: usize = 30;

/// A key, its newest version, and where to find the older ones.
#[repr(align(64))]
pub(super) struct Slot {
    pub(super) newest: Version,
    /// The newest of the older versions, as `versions` numbers them.
    pub(super) older: u32,
    /// Whether the key waits to be looked at again; it waits once, whatever happens meanwhile.
    pub(super) is_waiting: bool,
    key: SlotKey,
}

const _: () = assert!(size_of::<Slot>() == 64, "a slot is a cache line");

/// The bytes of a key.
enum SlotKey {
    Inline {
        len: u8,
        bytes: [u8; INLINE_KEY_BYTES_MAX],
    },
    Apart(Box<[u8]>),
}

impl From<&[u8]> for SlotKey {
    fn from(key: &[u8]) -> Self {
        let mut bytes = [0; INLINE_KEY_BYTES_MAX];
        match (u8::try_from(key.len()), bytes.get_mut(..key.len())) {
            (Ok(len), Some(place)) => {
                place.copy_from_slice(key);
                Self::Inline { len, bytes }
            }
            _ => Self::Apart(key.into()),
        }
    }
}

impl Slot {
    fn new(key: &[u8], newest: Version) -> Self {
        Self {
            newest,
            older: NONE,
            is_waiting: false,
            key: key.into(),
        }
    }

    fn empty() -> Self {
        let location = Location::new(0, 0, 0, None);
        let nothing = Version {
            sequence: 0,
            location,
        };
        Self::new(&[], nothing)
    }

    /// The key.
    pub(super) fn key(&self) -> &[u8] {
        match &self.key {
            SlotKey::Inline { len, bytes } => &bytes[..usize::from(*len)],
            SlotKey::Apart(bytes) => bytes,
        }
    }

    /// What the key takes beside the slot.
    fn bytes_apart(&self) -> usize {
        match &self.key {
            SlotKey::Inline { .. } => 0,
            SlotKey::Apart(bytes) => bytes.len(),
        }
    }
}

#[derive(Default)]
struct Chunk {
    /// Bit by bit, which slots are in use.
    used: u64,
    /// None while none is in use.
    slots: Option<Box<[Slot; CHUNK_SLOTS as usize]>>,
}

/// The slots of a shard.
#[derive(Default)]
pub(super) struct Slots {
    chunks: Vec<Chunk>,
    /// The chunks that have room; the last one is filled first.
    with_room: Vec<u32>,
    bytes_apart: usize,
}

impl Slots {
    /// A slot for `key`; its number.
    pub(super) fn add(&mut self, key: &[u8], newest: Version) -> u32 {
        let number = self.with_room.last().copied().unwrap_or_else(|| {
            // OK because the keys before it take hundreds of gigabytes.
            let number = u32::try_from(self.chunks.len()).expect("fewer chunks than numbers");
            self.chunks.push(Chunk::default());
            self.with_room.push(number);
            number
        });
        let chunk = &mut self.chunks[number as usize];
        let slots = chunk
            .slots
            .get_or_insert_with(|| Box::new(std::array::from_fn(|_| Slot::empty())));
        let at = chunk.used.trailing_ones();
        chunk.used |= 1 << at;
        let slot = &mut slots[at as usize];
        *slot = Slot::new(key, newest);
        self.bytes_apart += slot.bytes_apart();
        if chunk.used == u64::MAX {
            self.with_room.pop();
        }
        number * CHUNK_SLOTS + at
    }

    /// Frees the slot `number`.
    pub(super) fn free(&mut self, number: u32) {
        let slot = self.get_mut(number);
        let bytes_apart = slot.bytes_apart();
        *slot = Slot::empty();
        self.bytes_apart -= bytes_apart;
        let chunk = &mut self.chunks[(number / CHUNK_SLOTS) as usize];
        if chunk.used == u64::MAX {
            self.with_room.push(number / CHUNK_SLOTS);
        }
        chunk.used &= !(1 << (number % CHUNK_SLOTS));
        if chunk.used == 0 {
            chunk.slots = None;
        }
    }

    /// The slot `number`.
    #[inline]
    pub(super) fn get(&self, number: u32) -> &Slot {
        let slots = &self.chunks[(number / CHUNK_SLOTS) as usize].slots;
        // OK because a chunk with a slot in use has its slots, and other numbers nobody has.
        let slots = slots.as_ref().expect("a slot in use");
        &slots[(number % CHUNK_SLOTS) as usize]
    }

    /// The slot `number`, to change.
    #[inline]
    pub(super) fn get_mut(&mut self, number: u32) -> &mut Slot {
        let slots = &mut self.chunks[(number / CHUNK_SLOTS) as usize].slots;
        // OK because a chunk with a slot in use has its slots, and other numbers nobody has.
        let slots = slots.as_mut().expect("a slot in use");
        &mut slots[(number % CHUNK_SLOTS) as usize]
    }

    /// How many bytes the slots take, and keys apart from them.
    pub(super) fn memory_bytes(&self) -> usize {
        let chunks = self.chunks.iter().filter(|chunk| chunk.slots.is_some());
        chunks.count() * size_of::<[Slot; CHUNK_SLOTS as usize]>()
            + self.chunks.capacity() * size_of::<Chunk>()
            + self.bytes_apart
    }
}
