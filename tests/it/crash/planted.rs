//! The tester, tested: every planted bug is found, and soon.
//!
//! A test here fails if the suite goes through many states without noticing the bug.

use happystore::vfs::sim::{Plant, plant_unseeded_checksums};

use super::explore::Explorer;
use super::random::{Case, Taste};

/// Within how many crash states every planted bug must show.
const STATES_MAX: u64 = 30_000;

/// Workloads of all kinds.
fn any(seed: u64) -> Case {
    Case::new(seed, 12)
}

/// Goes through workloads until the bug shows: in what a crash left, or, `with_order`, in an
/// order that a journal breaks too.
fn states_until(plant: Option<Plant>, with_order: bool, case: impl Fn(u64) -> Case) -> u64 {
    let mut explorer = Explorer::new(1);
    explorer.look_at_order = with_order;
    let mut shown = None;
    for seed in 0.. {
        let mut case = case(seed);
        case.setup.plant = plant;
        let done = explorer
            .run(case.setup, &case.ops)
            .and_then(|run| explorer.explore(&run, 0, case.effort));
        shown = done.err();
        if shown.is_some() || explorer.tally.states() > STATES_MAX {
            break;
        }
    }
    let states = explorer.tally.states();
    eprintln!("{plant:?}, order {with_order}: {states} states: {shown:?}");
    states
}

#[test]
fn a_directory_that_is_never_synced_is_noticed() {
    let plant = Some(Plant::NoDirectorySync);
    assert!(states_until(plant, false, any) < STATES_MAX);
    assert!(states_until(plant, true, any) < STATES_MAX);
}

#[test]
fn segments_that_are_never_synced_are_noticed() {
    let plant = Some(Plant::NoSegmentSync);
    assert!(states_until(plant, false, any) < STATES_MAX);
    assert!(states_until(plant, true, any) < STATES_MAX);
}

#[test]
fn segments_of_which_every_other_sync_is_missing_are_noticed() {
    let plant = Some(Plant::EveryOtherSegmentSync);
    assert!(states_until(plant, false, any) < STATES_MAX);
    assert!(states_until(plant, true, any) < STATES_MAX);
}

#[test]
fn manifests_that_are_never_synced_are_noticed() {
    let plant = Some(Plant::NoManifestSync);
    assert!(states_until(plant, false, any) < STATES_MAX);
    assert!(states_until(plant, true, any) < STATES_MAX);
}

/// Epochs tell old records from new ones even where a disk forgot that it was to zero them.
#[test]
fn records_of_a_torn_tail_do_not_come_back_even_unzeroed() {
    let small = |seed| {
        let taste = Taste {
            sync_percent: 20,
            len_bytes_max: 41,
            is_fixed_len: true,
            kill_percent: 0,
            bait_percent: 0,
            twin_percent: 0,
            compact_percent: 0,
        };
        Case::of_taste(seed, 6, 4096, &taste)
    };
    assert!(states_until(Some(Plant::NoZeroing), false, small) >= STATES_MAX);
}

/// Where the order is not looked at, epochs hide the bug from all but one workload: a torn record
/// is overwritten by a like one, which is torn where the first one was whole.
#[test]
fn torn_tails_that_are_never_zeroed_are_noticed() {
    let twins = |seed| {
        let taste = Taste {
            sync_percent: 0,
            len_bytes_max: 41,
            is_fixed_len: true,
            kill_percent: 0,
            bait_percent: 0,
            twin_percent: 100,
            compact_percent: 0,
        };
        Case::of_taste(seed, 4, 8192, &taste)
    };
    let plant = Some(Plant::NoZeroing);
    assert!(states_until(plant, true, any) < STATES_MAX);
    assert!(states_until(plant, false, twins) < STATES_MAX);
}

/// A torn value that holds a whole record of a longer segment claims, without seeds, that bytes
/// of its own segment were durable.
#[test]
fn checksums_that_verify_anywhere_are_noticed() {
    let baits = |seed| {
        let taste = Taste {
            sync_percent: 50,
            len_bytes_max: 1501,
            is_fixed_len: true,
            kill_percent: 0,
            bait_percent: 80,
            twin_percent: 0,
            compact_percent: 0,
        };
        Case::of_taste(seed, 12, 4096, &taste)
    };
    plant_unseeded_checksums(true);
    let states = states_until(None, false, baits);
    plant_unseeded_checksums(false);
    assert!(states < STATES_MAX);
}
