//! CBOR (RFC 8949), the default: anything `serde` knows.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{BoxError, Decode, Encode, Serializer};

/// Values as CBOR: compact, self-describing, for anything `serde` can (de)serialize.
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

impl<V: DeserializeOwned> Decode<V> for Cbor {
    fn decode(&self, mut bytes: &[u8]) -> Result<V, BoxError> {
        let value = ciborium::from_reader(&mut bytes)?;
        if bytes.is_empty() {
            Ok(value)
        } else {
            Err("there are bytes behind the value".into())
        }
    }
}
