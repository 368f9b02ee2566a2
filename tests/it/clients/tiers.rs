//! How many schedules are tried: a fixed tier, a random one, and what failed once.

use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use happystore::vfs::sim::{Random, World};

use super::client::{Death, Trouble};
use super::run::{Outcome, Plan};
use crate::crash::explore::{Effort, Explorer, Tally};
use crate::crash::oracle::{Bounds, check};

/// How many schedules to go through unless `HAPPYSTORE_CLIENT_SCHEDULES` says otherwise, and how
/// many crash states there must be for each of them, on average.
const SCHEDULES: u64 = 2000;
const STATES_PER_SCHEDULE: u64 = 50;

/// How many schedules of several processes to go through, likewise. Each has its kills and a few
/// power cuts; one in sixteen has all of them.
const PROCESS_SCHEDULES: u64 = 20_000;

/// Where seeds begin unless `HAPPYSTORE_SEED` says otherwise.
const SEED: u64 = 1_000_000;

/// Seeds that failed once.
const PAST_FAILURES: [u64; 0] = [];

/// How much of each run to try.
const EFFORT: Effort = Effort {
    points: 96,
    images: 5,
    kills: 8,
};

/// The same, where there are many runs.
pub(super) const LIGHT_EFFORT: Effort = Effort {
    points: 3,
    images: 1,
    kills: 2,
};

/// What was gone through.
#[derive(Debug, Default)]
struct Sum {
    tally: Tally,
    schedules: u64,
    steps: u64,
    commits: u64,
    /// Commits that began while one before them had not returned.
    overlapping: u64,
    /// Schedules in which something failed, or the store was closed.
    troubled: u64,
    /// Schedules in which a process died among others.
    killed: u64,
    /// Schedules in which compaction moved something.
    compacted: u64,
}

/// Runs a plan and stops its machine everywhere.
pub(super) fn check_plan(
    plan: &Plan,
    effort: Effort,
    look_at_order: bool,
) -> Result<(Outcome, Tally), String> {
    let outcome = plan.run()?;
    // A commit may be told of after a client that closes has written its seal mark, which is no
    // commit's and need not be durable yet.
    let look_at_order = look_at_order && plan.taste.trouble != Trouble::Close;
    if look_at_order {
        outcome.check_order()?;
    }
    let mut explorer = Explorer::new(plan.seed);
    explorer.look_at_order = look_at_order;
    explorer.explore(&outcome.run, 0, effort)?;
    let mut tally = explorer.tally;
    if outcome.had_trouble {
        tally += reopen(plan, &outcome)?;
    }
    Ok((outcome, tally))
}

/// Opens the store again on the same machine, with all that its memory has, and cuts the power
/// after that.
fn reopen(plan: &Plan, outcome: &Outcome) -> Result<Tally, String> {
    let mut tally = Tally::default();
    let mut random = Random::stream(plan.seed, 2);
    let (world, setup) = (&outcome.world, plan.setup);
    let mut history = outcome.run.history.clone();
    let point = world.journal().last_point(0, 0);
    let bounds = Bounds::default().killed(&point);
    check(world, setup, bounds, &mut history, &mut random)
        .map_err(|error| format!("opened again after a failure: {error}"))?;
    tally.kills += 1;
    let begin = point.position;
    let journal = world.journal();
    let points = journal.crash_points(8, random.bits());
    for point in points.skip_while(|point| point.position < begin).step_by(5) {
        for image in point.images().take(2) {
            let world = setup.prepare(World::from_image(image, 1));
            let bounds = Bounds::default().cut(&point);
            check(&world, setup, bounds, &mut history.clone(), &mut random).map_err(|error| {
                let position = point.position;
                format!("opened again after a failure, cut after {position}: {error}")
            })?;
            tally.doubles += 1;
        }
    }
    Ok(tally)
}

/// Checks a plan, and says how to see its failure again.
fn insist(plan: &Plan, effort: Effort) -> (Outcome, Tally) {
    match check_plan(plan, effort, true) {
        Ok(done) => done,
        Err(error) => panic!("{error}\n{plan:#?}\n{}", plan.how_to_repeat()),
    }
}

