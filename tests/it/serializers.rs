//! Serializers: those of the crate, one of the user's, and what happens when they fail.

use std::collections::{BTreeMap, HashMap};

use chacha20poly1305::aead::{Aead, Generate, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use happystore::{BoxError, Cbor, Decode, Encode, ErrorKind, Json, Raw, Result, Serializer, Store};
use serde::{Deserialize, Serialize, Serializer as SerdeSerializer};

use crate::support::{assert_refused, everywhere, refused, with_a_disk};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct User {
    name: String,
    age: Option<u8>,
    tags: BTreeMap<String, Vec<i64>>,
    role: Role,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Role {
    Guest,
    Member { since: u32 },
}

fn user() -> User {
    User {
        name: "Zoë \u{0} 😀".to_owned(),
        age: Some(255),
        tags: BTreeMap::from([("numbers".to_owned(), vec![i64::MIN, 0, i64::MAX])]),
        role: Role::Member { since: 2019 },
    }
}

fn round_trip<S>(store: &Store<S>)
where
    S: Encode<User> + Decode<User> + Encode<Option<u8>> + Decode<Option<u8>>,
{
    store.set("user", &user()).unwrap();
    assert_eq!(store.get("user").unwrap(), Some(user()));
    let guest = User {
        age: None,
        role: Role::Guest,
        ..user()
    };
    store.bulk_set([("user", guest.clone())]).unwrap();
    assert_eq!(
        store.query().pairs::<User>().unwrap(),
        [("user".to_owned(), guest)]
    );
    store.delete("user").unwrap();
    store.set("none", &None::<u8>).unwrap();
    assert_eq!(
        store.get::<Option<u8>>("none").unwrap(),
        Some(None),
        "a stored nothing is there"
    );
    store.delete("none").unwrap();
}

#[test]
fn cbor_and_json_take_anything_that_serde_knows() {
    for place in everywhere() {
        let store = place.open_with(place.options().serializer(Cbor)).unwrap();
        round_trip(&store);
        round_trip(&store.with(Json));
    }
}

#[test]
fn json_is_text_that_others_read() {
    for place in everywhere() {
        let store = place.open_with(place.options().serializer(Json)).unwrap();
        store.set("a", &("é", 1, None::<u8>)).unwrap();
        assert_eq!(
            store.with(Raw).get("a").unwrap(),
            Some("[\"é\",1,null]".into())
        );
    }
}

#[test]
fn raw_takes_bytes_as_they_are() {
    for place in everywhere() {
        let store = place.open_with(place.options().serializer(Raw)).unwrap();
        store.set("slice", &[1, 2][..]).unwrap();
        store.set("array", &[1, 2]).unwrap();
        store.set("vec", &vec![1, 2]).unwrap();
        store.set("str", "\u{1}\u{2}").unwrap();
        store.set("string", &"\u{1}\u{2}".to_owned()).unwrap();
        for (key, value) in store.query().pairs::<Vec<u8>>().unwrap() {
            assert_eq!(value, [1, 2], "{key}");
        }
        store.set("empty", "").unwrap();
        assert_eq!(
            store.get("empty").unwrap(),
            Some(vec![]),
            "an empty value is a value"
        );
        assert!(store.has("empty").unwrap());
    }
}

/// CBOR, encrypted.
#[derive(Clone)]
struct Encrypted(ChaCha20Poly1305);

impl Encrypted {
    fn new(key: u8) -> Self {
        Self(ChaCha20Poly1305::new(&Key::from([key; 32])))
    }
}

impl Serializer for Encrypted {
    fn name(&self) -> &'static str {
        "chacha20poly1305+cbor"
    }
}

impl<V: ?Sized> Encode<V> for Encrypted
where
    Cbor: Encode<V>,
{
    fn encode(&self, value: &V, out: &mut Vec<u8>) -> Result<(), BoxError> {
        let mut plain = Vec::new();
        Cbor.encode(value, &mut plain)?;
        let nonce = Nonce::generate();
        let cipher = self
            .0
            .encrypt(&nonce, plain.as_slice())
            .map_err(|e| e.to_string())?;
        out.extend_from_slice(&nonce);
        out.extend_from_slice(&cipher);
        Ok(())
    }
}

impl<V> Decode<V> for Encrypted
where
    Cbor: Decode<V>,
{
    fn decode(&self, bytes: &[u8]) -> Result<V, BoxError> {
        let (nonce, cipher) = bytes.split_at_checked(12).ok_or("too short for a nonce")?;
        let nonce = Nonce::try_from(nonce)?;
        let plain = self.0.decrypt(&nonce, cipher).map_err(|e| e.to_string())?;
        Cbor.decode(&plain)
    }
}

#[test]
fn a_serializer_of_the_users_own_may_encrypt() {
    for place in with_a_disk() {
        let options = |key| place.options().serializer(Encrypted::new(key));
        let store = place.open_with(options(7)).unwrap();
        round_trip(&store);
        store.set("secret", "the plain text").unwrap();
        store.close().unwrap();
        for (name, bytes) in place.files() {
            let plain = b"the plain text";
            assert!(
                !bytes.windows(plain.len()).any(|part| part == plain),
                "it is in {name}"
            );
        }
        let store = place.open_with(options(7)).unwrap();
        assert_eq!(
            store.get::<String>("secret").unwrap().as_deref(),
            Some("the plain text")
        );
        store.close().unwrap();
        let wrong = place.open_with(options(8)).unwrap();
        assert_refused(
            wrong.get::<String>("secret"),
            ErrorKind::Decode,
            &["\"secret\""],
        );
        drop(wrong);
        let parts = ["chacha20poly1305+cbor", "\"cbor\""];
        assert_refused(
            place.open_with(place.options()),
            ErrorKind::SerializerMismatch,
            &parts,
        );
    }
}

/// A value that cannot be encoded, after having been encoded in half.
struct Broken;

impl Serialize for Broken {
    fn serialize<S: SerdeSerializer>(&self, to: S) -> std::result::Result<S::Ok, S::Error> {
        use serde::ser::{Error, SerializeSeq};
        let mut list = to.serialize_seq(Some(2))?;
        list.serialize_element("half")?;
        Err(S::Error::custom("broken on purpose"))
    }
}

#[test]
fn a_value_that_fails_to_encode_leaves_everything_as_it_was() {
    for place in everywhere() {
        let store = place.open();
        store.set("a", &1).unwrap();
        let refuse = |result: Result<()>, key: &str| {
            let parts = [key, "\"cbor\"", "broken on purpose"];
            assert_refused(result, ErrorKind::Encode, &parts);
        };
        refuse(store.set("a", &Broken), "\"a\"");
        refuse(store.bulk_set([("b", Broken)]), "\"b\"");
        let tx = store.begin().unwrap();
        tx.set("c", &3).unwrap();
        refuse(tx.set("c", &Broken), "\"c\"");
        let mixed = [("d", Ok(4)), ("c", Ok(5)), ("e", Err(Broken))];
        refuse(tx.bulk_set(mixed), "\"e\"");
        assert_eq!(tx.get("c").unwrap(), Some(3));
        tx.commit().unwrap();
        store.set("z", &26).unwrap();
        assert_eq!(store.query().keys().unwrap(), ["a", "c", "z"]);
        assert_eq!(
            store.bulk_get::<i32>(["a", "c", "z"]).unwrap(),
            [Some(1), Some(3), Some(26)]
        );
        assert_eq!(store.stats().unwrap().commits, 3);
        let json = store.with(Json);
        let by_pairs = HashMap::from([((1, 2), 3)]);
        assert_refused(
            json.set("map", &by_pairs),
            ErrorKind::Encode,
            &["\"map\"", "json"],
        );
        store.set("map", &by_pairs).unwrap();
        assert_eq!(
            store.get("map").unwrap(),
            Some(by_pairs),
            "CBOR takes any keys"
        );
    }
}

#[test]
fn a_value_that_fails_to_decode_names_key_and_type_and_stays() {
    for place in everywhere() {
        let store = place.open();
        store.set("a", "text").unwrap();
        let error = refused(store.get::<u64>("a"));
        let message = error.to_string();
        for part in ["\"a\"", "u64", "\"cbor\"", "type it was stored with"] {
            assert!(message.contains(part), "{message}");
        }
        assert!(
            std::error::Error::source(&error).is_some(),
            "the cause is kept"
        );
        let tx = store.begin().unwrap();
        assert_refused(tx.get::<u64>("a"), ErrorKind::Decode, &["\"a\"", "u64"]);
        tx.set("b", "text").unwrap();
        assert_refused(tx.get::<User>("b"), ErrorKind::Decode, &["\"b\"", "User"]);
        tx.commit().unwrap();
        assert_refused(store.bulk_get::<u64>(["b"]), ErrorKind::Decode, &["\"b\""]);
        assert_eq!(store.get::<String>("a").unwrap().as_deref(), Some("text"));
    }
}

#[test]
fn bytes_behind_a_value_are_an_error() {
    for place in everywhere() {
        let store = place.open();
        let raw = store.with(Raw);
        raw.set("cbor", &[1, 1]).unwrap();
        raw.set("json", "1 1").unwrap();
        raw.set("short", &[0x18]).unwrap();
        raw.set("space", " 1\n").unwrap();
        assert_refused(store.get::<u8>("cbor"), ErrorKind::Decode, &["\"cbor\""]);
        assert_refused(
            store.with(Json).get::<u8>("json"),
            ErrorKind::Decode,
            &["\"json\""],
        );
        assert_refused(store.get::<u8>("short"), ErrorKind::Decode, &["\"short\""]);
        assert_eq!(
            store.with(Json).get("space").unwrap(),
            Some(1),
            "white space is none"
        );
    }
}

#[test]
fn the_name_of_the_serializer_is_in_the_manifest() {
    for place in with_a_disk() {
        drop(place.open_with(place.options().serializer(Json)).unwrap());
        let manifest = place.read_file("MANIFEST");
        assert_eq!((manifest[49], &manifest[60..64]), (4, &b"json"[..]));
        drop(place.open_with(place.options().serializer(Json)).unwrap());
        let parts = ["\"json\"", "\"cbor\""];
        assert_refused(
            place.open_with(place.options()),
            ErrorKind::SerializerMismatch,
            &parts,
        );
    }
}

#[test]
fn keys_are_shown_so_that_people_can_read_them() {
    for place in everywhere() {
        let bytes = place.open_with(place.options().byte_keys()).unwrap();
        bytes.set(&[0, 0xff], "x").unwrap();
        assert_refused(bytes.get::<u8>(&[0, 0xff]), ErrorKind::Decode, &["0x00ff"]);
        let long = "a\n".repeat(1_000).into_bytes();
        bytes.set(&long, "x").unwrap();
        let message = refused(bytes.get::<u8>(&long)).to_string();
        assert!(
            message.contains("\"a\\na") && message.contains("(2000 bytes)"),
            "{message}"
        );
        assert!(message.len() < 500);
    }
}
