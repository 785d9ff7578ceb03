//! A faulty owner writes into sealed objects, after others have read them. If this fails, a checked `&str` may no
//! longer be text, or a checked offset may point outside its memory.

use std::sync::Arc;

use crate::arrow::array::*;
use crate::arrow::buffer::OffsetBuffer;
use crate::arrow::datatypes::*;
use mobula_client::Object;

use super::store::{Store, get, put};
use super::{addresses, assert_within};
use crate::value::region::listed_within;
use crate::value::{Arrow, Bytes, Source, decode, encode};

/// Writes into a sealed object of this process's own, as no program should.
pub(super) fn scribble(object: &Object, byte: u8) {
    // SAFETY: not sound, and meant so: the memory is its owner's, who has it mapped for writing, and this test is about
    // those who read it through another mapping.
    unsafe { object.as_ptr().cast_mut().write_bytes(byte, object.len()) };
}

fn every_structure() -> Vec<ArrayRef> {
    let long = "longer than the twelve bytes that a view has room for";
    let texts = || [Some("short"), None, Some(long), Some("ütf-8"), Some("")].into_iter();
    let strings: ArrayRef = Arc::new(StringArray::from_iter(texts()));
    let item = Arc::new(Field::new("item", DataType::Utf8, true));
    let fields: UnionFields =
        [(0, Arc::new(Field::new("flag", DataType::Boolean, true))), (5, item.clone())].into_iter().collect();
    let flags: ArrayRef = Arc::new(BooleanArray::from(vec![Some(true), None, Some(false), None, Some(true)]));
    let children = || vec![flags.clone(), strings.clone()];
    let mut maps = MapBuilder::new(None, StringBuilder::new(), StringBuilder::new());
    maps.keys().append_value("key");
    maps.values().append_value("value");
    maps.append(true).unwrap();
    let mut runs = StringRunBuilder::<Int32Type>::new();
    runs.extend(texts());
    vec![
        Arc::new(LargeStringArray::from_iter(texts())),
        Arc::new(StringViewArray::from_iter(texts())),
        Arc::new(BinaryViewArray::from_iter(texts())),
        Arc::new(texts().collect::<DictionaryArray<Int8Type>>()),
        Arc::new(ListArray::new(item.clone(), OffsetBuffer::from_lengths([2, 0, 3]), strings.clone(), None)),
        Arc::new(ListViewArray::new(item, vec![3, 0].into(), vec![2, 1].into(), strings.clone(), None)),
        Arc::new(UnionArray::try_new(fields.clone(), vec![0, 5, 0, 5, 5].into(), None, children()).unwrap()),
        Arc::new(
            UnionArray::try_new(fields, vec![5, 0, 5].into(), Some(vec![2, 4, 3].into()), children())
                .unwrap(),
        ),
        Arc::new(runs.finish()),
        Arc::new(maps.finish()),
        Arc::new(StructArray::from(vec![(
            Arc::new(Field::new("text", DataType::Utf8, true)),
            strings.clone(),
        )])),
        flags,
        strings,
    ]
}

#[test]
fn what_was_checked_does_not_change() {
    let store = Store::start();
    let other = store.another_client();
    for array in every_structure() {
        for byte in [0, 0x7f, 0x80, 0xff] {
            let object = put(&store, &Arrow::from(array.clone()));
            let read: Arrow<ArrayRef> = get(&other, &object).unwrap();
            scribble(&object, byte);
            assert_eq!(&*read, &array, "{} full of {byte}", array.data_type());
        }
    }
    let lists =
        ListArray::from_iter_primitive::<Int64Type, _, _>([Some(vec![Some(1), None]), None, Some(vec![])]);
    let object = put(&store, &Arrow::from(lists.clone()));
    let read: Arrow<ListArray> = get(&other, &object).unwrap();
    scribble(&object, 0xff);
    assert_eq!((read.offsets(), read.nulls()), (lists.offsets(), lists.nulls()));
    assert_eq!(read.values().nulls(), lists.values().nulls());
}

#[test]
fn plain_data_stays_where_it_lies_and_changes() {
    let store = Store::start();
    let other = store.another_client();
    let numbers = Int64Array::from(vec![Some(1), None, Some(3)]);
    let bytes = BinaryArray::from(vec![Some(&b"first"[..]), None, Some(b"third")]);
    let fixed = FixedSizeBinaryArray::try_from_iter([[1, 2, 3], [4, 5, 6]].into_iter()).unwrap();
    let arrays = [numbers.into(), bytes.into(), fixed.into()].map(arrow_of).to_vec();
    let object = put(&store, &arrays);
    let read: Vec<Arrow<ArrayRef>> = get(&other, &object).unwrap();
    let [numbers, bytes, fixed] = &read[..] else { panic!("{} arrays", read.len()) };
    let (numbers, bytes) = (numbers.as_primitive::<Int64Type>(), bytes.as_binary::<i32>());
    let fixed = fixed.as_fixed_size_binary();
    let mapped = other.get(object.id()).unwrap();
    assert_within(numbers.values(), &mapped);
    [bytes.value(0), fixed.value(0)].iter().for_each(|bytes| assert_within(bytes, &mapped));
    scribble(&object, 0xff);
    assert_eq!((numbers.value(2), numbers.null_count(), numbers.is_null(1)), (-1, 1, true));
    assert_eq!((bytes.value(2), bytes.null_count()), (&[0xff; 5][..], 1));
    assert_eq!(fixed.value(1), [0xff; 3]);
}

