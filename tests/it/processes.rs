//! Other processes: they wait, they are told who holds the store, they may be killed or forked.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use happystore::{
    Access, Durability, Error, ErrorKind, Options, Result, Store, Transaction, TxOptions,
};

use crate::process_cases::raise_if_both_are_0;

/// A child that has a store open and does what it is told, a line at a time.
pub(crate) struct Other {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Other {
    pub(crate) fn open(path: &Path, how: &str) -> Self {
        let command = Command::new(std::env::current_exe().unwrap());
        Self::run(command, path, how).expect("it runs")
    }

    /// The same, run by another program; `None` if that one cannot be run.
    pub(crate) fn start(mut command: Command, path: &Path, how: &str) -> Option<Self> {
        command.arg(std::env::current_exe().unwrap());
        Self::run(command, path, how)
    }

    fn run(mut command: Command, path: &Path, how: &str) -> Option<Self> {
        let mut child = command
            .args([
                "--exact",
                "processes::other_process",
                "--ignored",
                "--nocapture",
            ])
            .env("HAPPYSTORE_OTHER_PATH", path)
            .env("HAPPYSTORE_OTHER_HOW", how)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .ok()?;
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut other = Self {
            child,
            input,
            output,
        };
        let first = other.next_answer()?;
        assert_eq!(first, "open");
        Some(other)
    }

    pub(crate) fn tell(&mut self, what: &str) {
        writeln!(self.input, "{what}").unwrap();
    }

    /// The next line that is ours: the test harness of the child prints lines too.
    pub(crate) fn answer(&mut self) -> String {
        self.next_answer().expect("the other process has ended")
    }

    fn next_answer(&mut self) -> Option<String> {
        loop {
            let mut line = String::new();
            if self.output.read_line(&mut line).unwrap() == 0 {
                return None;
            }
            if let Some((_, answer)) = line.trim_end().split_once("other: ") {
                return Some(answer.to_owned());
            }
        }
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    pub(crate) fn signal(&self, signal: i32) {
        let id = i32::try_from(self.child.id()).unwrap();
        // SAFETY: it is our child, and nobody has waited for it.
        assert_eq!(unsafe { libc::kill(id, signal) }, 0);
    }

    pub(crate) fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

/// Not a test: what [`Other`] runs.
#[test]
#[ignore = "the body of another process, started by tests"]
#[expect(clippy::print_stdout, reason = "its answers are lines")]
fn other_process() {
    let path = std::env::var_os("HAPPYSTORE_OTHER_PATH").unwrap();
    let how = std::env::var("HAPPYSTORE_OTHER_HOW").unwrap();
    let options = Options::new().label("the other process");
    let options = match how.as_str() {
        "read" => options.access(Access::ReadOnly),
        "exclusive" => options.access(Access::Exclusive),
        "os" => options.durability(Durability::Os),
        "deferred" => options.durability(Durability::Deferred(Duration::from_secs(1))),
        _ => options,
    };
    let store = options.open(&path).unwrap();
    println!("other: open");
    let mut lines = std::io::stdin().lines();
    while let Some(line) = lines.next() {
        match line.unwrap().as_str() {
            "close" => {
                store.clone().close().unwrap();
                println!("other: closed");
            }
            "write for ever" => write_for_ever(&store),
            "250 threads" => {
                increment_in_threads(&store);
                println!("other: done");
            }
            "write alone" => {
                for number in 0..ALONE_COMMITS {
                    store.set("a", &number).unwrap();
                }
                println!("other: done");
            }
            "hold until told" => {
                let options = TxOptions::new().label("a long job");
                let tx = store.begin_with(&options).unwrap();
                println!("other: holding");
                assert_eq!(lines.next().unwrap().unwrap(), "commit");
                tx.set("a", &100).unwrap();
                tx.commit().unwrap();
                println!("other: committed");
            }
            "hold and fork" => {
                let _tx = store.begin().unwrap();
                println!("other: {}", fork_and_stay());
                std::thread::sleep(Duration::from_hours(1));
            }
            "fork" => println!("other: {:?}", fork_and_open(Path::new(&path))),
            "read" => println!("other: {:?}", store.get::<i32>("a").unwrap()),
            "raise a if both are 0" => {
                let raised = store.transaction(|tx| raise_if_both_are_0(tx, "a"));
                println!("other: {}", raised.unwrap());
            }
            "increment" => {
                let add = |tx: &Transaction<'_>| -> Result<i32> {
                    let next = tx.get::<i32>("a")?.unwrap_or(0) + 1;
                    tx.set("a", &next)?;
                    Ok(next)
                };
                println!("other: {:?}", store.transaction(add).unwrap());
            }
            "hold" => {
                let options = TxOptions::new().label("a long job");
                let tx = store.begin_with(&options).unwrap();
                println!("other: holding");
                std::thread::sleep(Duration::from_hours(1));
                drop(tx);
            }
            other => panic!("unknown: {other}"),
        }
    }
}

/// Forks, and opens the store in the child: whether it may write there, beside its parent. Done in
/// a process without other threads, whose mutexes the child would find held for ever.
fn fork_and_open(path: &Path) -> bool {
    // SAFETY: no other thread of this process does anything, and the child ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let added = impatient(path).and_then(|store| store.set("of the child", &1));
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(added.is_err())) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above, with a valid place for its status.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    status == 0
}

/// How many commits one who writes alone does.
pub(crate) const ALONE_COMMITS: i32 = 100_000;

/// Adds one to the same key in 250 threads at once.
fn increment_in_threads(store: &Store) {
    std::thread::scope(|scope| {
        for _ in 0..250 {
            scope.spawn(|| {
                let options = TxOptions::new().timeout(Duration::from_mins(2));
                let tx = store.begin_with(&options).unwrap();
                let next = tx.get::<i32>("a").unwrap().unwrap_or(0) + 1;
                tx.set("a", &next).unwrap();
                tx.commit().unwrap();
            });
        }
    });
}

/// Forks a child that does nothing, for as long as its standard input is open.
fn fork_and_stay() -> i32 {
    // SAFETY: no other thread of this process does anything, and the child ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        // SAFETY: waits to be killed.
        unsafe {
            loop {
                libc::pause();
            }
        }
    }
    child
}

