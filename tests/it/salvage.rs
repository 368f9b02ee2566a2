//! Salvage: whatever is whole comes back, and the report names the rest.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use happystore::{
    Access, Compaction, Create, Durability, ErrorKind, LostBytes, Options, Raw, SalvageReport,
    Store, salvage,
};

const SECTOR: usize = 512;

type Content = BTreeMap<String, u64>;

fn options() -> Options {
    Options::new()
        .durability(Durability::Os)
        .compaction(Compaction::manual())
        .segment_bytes(4096)
}

/// A store with segments of compaction's and of the log, sealed and active; each key is set in one
/// batch of its own. Each overwritten or deleted key was so before the compaction.
fn make(path: &Path) -> Content {
    let store = options().open(path).unwrap();
    let mut content = Content::new();
    for n in 0..120_u64 {
        let key = format!("key{:03}", n % 60);
        if n % 60 < 5 && n >= 60 {
            store.delete(&key).unwrap();
            content.remove(&key);
        } else {
            store.set(&key, &(n, vec![3_u8; 60])).unwrap();
            content.insert(key, n);
        }
    }
    store.compact().unwrap();
    for n in 200..260_u64 {
        let key = format!("new{n}");
        store.set(&key, &(n, vec![3_u8; 60])).unwrap();
        content.insert(key, n);
    }
    store.close().unwrap();
    content
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        std::fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}

fn segments(path: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(path).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|kind| kind == "seg"));
    files.sort();
    files
}

fn content(path: &Path) -> Content {
    let store = options().open(path).unwrap();
    store.verify().unwrap();
    let pairs = store.scan().iter::<(u64, Vec<u8>)>().unwrap();
    pairs
        .map(|pair| pair.map(|(key, (n, _))| (key, n)).unwrap())
        .collect()
}

/// Where each key's record lies, from what the files hold.
fn keys_in<'a>(bytes: &[u8], keys: impl Iterator<Item = &'a String>) -> Vec<String> {
    let holds = |key: &&String| bytes.windows(key.len()).any(|part| part == key.as_bytes());
    keys.filter(holds).cloned().collect()
}

fn salvaged(damaged: &Path) -> (SalvageReport, Content) {
    let to = damaged.with_extension("saved");
    let before: Vec<_> = segments(damaged)
        .iter()
        .map(|f| std::fs::read(f).unwrap())
        .collect();
    let report = salvage(damaged, &to).unwrap();
    let after: Vec<_> = segments(damaged)
        .iter()
        .map(|f| std::fs::read(f).unwrap())
        .collect();
    assert!(before == after, "what is damaged was written to");
    let content = content(&to);
    assert_eq!(report.keys, content.len() as u64);
    std::fs::remove_dir_all(to).unwrap();
    (report, content)
}

#[test]
fn of_a_whole_store_nothing_is_lost() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("whole");
    let expected = make(&path);
    let (report, content) = salvaged(&path);
    assert_eq!(content, expected);
    assert!(report.lost.is_empty() && !report.is_guessed, "{report:?}");
}

#[test]
fn every_damaged_sector_costs_the_records_in_it_alone_and_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let whole = directory.path().join("whole");
    let expected = make(&whole);
    let damaged = directory.path().join("damaged");
    let mut costly = 0;
    for file in segments(&whole) {
        let original = std::fs::read(&file).unwrap();
        let bytes = &original;
        let used = bytes.iter().rposition(|&byte| byte != 0).unwrap() + 1;
        for at in (0..used).step_by(SECTOR) {
            for pattern in [0_u8, 0xA5] {
                copy(&whole, &damaged);
                let mut bytes = bytes.clone();
                let end = bytes.len().min(at + SECTOR);
                bytes[at..end].fill(pattern);
                let path = damaged.join(file.file_name().unwrap());
                std::fs::write(&path, &bytes).unwrap();
                let (report, content) = salvaged(&damaged);
                std::fs::remove_dir_all(&damaged).unwrap();
                let case = format!("{} at {at}: {report:?}", path.display());
                for (key, n) in &content {
                    assert_eq!(expected.get(key), Some(n), "{key}, {case}");
                }
                let here = |lost: &&LostBytes| lost.path == path;
                let mut ranges: Vec<_> = report.lost.iter().filter(here).collect();
                ranges.retain(|lost| lost.from < lost.to);
                let index = |offset: u64| usize::try_from(offset).unwrap();
                let named: Vec<String> = ranges
                    .iter()
                    .flat_map(|lost| {
                        keys_in(&original[index(lost.from)..index(lost.to)], expected.keys())
                    })
                    .collect();
                let missing: Vec<_> = expected
                    .keys()
                    .filter(|k| !content.contains_key(*k))
                    .collect();
                for key in &missing {
                    assert!(named.contains(key), "{key} is lost, {case}");
                }
                let lost_bytes: u64 = ranges.iter().map(|lost| lost.to - lost.from).sum();
                // Compaction writes many entries into one record.
                let is_log = original[48] == 0;
                assert!(!is_log || lost_bytes < 512 + 2 * 200, "{case}");
                let is_here = |lost: &&LostBytes| lost.from < end as u64 && lost.to > at as u64;
                assert!(ranges.iter().any(is_here), "{case}");
                costly += missing.len();
            }
        }
    }
    assert!(costly > 100, "{costly}");
}