#[test]
fn a_payload_among_the_bytes_of_the_store_is_copied() {
    let store = Store::start();
    let other = store.another_client();
    let texts: Vec<String> = (0..50).map(|i| format!("text {i}")).collect();
    let object = put(&store, &Bytes::from(encode(&texts).unwrap().to_vec()));
    let read: Bytes = get(&other, &object).unwrap();
    let source = Source::heap(read.clone(), vec![]);
    scribble(&object, 0xff);
    assert!(read.iter().all(|byte| *byte == 0xff));
    assert_eq!(decode::<Vec<String>>(source).unwrap(), texts);
}

fn arrow_of(data: ArrayData) -> Arrow<ArrayRef> {
    Arrow::from(make_array(data))
}

#[test]
fn what_several_arrays_share_is_copied_once() {
    let store = Store::start();
    let other = store.another_client();
    let values: ArrayRef =
        Arc::new(StringArray::from_iter_values((0..1000).map(|i| format!("category {i}"))));
    let column = |key| Arrow::from(DictionaryArray::<Int32Type>::new(vec![key; 3].into(), values.clone()));
    let object = put(&store, &(0..20).map(column).collect::<Vec<_>>());
    let read: Vec<Arrow<DictionaryArray<Int32Type>>> = get(&other, &object).unwrap();
    let places = read.iter().map(|column| column.values().as_string::<i32>().value_data().as_ptr());
    assert_eq!(places.collect::<std::collections::HashSet<_>>().len(), 1);
    assert_eq!(encode(&read).unwrap().copied_bytes(), 0);
}

#[test]
fn a_slice_of_what_was_read_goes_on_by_reference_and_is_read_alone() {
    let store = Store::start();
    let other = store.another_client();
    let texts = || (0..10_000).map(|i| format!("row {i:05}, in more than twelve bytes"));
    let strings: ArrayRef = Arc::new(StringArray::from_iter_values(texts()));
    let views: ArrayRef = Arc::new(StringViewArray::from_iter_values(texts()));
    for array in [strings, views] {
        let first = put(&store, &Arrow::from(array.clone()));
        let read: Arrow<ArrayRef> = get(&other, &first).unwrap();
        let whole = encode(&read).unwrap();
        assert_eq!((whole.copied_bytes(), whole.references().len()), (0, 1));
        // A slice that is put is read as that slice alone.
        let slice = read.slice(5000, 10);
        let encoded = encode(&Arrow::from(slice)).unwrap();
        assert!(encoded.copied_bytes() <= 10 * 16, "{}", encoded.copied_bytes());
        assert_eq!(encoded.references()[0].id(), first.id());
        let second = super::store::put_encoded(&other, &encoded, crate::value::format::PLAIN);
        let again: Arrow<ArrayRef> = get(&store, &second).unwrap();
        assert_eq!(&*again, &array.slice(5000, 10));
        let bytes: usize = again.to_data().buffers().iter().map(|buffer| buffer.len()).sum();
        assert!(bytes < 1000, "{bytes}");
        // The third goes by reference to the first, too.
        let third = encode(&again).unwrap();
        assert!(third.references().iter().any(|handle| handle.id() == first.id()));
    }
}

#[test]
fn offsets_that_count_from_zero_are_not_those_that_lie_in_the_store() {
    let store = Store::start();
    let other = store.another_client();
    let array = StringArray::from_iter_values((0..100).map(|i| format!("row {i}")));
    let whole = put(&store, &Arrow::from(array.clone()));
    let read: Arrow<StringArray> = get(&other, &whole).unwrap();
    // Its offsets are references into the middle of those that lie in the store, and are read from zero.
    let slice = put(&other, &Arrow::from(read.slice(50, 10)));
    let read: Arrow<StringArray> = get(&store, &slice).unwrap();
    let expected: Vec<i32> = (0..=10).map(|i| i * 6).collect();
    assert_eq!(read.offsets()[..], expected);
    let encoded = encode(&read).unwrap();
    assert_eq!(encoded.copied_bytes(), 0);
    // Used as other than offsets, they are ordinary numbers.
    let offsets = read.offsets().inner().clone();
    let numbers = Int32Array::new(offsets.clone(), None);
    let bytes = Bytes::from(offsets.into_inner());
    let object = put(&store, &(Arrow::from(numbers.clone()), bytes.clone(), read));
    let read: (Arrow<Int32Array>, Bytes, Arrow<StringArray>) = get(&other, &object).unwrap();
    assert_eq!((&*read.0, read.1), (&numbers, bytes));
    assert_eq!(*read.2, array.slice(50, 10));
    // The order of writing makes no difference.
    let read: Arrow<StringArray> = get(&store, &slice).unwrap();
    let object = put(&other, &(read.clone(), Arrow::from(numbers_of(&read))));
    let again: (Arrow<StringArray>, Arrow<Int32Array>) = get(&store, &object).unwrap();
    assert_eq!((&*again.0, &again.1.values()[..]), (&array.slice(50, 10), &expected[..]));
}

/// The offsets of `array` as an array of numbers, in the same memory.
fn numbers_of(array: &StringArray) -> Int32Array {
    Int32Array::new(array.offsets().inner().clone(), None)
}

#[test]
fn copies_leave_the_list_with_the_last_who_uses_them() {
    let store = Store::start();
    let other = store.another_client();
    let array = StringArray::from_iter_values((0..100).map(|i| format!("row {i}")));
    let object = put(&store, &Arrow::from(array.clone()));
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for _ in 0..200 {
                    let read: Arrow<StringArray> = get(&other, &object).unwrap();
                    let again = encode(&read).unwrap();
                    assert_eq!((&*read, again.copied_bytes()), (&array, 0));
                }
            });
        }
    });
    let read: Arrow<StringArray> = get(&other, &object).unwrap();
    let place = addresses(read.value_data());
    let text = read.values().clone();
    drop(read);
    assert_eq!(listed_within(place.clone()), 1);
    drop(text);
    assert_eq!(listed_within(place), 0);
}
