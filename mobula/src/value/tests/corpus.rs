//! Types with every attribute of `serde`, and of every kind of its data model, come back as they went. If this fails, a
//! user's type changes on its way, or is refused although nothing is wrong with it.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, LinkedList, VecDeque};
use std::ffi::OsString;
use std::fmt::Debug;
use std::marker::PhantomData;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV6};
use std::num::{NonZeroU8, Wrapping};
use std::path::PathBuf;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use chrono::{DateTime, FixedOffset, NaiveDate, NaiveDateTime, Utc};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteBuf;
use serde_json::json;
use uuid::Uuid;

use super::seed::{Random, for_each_seed};
use super::{from_heap, payload};
use crate::value::payload::Layout;
use crate::value::{ValueError, encode};

/// A value, by itself and where `serde` buffers it before it is read.
#[track_caller]
pub(super) fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) {
    let back = check_unbuffered(value);
    let wrapped = Untagged::It(back);
    check_back(&wrapped);
    let wrapped = Internal::It { it: wrapped };
    check_back(&wrapped);
    // The same after other types that it could be taken for.
    let Internal::It { it: Untagged::It(value) } = wrapped;
    let wrapped = NoList::It(value);
    check_if_json_does(&wrapped);
    let wrapped = Internal::It { it: wrapped };
    check_if_json_does(&wrapped);
    let Internal::It { it: NoList::It(value) } = wrapped else { unreachable!() };
    check_if_json_does(&List::It(value));
}

#[track_caller]
pub(super) fn check_back<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    assert_eq!(from_heap::<T>(payload(value)).unwrap_or_else(|error| panic!("{value:?}: {error}")), *value);
}

/// A value that JSON tells apart from the others that its type may have comes back.
#[track_caller]
fn check_if_json_does<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    let json = serde_json::to_string(value).ok();
    if json.is_some_and(|json| serde_json::from_str::<T>(&json).is_ok_and(|back| back == *value)) {
        check_back(value);
    }
}

/// The same for values that `serde` cannot buffer.
#[track_caller]
fn check_unbuffered<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) -> T {
    let whole = payload(&value);
    let back: T = from_heap(whole.clone()).unwrap_or_else(|error| panic!("{value:?}: {error}"));
    assert_eq!(back, value);
    // Sets list their elements in any order.
    if let (Ok(before), Ok(after)) = (serde_json::to_value(&value), serde_json::to_value(&back)) {
        assert!(
            after == before || serde_json::from_value::<T>(after.clone()).is_ok_and(|it| it == value),
            "{after}"
        );
    }
    // Another reader of MessagePack finds one value, and nothing behind it.
    let mut stream = &whole[Layout::read(&whole, whole.len()).unwrap().stream];
    rmpv::decode::read_value(&mut stream).unwrap();
    assert!(stream.is_empty(), "{value:?}: {stream:02x?} is left");
    // A reader that does not know the value passes over it.
    let beside = Known { unknown: Some(value), known: 7 };
    let names = [std::any::type_name::<Known<T>>(), std::any::type_name::<Passing>()];
    let renamed = super::renamed(&payload(&beside), names[0], names[1]);
    assert_eq!(from_heap::<Passing>(renamed).unwrap().known, 7);
    beside.unknown.unwrap()
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(untagged)]
pub(super) enum Untagged<T> {
    It(T),
}

/// Types that a value could be taken for, but no list, since bytes are one to JSON.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(untagged)]
enum NoList<T> {
    Unit(()),
    Flag(bool),
    Number(Id<u64>),
    Letter(char),
    Text(Id<String>),
    Path(PathBuf),
    Name(Choice),
    Uuid(Uuid),
    Map(BTreeMap<String, u8>),
    It(T),
}

