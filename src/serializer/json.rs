//! JSON: readable by people and other languages.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{BoxError, Decode, Encode, Serializer};

/// Values as UTF-8 JSON, for anything `serde` can (de)serialize. JSON has no `NaN` and no
/// infinity: they become `null`, and do not come back as numbers.
///
/// # Examples
/// ```
/// use happystore::{Json, Options, Raw};
///
/// let store = Options::new().serializer(Json).in_memory()?;
/// store.set("point", &(1.5, 2.5))?;
/// assert_eq!(store.with(Raw).get("point")?.as_deref(), Some(&b"[1.5,2.5]"[..]));
/// # Ok::<(), happystore::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Json;

impl Serializer for Json {
    fn name(&self) -> &'static str {
        "json"
    }
}

impl<V: Serialize + ?Sized> Encode<V> for Json {
    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), BoxError> {
        Ok(serde_json::to_writer(out, value)?)
    }
}

impl<V: DeserializeOwned> Decode<V> for Json {
    fn decode(&self, bytes: &[u8]) -> Result<V, BoxError> {
        Ok(serde_json::from_slice(bytes)?)
    }
}
