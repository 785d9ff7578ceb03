//! Format tags: how the bytes of an object or a payload are encoded. The store keeps a tag beside each object and never
//! interprets it. From the tag, another language knows whether it can read the object before it maps it. A value in a
//! record has its tag there, and keeps it when it moves to the store.
//!
//! A tag says what the bytes are, not which language wrote them: every language can read [`PLAIN`], [`TENSOR`] and
//! [`ARROW`]. The name of the Rust type in a payload is only a check.
//!
//! A tag with the highest bit is one of `mobula.plasma`, the Python package's API of Arrow's Plasma: plain bytes that
//! end with metadata. The other bits give the length of the metadata.
//!
//! The numbers are part of the protocol between processes: numbers may be added, but a number never changes its
//! meaning. Those of values fit 16 bits.
//!
//! ```
//! use mobula::value::{Tensor, encode, format};
//!
//! assert_eq!(encode(&Tensor::from(vec![1, 2]))?.format(), format::TENSOR);
//! assert_eq!(encode(&vec![1, 2])?.format(), format::PLAIN);
//! # Ok::<(), mobula::value::ValueError>(())
//! ```

/// Plain bytes without any structure, as `Client::put` and the writable carriers make them. They decode only as bytes.
pub const RAW: u32 = 0;

/// A payload as `mobula::value` lays it out: numbers, text, bytes, lists, maps, structs, with arrays and references
/// anywhere in them.
pub const PLAIN: u32 = 1;

/// The error in place of a task's result: a [`Failure`](crate::Failure), as the core encodes it.
pub const RAISED: u32 = 2;

/// The object has no value of its own: it stands for another object, its only reference.
pub const FORWARD: u32 = 3;

/// A payload like [`PLAIN`] that consists of one tensor.
pub const TENSOR: u32 = 4;

/// A payload like [`PLAIN`] that consists of Arrow data.
pub const ARROW: u32 = 5;

/// A pickle of Python's. Rust refuses it.
pub const PYTHON: u32 = 6;

/// Whether an object with the tag is a payload, which `mobula::value::decode` reads as any type.
///
/// ```
/// use mobula::value::format;
///
/// assert!(format::is_payload(format::TENSOR));
/// assert!(!format::is_payload(format::RAW));
/// ```
#[must_use]
pub fn is_payload(format: u32) -> bool {
    matches!(format, PLAIN | TENSOR | ARROW)
}

/// The meaning of the tag, for messages.
///
/// ```
/// use mobula::value::format;
///
/// assert_eq!(format::shown(format::RAISED), "an error");
/// ```
#[must_use]
pub fn shown(format: u32) -> &'static str {
    match format {
        RAW => "plain bytes",
        PLAIN => "a value",
        RAISED => "an error",
        FORWARD => "a reference to another object",
        TENSOR => "a tensor",
        ARROW => "Arrow data",
        PYTHON => "a Python pickle",
        _ => "of a kind that this version does not know",
    }
}
