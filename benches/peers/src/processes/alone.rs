//! What it costs a lone process that others may come: gets with `Access::Shared` beside gets with
//! `Access::Exclusive`.
//!
//! Two stores of the same content are open in one process, one in each way, and are read in turn,
//! a slice each, so that the drift of the machine is in both. Where in memory things come to lie is
//! a matter of luck: so both are opened again several times, in all ways and orders.

use std::hint::black_box;
use std::path::Path;

use happystore::Access;

use super::{clock, load, table};
use crate::asked::{Part, Plan};
use crate::figures::{Figures, median};
use crate::pairs::{mix, pair};
use crate::stores::{Class, Peer, happystore as ours};

/// How often both are opened.
const OPENINGS: usize = 8;

/// How long one of them is read at a time.
const SLICE_NS: u64 = 10_000_000;

/// How many keys are made before the clock starts.
const KEY_COUNT: u64 = 1 << 18;

pub fn run(plan: &Plan) -> Result<Figures, String> {
    let directories = [plan.fresh_directory()?, plan.fresh_directory()?];
    for directory in &directories {
        let mut peer = ours::open(directory.path(), Class::Kill);
        load(peer.as_mut(), plan.shared_keys);
    }
    let keys: Vec<[u8; 24]> = (0..KEY_COUNT)
        .map(|nth| pair(mix(nth) % plan.shared_keys, 0).0)
        .collect();
    // Both have what a cell has.
    let span_ns = (2e9 * plan.seconds(Part::Processes)) as u64 / OPENINGS as u64;
    let (mut exclusive, mut shared) = (Vec::new(), Vec::new());
    for opening in 0..OPENINGS {
        let [one, other] = [opening % 2, 1 - opening % 2].map(|at| directories[at].path());
        let open = |path: &Path, access| ours::open_as(path, Class::Kill, access);
        let (mut first, mut second);
        if opening / 2 % 2 == 0 {
            first = open(one, Access::Exclusive);
            second = open(other, Access::Shared);
        } else {
            second = open(other, Access::Shared);
            first = open(one, Access::Exclusive);
        }
        in_turn([first.as_mut(), second.as_mut()], &keys, span_ns)
            .into_iter()
            .for_each(|[of_exclusive, of_shared]| {
                exclusive.push(of_exclusive);
                shared.push(of_shared);
            });
    }
    let mut figures = Figures::default();
    if let (Some(exclusive), Some(shared)) = (median(exclusive), median(shared)) {
        figures.add(table::EXCLUSIVE, exclusive);
        figures.add(table::SHARED, shared);
        figures.add(table::OF_EXCLUSIVE, shared / exclusive);
    }
    Ok(figures)
}

/// Reads both for this time, slice by slice; gets a second in each slice.
fn in_turn(peers: [&mut dyn Peer; 2], keys: &[[u8; 24]], span_ns: u64) -> Vec<[f64; 2]> {
    let [first, second] = peers;
    for key in keys {
        black_box((first.get(key), second.get(key)));
    }
    let mut at = [0; 2];
    let mut rates = Vec::new();
    let until = clock::now_ns() + span_ns;
    while clock::now_ns() < until {
        // Whoever is read second finds a warmer machine: each is that every other time.
        let rate = if rates.len() % 2 == 0 {
            let of_first = slice(first, keys, &mut at[0]);
            [of_first, slice(second, keys, &mut at[1])]
        } else {
            let of_second = slice(second, keys, &mut at[1]);
            [slice(first, keys, &mut at[0]), of_second]
        };
        rates.push(rate);
    }
    rates
}

/// Gets for the time of a slice; how many a second.
fn slice(peer: &mut dyn Peer, keys: &[[u8; 24]], at: &mut usize) -> f64 {
    let begun = clock::now_ns();
    let mut count = 0;
    loop {
        for _ in 0..64 {
            black_box(peer.get(&keys[*at]).expect("it is there"));
            *at = (*at + 1) % keys.len();
        }
        count += 64;
        let taken = clock::now_ns() - begun;
        if taken >= SLICE_NS {
            return f64::from(count) * 1e9 / taken as f64;
        }
    }
}