/// Types that a value could be taken for, where it is a list, or a struct.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(untagged)]
enum List<T> {
    Numbers(Vec<u64>),
    Texts(Vec<String>),
    Pair(Id<(u8, u8)>),
    Fields { a: u8 },
    It(T),
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(tag = "type")]
pub(super) enum Internal<T> {
    It { it: T },
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub(super) struct Id<T>(pub(super) T);

#[derive(Serialize)]
struct Known<T> {
    unknown: Option<T>,
    known: u8,
}

/// A struct that passes over fields that it does not know.
#[derive(Deserialize)]
struct Passing {
    known: u8,
}

/// A float, equal by its bits: NaN is equal to itself, and the zeros differ.
#[derive(Serialize, Deserialize, Clone, Copy)]
struct Bits<F>(F);

impl PartialEq for Bits<f64> {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl PartialEq for Bits<f32> {
    fn eq(&self, other: &Self) -> bool {
        self.0.to_bits() == other.0.to_bits()
    }
}

impl<F: Debug> Debug for Bits<F> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone, Default)]
struct Attributes {
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<u8>,
    between: u8,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    empty: Vec<u64>,
    #[serde(rename = "kind", alias = "type")]
    renamed: i16,
    #[serde(skip)]
    never: u32,
    #[serde(with = "hexadecimal")]
    with: Vec<u8>,
    #[serde(default = "seven", skip_serializing_if = "is_seven")]
    seven: i64,
    #[serde(flatten)]
    inner: Inner,
    #[serde(flatten)]
    maybe: Option<Maybe>,
    #[serde(flatten)]
    rest: BTreeMap<String, serde_json::Value>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone, Default)]
