//! Reading in every way, while calls fail or not.
//!
//! Invariants:
//! 1. A read gives the right value, or `Io` if one of its calls failed. Whether a key is there is
//!    known without a call, and never fails.

use happystore::ErrorKind;

use super::expected::{Model, Seen};
use super::known;
use super::runner::{Bytes, Runner};
use super::workload::KEYS;

impl Runner {
    /// Reads, and judges what is read; `all` of it, or every key once.
    pub(super) fn look(&mut self, store: &Bytes, all: bool) -> Result<(), String> {
        let mut seen = self.get_all(store)?;
        if all {
            self.scan(store, &mut seen)?;
            self.count(store)?;
        }
        self.expected.shows(&seen)
    }

    /// Everything in the store; `None` if a read fails as it may.
    pub(super) fn read_all(&self, store: &Bytes) -> Result<Option<Model>, String> {
        let mut seen = self.get_all(store)?;
        if !self.scan(store, &mut seen)? || KEYS.iter().any(|key| !seen.contains_key(*key)) {
            return Ok(None);
        }
        let there = seen.into_iter();
        Ok(Some(
            there
                .filter_map(|(key, value)| Some((key, value?.into())))
                .collect(),
        ))
    }

    /// What a read gave; `None` if it failed as it may.
    fn told<T>(
        &self,
        what: &str,
        read: impl FnOnce() -> happystore::Result<T>,
    ) -> Result<Option<T>, String> {
        let before = self.world.faults_fired();
        match read() {
            Ok(read) => Ok(Some(read)),
            Err(error) if error.kind() == ErrorKind::Io && self.world.faults_fired() > before => {
                Ok(None)
            }
            Err(error) => Err(format!("{what} said {error:?}")),
        }
    }

    fn get_all(&self, store: &Bytes) -> Result<Seen, String> {
        let mut seen = Seen::new();
        for key in KEYS {
            let got = self.told("get", || store.get::<Vec<u8>>(key))?;
            let has = store.has(key).map_err(|error| format!("has: {error:?}"))?;
            if let Some(got) = got {
                if got.is_some() != has {
                    return Err("get and has differ".to_owned());
                }
                seen.insert(key.to_vec(), got);
            }
        }
        Ok(seen)
    }

    /// Scans both ways; what is not read yet of `seen` is from then on. False if a scan failed.
    fn scan(&self, store: &Bytes, seen: &mut Seen) -> Result<bool, String> {
        let forwards = self.told("a scan", || store.query().pairs::<Vec<u8>>())?;
        let backwards = self.told("a scan back", || store.query().reverse().pairs::<Vec<u8>>())?;
        if let (Some(forwards), Some(backwards)) = (&forwards, &backwards)
            && !forwards.iter().eq(backwards.iter().rev())
        {
            return Err("backwards is not forwards reversed".to_owned());
        }
        let is_complete = forwards.is_some() && backwards.is_some();
        for pairs in [forwards, backwards].into_iter().flatten() {
            for key in KEYS {
                let found = pairs.iter().find(|(each, _)| *each == key);
                let found = found.map(|(_, value)| value.clone());
                if *seen.entry(key.to_vec()).or_insert_with(|| found.clone()) != found {
                    return Err(format!("get and scan differ at {key:?}"));
                }
            }
            if pairs.iter().any(|(key, _)| !KEYS.contains(&&**key)) {
                return Err("a scan shows a key that nobody set".to_owned());
            }
        }
        Ok(is_complete)
    }

    /// Asks for all that is not a value.
    fn count(&self, store: &Bytes) -> Result<(), String> {
        let stats = self.told("stats", || store.stats())?;
        let keys = self.told("keys", || store.query().keys())?;
        if let (Some(stats), Some(keys)) = (stats, keys)
            && stats.keys != keys.len() as u64
            && !known::stats_count_what_readers_do_not_see(&self.expected)
        {
            return Err("the count of keys is not the number of keys".to_owned());
        }
        self.told("verify", || store.verify())?;
        Ok(())
    }
}
