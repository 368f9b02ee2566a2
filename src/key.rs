//! What keys are: UTF-8 strings, or any bytes.

mod sealed {
    pub trait Sealed {
        /// Whether keys are UTF-8; otherwise they are any bytes.
        const TEXT: bool;
    }
}
pub(crate) use sealed::Sealed;

/// A kind of keys: `str` (the default) or `[u8]`.
///
/// Keys are ordered by their bytes, which for `str` is the order of code points. This trait
/// cannot be implemented outside this crate.
pub trait Key: Sealed + 'static {
    /// What queries return: `String` or `Vec<u8>`.
    type Owned: AsRef<Self> + Clone + Send + 'static;

    /// The key's bytes.
    fn as_bytes(&self) -> &[u8];

    /// A key from bytes that were one. Bytes that are not UTF-8 in a store of strings are shown
    /// with replacement characters; no store of strings takes such bytes in.
    fn from_bytes(bytes: &[u8]) -> Self::Owned;
}

impl Sealed for str {
    const TEXT: bool = true;
}

impl Key for str {
    type Owned = String;

    fn as_bytes(&self) -> &[u8] {
        self.as_bytes()
    }

    fn from_bytes(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }
}

impl Sealed for [u8] {
    const TEXT: bool = false;
}

impl Key for [u8] {
    type Owned = Vec<u8>;

    fn as_bytes(&self) -> &[u8] {
        self
    }

    fn from_bytes(bytes: &[u8]) -> Vec<u8> {
        bytes.to_vec()
    }
}