#[serde(rename_all = "camelCase")]
struct Inner {
    first_name: String,
    #[serde(skip_serializing_if = "Option::is_none", default)]
    last_name: Option<String>,
    age_in_years: Option<u32>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
struct Maybe {
    maybe_this: f64,
    maybe_that: char,
}

fn seven() -> i64 {
    7
}

fn is_seven(number: &i64) -> bool {
    *number == 7
}

mod hexadecimal {
    use super::*;

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&bytes.iter().map(|byte| format!("{byte:02x}")).collect::<String>())
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        let pairs = (0..text.len() / 2).map(|at| u8::from_str_radix(&text[2 * at..2 * at + 2], 16));
        pairs.collect::<Result<_, _>>().map_err(serde::de::Error::custom)
    }
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
#[serde(rename_all = "kebab-case")]
enum External {
    NothingAtAll,
    Nested(Box<Option<External>>),
    Pair(u8, String),
    Fields {
        #[serde(skip_serializing_if = "Option::is_none")]
        skipped: Option<Option<i64>>,
        number: f32,
    },
    Unit(()),
    #[serde(rename = "überall")]
    Maybe(Option<Option<bool>>),
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
#[serde(tag = "type", rename_all = "SCREAMING_SNAKE_CASE")]
enum Tagged {
    NothingAtAll,
    Newtype(Inner),
    Fields { address: IpAddr, id: Uuid, list: Vec<Tagged>, bytes: ByteBuf, half: Option<()> },
    Map(BTreeMap<String, u8>),
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
#[serde(tag = "t", content = "c")]
enum Adjacent {
    Unit,
    Newtype(Vec<Tagged>),
    Pair(u8, char),
    Fields { at: DateTime<Utc>, deep: Option<Box<Adjacent>> },
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
#[serde(untagged)]
enum Any {
    Null,
    Bool(bool),
    Integer(i64),
    Unsigned(u64),
    Float(Bits<f64>),
    Text(String),
    Pair { left: Box<Any>, right: Box<Any> },
    List(Vec<Any>),
    Map(BTreeMap<String, Any>),
}

#[derive(Serialize, Deserialize, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Clone)]
struct Key {
    group: String,
    number: i32,
}

#[derive(Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord, Debug, Clone, Copy)]
enum Choice {
    Left,
    Right(u8),
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
struct Unit;

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
struct Newtype(Option<u8>);

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
struct Pair(Bits<f32>, Bits<f64>);

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
#[serde(transparent)]
struct Transparent {
    only: Option<Option<u8>>,
}

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
#[serde(from = "String", into = "String")]
struct Via(usize);

impl From<String> for Via {
    fn from(text: String) -> Self {
        Self(text.len())
    }
}

impl From<Via> for String {
    fn from(via: Via) -> Self {
        "x".repeat(via.0)
    }
}

#[test]
fn types_with_every_attribute_come_back() {
    for_each_seed(300, |mut random| {
        let random = &mut random;
        check(random.attributes());
        check(vec![random.attributes(), random.attributes()]);
        check((random.attributes(), random.list(|random| random.below(256) as u8)));
        check(random.external(4));
        check(random.list(|random| random.external(2)));
        check(random.tagged(3));
        check(random.adjacent(3));
        check(random.any(4));
        check(random.json(4));
        check(random.map(|random| random.text(), |random| random.json(2)));
        check(Via(random.below(9)));
    });
}

#[test]
fn every_kind_of_the_data_model_comes_back() {
    for_each_seed(300, |mut random| {
        let random = &mut random;
        check((random.integer() as i8, random.integer() as i16, random.integer() as i32, random.integer()));
        check((
            random.integer() as u8,
            random.integer() as u16,
            random.integer() as u32,
            random.integer() as u64,
        ));
        check((random.integer() as isize, random.integer() as usize, random.below(2) == 0, random.letter()));
        let wide = (i128::from(random.integer()) << random.below(65)) + i128::from(random.integer());
        check_unbuffered((wide, wide as u128, vec![wide; random.below(3)], Some(wide)));
        check(Pair(random.single(), random.double()));
        check((random.text(), random.bytes(), ByteBuf::from(random.bytes())));
        check(((), Unit, PhantomData::<u8>, Newtype(random.maybe(|random| random.below(256) as u8))));
        check(random.maybe(|_| ()));
        check(random.maybe(|_| Unit));
        check(random.maybe(|random| random.maybe(|random| random.below(9))));
        check(random.maybe(|random| random.maybe(|random| random.maybe(|_| ()))));
        check(random.list(|random| random.maybe(|random| random.maybe(|_| Unit))));
        check(random.maybe(|random| Newtype(random.maybe(|_| 3))));
        check(Transparent { only: random.maybe(|random| random.maybe(|_| 3)) });
        check(random.maybe(|random| random.json(1)));
        let result: Result<Option<()>, String> =
            if random.below(2) == 0 { Ok(random.maybe(|_| ())) } else { Err(random.text()) };
        check(result);
    });
}

#[test]
fn collections_and_types_of_the_standard_library_come_back() {
    for_each_seed(200, |mut random| {
        let random = &mut random;
        check(random.map(|random| random.integer(), |random| random.text()));
        check(random.map(|random| random.letter(), |random| random.maybe(|_| ())));
        check(random.map(|random| (random.below(9) as u8, random.text()), |random| random.integer()));
        check(random.map(|random| Key { group: random.text(), number: 1 }, |random| random.bytes()));
        check(random.map(
            |random| if random.below(2) == 0 { Choice::Left } else { Choice::Right(random.below(9) as u8) },
            |random| random.below(2) == 0,
        ));
        check(random.map(|random| random.maybe(|random| random.maybe(|random| random.below(3))), |_| Unit));
        check(random.map(|random| random.list(|random| random.below(4)), |_| ()));
        check(
            random
                .list(|random| Key { group: random.text(), number: -1 })
                .into_iter()
                .collect::<HashSet<_>>(),
        );
        check(random.list(|random| (random.text(), random.double())).into_iter().collect::<HashMap<_, _>>());
        check(random.list(|random| random.integer()).into_iter().collect::<BTreeSet<_>>());
        check(random.list(|random| random.integer() as u16).into_iter().collect::<VecDeque<_>>());
        check(random.list(|random| random.text()).into_iter().collect::<LinkedList<_>>());
        check(random.list(|random| random.double()));
        check(random.list(|random| random.single()));
        check(random.list(|random| random.integer()));
        check(random.list(|random| random.integer() as i8));
        check(random.list(|random| random.integer() as usize));
        check(random.list(|random| Wrapping(random.integer() as u32)));
        check(random.list(|random| NonZeroU8::new(random.below(255) as u8 + 1).unwrap()));
        check(random.list(|_| ()));
        check(random.list(|random| random.below(2) == 0));
        check(random.list(|random| random.letter()));
        check([random.integer(), random.integer(), 0]);
        check([[random.below(256) as u8; 16]; 2]);
        check([(); 0]);
        check(Cow::<'static, str>::Owned(random.text()));
        check(Cow::<'static, [u8]>::Owned(random.bytes()));
        check((Rc::new(random.text()), Arc::<[u8]>::from(random.bytes()), Arc::<str>::from(random.text())));
        check((random.text().into_boxed_str(), random.bytes().into_boxed_slice()));
        check(Duration::new(random.next(), random.below(1_000_000_000) as u32));
        check(SystemTime::UNIX_EPOCH + Duration::from_nanos(random.next()));
        check(IpAddr::V4(Ipv4Addr::from(random.next() as u32)));
        check(IpAddr::V6(Ipv6Addr::from(u128::from(random.next()) << 64 | u128::from(random.next()))));
        check(SocketAddr::from(SocketAddrV6::new(Ipv6Addr::LOCALHOST, 80, 0, random.below(3) as u32)));
        check((PathBuf::from(random.text()), OsString::from(random.text())));
        check((random.below(9)..20, random.below(9)..=20, std::ops::Bound::Included(random.below(2))));
        check(std::cmp::Reverse(random.integer()));
    });
}

#[test]
fn times_and_ids_come_back() {
    for_each_seed(100, |mut random| {
        let random = &mut random;
        let at = random.time();
        check(at);
        check((at.naive_utc(), at.date_naive(), random.maybe(|_| at)));
        check(at.with_timezone(&FixedOffset::east_opt(random.below(1440) as i32 * 60 - 43_200).unwrap()));
        check::<(NaiveDate, NaiveDateTime)>((NaiveDate::MIN, NaiveDateTime::MAX));
        check(Stamped { seconds: at, nanos: at });
        check(random.list(|random| random.uuid()));
        check(random.map(|random| random.uuid(), |random| random.time()));
    });
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Stamped {
    #[serde(with = "truncated")]
    seconds: DateTime<Utc>,
    #[serde(with = "chrono::serde::ts_nanoseconds")]
    nanos: DateTime<Utc>,
}

/// A `with` that writes another type, and reads it as the original one.
mod truncated {
    use super::*;

    pub(super) fn serialize<S: Serializer>(at: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
        (at.timestamp(), at.timestamp_subsec_nanos()).serialize(serializer)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<DateTime<Utc>, D::Error> {
        let (seconds, nanos) = Deserialize::deserialize(deserializer)?;
        DateTime::from_timestamp(seconds, nanos).ok_or_else(|| serde::de::Error::custom("no such time"))
    }
}

#[test]
fn extremes_come_back() {
    for number in
        [i64::MIN, -1, -32, -33, -128, -129, -32768, -32769, i64::MAX, 127, 128, 255, 256, 65535, 65536]
    {
        check((number, number.wrapping_sub(1), number as u64, number as i32, number as u32));
    }
    for number in
        [i128::MIN, i128::MAX, i64::MIN.into(), i128::from(i64::MIN) - 1, u64::MAX.into(), -1, 0, 1 << 64]
    {
        check_unbuffered((number, number as u128, Some(number)));
    }
    check_unbuffered([u128::MAX, u128::MAX / 2, u128::MAX / 2 + 1]);
    // Signalling NaNs, and payloads in them.
    for bits in [0x7ff0_0000_0000_0001, 0x7ff8_dead_beef_0000, u64::MAX, 1 << 63, 0x7ff0 << 48, 1] {
        let number = Bits(f64::from_bits(bits));
        check((number, Some(number), vec![number]));
        check(BitsList(vec![number.0; 2]));
    }
    for bits in [0x7f80_0001, 0x7fc0_dead, u32::MAX, 1 << 31, 0x7f80_0000, 1] {
        let number = Bits(f32::from_bits(bits));
        check((number, Some(number), vec![number]));
    }
    for length in [0, 1, 15, 16, 31, 32, 255, 256, 4095, 4096, 65535, 65536] {
        check("x".repeat(length));
        check(ByteBuf::from(vec![7; length]));
        check(vec![1_u8; length]);
        check(vec![-0.0_f64; length]);
        check(vec![Some(1); length]);
        check((0..length).map(|key| (key, ())).collect::<BTreeMap<_, _>>());
    }
}

/// A list of plain floats.
#[derive(Serialize, Deserialize, Debug)]
struct BitsList(Vec<f64>);

impl PartialEq for BitsList {
    fn eq(&self, other: &Self) -> bool {
        self.0.iter().map(|number| number.to_bits()).eq(other.0.iter().map(|number| number.to_bits()))
    }
}

#[test]
fn newtypes_that_are_renamed_come_back() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(rename = "$list")]
    struct List(serde_json::Value);
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(rename = "$ref")]
    struct Link(String);

    check(List(json!([5])));
    check(List(json!({"$ref": [1, null]})));
    check(Link("#/definitions".to_owned()));
}

/// A part that a `Serialize` leaves out because it cannot be written is left out entirely.
#[test]
fn what_is_left_out_leaves_nothing_behind() {
    use serde::ser::{Error as _, SerializeMap, SerializeSeq, SerializeStruct};

    struct Half;
    impl Serialize for Half {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut list = serializer.serialize_seq(Some(2))?;
            list.serialize_element("a half")?;
            Err(S::Error::custom("and no more"))
        }
    }
    struct List;
    impl Serialize for List {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut list = serializer.serialize_seq(Some(3))?;
            list.serialize_element(&1)?;
            assert!(list.serialize_element(&Half).is_err());
            list.serialize_element(&3)?;
            list.end()
        }
    }
    struct Map;
    impl Serialize for Map {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(Some(4))?;
            map.serialize_entry("one", &1)?;
            assert!(map.serialize_entry("half", &Half).is_err());
            assert!(map.serialize_entry(&Half, &2).is_err());
            map.serialize_entry("three", &3)?;
            map.end()
        }
    }
    struct Fields;
    impl Serialize for Fields {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut fields = serializer.serialize_struct("Fields", 3)?;
            fields.serialize_field("one", &1)?;
            assert!(fields.serialize_field("half", &(1, Half)).is_err());
            fields.serialize_field("three", &3)?;
            fields.end()
        }
    }
    let map = BTreeMap::from([("one".to_owned(), 1), ("three".to_owned(), 3)]);
    check_sent(&(List, 7), |back: &(Vec<u8>, u8)| *back == (vec![1, 3], 7));
    check_sent(&(Map, 7), |back: &(BTreeMap<String, u8>, u8)| *back == (map.clone(), 7));
    check_sent(&(Fields, 7), |back: &(BTreeMap<String, u8>, u8)| *back == (map.clone(), 7));
}

/// A field that a list says nothing of, with an iterator that does not know its length, or gives a wrong one.
#[test]
fn lengths_that_are_not_known_or_wrong_come_back() {
    #[derive(Debug, PartialEq)]
    struct Unknown(Vec<u64>);

    impl Serialize for Unknown {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.collect_seq(self.0.iter().filter(|number| **number != 0))
        }
    }