/// Says what it has committed, each after the commit has returned.
#[expect(clippy::print_stdout, reason = "its answers are lines")]
fn write_for_ever(store: &Store) {
    for number in 0_u64.. {
        let pairs = (0..3).map(|at| (format!("{number:08}/{at}"), vec![number; 40]));
        store.bulk_set(pairs).unwrap();
        println!("other: {number}");
    }
}

fn impatient(path: &Path) -> Result<Store> {
    Options::new()
        .lock_timeout(Duration::from_millis(50))
        .open(path)
}

#[test]
fn a_second_process_is_told_who_holds_the_store() {
    let directory = tempfile::tempdir().unwrap();
    let mut other = Other::open(directory.path(), "exclusive");
    let error = impatient(directory.path()).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::LockTimeout);
    assert!(error.is_retryable());
    let Error::LockTimeout { waited, holder, .. } = &error else {
        panic!("{error}")
    };
    let holder = holder.as_ref().expect("the holder is known");
    assert!(*waited >= Duration::from_millis(50));
    assert_eq!(holder.process_id, other.child.id());
    assert_eq!(holder.label, "the other process");
    assert!(
        error.to_string().contains(&other.child.id().to_string()),
        "{error}"
    );
    let once = Options::new()
        .lock_timeout(Duration::ZERO)
        .open(directory.path());
    assert_eq!(once.unwrap_err().kind(), ErrorKind::LockTimeout);
    other.tell("close");
    assert_eq!(other.answer(), "closed");
    impatient(directory.path()).unwrap().set("a", &1).unwrap();
    other.kill();
}

#[test]
fn a_forked_child_that_opens_the_store_is_another_process() {
    let directory = tempfile::tempdir().unwrap();
    let mut other = Other::open(directory.path(), "");
    other.tell("fork");
    assert_eq!(other.answer(), "true");
    other.kill();
}

