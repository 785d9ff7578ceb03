//! Payloads that no honest process wrote. If this fails, one process with a stray write or a grudge takes others down.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use ::arrow::array::*;
use ::arrow::buffer::OffsetBuffer;
use ::arrow::datatypes::{DataType, Field, Fields, Int16Type, Int32Type, TimeUnit};
use serde::{Deserialize, Serialize};

use super::seed::for_each_seed;
use super::store::{Store, get};
use super::{aligned, from_heap, payload};
use crate::value::payload::{Layout, Record};
use crate::value::{Arrow, Bytes, Source, Tensor, ValueError, decode, encode, format};

#[derive(Serialize, Deserialize, PartialEq, Debug, Clone)]
struct Victim {
    name: String,
    numbers: BTreeMap<u8, i64>,
    bytes: Bytes,
    tensor: Tensor<f64>,
    batch: Arrow<RecordBatch>,
}

fn victim() -> Victim {
    let lists = ListArray::from_iter_primitive::<Int32Type, _, _>([
        Some(vec![Some(1), None]),
        None,
        Some(vec![Some(2)]),
    ]);
    let fixed = FixedSizeListArray::from_iter_primitive::<Int16Type, _, _>(
        (0..3).map(|i| Some(vec![Some(i), Some(-i)])),
        2,
    );
    let mut runs = StringRunBuilder::<Int32Type>::new();
    runs.extend([Some("a"), Some("a"), None]);
    let structs = StructArray::from(vec![(
        Arc::new(Field::new("inner", DataType::Utf8, true)),
        Arc::new(StringArray::from(vec![Some("x"), None, Some("yz")])) as ArrayRef,
    )]);
    let unions = UnionArray::try_new(
        [
            (0, Arc::new(Field::new("i", DataType::Int32, false))),
            (3, Arc::new(Field::new("s", DataType::Utf8, true))),
        ]
        .into_iter()
        .collect(),
        vec![0, 3, 0].into(),
        Some(vec![0, 0, 1].into()),
        vec![Arc::new(Int32Array::from(vec![1, 2])), Arc::new(StringArray::from(vec!["u"]))],
    )
    .unwrap();
    let dictionary: DictionaryArray<Int16Type> = [Some("k"), None, Some("v")].into_iter().collect();
    let mut maps = MapBuilder::new(None, StringBuilder::new(), Int32Builder::new());
    for key in ["a", "b", "c"] {
        maps.keys().append_value(key);
        maps.values().append_value(1);
        maps.append(true).unwrap();
    }
    let views = StringViewArray::from(vec!["short", "a string that is longer than twelve bytes", ""]);
    let list_view = ListViewArray::try_new(
        Arc::new(Field::new("item", DataType::Int32, false)),
        vec![2, 0, 1].into(),
        vec![1, 2, 0].into(),
        Arc::new(Int32Array::from(vec![5, 6, 7])),
        None,
    )
    .unwrap();
    let columns: [(&str, ArrayRef); 12] = [
        ("lists", Arc::new(lists)),
        ("fixed", Arc::new(fixed)),
        ("runs", Arc::new(runs.finish())),
        ("structs", Arc::new(structs)),
        ("unions", Arc::new(unions)),
        ("dictionary", Arc::new(dictionary)),
        ("maps", Arc::new(maps.finish())),
        ("views", Arc::new(views)),
        ("list_view", Arc::new(list_view)),
        ("flags", Arc::new(BooleanArray::from(vec![Some(true), None, Some(false)]))),
        ("times", Arc::new(TimestampMicrosecondArray::from(vec![1, 2, 3]).with_timezone("UTC"))),
        ("nothing", Arc::new(NullArray::new(3))),
    ];
    Victim {
        name: "victim".to_owned(),
        numbers: [(1, -1), (2, i64::MAX)].into(),
        bytes: Bytes::from(vec![7; 70]),
        tensor: Tensor::from_shape_vec(&[2, 2], vec![0.5, 1.5, 2.5, 3.5]).unwrap(),
        batch: RecordBatch::try_from_iter(columns).unwrap().into(),
    }
}

