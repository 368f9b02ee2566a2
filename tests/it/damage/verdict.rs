//! What became of a damaged store: opened, read every way, and judged.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant};

use happystore::vfs::OpenMode;
use happystore::vfs::sim::{Image, World};
use happystore::{Access, Error, Options, Raw, Store};

use super::fixtures::{Content, DIRECTORY, Fixture, open};
use super::format::records;

/// The longest that a damaged store may keep anybody.
const TIME_MAX: Duration = Duration::from_secs(1);

/// What became of a damaged store.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Verdict {
    /// Everything is there.
    Exact,
    /// `Corrupt`, naming file and offset.
    Corrupt,
    /// So many commits less than there were, all of them from the end.
    Less(usize),
    /// Another error, by its kind.
    Other(String),
}

/// How often each verdict was given.
#[derive(Default)]
pub(crate) struct Tally {
    counts: BTreeMap<Verdict, u64>,
}

impl Tally {
    pub(crate) fn add(&mut self, verdict: Verdict) {
        *self.counts.entry(verdict).or_default() += 1;
    }

    /// The counts in one line, to be pinned.
    pub(crate) fn line(&self) -> String {
        let mut line = String::new();
        for (verdict, count) in &self.counts {
            let between = if line.is_empty() { "" } else { ", " };
            write!(line, "{between}{count} {verdict:?}").unwrap();
        }
        line
    }
}

/// A change of a fixture's files: their new bytes, `None` for a file that is gone.
pub(crate) type Change = Vec<(String, Option<Vec<u8>>)>;

/// The machine on which `change` has happened to the fixture.
pub(crate) fn damaged_world(image: &Image, change: &Change) -> World {
    let world = World::from_image(image.clone(), 99);
    let process = world.process();
    for (file, bytes) in change {
        let path = format!("{DIRECTORY}/{file}");
        match bytes {
            Some(bytes) => {
                let file = process.open(path.as_ref(), OpenMode::CreateEmpty).unwrap();
                file.write_at(0, bytes).unwrap();
            }
            None => process.unlink(path.as_ref()).unwrap(),
        }
    }
    world
}

/// Damages the fixture, opens it, reads all of it, and judges.
///
/// # Panics
/// If the store panics, takes too long, returns a wrong value, or lost what was not damaged.
pub(crate) fn judge(fixture: &Fixture, change: &Change, what: &dyn Fn() -> String) -> Verdict {
    let world = damaged_world(&fixture.image, change);
    let begun = Instant::now();
    let opened = catch_unwind(AssertUnwindSafe(|| read_all(&world, &fixture.history)));
    let place = || format!("{}: {}", fixture.name, what());
    assert!(
        begun.elapsed() < TIME_MAX,
        "{}: it took {:?}",
        place(),
        begun.elapsed()
    );
    let Ok(found) = opened else {
        panic!("{}: it panicked", place())
    };
    let verdict = match found {
        Err(Error::Corrupt { path, .. }) => {
            assert!(
                path.starts_with(DIRECTORY),
                "{}: {} is named",
                place(),
                path.display()
            );
            Verdict::Corrupt
        }
        Err(error) => Verdict::Other(format!("{:?}", error.kind())),
        Ok(content) => match fixture
            .history
            .iter()
            .rev()
            .position(|held| *held == content)
        {
            Some(0) => Verdict::Exact,
            Some(less) => Verdict::Less(less),
            None => panic!("{}: the store holds what it never held", place()),
        },
    };
    if let Verdict::Less(less) = verdict {
        let spared = first_spared(fixture, change, less);
        assert_eq!(
            spared,
            None,
            "{}: {less} commits lost, among them whole ones",
            place()
        );
        goes_on(&world, &fixture.history[fixture.history.len() - 1 - less]);
    }
    verdict
}

/// Everything in the store, read in every way there is.
fn read_all(world: &World, history: &[Content]) -> Result<Content, Error> {
    let store = open(&world.process(), 1024)?;
    let content = store.query().pairs()?.into_iter().collect::<Content>();
    // Whatever the checks below find: what was read without an error was true once.
    assert!(history.contains(&content), "{content:?}");
    for (key, value) in &content {
        assert_eq!(store.get(key)?.as_ref(), Some(value));
    }
    let scanned = store
        .scan()
        .reverse()
        .iter()?
        .collect::<Result<Content, _>>()?;
    assert_eq!(scanned, content);
    let report = store.verify()?;
    assert_eq!(report.keys, content.len() as u64);
    Ok(content)
}

/// Who opens the damaged store for reading only finds what a writer found.
pub(crate) fn judge_read_only(
    fixture: &Fixture,
    change: &Change,
    verdict: &Verdict,
    place: &dyn Fn() -> String,
) {
    let world = damaged_world(&fixture.image, change);
    let before = world.image_now();
    let found = match (read_only(&world), verdict) {
        (Err(Error::Corrupt { .. }), Verdict::Corrupt) => return,
        (Ok(content), _) => fixture
            .history
            .iter()
            .rev()
            .position(|held| *held == content),
        (Err(error), _) => panic!("{}: {error}", place()),
    };
    let expected = match verdict {
        Verdict::Exact => Some(0),
        Verdict::Less(less) => Some(*less),
        Verdict::Corrupt | Verdict::Other(_) => None,
    };
    assert!(
        expected.is_some(),
        "{}: read, though it is damaged",
        place()
    );
    assert_eq!(found, expected, "{}", place());
    for file in world.image_now().list(DIRECTORY) {
        let path = format!("{DIRECTORY}/{file}");
        let same = file == "STATE" || before.read(&path) == world.image_now().read(&path);
        assert!(same, "{}: {file} was changed", place());
    }
}

fn read_only(world: &World) -> Result<Content, Error> {
    let store: Store<Raw> = Options::new()
        .serializer(Raw)
        .vfs(world.process())
        .access(Access::ReadOnly)
        .open(DIRECTORY)?;
    let content = store.query().pairs()?.into_iter().collect();
    // From hints a store is opened without a look at what is in its segments.
    store.verify()?;
    Ok(content)
}

/// The offset of a record that was not damaged, though it is of the last `less` commits or
/// behind them: losing it is silent loss of what proves itself.
fn first_spared(fixture: &Fixture, change: &Change, less: usize) -> Option<usize> {
    let files = fixture.files();
    let last = files.iter().rfind(|name| name.ends_with(".seg")).unwrap();
    let before = fixture.bytes(last);
    let after = change
        .iter()
        .find(|(name, _)| name == last)
        .and_then(|(_, bytes)| bytes.as_ref());
    let Some(after) = after else { return Some(0) };
    let records = records(&before);
    let batches: Vec<_> = records
        .iter()
        .filter(|(at, _)| before[at + 4] == 1)
        .collect();
    let Some(first_lost) = batches.len().checked_sub(less) else {
        return Some(0);
    };
    let first_lost = batches[first_lost].0;
    let is_whole = |&&(at, end): &&(usize, usize)| after.get(at..end) == Some(&before[at..end]);
    records
        .iter()
        .filter(|(at, _)| *at >= first_lost)
        .find(is_whole)
        .map(|(at, _)| *at)
}

/// A store that lost its end takes commits, and opens again.
fn goes_on(world: &World, content: &Content) {
    let process = world.process();
    let store = open(&process, 1024).unwrap();
    store.set("one more", b"value").unwrap();
    store.close().unwrap();
    let mut expected = content.clone();
    expected.insert("one more".to_owned(), b"value".to_vec());
    read_all(world, &[expected]).unwrap();
}
