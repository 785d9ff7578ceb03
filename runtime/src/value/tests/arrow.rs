//! Arrow data of every type comes back as it went, and a slice takes along only what it shows. If this fails, tables
//! change on their way, or a slice of one row drags its whole table behind it.

use std::sync::Arc;

use ::arrow::array::*;
use ::arrow::buffer::{NullBuffer, OffsetBuffer};
use ::arrow::datatypes::*;

use super::{from_heap, payload};
use crate::value::{Arrow, ArrowValue, encode};

/// The array, and all its slices, as themselves and behind `dyn Array`.
#[track_caller]
fn check<A: Array + ArrowValue + 'static>(array: A) {
    let back: Arrow<A> = from_heap(payload(&Arrow::from(array.clone()))).unwrap();
    let (back, array): (ArrayRef, ArrayRef) = (Arc::new(back.into_inner()), Arc::new(array));
    assert_eq!(&back, &array);
    for start in 0..=array.len() {
        for length in 0..=array.len() - start {
            let slice = array.slice(start, length);
            let back: Arrow<ArrayRef> = from_heap(payload(&Arrow::from(slice.clone()))).unwrap();
            assert_eq!(&*back, &slice, "{start}..{}", start + length);
            assert_eq!(back.data_type(), slice.data_type());
            let listed = listed(slice);
            assert_eq!(
                *from_heap::<Arrow<ListArray>>(payload(&Arrow::from(listed.clone()))).unwrap(),
                listed
            );
        }
    }
}

/// A list that shows the middle of the array: its children are sliced where they have an offset already.
fn listed(array: ArrayRef) -> ListArray {
    let field = Arc::new(Field::new("item", array.data_type().clone(), true));
    let (first, last) = (array.len() / 3, array.len());
    let offsets = OffsetBuffer::new(vec![0, first as i32, last as i32].into());
    ListArray::new(field, offsets, array, None).slice(1, 1)
}

#[test]
fn flat_arrays_come_back() {
    check(Int32Array::from(vec![Some(1), None, Some(3), Some(4), None]));
    check(UInt8Array::from(vec![1, 2, 3]));
    check(Float16Array::from(vec![None, None, None]));
    check(Decimal128Array::from(vec![1, -2, 3]).with_precision_and_scale(20, 3).unwrap());
    check(TimestampNanosecondArray::from(vec![1, 2]).with_timezone("Europe/Vienna"));
    check(IntervalMonthDayNanoArray::from(vec![IntervalMonthDayNano::new(1, 2, 3)]));
    check(BooleanArray::from((0..20).map(|i| (i % 3 != 0).then_some(i % 2 == 0)).collect::<Vec<_>>()));
    check(NullArray::new(4));
    check(Int64Array::from(Vec::<i64>::new()));
}

#[test]
fn text_comes_back() {
    check(StringArray::from(vec![Some("a"), None, Some(""), Some("ütf-8"), Some("end")]));
    check(LargeStringArray::from(vec!["", "one", "two"]));
    check(BinaryArray::from(vec![Some(&b"\xff"[..]), None, Some(b"xyz")]));
    check(LargeBinaryArray::from(vec![&b"1"[..], b"22", b"333"]));
    check(FixedSizeBinaryArray::try_from_iter([[1, 2, 3], [4, 5, 6]].into_iter()).unwrap());
    check(StringViewArray::from(vec![Some("short"), None, Some("longer than twelve bytes are kept aside")]));
    check(BinaryViewArray::from(vec![&b"longer than twelve bytes are kept aside"[..], b""]));
}

#[test]
fn nested_arrays_come_back() {
    let lists = [Some(vec![Some(1), None]), None, Some(vec![]), Some(vec![Some(3), Some(4)])];
    check(ListArray::from_iter_primitive::<Int32Type, _, _>(lists.clone()));
    check(LargeListArray::from_iter_primitive::<Int32Type, _, _>(lists));
    let pairs = (0..4).map(|i| (i != 2).then(|| vec![Some(i), None]));
    check(FixedSizeListArray::from_iter_primitive::<Int64Type, _, _>(pairs, 2));
    let structs = StructArray::new(
        vec![Field::new("text", DataType::Utf8, true), Field::new("number", DataType::UInt16, true)].into(),
        vec![
            Arc::new(StringArray::from(vec!["a", "bb", "ccc", ""])),
            Arc::new(UInt16Array::from(vec![Some(1), None, Some(3), Some(4)])),
        ],
        Some(NullBuffer::from(vec![true, true, false, true])),
    );
    check(structs.clone());
    let field = Arc::new(Field::new("item", structs.data_type().clone(), true));
    check(FixedSizeListArray::new(field, 2, Arc::new(structs.clone()), None));
    let item = Arc::new(Field::new("item", structs.data_type().clone(), true));
    check(ListViewArray::new(item, vec![2, 0, 1].into(), vec![2, 1, 0].into(), Arc::new(structs), None));

    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for size in 0..4 {
        for i in 0..size {
            maps.keys().append_value(format!("key {i}"));
            maps.values().append_option((i != 1).then_some(i));
        }
        maps.append(size != 2).unwrap();
    }
    check(maps.finish());
}