/// Reads `payload`, and all that it decodes to.
fn read(payload: &[u8], honest: &Victim) -> bool {
    match from_heap::<Victim>(aligned(payload)) {
        Ok(value) => value == *honest,
        Err(error) => !error.to_string().is_empty(),
    }
}

#[test]
fn every_cut_is_an_error() {
    let whole = payload(&victim());
    for length in 0..whole.len() {
        // The last buffer's end is the payload's end, so no cut goes unnoticed.
        let cut = from_heap::<Victim>(aligned(&whole[..length]));
        assert!(cut.is_err(), "cut to {length} of {}", whole.len());
    }
    assert_eq!(from_heap::<Victim>(whole).unwrap(), victim());
}

#[test]
fn no_flipped_bit_panics() {
    let honest = victim();
    let whole = payload(&honest).to_vec();
    let mut panicked = Vec::new();
    for at in 0..whole.len() {
        for flip in [1, 2, 4, 8, 0x10, 0x20, 0x40, 0x80, 0xff] {
            let mut forged = whole.clone();
            forged[at] ^= flip;
            if catch_unwind(AssertUnwindSafe(|| read(&forged, &honest))).is_err() {
                panicked.push((at, flip));
            }
        }
    }
    assert!(panicked.is_empty(), "{panicked:?}");
}

#[test]
fn random_damage_never_panics() {
    let honest = victim();
    let whole = payload(&honest).to_vec();
    let stream = Layout::read(&whole).unwrap().stream;
    for_each_seed(2000, |mut random| {
        let mut forged = whole.clone();
        for _ in 0..=random.below(4) {
            let at = match random.below(3) {
                0 => random.below(stream.start),
                1 => stream.start + random.below(stream.len()),
                _ => random.below(whole.len()),
            };
            match random.below(3) {
                0 => forged[at] = random.next() as u8,
                1 => forged[at] = [0, 1, 0x7f, 0x80, 0xff][random.below(5)],
                _ => {
                    let length = random.below((whole.len() - at).min(32)) + 1;
                    let from = random.below(whole.len() - length + 1);
                    forged.copy_within(from..from + length, at);
                }
            }
        }
        read(&forged, &honest);
    });
}

#[test]
fn forged_places_are_refused() {
    let honest = payload(&(Bytes::from(vec![1; 100]), Bytes::from(vec![2; 100]))).to_vec();
    let length = honest.len() as u64;
    let inline = |offset, length| Record { offset, length, reference: None };
    for record in [
        inline(length, 1),
        inline(length - 1, 2),
        inline(u64::MAX, 1),
        inline(1, u64::MAX),
        inline(u64::MAX, u64::MAX),
        inline(0, length + 1),
        Record { offset: 0, length: 1, reference: Some(0) },
        Record { offset: 0, length: 1, reference: Some(u32::MAX - 1) },
    ] {
        let mut forged = honest.clone();
        record.write(&mut forged, 1);
        assert_eq!(Record::read(&forged, 1), record);
        match from_heap::<(Bytes, Bytes)>(forged).unwrap_err() {
            ValueError::BufferOutOfBounds { buffer: 1, available, .. } => assert_eq!(available, length),
            ValueError::NoSuchReference { reference, count: 0 } => {
                assert_eq!(Some(reference), record.reference)
            }
            other => panic!("{record:?}: {other}"),
        }
    }
}

