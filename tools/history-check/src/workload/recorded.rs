//! A store, snapshot or transaction, whose answers are written down.

use std::cell::RefCell;
use std::ops::Bound;

use happystore::{Query, Raw, Read, Result, Write};

use crate::history::{Operation, Selection};
use crate::text::write_operation;

/// The first line of a transaction, as far as it is.
pub(super) type Line = RefCell<String>;

/// What to ask a query for.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) keys: Keys,
    /// Go on behind this key, which must be one of `keys`.
    pub(super) after: Option<String>,
    pub(super) reverse: bool,
    pub(super) limit: Option<usize>,
}

/// Which keys a query is about.
#[derive(Debug, Clone)]
pub(super) enum Keys {
    Prefix(&'static str),
    Range(Bound<String>, Bound<String>),
}

impl Span {
    pub(super) fn of(keys: Keys) -> Self {
        Self {
            keys,
            after: None,
            reverse: false,
            limit: None,
        }
    }

    fn query<'q>(&self, source: &'q impl Read<Raw>) -> Query<'q, Raw, str> {
        let mut query = match &self.keys {
            Keys::Prefix(prefix) => source.query().prefix(prefix),
            Keys::Range(low, high) => source.query().range((low.clone(), high.clone())),
        };
        if let Some(key) = &self.after {
            query = query.after(key);
        }
        if let Some(limit) = self.limit {
            query = query.limit(limit);
        }
        if self.reverse { query.reverse() } else { query }
    }

    /// What the query means, worked out without the store.
    fn selection(&self) -> Selection<'_> {
        let (mut low, mut high) = match &self.keys {
            Keys::Prefix(prefix) => (Bound::Included((*prefix).into()), prefix_end(prefix)),
            Keys::Range(low, high) => {
                let end = |key: &'_ Bound<String>| key.clone().map(Into::into);
                (end(low), end(high))
            }
        };
        if let Some(key) = &self.after {
            let end = Bound::Excluded(key.into());
            *(if self.reverse { &mut high } else { &mut low }) = end;
        }
        Selection {
            low,
            high,
            reverse: self.reverse,
            limit: self.limit,
        }
    }
}

/// The least key behind all that begin with `prefix`, which ends in an ASCII character but the last.
fn prefix_end(prefix: &str) -> Bound<std::borrow::Cow<'static, str>> {
    let mut end = prefix.to_owned();
    match end.pop().and_then(|last| u8::try_from(last).ok()) {
        Some(last) => {
            end.push(char::from(last + 1));
            Bound::Excluded(end.into())
        }
        None => Bound::Unbounded,
    }
}

/// Something to read from, and where its answers go.
pub(super) struct Recorded<'a, R> {
    pub(super) source: &'a R,
    pub(super) line: &'a Line,
}

