//! Keys and values: random, different for each number, and the same in every run.

/// A key of 24 bytes and a value of 150.
pub type Pair = ([u8; 24], [u8; 150]);

/// Bytes of a key and its value together.
pub const PAIR_BYTES: u64 = 24 + 150;

/// Spreads numbers over all 64 bits, each to one of its own (splitmix64).
pub fn mix(number: u64) -> u64 {
    let mixed = number.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// The pair of a number below 2^40; its value is another one in another `round`.
pub fn pair(number: u64, round: u64) -> Pair {
    let mut key = *b"key/0000000000000000/abc";
    let mixed = mix(number);
    for (at, digit) in key[4..20].iter_mut().enumerate() {
        *digit = b"0123456789abcdef"[(mixed >> (60 - 4 * at)) as usize & 15];
    }
    let mut value = [0; 150];
    for (at, piece) in value.chunks_mut(8).enumerate() {
        let word = mix(number ^ (round << 40) ^ ((at as u64) << 52)).to_le_bytes();
        piece.copy_from_slice(&word[..piece.len()]);
    }
    (key, value)
}

/// A value that tells whose it is: of the key of `number`, and the `stamp` of who has set it. The
/// rest of it is random, and another one for each of the two.
pub fn stamped(number: u64, stamp: u64) -> [u8; 150] {
    let mut value = [0; 150];
    let seed = mix(number ^ mix(stamp));
    for (at, piece) in value.chunks_mut(8).enumerate() {
        let word = match at {
            0 => mix(number),
            1 => stamp,
            _ => mix(seed.wrapping_add(at as u64)),
        };
        piece.copy_from_slice(&word.to_le_bytes()[..piece.len()]);
    }
    value
}

/// The stamp of a value that was made by [`stamped`] for this number, as far as a glance can tell.
pub fn stamp_of(number: u64, value: &[u8]) -> Option<u64> {
    let word = |at: usize| Some(u64::from_le_bytes(value.get(at..at + 8)?.try_into().ok()?));
    let stamp = word(8)?;
    (value.len() == 150 && word(0)? == mix(number)).then_some(stamp)
}
