//! Arrow data of every type comes back unchanged, and a slice takes only its visible part along. If this fails, tables
//! change on their way, or a slice of one row takes its whole table along.

use std::sync::Arc;

use crate::arrow::array::*;
use crate::arrow::buffer::{NullBuffer, OffsetBuffer};
use crate::arrow::datatypes::*;

use super::{aligned, from_heap, payload};
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

/// Arrays of many rows. A small slice, or a few rows from all over, do not show most of their memory.
fn large_arrays() -> Vec<ArrayRef> {
    const ROWS: i32 = 10_000;
    let texts = || (0..ROWS).map(|i| (i % 7 != 0).then(|| format!("{i:06} and so on, beyond the view")));
    let strings: ArrayRef = Arc::new(texts().collect::<StringArray>());
    let views: ArrayRef = Arc::new(texts().collect::<StringViewArray>());
    let item = Arc::new(Field::new("item", DataType::Utf8, true));
    let view_item = Arc::new(Field::new("item", DataType::Utf8View, true));
    let lists = OffsetBuffer::from_lengths((0..ROWS as usize).map(|_| 1));
    let list_views = |item: &FieldRef, values: &ArrayRef| -> ArrayRef {
        // Backwards, so that offsets do not grow.
        let offsets = (0..ROWS).rev().collect::<Vec<i32>>();
        Arc::new(ListViewArray::new(
            item.clone(),
            offsets.into(),
            vec![1; ROWS as usize].into(),
            values.clone(),
            None,
        ))
    };
    let fields: UnionFields = [(0, item.clone()), (1, view_item.clone())].into_iter().collect();
    let type_ids = (0..ROWS).map(|i| (i % 2) as i8).collect::<Vec<_>>();
    let union = |offsets| {
        let children = vec![strings.clone(), views.clone()];
        Arc::new(UnionArray::try_new(fields.clone(), type_ids.clone().into(), offsets, children).unwrap())
    };
    let mut runs = StringRunBuilder::<Int32Type>::new();
    runs.extend(texts());
    vec![
        views.clone(),
        Arc::new(
            (0..ROWS)
                .map(|i| Some(format!("{i:06} and so on, beyond it").into_bytes()))
                .collect::<BinaryViewArray>(),
        ),
        Arc::new(ListArray::new(view_item.clone(), lists, views.clone(), None)),
        list_views(&item, &strings),
        list_views(&view_item, &views),
        union(None),
        union(Some((0..ROWS).collect())),
        Arc::new(runs.finish()),
        Arc::new(FixedSizeListArray::new(view_item, 2, views.clone(), None)),
        Arc::new(StructArray::from(vec![(Arc::new(Field::new("text", DataType::Utf8View, true)), views)])),
        strings,
    ]
}

#[test]
fn little_of_a_large_array_is_little() {
    let check = |array: &ArrayRef, what: &str| {
        let encoded = encode(&Arrow::from(array.clone())).unwrap();
        assert!(
            encoded.copied_bytes() < 1000,
            "{what} of {} takes {}",
            array.data_type(),
            encoded.copied_bytes()
        );
        assert!(encoded.len() < 2000, "{what} of {} is {} bytes", array.data_type(), encoded.len());
        let back: Arrow<ArrayRef> = from_heap(aligned(&encoded.to_vec())).unwrap();
        assert_eq!(&*back, array, "{what}");
    };
    for array in large_arrays() {
        for (start, length) in [(0, 2), (2500, 3), (array.len() - 4, 4), (1000, 0)] {
            check(&array.slice(start, length), "a slice");
        }
        let rows = UInt32Array::from(vec![Some(1), Some(array.len() as u32 - 2), None, Some(700), Some(1)]);
        check(&arrow_select::take::take(&array, &rows, None).unwrap(), "a choice");
        let all: Arrow<ArrayRef> = from_heap(payload(&Arrow::from(array.clone()))).unwrap();
        assert_eq!(&*all, &array);
    }
}

#[test]
fn a_dictionary_travels_whole() {
    let values = StringArray::from_iter_values((0..1000).map(|i| format!("category {i}")));
    let array = DictionaryArray::<Int32Type>::new((0..1000).collect(), Arc::new(values)).slice(500, 2);
    let back: Arrow<DictionaryArray<Int32Type>> = from_heap(payload(&Arrow::from(array.clone()))).unwrap();
    assert_eq!((back.keys(), back.values()), (array.keys(), array.values()));
}

