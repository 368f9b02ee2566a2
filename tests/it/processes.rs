//! Other processes: they wait, they are told who holds the store, they may be killed or forked.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use happystore::{Access, Durability, Error, ErrorKind, Options, Result, Store};

/// A child that has a store open and does what it is told, a line at a time.
struct Other {
    child: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Other {
    fn open(path: &Path, how: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
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
            .unwrap();
        let input = child.stdin.take().unwrap();
        let output = BufReader::new(child.stdout.take().unwrap());
        let mut other = Self {
            child,
            input,
            output,
        };
        assert_eq!(other.answer(), "open");
        other
    }

    fn tell(&mut self, what: &str) {
        writeln!(self.input, "{what}").unwrap();
    }

    /// The next line that is ours: the test harness of the child prints lines too.
    fn answer(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert!(
                self.output.read_line(&mut line).unwrap() > 0,
                "the other process has ended"
            );
            if let Some((_, answer)) = line.trim_end().split_once("other: ") {
                return answer.to_owned();
            }
        }
    }

    fn kill(mut self) {
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
        "os" => options.durability(Durability::Os),
        "deferred" => options.durability(Durability::Deferred(Duration::from_secs(1))),
        _ => options,
    };
    let store = options.open(&path).unwrap();
    println!("other: open");
    for line in std::io::stdin().lines() {
        match line.unwrap().as_str() {
            "close" => {
                store.clone().close().unwrap();
                println!("other: closed");
            }
            "write for ever" => write_for_ever(&store),
            "fork" => println!("other: {:?}", fork_and_open(Path::new(&path))),
            "read" => println!("other: {:?}", store.get::<i32>("a").unwrap()),
            other => panic!("unknown: {other}"),
        }
    }
}

/// Forks, and opens the store in the child: whether that finds it locked, by its parent. Done in
/// a process without other threads, whose mutexes the child would find held for ever.
fn fork_and_open(path: &Path) -> bool {
    // SAFETY: no other thread of this process does anything, and the child ends without unwinding.
    let child = unsafe { libc::fork() };
    if child == 0 {
        let opened = impatient(path);
        let locked = opened.is_err_and(|error| error.kind() == ErrorKind::LockTimeout);
        // SAFETY: ends the child at once.
        unsafe { libc::_exit(i32::from(!locked)) };
    }
    let mut status = 0;
    // SAFETY: waits for the child made above, with a valid place for its status.
    unsafe { libc::waitpid(child, &raw mut status, 0) };
    status == 0
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
    let mut other = Other::open(directory.path(), "");
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
fn a_second_process_waits_until_the_first_has_closed() {
    let directory = tempfile::tempdir().unwrap();
    let mut other = Other::open(directory.path(), "");
    let path = directory.path().to_owned();
    let waiting = std::thread::spawn(move || Store::open(path).and_then(|s| s.set("a", &1)));
    other.tell("close");
    assert_eq!(other.answer(), "closed");
    waiting.join().unwrap().unwrap();
    other.kill();
}

#[test]
fn readers_of_several_processes_read_beside_each_other_and_not_beside_a_writer() {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path()).unwrap();
    store.set("a", &7).unwrap();
    store.close().unwrap();
    let mut readers = [
        Other::open(directory.path(), "read"),
        Other::open(directory.path(), "read"),
    ];
    for reader in &mut readers {
        reader.tell("read");
        assert_eq!(reader.answer(), "Some(7)");
    }
    let error = impatient(directory.path()).unwrap_err();
    let Error::LockTimeout { holder, .. } = &error else {
        panic!("{error}")
    };
    assert!(holder.is_none(), "nobody who writes holds it: {error}");
    readers.into_iter().for_each(Other::kill);
    impatient(directory.path()).unwrap();
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
    tx.set("b", &2).unwrap();
    tx.commit().unwrap();
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
