//! The tags that tell how an object's bytes are to be read. The store keeps a tag beside each object and never looks
//! at it, so that another language can know what it may read before it maps anything. A value that travels in a record has
//! its tag there, and takes it along when it moves to the store.
//!
//! A tag says what the bytes are, not which language wrote them: [`PLAIN`], [`TENSOR`] and [`ARROW`] are read by every
//! language. The name of the Rust type in a payload is only a check.
//!
//! The numbers are part of the language between processes: they may be added to, and never change their meaning. They fit
//! 16 bits.

/// Plain bytes without any structure: what `Client::put` and the writable carriers make. Decodes as
/// bytes, and as nothing else.
pub const RAW: u32 = 0;

/// A payload as `mobula::value` lays it out: numbers, text, bytes, lists, maps, structs, with arrays and references anywhere
/// in them.
pub const PLAIN: u32 = 1;

/// The error that stands in for a task's result: a [`Failure`](crate::Failure), as the core writes it.
pub const RAISED: u32 = 2;

/// The object has no value of its own: it stands for another object, its only reference.
pub const FORWARD: u32 = 3;

/// A payload as [`PLAIN`], and all of it is one tensor.
pub const TENSOR: u32 = 4;

/// A payload as [`PLAIN`], and all of it is Arrow data.
pub const ARROW: u32 = 5;

/// A pickle of Python's. Rust refuses it.
pub const PYTHON: u32 = 6;

/// Whether what has the tag is a payload.
pub fn is_payload(format: u32) -> bool {
    matches!(format, PLAIN | TENSOR | ARROW)
}

/// What the tag says, for people.
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
