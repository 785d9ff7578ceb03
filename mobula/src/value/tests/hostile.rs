//! Payloads that no honest process wrote. If this fails, a faulty or hostile process can end other processes.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use crate::arrow::array::*;
use crate::arrow::buffer::OffsetBuffer;
use crate::arrow::datatypes::{DataType, Field, Fields, Int16Type, Int32Type, TimeUnit};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::seed::for_each_seed;
use super::store::{Store, get};
use super::{aligned, from_heap, payload};
use crate::value::payload::{BufferRecord, HEADER_BYTES, Layout};
use crate::value::stream;
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
        for flip in [1, 4, 0x10, 0x40, 0x80, 0xff] {
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
    let stream = Layout::read(&whole, whole.len()).unwrap().stream;
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
    let inline = |offset, length| BufferRecord { offset, length, reference: None };
    for record in [
        inline(length, 1),
        inline(length - 1, 2),
        inline(u64::MAX, 1),
        inline(1, u64::MAX),
        inline(u64::MAX, u64::MAX),
        inline(0, length + 1),
        BufferRecord { offset: 0, length: 1, reference: Some(0) },
        BufferRecord { offset: 0, length: 1, reference: Some(u32::MAX - 1) },
    ] {
        let mut forged = honest.clone();
        record.write(&mut forged, 1);
        assert_eq!(BufferRecord::read(&forged[HEADER_BYTES..], 1).unwrap(), record);
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
    let layout = Layout::read(&honest, honest.len()).unwrap();
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
    // The stream is the length of the list, and its only element: an extension with the buffer's index.
    let start = layout.stream.start;
    assert_eq!(honest[layout.stream], [0x91, 0xc9, 0, 0, 0, 1, 8, 0]);
    assert!(matches!(forge(start, &[0x92]), ValueError::Unreadable { .. }));
    assert!(matches!(forge(start, &[0x90]), ValueError::TrailingBytes { extra: 7, .. }));
    assert!(matches!(forge(start + 5, &[2]), ValueError::Unreadable { .. }));
    assert!(matches!(forge(start + 6, &[9]), ValueError::Unreadable { .. }));
    assert!(matches!(forge(start + 7, &[1]), ValueError::NoSuchBuffer { buffer: 1, count: 1 }));
}

#[test]
fn huge_lengths_reserve_nothing() {
    #[track_caller]
    fn check<T: Serialize + DeserializeOwned + Debug>(value: &T, streams: &[&[u8]]) {
        for stream in streams {
            let error = from_heap::<T>(with_stream(value, stream)).unwrap_err();
            assert!(matches!(error, ValueError::Unreadable { .. }), "{stream:02x?}: {error}");
        }
    }
    let [text, list, map] = [0xdb_u8, 0xdd, 0xdf].map(|marker| [&[marker][..], &[0xff; 4]].concat());
    let bytes = [&[0xc6][..], &[0xff; 4]].concat();
    // Extensions: a list of numbers, one beside the stream, text beside it, and a buffer.
    let extensions = [4_u8, 5, 6, 8].map(|code| [&[0xc9][..], &[0xff; 4], &[code, b'd']].concat());
    let [numbers, numbers_beside, text_beside, buffer] = &extensions;
    check(&String::new(), &[&text, &bytes, &list, text_beside]);
    check(&Vec::<f64>::new(), &[&list, &map, numbers, numbers_beside, &bytes]);
    check(&Vec::<()>::new(), &[&list, numbers]);
    check(&BTreeMap::<u8, u8>::new(), &[&map, &list]);
    check(&serde_json::Value::Null, &[&map, &list, &text, &bytes, numbers, buffer]);
    check(&Bytes::new(), &[&bytes, &text, buffer]);
    // The reader looks only for the end of a part that it passes over.
    check(&Ignoring { known: 1 }, &[&[&b"\x82\xa7unknown"[..], &list].concat()]);
}

/// A struct that passes over fields that it does not know.
#[derive(Serialize, Deserialize, Debug)]
struct Ignoring {
    known: u8,
}

#[test]
fn lists_of_numbers_are_whole_and_of_a_known_kind() {
    let numbers = |kind: u8, bytes: &[u8]| [&[0xc7, bytes.len() as u8 + 1, 4, kind], bytes].concat();
    let read = |stream: &[u8]| from_heap::<Vec<u32>>(with_stream(&Vec::<u32>::new(), stream));
    assert_eq!(read(&numbers(b'I', &[1, 0, 0, 0, 2, 0, 0, 0])).unwrap(), [1, 2]);
    assert_eq!(read(&numbers(b'B', &[1, 2])).unwrap(), [1, 2]);
    for stream in [numbers(b'I', &[1; 7]), numbers(b'x', &[1; 8]), numbers(b'd', &[0; 8]), vec![0xc7, 0, 4]] {
        assert!(matches!(read(&stream), Err(ValueError::Unreadable { .. })), "{stream:02x?}");
    }
}

/// Seven bytes of a stream are enough to name a buffer, however large, once more.
#[test]
fn a_buffer_is_copied_out_no_more_often_than_it_is_there() {
    #[track_caller]
    fn check<T: Serialize + DeserializeOwned + Debug>(value: T) {
        let honest = payload(&vec![value]).to_vec();
        from_heap::<Vec<T>>(aligned(&honest)).unwrap();
        let layout = Layout::read(&honest, honest.len()).unwrap();
        let element = &honest[layout.stream.clone()][1..];
        let stream = [&[0xdd, 0, 1, 0x86, 0xa0][..], &element.repeat(100_000)].concat();
        let mut forged = [&honest[..layout.stream.start], &stream, &honest[layout.stream.end..]].concat();
        forged[8..16].copy_from_slice(&(stream.len() as u64).to_le_bytes());
        let record = BufferRecord::read(&honest[HEADER_BYTES..], 0).unwrap();
        let offset = record.offset + (stream.len() - layout.stream.len()) as u64;
        BufferRecord { offset, ..record }.write(&mut forged, 0);
        let error = from_heap::<Vec<T>>(aligned(&forged)).unwrap_err();
        assert!(matches!(error, ValueError::CopiedAgain { buffer: 0, .. }), "{error}");
    }
    check("text ".repeat(200_000));
    check(serde_bytes::ByteBuf::from(vec![1; 1_000_000]));
    check(vec![1.5_f64; 100_000]);
}

/// The payload with one part of its stream replaced, and with all lengths adjusted.
fn replaced(payload: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
    let layout = Layout::read(payload, payload.len()).unwrap();
    let stream = &payload[layout.stream.clone()];
    let at = stream.windows(from.len()).position(|window| window == from).unwrap();
    let mut stream = [&stream[..at], to, &stream[at + from.len()..]].concat();
    let longer = to.len().wrapping_sub(from.len());
    // The whole stream is one extension.
    let length = (stream.len() - 6) as u32;
    stream[1..5].copy_from_slice(&length.to_be_bytes());
    let mut forged = [&payload[..layout.stream.start], &stream, &payload[layout.stream.end..]].concat();
    forged[8..16].copy_from_slice(&(stream.len() as u64).to_le_bytes());
    for index in 0..layout.buffers {
        let record = BufferRecord::read(&payload[HEADER_BYTES..], index).unwrap();
        let offset = record.offset.wrapping_add(longer as u64);
        BufferRecord { offset, ..record }.write(&mut forged, index as usize);
    }
    forged
}

/// Arrow data that its own checks would panic on, or reserve memory for.
#[test]
fn impossible_arrow_types_are_refused() {
    // Any array's parts, and in them a type that does not fit.
    let check = |honest: ArrayRef, from: DataType, to: DataType| {
        let [from, to] = [from, to].map(|data_type| stream::write_alone(&data_type).unwrap());
        let forged = replaced(&payload(&Arrow::from(honest)), &from, &to);
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

/// A type that may nest without end, without a byte for each level.
#[derive(Serialize, Deserialize, Debug)]
struct Deep(Option<Box<Deep>>);

/// Another one, a byte for each level.
#[derive(Serialize, Deserialize, Debug)]
struct Wide(Vec<Wide>);

/// One that is buffered, and then read level by level.
#[derive(Serialize, Deserialize, Debug)]
#[serde(untagged)]
enum Buffered {
    Levels(Vec<Buffered>),
    Wide(Wide),
}

/// The payload of `outermost`, with this stream.
fn with_stream<T: Serialize>(outermost: &T, stream: &[u8]) -> Vec<u8> {
    let mut forged = payload(outermost).to_vec();
    forged.truncate(Layout::read(&forged, forged.len()).unwrap().stream.start);
    forged.extend_from_slice(stream);
    forged[8..16].copy_from_slice(&(stream.len() as u64).to_le_bytes());
    forged
}

#[test]
fn what_nests_deeper_than_the_stack_is_refused() {
    for bytes in [64 << 10, 2 << 20] {
        let thread = std::thread::Builder::new().stack_size(bytes).spawn(|| {
            let somes = [0xc7, 4, 1, 0xff, 0xff, 0xff, 0xff];
            let error = from_heap::<Deep>(with_stream(&Deep(None), &somes)).unwrap_err();
            assert!(matches!(error, ValueError::TooDeep), "{error}");
            // Ten million levels, and then an end that is never reached.
            let mut lists = vec![0x91; 10_000_000];
            lists.push(0x90);
            let error = from_heap::<Wide>(with_stream(&Wide(vec![]), &lists)).unwrap_err();
            assert!(matches!(error, ValueError::TooDeep), "{error}");
            let error = from_heap::<Buffered>(with_stream(&Buffered::Levels(vec![]), &lists)).unwrap_err();
            assert!(matches!(error, ValueError::TooDeep), "{error}");
            let null = serde_json::Value::Null;
            let error = from_heap::<serde_json::Value>(with_stream(&null, &lists)).unwrap_err();
            assert!(matches!(error, ValueError::TooDeep), "{error}");
            // An Arrow type: a list of lists of lists.
            let list = Arrow::from(Arc::new(Int32Array::from(vec![1])) as ArrayRef);
            let [int, null, lists] =
                [DataType::Int32, DataType::Null, DataType::new_list(DataType::Null, true)]
                    .map(|data_type| stream::write_alone(&data_type).unwrap());
            let null_at = lists.windows(null.len()).position(|window| window == null).unwrap();
            let whole = payload(&list);
            let layout = Layout::read(&whole, whole.len()).unwrap();
            let forged = replaced(&whole[..layout.stream.end], &int, &lists[..null_at].repeat(100_000));
            let error = from_heap::<Arrow<ArrayRef>>(forged).unwrap_err();
            assert!(matches!(error, ValueError::TooDeep), "{error}");
        });
        thread.unwrap().join().unwrap();
    }
}

/// A value that fits the stack when it is buffered must fit it when it is read from the buffer.
#[test]
fn what_is_buffered_is_not_deeper_than_what_reads_it_goes() {
    for bytes in [256 << 10, 2 << 20, 8 << 20] {
        let thread = std::thread::Builder::new().stack_size(bytes).spawn(move || {
            let (mut fits, mut too_deep) = (0, 1_000_000);
            while fits + 1 < too_deep {
                let levels = usize::midpoint(fits, too_deep);
                let lists = [vec![0x91; levels], vec![0x90]].concat();
                match from_heap::<Buffered>(with_stream(&Buffered::Levels(vec![]), &lists)) {
                    Ok(_) => fits = levels,
                    Err(ValueError::TooDeep) => too_deep = levels,
                    Err(error) => panic!("{levels} levels: {error}"),
                }
            }
            assert!(fits >= bytes >> 17, "{fits} levels on a stack of {bytes} bytes");
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
        let layout = mobula_client::Layout::new(bytes.len() as u64).format(format::PLAIN);
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
        let layout = mobula_client::Layout::new(forged.len() as u64).format(format::PLAIN);
        let mut writer = store.create(layout).unwrap();
        writer.copy_from_slice(&forged);
        // The outcome is a value or an error.
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
    let read = |record: BufferRecord, to: &mobula_client::Handle| {
        let mut forged = honest.clone();
        record.write(&mut forged, 0);
        forged[16] = 1;
        decode::<Bytes>(Source::heap(forged, vec![to.clone()]))
    };
    let record = |offset, length| BufferRecord { offset, length, reference: Some(0) };
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
    let tensor = Tensor::from_shape_vec(&[2, 2], vec![0.5, 1.5, 2.5, 3.5]).unwrap();
    let honest = payload(&tensor).to_vec();
    let read = |forged: Vec<u8>| from_heap::<Tensor<f64>>(aligned(&forged)).unwrap_err();
    // A product that overflows: 2^32 × 2^32.
    for shape in [[2, 3], [0, 2], [1 << 32, 1 << 32], [u64::MAX, 2], [u64::MAX, u64::MAX], [1 << 63, 0]] {
        let [from, to] = [[2, 2], shape].map(|shape: [u64; 2]| shape.map(u64::to_le_bytes).concat());
        let error = read(replaced(&honest, &from, &to));
        assert!(matches!(error, ValueError::Shape { elements: 4, .. }), "{shape:?}: {error}");
    }
    // Other elements, and other parts.
    let error = read(replaced(&honest, b"f64", b"i64"));
    assert!(matches!(&error, ValueError::WrongType { found, .. } if found.contains("i64")), "{error}");
    let error = read(replaced(&honest, b"\xa6buffer", b"\xa6bluffs"));
    assert!(error.to_string().contains("a buffer of elements, or elements in line"), "{error}");
    // Numbers in memory that is not aligned are copied, and are the same.
    for shift in 1..8 {
        let memory = bytes::Bytes::from([vec![0; shift], honest.clone()].concat());
        assert_eq!(from_heap::<Tensor<f64>>(memory.slice(shift..)).unwrap(), tensor);
    }
}
