//! Values: if these fail, large arrays are copied on their way, or change on it.

use std::sync::Arc;

use mobula::arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use mobula::prelude::*;
use mobula_tests::session;
use serde::{Deserialize, Serialize};

/// Whether memory lies in a segment of the store, as the kernel maps it.
fn in_store(start: *const u8, len: usize) -> bool {
    let (start, end) = (start as usize, start as usize + len);
    let maps = std::fs::read_to_string("/proc/self/maps").unwrap();
    maps.lines().filter(|line| line.contains("memfd:mobula-segment")).any(|line| {
        let (from, to) = line.split(' ').next().unwrap().split_once('-').unwrap();
        let (from, to) = (usize::from_str_radix(from, 16).unwrap(), usize::from_str_radix(to, 16).unwrap());
        from <= start && end <= to
    })
}

fn lies_in_store<T>(slice: &[T]) -> bool {
    in_store(slice.as_ptr().cast(), size_of_val(slice))
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Frame {
    name: String,
    layers: Vec<Option<Tensor<f32>>>,
    raw: Bytes,
}

const LEN: usize = 100_000;

fn frame() -> Frame {
    let layer = |fill| Tensor::from_shape_vec(&[LEN / 10, 10], vec![fill; LEN]).unwrap();
    Frame {
        name: "frame".into(),
        layers: vec![Some(layer(1.0)), None, Some(layer(2.0))],
        raw: vec![3; LEN].into(),
    }
}

fn is_all_in_store(frame: &Frame) -> bool {
    frame.layers.iter().flatten().all(|layer| lies_in_store(layer.as_slice())) && lies_in_store(&frame.raw)
}

#[mobula::remote]
fn check_frame(frame: Frame) -> bool {
    is_all_in_store(&frame) && frame.layers[2].as_ref().unwrap().view().iter().all(|x| *x == 2.0)
}

#[mobula::remote]
fn pass_on(frame: Frame) -> Frame {
    frame
}

#[mobula::remote]
fn addresses(frame: Frame) -> Vec<Option<mobula_client::ObjectId>> {
    let layers = frame.layers.iter().flatten().map(Tensor::object_id);
    layers.chain([frame.raw.object_id()]).collect()
}

#[mobula::remote]
fn fill_in_place(len: usize) -> Tensor<f64> {
    let mut tensor = TensorMut::<f64>::create(&[len]).unwrap();
    assert!(lies_in_store(tensor.as_mut_slice()));
    let start = tensor.as_mut_slice().as_ptr();
    tensor.as_mut_slice().iter_mut().enumerate().for_each(|(i, x)| *x = i as f64);
    let sealed = tensor.seal();
    assert_eq!(sealed.as_slice().as_ptr(), start, "sealing moved the array");
    sealed
}

#[mobula::remote]
fn sum(tensor: Tensor<f64>) -> f64 {
    assert!(lies_in_store(tensor.as_slice()));
    tensor.view().sum()
}

#[mobula::remote]
fn column_sum(batch: Arrow<RecordBatch>) -> f64 {
    let column = batch.column(0).as_any().downcast_ref::<Float64Array>().unwrap();
    assert!(lies_in_store(column.values()), "the column was copied");
    column.values().iter().sum()
}

#[mobula::remote]
fn small(x: i32) -> i32 {
    x
}

#[test]
fn get_borrows_from_the_store_at_any_depth() {
    let _session = session(2);
    let reference = mobula::put(&frame()).unwrap();
    let got = reference.get().unwrap();
    assert_eq!(got, frame());
    assert!(is_all_in_store(&got));
    assert!(check_frame::remote(&reference).get().unwrap());
}

#[test]
fn what_is_in_the_store_is_passed_on_by_reference() {
    let session = session(2);
    let got = mobula::put(&frame()).unwrap().get().unwrap();
    let ids = |frame: &Frame| {
        let layers = frame.layers.iter().flatten().map(Tensor::object_id);
        layers.chain([frame.raw.object_id()]).collect::<Vec<_>>()
    };
    assert!(ids(&got).iter().all(Option::is_some));
    let before = session.session.client().stats().unwrap().object_bytes();
    // Through two processes, and back: still the same objects.
    let back = pass_on::remote(pass_on::remote(got.clone())).get().unwrap();
    assert_eq!(ids(&back), ids(&got));
    assert_eq!(addresses::remote(back.clone()).get().unwrap(), ids(&got));
    assert_eq!(back, got);
    let after = session.session.client().stats().unwrap().object_bytes();
    assert!(after < before + 100_000, "{} bytes were added by passing on", after - before);
}

#[test]
fn an_array_filled_in_place_is_never_copied() {
    let session = session(2);
    let reference = fill_in_place::remote(1_000_000);
    assert_eq!(sum::remote(&reference).get().unwrap(), 499_999_500_000.0);
    let tensor = reference.get().unwrap();
    assert!(lies_in_store(tensor.as_slice()));
    let bytes = session.session.client().stats().unwrap().object_bytes();
    assert!((8_000_000..8_100_000).contains(&bytes), "{bytes} bytes in the store");
}

#[test]
fn arrow_data_is_borrowed_too() {
    let _session = session(2);
    let numbers: ArrayRef = Arc::new(Float64Array::from_iter_values((0..LEN).map(|i| i as f64)));
    let words: ArrayRef = Arc::new(StringArray::from_iter_values((0..LEN).map(|i| i.to_string())));
    let batch = RecordBatch::try_from_iter([("number", numbers), ("word", words)]).unwrap();
    let reference = mobula::put(&Arrow::from(batch.clone())).unwrap();
    let got = reference.get().unwrap();
    assert_eq!(*got, batch);
    let expected = (LEN * (LEN - 1) / 2) as f64;
    assert_eq!(column_sum::remote(&reference).get().unwrap(), expected);
    assert_eq!(column_sum::remote(got).get().unwrap(), expected);
}

#[test]
fn the_wrong_type_is_an_error_that_names_both() {
    let _session = session(1);
    let object = mobula::put(&"text".to_owned()).unwrap();
    let boxed = mobula::put(&vec![object]).unwrap();
    // The same reference, read as one to another type.
    let encoded = mobula::value::encode(&boxed).unwrap();
    let source = mobula::value::Source::heap(encoded.to_vec(), encoded.references().to_vec());
    let error = mobula::value::decode::<ObjectRef<i32>>(source).unwrap_err().to_string();
    assert!(error.contains("i32") && error.contains("String"), "{error}");
    assert_eq!(small::remote(1).get().unwrap(), 1);
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
struct Skipping {
    #[serde(skip_serializing_if = "Option::is_none")]
    a: Option<String>,
    v: Vec<u8>,
    w: Vec<u8>,
    at: Shape,
    #[serde(flatten)]
    more: std::collections::BTreeMap<String, Shape>,
}

#[derive(Serialize, Deserialize, Clone, Debug, PartialEq)]
#[serde(untagged)]
enum Shape {
    Point { x: f64, y: Option<Option<i8>> },
    Named(String, std::net::IpAddr),
    Many(Vec<Shape>),
}

#[mobula::remote]
fn echo(value: Skipping) -> Skipping {
    value
}

#[mobula::remote]
fn long_ago() -> Vec<std::time::SystemTime> {
    vec![std::time::UNIX_EPOCH - std::time::Duration::from_secs(1)]
}

#[test]
fn types_with_attributes_come_back_and_what_cannot_be_sent_is_named() {
    let _session = session(1);
    let named = Shape::Named("home".into(), [127, 0, 0, 1].into());
    let mut w = vec![b'.'; 65];
    (w[0], w[11]) = (10, 53);
    for length in [1, 100_000] {
        let at = Shape::Many(vec![Shape::Point { x: -0.0, y: Some(None) }, named.clone()]);
        let more = [("first".to_owned(), named.clone())].into();
        let value = Skipping { a: None, v: vec![1; length], w: w.clone(), at, more };
        assert_eq!(mobula::put(&value).unwrap().get().unwrap(), value);
        assert_eq!(echo::remote(value.clone()).get().unwrap(), value);
    }
    let error = long_ago::remote().get().unwrap_err().to_string();
    assert!(error.contains("`[0]`, a `std::time::SystemTime`"), "{error}");
}