#[test]
fn without_a_manifest_every_segment_counts() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("damaged");
    let expected = make(&path);
    for damage in [None, Some(&b"no manifest"[..])] {
        match damage {
            None => std::fs::remove_file(path.join("MANIFEST")).unwrap(),
            Some(bytes) => std::fs::write(path.join("MANIFEST"), bytes).unwrap(),
        }
        let (report, content) = salvaged(&path);
        assert_eq!(content, expected);
        assert!(report.is_guessed && report.lost.len() == 1, "{report:?}");
        assert!(report.lost[0].path.ends_with("MANIFEST"));
    }
}

#[test]
fn segments_that_are_gone_or_cut_off_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("damaged");
    let expected = make(&path);
    let files = segments(&path);
    std::fs::remove_file(&files[0]).unwrap();
    let cut = std::fs::OpenOptions::new()
        .write(true)
        .open(&files[1])
        .unwrap();
    cut.set_len(1000).unwrap();
    let (report, content) = salvaged(&path);
    assert!(content.iter().all(|(key, n)| expected.get(key) == Some(n)));
    for file in &files[..2] {
        assert!(
            report.lost.iter().any(|lost| &lost.path == file),
            "{report:?}"
        );
    }
    let left = keys_in(
        &std::fs::read(files.last().unwrap()).unwrap(),
        expected.keys(),
    );
    assert!(!left.is_empty() && left.iter().all(|key| content.contains_key(key)));
}

#[test]
fn serializer_and_keys_of_any_kind_stay_what_they_were() {
    let directory = tempfile::tempdir().unwrap();
    let (from, to) = (directory.path().join("from"), directory.path().join("to"));
    let raw = || {
        Options::new()
            .serializer(Raw)
            .byte_keys()
            .create(Create::IfMissing)
    };
    let store = raw().open(&from).unwrap();
    store.set(&[0xFF, 0][..], "value").unwrap();
    store.set(&[][..], "").unwrap();
    store.close().unwrap();
    assert_eq!(salvage(&from, &to).unwrap().keys, 2);
    let saved = raw().access(Access::ReadOnly).open(&to).unwrap();
    assert_eq!(saved.get(&[0xFF, 0][..]).unwrap(), Some(b"value".to_vec()));
    assert_eq!(saved.get(&[][..]).unwrap(), Some(Vec::new()));
}

#[test]
fn what_cannot_be_salvaged_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    make(&path("from"));
    make(&path("there"));
    let refused = salvage(path("from"), path("there")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    std::fs::create_dir(path("empty")).unwrap();
    let refused = salvage(path("empty"), path("to")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::NotFound);
    let refused = salvage(path("missing"), path("to")).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Io);
    let _: Store = options().create(Create::New).open(path("to")).unwrap();
}

