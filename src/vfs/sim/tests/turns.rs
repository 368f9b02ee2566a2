//! Clients that take turns: one at a time, repeatable, and none forgotten.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use super::super::super::{Next, Signal};
use super::*;

const PATIENCE: Duration = Duration::from_secs(1);

const STYLES: [Style; 6] = [
    Style::Always,
    Style::Rarely(5),
    Style::Prefer(1),
    Style::Starve(0),
    Style::Ranked(3),
    Style::Ranked(30),
];

/// Runs `bodies` in turns.
fn take_turns(world: &World, style: Style, seed: u64, bodies: &[&(dyn Fn() + Sync)]) -> Arc<Turns> {
    let turns = Turns::new(world, bodies.len(), style, PATIENCE, seed);
    world.set_schedule(Some(turns.clone()));
    thread::scope(|scope| {
        for (client, body) in bodies.iter().enumerate() {
            let turns = &turns;
            scope.spawn(move || turns.run(client, body));
        }
    });
    world.set_schedule(None);
    turns
}

/// Which bytes three clients wrote, in order.
fn writes(style: Style, seed: u64) -> Vec<Operation> {
    let (world, process) = world();
    let running = AtomicUsize::new(0);
    let write = |path: &str| {
        let file = open(&process, path);
        for n in 0..8 {
            assert_eq!(running.fetch_add(1, Ordering::SeqCst), 0, "two run at once");
            (0..500).for_each(|_| std::hint::spin_loop());
            running.fetch_sub(1, Ordering::SeqCst);
            file.write_at(n, b"x").unwrap();
        }
    };
    let bodies: [&(dyn Fn() + Sync); 3] = [&|| write("/d/a"), &|| write("/d/b"), &|| write("/d/c")];
    let turns = take_turns(&world, style, seed, &bodies);
    assert_eq!(turns.hang(), None);
    // Before and behind each call.
    assert_eq!(turns.step_count(), 3 * 9 * 2);
    world.journal().operations().to_vec()
}

#[test]
fn the_same_seed_gives_the_same_order_and_another_seed_another_one() {
    for style in STYLES {
        let first = writes(style, 1);
        assert_eq!(first, writes(style, 1), "{style:?}");
        let others = (2..6).filter(|seed| writes(style, *seed) != first);
        assert!(others.count() >= 3, "{style:?}");
    }
}

#[test]
fn each_client_has_a_thread_id_of_its_own_and_keeps_it() {
    for style in STYLES {
        let (world, process) = world();
        let body = || {
            let mine = process.thread_id();
            for _ in 0..20 {
                process.list(Path::new("/d")).unwrap();
                assert_eq!(process.thread_id(), mine);
            }
        };
        take_turns(&world, style, 1, &[&body, &body, &body]);
    }
}

#[test]
fn a_signal_that_is_raised_ends_a_wait_long_before_its_deadline() {
    for style in STYLES {
        for seed in 0..20 {
            let (world, process) = world();
            let signals = [process.signal(), process.signal()];
            let hour = Duration::from_hours(1);
            let first = || {
                signals[0].raise();
                assert!(signals[1].wait(hour));
            };
            let second = || {
                assert!(signals[0].wait(hour));
                process.sleep(Duration::from_millis(5));
                signals[1].raise();
            };
            let turns = take_turns(&world, style, seed, &[&first, &second]);
            assert_eq!(turns.hang(), None);
            assert!(world.now() < Duration::from_millis(6), "{:?}", world.now());
        }
    }
}

#[test]
fn the_clock_moves_to_the_earliest_deadline_when_all_are_idle() {
    let (world, process) = world();
    let sleep = |milliseconds: u64| process.sleep(Duration::from_millis(milliseconds));
    let short = || {
        sleep(10);
        assert!(process.monotonic() < Duration::from_millis(11));
        sleep(10);
    };
    let long = || {
        sleep(30);
        assert!(process.monotonic() >= Duration::from_millis(30));
    };
    let turns = take_turns(&world, Style::Always, 1, &[&long, &short]);
    assert_eq!(turns.hang(), None);
}

#[test]
fn clients_that_wait_for_each_other_are_a_hang() {
    for style in STYLES {
        let (world, process) = world();
        let signals = [process.signal(), process.signal()];
        let wait = |signal: &Arc<dyn Signal>| {
            // As one who looks again from time to time, in case.
            let deadline = process.monotonic() + Duration::from_mins(1);
            assert!(!signal.wait(deadline));
        };
        let turns = take_turns(
            &world,
            style,
            1,
            &[&|| wait(&signals[0]), &|| wait(&signals[1])],
        );
        assert!(turns.hang().unwrap().contains("client 1: Idle"));
    }
}

