//! CBOR (RFC 8949), the default: anything `serde` knows.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{BoxError, Decode, Encode, Serializer};

/// Values as CBOR: compact, self-describing, for anything `serde` can (de)serialize.
///
/// A `Vec<u8>` is a list of numbers to `serde`, and takes up to two bytes each: wrap it with the
/// crate `serde_bytes`, or store it [`with(Raw)`](crate::Store::with).
///
/// # Examples
/// ```
/// let store = happystore::Store::in_memory();
/// store.set("point", &(1.5, 2.5))?;
/// assert_eq!(store.get("point")?, Some((1.5, 2.5)));
/// # Ok::<(), happystore::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Cbor;

impl Serializer for Cbor {
    fn name(&self) -> &'static str {
        "cbor"
    }
}

impl<V: Serialize + ?Sized> Encode<V> for Cbor {
    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(ciborium::into_writer(value, out)?)
    }
}

/// What the decoder means: its own words are made for its programmers.
fn explain(error: ciborium::de::Error<std::io::Error>) -> BoxError {
    use ciborium::de::Error;
    match error {
        Error::Semantic(_, what) => what.into(),
        Error::Io(_) => "the bytes end within the value".into(),
        Error::Syntax(at) => format!("byte {at} is not CBOR").into(),
        Error::RecursionLimitExceeded => "it is nested too deeply".into(),
    }
}

impl<V: DeserializeOwned> Decode<V> for Cbor {
    fn decode(&self, mut bytes: &[u8]) -> Result<V, BoxError> {
        let value = ciborium::from_reader(&mut bytes).map_err(explain)?;
        if bytes.is_empty() {
            Ok(value)
        } else {
            Err("there are bytes behind the value".into())
        }
    }
}
