//! Values to bytes and back, by a serializer of the user's choice.
//!
//! `store` and `transaction` encode here before any lock is taken, and decode here straight from
//! the bytes of the log. A serializer knows nothing of stores; its errors come back as causes.

mod cbor;
mod json;
mod raw;

pub use cbor::Cbor;
pub use json::Json;
pub use raw::Raw;

use std::sync::Arc;

use crate::error::{Cause, Error, Result, show_key};

/// What a serializer returns when it fails: any error.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A way to turn values into bytes and back.
///
/// [`Cbor`], [`Json`] and [`Raw`] come with the crate. For an own one, implement this trait and
/// [`Encode`] and [`Decode`] for the value types it takes. A serializer is cloned into every
/// iterator, so put what is large behind an `Arc`.
///
/// # Examples
/// Values encrypted with ChaCha20-Poly1305, around [`Cbor`]:
/// ```
/// use chacha20poly1305::aead::{Aead, Generate, KeyInit};
/// use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
/// use happystore::{BoxError, Cbor, Decode, Encode, Options, Serializer};
///
/// #[derive(Clone)]
/// struct Encrypted(ChaCha20Poly1305);
///
/// impl Serializer for Encrypted {
///     fn name(&self) -> &str {
///         "chacha20poly1305+cbor"
///     }
/// }
///
/// impl<V: ?Sized> Encode<V> for Encrypted
/// where
///     Cbor: Encode<V>,
/// {
///     fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), BoxError> {
///         let mut plain = Vec::new();
///         Cbor.encode(value, &mut plain)?;
///         let nonce = Nonce::generate();
///         let cipher = self.0.encrypt(&nonce, plain.as_slice()).map_err(|e| e.to_string())?;
///         out.extend_from_slice(&nonce);
///         out.extend_from_slice(&cipher);
///         Ok(())
///     }
/// }
///
/// impl<V> Decode<V> for Encrypted
/// where
///     Cbor: Decode<V>,
/// {
///     fn decode(&self, bytes: &[u8]) -> Result<V, BoxError> {
///         let (nonce, cipher) = bytes.split_at_checked(12).ok_or("too short for a nonce")?;
///         let nonce = Nonce::try_from(nonce)?;
///         let plain = self.0.decrypt(&nonce, cipher).map_err(|e| e.to_string())?;
///         Cbor.decode(&plain)
///     }
/// }
///
/// let cipher = ChaCha20Poly1305::new(&Key::from([7; 32]));
/// let store = Options::new().serializer(Encrypted(cipher)).in_memory()?;
/// store.set("secret", &"42")?;
/// assert_eq!(store.get::<String>("secret")?.as_deref(), Some("42"));
/// # Ok::<(), happystore::Error>(())
/// ```
pub trait Serializer: Clone + Send + Sync + 'static {
    /// The name that is kept in the store, at most
    /// [`SERIALIZER_NAME_BYTES_MAX`](crate::limits::SERIALIZER_NAME_BYTES_MAX) bytes. Change it
    /// when values of the old kind cannot be decoded any more.
    fn name(&self) -> &str;
}

/// A serializer that can encode values of type `V`.
pub trait Encode<V: ?Sized>: Serializer {
    /// Appends the bytes of `value` to `out`, and changes nothing before them.
    ///
    /// # Errors
    /// Any error; it becomes the source of [`Error::Encode`], and nothing is stored.
    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), BoxError>;
}

/// A serializer that can decode values of type `V`.
pub trait Decode<V>: Serializer {
    /// The value in `bytes`.
    ///
    /// # Errors
    /// Any error; it becomes the source of [`Error::Decode`].
    fn decode(&self, bytes: &[u8]) -> Result<V, BoxError>;
}

/// Encodes `value` of `key`, with the key in the error.
pub(crate) fn encode<S: Encode<V>, V: ?Sized>(
    serializer: &S,
    key: &[u8],
    value: &V,
    out: &mut Vec<u8>,
) -> Result<()> {
    serializer
        .encode(value, out)
        .map_err(|source| Error::Encode {
            key: show_key(key),
            serializer: serializer.name().to_owned(),
            source: cause(source),
        })
}

/// Decodes the value of `key`, with the key and the type in the error.
pub(crate) fn decode<S: Decode<V>, V>(serializer: &S, key: &[u8], bytes: &[u8]) -> Result<V> {
    serializer.decode(bytes).map_err(|source| Error::Decode {
        key: show_key(key),
        type_name: std::any::type_name::<V>(),
        serializer: serializer.name().to_owned(),
        source: cause(source),
    })
}

fn cause(error: BoxError) -> Cause {
    Arc::from(error)
}
