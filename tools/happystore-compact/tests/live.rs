//! The program beside others, at a terminal, and interrupted.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests look at the real machine")]

use std::collections::BTreeSet;
use std::fs::{File, OpenOptions};
use std::io::{BufRead, BufReader, Read as _, Write as _};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::time::Duration;

use happystore::{Access, Compaction, Create, Durability, Options, Store};
use rustix::process::{Pid, Signal, kill_process};
use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use serde_json::Value;

fn tool() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_happystore-compact"));
    command.stdin(Stdio::null()).env_remove("NO_COLOR");
    command
}

fn options() -> Options {
    Options::new()
        .durability(Durability::Os)
        .compaction(Compaction::manual())
        .segment_bytes(64 << 10)
        .lock_timeout(Duration::from_mins(1))
}

/// So many commits set keys that nobody sets again.
const COLD: u64 = 1000;

/// A process that writes to a store until it is told to end.
struct Writer {
    process: Child,
    input: ChildStdin,
    output: BufReader<std::process::ChildStdout>,
}

impl Writer {
    fn start(path: &Path) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "writing_process", "--ignored", "--nocapture"])
            .env("HAPPYSTORE_TOOL_PATH", path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = process.stdin.take().unwrap();
        let output = BufReader::new(process.stdout.take().unwrap());
        let mut writer = Self {
            process,
            input,
            output,
        };
        writer.hear("writing");
        writer
    }

    /// What it says behind `word`.
    fn hear(&mut self, word: &str) -> String {
        let mut line = String::new();
        loop {
            line.clear();
            assert!(self.output.read_line(&mut line).unwrap() > 0, "it ended");
            if let Some((_, rest)) = line.split_once(word) {
                return rest.trim().to_owned();
            }
        }
    }

    /// Ends it; how many commits it has made.
    fn end(mut self) -> u64 {
        self.input.write_all(b"end\n").unwrap();
        let commits = self.hear("commits:").parse().unwrap();
        assert!(self.process.wait().unwrap().success());
        commits
    }
}

#[test]
#[ignore = "a process of other tests"]
fn writing_process() {
    let path = std::env::var_os("HAPPYSTORE_TOOL_PATH").unwrap();
    let store = options().label("busy").open(Path::new(&path)).unwrap();
    let (sender, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let mut line = String::new();
        std::io::stdin().read_line(&mut line).unwrap();
        sender.send(()).unwrap();
    });
    let mut out = std::io::stdout();
    let mut commits = 0_u64;
    while told.try_recv().is_err() {
        commits += 1;
        store
            .set(&key(commits), &(commits, vec![7_u8; 40]))
            .unwrap();
        if commits == 2000 {
            writeln!(out, "writing").unwrap();
        }
        if commits > 2000 && commits.is_multiple_of(20) {
            // Others want to look at all of it.
            std::thread::sleep(Duration::from_millis(1));
        }
    }
    store.verify().unwrap();
    store.close().unwrap();
    writeln!(out, "commits: {commits}").unwrap();
}

fn key(commit: u64) -> String {
    if commit <= COLD {
        return format!("cold{commit}");
    }
    format!("key{}", commit % 500)
}

/// What the store in `path` holds is what so many commits leave.
fn check(path: &Path, commits: u64) {
    let store = options()
        .create(Create::Never)
        .access(Access::ReadOnly)
        .open(path)
        .unwrap();
    store.verify().unwrap();
    let pairs = store.scan().iter::<(u64, Vec<u8>)>().unwrap();
    let found: Vec<(String, u64)> = pairs
        .map(|pair| pair.map(|(key, (commit, _))| (key, commit)).unwrap())
        .collect();
    let living = (1..=COLD).chain(commits.saturating_sub(500).max(COLD) + 1..=commits);
    let mut expected: Vec<_> = living.map(|n| (key(n), n)).collect();
    expected.sort();
    assert!(found == expected, "not what {commits} commits leave");
}

