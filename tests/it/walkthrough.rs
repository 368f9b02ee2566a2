//! The examples of the design, as near to the letter as Rust allows.
//!
//! Where they differ: paths and values are made up here, a closure whose error type nothing else
//! names gets it in its signature, and what is not built yet (compaction, salvage, backup) is
//! left out.

use std::time::Duration;

use happystore::{
    Access, Compaction, Create, Durability, Error, Json, Options, Read, Result, Store, TxOptions,
    Write,
};
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
}

#[test]
fn opening() -> Result<()> {
    let directory = tempfile::tempdir().unwrap();
    let store = Store::open(directory.path().join("data"))?;
    let json: Store<Json> = Options::new()
        .serializer(Json)
        .access(Access::Shared)
        .create(Create::IfMissing)
        .durability(Durability::Sync)
        .lock_timeout(Duration::from_secs(5))
        .label("importer")
        .segment_bytes(64 << 20)
        .compaction(Compaction::automatic())
        .on_open_progress(|progress| assert!(progress.bytes_done <= progress.bytes_total))
        .open(directory.path().join("json"))?;
    let memory = Store::in_memory();
    memory.set("same type", &[&store, &memory].len())?;
    json.close()?;
    store.close()
}

#[test]
fn one_key_and_many_keys() -> Result<()> {
    let store = Store::in_memory();
    let user = User {
        name: "Anna".to_owned(),
    };
    store.set("user/1", &user)?;
    let found: Option<User> = store.get("user/1")?;
    assert_eq!(found.as_ref(), Some(&user));
    assert!(store.has("user/1")?);
    assert!(store.delete("user/1")?);
    let pairs = [("user/1", user.clone()), ("user/2", user.clone())];
    store.bulk_set(pairs)?;
    let keys = ["user/2", "user/3"];
    assert_eq!(store.bulk_get::<User>(&keys)?, [Some(user), None]);
    assert_eq!(store.bulk_delete(keys)?, [true, false]);
    Ok(())
}

#[test]
fn queries() -> Result<()> {
    let store = Store::in_memory();
    store.bulk_set([
        ("a", 1),
        ("aa", 2),
        ("ab", 3),
        ("log/1", 4),
        ("log/2", 5),
        ("tmp/1", 6),
    ])?;
    let pairs: Vec<(String, i32)> = store.query().prefix("a").pairs()?;
    assert_eq!(pairs.len(), 3);
    let pairs = store
        .query()
        .range("a"..="ab")
        .limit(10)
        .reverse()
        .pairs::<i32>()?;
    assert_eq!(pairs[0], ("ab".to_owned(), 3));
    let last_key = "log/1".to_owned();
    let page = store
        .query()
        .prefix("log/")
        .after(&last_key)
        .limit(50)
        .pairs::<i32>()?;
    assert_eq!(page, [("log/2".to_owned(), 5)]);
    assert_eq!(store.query().prefix("tmp/").keys()?, ["tmp/1"]);
    assert_eq!(store.query().prefix("tmp/").count()?, 1);
    assert_eq!(store.query().prefix("tmp/").delete()?, 1);
    let mut seen = Vec::new();
    for pair in store.query().range("l"..).iter::<i32>()? {
        let (key, value) = pair?;
        seen.push((key, value));
    }
    assert_eq!(seen.len(), 2);
    for pair in store.scan().page_size(500).iter::<i32>()? {
        seen.push(pair?);
    }
    assert_eq!(seen.len(), 7);
    Ok(())
}

#[derive(Debug)]
enum MyError {
    Empty,
    Store(Error),
}

impl From<Error> for MyError {
    fn from(error: Error) -> Self {
        Self::Store(error)
    }
}

fn sell(store: &Store) -> std::result::Result<i64, MyError> {
    let left: i64 = store.transaction(|tx| -> std::result::Result<i64, MyError> {
        let stock: i64 = tx.get("stock")?.unwrap_or(0);
        if stock == 0 {
            return Err(MyError::Empty);
        }
        tx.set("stock", &(stock - 1))?;
        if stock == 13 {
            return tx.abort(stock);
        }
        tx.transaction(|inner| {
            inner.set("audit", &stock)?;
            inner.abort(())
        })?;
        Ok(stock - 1)
    })?;
    Ok(left)
}

#[test]
fn transactions_as_closures() {
    let store = Store::in_memory();
    assert!(matches!(sell(&store), Err(MyError::Empty)));
    store.set("stock", &14_i64).unwrap();
    assert_eq!(sell(&store).unwrap(), 13);
    assert_eq!(sell(&store).unwrap(), 13, "aborted");
    assert_eq!(store.get("stock").unwrap(), Some(13));
    assert!(!store.has("audit").unwrap());
    store.clone().close().unwrap();
    assert!(matches!(
        sell(&store),
        Err(MyError::Store(Error::Closed { .. }))
    ));
}

#[test]
fn transactions_as_guards() -> Result<()> {
    let store = Store::in_memory();
    // The design has `let mut tx`; nothing needs the `mut`.
    let tx = store.begin()?;
    tx.set("a", &1)?;
    {
        let inner = tx.begin()?;
        inner.set("b", &2)?;
        inner.commit()?;
    }
    tx.commit()?;
    let options = TxOptions::new()
        .timeout(Duration::ZERO)
        .durability(Durability::Os)
        .label("x");
    store.begin_with(&options)?.commit()?;
    assert_eq!(store.query().keys()?, ["a", "b"]);
    Ok(())
}

fn transfer(db: &impl Write, from: &str, to: &str, amount: i64) -> Result<()> {
    db.transaction(|tx| {
        let (a, b): (i64, i64) = (tx.get(from)?.unwrap_or(0), tx.get(to)?.unwrap_or(0));
        tx.set(from, &(a - amount))?;
        tx.set(to, &(b + amount))
    })
}

fn total(db: &impl Read) -> Result<i64> {
    Ok(db
        .query()
        .pairs::<i64>()?
        .into_iter()
        .map(|(_, amount)| amount)
        .sum())
}

#[test]
fn one_function_for_a_store_and_a_transaction() -> Result<()> {
    let store = Store::in_memory();
    transfer(&store, "a", "b", 5)?;
    let tx = store.begin()?;
    transfer(&tx, "a", "b", 5)?;
    assert_eq!(tx.get("b")?, Some(10_i64));
    assert_eq!(
        (total(&tx)?, total(&store)?, total(&store.snapshot()?)?),
        (0, 0, 0)
    );
    tx.commit()?;
    assert_eq!(store.get("b")?, Some(10_i64));
    Ok(())
}

#[test]
fn looking_after_a_store() -> Result<()> {
    let store = Store::in_memory();
    store.set("a", &1)?;
    store.set("a", &2)?;
    let stats = store.stats()?;
    assert_eq!(
        (stats.keys, stats.commits, stats.segments, stats.lock_waits),
        (1, 2, 1, 0)
    );
    assert!(stats.live_bytes > 0 && stats.dead_bytes > 0 && stats.index_bytes > 0);
    store.verify()?;
    store.sync()
}
