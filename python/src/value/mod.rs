//! Python values as payloads.
//!
//! A value becomes bytes of format [`PYTHON`](mobula_runtime::format::PYTHON), which only this package reads; or, where
//! it goes to another language, of a format that all read (`portable`). Numbers,
//! text and bytes are written as they are, and arrays of numpy as their type, shape and memory. Everything else is a
//! pickle of protocol 5, whose buffers lie beside it: what reads them sees the memory of the store.
//!
//! All numbers are little-endian. The first byte is the [kind](kind).
//!
//! | kind | bytes behind it |
//! |---|---|
//! | none, true, false | |
//! | int, float | 8: the number |
//! | str | UTF-8 to the end |
//! | bytes | the bytes to the end |
//! | array, pickle, long bytes, list of ints or floats | the parts below |
//!
//! | at | bytes | of a value with parts |
//! |---|---|---|
//! | 1 | 3 | zero |
//! | 4 | 4 | number of buffers, *b* |
//! | 8 | 8 | length of the stream, *s* |
//! | 16 | 16·*b* | each buffer: its start in the payload, and its length |
//! | 16 + 16·*b* | *s* | the stream: the pickle; or the array's type, order and shape; or the list's numbers |
//! | … | | the buffers, each at the next multiple of 64 |
//!
//! A reference in a pickle is its position among the payload's references: the store sees which objects a value refers
//! to.
//!
//! A process that can write an object of a session can make its readers run code, because a pickle may do anything. All
//! processes of a session are of one user.

pub(crate) mod context;
mod decode;
mod encode;
pub(crate) mod memory;
mod numbers;
mod portable;

pub(crate) use self::decode::{of_object, of_payload, of_resolved, text_of_payload};
pub(crate) use self::encode::{Value, encode, encode_portable, export, none, text};

/// The first byte of a payload.
mod kind {
    pub(super) const NONE: u8 = 0;
    pub(super) const TRUE: u8 = 1;
    pub(super) const FALSE: u8 = 2;
    pub(super) const INT: u8 = 3;
    pub(super) const FLOAT: u8 = 4;
    pub(super) const STR: u8 = 5;
    pub(super) const BYTES: u8 = 6;
    pub(super) const ARRAY: u8 = 7;
    pub(super) const PICKLE: u8 = 8;
    pub(super) const LONG_BYTES: u8 = 9;
    pub(super) const NARROW_INTS: u8 = 10;
    pub(super) const INTS: u8 = 11;
    pub(super) const FLOATS: u8 = 12;
}

/// Bytes in front of the records of the buffers.
const HEADER_BYTES: usize = 16;
/// Bytes of a buffer's record.
const RECORD_BYTES: usize = 16;
/// Each buffer starts at a multiple of this.
const ALIGNMENT: usize = 64;