    impl<'de> Deserialize<'de> for Unknown {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            Vec::deserialize(deserializer).map(Self)
        }
    }

    #[derive(Debug, PartialEq)]
    struct Wrong(usize, BTreeMap<u16, u16>);

    impl Serialize for Wrong {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            use serde::ser::SerializeMap;
            let mut map = serializer.serialize_map(Some(self.0))?;
            self.1.iter().try_for_each(|(key, value)| map.serialize_entry(key, value))?;
            map.end()
        }
    }

    let numbers = |count: u64| Unknown((1..=count).collect());
    for count in [0, 1, 15, 16, 100, 65536, 100_000] {
        check_sent(&(numbers(count), 7), |back: &(Unknown, u8)| back.0 == numbers(count) && back.1 == 7);
        for announced in [0, 1, 16, 70_000] {
            let map: BTreeMap<u16, u16> = (0..count.min(20_000) as u16).map(|key| (key, key)).collect();
            check_sent(&(Wrong(announced, map.clone()), 7), |back: &(BTreeMap<u16, u16>, u8)| {
                *back == (map.clone(), 7)
            });
        }
    }
}

/// A value that was sent as one type arrives as another.
#[track_caller]
fn check_sent<A: Serialize, B: DeserializeOwned>(sent: &A, is_right: impl Fn(&B) -> bool) {
    let whole = super::renamed(&payload(sent), std::any::type_name::<A>(), std::any::type_name::<B>());
    assert!(is_right(&from_heap::<B>(whole).unwrap()));
}