fn done(command: &mut Command) -> String {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn everything_works_on_a_store_that_others_write_to() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let writer = Writer::start(&path);
    let json = |task: &[&str]| -> Value {
        let mut command = tool();
        command.args(task).arg(&path).arg("--json");
        serde_json::from_str(&done(&mut command)).unwrap()
    };
    let stats = json(&["stats"]);
    assert_eq!(stats["holders"], serde_json::json!([writer.process.id()]));
    assert!(stats["versions"].as_u64() >= stats["keys"].as_u64());
    assert!(json(&["--dry-run"])["dead_bytes"].as_u64() > Some(0));
    assert_eq!(json(&["verify"])["whole"], true);
    assert_eq!(json(&[])["finished"], true);
    assert_eq!(json(&["--min-dead", "0.3"])["finished"], true);
    let after = json(&["stats"]);
    assert!(
        after["hinted_segments"].as_u64() > Some(0) && after["hint_bytes"].as_u64() > Some(0),
        "{after}"
    );
    let lines = done(tool().arg("dump").arg(&path));
    assert!(lines.contains(" batch ") && lines.contains(" moved "));
    let json_lines = done(tool().arg("dump").arg(&path).arg("--json"));
    for line in json_lines.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert!(
            line["sequence"].is_u64() && line["offset"].is_u64(),
            "{line}"
        );
    }
    // Two commits, which leave nothing.
    for line in [
        &b"{\"key\":\"loaded\",\"value_hex\":\"01\"}\n"[..],
        b"{\"key\":\"loaded\"}\n",
    ] {
        let mut load = tool();
        load.arg("load").arg(&path);
        let mut load = load
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        load.stdin.take().unwrap().write_all(line).unwrap();
        assert!(load.wait().unwrap().success());
    }
    let backup = directory.path().join("backup");
    let mut sequence = 0;
    for _ in 0..5 {
        let mut command = tool();
        command.arg("backup").arg(&path).arg(&backup).arg("--json");
        let report: Value = serde_json::from_str(&done(&mut command)).unwrap();
        let now = report["sequence"].as_u64().unwrap();
        assert!(now > sequence);
        sequence = now;
        check(&backup, now - 2);
    }
    let commits = writer.end();
    assert!(commits >= sequence - 2);
    check(&path, commits);
    assert_eq!(json(&["stats"])["holders"], serde_json::json!([]));
}

#[test]
fn a_dump_takes_no_lock() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store: Store = options().access(Access::Exclusive).open(&path).unwrap();
    store.set("a", &1).unwrap();
    store.delete("a").unwrap();
    let lines = done(tool().arg("dump").arg(&path));
    let lines: Vec<&str> = lines.lines().collect();
    assert_eq!(lines.len(), 2, "{lines:?}");
    assert!(lines[0].ends_with("#1 batch \"a\" 1 bytes"), "{lines:?}");
    assert!(lines[1].ends_with("#2 batch \"a\" deleted"), "{lines:?}");
    let other = tool().arg("stats").arg(&path).output().unwrap();
    assert_eq!(other.status.code(), Some(1), "all else needs one");
}

/// Runs `command` at a terminal: what is seen there.
fn at_terminal(command: &mut Command) -> String {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let open = || -> File {
        let mut options = OpenOptions::new();
        options.read(true).write(true);
        options.open(name.to_str().unwrap()).unwrap()
    };
    command.stdin(open()).stdout(open()).stderr(open());
    let mut process = command.spawn().unwrap();
    // Else the terminal never ends.
    command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null());
    let mut seen = Vec::new();
    let mut piece = [0; 4096];
    let mut terminal = File::from(terminal);
    // Where nobody has it open any more, reading it is an error.
    while let Ok(got) = terminal.read(&mut piece)
        && got > 0
    {
        seen.extend_from_slice(&piece[..got]);
    }
    let status = process.wait().unwrap();
    let seen = String::from_utf8_lossy(&seen).into_owned();
    assert!(status.success(), "{seen}");
    seen
}

/// A store of several segments, all of them to be rewritten.
fn make(path: &Path) -> u64 {
    let store = options().open(path).unwrap();
    for commit in 1..=20_000 {
        store.set(&key(commit), &(commit, vec![7_u8; 40])).unwrap();
    }
    for commit in 1..=6000_u32 {
        store
            .set(&format!("more{commit}"), &vec![commit; 40])
            .unwrap();
    }
    for commit in 1..=6000_u32 {
        store.delete(&format!("more{commit}")).unwrap();
    }
    store.close().unwrap();
    20_000
}

