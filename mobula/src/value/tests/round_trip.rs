//! Values of any shape come back as they went, their carriers borrowing from the payload. If this fails, tasks get
//! other arguments than they were given, or large arrays are copied on every hop.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::sync::Arc;

use crate::arrow::array::{ArrayRef, Float64Array, RecordBatch, StringArray};
use ndarray::{Array2, Array3, s};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize, Serializer};

use super::{aligned, assert_within, from_heap, payload};
use crate::value::{Arrow, Bytes, BytesMut, Element, Tensor, TensorMut, ValueError, encode};

#[track_caller]
fn check<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: T) -> T {
    let back: T = from_heap(payload(&value)).unwrap();
    assert_eq!(back, value);
    // A payload may lie anywhere on the heap. If it is not aligned, it is copied, and the value is the same.
    let mut shifted = vec![0; 1];
    shifted.extend(encode(&value).unwrap().to_vec());
    assert_eq!(from_heap::<T>(bytes::Bytes::from(shifted).slice(1..)).unwrap(), value);
    back
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
struct Scene {
    name: String,
    layers: Vec<Option<Tensor<f32>>>,
    attachments: BTreeMap<u32, Bytes>,
    source: Table,
}

#[derive(Serialize, Deserialize, PartialEq, Debug)]
enum Table {
    Missing,
    Loaded { batch: Arrow<RecordBatch>, note: (u8, Box<Table>) },
}

fn batch() -> RecordBatch {
    let numbers: ArrayRef = Arc::new(Float64Array::from(vec![Some(1.5), None, Some(-0.25)]));
    let names: ArrayRef = Arc::new(StringArray::from(vec!["manta", "", "mobula"]));
    RecordBatch::try_from_iter([("number", numbers), ("name", names)]).unwrap()
}

fn scene() -> Scene {
    Scene {
        name: "reef".to_owned(),
        layers: vec![None, Some(Array3::from_elem((2, 3, 4), 0.5).into()), None],
        attachments: (0..5).map(|i| (i, Bytes::from(vec![i as u8; i as usize * 100]))).collect(),
        source: Table::Loaded { batch: batch().into(), note: (7, Box::new(Table::Missing)) },
    }
}

#[test]
fn carriers_come_back_from_any_depth() {
    check(scene());
    check(vec![(1_i64, scene()), (2, scene())]);
    check(Some(Bytes::new()));
    check((
        Tensor::from_shape_vec(&[], vec![7_u8]).unwrap(),
        Tensor::<i64>::from_shape_vec(&[3, 0], vec![]).unwrap(),
    ));
}

#[test]
fn small_values_are_small() {
    assert_eq!(check(42_i64), 42);
    assert_eq!(check("some text".to_owned()), "some text");
    check(());
    assert_eq!(encode(&42_i64).unwrap().len(), 24 + 3 + 1);
}

#[test]
fn every_element_type_comes_back() {
    fn check_element<T: Element>(low: T, high: T) {
        check(Tensor::from_shape_vec(&[2, 3], vec![low, high, low, high, low, high]).unwrap());
    }
    check_element(i8::MIN, i8::MAX);
    check_element(i16::MIN, i16::MAX);
    check_element(i32::MIN, i32::MAX);
    check_element(i64::MIN, i64::MAX);
    check_element(u8::MIN, u8::MAX);
    check_element(u16::MIN, u16::MAX);
    check_element(u32::MIN, u32::MAX);
    check_element(u64::MIN, u64::MAX);
    check_element(f32::MIN, f32::INFINITY);
    check_element(f64::MIN_POSITIVE, f64::NEG_INFINITY);
}

#[test]
fn reading_borrows_from_the_payload() {
    let payload = payload(&scene());
    let back: Scene = from_heap(payload.clone()).unwrap();
    let layer = back.layers[1].as_ref().unwrap();
    assert_within(layer.as_slice(), &payload);
    assert_eq!(layer.as_slice().as_ptr().addr() % 64, 0);
    assert_within(&back.attachments[&4], &payload);
    assert_eq!(back.attachments[&4].as_ptr().addr() % 64, 0);
    let Table::Loaded { batch, .. } = &back.source else { panic!("{back:?}") };
    for column in batch.columns() {
        let data = column.to_data();
        data.buffers().iter().for_each(|buffer| assert_within(buffer, &payload));
        data.nulls().iter().for_each(|nulls| assert_within(nulls.validity(), &payload));
    }
    drop(back);
    assert!(payload.is_unique(), "a dropped value still holds its payload");
}

#[test]
fn arrays_are_adopted_or_brought_into_order() {
    let array = Array2::from_shape_fn((4, 6), |(row, column)| row as i32 * 10 + column as i32);
    let address = array.as_ptr();
    let tensor = Tensor::from(array.clone());
    assert_eq!(tensor.view(), array.view().into_dyn());
    let adopted = Tensor::from(array);
    assert_eq!((adopted.shape(), adopted.as_slice().as_ptr()), (&[4, 6][..], address));

    let array = adopted.to_array();
    for odd in [
        array.t().to_owned().reversed_axes().into_dyn(),
        array.slice(s![1..3, ..;2]).to_owned().into_dyn(),
        array.clone().slice_move(s![2.., ..]).into_dyn(),
        array.clone().slice_move(s![.., 1..5]).into_dyn(),
        array.clone().slice_move(s![..;-1, ..]).into_dyn(),
        array.clone().slice_move(s![4.., ..]).into_dyn(),
    ] {
        let tensor = check(Tensor::from(odd.clone()));
        assert_eq!(tensor.view(), odd.view());
    }
}

#[test]
fn what_several_carriers_share_is_written_once() {
    let bytes = Bytes::from(vec![3; 1000]);
    let tensor = Tensor::from_shape_vec(&[1000], vec![4_u8; 1000]).unwrap();
    let value = (vec![bytes.clone(); 10], bytes.slice(1..), vec![tensor; 3]);
    assert_eq!(encode(&value).unwrap().copied_bytes(), 1000 + 999 + 1000);
    let (back, _, _) = check(value);
    assert_eq!(back[0].as_ptr(), back[9].as_ptr());
}

#[test]
fn the_wrong_type_is_named_beside_the_right_one() {
    let payload = payload(&(1_u8, vec![2_i32]));
    let error = from_heap::<BTreeMap<String, Tensor<f32>>>(payload).unwrap_err();
    assert!(matches!(error, ValueError::WrongType { .. }));
    let message = error.to_string();
    for name in
        [std::any::type_name::<(u8, Vec<i32>)>(), std::any::type_name::<BTreeMap<String, Tensor<f32>>>()]
    {
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn encodings_nest() {
    /// Carries another value as a payload of its own.
    #[derive(Debug, PartialEq)]
    struct Wrapped(Bytes);

    impl Serialize for Wrapped {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let inner = encode(&(self.0.clone(), 5)).unwrap();
            assert_eq!(inner.copied_bytes(), self.0.len() as u64);
            (Bytes::from(inner.to_vec()), &self.0).serialize(serializer)
        }
    }

    impl<'de> Deserialize<'de> for Wrapped {
        fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
            let (inner, outer): (Bytes, Bytes) = Deserialize::deserialize(deserializer)?;
            let (bytes, five): (Bytes, i32) = from_heap(inner).map_err(serde::de::Error::custom)?;
            assert_eq!((&bytes, five), (&outer, 5));
            Ok(Self(bytes))
        }
    }

    check(vec![Wrapped(Bytes::from(vec![1; 77])), Wrapped(Bytes::new())]);
    // A human-readable format inside the stream stands by itself.
    let json = serde_json::to_string(&Bytes::from(vec![1, 2])).unwrap();
    check((json.clone(), Bytes::from(vec![1, 2])));
    assert_eq!(json, "[1,2]");
}

#[test]
fn a_refused_value_leaves_nothing_behind() {
    struct Refuses;

    impl Serialize for Refuses {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("no"))
        }
    }

    struct Panics;

    impl Serialize for Panics {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            panic!("a test's own panic");
        }
    }

    let bytes = Bytes::from(vec![1; 10]);
    assert!(matches!(encode(&(&bytes, Refuses)), Err(ValueError::Unwritable { .. })));
    assert!(std::panic::catch_unwind(|| encode(&(&bytes, Panics)).map(|_| ())).is_err());
    assert_eq!(serde_json::to_string(&bytes).unwrap().len(), 21);
    assert_eq!(encode(&bytes).unwrap().copied_bytes(), 10);
}