#[test]
fn encoded_arrays_come_back() {
    check([Some("a"), Some("b"), None, Some("a")].into_iter().collect::<DictionaryArray<Int8Type>>());
    let mut runs = StringRunBuilder::<Int16Type>::new();
    runs.extend([Some("a"), Some("a"), None, None, Some("b")]);
    check(runs.finish());
    let fields: UnionFields = [
        (0, Arc::new(Field::new("number", DataType::Int32, false))),
        (5, Arc::new(Field::new("text", DataType::Utf8, true))),
    ]
    .into_iter()
    .collect();
    let numbers: ArrayRef = Arc::new(Int32Array::from(vec![1, 2, 3]));
    let texts: ArrayRef = Arc::new(StringArray::from(vec!["x", "y", "z"]));
    let children = vec![numbers, texts];
    check(UnionArray::try_new(fields.clone(), vec![0, 5, 0].into(), None, children.clone()).unwrap());
    check(UnionArray::try_new(fields, vec![5, 5, 0].into(), Some(vec![2, 0, 1].into()), children).unwrap());
}

#[test]
fn batches_keep_their_schema() {
    let field = Field::new("n", DataType::Int32, true).with_metadata([("unit".to_owned(), "m".to_owned())]);
    let schema = Schema::new_with_metadata(vec![field], [("origin".to_owned(), "test".to_owned())]);
    let column: ArrayRef = Arc::new(Int32Array::from(vec![1, 2]));
    let batch = RecordBatch::try_new(Arc::new(schema), vec![column]).unwrap();
    assert_eq!(*from_heap::<Arrow<RecordBatch>>(payload(&Arrow::from(batch.clone()))).unwrap(), batch);

    let rows = RecordBatchOptions::new().with_row_count(Some(7));
    let empty = RecordBatch::try_new_with_options(Arc::new(Schema::empty()), vec![], &rows).unwrap();
    assert_eq!(from_heap::<Arrow<RecordBatch>>(payload(&Arrow::from(empty))).unwrap().num_rows(), 7);
}

#[test]
fn a_slice_takes_only_what_it_shows() {
    let check = |array: ArrayRef, bytes: u64| {
        let copied = encode(&Arrow::from(array.slice(5000, 10))).unwrap().copied_bytes();
        assert!(copied <= bytes, "{} copies {copied} bytes, not {bytes}", array.data_type());
    };
    let texts = || (0..10_000).map(|i| (i % 7 != 0).then(|| format!("{i:010}")));
    check(Arc::new(Int64Array::from_iter_values(0..10_000)), 80);
    check(Arc::new(BooleanArray::from(vec![true; 10_000])), 3);
    check(Arc::new(texts().collect::<StringArray>()), 11 * 4 + 100 + 3);
    check(Arc::new(texts().collect::<LargeStringArray>()), 11 * 8 + 100 + 3);
    let lists = (0..10_000).map(|i| Some(vec![Some(i); 3]));
    check(Arc::new(ListArray::from_iter_primitive::<Int32Type, _, _>(lists)), 11 * 4 + 30 * 4 + 5);
    let strings: ArrayRef = Arc::new(texts().collect::<StringArray>());
    let field = Arc::new(Field::new("text", DataType::Utf8, true));
    check(Arc::new(StructArray::from(vec![(field, strings)])), 11 * 4 + 100 + 3);
}

#[test]
fn another_array_type_is_named() {
    // Another format does not know the type of the whole value, so only the array's own can tell.
    let json = serde_json::to_string(&Arrow::from(StringArray::from(vec!["text"]))).unwrap();
    let error = serde_json::from_str::<Arrow<Int32Array>>(&json).unwrap_err().to_string();
    assert!(error.contains(std::any::type_name::<Arrow<Int32Array>>()) && error.contains("Utf8"), "{error}");

    let columns: [(&str, ArrayRef); 2] =
        [("a", Arc::new(NullArray::new(1))), ("b", Arc::new(NullArray::new(1)))];
    let json = serde_json::to_string(&Arrow::from(RecordBatch::try_from_iter(columns).unwrap())).unwrap();
    let error = serde_json::from_str::<Arrow<ArrayRef>>(&json).unwrap_err().to_string();
    assert!(error.contains("table of 2 columns"), "{error}");
}