#[test]
fn a_manifest_that_is_torn_or_damaged_anywhere_costs_no_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("damaged");
    let expected = make(&path);
    let manifest = path.join("MANIFEST");
    let whole = std::fs::read(&manifest).unwrap();
    let torn = (0..whole.len()).step_by(7).map(|end| whole[..end].to_vec());
    let flipped = (0..whole.len()).step_by(5).map(|at| {
        let mut bytes = whole.clone();
        bytes[at] ^= 1 << (at % 8);
        bytes
    });
    for (number, bytes) in torn.chain(flipped).enumerate() {
        std::fs::write(&manifest, bytes).unwrap();
        let to = path.with_extension("saved");
        match salvage(&path, &to) {
            Ok(report) => {
                assert!(report.is_guessed && report.lost.len() == 1, "{report:?}");
                assert_eq!(content(&to), expected, "case {number}");
                std::fs::remove_dir_all(to).unwrap();
            }
            // A flipped bit may say that a later version has written it.
            Err(error) => assert_eq!(error.kind(), ErrorKind::FormatVersion, "case {number}"),
        }
    }
}

#[test]
fn an_old_manifest_that_was_put_back_costs_no_key() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("damaged");
    let store = options().open(&path).unwrap();
    let mut expected = Content::new();
    let mut old = Vec::new();
    for n in 0..400_u64 {
        let key = format!("key{:03}", n % 90);
        store.set(&key, &(n, vec![3_u8; 60])).unwrap();
        expected.insert(key, n);
        if n % 150 == 149 {
            store.compact().unwrap();
        }
        if n % 20 == 0 {
            old.push(std::fs::read(path.join("MANIFEST")).unwrap());
        }
    }
    store.close().unwrap();
    let newest = std::fs::read(path.join("MANIFEST")).unwrap();
    let mut refused = 0;
    for bytes in old {
        if bytes == newest {
            continue;
        }
        std::fs::write(path.join("MANIFEST"), bytes).unwrap();
        refused += usize::from(options().open(&path).is_err());
        // Opening may have changed it, if it took it for whole.
        let (report, content) = salvaged(&path);
        assert_eq!(content, expected, "{report:?}");
    }
    assert!(refused > 10, "{refused}");
}

#[test]
fn a_store_is_not_salvaged_into_itself() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("damaged");
    let expected = make(&path);
    let refused = salvage(&path, &path).unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::AlreadyExists);
    std::fs::remove_file(path.join("MANIFEST")).unwrap();
    salvage(&path, &path).unwrap_err();
    assert_eq!(salvaged(&path).1, expected);
}

#[test]
fn a_damaged_entry_of_what_was_moved_costs_itself_alone() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("damaged");
    let store = options().segment_bytes(64 << 10).open(&path).unwrap();
    for n in 0..2000_u64 {
        let value = (n, vec![3_u8; 60]);
        store.set(&format!("key{:03}", n % 900), &value).unwrap();
    }
    store.compact().unwrap();
    store.close().unwrap();
    let newest = |key: &str| -> u64 {
        let n: u64 = key[3..].parse().unwrap();
        if n < 200 { n + 1800 } else { n + 900 }
    };
    let whole = salvaged(&path).1;
    assert!(whole.len() == 900 && whole.iter().all(|(key, n)| newest(key) == *n));
    // One that compaction has made.
    let is_compacted = |file: &PathBuf| std::fs::read(file).unwrap()[48] == 1;
    let file = segments(&path).into_iter().find(is_compacted).unwrap();
    let bytes = std::fs::read(&file).unwrap();
    let used = bytes.iter().rposition(|&byte| byte != 0).unwrap();
    let mut entries = 0;
    for at in (64..used).step_by(4099) {
        let mut damaged = bytes.clone();
        damaged[at] ^= 0x10;
        std::fs::write(&file, damaged).unwrap();
        let (report, content) = salvaged(&path);
        assert!(content.iter().all(|(key, n)| newest(key) == *n), "{at}");
        assert!(content.len() < 900 || at > used - 4, "{at}");
        let lost: u64 = report.lost.iter().map(|lost| lost.to - lost.from).sum();
        let offset = at as u64;
        let names = |lost: &LostBytes| lost.from <= offset && offset < lost.to;
        assert!(report.lost.iter().any(names), "{at}: {report:?}");
        // The header of its record may be what was hit.
        let is_entry = report.lost.iter().all(|lost| lost.from > 64 + 36);
        assert!(lost < 100 || !is_entry, "{at}: {report:?}");
        entries += usize::from(is_entry);
    }
    assert!(entries > 10, "{entries}");
}