/// As in formats that say nothing of a type, a value comes as the type that is asked for.
#[test]
fn types_that_write_one_way_and_read_another_come_back() {
    check_sent(&serde_bytes::Bytes::new(&[1, 2, 3]), |back: &Vec<u8>| *back == [1, 2, 3]);
    check_sent(&vec![1_u8, 2, 3], |back: &ByteBuf| back[..] == [1, 2, 3]);
    check_sent(&ByteBuf::from(vec![9; 5000]), |back: &Vec<u8>| *back == [9; 5000]);
    check_sent(&vec![9_u8; 5000], |back: &ByteBuf| back[..] == [9; 5000]);
    check_sent(&serde_bytes::Bytes::new(&[1, 2]), |back: &[u8; 2]| *back == [1, 2]);
    check_sent(&vec![1_u8, 2, 3], |back: &Vec<Option<u64>>| *back == [Some(1), Some(2), Some(3)]);
    check_sent(&vec![1_u8, 2], |back: &serde_json::Value| *back == json!([1, 2]));
    check_sent(&"text".repeat(2000), |back: &Arc<str>| **back == "text".repeat(2000));
    check_sent(&7_u8, |back: &f64| *back == 7.0);
    check_sent(&1.5_f32, |back: &f64| *back == 1.5);
    check_sent(
        &json!({"skipped": 1, "between": 2, "kind": 3, "with": "", "firstName": "", "ageInYears": null}),
        {
            |back: &Attributes| {
                back.skipped == Some(1) && back.renamed == 3 && back.seven == 7 && back.rest.is_empty()
            }
        },
    );
    check_sent(&(1, "tuple"), |back: &Key2| back.group == 1 && back.number == "tuple");
}

