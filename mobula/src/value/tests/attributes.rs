//! Attributes of `serde` that are used less often than those in `corpus`, and types of the standard library that few
//! programs send. If this fails, a user's type changes on its way, or is refused although nothing is wrong with it.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::ffi::{CString, OsString};
use std::num::{NonZeroI128, NonZeroU64, Saturating};
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicI64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, NaiveDate, NaiveTime, TimeDelta, Utc, Weekday};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_bytes::ByteBuf;
use serde_json::json;
use uuid::Uuid;

use super::corpus::{check, check_back};
use super::{from_heap, payload};
use crate::value::{ValueError, encode};

/// All ways to tell variants apart, flattened into one struct.
#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Flattened {
    #[serde(flatten)]
    external: External,
    #[serde(flatten)]
    internal: Internal,
    #[serde(flatten)]
    adjacent: Option<Adjacent>,
    #[serde(flatten)]
    untagged: Untagged,
    #[serde(flatten)]
    nested: Nested,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
enum External {
    Numbers { list: Vec<f64>, bytes: Vec<u8> },
    Pair(i64, String),
    New(Option<Option<u8>>),
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(tag = "kind", rename_all_fields = "camelCase")]
enum Internal {
    Bare,
    Fields {
        some_number: u64,
        some_float: f32,
    },
    #[serde(rename = "also bare", alias = "barest")]
    AlsoBare,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(tag = "adjacent_tag", content = "adjacent_content")]
