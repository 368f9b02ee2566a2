//! The tester, tested: every planted bug is found, and soon.

use std::sync::Arc;
use std::time::Duration;

use happystore::vfs::sim::{Plant, World};

use super::record::{Halt, Record};
use super::run::Plan;
use super::tiers::{LIGHT_EFFORT, check_plan};
use crate::crash::explore::Effort;
use crate::crash::oracle::{History, Model, value};
use crate::crash::workload::Mode;

/// Within how many schedules every planted bug must show.
const SCHEDULES_MAX: u64 = 60;

/// The same, where only the death of one among others shows it.
const PROCESS_SCHEDULES_MAX: u64 = 2000;

const EFFORT: Effort = Effort {
    points: 40,
    images: 6,
    kills: 0,
};

/// Goes through schedules until the bug shows; gives what it showed as.
fn shown(plant: Plant, look_at_order: bool) -> String {
    let is_of_processes = matches!(
        plant,
        Plant::LostWord(_) | Plant::LostRings | Plant::NoLocks
    );
    let (schedules, effort) = if is_of_processes {
        (PROCESS_SCHEDULES_MAX, LIGHT_EFFORT)
    } else {
        (SCHEDULES_MAX, EFFORT)
    };
    let shown = (0..schedules).find_map(|seed| {
        let plan = if is_of_processes {
            Plan::of_processes(seed)
        } else {
            Plan::new(seed)
        };
        let plan = plan.planted(plant);
        let error = check_plan(&plan, effort, look_at_order).err()?;
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

#[test]
fn file_locks_that_keep_nobody_out_are_noticed() {
    shown(Plant::NoLocks, true);
}

/// Words of the shared page that others rely on, lost.
#[test]
fn words_that_other_processes_never_see_are_noticed() {
    const AWAITED: usize = 18;
    const WRITING: usize = 20;
    const FAILURES: usize = 40;
    for word in [AWAITED, WRITING, FAILURES] {
        shown(Plant::LostWord(word), true);
    }
}

/// What only makes others come sooner may be lost: whoever waits looks again by itself, and whoever
/// does not know that it owns the log's end looks at it.
#[test]
fn bells_and_an_owner_that_nobody_hears_of_cost_time_alone() {
    const OWNER: usize = 8;
    for plant in [Plant::LostRings, Plant::LostWord(OWNER)] {
        for seed in 0..SCHEDULES_MAX {
            let plan = Plan::of_processes(seed).planted(plant);
            if let Err(error) = check_plan(&plan, EFFORT, true) {
                panic!("{plant:?}, seed {seed}: {error}");
            }
        }
    }
}

/// A record with states 2, 3 and 4 behind the one it begins with, none of them returned.
fn record() -> Record {
    let mut history = History::new();
    history.push(Arc::default());
    let record = Record::new(&World::new(1), history);
    for (mark, mode) in [(2, Mode::Sync), (3, Mode::Os), (4, Mode::Sync)] {
        assert_eq!(record.begin(state(mark), mode, Duration::ZERO), mark);
    }
    record
}

fn state(mark: u64) -> Model {
    Model::from([(b"a".to_vec(), value(mark, 8))])
}

fn is_wrong<T>(result: &Result<T, Halt>) -> bool {
    matches!(result, Err(Halt::Wrong(_)))
}

#[test]
fn reads_that_go_back_or_ahead_or_show_what_never_was_are_noticed() {
    let record = record();
    let early = record.window(record.floor());
    assert_eq!(record.seen_all("a scan", early, &state(3)).unwrap(), 3);
    let now = record.window(record.floor());
    assert!(is_wrong(&record.seen_all("an older state", now, &state(2))));
    assert!(is_wrong(&record.seen_all("no state", now, &state(9))));
    // What began before may still be told of what was there then.
    assert_eq!(record.seen_all("a scan", early, &state(2)).unwrap(), 2);
    record.begin(state(5), Mode::Os, Duration::ZERO);
    assert!(is_wrong(&record.seen_all("a later state", now, &state(5))));
    record.returned(4);
    let now = record.window(record.floor());
    assert!(is_wrong(&record.seen_all(
        "before a commit",
        now,
        &state(3)
    )));
    assert_eq!(record.seen_all("a scan", now, &state(5)).unwrap(), 5);
}

#[test]
fn a_writer_that_misses_what_is_appended_is_noticed() {
    let record = record();
    assert_eq!(record.base(&state(4)).unwrap(), 4);
    assert!(is_wrong(&record.base(&state(3))));
}

#[test]
fn what_is_shown_is_noted_as_durable_up_to_the_newest_sync_commit_in_it() {
    let record = record();
    let noted = |record: &Record| record.world.journal().last_point(0, 0);
    let window = record.window(record.floor());
    record.seen_all("a scan", window, &state(3)).unwrap();
    let point = noted(&record);
    assert_eq!(point.last_ack, Some(3));
    assert_eq!(point.last_durable_ack, Some(2));
    record.shown("a commit of nothing", 4).unwrap();
    assert_eq!(noted(&record).last_durable_ack, Some(4));
}