#[test]
fn forged_counts_are_refused() {
    let honest = payload(&vec![Bytes::from(vec![1; 100])]).to_vec();
    let layout = Layout::read(&honest).unwrap();
    let forge = |at: usize, bytes: &[u8]| {
        let mut forged = honest.clone();
        forged[at..at + bytes.len()].copy_from_slice(bytes);
        from_heap::<Vec<Bytes>>(forged).unwrap_err()
    };
    assert!(matches!(forge(0, b"x"), ValueError::UnknownPayload { .. }));
    assert!(matches!(forge(3, &[9]), ValueError::UnknownPayload { .. }));
    assert!(matches!(forge(4, &[0xff; 4]), ValueError::Truncated { part: "the table of buffers", .. }));
    assert!(matches!(forge(8, &[0xff; 8]), ValueError::Truncated { part: "the stream", end: u64::MAX, .. }));
    assert!(matches!(forge(16, &[0xff; 4]), ValueError::NoSuchReference { count: 0, .. }));
    assert!(matches!(forge(20, &[0xff; 2]), ValueError::Truncated { part: "the type's name", .. }));
    // The stream is the length of the list and the index of its only element.
    assert_eq!(honest[layout.stream.clone()], [1, 0]);
    assert!(matches!(forge(layout.stream.start, &[2]), ValueError::Unreadable { .. }));
    assert!(matches!(forge(layout.stream.start, &[0]), ValueError::TrailingBytes { extra: 1, .. }));
    assert!(matches!(forge(layout.stream.start + 1, &[1]), ValueError::NoSuchBuffer { buffer: 1, count: 1 }));
}

#[test]
fn huge_lengths_reserve_nothing() {
    let mut forged = payload(&String::new()).to_vec();
    let stream = Layout::read(&forged).unwrap().stream;
    forged.truncate(stream.start);
    forged.extend([0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01]);
    forged[8] = 10;
    assert!(matches!(from_heap::<String>(forged.clone()), Err(ValueError::Unreadable { .. })));
    let name = std::any::type_name::<Vec<f64>>();
    let mut list = payload(&Vec::<f64>::new()).to_vec();
    list.truncate(24 + name.len());
    list.extend(&forged[stream.start..]);
    list[8] = 10;
    assert!(matches!(from_heap::<Vec<f64>>(list), Err(ValueError::Unreadable { .. })));
}

/// Arrow data that its own checks would panic on, or reserve memory for.
#[test]
fn impossible_arrow_types_are_refused() {
    // Any array's parts, and in them a type of the same stream length that does not fit.
    let check = |honest: ArrayRef, from: DataType, to: DataType| {
        let mut forged = payload(&Arrow::from(honest)).to_vec();
        let (from, to) = (postcard::to_stdvec(&from).unwrap(), postcard::to_stdvec(&to).unwrap());
        assert_eq!(from.len(), to.len());
        let stream = Layout::read(&forged).unwrap().stream;
        let at = forged[stream].windows(from.len()).position(|window| window == from).unwrap();
        let start = Layout::read(&forged).unwrap().stream.start + at;
        forged[start..start + to.len()].copy_from_slice(&to);
        let error = from_heap::<Arrow<ArrayRef>>(aligned(&forged)).unwrap_err();
        assert!(matches!(error, ValueError::Arrow(_)), "{error}");
    };
    let fixed: ArrayRef =
        Arc::new(FixedSizeBinaryArray::try_from_iter([[1, 2], [3, 4]].into_iter()).unwrap());
    check(fixed, DataType::FixedSizeBinary(2), DataType::FixedSizeBinary(-2));
    let times: ArrayRef = Arc::new(Time32SecondArray::from(vec![1]));
    check(times, DataType::Time32(TimeUnit::Second), DataType::Time32(TimeUnit::Nanosecond));
    let times: ArrayRef = Arc::new(Time64NanosecondArray::from(vec![1]));
    check(times, DataType::Time64(TimeUnit::Nanosecond), DataType::Time64(TimeUnit::Second));
    let text: ArrayRef = Arc::new(BinaryArray::from(vec![&b"\xff\xff"[..]]));
    check(text, DataType::Binary, DataType::Utf8);
}

#[test]
fn a_type_may_nest_only_so_deep() {
    let deep = |depth: usize| {
        let mut array: ArrayRef = Arc::new(Int32Array::from(vec![1]));
        for _ in 1..depth {
            let field = Arc::new(Field::new("", array.data_type().clone(), true));
            array = Arc::new(ListArray::new(field, OffsetBuffer::from_lengths([1]), array, None));
        }
        from_heap::<Arrow<ArrayRef>>(payload(&Arrow::from(array.clone())))
            .map(|back| assert_eq!(&*back, &array))
    };
    deep(64).unwrap();
    assert!(matches!(deep(65), Err(ValueError::Arrow(_))));
}

