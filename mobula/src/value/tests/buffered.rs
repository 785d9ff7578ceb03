//! `serde` buffers values for `untagged`, `flatten` and tagged enums, and reads them from there as one type after the
//! other, until one fits. If this fails, a value comes back as another: bytes as text, a carrier as a number, a map as
//! a struct.

use std::collections::BTreeMap;
use std::ffi::CString;
use std::fmt::{self, Debug};
use std::path::PathBuf;

use crate::arrow::array::StringArray;
use serde::de::DeserializeOwned;
use serde::ser::SerializeMap;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::{ByteArray, ByteBuf};
use uuid::Uuid;

use super::corpus::{Id, Internal, Untagged, check, check_back};
use super::store::Store;
use super::{from_heap, payload};
use crate::value::{Arrow, Bytes, Reference, Source, Tensor, decode, encode};

/// Types that `serde` reads from bytes, too, tried before that of bytes.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(untagged)]
enum Others<T> {
    Text(String),
    Maybe(Option<Id<Box<str>>>),
    Path(PathBuf),
    Uuid(Uuid),
    Name(Choice),
    Letter(char),
    Fields(BTreeMap<String, u8>),
    It(T),
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
enum Choice {
    First(u8),
    #[serde(rename = "abc")]
    Abc,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(tag = "t", content = "c")]
enum Adjacent<T> {
    It(T),
}

/// Content that comes before its tag is buffered.
#[derive(Deserialize, PartialEq, Debug)]
#[serde(transparent)]
struct TagLast<T>(Adjacent<T>);

impl<T: Serialize> Serialize for TagLast<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let Self(Adjacent::It(content)) = self;
        let mut map = serializer.serialize_map(Some(2))?;
        map.serialize_entry("c", content)?;
        map.serialize_entry("t", "It")?;
        map.end()
    }
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Flat<T> {
    #[serde(flatten)]
    one: Option<One<T>>,
    #[serde(flatten)]
    rest: BTreeMap<String, T>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct One<T> {
    one: T,
}

/// A field as the crate `serde_bytes` writes it.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct WithBytes<T> {
    #[serde(with = "serde_bytes")]
    #[serde(bound(
        serialize = "T: serde_bytes::Serialize",
        deserialize = "T: serde_bytes::Deserialize<'de>"
    ))]
    bytes: T,
}

#[test]
fn bytes_are_not_taken_for_text() {
    fn check_bytes<T: Serialize + DeserializeOwned + PartialEq + Debug>(make: impl Fn() -> T) {
        check(make());
        let text = || Others::It(make());
        check_back(&text());
        check_back(&Internal::It { it: text() });
        check_back(&Adjacent::It(text()));
        check_back(&Flat {
            one: Some(One { one: text() }),
            rest: BTreeMap::from([("other".to_owned(), text())]),
        });
        check_back(&TagLast(Adjacent::It(text())));
    }

    let large = [vec![b'x'; 4999], vec![0xff]].concat();
    for bytes in
        [&b""[..], b"a", b"abc", b"a path", b"sixteen letters.", b"\xff", &[0xff; 16], &[b'x'; 5000], &large]
    {
        check_bytes(|| ByteBuf::from(bytes));
        check_bytes(|| WithBytes { bytes: bytes.to_vec() });
        check_bytes(|| WithBytes { bytes: Some(bytes.to_vec()) });
        check_bytes(|| Some(vec![ByteBuf::from(bytes)]));
        check_bytes(|| Id(Id(ByteBuf::from(bytes))));
        check_bytes(|| CString::new(bytes).unwrap());
        check_bytes(|| Bytes::from(bytes.to_vec()));
        check_bytes(|| bytes.to_vec());
        check_bytes(|| bytes.to_vec().into_boxed_slice());
    }
    for bytes in [*b"sixteen letters.", [0xff; 16]] {
        check_bytes(|| ByteArray::new(bytes));
        check_bytes(|| WithBytes { bytes: Box::<[u8]>::from(bytes) });
        check_bytes(|| bytes);
    }
}

/// A type that asks the format for any value is told of bytes that they are bytes.
#[test]
fn bytes_are_bytes_to_a_type_that_takes_any_value() {
    #[derive(PartialEq, Debug)]
    enum Any {
        Bytes(Vec<u8>),
        List(Vec<Any>),
        Number(u64),
    }

    impl Serialize for Any {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            match self {
                Self::Bytes(bytes) => serializer.serialize_bytes(bytes),
                Self::List(list) => list.serialize(serializer),
                Self::Number(number) => number.serialize(serializer),
            }
        }
    }

    impl<'de> Deserialize<'de> for Any {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            deserializer.deserialize_any(AnyVisitor)
        }
    }

    struct AnyVisitor;

    impl<'de> serde::de::Visitor<'de> for AnyVisitor {
        type Value = Any;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("bytes, a list or a number")
        }

        fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Any, E> {
            Ok(Any::Bytes(bytes.to_vec()))
        }

        fn visit_u64<E>(self, number: u64) -> Result<Any, E> {
            Ok(Any::Number(number))
        }

        fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Any, A::Error> {
            let mut elements = Vec::new();
            while let Some(element) = list.next_element()? {
                elements.push(element);
            }
            Ok(Any::List(elements))
        }
    }

    for bytes in [b"".to_vec(), b"abc".to_vec(), vec![b'x'; 5000], vec![0xff; 5000]] {
        check_back(&Any::List(vec![Any::Bytes(bytes), Any::Number(7), Any::List(vec![Any::Number(8)])]));
    }
}

