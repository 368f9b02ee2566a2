//! The time until a set is seen by a get in another process.
//!
//! One process sets a key every 0.2 to 1 ms, to a value that says which set it is and when it was
//! begun. The other one gets that key all the time, and looks at the clock when it sees another
//! value: so the time is from before the call of set to after the return of the get that saw it.
//! What it never saw, because the next set had come, is counted.

use std::time::Duration;

use super::latencies::Latencies;
use super::{clock, table, worker};
use crate::figures::Figures;
use crate::pairs::{mix, pair, stamp_of, stamped};
use crate::stores::Peer;

/// The key.
const NUMBER: u64 = 0;

/// Where in the value the moment stands.
const MOMENT: std::ops::Range<usize> = 16..24;

/// What the getting process tells beside latencies: sets that were overtaken by the next one.
const OVERTAKEN: &str = "overtaken";
/// And those that it has seen.
const SEEN: &str = "seen";

/// The setting process.
pub fn set(mut peer: Box<dyn Peer>, span_ns: u64) -> Result<Figures, String> {
    let key = pair(NUMBER, 0).0;
    let until = worker::await_start()? + span_ns;
    let mut sets = 0;
    loop {
        let pause_us = 200 + mix(sets) % 800;
        std::thread::sleep(Duration::from_micros(pause_us));
        let mut value = stamped(NUMBER, sets + 1);
        let begun = clock::now_ns();
        if begun >= until {
            break;
        }
        value[MOMENT].copy_from_slice(&begun.to_le_bytes());
        peer.set(&key, &value);
        sets += 1;
    }
    let mut figures = Figures::default();
    figures.add(worker::SETS, sets as f64);
    Ok(figures)
}

/// The getting process.
pub fn get(mut peer: Box<dyn Peer>, span_ns: u64) -> Result<Figures, String> {
    let key = pair(NUMBER, 0).0;
    let mut latencies = Latencies::new();
    let until = worker::await_start()? + span_ns;
    let (mut last, mut seen, mut overtaken) = (super::FIRST_STAMP, 0_u64, 0);
    for turn in 0_u64.. {
        let value = peer.get(&key).expect("it is there");
        let stamp = stamp_of(NUMBER, &value).expect("it is another one's");
        if stamp != last {
            let now = clock::now_ns();
            let mut moment = [0; 8];
            moment.copy_from_slice(&value[MOMENT]);
            latencies.add(now.saturating_sub(u64::from_le_bytes(moment)));
            assert!(stamp > last, "an older value after a newer one");
            overtaken += stamp - last - 1;
            seen += 1;
            last = stamp;
        }
        if turn % 16 == 0 && clock::now_ns() >= until {
            break;
        }
    }
    let mut figures = Figures::default();
    latencies.tell(&mut figures);
    figures.add(SEEN, seen as f64);
    figures.add(OVERTAKEN, overtaken as f64);
    Ok(figures)
}

/// The rows of the cell, from what the getting process tells.
pub fn figures(told: &Figures) -> Figures {
    let mut figures = Figures::default();
    let mut latencies = Latencies::new();
    latencies.add_lines(told);
    for (what, part) in [("p50", 0.5), ("p99", 0.99), ("max", 1.0)] {
        figures.add(&format!("{}, {what}", table::SEEN), latencies.seconds(part));
    }
    let count = |row| told.get(row).unwrap_or(0.0);
    let all = (count(SEEN) + count(OVERTAKEN)).max(1.0);
    figures.add(table::OVERTAKEN, count(OVERTAKEN) / all);
    figures
}

/// The last set that returned is there.
pub fn verify(peer: &mut dyn Peer, told: &Figures) -> Result<(), String> {
    let found = peer.get(&pair(NUMBER, 0).0).unwrap_or_default();
    let sets = told.get(worker::SETS).unwrap_or(0.0) as u64;
    match stamp_of(NUMBER, &found) {
        Some(stamp) if stamp == sets => Ok(()),
        _ => Err("the last set that had returned was lost".to_owned()),
    }
}
