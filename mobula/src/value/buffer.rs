//! The memory of all carriers: shared immutable bytes that know whether they lie in the store.
//!
//! Within an encoding a buffer goes beside the stream, which holds its index; anywhere else it is a plain byte string.

use std::fmt;
use std::ops::{Deref, RangeBounds};
use std::sync::Arc;

use mobula_client::{Object, ObjectId};
use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::context;
use super::copied::{Copied, Form};
use super::region::Region;
use super::stream::{self, Extension};

/// Shared bytes. Cloning and slicing copy nothing.
#[derive(Clone, Default)]
pub(super) struct Buffer {
    bytes: bytes::Bytes,
    /// The object that the bytes lie in, or are a copy of a part of.
    region: Option<Arc<Region>>,
}

impl Buffer {
    /// Bytes on the heap, known not to lie in the store.
    pub(super) fn on_heap(bytes: bytes::Bytes) -> Self {
        Self { bytes, region: None }
    }

    /// All bytes of an object.
    pub(super) fn of_object(object: Object) -> Self {
        let region = Region::of(object);
        Self { bytes: region.bytes(), region: Some(region) }
    }

    /// Bytes of unknown origin: the store's, if they lie in a region that is lent out.
    pub(super) fn found(bytes: bytes::Bytes) -> Self {
        Self::found_in(bytes, Form::Unchanged)
    }

    /// The same for bytes that may be in `form` already, and that are read in it.
    pub(super) fn found_in(bytes: bytes::Bytes, form: Form) -> Self {
        let region = Region::find(&bytes, form);
        Self { bytes, region }
    }

    /// These bytes in `form`, in memory that no other process can write: a check of them stays true. If they lie in the
    /// store, this is a copy, which travels as a reference to the object that it was made of.
    pub(super) fn copied_out(self, form: Form) -> Self {
        match &self.region {
            Some(region) if region.is_shared() && !self.bytes.is_empty() => {
                let copy = region.copy_of(&self.bytes, form);
                Self { bytes: copy.bytes(), region: Some(copy) }
            }
            _ if form.is_of(&self.bytes) => self,
            _ => Self::on_heap(bytes::Bytes::from_owner(Copied::of(&self.bytes, form))),
        }
    }

    /// A part of these bytes.
    ///
    /// # Panics
    ///
    /// If the range does not lie within them.
    pub(super) fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        Self { bytes: self.bytes.slice(range), region: self.region.clone() }
    }

    /// The object that the bytes lie in, if it is one of this session's store.
    pub(super) fn region(&self) -> Option<&Arc<Region>> {
        self.region.as_ref().filter(|region| region.is_current())
    }

    pub(super) fn object_id(&self) -> Option<ObjectId> {
        self.region.as_ref().map(|region| region.id())
    }

    /// A copy that no other process can change.
    pub(super) fn copy_once(&self) -> Vec<u8> {
        let mut copy = vec![0; self.len()];
        mobula_client::internal::copy_once(&mut copy, self);
        copy
    }

    pub(super) fn into_bytes(self) -> bytes::Bytes {
        self.bytes
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Serialize for Buffer {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_newtype_struct(Extension::Buffer.name(), &Content(self))
    }
}

struct Content<'a>(&'a Buffer);

impl Serialize for Content<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match context::take_invitation().then(|| context::add_buffer(self.0)).flatten() {
            Some(index) => serializer.serialize_u32(index),
            None => serializer.serialize_bytes(self.0),
        }
    }
}

impl<'de> Deserialize<'de> for Buffer {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // The stream, and the parts of it that `serde` has buffered, describe themselves. A binary format must be asked
        // for bytes.
        if deserializer.is_human_readable() {
            deserializer.deserialize_any(BesideOrInLine)
        } else {
            deserializer.deserialize_byte_buf(BesideOrInLine)
        }
    }
}

/// Reads the index of a buffer, or a byte string. Only a payload's stream has an index within newtypes. Some formats
/// have only lists of numbers for byte strings.
struct BesideOrInLine;

impl<'de> Visitor<'de> for BesideOrInLine {
    type Value = Buffer;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<Buffer, D::Error> {
        let index = stream::content(deserializer)?;
        context::buffer(index).map_err(context::refuse)
    }

    fn visit_bytes<E: de::Error>(self, bytes: &[u8]) -> Result<Buffer, E> {
        self.visit_byte_buf(bytes.to_vec())
    }

    fn visit_byte_buf<E: de::Error>(self, bytes: Vec<u8>) -> Result<Buffer, E> {
        Ok(Buffer::on_heap(bytes.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut numbers: A) -> Result<Buffer, A::Error> {
        let mut bytes = Vec::new();
        while let Some(byte) = numbers.next_element()? {
            bytes.push(byte);
        }
        self.visit_byte_buf(bytes)
    }
}
