//! Processes that write to one store, killed while others wait for them and go on.
//!
//! Each writer commits units: three keys of its own with the unit's number, and a count of all units
//! of all writers, raised by one in the same transaction. It tells every unit that was committed. So
//! the count says how many units there are, of whomever, and each of them is whole or not at all.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread;
use std::time::{Duration, Instant};

use happystore::vfs::sim::Random;
use happystore::{Durability, Options, Result, Store, Transaction};

/// How many processes are killed, at least.
const KILLS: usize = 160;

/// How many write at a time.
const WRITERS: usize = 3;

/// After which time those who live on are taken for stuck. How long it takes them is printed: on a
/// machine that does nothing else, a few hundredths of a second.
const STUCK_AFTER: Duration = Duration::from_secs(15);

/// A process that commits units.
struct Writer {
    child: Child,
    /// Its name in the keys.
    id: u64,
    units: Receiver<u64>,
    /// The last unit it told of.
    last: Option<u64>,
}

impl Writer {
    fn start(path: &Path, id: u64) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args([
                "--exact",
                "process_kills::writing_process",
                "--ignored",
                "--nocapture",
            ])
            .env("HAPPYSTORE_UNITS_PATH", path)
            .env("HAPPYSTORE_UNITS_ID", id.to_string())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let (sender, units) = channel();
        thread::spawn(move || {
            for line in output.lines().map_while(std::result::Result::ok) {
                let unit = line.split_once("unit: ").map(|(_, unit)| unit.parse());
                if let Some(Ok(unit)) = unit
                    && sender.send(unit).is_err()
                {
                    break;
                }
            }
        });
        Self {
            child,
            id,
            units,
            last: None,
        }
    }

    /// Takes note of what it has told.
    fn listen(&mut self) {
        while let Ok(unit) = self.units.try_recv() {
            self.last = Some(unit);
        }
    }

    /// Waits for one more unit; false if it takes too long.
    fn goes_on(&mut self, deadline: Instant) -> bool {
        self.listen();
        let left = deadline.saturating_duration_since(Instant::now());
        match self.units.recv_timeout(left) {
            Ok(unit) => {
                self.last = Some(unit);
                true
            }
            Err(RecvTimeoutError::Timeout) => false,
            Err(RecvTimeoutError::Disconnected) => panic!("a writer ended by itself"),
        }
    }

    /// Stops it, wherever it is.
    fn stop(&self) {
        let kill = format!("kill -STOP {}", self.child.id());
        let sent = Command::new("sh").args(["-c", &kill]).status().unwrap();
        assert!(sent.success());
    }

    /// Kills it; gives its name and the last unit it told of before.
    fn kill(mut self) -> (u64, Option<u64>) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // What it told before it died is in the pipe.
        while let Ok(unit) = self.units.recv() {
            self.last = Some(unit);
        }
        (self.id, self.last)
    }
}

/// Not a test: a process that commits units until it is killed.
#[test]
#[ignore = "the body of another process, started by a test"]
#[expect(clippy::print_stdout, reason = "its answers are lines")]
fn writing_process() {
    let path = std::env::var_os("HAPPYSTORE_UNITS_PATH").unwrap();
    let id: u64 = std::env::var("HAPPYSTORE_UNITS_ID")
        .unwrap()
        .parse()
        .unwrap();
    let durability = match id % 3 {
        0 => Durability::Sync,
        1 => Durability::Os,
        _ => Durability::Deferred(Duration::from_millis(5)),
    };
    let store = options().durability(durability).open(path).unwrap();
    for unit in 0.. {
        let commit = |tx: &Transaction<'_>| -> Result<()> {
            for part in 0..3 {
                tx.set(&format!("{id:06}/{unit:08}/{part}"), &unit)?;
            }
            let count = tx.get::<u64>("count")?.unwrap_or(0);
            tx.set("count", &(count + 1))
        };
        store.transaction(commit).unwrap();
        println!("unit: {unit}");
    }
}

/// Small segments, so that many are begun.
fn options() -> Options {
    Options::new()
        .segment_bytes(16 << 10)
        .lock_timeout(Duration::from_secs(20))
}

/// Checks that all units that were told of are there, and that all that are there are whole.
fn check(store: &Store, dead: &[(u64, Option<u64>)]) {
    let snapshot = store.snapshot().unwrap();
    let mut parts: BTreeMap<(u64, u64), usize> = BTreeMap::new();
    for key in snapshot.query().range("0".."9:").keys().unwrap() {
        let mut words = key.split('/');
        let mut number = || words.next().unwrap().parse::<u64>().unwrap();
        *parts.entry((number(), number())).or_default() += 1;
    }
    assert!(parts.values().all(|&parts| parts == 3), "a unit is torn");
    let count = snapshot.get::<u64>("count").unwrap().unwrap_or(0);
    assert_eq!(
        parts.len() as u64,
        count,
        "a unit was lost, or counted twice"
    );
    for &(id, last) in dead {
        let there = parts.range((id, 0)..(id + 1, 0)).count() as u64;
        let told = last.map_or(0, |last| last + 1);
        assert!(
            there == told || there == told + 1,
            "writer {id} told of {told} units, and there are {there}"
        );
    }
}

#[test]
fn killed_processes_lose_nothing_they_told_and_keep_nobody_waiting() {
    let mut random = Random::new(1);
    let (mut kills, mut next_id) = (0, 0);
    let mut longest = Duration::ZERO;
    while kills < KILLS {
        // A store of its own for each round: others write while one opens, the more the longer it
        // takes.
        let directory = tempfile::tempdir().unwrap();
        let mut start = || {
            next_id += 1;
            Writer::start(directory.path(), next_id)
        };
        let mut dead = Vec::new();
        let mut beside = Some(options().open(directory.path()).unwrap());
        let mut writers: Vec<Writer> = (0..WRITERS).map(|_| start()).collect();
        // All kinds of death but for the last round's are of one writer beside others.
        for _ in 0..6 {
            for writer in &mut writers {
                let deadline = Instant::now() + Duration::from_secs(20);
                assert!(writer.goes_on(deadline), "a writer does not begin");
            }
            thread::sleep(Duration::from_micros(random.below(4000)));
            let victim = writers.swap_remove(random.index(writers.len()));
            if random.below(3) == 0 {
                // Perhaps with the writer lock.
                victim.stop();
                thread::sleep(Duration::from_millis(random.below(20)));
            }
            dead.push(victim.kill());
            kills += 1;
            for writer in &mut writers {
                let died = Instant::now();
                let went_on = writer.goes_on(died + STUCK_AFTER);
                longest = longest.max(died.elapsed());
                assert!(went_on, "after a death, writer {} waits", writer.id);
            }
            writers.push(start());
        }
        // All at once; half of the time nobody is left then.
        if random.coin() {
            beside = None;
        }
        for writer in &mut writers {
            writer.child.kill().unwrap();
        }
        dead.extend(writers.into_iter().map(Writer::kill));
        kills += WRITERS;
        let store = beside.take();
        let store = store.unwrap_or_else(|| options().open(directory.path()).unwrap());
        check(&store, &dead);
        store.verify().unwrap();
    }
    eprintln!("{kills} processes killed; others went on within {longest:?}");
}
