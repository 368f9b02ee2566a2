//! Every damage of a kind that can be done to a fixture.

use super::fixtures::Fixture;
use super::format::records;
use super::verdict::{Change, Tally, judge, judge_read_only};

const SECTOR: usize = 512;

/// One of so many cases is looked at by a reader that may change nothing, too.
const READ_ONLY_EVERY: u64 = 8;

/// A fixture under damage, with the verdicts so far.
pub(crate) struct Damage<'f> {
    fixture: &'f Fixture,
    tally: Tally,
    count: u64,
    is_every_read_only: bool,
}

impl<'f> Damage<'f> {
    pub(crate) fn new(fixture: &'f Fixture) -> Self {
        Self {
            fixture,
            tally: Tally::default(),
            count: 0,
            is_every_read_only: false,
        }
    }

    /// The verdicts since the last call, in one line.
    pub(crate) fn line(&mut self) -> String {
        std::mem::take(&mut self.tally).line()
    }

    /// How many cases there were.
    pub(crate) fn count(&self) -> u64 {
        self.count
    }

    fn judge(&mut self, change: &Change, what: &dyn Fn() -> String) {
        self.count += 1;
        let verdict = judge(self.fixture, change, what);
        if self.count.is_multiple_of(READ_ONLY_EVERY) || self.is_every_read_only {
            let place = || format!("{}: {}, for reading only", self.fixture.name, what());
            judge_read_only(self.fixture, change, &verdict, &place);
        }
        self.tally.add(verdict);
    }

    fn judge_one(&mut self, file: &str, bytes: Vec<u8>, what: &dyn Fn() -> String) {
        self.judge(&vec![(file.to_owned(), Some(bytes))], what);
    }

    /// The files in which damage counts.
    fn files_that_count(&self) -> Vec<String> {
        let counts = |name: &String| name == "MANIFEST" || name.ends_with(".seg");
        self.fixture.files().into_iter().filter(counts).collect()
    }

    /// Every bit of every file flipped, each by itself.
    pub(crate) fn bits(&mut self) {
        self.few_bits(1);
    }

    /// One of so many bits of every file flipped, each by itself.
    pub(crate) fn few_bits(&mut self, every: usize) {
        for file in self.files_that_count() {
            let bytes = self.fixture.bytes(&file);
            for bit in (0..bytes.len() * 8).step_by(every) {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                self.judge_one(&file, bytes, &|| format!("{file}: bit {bit} flipped"));
            }
        }
    }

    /// Every byte set to 0 and to 0xFF, where it is not that already.
    pub(crate) fn bytes(&mut self) {
        for file in self.files_that_count() {
            let bytes = self.fixture.bytes(&file);
            for at in 0..bytes.len() {
                for value in [0, 0xff].into_iter().filter(|value| *value != bytes[at]) {
                    let mut bytes = bytes.clone();
                    bytes[at] = value;
                    self.judge_one(&file, bytes, &|| {
                        format!("{file}: byte {at} set to {value}")
                    });
                }
            }
        }
    }

    /// Every length that a file could be cut to.
    pub(crate) fn truncations(&mut self) {
        for file in self.files_that_count() {
            let bytes = self.fixture.bytes(&file);
            for len in 0..bytes.len() {
                let bytes = bytes[..len].to_vec();
                self.judge_one(&file, bytes, &|| format!("{file}: cut to {len} bytes"));
            }
        }
    }

    /// Every sector zeroed, and swapped with every other one of any file.
    pub(crate) fn sectors(&mut self) {
        let mut all = Vec::new();
        for file in self.files_that_count() {
            let bytes = self.fixture.bytes(&file);
            for at in (0..bytes.len()).step_by(SECTOR) {
                let mut zeroed = bytes.clone();
                let end = bytes.len().min(at + SECTOR);
                zeroed[at..end].fill(0);
                if zeroed != bytes {
                    self.judge_one(&file, zeroed, &|| format!("{file}: sector at {at} zeroed"));
                }
                if at + SECTOR <= bytes.len() {
                    all.push((file.clone(), at, at + SECTOR));
                }
            }
        }
        self.swaps(&all, "sector");
    }