enum Adjacent {
    Unit,
    List(Vec<Option<i8>>),
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
#[serde(untagged)]
enum Untagged {
    Text { text: String },
    Number { number: i32 },
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Nested {
    #[serde(flatten)]
    deeper: Deeper,
    beside: i64,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Deeper {
    time: DateTime<Utc>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    maybe: Option<(char, Uuid)>,
}

#[test]
fn enums_of_every_kind_are_flattened() {
    let internals =
        || [Internal::Bare, Internal::Fields { some_number: u64::MAX, some_float: -0.0 }, Internal::AlsoBare];
    let externals = || {
        let list = vec![0.1, f64::INFINITY];
        [
            External::Numbers { list, bytes: vec![0xff; 5000] },
            External::Pair(i64::MIN, "x".repeat(5000)),
            External::New(None),
            External::New(Some(Some(3))),
        ]
    };
    let adjacents = || [None, Some(Adjacent::Unit), Some(Adjacent::List(vec![None, Some(-1)]))];
    for external in 0..4 {
        for internal in 0..3 {
            for adjacent in 0..3 {
                let untagged = if adjacent == 1 {
                    Untagged::Number { number: -1 }
                } else {
                    Untagged::Text { text: "t".repeat(external) }
                };
                let maybe = (internal == 1).then_some(('\u{10ffff}', Uuid::from_u128(1 << 127)));
                let deeper = Deeper { time: DateTime::from_timestamp_nanos(-1), maybe };
                check_back(&Flattened {
                    external: externals().into_iter().nth(external).unwrap(),
                    internal: internals().into_iter().nth(internal).unwrap(),
                    adjacent: adjacents().into_iter().nth(adjacent).unwrap(),
                    untagged,
                    nested: Nested { deeper, beside: external as i64 },
                });
            }
        }
    }
}

/// The variant that takes names that nobody knows, and one that takes values without a name.
#[test]
fn variants_for_the_rest_take_no_more_than_that() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(tag = "type")]
    enum Tagged {
        Known {
            x: u8,
        },
        #[serde(other)]
        Other,
    }
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    enum Named {
        Known(u8),
        Fields {
            a: u8,
        },
        #[serde(untagged)]
        Number(i64),
        #[serde(untagged)]
        Anything(serde_json::Value),
    }
    check(vec![Tagged::Known { x: 1 }, Tagged::Other]);
    check(vec![Named::Known(1), Named::Fields { a: 3 }, Named::Number(-7)]);
    for json in [json!(null), json!("Unknown"), json!([1, "a"]), json!({"Known": "no number"}), json!(1.5)] {
        check(Named::Anything(json));
    }
}

/// Names that differ from side to side, are denied, or are left out.
#[test]
fn fields_with_other_names_and_defaults_come_back() {
    #[derive(Serialize, Deserialize, PartialEq, Debug, Default)]
    #[serde(default, deny_unknown_fields, rename_all(serialize = "PascalCase", deserialize = "snake_case"))]
    struct Strict {
        #[serde(alias = "FirstField")]
        first_field: u8,
        #[serde(skip_serializing_if = "String::is_empty", alias = "SecondField")]
        second_field: String,
        #[serde(rename(serialize = "3", deserialize = "drei"), alias = "3")]
        third: Option<()>,
        #[serde(skip_serializing, default = "forty_two", alias = "Fourth")]
        fourth: u8,
    }
    fn forty_two() -> u8 {
        42
    }
    let strict = |text: &str| Strict { first_field: 1, second_field: text.into(), third: None, fourth: 42 };
    check(vec![strict(""), strict("text")]);

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    #[serde(try_from = "i64", into = "i64")]
    struct Even(i64);
    impl TryFrom<i64> for Even {
        type Error = String;
        fn try_from(number: i64) -> Result<Self, String> {
            if number % 2 == 0 { Ok(Self(number)) } else { Err(format!("{number} is odd")) }
        }
    }
    impl From<Even> for i64 {
        fn from(even: Even) -> i64 {
            even.0
        }
    }
    impl Clone for Even {
        fn clone(&self) -> Self {
            Self(self.0)
        }
    }
    check(vec![Even(i64::MIN), Even(0)]);
    let error = from_heap::<Even>(payload(&Even(3))).unwrap_err().to_string();
    assert!(error.contains("3 is odd"), "{error}");

    // A type of another crate.
    #[derive(Serialize, Deserialize)]
    #[serde(remote = "Duration")]
    struct Seconds {
        #[serde(getter = "Duration::as_secs")]
        seconds: u64,
        #[serde(getter = "Duration::subsec_nanos")]
        nanos: u32,
    }
    impl From<Seconds> for Duration {
        fn from(seconds: Seconds) -> Self {
            Self::new(seconds.seconds, seconds.nanos)
        }
    }
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Waits {
        #[serde(with = "Seconds")]
        longest: Duration,
        #[serde(serialize_with = "as_text", deserialize_with = "from_text")]
        shortest: u128,
    }
    check(Waits { longest: Duration::MAX, shortest: u128::MAX });

    // A variant that is never written is an error, and no other variant.
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    enum Partly {
        #[serde(skip)]
        Hidden,
        Seen,
    }
    check(Partly::Seen);
    match encode(&(1, Partly::Hidden)) {
        Err(error @ ValueError::Unwritable { .. }) => {
            assert!(error.to_string().contains("Partly::Hidden"), "{error}");
        }
        other => panic!("{:?}", other.map(|_| ())),
    }
}

fn as_text<S: Serializer>(number: &u128, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(number)
}

fn from_text<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u128, D::Error> {
    String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
}

#[test]
fn keys_of_any_kind_and_length_come_back() {
    let long = |letter: &str| letter.repeat(5000);
    check(BTreeMap::from([(long("a"), 1), (long("b"), 2), (String::new(), 3)]));
    check(BTreeMap::from([(ByteBuf::from(vec![1; 5000]), 1), (ByteBuf::new(), 2)]));
    check(BTreeMap::from([(vec![1_u64; 600], 1), (vec![], 2)]));
    check(BTreeMap::from([((), 1)]));
    check(BTreeMap::from([(true, 1), (false, 2)]));
    check(BTreeMap::from([(NaiveDate::MIN, 1), (NaiveDate::MAX, 2)]));
    check(BTreeMap::from([(Uuid::nil(), 1), (Uuid::max(), 2)]));
    check(BTreeMap::from([(BTreeMap::from([(1, 'a')]), 1), (BTreeMap::new(), 2)]));
    check(BTreeMap::from([(Some(Some(())), 1), (Some(None), 2), (None, 3)]));
    check(BTreeMap::from([(Ok::<u8, i8>(1), 1), (Err(1), 2)]));

    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Open {
        known: u8,
        #[serde(flatten)]
        rest: BTreeMap<String, serde_json::Value>,
    }
    let rest = BTreeMap::from([(long("key"), json!(long("value"))), ("other".into(), json!({"a": [1, {}]}))]);
    check(Open { known: 1, rest });
}

#[test]
fn what_the_standard_library_wraps_comes_back() {
    check((Cell::new(7_u8), RefCell::new(vec![1.5; 1000]), Saturating(-3)));
    check((NonZeroU64::MAX, CString::new("c").unwrap(), Box::<std::path::Path>::from("a/b".as_ref())));
    check((Duration::MAX, Arc::new(Box::new(1)), std::num::Wrapping(1_u64)));
    check(std::array::from_fn::<u64, 32, _>(|at| at as u64));
    check((1, 2, 3, 4, 5, 6, 7, 8, 9, 'a', "b".to_owned(), 12));
    check(OsString::from_vec(vec![0xff, b'a', 0x80]));
    let heap = std::collections::BinaryHeap::from([3, 1, 2]);
    let back: std::collections::BinaryHeap<i32> = from_heap(payload(&heap)).unwrap();
    assert_eq!(back.into_sorted_vec(), [1, 2, 3]);
    let large = NonZeroI128::MIN;
    assert_eq!(from_heap::<NonZeroI128>(payload(&large)).unwrap(), large);

    let shared =
        (Mutex::new("a".repeat(5000)), RwLock::new(7_u8), AtomicI64::new(i64::MIN), AtomicBool::new(true));
    type Shared = (Mutex<String>, RwLock<u8>, AtomicI64, AtomicBool);
    let back: Shared = from_heap(payload(&shared)).unwrap();
    assert_eq!(*back.0.lock().unwrap(), "a".repeat(5000));
    assert_eq!((*back.1.read().unwrap(), back.2.load(Ordering::Relaxed)), (7, i64::MIN));
    assert!(back.3.load(Ordering::Relaxed));

    // Neither has a form that keeps it.
    let refused = |error: ValueError, what: &str| {
        assert!(matches!(error, ValueError::Unwritable { .. }), "{error}");
        assert!(error.to_string().contains(what), "{error}");
    };
    let path = PathBuf::from(OsString::from_vec(vec![b'a', 0xff]));
    refused(encode(&vec![path]).map(|_| ()).unwrap_err(), "`[0]`, a `std::path::PathBuf`");
    let before = BTreeMap::from([("at", Some(SystemTime::UNIX_EPOCH - Duration::from_nanos(1)))]);
    refused(encode(&before).map(|_| ()).unwrap_err(), "`at`");
    let poisoned = Mutex::new(1);
    std::thread::scope(|scope| {
        let panics = scope.spawn(|| {
            let _guard = poisoned.lock();
            panic!("on purpose");
        });
        panics.join().unwrap_err();
    });
    refused(encode(&(0, poisoned)).map(|_| ()).unwrap_err(), "`[1]`");
}

#[test]
fn times_at_the_ends_of_the_calendar_come_back() {
    #[derive(Serialize, Deserialize, PartialEq, Debug)]
    struct Times {
        #[serde(with = "chrono::serde::ts_nanoseconds_option")]
        nanoseconds: Option<DateTime<Utc>>,
        #[serde(with = "chrono::serde::ts_milliseconds")]
        milliseconds: DateTime<Utc>,
        #[serde(with = "uuid::serde::simple")]
        simple: Uuid,
        #[serde(with = "uuid::serde::compact")]
        compact: Uuid,
    }
    for at in [DateTime::<Utc>::MIN_UTC, DateTime::<Utc>::MAX_UTC, DateTime::UNIX_EPOCH] {
        check((at, at.date_naive(), at.naive_utc()));
        let milliseconds = DateTime::from_timestamp_millis(at.timestamp_millis()).unwrap();
        let [simple, compact] = [Uuid::max(), Uuid::from_u128(7)];
        check(Times { nanoseconds: None, milliseconds, simple, compact });
        let nanoseconds = Some(DateTime::from_timestamp_nanos(-1));
        check(Times { nanoseconds, milliseconds, simple, compact });
    }
    // A leap second.
    check(NaiveTime::from_hms_nano_opt(23, 59, 59, 1_999_999_999).unwrap());
    check((Weekday::Sun, TimeDelta::MIN, TimeDelta::MAX, chrono::Month::May));
}
