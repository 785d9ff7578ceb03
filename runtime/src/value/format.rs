//! The tags that tell how an object's bytes are to be read. The store keeps a tag beside each object and never looks
//! at it, so that another language can know what it may read before it maps anything.
//!
//! The numbers are part of the language between processes: they may be added to, and never change their meaning.

/// Plain bytes without any structure: what `Client::put` and the writable carriers make. Decodes as
/// [`Bytes`](super::Bytes), and as nothing else.
pub const RAW: u32 = 0;

/// A payload, as the table in the [module's](super) documentation lays it out.
pub const VALUE: u32 = 1;

/// A payload whose value is the error that stands in for a task's result.
pub const ERROR: u32 = 2;

/// The object has no value of its own: it stands for another object, its only reference.
pub const FORWARD: u32 = 3;
