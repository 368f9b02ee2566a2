//! The program as its users run it.
#![allow(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests look at the real machine")]

use std::collections::BTreeMap;
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use happystore::{Compaction, Create, Durability, Json, Options, Raw, Store};
use serde_json::Value;

fn tool() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_happystore-compact"));
    command.stdin(Stdio::null());
    command
}

fn run<const N: usize>(arguments: [&Path; N]) -> Output {
    tool().args(arguments).output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn text(output: &Output) -> String {
    assert_eq!(code(output), 0, "{output:?}");
    assert!(
        !output.stdout.contains(&0x1b),
        "colours where nobody sees them"
    );
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn json<const N: usize>(arguments: [&Path; N]) -> Value {
    let output = tool().args(arguments).arg("--json").output().unwrap();
    serde_json::from_str(&text(&output)).unwrap()
}

fn at(word: &str) -> &Path {
    Path::new(word)
}

fn options() -> Options {
    Options::new()
        .durability(Durability::Os)
        .compaction(Compaction::manual())
        .segment_bytes(64 << 10)
}

/// A store of which about four fifths are dead.
fn make(path: &Path) -> Store {
    let store = options().open(path).unwrap();
    for n in 0..5000_u32 {
        store
            .set(&format!("key{}", n % 1000), &vec![n; 20])
            .unwrap();
    }
    store
}

fn content(path: &Path) -> BTreeMap<String, Vec<u32>> {
    let store = options().create(Create::Never).open(path).unwrap();
    store.verify().unwrap();
    store.scan().iter().unwrap().map(Result::unwrap).collect()
}

fn figure(value: &Value, name: &str) -> u64 {
    value[name].as_u64().unwrap()
}

#[test]
fn a_live_store_is_compacted_and_a_second_run_finds_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = make(&path);
    let before = json([at("stats"), &path]);
    let dry = json([at("--dry-run"), &path]);
    assert!(
        figure(&dry, "dead_bytes") > 2 * figure(&dry, "live_bytes"),
        "{dry}"
    );
    let after = json([at("stats"), &path]);
    assert_eq!(
        after["segments"], before["segments"],
        "a dry run changes nothing"
    );
    let done = json([&path]);
    assert_eq!(done["finished"], true);
    let (then, now) = (figure(&done, "bytes_before"), figure(&done, "bytes_after"));
    assert!(now < then / 3, "{done}");
    assert_eq!(figure(&done, "left_dead_bytes"), 0, "{done}");
    assert_eq!(figure(&json([&path]), "segments_rewritten"), 0);
    assert!(text(&run([&path])).contains("a second run would still find 0 segments"));
    // The one that was open all the time sees and writes as ever.
    assert_eq!(store.get("key7").unwrap(), Some(vec![4007_u32; 20]));
    store.set("key7", &vec![1_u32]).unwrap();
    store.verify().unwrap();
    store.close().unwrap();
    let content = content(&path);
    assert_eq!((content.len(), &content["key7"]), (1000, &vec![1]));
}

#[test]
fn others_write_while_it_compacts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = make(&path);
    let mut running = tool()
        .arg(&path)
        .args(["--rate-limit", "400000"])
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut written = 0;
    while running.try_wait().unwrap().is_none() {
        store
            .set(&format!("new{}", written % 300), &vec![written])
            .unwrap();
        written += 1;
    }
    assert!(running.wait().unwrap().success() && written > 300);
    store.verify().unwrap();
    for n in written - 300..written {
        assert_eq!(
            store.get(&format!("new{}", n % 300)).unwrap(),
            Some(vec![n])
        );
    }
    assert_eq!(store.get("key7").unwrap(), Some(vec![4007_u32; 20]));
}

