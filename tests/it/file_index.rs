//! The `file_index` example does what it tells its users: run as a program, on trees made here.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

use tempfile::TempDir;

/// The example's binary, which `cargo test` builds beside the tests. A run of this target alone
/// does not, and has it built.
static PROGRAM: LazyLock<PathBuf> = LazyLock::new(|| {
    let test = std::env::current_exe().unwrap();
    let profile = test.parent().unwrap().parent().unwrap();
    let program = profile
        .join("examples/file_index")
        .with_extension(std::env::consts::EXE_EXTENSION);
    if !program.exists() {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.args(["build", "--example", "file_index", "--manifest-path"]);
        cargo.arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"));
        cargo.arg("--target-dir").arg(profile.parent().unwrap());
        if profile.ends_with("release") {
            cargo.arg("--release");
        }
        assert!(
            cargo.status().unwrap().success(),
            "the example was not built"
        );
    }
    program
});

/// A tree, and beside it a directory for caches.
struct Place {
    _directory: TempDir,
    tree: PathBuf,
    caches: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let (tree, caches) = (
            directory.path().join("tree"),
            directory.path().join("caches"),
        );
        fs::create_dir(&tree).unwrap();
        Self {
            _directory: directory,
            tree,
            caches,
        }
    }

    /// Two files at the top, three below `a`, one below `b`: nine entries with the directories.
    fn filled() -> Self {
        let place = Self::new();
        for directory in ["a/deep", "b"] {
            fs::create_dir_all(place.tree.join(directory)).unwrap();
        }
        place.write("one.txt", b"one");
        place.write("two.TXT", b"two");
        place.write("a/three.rs", b"three three three");
        place.write("a/deep/four.rs", b"4");
        place.write("a/deep/five", &vec![5; 300_000]);
        place.write("b/six.txt", b"six");
        place
    }

    fn write(&self, path: &str, content: &[u8]) {
        fs::write(self.tree.join(path), content).unwrap();
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&*PROGRAM);
        command.env("XDG_CACHE_HOME", &self.caches);
        command
    }

    fn run(&self) -> Report {
        self.run_with(&[])
    }

    fn run_with(&self, arguments: &[&str]) -> Report {
        Report::of(
            self.command()
                .arg(&self.tree)
                .args(arguments)
                .output()
                .unwrap(),
        )
    }
}

/// What the program printed.
struct Report(String);

impl Report {
    fn of(output: Output) -> Self {
        let errors = String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success(), "{errors}");
        assert_eq!(errors, "", "no progress is shown where nobody watches");
        Self(String::from_utf8(output.stdout).unwrap())
    }

    /// Added, changed, removed, unchanged.
    fn counts(&self) -> [u64; 4] {
        ["added", "changed", "removed", "unchanged"].map(|name| {
            let line = self
                .0
                .lines()
                .find(|line| line.trim_start().starts_with(name));
            let number = line.unwrap().split_whitespace().nth(1).unwrap();
            number.replace(',', "").parse().unwrap()
        })
    }

    /// The lines below a heading, without their indent.
    fn section(&self, heading: &str) -> Vec<&str> {
        let lines = self
            .0
            .lines()
            .skip_while(|line| !line.starts_with(heading))
            .skip(1);
        lines
            .take_while(|line| !line.is_empty())
            .map(str::trim)
            .collect()
    }

    fn read_bytes(&self) -> &str {
        let line = self
            .0
            .lines()
            .find(|line| line.starts_with("  read "))
            .unwrap();
        line["  read".len()..line.find("in ").unwrap()].trim()
    }
}