/// A struct may come as a list.
#[derive(Deserialize)]
struct Key2 {
    group: u8,
    number: String,
}

#[derive(Serialize)]
struct Event {
    name: &'static str,
    history: Vec<History>,
}

#[derive(Serialize)]
struct History {
    at: BTreeMap<&'static str, (u8, SystemTime)>,
}

#[test]
fn what_cannot_be_written_is_named_with_its_place() {
    let refused = |value: &dyn Fn() -> Result<super::super::Encoded, ValueError>| match value() {
        Err(error @ ValueError::Unwritable { .. }) => error.to_string(),
        Err(other) => panic!("{other}"),
        Ok(_) => panic!("it was written"),
    };
    let before = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
    let history = |at| History { at: BTreeMap::from([("here", (1, at))]) };
    let history = [history(SystemTime::UNIX_EPOCH), history(before)];
    let text = refused(&|| encode(&Event { name: "launch", history: history.iter().map(clone).collect() }));
    for part in ["Event", "`history[1].at.here[1]`, a `std::time::SystemTime`", "later than UNIX_EPOCH"] {
        assert!(text.contains(part), "{part}: {text}");
    }

    let borrowed = std::cell::RefCell::new(1);
    let _guard = borrowed.borrow_mut();
    let text = refused(&|| encode(&Some(External2::Cell { cell: &borrowed })));
    assert!(text.contains("`Cell.cell`, a `core::cell::RefCell<i32>`: already mutably borrowed"), "{text}");

    #[derive(Serialize)]
    #[serde(tag = "type")]
    enum Scalar {
        It(u8),
    }
    let text = refused(&|| encode(&(1, Scalar::It(1))));
    assert!(
        text.contains("`[1]`") && text.contains("cannot serialize tagged newtype variant Scalar::It"),
        "{text}"
    );

    #[derive(Serialize)]
    struct Flat {
        #[serde(flatten)]
        number: u8,
    }
    let text = refused(&|| encode(&Flat { number: 1 }));
    assert!(text.contains("can only flatten structs and maps"), "{text}");
}