#[test]
fn a_lost_raise_is_a_hang() {
    let (world, process) = world();
    world.plant(Plant::LostRaises);
    let signals: Vec<_> = (0..8).map(|_| process.signal()).collect();
    let minute = Duration::from_mins(1);
    let raise = || signals.iter().for_each(|signal| signal.raise());
    let wait = || {
        let raised = signals.iter().filter(|signal| signal.wait(minute));
        assert_eq!(raised.count(), 7);
    };
    let turns = take_turns(&world, Style::Always, 1, &[&raise, &wait]);
    assert!(turns.hang().is_some());
}

#[test]
fn background_steps_run_when_due_until_all_others_are_done() {
    for style in STYLES {
        let (world, process) = world();
        let steps = Arc::new(AtomicUsize::new(0));
        let (was_idle, ids) = (AtomicBool::new(false), process.clone());
        let counted = steps.clone();
        let work = || {
            let (counted, process) = (counted.clone(), ids.clone());
            let worker = process.clone().spawn(
                "counts",
                Box::new(move || {
                    let mine = process.thread_id();
                    process.list(Path::new("/d")).unwrap();
                    assert_eq!(process.thread_id(), mine);
                    counted.fetch_add(1, Ordering::SeqCst);
                    Next::After(Duration::from_millis(10))
                }),
            );
            ids.sleep(Duration::from_millis(35));
            was_idle.store(true, Ordering::SeqCst);
            worker.unwrap().stop();
        };
        let turns = Turns::new(&world, 2, style, PATIENCE, 1);
        world.set_schedule(Some(turns.clone()));
        let after = AtomicUsize::new(0);
        thread::scope(|scope| {
            scope.spawn(|| {
                let count = |_| {
                    after.fetch_add(1, Ordering::SeqCst);
                };
                turns.run(0, || turns.run_background(count));
            });
            scope.spawn(|| turns.run(1, work));
        });
        world.set_schedule(None);
        assert!(was_idle.load(Ordering::SeqCst));
        assert_eq!(steps.load(Ordering::SeqCst), 4, "{style:?}");
        assert!(after.load(Ordering::SeqCst) >= 4, "{style:?}");
        assert_eq!(turns.hang(), None);
    }
}

#[test]
fn a_client_that_panics_leaves_the_turns_to_the_others() {
    let (world, process) = world();
    let turns = Turns::new(&world, 2, Style::Always, PATIENCE, 1);
    world.set_schedule(Some(turns.clone()));
    thread::scope(|scope| {
        let panics = scope.spawn(|| {
            turns.run(0, || {
                process.list(Path::new("/d")).unwrap();
                panic!("as it is meant to");
            })
        });
        let goes_on = scope.spawn(|| {
            turns.run(1, || {
                (0..9).for_each(|_| drop(process.list(Path::new("/d"))));
            });
        });
        assert!(panics.join().is_err());
        goes_on.join().unwrap();
    });
    world.set_schedule(None);
}

#[test]
fn a_segment_s_sync_fails_as_planned_and_no_other_file_s() {
    let (world, process) = world();
    let (segment, other) = (open(&process, "/d/1.seg"), open(&process, "/d/other"));
    segment.sync().unwrap();
    world.fail_segment_sync(2, Fault::once(FaultEffect::Clean, io::ErrorKind::Other));
    segment.sync().unwrap();
    other.sync().unwrap();
    segment.sync().unwrap_err();
    assert_eq!(world.faults_fired(), 1);
    segment.sync().unwrap();
}

#[test]
fn a_write_may_come_between_a_sync_and_its_return() {
    let came_between = |seed: &u64| {
        let (world, process) = world();
        let file = open(&process, "/d/a");
        let is_synced = AtomicBool::new(false);
        let writes = || {
            file.write_at(0, b"x").unwrap();
            !is_synced.load(Ordering::SeqCst)
        };
        let was_between = AtomicBool::new(false);
        let sync = || {
            file.sync().unwrap();
            is_synced.store(true, Ordering::SeqCst);
        };
        let write = || was_between.store(writes(), Ordering::SeqCst);
        take_turns(&world, Style::Always, *seed, &[&sync, &write]);
        let is_pending = contents(&world, 9, "/d/a").len() > 1;
        is_pending && was_between.load(Ordering::SeqCst)
    };
    assert!((0..50).any(|seed| came_between(&seed)));
}
