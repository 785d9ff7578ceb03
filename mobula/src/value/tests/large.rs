//! Lists of numbers, bytes and text go in one piece, beside the stream where they are large. If this fails, plain
//! vectors are written and read number by number, or are copied more often than needed.

use std::collections::VecDeque;

use serde_bytes::ByteBuf;

use super::store::{Store, get, put};
use super::{from_heap, payload};
use crate::value::payload::Layout;
use crate::value::{ValueError, encode};

#[test]
fn what_is_large_lies_beside_the_stream() {
    let value = (
        vec![1.5_f64; 1000],
        vec![7_u8; 4096],
        "ä".repeat(3000),
        ByteBuf::from(vec![9; 5000]),
        (0..3000_u16).collect::<VecDeque<_>>(),
        vec![[1_u64; 2]; 3],
    );
    let encoded = encode(&value).unwrap();
    assert_eq!(encoded.copied_bytes(), 8000 + 4096 + 6000 + 5000 + 6000);
    let whole = payload(&value);
    let layout = Layout::read(&whole, whole.len()).unwrap();
    assert_eq!(layout.buffers, 5);
    assert!(layout.stream.len() < 100, "{} bytes in the stream", layout.stream.len());
    assert_eq!(
        from_heap::<(Vec<f64>, Vec<u8>, String, ByteBuf, VecDeque<u16>, Vec<[u64; 2]>)>(whole).unwrap(),
        value
    );
}

#[test]
fn what_is_large_comes_back_from_the_store() {
    let store = Store::start();
    let another = store.another_client();
    let value =
        ((0..500_000).collect::<Vec<i64>>(), "text ".repeat(100_000), vec![Some(vec![1_u8; 70_000]), None]);
    let object = put(&store, &value);
    assert_eq!(get::<(Vec<i64>, String, Vec<Option<Vec<u8>>>)>(&another, &object).unwrap(), value);
}

#[test]
fn text_beside_the_stream_is_checked_in_its_copy() {
    let whole = payload(&"x".repeat(5000)).to_vec();
    let mut forged = whole.clone();
    let last = forged.len() - 1;
    forged[last] = 0xff;
    let error = from_heap::<String>(forged).unwrap_err();
    assert!(
        matches!(&error, ValueError::Unreadable { reason, .. } if reason.contains("not UTF-8")),
        "{error}"
    );
    // A buffer that is not there.
    let mut forged = whole.clone();
    let stream = Layout::read(&whole, whole.len()).unwrap().stream;
    forged[stream.end - 4] = 1;
    let error = from_heap::<String>(forged).unwrap_err();
    assert!(matches!(error, ValueError::NoSuchBuffer { buffer: 1, count: 1 }), "{error}");
}