#[derive(Serialize)]
enum External2<'a> {
    Cell { cell: &'a std::cell::RefCell<i32> },
}

fn clone(history: &History) -> History {
    History { at: history.at.clone() }
}

#[test]
fn what_a_type_refuses_to_read_is_said_in_its_words() {
    #[derive(Serialize, Deserialize, Debug)]
    struct Outer {
        even: Vec<Even>,
    }

    #[derive(Serialize, Debug)]
    struct Even(u8);

    impl<'de> Deserialize<'de> for Even {
        fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            match u8::deserialize(deserializer)? {
                odd if odd % 2 == 1 => Err(serde::de::Error::custom(format!("{odd} is odd, of all things"))),
                even => Ok(Self(even)),
            }
        }
    }

    let error = from_heap::<Outer>(payload(&Outer { even: vec![Even(2), Even(3)] })).unwrap_err().to_string();
    assert!(
        error.contains("`even[1]`") && error.contains("Even") && error.ends_with("3 is odd, of all things"),
        "{error}"
    );
    let error = from_heap::<Untagged<Even>>(payload(&Untagged::It(Even(3)))).unwrap_err().to_string();
    assert!(error.contains("did not match any variant of untagged enum"), "{error}");

    // `serde` cannot buffer an integer that needs 128 bits: that is an error, and not another number.
    let error = from_heap::<Untagged<u128>>(payload(&Untagged::It(u128::MAX))).unwrap_err().to_string();
    assert!(error.contains("as u128"), "{error}");
}

impl Random {
    fn integer(&mut self) -> i64 {
        let number = self.next() as i64;
        number >> self.below(64)
    }

    fn double(&mut self) -> Bits<f64> {
        match self.below(4) {
            0 => Bits([f64::NAN, f64::INFINITY, -0.0, f64::MIN_POSITIVE][self.below(4)]),
            1 => Bits(self.integer() as f64),
            _ => Bits(f64::from_bits(self.next())),
        }
    }

    fn single(&mut self) -> Bits<f32> {
        match self.below(3) {
            0 => Bits([f32::NAN, f32::NEG_INFINITY, -0.0, f32::EPSILON][self.below(4)]),
            _ => Bits(f32::from_bits(self.next() as u32)),
        }
    }

    fn letter(&mut self) -> char {
        ['a', '\0', 'é', '€', '🐟', '\u{10ffff}'][self.below(6)]
    }

    fn text(&mut self) -> String {
        let length = [0, 1, 5, 31, 32, 300][self.below(6)];
        (0..length).map(|_| self.letter()).collect()
    }

    fn bytes(&mut self) -> Vec<u8> {
        let length = [0, 1, 16, 255, 256, 5000][self.below(6)];
        (0..length).map(|_| self.next() as u8).collect()
    }

    fn maybe<T>(&mut self, make: impl FnOnce(&mut Self) -> T) -> Option<T> {
        (self.below(2) == 0).then(|| make(self))
    }

    fn list<T>(&mut self, mut make: impl FnMut(&mut Self) -> T) -> Vec<T> {
        (0..self.below(5)).map(|_| make(self)).collect()
    }

    fn map<K: Ord, V>(
        &mut self,
        mut key: impl FnMut(&mut Self) -> K,
        mut value: impl FnMut(&mut Self) -> V,
    ) -> BTreeMap<K, V> {
        (0..self.below(4)).map(|_| (key(self), value(self))).collect()
    }

    fn uuid(&mut self) -> Uuid {
        Uuid::from_u64_pair(self.next(), self.next())
    }

    /// From 1677 to 2262, before the epoch as well.
    fn time(&mut self) -> DateTime<Utc> {
        DateTime::from_timestamp_nanos(self.next() as i64)
    }

