//! The store does what a stack of maps does, whatever is done to it and wherever it lies.
//!
//! Random workloads of every operation, each with a random subset of the kinds (swarm testing).
//! A failure is shrunk and printed with its seed; `HAPPYSTORE_SEED=<seed>` begins with that one.

#![allow(
    clippy::cast_possible_truncation,
    clippy::needless_pass_by_value,
    clippy::type_complexity,
    reason = "any bits are as good as others, and quickcheck hands out values"
)]

mod interpreter;
mod metamorphic;
mod operations;
mod place;
mod queries;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use quickcheck::{Gen, QuickCheck, Testable};

use interpreter::Run;
use operations::Workload;
use place::Place;

/// Keys and values of the model.
pub(crate) type Map = BTreeMap<Rc<[u8]>, Rc<[u8]>>;

/// How many operations the tests here run at least.
const SIMULATED_OPERATIONS: u64 = 1_500_000;
const MEMORY_OPERATIONS: u64 = 1_000_000;
const FILE_OPERATIONS: u64 = 20_000;
const _: () = assert!(SIMULATED_OPERATIONS + MEMORY_OPERATIONS + FILE_OPERATIONS >= 2_500_000);

/// The longest workload, and how many are run under one seed.
const WORKLOAD_OPERATIONS: usize = 400;
const WORKLOADS_A_SEED: u64 = 50;

/// The seed to begin with.
pub(crate) fn first_seed(default: u64) -> u64 {
    std::env::var("HAPPYSTORE_SEED").map_or(default, |seed| seed.parse().unwrap())
}

/// Checks `property` on random workloads, seed after seed, until `counter` is at `least`.
pub(crate) fn check<P: Testable + Copy>(what: &str, property: P, counter: &AtomicU64, least: u64) {
    let begun = Instant::now();
    let first = first_seed(1);
    for seed in first.. {
        let workloads = Gen::from_size_and_seed(WORKLOAD_OPERATIONS, seed);
        let mut check = QuickCheck::new()
            .rng(workloads)
            .tests(WORKLOADS_A_SEED)
            .min_tests_passed(WORKLOADS_A_SEED);
        if let Err(cause) = catch_unwind(AssertUnwindSafe(|| check.quickcheck(property))) {
            eprintln!("{what}: to repeat this, set HAPPYSTORE_SEED={seed}");
            resume_unwind(cause);
        }
        if counter.load(Ordering::Relaxed) >= least {
            break;
        }
    }
    let count = counter.load(Ordering::Relaxed);
    assert!(count >= least);
    eprintln!(
        "{what}: {count} operations from seed {first} in {:?}",
        begun.elapsed()
    );
}

fn run(place: Place, workload: &Workload, counter: &AtomicU64) {
    let (_, count) = Run::new(place, workload).run(workload.setup);
    counter.fetch_add(count, Ordering::Relaxed);
}

#[test]
fn a_store_on_a_simulated_disk_does_what_the_model_does() {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    fn property(workload: Workload) {
        run(Place::simulated(), &workload, &COUNTER);
    }
    check(
        "simulated disk",
        property as fn(Workload),
        &COUNTER,
        SIMULATED_OPERATIONS,
    );
}

#[test]
fn a_store_in_memory_does_what_the_model_does() {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    fn property(workload: Workload) {
        run(Place::Memory, &workload, &COUNTER);
    }
    check(
        "memory",
        property as fn(Workload),
        &COUNTER,
        MEMORY_OPERATIONS,
    );
}

#[test]
fn a_store_in_real_files_does_what_the_model_does() {
    static COUNTER: AtomicU64 = AtomicU64::new(0);
    fn property(workload: Workload) {
        run(Place::files(), &workload, &COUNTER);
    }
    check(
        "real files",
        property as fn(Workload),
        &COUNTER,
        FILE_OPERATIONS,
    );
}

#[test]
fn deleted_keys_leave_the_index_once_nobody_sees_them() {
    const KEYS: u64 = 2000;
    let store = happystore::Store::in_memory();
    let key = |n: u64| format!("{n:01000}");
    let empty = store.stats().unwrap().index_bytes;
    for n in 0..KEYS {
        store.set(&key(n), &n).unwrap();
    }
    let snapshot = store.snapshot().unwrap();
    for n in 0..KEYS {
        assert!(store.delete(&key(n)).unwrap());
    }
    assert_eq!(snapshot.query().count().unwrap(), KEYS);
    assert!(store.stats().unwrap().index_bytes > KEYS * 1000);
    drop(snapshot);
    for n in 0..100 {
        store.set("other", &n).unwrap();
    }
    let left = store.stats().unwrap().index_bytes;
    assert!(left < empty + KEYS * 100, "{left} bytes are left");
}
