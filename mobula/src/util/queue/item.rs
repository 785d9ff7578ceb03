//! An item in the queue's actor: small values are bytes, others are references to objects of the store. The actor
//! neither reads nor copies these objects.

use std::fmt;

use mobula_runtime::Written;
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::object_ref::ObjectRef;
use crate::value::{self, References};

/// The most bytes of a value that travels through the actor. Larger values, and values with references, stay in the
/// store.
const INLINE_BYTES_MAX: usize = 2048;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Item {
    /// A value's payload, and its tag.
    Inline(u32, Small),
    Stored(ObjectRef<Opaque>),
}

/// Stands for the type of a value that is not decoded.
#[derive(Debug)]
pub(super) struct Opaque;

impl Item {
    /// Encodes a value. A value that does not travel through the actor is put into the store.
    pub(super) fn new<T: Serialize>(value: &T) -> crate::Result<Self> {
        let mut bytes = Vec::with_capacity(128);
        if let Written::Whole { format } = value::append(value, &mut bytes)?
            && bytes.len() <= INLINE_BYTES_MAX
        {
            return Ok(Self::Inline(format, Small(bytes.into())));
        }
        Ok(Self::Stored(ObjectRef::new(crate::put(value)?.to)))
    }

    /// Decodes the value. A value in the store may borrow from it, if its type can.
    pub(super) fn value<T: DeserializeOwned>(self) -> crate::Result<T> {
        match self {
            Self::Inline(format, Small(bytes)) => {
                Ok(value::decode_borrowed(format, &bytes, References::Held(Vec::new()))?)
            }
            Self::Stored(object) => ObjectRef::new(object.to).get(),
        }
    }
}

/// A few bytes. Clones share them.
#[derive(Debug, Clone)]
pub(super) struct Small(bytes::Bytes);

impl Serialize for Small {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(&self.0)
    }
}

impl<'de> Deserialize<'de> for Small {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_bytes(SmallVisitor)
    }
}

struct SmallVisitor;

impl Visitor<'_> for SmallVisitor {
    type Value = Small;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the bytes of an item")
    }

    fn visit_bytes<E>(self, bytes: &[u8]) -> Result<Small, E> {
        Ok(Small(bytes::Bytes::copy_from_slice(bytes)))
    }

    fn visit_byte_buf<E>(self, bytes: Vec<u8>) -> Result<Small, E> {
        Ok(Small(bytes.into()))
    }
}
