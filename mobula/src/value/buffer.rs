//! The memory of all carriers: shared immutable bytes that know whether they lie in the store.

mod in_stream;

use std::ops::{Deref, RangeBounds};
use std::sync::Arc;

use mobula_client::{Object, ObjectId};

use super::copied::{Copied, Form};
use super::region::Region;

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

    /// Bytes of unknown origin: the store's, if they lie in a region that is borrowed.
    pub(super) fn found(bytes: bytes::Bytes) -> Self {
        Self::found_in(bytes, Form::Unchanged)
    }

    /// Bytes of unknown origin that are read in `form`, and may already be in it.
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
