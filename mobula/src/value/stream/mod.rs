//! The stream of a payload: [MessagePack](https://github.com/msgpack/msgpack/blob/master/spec.md), which describes
//! itself. `write` turns `serde`'s data model into it, `read` turns it back, `numbers` has lists of numbers, which are
//! copied as one block. `marker` and `extension` have the bytes that show the kind of a value.
//!
//! | value | in the stream |
//! |---|---|
//! | `bool` | a boolean |
//! | an integer of at most 64 bits | an integer, in the shortest form |
//! | `f32`, `f64` | a float of its width, bit by bit |
//! | text, `char` | a string |
//! | bytes (of `serialize_bytes`) | binary |
//! | list, tuple, tuple struct | an array; a list of numbers: see below |
//! | map | a map, with keys of any kind |
//! | struct | a map by the names of its fields, as `serde` renames them; fields that are skipped are not there |
//! | `()`, unit struct, `None` | nil |
//! | `Some(x)`, newtype struct | as *x* itself; where *x* would be nil, see below |
//! | variant | without content: its name as a string; else a map of one entry, from its name to its content |
//!
//! Values that MessagePack has no form for are extensions. Their numbers are little-endian, as all of a payload's.
//!
//! | type | data | value |
//! |---|---|---|
//! | 1 | *n*: 4 bytes | nil inside of *n* `Some`s: `Some(None)`, `Some(())` |
//! | 2 | 16 bytes | an integer that 64 bits do not hold, signed |
//! | 3 | 16 bytes | an integer that 127 bits do not hold, unsigned |
//! | 4 | element: 1 byte; the numbers | a list of numbers |
//! | 5 | element: 1 byte; buffer: 4 bytes | a list of numbers, beside the stream |
//! | 6 | buffer: 4 bytes | a string, beside the stream |
//! | 7 | buffer: 4 bytes | binary, beside the stream |
//! | 8 | one MessagePack value: the buffer's index | bytes that are read where they lie: a [`Bytes`](super::Bytes) |
//! | 9 | one MessagePack value: an array of one position | a reference to an object |
//! | 10 | one MessagePack value: a map of `element`, `shape` and `buffer` | a [`Tensor`](super::Tensor) |
//! | 11 | one MessagePack value: a map of `schema`, `rows` and `nodes` | [`Arrow`](super::Arrow) data |
//!
//! An element is named by its letter in Python's `struct` module and in NumPy: `b` `h` `i` `q` are signed integers of
//! 1, 2, 4 and 8 bytes, `B` `H` `I` `Q` unsigned ones, `f` and `d` are floats. Lists of numbers, strings and binary
//! of 4 KiB or more go beside the stream, as a buffer of the payload.
//!
//! Both ends report that they are human-readable. Any other answer would be wrong: `serde` buffers values for
//! `untagged`, `flatten` and tagged enums, and reports to the types that it reads from such a buffer that the format is
//! human-readable.
//!
//! In `serde`'s buffer, the value of an extension 8 to 11 stands within more newtypes than any type has. So no user's
//! type can be read from it by mistake.
//!
//! Binary is a list of numbers to `serde`'s buffer, as in JSON. Otherwise text would be read from buffered bytes that
//! are UTF-8, and some ids from buffered bytes of the right length. Binary beside the stream is too long for an id: it
//! stays bytes unless it is UTF-8, because a buffered list takes 32 times the memory. In place of the name of a field,
//! binary is a list, too, and is refused.
//!
//! # Depth
//!
//! A few bytes for each level are enough to go deeper than any stack, so each level looks at how much of the stack is
//! left. `serde` reads buffered values a second time without checking the stack. So each buffered level reserves stack
//! for that.

use serde::de::DeserializeOwned;
use serde::ser::Serialize;

use super::{ValueError, format};

mod buffering;
mod error;
mod extension;
mod marker;
mod nested;
mod numbers;
mod read;
mod write;

pub(crate) use self::error::Error;
pub(crate) use self::extension::Extension;
pub(super) use self::nested::content;
use self::read::take;
use self::write::Writer;

/// The stream of a [`Bytes`](super::Bytes) that is the payload's first buffer.
pub(super) const BUFFER_0: [u8; 3] = [marker::FIXEXT_1, extension::BUFFER, 0];

/// The tag of a payload with this stream.
pub(super) fn format_of(stream: &[u8]) -> u32 {
    match *stream {
        [marker::EXT_32, _, _, _, _, extension::TENSOR, ..] => format::TENSOR,
        [marker::EXT_32, _, _, _, _, extension::ARROW, ..] => format::ARROW,
        _ => format::PLAIN,
    }
}

/// Appends the stream of `value`; large data goes beside it. After an error, the caller cuts off the part that was
/// written.
pub(super) fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), ValueError> {
    value.serialize(&mut Writer::new(out)).map_err(|error| match error.is_too_deep() {
        true => ValueError::TooDeep,
        false => ValueError::Unwritable { type_name: std::any::type_name::<T>(), reason: error.to_string() },
    })
}

/// The value that all of `stream` makes up.
pub(super) fn read<T: DeserializeOwned>(stream: &[u8]) -> Result<T, ValueError> {
    let type_name = std::any::type_name::<T>();
    let (value, rest) = take(stream).map_err(|error| match error.is_too_deep() {
        true => ValueError::TooDeep,
        false => ValueError::Unreadable { type_name, reason: error.to_string() },
    })?;
    if rest.is_empty() { Ok(value) } else { Err(ValueError::TrailingBytes { type_name, extra: rest.len() }) }
}

/// The stream of a value that has nothing beside it, as a part of another stream to look for.
#[cfg(test)]
pub(crate) fn write_alone<T: Serialize + ?Sized>(value: &T) -> Result<Vec<u8>, Error> {
    let mut stream = Vec::new();
    value.serialize(&mut Writer::new(&mut stream))?;
    Ok(stream)
}
