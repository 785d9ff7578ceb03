//! A buffer in a value. Within an encoding, it goes beside the stream, and the stream holds its index. In any other
//! format, it is a plain byte string.

use std::fmt;

use serde::de::{self, Deserialize, Deserializer, SeqAccess, Visitor};
use serde::ser::{Serialize, Serializer};

use super::Buffer;
use crate::value::context;
use crate::value::stream::{self, Extension};

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