#[test]
fn a_killed_writer_frees_its_locks_though_a_child_that_it_forked_lives() {
    let directory = tempfile::tempdir().unwrap();
    let store = impatient(directory.path()).unwrap();
    let mut other = Other::open(directory.path(), "");
    other.tell("hold and fork");
    let child: i32 = other.answer().parse().unwrap();
    assert_eq!(
        store.set("a", &1).unwrap_err().kind(),
        ErrorKind::LockTimeout
    );
    other.kill();
    let set = store.set("a", &2);
    store.close().unwrap();
    let alone = Options::new()
        .access(Access::Exclusive)
        .lock_timeout(Duration::ZERO)
        .open(directory.path());
    // SAFETY: the child was forked by a process that is dead, and nobody has waited for it.
    let was_there = unsafe { libc::kill(child, libc::SIGKILL) };
    assert_eq!(was_there, 0, "the child was to live on");
    set.unwrap();
    assert_eq!(alone.unwrap().get("a").unwrap(), Some(2));
}

#[test]
fn a_second_process_waits_until_the_first_has_closed() {
    let directory = tempfile::tempdir().unwrap();
    let mut other = Other::open(directory.path(), "exclusive");
    let path = directory.path().to_owned();
    let waiting = std::thread::spawn(move || Store::open(path).and_then(|s| s.set("a", &1)));
    other.tell("close");
    assert_eq!(other.answer(), "closed");
    waiting.join().unwrap().unwrap();
    other.kill();
}

#[test]
fn processes_read_and_write_beside_each_other() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.set("a", &0).unwrap();
    let mut reader = Other::open(directory.path(), "read");
    let mut writers = [
        Other::open(directory.path(), ""),
        Other::open(directory.path(), "os"),
    ];
    for round in 0..30 {
        let expected = 3 * round;
        for (at, writer) in (1..).zip(&mut writers) {
            writer.tell("increment");
            assert_eq!(writer.answer(), (expected + at).to_string());
            assert_eq!(store.get("a").unwrap(), Some(expected + at));
            reader.tell("read");
            assert_eq!(reader.answer(), format!("Some({})", expected + at));
        }
        store.set("a", &(expected + 3)).unwrap();
    }
    // Whoever opens exclusively waits for all of them.
    let exclusive = || {
        let options = Options::new().access(Access::Exclusive);
        let options = options.lock_timeout(Duration::from_millis(20));
        options.open(directory.path())
    };
    store.close().unwrap();
    assert_eq!(exclusive().unwrap_err().kind(), ErrorKind::LockTimeout);
    writers.into_iter().for_each(Other::kill);
    assert_eq!(exclusive().unwrap_err().kind(), ErrorKind::LockTimeout);
    reader.kill();
    let store = exclusive().unwrap();
    assert_eq!(store.get("a").unwrap(), Some(90));
}

#[test]
fn a_transaction_of_another_process_is_named_to_those_who_wait_and_ends_with_it() {
    let directory = tempfile::tempdir().unwrap();
    let store = impatient(directory.path()).unwrap();
    store.set("a", &1).unwrap();
    let mut other = Other::open(directory.path(), "");
    other.tell("hold");
    assert_eq!(other.answer(), "holding");
    let error = store.set("a", &2).unwrap_err();
    let Error::LockTimeout { waited, holder, .. } = &error else {
        panic!("{error}")
    };
    let holder = holder.as_ref().expect("the holder is known");
    assert!(*waited >= Duration::from_millis(50));
    assert_eq!(holder.process_id, other.child.id());
    assert_eq!(holder.label, "a long job");
    assert!(holder.held_for >= Duration::from_millis(50));
    // Whoever waits behind a thread that waits for that process is told of the same holder.
    let patient = Options::new()
        .lock_timeout(Duration::from_secs(1))
        .label("patient")
        .open(directory.path())
        .unwrap();
    let told = std::thread::scope(|scope| {
        let first = scope.spawn(|| patient.set("a", &2).unwrap_err());
        std::thread::sleep(Duration::from_millis(200));
        let second = store.set("a", &2).unwrap_err();
        [second, first.join().unwrap()]
    });
    for error in told {
        let Error::LockTimeout { holder, .. } = &error else {
            panic!("{error}")
        };
        let holder = holder.as_ref().expect("the holder is known");
        assert_eq!(holder.process_id, other.child.id(), "{error}");
        assert_eq!(holder.label, "a long job");
    }
    let opened = Options::new()
        .lock_timeout(Duration::ZERO)
        .open(directory.path());
    assert!(opened.is_ok(), "this process has it open already");
    assert_eq!(store.get("a").unwrap(), Some(1), "readers wait for nobody");
    other.kill();
    store.set("a", &3).unwrap();
    assert_eq!(store.get("a").unwrap(), Some(3));
}