#[test]
fn only_segments_that_are_dead_enough_are_rewritten_if_asked() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    let store = make(&path);
    store.close().unwrap();
    let half = tool()
        .arg(&path)
        .args(["--min-dead", "0.5", "--json"])
        .output()
        .unwrap();
    let half: Value = serde_json::from_str(&text(&half)).unwrap();
    let rewritten = figure(&half, "segments_rewritten");
    let segments = json([at("stats"), &path]);
    assert!(rewritten > 2, "{half}");
    let sealed = |one: &&Value| one["kind"] == "sealed";
    let left = segments["segments"]
        .as_array()
        .unwrap()
        .iter()
        .filter(sealed)
        .count();
    assert!(left > 0, "{segments}");
    assert_eq!(content(&path).len(), 1000);
}

#[test]
fn stats_show_a_bar_of_each_segment() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    make(&path).close().unwrap();
    let shown = text(&run([at("stats"), &path]));
    assert!(
        shown.contains("keys      1000") && shown.contains('█') && shown.contains('░'),
        "{shown}"
    );
    assert!(shown.contains("00000001 sealed"), "{shown}");
}

#[test]
fn any_serializer_and_any_keys_will_do() {
    let directory = tempfile::tempdir().unwrap();
    let (raw, text_keys) = (directory.path().join("raw"), directory.path().join("json"));
    let store = Options::new()
        .serializer(Raw)
        .byte_keys()
        .open(&raw)
        .unwrap();
    (0..200_u8).for_each(|n| store.set(&[0xFF, n % 10][..], &[n]).unwrap());
    store.close().unwrap();
    let store: Store<Json> = Options::new().serializer(Json).open(&text_keys).unwrap();
    (0..200_u8).for_each(|n| store.set(&(n % 10).to_string(), &n).unwrap());
    store.close().unwrap();
    for path in [&raw, &text_keys] {
        assert_eq!(json([path])["finished"], true);
        assert_eq!(json([at("stats"), path])["keys"], 10);
    }
    let store = Options::new()
        .serializer(Raw)
        .byte_keys()
        .open(&raw)
        .unwrap();
    assert_eq!(store.get(&[0xFF, 3][..]).unwrap(), Some(vec![193]));
    let store: Store<Json> = Options::new().serializer(Json).open(&text_keys).unwrap();
    assert_eq!(store.get("3").unwrap(), Some(193));
}

#[test]
fn damage_is_found_and_the_rest_is_saved() {
    let directory = tempfile::tempdir().unwrap();
    let (path, saved) = (
        directory.path().join("store"),
        directory.path().join("saved"),
    );
    make(&path).close().unwrap();
    assert!(text(&run([at("verify"), &path])).contains("whole: 1000 keys"));
    let file = path.join("00000003.seg");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[20_000..20_400].fill(0);
    std::fs::write(&file, bytes).unwrap();
    let verified = run([at("verify"), &path]);
    let said = String::from_utf8_lossy(&verified.stdout).into_owned();
    assert_eq!(code(&verified), 3);
    assert!(
        said.contains("00000003.seg") && said.contains("offset"),
        "{said}"
    );
    let salvaged = run([at("salvage"), &path, &saved]);
    let said = String::from_utf8_lossy(&salvaged.stdout).into_owned();
    assert_eq!(code(&salvaged), 3, "{said}");
    assert!(
        said.contains("saved 1000 keys") && said.contains("00000003.seg from"),
        "{said}"
    );
    assert_eq!(content(&saved).len(), 1000);
    assert_eq!(
        code(&run([at("salvage"), &path, &saved])),
        1,
        "a store is there already"
    );
}

#[test]
fn a_live_store_is_backed_up_and_restored() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    let store = make(&path("store"));
    let first = json([at("backup"), &path("store"), &path("backup")]);
    assert!(
        figure(&first, "linked") > 2 && figure(&first, "copied") == 1,
        "{first}"
    );
    store.set("later", &vec![1_u32]).unwrap();
    let second = json([at("backup"), &path("store"), &path("backup")]);
    assert_eq!(
        (figure(&second, "linked"), figure(&second, "copied")),
        (0, 1)
    );
    store.close().unwrap();
    json([at("restore"), &path("backup"), &path("restored")]);
    assert_eq!(content(&path("restored")), content(&path("store")));
    let again = run([at("restore"), &path("backup"), &path("restored")]);
    assert_eq!(code(&again), 1);
    let other = run([at("backup"), &path("store"), &path("store")]);
    assert!(code(&other) == 1 && String::from_utf8_lossy(&other.stderr).contains("error: "));
}