impl<R: Read<Raw>> Recorded<'_, R> {
    pub(super) fn note(&self, operation: &Operation<'_>) {
        write_operation(&mut self.line.borrow_mut(), operation);
    }

    pub(super) fn get(&self, key: &str) -> Result<Option<String>> {
        let value = self.source.get(key)?.map(text);
        self.note(&Operation::Get {
            key: key.into(),
            value: value.as_deref().map(Into::into),
        });
        Ok(value)
    }

    pub(super) fn has(&self, key: &str) -> Result<bool> {
        let there = self.source.has(key)?;
        self.note(&Operation::Has {
            key: key.into(),
            there,
        });
        Ok(there)
    }

    pub(super) fn bulk_get(&self, keys: &[String]) -> Result<Vec<Option<String>>> {
        let values = self.source.bulk_get(keys)?;
        let values: Vec<Option<String>> = values.into_iter().map(|value| value.map(text)).collect();
        for (key, value) in keys.iter().zip(&values) {
            self.note(&Operation::Get {
                key: key.into(),
                value: value.as_deref().map(Into::into),
            });
        }
        Ok(values)
    }

    pub(super) fn pairs(&self, span: &Span) -> Result<Vec<(String, String)>> {
        let pairs = span.query(self.source).pairs()?;
        let pairs = pairs
            .into_iter()
            .map(|(key, value)| (key, text(value)))
            .collect();
        Ok(self.shown(span, pairs))
    }

    /// Walks from both ends, as `from_back` says for each step; `begun` is called when the iterator
    /// stands, and shows one moment from then on.
    pub(super) fn iterate(
        &self,
        span: &Span,
        begun: impl FnOnce(),
        mut from_back: impl FnMut() -> bool,
    ) -> Result<Vec<(String, String)>> {
        let mut iter = span.query(self.source).iter()?;
        begun();
        let (mut pairs, mut back) = (Vec::new(), Vec::new());
        loop {
            let is_back = from_back();
            let next = if is_back {
                iter.next_back()
            } else {
                iter.next()
            };
            let Some(pair) = next else { break };
            let (key, value) = pair?;
            let end = if is_back { &mut back } else { &mut pairs };
            end.push((key, text(value)));
        }
        pairs.extend(back.into_iter().rev());
        Ok(self.shown(span, pairs))
    }

    /// Everything, by a scan.
    pub(super) fn scan(&self, page_size: usize, begun: impl FnOnce()) -> Result<()> {
        let iter = self.source.scan().page_size(page_size).iter()?;
        begun();
        let mut pairs = Vec::new();
        for pair in iter {
            let (key, value) = pair?;
            pairs.push((key, text(value)));
        }
        let everything = Span::of(Keys::Range(Bound::Unbounded, Bound::Unbounded));
        self.shown(&everything, pairs);
        Ok(())
    }

    fn shown(&self, span: &Span, pairs: Vec<(String, String)>) -> Vec<(String, String)> {
        let shown = pairs.iter().map(|(key, value)| (key.into(), value.into()));
        self.note(&Operation::Pairs {
            selection: span.selection(),
            pairs: shown.collect(),
        });
        pairs
    }

    pub(super) fn keys(&self, span: &Span) -> Result<Vec<String>> {
        let keys = span.query(self.source).keys()?;
        self.note(&Operation::Keys {
            selection: span.selection(),
            keys: keys.iter().map(Into::into).collect(),
        });
        Ok(keys)
    }

    pub(super) fn count(&self, span: &Span) -> Result<()> {
        let count = span.query(self.source).count()?;
        self.note(&Operation::Count {
            selection: span.selection(),
            count,
        });
        Ok(())
    }
}

impl<W: Write<Raw>> Recorded<'_, W> {
    pub(super) fn set(&self, key: &str, value: &str) -> Result<()> {
        self.source.set(key, value)?;
        self.note_set(key, value);
        Ok(())
    }

    fn note_set(&self, key: &str, value: &str) {
        self.note(&Operation::Set {
            key: key.into(),
            value: value.into(),
        });
    }

    pub(super) fn delete(&self, key: &str) -> Result<()> {
        let there = self.source.delete(key)?;
        self.note_delete(key, there);
        Ok(())
    }

    fn note_delete(&self, key: &str, there: bool) {
        self.note(&Operation::Delete {
            key: key.into(),
            there,
        });
    }

    pub(super) fn bulk_set(&self, pairs: &[(String, String)]) -> Result<()> {
        self.source
            .bulk_set(pairs.iter().map(|(key, value)| (key, value)))?;
        for (key, value) in pairs {
            self.note_set(key, value);
        }
        Ok(())
    }

    pub(super) fn bulk_delete(&self, keys: &[String]) -> Result<()> {
        for (key, there) in keys.iter().zip(self.source.bulk_delete(keys)?) {
            self.note_delete(key, there);
        }
        Ok(())
    }

    pub(super) fn delete_range(&self, span: &Span) -> Result<()> {
        let count = span.query(self.source).delete()?;
        self.note(&Operation::DeleteRange {
            selection: span.selection(),
            count,
        });
        Ok(())
    }
}

/// A value as text; what is none differs from all that was ever written.
pub(super) fn text(value: Vec<u8>) -> String {
    String::from_utf8(value)
        .unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
}