#[test]
fn a_killed_writer_loses_nothing_it_was_told_is_committed() {
    let mut kills = 0;
    for how in ["sync", "deferred", "os"] {
        let directory = tempfile::tempdir().unwrap();
        for round in 0..10 {
            let mut other = Other::open(directory.path(), how);
            other.tell("write for ever");
            let mut last = 0;
            for _ in 0..=round * 20 {
                last = other.answer().parse::<u64>().unwrap();
            }
            other.kill();
            kills += 1;
            let store = impatient(directory.path()).unwrap();
            store.verify().unwrap();
            for number in 0..=last {
                let keys = (0..3).map(|at| format!("{number:08}/{at}"));
                let values = store.bulk_get::<Vec<u64>>(keys).unwrap();
                assert!(
                    values
                        .iter()
                        .all(|value| value.as_ref() == Some(&vec![number; 40]))
                );
            }
            // What was begun and not acknowledged is there as a whole, or not at all.
            assert_eq!(store.query().count().unwrap() % 3, 0);
            assert_eq!(store.query().delete().unwrap() % 3, 0);
            store.close().unwrap();
        }
    }
    assert_eq!(kills, 30);
}

#[test]
fn a_forked_child_gets_errors_and_frees_nothing_of_its_parent() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.set("a", &1).unwrap();
    let tx = store.begin().unwrap();
    let iterator = store.query().iter::<i32>().unwrap();
    // SAFETY: the child calls only this crate, which promises to touch no lock there, and ends
    // without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let forked = |error: Error| error.kind() == ErrorKind::Forked;
        let all = [
            store.get::<i32>("a").is_err_and(forked),
            store.set("a", &2).is_err_and(forked),
            store.begin().is_err_and(forked),
            store.snapshot().is_err_and(forked),
            store.stats().is_err_and(forked),
            store.sync().is_err_and(forked),
            tx.set("a", &3).is_err_and(forked),
            tx.commit().is_err_and(forked),
            iterator
                .into_iter()
                .next()
                .is_some_and(|pair| pair.is_err_and(forked)),
            store.close().is_err_and(forked),
        ];
        let code = all
            .iter()
            .position(|ok| !ok)
            .map_or(0, |at| i32::try_from(at).unwrap() + 1);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(code) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above, with a valid place for its status.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    assert_eq!(
        status, 0,
        "the assertion of this number, shifted by 8, failed in the child"
    );
    let second = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "processes::impatient_process", "--ignored"])
        .env("HAPPYSTORE_OTHER_PATH", directory.path())
        .output()
        .unwrap();
    assert!(
        second.status.success(),
        "{}",
        String::from_utf8_lossy(&second.stdout)
    );
    tx.set("b", &2).unwrap();
    tx.commit().unwrap();
    store.close().unwrap();
    let store = impatient(directory.path()).unwrap();
    assert_eq!(
        store.bulk_get::<i32>(["a", "b"]).unwrap(),
        [Some(1), Some(2)]
    );
}

/// Not a test: finds the store locked.
#[test]
#[ignore = "the body of another process, started by a test"]
fn impatient_process() {
    let path = std::env::var_os("HAPPYSTORE_OTHER_PATH").unwrap();
    assert_eq!(
        impatient(Path::new(&path)).unwrap_err().kind(),
        ErrorKind::LockTimeout
    );
}