/// Types with a field `a`, and a variant `First`, tried before a map with such keys.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(untagged)]
enum Keyed<K: Ord> {
    Fields { a: u8 },
    Variant(Choice),
    Map(BTreeMap<K, u8>),
}

/// `serde` takes an unsigned key for the number of a field, or of a variant.
#[test]
fn keys_are_not_taken_for_the_numbers_of_fields() {
    for keys in [0..=0, 0..=1, 127..=130, 65_535..=65_536] {
        let map = keys.map(|key| (key, 5)).collect::<BTreeMap<u32, u8>>();
        check_back(&Keyed::Map(map.clone()));
        check_back(&Keyed::Map(map.iter().map(|(key, value)| (Id(u64::from(*key)), *value)).collect()));
        check_back(&Keyed::Map(map.iter().map(|(key, value)| (Some(i64::from(*key)), *value)).collect()));
    }
    check(BTreeMap::from([(u64::MAX, 1), (0, 2), (i64::MAX as u64 + 1, 3)]));
    check(BTreeMap::from([(i64::MIN, 1), (0, 2), (i64::MAX, 3)]));
    check(BTreeMap::from([((0_u8, 1_u64), 1), ((1, 0), 2)]));
}

/// `serde` takes bytes for the name of a field, or of a variant.
#[test]
fn keys_are_not_taken_for_the_names_of_fields() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(tag = "type")]
    enum Tagged {
        Map(Keyed<ByteBuf>),
    }
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Open {
        #[serde(skip_serializing_if = "Option::is_none")]
        name: Option<u8>,
        #[serde(flatten)]
        rest: BTreeMap<ByteBuf, u8>,
    }

    for key in [&b"a"[..], b"First", b"\xff"] {
        let map = || Keyed::Map(BTreeMap::from([(ByteBuf::from(key), 5)]));
        check_back(&map());
        check_back(&Tagged::Map(map()));
        check_back(&Internal::It { it: map() });
    }
    // Where names and other keys stand side by side, nothing tells them apart.
    for key in [&b"name"[..], b"another", b"\xff"] {
        let open = Open { name: None, rest: BTreeMap::from([(ByteBuf::from(key), 5)]) };
        let error = from_heap::<Open>(payload(&open)).unwrap_err().to_string();
        assert!(error.contains("Open") && error.contains("expected field identifier"), "{error}");
    }
}

#[test]
fn carriers_come_back_from_what_is_buffered() {
    let tensor = Tensor::from_shape_vec(&[2], vec![1.5_f32, 2.5]).unwrap();
    let bytes = Bytes::from(vec![1; 5000]);
    check((
        tensor.clone(),
        bytes.clone(),
        Some(tensor.clone()),
        BTreeMap::from([("a".to_owned(), bytes.clone())]),
    ));
    /// A map is all that a tag can be added to, so the tensor is written in line.
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(tag = "type")]
    enum Scene {
        Image(Tensor<f32>),
    }
    check(Scene::Image(tensor));
    let read: Untagged<Bytes> = from_heap(payload(&Untagged::It(bytes.clone()))).unwrap();
    let Untagged::It(read) = read;
    assert_eq!(encode(&read).unwrap().copied_bytes(), 5000);
}

/// Other types that a carrier must not be taken for, tried before it.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(untagged)]
enum Last<T> {
    Number(u64),
    Id(Id<u64>),
    Maybe(Option<Id<Id<u32>>>),
    List(Vec<u32>),
    Position(Id<Vec<u32>>),
    Pair(Id<(u32,)>),
    Fields(Id<TensorLike>),
    Map(Id<BTreeMap<String, serde_json::Value>>),
    Json(Id<serde_json::Value>),
    Any(serde_json::Value),
    It(T),
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct TensorLike {
    shape: Vec<usize>,
}

#[test]
fn a_carrier_is_not_taken_for_another_type() {
    fn check_last<T: Serialize + DeserializeOwned + PartialEq + Debug>(carrier: T) {
        let last = Last::It(carrier);
        assert_eq!(from_heap::<Last<T>>(payload(&last)).unwrap(), last);
        let Last::It(carrier) = last else { unreachable!() };
        // A newtype of the user's takes off no more than its own.
        check(Id(Id(Id(carrier))));
    }
    check_last(Bytes::new());
    check_last(Bytes::from(vec![1; 5000]));
    check_last(Tensor::from_shape_vec(&[2], vec![1.5_f32, 2.5]).unwrap());
    check_last(Arrow::from(StringArray::from(vec!["a", "b"])));
    let store = Store::start();
    let object = store.put(&[7; 10]).unwrap();
    let encoded = encode(&Last::It(Reference(object.handle()))).unwrap();
    let source = Source::heap(encoded.to_vec(), encoded.references().to_vec());
    match decode(source).unwrap() {
        Last::It(Reference(handle)) => assert_eq!(handle.id(), object.id()),
        other => panic!("{other:?}"),
    }
}
