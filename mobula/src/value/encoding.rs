//! The buffers and references that a value puts beside its stream while it is written.

use mobula_client::{Handle, ObjectId};
use rustc_hash::FxHashMap;

use super::ValueError;
use super::buffer::Buffer;

/// The destination of a payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Destination {
    /// Other processes of the session: the payload may refer to objects of the store.
    Session,
    /// Unknown. The payload refers only to objects that the value itself refers to.
    Anywhere,
}

/// The parts of a payload that is being written, without its stream.
pub(super) struct Writing {
    pub(super) to: Destination,
    pub(super) beside: Beside,
    /// The error of the store that ends the writing.
    pub(super) refusal: Option<Box<ValueError>>,
}

impl Writing {
    pub(super) fn to(to: Destination) -> Self {
        Self { to, beside: None, refusal: None }
    }
}

/// The buffers and references beside a stream that is being written. Mostly there are none, which costs nothing.
pub(super) type Beside = Option<Box<Encoding>>;

/// The buffers and references beside a stream that is being written, where there are any.
#[derive(Default)]
pub(super) struct Encoding {
    /// In the order of their indices.
    buffers: Vec<Placed>,
    /// In the order of their positions, each object once.
    references: Vec<Handle>,
    /// By address, length, and whether it goes by reference: a buffer that several carriers share is written once. The
    /// same memory may go both ways: the offsets of an Arrow array, read from a copy, are not what the object has.
    buffer_indices: FxHashMap<(usize, usize, bool), u32>,
    reference_positions: FxHashMap<ObjectId, u32>,
}

/// A buffer, and in which object it lies already.
pub(super) struct Placed {
    pub(super) buffer: Buffer,
    /// Position among the references, and offset in that object.
    pub(super) external: Option<(u32, u64)>,
}

impl Encoding {
    /// The buffers in the order of their indices, the references in that of their positions.
    pub(super) fn into_parts(self) -> (Vec<Placed>, Vec<Handle>) {
        (self.buffers, self.references)
    }

    /// The index of a buffer, which is added unless it is there already.
    pub(super) fn add_buffer(&mut self, buffer: &Buffer) -> u32 {
        // Everything that was added is kept alive here, so the same address is the same memory.
        let region = buffer.region().filter(|_| !buffer.is_empty());
        let key = (buffer.as_ptr().addr(), buffer.len(), region.is_some());
        if let Some(&index) = self.buffer_indices.get(&key) {
            return index;
        }
        let index = self.buffers.len() as u32;
        let external = region.map(|region| {
            let offset = region.offset_of(buffer);
            (self.add_reference(region.handle()), offset)
        });
        self.buffers.push(Placed { buffer: buffer.clone(), external });
        self.buffer_indices.insert(key, index);
        index
    }

    /// The position of the handle's object among the references, where it is added unless it is there already.
    pub(super) fn add_reference(&mut self, handle: Handle) -> u32 {
        *self.reference_positions.entry(handle.id()).or_insert_with(|| {
            self.references.push(handle);
            self.references.len() as u32 - 1
        })
    }
}