/// Checks `plans`, on all processors. The first failure ends it.
fn insist_on_all(plans: impl Fn(u64) -> (Plan, Effort) + Sync, count: u64) -> Sum {
    let (next, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let sum = Mutex::new(Sum::default());
    let work = || {
        while !is_over.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                break;
            }
            let done = catch_unwind(AssertUnwindSafe(|| {
                let (plan, effort) = plans(number);
                insist(&plan, effort)
            }));
            let (outcome, tally) = done.unwrap_or_else(|panic| {
                is_over.store(true, Ordering::Relaxed);
                resume_unwind(panic)
            });
            let mut sum = sum.lock().unwrap_or_else(PoisonError::into_inner);
            sum.tally += tally;
            sum.schedules += 1;
            sum.steps += outcome.steps;
            sum.commits += outcome.commits;
            sum.troubled += u64::from(outcome.had_trouble);
            sum.overlapping += outcome.overlapping;
            sum.killed += u64::from(outcome.was_killed);
            sum.compacted += u64::from(outcome.was_compacted);
        }
    };
    let workers = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        let working: Vec<_> = (0..workers).map(|_| scope.spawn(work)).collect();
        for worker in working {
            if let Err(panic) = worker.join() {
                resume_unwind(panic);
            }
        }
    });
    sum.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn from_environment(name: &str, default: u64) -> u64 {
    std::env::var(name).map_or(default, |text| text.parse().unwrap())
}

#[test]
fn random_schedules_show_one_history_and_lose_nothing_that_was_told_or_shown() {
    let first = from_environment("HAPPYSTORE_SEED", SEED);
    let count = from_environment("HAPPYSTORE_CLIENT_SCHEDULES", SCHEDULES);
    let sum = insist_on_all(|number| (Plan::new(first + number), EFFORT), count);
    eprintln!("from seed {first}, {} states: {sum:?}", sum.tally.states());
    if count >= 100 {
        assert!(sum.tally.states() >= STATES_PER_SCHEDULE * count, "{sum:?}");
        assert!(sum.troubled * 8 >= count, "{sum:?}");
        assert!(sum.compacted * 12 >= count, "{sum:?}");
    }
}

/// Schedules of several processes on one store, with visitors and deaths.
#[test]
fn processes_on_one_store_show_one_history_and_survive_the_death_of_any() {
    let first = from_environment("HAPPYSTORE_SEED", SEED);
    let count = from_environment("HAPPYSTORE_CLIENT_SCHEDULES", PROCESS_SCHEDULES);
    let plan = |number: u64| {
        let plan = Plan::of_processes(first + number);
        let effort = if plan.is_thorough() {
            EFFORT
        } else {
            LIGHT_EFFORT
        };
        (plan, effort)
    };
    let sum = insist_on_all(plan, count);
    eprintln!("from seed {first}, {} states: {sum:?}", sum.tally.states());
    if count >= 100 {
        assert!(sum.tally.states() >= 5 * count, "{sum:?}");
        assert!(sum.killed * 6 >= count, "{sum:?}");
        assert!(sum.compacted * 12 >= count, "{sum:?}");
    }
}

#[test]
fn a_fixed_set_of_schedules_holds_in_every_way_of_switching() {
    let sum = insist_on_all(|number| (Plan::new(number), EFFORT), 60);
    assert_eq!(sum.schedules, 60);
}

/// Whichever sync of a run fails, whoever waited for it.
#[test]
fn a_sync_that_fails_is_told_to_all_who_waited_and_later_writes_are_refused() {
    let plan = |number: u64| {
        let mut plan = Plan::new(7000 + number / 8);
        plan.writers = 2 + plan.writers / 2;
        plan.taste.sync_percent = plan.taste.sync_percent.max(70);
        plan.taste.os_percent = plan.taste.os_percent.min(30);
        plan.taste.trouble = Trouble::Sync {
            nth: 1 + number % 8,
            is_done: number.is_multiple_of(5),
        };
        (plan, EFFORT)
    };
    let sum = insist_on_all(plan, 160);
    assert!(sum.troubled >= 120, "{sum:?}");
}

/// Whichever call the process dies at.
#[test]
fn a_process_that_dies_beside_itself_loses_nothing_that_was_acknowledged() {
    let plan = |number: u64| {
        let mut plan = Plan::new(8000 + number / 16);
        plan.taste.trouble = Trouble::Kill {
            nth: 1 + number % 16 * 9,
            death: Death::BeforeCall,
        };
        (plan, EFFORT)
    };
    let sum = insist_on_all(plan, 160);
    assert!(sum.troubled >= 120, "{sum:?}");
}

/// Whoever closes, whoever still commits and reads.
#[test]
fn a_store_that_is_closed_while_others_commit_has_all_that_returned() {
    let plan = |number: u64| {
        let mut plan = Plan::new(9000 + number);
        plan.writers = plan.writers.max(2);
        plan.taste.trouble = Trouble::Close;
        (plan, EFFORT)
    };
    insist_on_all(plan, 100);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    for seed in 0..20 {
        let operations = || {
            let outcome = Plan::new(seed).run().unwrap();
            outcome.run.journal.operations().to_vec()
        };
        assert_eq!(operations(), operations(), "seed {seed}");
    }
}

#[test]
fn what_failed_once_never_fails_again() {
    for seed in PAST_FAILURES {
        insist(&Plan::new(seed), EFFORT);
    }
}