fn failure(output: &Output) -> String {
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(output.stdout, b"");
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn a_first_run_adds_everything_and_a_second_one_reads_nothing() {
    let place = Place::filled();
    let first = place.run();
    assert_eq!(first.counts(), [9, 0, 0, 0]);
    assert_eq!(first.read_bytes(), "292.9 KiB");
    assert_eq!(first.section("What changed").len(), 9);
    let second = place.run();
    assert_eq!(second.counts(), [0, 0, 0, 9]);
    assert_eq!(second.read_bytes(), "0 B");
    assert_eq!(second.section("What changed"), ["nothing"]);
}

#[test]
fn a_later_run_finds_what_was_added_changed_and_removed() {
    let place = Place::filled();
    place.run();
    place.write("one.txt", b"one and more");
    place.write("three.txt", b"new");
    fs::remove_file(place.tree.join("two.TXT")).unwrap();
    fs::remove_dir_all(place.tree.join("a/deep")).unwrap();
    let report = place.run();
    // `a` itself has another modified time, as something in it was removed.
    assert_eq!(report.counts(), [1, 2, 4, 3]);
    let changes = [
        "~ a",
        "~ one.txt",
        "+ three.txt",
        "- two.TXT",
        "- a/deep",
        "- a/deep/five",
        "- a/deep/four.rs",
    ];
    assert_eq!(report.section("What changed"), changes);
    assert_eq!(report.read_bytes(), "15 B");
    assert_eq!(place.run().counts(), [0, 0, 0, 6]);
}

#[test]
fn a_directory_that_became_a_file_loses_what_was_below_it_but_not_its_neighbours() {
    let place = Place::filled();
    place.write("a.txt", b"sorts between a and what is below a");
    place.write("a0", b"sorts right behind what is below a");
    place.run();
    fs::remove_dir_all(place.tree.join("a")).unwrap();
    place.write("a", b"a file now");
    let report = place.run();
    assert_eq!(report.counts(), [0, 1, 4, 6]);
    assert_eq!(place.run().counts(), [0, 0, 0, 7]);
}

#[test]
fn answers_are_about_the_prefix_and_largest_first() {
    let place = Place::filled();
    let all = place.run();
    assert_eq!(
        all.section("Largest files"),
        [
            "292.9 KiB  a/deep/five",
            "17 B  a/three.rs",
            "3 B  b/six.txt",
            "3 B  one.txt",
            "3 B  two.TXT",
            "1 B  a/deep/four.rs",
        ]
    );
    let extensions = [
        "292.9 KiB          1 files  none",
        "18 B          2 files  .rs",
        "9 B          3 files  .txt",
    ];
    assert_eq!(all.section("Extensions"), extensions);
    let some = place.run_with(&["--prefix", "a/d"]);
    let largest = ["292.9 KiB  a/deep/five", "1 B  a/deep/four.rs"];
    assert_eq!(some.section("Largest files under a/d"), largest);
    assert_eq!(some.section("Extensions under a/d").len(), 2);
}

#[test]
fn the_current_directory_is_indexed_unless_another_is_named() {
    let place = Place::filled();
    let report = Report::of(place.command().current_dir(&place.tree).output().unwrap());
    assert_eq!(report.counts(), [9, 0, 0, 0]);
    assert_eq!(
        place.run().counts(),
        [0, 0, 0, 9],
        "the same tree has the same index"
    );
}

#[test]
fn the_index_never_indexes_itself() {
    let place = Place::filled();
    let inside = place.tree.join("b/index");
    let inside = inside.to_str().unwrap();
    place.run_with(&["--store", inside]);
    assert_eq!(place.run_with(&["--store", inside]).counts(), [0, 0, 0, 9]);
    let output = place
        .command()
        .arg(inside)
        .args(["--store", inside])
        .output()
        .unwrap();
    let error = failure(&output);
    assert!(error.contains("use another --store"), "{error}");
}

#[test]
fn an_index_is_of_one_tree() {
    let place = Place::filled();
    let store = place.caches.to_str().unwrap();
    place.run_with(&["--store", store]);
    let other = place.tree.join("a");
    let output = place
        .command()
        .arg(&other)
        .args(["--store", store])
        .output()
        .unwrap();
    let error = failure(&output);
    assert!(
        error.contains("is the index of") && error.contains("--store"),
        "{error}"
    );
    assert_eq!(place.run_with(&["--store", store]).counts(), [0, 0, 0, 9]);
}

#[test]
fn a_tree_that_is_not_there_is_an_error_that_names_it() {
    let place = Place::new();
    let missing = place.tree.join("missing");
    let error = failure(&place.command().arg(&missing).output().unwrap());
    assert!(error.contains(missing.to_str().unwrap()), "{error}");
    place.write("file", b"");
    let file = place.tree.join("file");
    let error = failure(&place.command().arg(&file).output().unwrap());
    assert!(error.contains("not a directory"), "{error}");
}

#[cfg(unix)]
#[test]
fn names_that_are_not_utf_8_are_indexed_and_shown_without_control_characters() {
    use std::ffi::OsStr;
    use std::os::unix::ffi::OsStrExt;

    let place = Place::new();
    for name in [&b"caf\xe9"[..], b"\xff\xff", b"bell\x07"] {
        fs::write(place.tree.join(OsStr::from_bytes(name)), b"x").unwrap();
    }
    let first = place.run();
    assert_eq!(first.counts(), [3, 0, 0, 0]);
    let shown = ["+ bell\\u{7}", "+ caf\u{fffd}", "+ \u{fffd}\u{fffd}"];
    assert_eq!(first.section("What changed"), shown);
    fs::remove_file(place.tree.join(OsStr::from_bytes(b"\xff\xff"))).unwrap();
    assert_eq!(place.run().counts(), [0, 0, 1, 2]);
}

#[cfg(unix)]
#[test]
fn symlinks_are_not_followed_and_special_files_are_not_opened() {
    let place = Place::new();
    fs::create_dir(place.tree.join("a")).unwrap();
    std::os::unix::fs::symlink(&place.tree, place.tree.join("a/loop")).unwrap();
    std::os::unix::fs::symlink("nowhere", place.tree.join("dangling")).unwrap();
    // Reading it would wait for ever: nobody writes.
    let _socket = std::os::unix::net::UnixListener::bind(place.tree.join("socket")).unwrap();
    let fifo = Command::new("mkfifo").arg(place.tree.join("fifo")).status();
    let fifos = u64::from(fifo.is_ok_and(|status| status.success()));
    let report = place.run();
    assert_eq!(report.counts(), [4 + fifos, 0, 0, 0]);
    assert_eq!(report.read_bytes(), "0 B");
    assert_eq!(report.section("Could not be read"), [""; 0]);
}

/// A directory so deep down in `b` that a path with a long name in it is longer than Linux takes:
/// it can be listed, then fails half-way; also for a root user, whom no permission stops.
#[cfg(target_os = "linux")]
fn deep_directory(place: &Place) -> (String, PathBuf) {
    let mut key = "b".to_owned();
    let mut path = place.tree.join(&key);
    while path.as_os_str().len() < 3900 {
        let room = (4000 - path.as_os_str().len()).min(200);
        let name = "d".repeat(room);
        key = format!("{key}/{name}");
        path.push(name);
    }
    fs::create_dir_all(&path).unwrap();
    (key, path)
}

#[cfg(target_os = "linux")]
#[test]
fn a_directory_that_fails_half_way_undoes_itself_and_nothing_else() {
    let in_directory = |path: &Path, program: &str, name: &str| {
        let status = Command::new(program).arg(name).current_dir(path).status();
        assert!(status.unwrap().success());
    };
    let place = Place::filled();
    let (key, path) = deep_directory(&place);
    let above = key.matches('/').count() as u64;
    fs::write(path.join("file"), b"before").unwrap();
    assert_eq!(place.run().counts(), [9 + above + 1, 0, 0, 0]);

    fs::write(path.join("file"), b"changed").unwrap();
    fs::write(path.join("added"), b"").unwrap();
    let too_long = "z".repeat(200);
    in_directory(&path, "touch", &too_long);
    place.write("b/six.txt", b"changed beside it");
    let report = place.run();
    let unreadable = report.section("Could not be read: 1;");
    assert_eq!(unreadable.len(), 1);
    assert!(
        unreadable[0].starts_with(&format!("{key}: ")),
        "{unreadable:?}"
    );
    // What stands is outside: the file beside, and the modified time of the directory.
    assert_eq!(
        report.section("What changed"),
        ["~ b/six.txt".to_owned(), format!("~ {key}")]
    );
    // One that was not looked at is neither unchanged nor removed.
    assert_eq!(report.counts(), [0, 2, 0, 9 + above + 1 - 3]);
    let as_it_was = format!("6 B  {key}/file");
    assert!(report.section("Largest files").contains(&&*as_it_was));

    in_directory(&path, "rm", &too_long);
    let report = place.run();
    assert_eq!(report.counts(), [1, 2, 0, 9 + above - 1]);
    assert!(
        report
            .section("Largest files")
            .contains(&&*format!("7 B  {key}/file"))
    );
}