#[test]
fn who_asks_for_nonsense_is_told() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing");
    for task in ["stats", "verify", "backup"] {
        let mut command = tool();
        command.arg(task).arg(&missing);
        if task == "backup" {
            command.arg(directory.path().join("to"));
        }
        assert_eq!(code(&command.output().unwrap()), 1, "{task}");
    }
    assert_eq!(code(&run([&missing])), 1);
    assert!(!missing.exists(), "a store was made");
    let path = directory.path();
    let refused = tool().arg(path).args(["--min-dead", "2"]).output().unwrap();
    assert_eq!(code(&refused), 2);
    let before = tool().arg("--dry-run").arg("stats").arg(path).output();
    assert_eq!(code(&before.unwrap()), 2);
    let store = path.join("store");
    drop(make(&store));
    // Wherever it stands.
    let first = tool().arg("--json").arg("stats").arg(&store).output();
    assert!(text(&first.unwrap()).starts_with('{'));
    let help = text(&run([at("--help")]));
    assert!(
        help.contains("Exit code: 0") && help.contains("salvage"),
        "{help}"
    );
}

fn load(path: &Path, lines: &[u8]) -> Output {
    let mut running = tool()
        .arg("load")
        .arg(path)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    running.stdin.take().unwrap().write_all(lines).unwrap();
    running.wait_with_output().unwrap()
}

#[test]
fn what_was_dumped_is_loaded_into_another_store() {
    let directory = tempfile::tempdir().unwrap();
    let (path, other) = (
        directory.path().join("store"),
        directory.path().join("other"),
    );
    // Compacted, deleted and overwritten since, and open.
    let store = make(&path);
    store.compact().unwrap();
    (0..50).for_each(|n| assert!(store.delete(&format!("key{n}")).unwrap()));
    store.set("key50", &vec![50_u32]).unwrap();
    let shown = text(&run([at("dump"), &path]));
    assert!(
        shown.contains(" moved ") && shown.contains("\"key7\" deleted"),
        "{shown}"
    );
    assert_eq!(shown.lines().count(), 1000 + 51);
    let mut dump = tool();
    dump.arg("dump").arg(&path).arg("--json");
    let lines = text(&dump.output().unwrap());
    options()
        .open(&other)
        .unwrap()
        .set("key3", &vec![3_u32])
        .unwrap();
    assert!(text(&load(&other, lines.as_bytes())).contains("950 keys set, 1 deleted"));
    store.close().unwrap();
    assert_eq!(content(&other), content(&path));
}

#[test]
fn lines_that_are_wrong_change_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    make(&path).close().unwrap();
    let before = content(&path);
    let wrong = [
        &br#"{"key_hex":"ff","value_hex":"80"}"#[..],
        br#"{"key":"a","key_hex":"61"}"#,
        br#"{"key":"a","value_hex":"8"}"#,
        "{\"key\":\"a\",\"value_hex\":\"\u{e9}\"}".as_bytes(),
        br#"{"key":"a","sequence":-1}"#,
        b"[",
        b"\xff",
    ];
    for line in wrong {
        let lines = [br#"{"key":"key1"}"#, &b"\n"[..], line].concat();
        let refused = load(&path, &lines);
        assert_eq!(code(&refused), 1, "{}", String::from_utf8_lossy(line));
    }
    assert_eq!(content(&path), before);
}

#[test]
fn a_dump_of_a_damaged_store_goes_on_behind_the_damage() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("store");
    make(&path).close().unwrap();
    let file = path.join("00000002.seg");
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[30_000] ^= 1;
    std::fs::write(&file, bytes).unwrap();
    let dumped = run([at("dump"), &path]);
    assert_eq!(code(&dumped), 3);
    assert!(String::from_utf8_lossy(&dumped.stderr).contains("00000002.seg"));
    let lines = String::from_utf8_lossy(&dumped.stdout).into_owned();
    assert!(lines.contains("00000002 ") && lines.contains("00000003 "));
}