#[test]
fn other_formats_carry_the_bytes_in_line() {
    let scene = scene();
    let json = serde_json::to_string(&scene).unwrap();
    assert_eq!(serde_json::from_str::<Scene>(&json).unwrap(), scene);
    let binary = postcard::to_stdvec(&scene).unwrap();
    assert_eq!(postcard::from_bytes::<Scene>(&binary).unwrap(), scene);
    let tensor = Tensor::from_shape_vec(&[2, 1], vec![1.5_f32, 2.0]).unwrap();
    assert_eq!(serde_json::to_string(&tensor).unwrap(), r#"{"shape":[2,1],"elements":[1.5,2.0]}"#);
    let error = serde_json::from_str::<Tensor<f32>>(r#"{"shape":[2,2],"elements":[1.5,2.0]}"#).unwrap_err();
    assert!(error.to_string().contains("[2, 2]"), "{error}");
}

#[test]
fn shapes_that_do_not_hold_their_elements_are_refused() {
    for (shape, elements) in [
        (&[2, 3][..], 5),
        (&[0], 1),
        (&[], 0),
        (&[usize::MAX, 2], 0),
        (&[usize::MAX, 0, 9], 0),
        (&[1 << 62, 4, 0], 0),
    ] {
        let refused = Tensor::from_shape_vec(shape, vec![0_u16; elements]);
        assert!(matches!(refused, Err(ValueError::Shape { .. })), "{shape:?} {elements}");
    }
}

#[test]
fn conversions_share_memory() {
    let bytes = Bytes::from(vec![9; 100]);
    let address = bytes.as_ptr();
    let shared: bytes::Bytes = bytes.clone().into();
    let arrow: crate::arrow::buffer::Buffer = bytes.clone().into();
    assert_eq!((shared.as_ptr(), arrow.as_ptr()), (address, address));
    assert_eq!((Bytes::from(shared).as_ptr(), Bytes::from(arrow).as_ptr()), (address, address));
}

#[test]
fn carriers_go_between_threads() {
    fn check<T: Send + Sync + Clone + Debug>() {}
    check::<Bytes>();
    check::<Tensor<f64>>();
    check::<Arrow<RecordBatch>>();
    check::<Arrow<ArrayRef>>();
    fn check_writable<T: Send + Debug>() {}
    check_writable::<BytesMut>();
    check_writable::<TensorMut<f64>>();
}

#[test]
fn gaps_between_buffers_are_zeros() {
    let encoded =
        encode(&(Bytes::from(vec![0xff; 3]), Bytes::from(vec![0xff; 65]), Bytes::from(vec![0xff]))).unwrap();
    let mut out = vec![0xee; encoded.len()];
    encoded.write_into(&mut out);
    assert_eq!(out, encoded.to_vec());
    assert!(!out.contains(&0xee), "bytes of an earlier object were left in the payload");
    let back: (Bytes, Bytes, Bytes) = from_heap(aligned(&out)).unwrap();
    assert_eq!(back.1.as_ptr().addr() - back.0.as_ptr().addr(), 64);
    assert_eq!(back.2.as_ptr().addr() - back.1.as_ptr().addr(), 128);
}