#[test]
fn views_come_back_however_they_lie() {
    // Several buffers, of which some are shown in part, some not at all, and views that are null but point somewhere.
    super::seed::for_each_seed(300, |mut random| {
        let mut buffers: Vec<crate::arrow::buffer::Buffer> = Vec::new();
        for _ in 0..1 + random.below(4) {
            buffers.push(
                (0..random.below(300)).map(|_| b'a' + random.below(26) as u8).collect::<Vec<_>>().into(),
            );
        }
        let mut views = Vec::new();
        let mut valid = Vec::new();
        for _ in 0..random.below(20) {
            let buffer = random.below(buffers.len());
            let bytes = &buffers[buffer];
            let length = random.below(bytes.len().min(60) + 1);
            let start = random.below(bytes.len() - length + 1);
            let value = &bytes[start..start + length];
            let view = crate::arrow::array::make_view(value, buffer as u32, start as u32);
            views.push(view);
            valid.push(random.below(4) > 0);
        }
        let nulls = (random.below(2) == 0).then(|| NullBuffer::from(valid));
        let rows = views.len();
        let texts = StringViewArray::new(views.clone().into(), buffers.clone(), nulls.clone());
        let bytes = BinaryViewArray::new(views.into(), buffers, nulls);
        for _ in 0..4 {
            let start = random.below(rows + 1);
            let length = random.below(rows - start + 1);
            let slice = texts.slice(start, length);
            assert_eq!(
                *from_heap::<Arrow<StringViewArray>>(payload(&Arrow::from(slice.clone()))).unwrap(),
                slice
            );
            let slice = bytes.slice(start, length);
            assert_eq!(
                *from_heap::<Arrow<BinaryViewArray>>(payload(&Arrow::from(slice.clone()))).unwrap(),
                slice
            );
        }
    });
}

#[test]
fn few_elements_of_any_type_come_back_from_many() {
    const ROWS: usize = 600;
    let numbers = || (0..ROWS as i32).map(|i| (i % 5 != 0).then_some(i));
    let texts = || numbers().map(|number| number.map(|number| format!("text {number}")));
    let mut runs = StringRunBuilder::<Int16Type>::new();
    runs.extend(texts());
    let field = |name: &str, array: &dyn Array| Field::new(name, array.data_type().clone(), true);
    let pairs = (0..ROWS as i32).map(|i| (i % 3 != 0).then(|| vec![Some(i), None]));
    let pairs = FixedSizeListArray::from_iter_primitive::<Int32Type, _, _>(pairs, 2);
    let lists = (0..ROWS as i32).map(|i| (i % 3 != 0).then(|| vec![Some(i); i as usize % 4]));
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>(lists);
    let columns: Vec<ArrayRef> = vec![
        Arc::new(numbers().collect::<Int32Array>()),
        Arc::new(numbers().map(|number| number.map(|number| number % 2 == 0)).collect::<BooleanArray>()),
        Arc::new(texts().collect::<LargeStringArray>()),
        Arc::new(pairs),
        Arc::new(lists),
        Arc::new(NullArray::new(ROWS)),
        Arc::new(FixedSizeBinaryArray::try_from_iter((0..ROWS).map(|i| [i as u8; 3])).unwrap()),
        // Runs have no cheap way to a few of their elements, so all between the first and the last travel.
        Arc::new(runs.finish()),
    ];
    let fields: Vec<Field> = columns.iter().map(|column| field("column", column)).collect();
    let table: ArrayRef = Arc::new(StructArray::new(fields.into(), columns.clone(), None));
    for elements in columns.into_iter().chain([table]) {
        // Backwards, every 30th element, with rows that are null and rows without elements.
        let offsets: Vec<i32> = (0..20).rev().map(|row| row * 30).collect();
        let sizes: Vec<i32> = (0..20).map(|row| row % 3).collect();
        let nulls = NullBuffer::from_iter((0..20).map(|row| row % 4 != 0));
        let item = Arc::new(field("item", &elements));
        check(ListViewArray::new(item, offsets.into(), sizes.into(), elements, Some(nulls)));
    }
}