#[test]
fn a_mask_over_elements_without_memory_is_refused() {
    let fields = Fields::from(vec![Field::new("n", DataType::Null, true)]);
    let structs = StructArray::new(fields, vec![Arc::new(NullArray::new(4))], None);
    let field = Arc::new(Field::new("item", structs.data_type().clone(), false));
    let array = FixedSizeListArray::new(field, 2, Arc::new(structs), Some(vec![true, false].into()));
    let error = from_heap::<Arrow<FixedSizeListArray>>(payload(&Arrow::from(array))).unwrap_err();
    assert!(matches!(error, ValueError::Arrow(_)), "{error}");
}

/// A type that may nest without end, a byte for each level.
#[derive(Serialize, Deserialize, Debug)]
struct Deep(Option<Box<Deep>>);

/// The payload of `outermost`, with this stream.
fn with_stream<T: Serialize>(outermost: &T, stream: &[u8]) -> Vec<u8> {
    let mut forged = payload(outermost).to_vec();
    forged.truncate(Layout::read(&forged).unwrap().stream.start);
    forged.extend_from_slice(stream);
    forged[8..16].copy_from_slice(&(stream.len() as u64).to_le_bytes());
    forged
}

#[test]
fn what_nests_deeper_than_the_stack_is_refused() {
    for bytes in [64 << 10, 2 << 20] {
        let thread = std::thread::Builder::new().stack_size(bytes).spawn(|| {
            // Ten million levels, and then an end that is never reached.
            let mut stream = vec![1; 10_000_000];
            stream.push(0);
            let error = from_heap::<Deep>(with_stream(&Deep(None), &stream)).unwrap_err();
            assert!(matches!(error, ValueError::TooDeep), "{error}");
            // An Arrow type: a list of lists of lists.
            let list = Arrow::from(Arc::new(Int32Array::from(vec![1])) as ArrayRef);
            let field = postcard::to_stdvec(&Field::new("", DataType::Null, true)).unwrap();
            let schema = payload(&list).to_vec();
            let stream = Layout::read(&schema).unwrap().stream;
            let type_at = schema[stream.clone()]
                .windows(1)
                .position(|window| window == postcard::to_stdvec(&DataType::Int32).unwrap())
                .unwrap();
            let head = schema[stream.clone()][..type_at].to_vec();
            let list_tag = postcard::to_stdvec(&DataType::new_list(DataType::Null, true)).unwrap()[0];
            let level = [&[list_tag][..], &field[..1]].concat();
            let forged = with_stream(&list, &[head, level.repeat(1_000_000)].concat());
            let error = from_heap::<Arrow<ArrayRef>>(forged).unwrap_err();
            assert!(matches!(error, ValueError::TooDeep), "{error}");
        });
        thread.unwrap().join().unwrap();
    }
}

#[test]
fn a_value_too_deep_to_be_written_is_refused() {
    let deep = (0..1_000_000).fold(Deep(None), |deep, _| Deep(Some(Box::new(deep))));
    assert!(matches!(encode(&deep), Err(ValueError::TooDeep)));
    let mut next = deep.0;
    while let Some(mut deep) = next {
        next = deep.0.take();
    }
}

#[test]
fn what_lies_in_the_store_is_believed_no_more_than_what_comes_through_a_ring() {
    let store = Store::start();
    let another = store.another_client();
    let honest = victim();
    let whole = encode(&honest).unwrap().to_vec();
    let read = |bytes: &[u8]| {
        let layout =
            mobula_client::Layout { length: bytes.len() as u64, format: format::VALUE, ..Default::default() };
        let mut writer = store.create(layout).unwrap();
        writer.copy_from_slice(bytes);
        let object = writer.seal();
        get::<Victim>(&another, &object).map(|value| assert_eq!(value, honest))
    };
    read(&whole).unwrap();
    for length in 0..whole.len() {
        assert!(read(&whole[..length]).is_err(), "cut to {length} of {}", whole.len());
    }
    for_each_seed(2000, |mut random| {
        let mut forged = whole.clone();
        for _ in 0..=random.below(3) {
            let at = random.below(forged.len());
            forged[at] ^= 1 << random.below(8);
        }
        let layout = mobula_client::Layout {
            length: forged.len() as u64,
            format: format::VALUE,
            ..Default::default()
        };
        let mut writer = store.create(layout).unwrap();
        writer.copy_from_slice(&forged);
        // A value or an error, whatever is left of it.
        match get::<Victim>(&another, &writer.seal()) {
            Ok(value) => _ = value == honest,
            Err(error) => assert!(!error.to_string().is_empty()),
        }
    });
}

