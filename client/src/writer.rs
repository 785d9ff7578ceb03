//! Writing an object: [`ObjectWriter`] gives writable store memory until the object is sealed.

use std::fmt;
use std::ops::{Deref, DerefMut};

use mobula_protocol::id::ObjectId;

use crate::draft::Draft;
use crate::error::ClientError;
use crate::object::{Handle, Object};
use crate::owner::Owner;

/// Length, format and references of an object that is to be made.
#[derive(Debug, Default)]
#[must_use]
pub struct Layout {
    length: u64,
    format: u32,
    references: Vec<Handle>,
}

impl Layout {
    /// An object with a payload of `length` bytes, of format 0 and without references.
    #[inline]
    pub fn new(length: u64) -> Self {
        Self { length, ..Self::default() }
    }

    /// The format tag of the payload, by which the makers and the readers of objects understand each other. Default: 0,
    /// for plain bytes.
    #[inline]
    pub fn format(mut self, format: u32) -> Self {
        self.format = format;
        self
    }

    /// Objects that it keeps alive for as long as it lives itself. Default: none.
    #[inline]
    pub fn references(mut self, references: Vec<Handle>) -> Self {
        self.references = references;
        self
    }
}

/// Store memory to write an object into, in place: derefs to `&mut [u8]`, 64-byte aligned.
///
/// At first the bytes are those that an earlier object of this client left there. No other process sees them before
/// [`seal`](Self::seal). A writer that is dropped unsealed frees its memory, and there is no object.
#[must_use]
pub struct ObjectWriter {
    draft: Draft,
}

impl ObjectWriter {
    #[inline]
    pub(crate) fn new(owner: &Owner, layout: Layout) -> Result<Self, ClientError> {
        let Layout { length, format, references } = layout;
        let references = references.into_iter().map(Handle::into_reference);
        Ok(Self { draft: Draft::new(owner, length, format, references)? })
    }

    /// The id that the object will have once it is sealed. Until then no process can get it.
    #[must_use]
    pub fn id(&self) -> ObjectId {
        self.draft.id()
    }

    /// Makes the object visible to every process, for good: one atomic store, at any size. No copy and no message.
    ///
    /// # Panics
    /// In a forked child, as all access to the bytes does.
    #[inline]
    pub fn seal(self) -> Object {
        let (reference, located) = self.draft.seal();
        Object::at(reference, located)
    }

    pub(crate) fn into_draft(self) -> Draft {
        self.draft
    }
}

impl Deref for ObjectWriter {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        &self.draft
    }
}

impl DerefMut for ObjectWriter {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.draft
    }
}

impl fmt::Debug for ObjectWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectWriter").field("id", &self.id()).field("bytes", &self.draft.length()).finish()
    }
}
