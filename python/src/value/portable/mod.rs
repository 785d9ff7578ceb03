//! Values that programs of other languages read: payloads of the formats `PLAIN`, `TENSOR` and `ARROW`, whose layout is
//! in the documentation of `mobula::value` (`mobula/src/value`), and that of their streams in `mobula::value::stream`.
//!
//! Python's own format is several times as fast for small values, and has every class. So values go in these formats
//! only where they go to another language: as arguments and results of calls that cross, and by `mobula.rust.put`.
//! [`read`] reads them wherever they come from.
//!
//! | Python | the stream |
//! |---|---|
//! | `None`, `bool`, `int` of at most 128 bits, `float`, `str` | nil, a boolean, an integer, a float, a string |
//! | `bytes` | binary |
//! | `memoryview`, `bytearray`, `pyarrow.Buffer` | a buffer, which is read where it lies |
//! | `list`, `tuple` | an array, or a list of numbers |
//! | `dict` | a map |
//! | `numpy.ndarray` | a tensor |
//! | a number of numpy | as the number of Python |
//! | `pyarrow` data, and all that has `__arrow_c_stream__` or `__arrow_c_array__` | Arrow data |
//!
//! Names of types are left empty: the reader takes a value as the type that its stream gives.

mod read;
mod write;

pub(crate) use self::read::decode;
pub(crate) use self::write::{Portable, encode};

const MAGIC: [u8; 4] = *b"Mbv\x02";
const HEADER_BYTES: usize = 24;
const RECORD_BYTES: usize = 24;
/// Deeper values are refused: each level takes stack.
const DEPTH_MAX: usize = 128;

/// MessagePack's markers that are written here.
mod marker {
    pub(super) const NIL: u8 = 0xc0;
    pub(super) const FALSE: u8 = 0xc2;
    pub(super) const TRUE: u8 = 0xc3;
    pub(super) const BIN_8: u8 = 0xc4;
    pub(super) const BIN_16: u8 = 0xc5;
    pub(super) const BIN_32: u8 = 0xc6;
    pub(super) const EXT_8: u8 = 0xc7;
    pub(super) const EXT_16: u8 = 0xc8;
    pub(super) const EXT_32: u8 = 0xc9;
    pub(super) const F32: u8 = 0xca;
    pub(super) const F64: u8 = 0xcb;
    pub(super) const U8: u8 = 0xcc;
    pub(super) const U16: u8 = 0xcd;
    pub(super) const U32: u8 = 0xce;
    pub(super) const U64: u8 = 0xcf;
    pub(super) const I8: u8 = 0xd0;
    pub(super) const I16: u8 = 0xd1;
    pub(super) const I32: u8 = 0xd2;
    pub(super) const I64: u8 = 0xd3;
    pub(super) const FIXEXT_1: u8 = 0xd4;
    pub(super) const FIXEXT_16: u8 = 0xd8;
    pub(super) const STR_8: u8 = 0xd9;
    pub(super) const STR_16: u8 = 0xda;
    pub(super) const STR_32: u8 = 0xdb;
    pub(super) const ARRAY_16: u8 = 0xdc;
    pub(super) const ARRAY_32: u8 = 0xdd;
    pub(super) const MAP_16: u8 = 0xde;
    pub(super) const MAP_32: u8 = 0xdf;
}

/// The extensions of the stream.
mod extension {
    pub(super) const SOME: u8 = 1;
    pub(super) const SIGNED: u8 = 2;
    pub(super) const UNSIGNED: u8 = 3;
    pub(super) const NUMBERS: u8 = 4;
    pub(super) const NUMBERS_BESIDE: u8 = 5;
    pub(super) const TEXT_BESIDE: u8 = 6;
    pub(super) const BYTES_BESIDE: u8 = 7;
    pub(super) const BUFFER: u8 = 8;
    pub(super) const REFERENCE: u8 = 9;
    pub(super) const TENSOR: u8 = 10;
    pub(super) const ARROW: u8 = 11;
}

/// The elements of tensors, by their names in the stream and in numpy.
const ELEMENTS: [(&str, &str); 14] = [
    ("i8", "|i1"),
    ("i16", "<i2"),
    ("i32", "<i4"),
    ("i64", "<i8"),
    ("u8", "|u1"),
    ("u16", "<u2"),
    ("u32", "<u4"),
    ("u64", "<u8"),
    ("f16", "<f2"),
    ("f32", "<f4"),
    ("f64", "<f8"),
    ("bool", "|b1"),
    ("complex64", "<c8"),
    ("complex128", "<c16"),
];