#[test]
fn a_terminal_sees_a_progress_bar_and_colours_and_nobody_else_does() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = options().open(&path).unwrap();
    for n in 0..20_000_u32 {
        store.set(&format!("key{n}"), &vec![n; 40]).unwrap();
    }
    store.close().unwrap();
    let colours = ["\u{1b}[32m", "\u{1b}[31m"];
    let seen = at_terminal(tool().arg("stats").arg(&path));
    assert!(colours.iter().all(|colour| seen.contains(colour)), "{seen}");
    let seen = at_terminal(tool().arg("stats").arg(&path).env("NO_COLOR", "1"));
    assert!(!seen.contains('\u{1b}') && seen.contains('█'), "{seen}");
    assert!(!done(tool().arg("stats").arg(&path)).contains('\u{1b}'));
    let output: Output = tool().arg(&path).arg("--dry-run").output().unwrap();
    assert!(output.stderr.is_empty());
    let seen = at_terminal(tool().arg(&path).args(["--rate-limit", "4000000"]));
    let has_bar = |line: &str| line.contains('█') && line.contains(" MiB of ");
    assert!(seen.split(['\r', '\n']).any(has_bar), "{seen}");
    assert!(seen.contains("compacted: "), "{seen}");
    store_is_compact(&path);
    let output = tool().arg(&path).output().unwrap();
    assert!(output.stderr.is_empty(), "a bar where nobody sees it");
}

fn store_is_compact(path: &Path) {
    let left = done(tool().arg(path).args(["--dry-run", "--json"]));
    let left: Value = serde_json::from_str(&left).unwrap();
    assert_eq!(left["segments"], 0, "{left}");
}

fn segments(path: &Path) -> BTreeSet<String> {
    let names = std::fs::read_dir(path).unwrap();
    let names = names.map(|name| name.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.contains(".seg")).collect()
}

#[test]
fn who_interrupts_it_anywhere_keeps_a_whole_store() {
    let directory = tempfile::tempdir().unwrap();
    for mebibytes in [0, 2, 4] {
        let path = directory.path().join(format!("store{mebibytes}"));
        let store = options().open(&path).unwrap();
        for n in 0..6000_u32 {
            store.set(&format!("key{n}"), &vec![n; 400]).unwrap();
        }
        store.close().unwrap();
        let before = segments(&path);
        let mut running = tool()
            .arg(&path)
            .args(["--rate-limit", "4000000", "--json"])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        // In the middle: so much of the output is there.
        let is_written = |name: &String| {
            let found = std::fs::metadata(path.join(name));
            found.is_ok_and(|found| found.len() > mebibytes << 20)
        };
        // At first there is an empty segment, for what is committed meanwhile.
        let wanted = if mebibytes == 0 { 2 } else { 1 };
        let written = |now: &BTreeSet<String>| {
            let made = now.difference(&before);
            made.filter(|name| is_written(name)).count()
        };
        while written(&segments(&path)) < wanted {
            assert!(running.try_wait().unwrap().is_none(), "it ended");
            std::thread::sleep(Duration::from_millis(1));
        }
        let process = Pid::from_child(&running);
        kill_process(process, Signal::INT).unwrap();
        let output = running.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(130), "{output:?}");
        let value: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(value["finished"], false);
        let store = options().create(Create::Never).open(&path).unwrap();
        store.verify().unwrap();
        assert_eq!(store.query().count().unwrap(), 6000);
        for n in (0..6000_u32).step_by(101) {
            assert_eq!(store.get(&format!("key{n}")).unwrap(), Some(vec![n; 400]));
        }
        store.close().unwrap();
        done(tool().arg(&path));
        store_is_compact(&path);
    }
}

#[test]
fn who_interrupts_or_kills_a_backup_can_take_it_again() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let commits = make(&path);
    for (number, signal) in [Signal::INT, Signal::KILL, Signal::TERM]
        .into_iter()
        .enumerate()
    {
        let to = directory.path().join(format!("backup{number}"));
        let mut running = tool()
            .arg("backup")
            .arg(&path)
            .arg(&to)
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        while !to.exists() && running.try_wait().unwrap().is_none() {
            std::thread::yield_now();
        }
        // It may have ended by now.
        let _ = kill_process(Pid::from_child(&running), signal);
        running.wait().unwrap();
        check(&path, commits);
        done(tool().arg("backup").arg(&path).arg(&to));
        check(&to, commits);
    }
}
