//! Raw: bytes as they are.

use super::{BoxError, Decode, Encode, Serializer};

/// Values that are bytes already: `[u8]`, `Vec<u8>`, arrays, `str` and `String` go in as they
/// are, `Vec<u8>` comes out. Other types do not compile.
///
/// # Examples
/// ```
/// use happystore::{Options, Raw};
///
/// let store = Options::new().serializer(Raw).in_memory()?;
/// store.set("greeting", "hello")?;
/// assert_eq!(store.get("greeting")?, Some(b"hello".to_vec()));
/// # Ok::<(), happystore::Error>(())
/// ```
/// ```compile_fail
/// let store = happystore::Options::new().serializer(happystore::Raw).in_memory().unwrap();
/// store.set("number", &1u32).unwrap();
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Raw;

impl Serializer for Raw {
    fn name(&self) -> &'static str {
        "raw"
    }
}

/// What is bytes already.
trait AsIs {
    fn as_is(&self) -> &[u8];
}

impl AsIs for [u8] {
    fn as_is(&self) -> &[u8] {
        self
    }
}

impl AsIs for str {
    fn as_is(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl AsIs for Vec<u8> {
    fn as_is(&self) -> &[u8] {
        self
    }
}

impl AsIs for String {
    fn as_is(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl<const N: usize> AsIs for [u8; N] {
    fn as_is(&self) -> &[u8] {
        self
    }
}

impl<T: AsIs + ?Sized> AsIs for &T {
    fn as_is(&self) -> &[u8] {
        (**self).as_is()
    }
}

impl<V: AsIs + ?Sized> Encode<V> for Raw {
    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), BoxError> {
        out.extend_from_slice(value.as_is());
        Ok(())
    }
}

impl Decode<Vec<u8>> for Raw {
    fn decode(&self, bytes: &[u8]) -> Result<Vec<u8>, BoxError> {
        Ok(bytes.to_vec())
    }
}
