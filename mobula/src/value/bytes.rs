//! The carrier of plain bytes.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::{Deref, RangeBounds};

use mobula_client::{Object, ObjectId};
use serde::{Deserialize, Serialize};

use super::buffer::Buffer;

/// Shared immutable bytes that travel beside the stream: an aligned copy when they come from the heap, a reference
/// when they lie in the store. A `Vec<u8>` is copied when it is read, too.
///
/// Cloning, slicing and reading copy nothing. Bytes that were read from the store stay in it, and keep their object
/// alive and mapped.
///
/// They do not change, unless the process that wrote them is faulty and writes into sealed objects. Then only their
/// values change. If a check of them must stay true, for example that they are text, copy them first
/// (`String::from_utf8(bytes.to_vec())`, not `str::from_utf8(&bytes)`).
///
/// ```
/// use mobula::value::Bytes;
///
/// let bytes = Bytes::from(vec![1, 2, 3]);
/// assert_eq!(&bytes.slice(1..)[..], [2, 3]);
/// assert_eq!(bytes.object_id(), None); // not in the store
/// ```
#[derive(Clone, Default, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Bytes(pub(super) Buffer);

impl Bytes {
    /// No bytes.
    ///
    /// ```
    /// assert!(mobula::value::Bytes::new().is_empty());
    /// ```
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A part of these bytes, sharing their memory: nothing is copied, and the part keeps all of the memory alive.
    ///
    /// ```
    /// let bytes = mobula::value::Bytes::from(vec![1, 2, 3, 4]);
    /// assert_eq!(&bytes.slice(1..3)[..], [2, 3]);
    /// ```
    ///
    /// # Panics
    ///
    /// If the range does not lie within them.
    #[must_use]
    pub fn slice(&self, range: impl RangeBounds<usize>) -> Self {
        Self(self.0.slice(range))
    }

    /// The object of the store that the bytes lie in, or were copied from when they were read, all of it or a part.
    /// `None` for bytes on the heap.
    ///
    /// ```
    /// use mobula::value::{Bytes, BytesMut};
    ///
    /// let _mobula = mobula::init()?;
    /// assert!(BytesMut::create(8)?.seal().object_id().is_some());
    /// assert!(Bytes::from(vec![0; 8]).object_id().is_none());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn object_id(&self) -> Option<ObjectId> {
        self.0.object_id()
    }
}

impl Deref for Bytes {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for Bytes {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl From<Vec<u8>> for Bytes {
    /// Takes the vector's memory over.
    fn from(bytes: Vec<u8>) -> Self {
        Self(Buffer::on_heap(bytes.into()))
    }
}

impl From<&'static [u8]> for Bytes {
    fn from(bytes: &'static [u8]) -> Self {
        Self(Buffer::on_heap(bytes.into()))
    }
}

impl From<bytes::Bytes> for Bytes {
    /// Shares the memory. Bytes of the store are recognised.
    fn from(bytes: bytes::Bytes) -> Self {
        Self(Buffer::found(bytes))
    }
}

impl From<Bytes> for bytes::Bytes {
    /// Shares the memory.
    fn from(bytes: Bytes) -> Self {
        bytes.0.into_bytes()
    }
}

#[cfg(feature = "arrow")]
impl From<crate::arrow::buffer::Buffer> for Bytes {
    /// Shares the memory. Bytes of the store are recognised.
    fn from(buffer: crate::arrow::buffer::Buffer) -> Self {
        Self(Buffer::found(bytes::Bytes::from_owner(buffer)))
    }
}

#[cfg(feature = "arrow")]
impl From<Bytes> for crate::arrow::buffer::Buffer {
    /// Shares the memory.
    fn from(bytes: Bytes) -> Self {
        bytes.0.into_bytes().into()
    }
}

impl From<Object> for Bytes {
    /// All bytes of an object of any format, where they lie.
    fn from(object: Object) -> Self {
        Self(Buffer::of_object(object))
    }
}

impl PartialEq for Bytes {
    fn eq(&self, other: &Self) -> bool {
        self[..] == other[..]
    }
}

impl Eq for Bytes {}

impl Hash for Bytes {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self[..].hash(state);
    }
}

impl fmt::Debug for Bytes {
    /// Shows the length and the object. The bytes are left out, because they may be gigabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bytes").field("length", &self.len()).field("object_id", &self.object_id()).finish()
    }
}
