//! What only one room may do: be unsafe, name the machine, name a file of the store.

use crate::source::{Finding, Source, has_word};

/// The only files that may be unsafe, and why.
const UNSAFE: &[(&str, &str)] = &[
    ("src/vfs/os/mapping.rs", "maps files"),
    ("src/vfs/os/fork.rs", "is told of forks"),
    ("src/vfs/os/tests.rs", "forks"),
    ("tests/it/processes.rs", "forks with a store open"),
];

/// What names the machine: files, clocks, threads.
const MACHINE: &[&str] = &[
    "std::fs",
    "std::thread",
    "thread::spawn",
    "thread::sleep",
    "std::process",
    "Instant",
    "SystemTime",
];

/// Names of files of a store, whole or in part.
const FILE_NAMES: &[&str] = &[
    ".seg", ".hint", "MANIFEST", "LOCK", "STATE", "OPEN", "COMPACT", "BACKUP",
];

/// Where names of files stand, and why.
const FILE_NAMES_IN: &[(&str, &str)] = &[
    ("src/log/file_name.rs", "is where they are made"),
    (
        "src/vfs/sim/order.rs",
        "is told which names its rules are about, and imports no room",
    ),
    (
        "src/vfs/sim/fault.rs",
        "picks faults by the kind of file, and imports no room",
    ),
];

/// Refuses what goes past the doors.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let listed = |list: &[(&str, &str)]| list.iter().any(|(path, _)| *path == source.path);
    let mut findings = Vec::new();
    if !listed(UNSAFE) {
        let lines = source
            .numbered()
            .filter(|(_, line)| has_word(&line.code, "unsafe"));
        findings.extend(lines.map(|(number, _)| {
            source.finding(
                number,
                "is unsafe; only mapping and fork in `vfs/os` may be",
            )
        }));
    }
    for (number, line) in source.shipped() {
        if !source.path.starts_with("src/vfs/os/") {
            for word in MACHINE.iter().filter(|word| has_word(&line.code, word)) {
                let what = format!("names `{word}`; the machine is behind `vfs`");
                findings.push(source.finding(number, what));
            }
        }
        if !listed(FILE_NAMES_IN) {
            for name in FILE_NAMES
                .iter()
                .filter(|name| has_word(&line.strings, name))
            {
                let what = format!("names a file, \"{name}\"; `log::file_name` does that");
                findings.push(source.finding(number, what));
            }
        }
    }
    findings
}

#[test]
fn what_goes_past_the_doors_is_found() {
    let found = |path: &str, text: &str| check(&Source::new(path, text)).len();
    let text = "unsafe { libc::fork() };";
    assert_eq!(found("src/engine/open.rs", text), 1);
    assert_eq!(found("tests/it/smoke.rs", text), 1);
    assert_eq!(found("src/vfs/os/fork.rs", text), 0);
    assert_eq!(
        found("src/engine/open.rs", "// not unsafe at all: \"unsafe\""),
        0
    );
    assert_eq!(found("src/lib.rs", "#![deny(unsafe_code)]"), 0);

    assert_eq!(found("src/engine/open.rs", "use std::fs::File;"), 1);
    assert_eq!(
        found("src/engine/open.rs", "use std::time::{Duration, Instant};"),
        1
    );
    assert_eq!(
        found(
            "src/engine/open.rs",
            "let begin = std::time::SystemTime::now();"
        ),
        1
    );
    assert_eq!(found("src/vfs/os/file.rs", "use std::fs::File;"), 0);
    assert_eq!(
        found("src/vfs/mod.rs", "//! No other room names `std::fs`."),
        0
    );
    assert_eq!(
        found(
            "src/key.rs",
            "#[cfg(test)]\nmod tests {\n    use std::thread;\n}"
        ),
        0
    );

    assert_eq!(found("src/log/mod.rs", "let name = \"MANIFEST\";"), 1);
    assert_eq!(
        found("src/log/mod.rs", "let name = format!(\"{id:08}.seg\");"),
        1
    );
    assert_eq!(found("src/log/mod.rs", "let name = \"LOCKED\";"), 0);
    assert_eq!(found("src/log/file_name.rs", "let name = \"MANIFEST\";"), 0);
}
