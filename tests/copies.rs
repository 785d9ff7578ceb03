//! Copies of large values: if these fail, a large text, byte string or list of numbers is copied on the heap before it
//! is copied into the store, which takes twice the time and the memory.

use std::alloc::{GlobalAlloc, Layout, System};
use std::cell::Cell;

use mobula::prelude::*;
use mobula::value::{Source, decode, encode};
use mobula::{ClientError, Error};
use mobula_tests::{session, session_with};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize, Serializer};

const MIB: usize = 1 << 20;
/// More than a call needs beside its values.
const FEW_BYTES: usize = 64 << 10;

/// The system's allocator; counts the bytes that the threads ask for.
struct Counting;

thread_local! {
    static BYTES: Cell<usize> = const { Cell::new(0) };
}

fn count(bytes: usize) {
    // A thread that is ending has no counter any more, and is not measured.
    let _ = BYTES.try_with(|count| count.set(count.get() + bytes));
}

// SAFETY: everything is passed on to the system's allocator as it came; counting does not allocate (a constant
// initialiser and no destructor).
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        count(layout.size());
        // SAFETY: the caller's.
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        // SAFETY: the caller's.
        unsafe { System.dealloc(pointer, layout) }
    }

    unsafe fn realloc(&self, pointer: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        count(size);
        // SAFETY: the caller's.
        unsafe { System.realloc(pointer, layout, size) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

/// The bytes that this thread asks for on the heap meanwhile.
fn heap_bytes<R>(work: impl FnOnce() -> R) -> (usize, R) {
    let before = BYTES.get();
    let result = work();
    (BYTES.get() - before, result)
}

fn numbers() -> Vec<f64> {
    (0..MIB / size_of::<f64>()).map(|number| number as f64).collect()
}

fn text() -> String {
    "manta ".repeat(MIB / 6)
}

/// Bytes as `serde_bytes` has them.
#[derive(Debug, Clone, PartialEq, Deserialize)]
struct Binary(Vec<u8>);

impl Serialize for Binary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Nested {
    name: String,
    columns: Vec<(String, Vec<f64>)>,
}

#[mobula::remote]
fn sum(numbers: Vec<f64>) -> f64 {
    numbers.iter().sum()
}

#[mobula::remote]
fn length(text: String) -> usize {
    text.len()
}

#[mobula::remote]
fn heap_bytes_of_a_result() -> (usize, Vec<f64>) {
    let before = BYTES.get();
    let numbers = numbers();
    (BYTES.get() - before, numbers)
}

/// Puts a value, and counts the bytes on the heap.
fn check_put<T: Serialize + DeserializeOwned + PartialEq>(what: &str, value: &T) {
    let (bytes, put) = heap_bytes(|| put(value).unwrap());
    assert!(bytes < FEW_BYTES, "{bytes} bytes on the heap for {what}");
    assert!(put.get().unwrap() == *value, "{what} came back as something else");
}

#[test]
fn large_values_are_copied_into_the_store_and_nowhere_else() {
    let _session = session(1);
    check_put("numbers", &numbers());
    check_put("text", &text());
    check_put("bytes as numbers", &vec![7u8; MIB]);
    check_put(
        "a struct",
        &Nested { name: text(), columns: vec![("a".into(), numbers()), ("b".into(), vec![])] },
    );
    let bytes = Binary(vec![7; MIB]);
    let (heap, _put) = heap_bytes(|| put(&bytes).unwrap());
    assert!(heap < FEW_BYTES, "{heap} bytes on the heap for bytes");
}

#[test]
fn large_arguments_are_copied_into_the_store_and_nowhere_else() {
    let _session = session(1);
    let (numbers, text) = (numbers(), text());
    // The first call of a function makes what it needs.
    sum::remote(vec![1.0]).get().unwrap();
    length::remote(String::new()).get().unwrap();
    let (expected, expected_length) = (numbers.iter().sum::<f64>(), text.len());
    let (bytes, summed) = heap_bytes(|| sum::remote(numbers));
    assert!(bytes < FEW_BYTES, "{bytes} bytes on the heap for numbers");
    let (bytes, measured) = heap_bytes(|| length::remote(text));
    assert!(bytes < FEW_BYTES, "{bytes} bytes on the heap for text");
    assert_eq!((summed.get().unwrap(), measured.get().unwrap()), (expected, expected_length));
    let (made, result) = heap_bytes_of_a_result::remote().get().unwrap();
    assert_eq!((made, result), (MIB, self::numbers()));
}

/// An iterator that announces a wrong number of elements.
#[derive(Clone, Copy)]
struct Says {
    says: usize,
    has: usize,
}

impl Iterator for Says {
    type Item = u64;

    fn next(&mut self) -> Option<u64> {
        self.has = self.has.checked_sub(1)?;
        Some(self.has as u64)
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (self.says, Some(self.says))
    }
}

/// Numbers that are written by such an iterator, and read as they are.
struct Untrue {
    numbers: Says,
    read: Vec<u64>,
}

impl Serialize for Untrue {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_seq(self.numbers)
    }
}

impl<'de> Deserialize<'de> for Untrue {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = Vec::deserialize(deserializer)?;
        Ok(Self { numbers: Says { says: 0, has: 0 }, read })
    }
}

#[test]
fn numbers_that_are_more_or_fewer_than_was_said_are_all_there() {
    let _session = session(1);
    for (says, has) in [(20_000, 20_001), (20_000, 19_999), (20_000, 40_000), (20_000, 1), (20_000, 0)] {
        let value = Untrue { numbers: Says { says, has }, read: Vec::new() };
        let read = put(&value).unwrap().get().unwrap().read;
        assert_eq!(read, (0..has as u64).rev().collect::<Vec<_>>(), "{says} said, {has} there");
    }
}

/// A payload that is written to a file, say, refers to no objects that the value itself does not refer to.
#[test]
fn what_a_program_encodes_itself_needs_nothing_beside_it() {
    let _session = session(1);
    let encoded = encode(&numbers()).unwrap();
    assert_eq!(encoded.references().len(), 0);
    let back: Vec<f64> = decode(Source::heap(encoded.to_vec(), vec![])).unwrap();
    assert_eq!(back, numbers());
}

#[test]
fn a_value_for_which_the_store_has_no_room_says_so() {
    let builder = mobula::Builder::new().workers(1).capacity_bytes(32 << 20);
    let _session = session_with(builder);
    match put(&vec![1u64; 64 * MIB / 8]).map(drop) {
        Err(Error::Store(ClientError::Refused(refusal))) => {
            assert!(refusal.to_string().contains("capacity"), "{refusal}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(put(&7).unwrap().get().unwrap(), 7, "it goes on");
}