    /// Every pair of records swapped; where their lengths differ, only the shorter length.
    pub(crate) fn records(&mut self) {
        let mut all = Vec::new();
        for file in self
            .files_that_count()
            .iter()
            .filter(|name| name.ends_with(".seg"))
        {
            let found = records(&self.fixture.bytes(file));
            all.extend(found.into_iter().map(|(at, end)| (file.clone(), at, end)));
        }
        self.swaps(&all, "record");
    }

    fn swaps(&mut self, places: &[(String, usize, usize)], kind: &str) {
        for (at, one) in places.iter().enumerate() {
            for other in &places[at + 1..] {
                let len = (one.2 - one.1).min(other.2 - other.1);
                let first = self.fixture.bytes(&one.0)[one.1..][..len].to_vec();
                let second = self.fixture.bytes(&other.0)[other.1..][..len].to_vec();
                if first == second {
                    continue;
                }
                let mut change: Change = Vec::new();
                for (place, bytes) in [(one, second), (other, first)] {
                    let name = &place.0;
                    let known = change.iter_mut().find(|(file, _)| file == name);
                    if let Some((_, Some(file))) = known {
                        file[place.1..][..len].copy_from_slice(&bytes);
                    } else {
                        let mut file = self.fixture.bytes(name);
                        file[place.1..][..len].copy_from_slice(&bytes);
                        change.push((name.clone(), Some(file)));
                    }
                }
                self.judge(&change, &|| {
                    format!("{kind}s swapped: {one:?} and {other:?}")
                });
            }
        }
    }

    /// Whole files: gone, emptied, doubled, under other names, in each other's place, old.
    pub(crate) fn whole_files(&mut self) {
        self.is_every_read_only = true;
        let files = self.files_that_count();
        for file in &files {
            let bytes = self.fixture.bytes(file);
            self.judge(&vec![(file.clone(), None)], &|| format!("{file} deleted"));
            self.judge_one(file, Vec::new(), &|| format!("{file} emptied"));
            self.judge_one(file, bytes.repeat(2), &|| format!("{file} doubled"));
            for name in ["00000099.seg", "MANIFEST.tmp", "other"] {
                let moved = vec![(file.clone(), None), (name.to_owned(), Some(bytes.clone()))];
                self.judge(&moved, &|| format!("{file} renamed to {name}"));
                let copied = vec![(name.to_owned(), Some(bytes.clone()))];
                self.judge(&copied, &|| format!("{file} copied to {name}"));
            }
        }
        for (at, one) in files.iter().enumerate() {
            for other in &files[at + 1..] {
                let (first, second) = (self.fixture.bytes(one), self.fixture.bytes(other));
                let swapped = vec![(one.clone(), Some(second)), (other.clone(), Some(first))];
                self.judge(&swapped, &|| format!("{one} and {other} swapped"));
            }
        }
        let old = self.fixture.old_manifest.clone();
        self.judge_one("MANIFEST", old, &|| "an old MANIFEST put back".to_owned());
    }

    /// What must not matter: the lock and the shared page, whatever is in them, or gone.
    pub(crate) fn lock_and_state(&mut self) {
        for file in ["LOCK", "STATE"] {
            let bytes = self.fixture.bytes(file);
            self.judge(&vec![(file.to_owned(), None)], &|| {
                format!("{file} deleted")
            });
            for fill in [0, 0x55, 0xff] {
                for len in [0, 1, 7, 88, 4095, 4096, 4097, 20_000] {
                    self.judge_one(file, vec![fill; len], &|| {
                        format!("{file}: {len} of {fill}")
                    });
                }
            }
            for bit in 0..bytes.len().min(128) * 8 {
                let mut bytes = bytes.clone();
                bytes[bit / 8] ^= 1 << (bit % 8);
                self.judge_one(file, bytes, &|| format!("{file}: bit {bit} flipped"));
            }
        }
    }
}
