//! An item of a queue as the queue's actor has it: small values as bytes, others as references to objects of the store,
//! which the actor neither reads nor copies.

use std::fmt;

use mobula_runtime::Written;
use serde::de::{DeserializeOwned, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::object_ref::ObjectRef;
use crate::value::{self, References};

/// Values of so many bytes travel through the actor; larger ones, and those with references, stay in the store.
const INLINE_BYTES_MAX: usize = 2048;

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(super) enum Item {
    /// A value's payload, and its tag.
    Inline(u32, Small),
    Stored(ObjectRef<Opaque>),
}

/// Stands for the type of a value that is not looked at.
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

    /// The value. That of an object borrows from the store where its type does.
    pub(super) fn value<T: DeserializeOwned>(self) -> crate::Result<T> {
        match self {
            Self::Inline(format, Small(bytes)) => {
                Ok(value::decode_lent(format, &bytes, References::Held(Vec::new()))?)
            }
            Self::Stored(object) => ObjectRef::new(object.to).get(),
        }
    }
}

/// A few bytes, whose clones share them.
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
