//! Tests of values as a whole. The head of each file says what its tests protect.

mod arrow;
mod attributes;
mod buffered;
mod corpus;
mod hostile;
mod in_store;
mod large;
mod random;
mod round_trip;
mod seed;
mod store;
mod tensors;
mod wild;

use std::ops::Range;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::payload::{BufferRecord, HEADER_BYTES, Layout};
use super::{Source, ValueError, decode, encode};

/// The payload of `value`, 64-byte aligned as it would be in the store.
fn payload<T: Serialize + ?Sized>(value: &T) -> bytes::Bytes {
    aligned(&encode(value).unwrap().to_vec())
}

/// A copy of `bytes` at a multiple of 64.
fn aligned(bytes: &[u8]) -> bytes::Bytes {
    let mut memory = vec![0; bytes.len() + 64];
    let start = memory.as_ptr().align_offset(64);
    memory[start..start + bytes.len()].copy_from_slice(bytes);
    bytes::Bytes::from(memory).slice(start..start + bytes.len())
}

fn from_heap<T: DeserializeOwned>(payload: impl Into<super::Bytes>) -> Result<T, ValueError> {
    decode(Source::heap(payload, Vec::new()))
}

fn addresses<T>(slice: &[T]) -> Range<usize> {
    let Range { start, end } = slice.as_ptr_range();
    start.addr()..end.addr()
}

#[track_caller]
fn assert_within<T>(part: &[T], whole: &[u8]) {
    let (part, whole) = (addresses(part), addresses(whole));
    assert!(whole.start <= part.start && part.end <= whole.end, "{part:x?} was copied out of {whole:x?}");
}

/// The payload of a value with another type's name, so that the checks after that of the name are reached.
fn renamed(payload: &[u8], from: &str, to: &str) -> Vec<u8> {
    let layout = Layout::read(payload, payload.len()).unwrap();
    assert_eq!(&payload[layout.type_name.clone()], from.as_bytes());
    let longer = (to.len() as u64).wrapping_sub(from.len() as u64);
    let (head, rest) = (&payload[..layout.type_name.start], &payload[layout.type_name.end..]);
    let mut renamed = [head, to.as_bytes(), rest].concat();
    renamed[20..22].copy_from_slice(&(to.len() as u16).to_le_bytes());
    for index in 0..layout.buffers {
        let record = BufferRecord::read(&payload[HEADER_BYTES..], index).unwrap();
        let offset = record.offset.wrapping_add(longer);
        BufferRecord { offset, ..record }.write(&mut renamed, index as usize);
    }
    renamed
}
