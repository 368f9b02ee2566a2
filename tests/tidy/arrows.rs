//! Who imports whom: arrows go down, and every one of them is in a table.

use crate::source::{Finding, Source};

/// For each room, what it may import besides itself: a room, or one part of a room.
///
/// In walking order, so that most arrows point to rows further down.
const ARROWS: &[(&str, &[&str])] = &[
    (
        "store",
        &[
            "batch",
            "compaction",
            "cursor",
            "engine",
            "error",
            "format::manifest",
            "key",
            "options",
            "query",
            "serializer",
            "snapshot",
            "transaction",
            "upkeep",
            "vfs",
        ],
    ),
    (
        "traits",
        &[
            "error",
            "key",
            "query",
            "serializer",
            "snapshot",
            "store",
            "transaction",
        ],
    ),
    (
        "snapshot",
        &[
            "cursor",
            "engine",
            "error",
            "key",
            "query",
            "serializer",
            "transaction::view",
        ],
    ),
    (
        "query",
        &[
            "cursor",
            "error",
            "key",
            "limits",
            "serializer",
            "transaction::view",
        ],
    ),
    (
        "cursor",
        &["error", "key", "serializer", "transaction::view"],
    ),
    (
        "transaction",
        &[
            "batch",
            "cursor",
            "engine",
            "error",
            "index",
            "key",
            "log::location",
            "options",
            "query",
            "serializer",
        ],
    ),
    (
        "upkeep",
        &[
            "batch", "engine", "error", "format", "limits", "log", "options", "vfs",
        ],
    ),
    (
        "compaction",
        &[
            "engine",
            "error",
            "failpoint",
            "format",
            "limits",
            "log",
            "options",
            "vfs",
        ],
    ),
    (
        "engine",
        &[
            "batch",
            "error",
            "failpoint",
            "format",
            "index",
            "limits",
            "log",
            "options",
            "vfs",
            "yielding",
        ],
    ),
    ("batch", &["error", "format::record", "limits"]),
    ("index", &["log::location"]),
    (
        "log",
        &[
            "error",
            "failpoint",
            "format",
            "limits",
            "sync",
            "vfs",
            "yielding",
        ],
    ),
    ("format", &["limits"]),
    ("options", &["error", "key", "limits", "serializer", "vfs"]),
    ("serializer", &["error"]),
    ("vfs", &[]),
    ("key", &[]),
    ("error", &[]),
    ("failpoint", &[]),
    ("limits", &[]),
    ("sync", &[]),
    ("yielding", &["vfs"]),
];

/// Single arrows that point up: file, import, and why it may.
const EXCEPTIONS: &[(&str, &str, &str)] = &[
    (
        "src/options.rs",
        "store::Store",
        "opening is how options end: it builds the store",
    ),
    (
        "src/options.rs",
        "engine::open::memory_path",
        "a store in memory is opened by options too",
    ),
    (
        "src/format/checksum.rs",
        "vfs::sim::planted_unseeded_checksums",
        "a planted bug that the crash tests must find; not in a build without `sim`",
    ),
];

/// Refuses imports that are not in the table.
pub(crate) fn check(source: &Source) -> Vec<Finding> {
    let Some((room, depth)) = room(&source.path) else {
        return Vec::new();
    };
    let Some((_, allowed)) = ARROWS.iter().find(|(name, _)| *name == room) else {
        return vec![source.finding(1, format!("`{room}` has no row in the table of arrows"))];
    };
    let mut findings = Vec::new();
    for (number, line) in source.shipped() {
        if leaves_by_super(&line.code, depth) {
            let what = "leaves its room by `super`; say `crate::room`, so that it can be read";
            findings.push(source.finding(number, what));
        }
        for import in imports(&line.code) {
            let inside = is_in(&import, room) || allowed.iter().any(|other| is_in(&import, other));
            let excepted = |(path, other, _): &&(&str, &str, &str)| {
                *path == source.path && is_in(&import, other)
            };
            if !inside && !EXCEPTIONS.iter().any(|exception| excepted(&exception)) {
                let what = format!("`{room}` imports `{import}`, against the arrows");
                findings.push(source.finding(number, what));
            }
        }
    }
    findings
}