#[test]
fn buffers_in_other_objects_lie_within_them_or_are_refused() {
    let store = Store::start();
    let small = store.put(&[7; 100]).unwrap();
    let promise = store.promise().unwrap();
    let honest = encode(&Bytes::from(vec![1; 100])).unwrap().to_vec();
    let read = |record: Record, to: &mobula_client::Handle| {
        let mut forged = honest.clone();
        record.write(&mut forged, 0);
        forged[16] = 1;
        decode::<Bytes>(Source::heap(forged, vec![to.clone()]))
    };
    let record = |offset, length| Record { offset, length, reference: Some(0) };
    assert_eq!(read(record(10, 90), &small.handle()).unwrap(), Bytes::from(vec![7; 90]));
    for (offset, length) in [(0, 101), (100, 1), (101, 0), (u64::MAX, 2), (1, u64::MAX), (1 << 40, 1 << 40)] {
        let error = read(record(offset, length), &small.handle()).unwrap_err();
        assert!(matches!(error, ValueError::BufferOutOfBounds { available: 100, .. }), "{error}");
    }
    let error = read(record(0, 1), promise.handle()).unwrap_err();
    assert!(matches!(error, ValueError::Store(_)), "{error}");
}

#[test]
fn tensors_have_the_elements_that_their_shape_says_or_are_refused() {
    // Two dimensions: the length of the shape, the shape, and the buffer's index.
    let tensor = Tensor::from_shape_vec(&[2, 2], vec![0.5, 1.5, 2.5, 3.5]).unwrap();
    let honest = payload(&tensor).to_vec();
    let layout = Layout::read(&honest).unwrap();
    let stream = honest[layout.stream.clone()].to_vec();
    let forge = |from: &[u8], to: &[u8]| {
        let at = stream.windows(from.len()).position(|window| window == from).unwrap();
        let mut forged = stream.clone();
        forged[at..at + to.len()].copy_from_slice(to);
        let mut whole = honest.clone();
        whole[layout.stream.clone()].copy_from_slice(&forged);
        from_heap::<Tensor<f64>>(aligned(&whole)).unwrap_err()
    };
    assert!(matches!(forge(&[2, 2, 2], &[2, 2, 3]), ValueError::Shape { elements: 4, .. }));
    assert!(matches!(forge(&[2, 2, 2], &[2, 0, 2]), ValueError::Shape { elements: 4, .. }));
    // Another element type, of the same name's length.
    let error = forge(b"f64", b"i64");
    assert!(!error.to_string().is_empty());
    // A product that overflows: 2^32 × 2^32.
    for shape in [[1u64 << 32, 1 << 32], [u64::MAX, 2], [u64::MAX, u64::MAX], [1 << 63, 0]] {
        let name_end = stream.windows(3).position(|window| window == [2, 2, 2]).unwrap();
        let mut forged = stream[..name_end].to_vec();
        forged.extend(postcard::to_stdvec(&shape.to_vec()).unwrap());
        forged.extend(&stream[name_end + 3..]);
        let mut whole = with_stream(&tensor, &forged);
        // The buffer stands where it stood, which the payload no longer reaches.
        Record { offset: 0, length: 32, reference: None }.write(&mut whole, 0);
        let error = from_heap::<Tensor<f64>>(aligned(&whole)).unwrap_err();
        assert!(matches!(error, ValueError::Shape { .. }), "{shape:?}: {error}");
    }
    // From memory that is not aligned they are copied, and are the same.
    for shift in 1..8 {
        let memory = bytes::Bytes::from([vec![0; shift], honest.clone()].concat());
        assert_eq!(from_heap::<Tensor<f64>>(memory.slice(shift..)).unwrap(), tensor);
    }
}