    fn inner(&mut self) -> Inner {
        let age_in_years = self.maybe(|random| random.next() as u32);
        Inner { first_name: self.text(), last_name: self.maybe(Self::text), age_in_years }
    }

    fn attributes(&mut self) -> Attributes {
        Attributes {
            skipped: self.maybe(|random| random.below(256) as u8),
            between: self.below(256) as u8,
            empty: self.list(|random| random.next()),
            renamed: self.integer() as i16,
            never: 0,
            with: self.list(|random| random.below(256) as u8),
            seven: [7, self.integer()][self.below(2)],
            inner: self.inner(),
            maybe: self
                .maybe(|random| Maybe { maybe_this: random.integer() as f64, maybe_that: random.letter() }),
            rest: (0..self.below(3)).map(|at| (format!("rest {at}"), self.json(2))).collect(),
        }
    }

    fn external(&mut self, depth: usize) -> External {
        match self.below(if depth == 0 { 5 } else { 6 }) {
            0 => External::NothingAtAll,
            1 => External::Pair(self.below(256) as u8, self.text()),
            2 => External::Fields {
                // A skipped field is read as `None`, so it must not be `Some(None)`.
                skipped: self.maybe(|random| Some(random.integer())),
                number: self.integer() as f32,
            },
            3 => External::Unit(()),
            4 => External::Maybe(self.maybe(|random| random.maybe(|random| random.below(2) == 0))),
            _ => External::Nested(Box::new(self.maybe(|random| random.external(depth - 1)))),
        }
    }

    fn tagged(&mut self, depth: usize) -> Tagged {
        match self.below(if depth == 0 { 3 } else { 4 }) {
            0 => Tagged::NothingAtAll,
            1 => Tagged::Newtype(self.inner()),
            2 => Tagged::Map((0..self.below(3)).map(|at| (format!("{at}"), at as u8)).collect()),
            _ => Tagged::Fields {
                address: IpAddr::V4(Ipv4Addr::from(self.next() as u32)),
                id: self.uuid(),
                list: self.list(|random| random.tagged(depth - 1)),
                bytes: ByteBuf::from(self.bytes()),
                half: self.maybe(|_| ()),
            },
        }
    }

    fn adjacent(&mut self, depth: usize) -> Adjacent {
        match self.below(if depth == 0 { 3 } else { 4 }) {
            0 => Adjacent::Unit,
            1 => Adjacent::Newtype(self.list(|random| random.tagged(1))),
            2 => Adjacent::Pair(self.below(256) as u8, self.letter()),
            _ => {
                let deep = self.maybe(|random| Box::new(random.adjacent(depth - 1)));
                Adjacent::Fields { at: self.time(), deep }
            }
        }
    }

    fn any(&mut self, depth: usize) -> Any {
        match self.below(if depth == 0 { 6 } else { 9 }) {
            0 => Any::Null,
            1 => Any::Bool(self.below(2) == 0),
            2 => Any::Integer(self.integer()),
            3 => Any::Unsigned(u64::MAX - self.below(9) as u64),
            4 => Any::Float(self.double()),
            5 => Any::Text(self.text()),
            6 => Any::Pair { left: Box::new(self.any(depth - 1)), right: Box::new(self.any(depth - 1)) },
            7 => Any::List(self.list(|random| random.any(depth - 1))),
            _ => Any::Map((0..self.below(3)).map(|at| (format!("key {at}"), self.any(depth - 1))).collect()),
        }
    }

    fn json(&mut self, depth: usize) -> serde_json::Value {
        match self.below(if depth == 0 { 5 } else { 7 }) {
            0 => json!(null),
            1 => json!(self.below(2) == 0),
            2 => json!(self.integer()),
            3 => json!(self.integer() as f64 / 3.0),
            4 => json!(self.text()),
            5 => self.list(|random| random.json(depth - 1)).into(),
            _ => (0..self.below(3)).map(|at| (format!("key {at}"), self.json(depth - 1))).collect(),
        }
    }
}