/// Rows and exceptions that no import needs any more.
pub(crate) fn unused(sources: &[Source]) -> Vec<Finding> {
    let used = |wanted: &dyn Fn(&Source) -> bool, target: &str| {
        let sources = sources.iter().filter(|source| wanted(source));
        let mut lines = sources.flat_map(Source::shipped);
        lines.any(|(_, line)| {
            imports(&line.code)
                .iter()
                .any(|import| is_in(import, target))
        })
    };
    let table = Source::new("tests/tidy/arrows.rs", "");
    let mut findings = Vec::new();
    for (name, allowed) in ARROWS {
        let in_room = |source: &Source| room(&source.path).is_some_and(|(room, _)| room == *name);
        for target in allowed.iter().filter(|target| !used(&in_room, target)) {
            findings.push(table.finding(1, format!("`{name}` does not need `{target}` any more")));
        }
    }
    for (path, target, _) in EXCEPTIONS {
        if !used(&|source| source.path == *path, target) {
            findings.push(table.finding(1, format!("{path} does not need `{target}` any more")));
        }
    }
    findings
}

/// The room of a file, and how deep below the crate its module is; `None` for the front door.
fn room(path: &str) -> Option<(&str, usize)> {
    let module = path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let module = module.strip_suffix("/mod").unwrap_or(module);
    if module == "lib" {
        return None;
    }
    Some((module.split('/').next()?, module.split('/').count()))
}

/// The paths behind `crate::` in a line; those of a group at the top stay a `{`.
fn imports(code: &str) -> Vec<String> {
    let is_path = |c: char| c.is_alphanumeric() || c == '_' || c == ':';
    let behind = code.split("crate::").skip(1);
    behind
        .map(|rest| {
            let end = rest.find(|c| !is_path(c)).unwrap_or(rest.len());
            let path = rest[..end].trim_end_matches(':');
            if path.is_empty() {
                "{".to_owned()
            } else {
                path.to_owned()
            }
        })
        .collect()
}

/// Whether `path` is `part` or something in it.
fn is_in(path: &str, part: &str) -> bool {
    path.strip_prefix(part)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

/// Whether there are as many `super` in a row as lead to the crate.
fn leaves_by_super(code: &str, depth: usize) -> bool {
    code.contains(&"super::".repeat(depth))
}

#[test]
fn an_import_against_the_arrows_is_found() {
    let found = |path: &str, text: &str| check(&Source::new(path, text)).len();
    assert_eq!(found("src/vfs/os/mod.rs", "use crate::error::Error;"), 1);
    assert_eq!(found("src/vfs/os/mod.rs", "use crate::vfs::Vfs;"), 0);
    assert_eq!(found("src/format/record.rs", "use crate::vfs::Vfs;"), 1);
    assert_eq!(
        found("src/index/mod.rs", "use crate::log::location::Location;"),
        0
    );
    assert_eq!(found("src/index/mod.rs", "use crate::log::Log;"), 1);
    assert_eq!(
        found(
            "src/engine/commit.rs",
            "fn f() { crate::upkeep::stats::f() }"
        ),
        1
    );
    assert_eq!(found("src/engine/commit.rs", "use crate::{log, query};"), 1);
    assert_eq!(found("src/options.rs", "use crate::store::Store;"), 0);
    assert_eq!(found("src/limits.rs", "use crate::store::Store;"), 1);
    assert_eq!(found("src/limits.rs", "use crate::storefront;"), 1);
    assert_eq!(found("src/parlour.rs", ""), 1, "a room without a row");
    assert_eq!(found("src/engine/commit.rs", "use super::Engine;"), 0);
    assert_eq!(found("src/engine/commit.rs", "use super::super::query;"), 1);
    assert_eq!(found("src/engine/mod.rs", "use super::query;"), 1);
    let in_tests = "#[cfg(test)]\nmod tests {\n    use crate::store::Store;\n}";
    assert_eq!(found("src/limits.rs", in_tests), 0);
    assert_eq!(
        found("src/limits.rs", "/// As [`Store`](crate::store::Store)."),
        0
    );
}

#[test]
fn an_arrow_that_nobody_needs_is_found() {
    let source = Source::new("src/serializer/mod.rs", "use crate::error::Error;");
    let unused = unused(&[source]);
    let needs = |room: &str| unused.iter().any(|finding| finding.what.starts_with(room));
    assert!(needs("`batch` does not need") && !needs("`serializer` does not need"));
}
