//! The tester, tested: every planted bug is found, and soon.

use happystore::vfs::sim::Plant;

use super::run::Plan;
use super::tiers::check_plan;
use crate::crash::explore::Effort;

/// Within how many schedules every planted bug must show.
const SCHEDULES_MAX: u64 = 60;

const EFFORT: Effort = Effort {
    points: 40,
    images: 6,
    kills: 0,
};

/// Goes through schedules until the bug shows; gives what it showed as.
fn shown(plant: Plant, look_at_order: bool) -> String {
    let shown = (0..SCHEDULES_MAX).find_map(|seed| {
        let plan = Plan::new(seed).planted(plant);
        let error = check_plan(&plan, EFFORT, look_at_order).err()?;
        eprintln!("{plant:?}, order {look_at_order}: seed {seed}: {error}");
        Some(error)
    });
    shown.unwrap_or_else(|| panic!("{plant:?} was not noticed"))
}

#[test]
fn segments_that_are_never_synced_are_noticed() {
    assert!(shown(Plant::NoSegmentSync, true).starts_with("order:"));
    shown(Plant::NoSegmentSync, false);
}

#[test]
fn segments_of_which_every_other_sync_is_missing_are_noticed() {
    assert!(shown(Plant::EveryOtherSegmentSync, true).starts_with("order:"));
    shown(Plant::EveryOtherSegmentSync, false);
}

#[test]
fn a_directory_that_is_never_synced_is_noticed() {
    shown(Plant::NoDirectorySync, false);
}

#[test]
fn a_wake_that_is_lost_is_noticed() {
    let shown = shown(Plant::LostRaises, true);
    assert!(shown.contains("hang"), "{shown}");
}
