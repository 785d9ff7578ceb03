//! The content of an extension, as `serde` sees it: within more newtypes than any type has around a number, a list or a
//! map.
//!
//! `serde` buffers values for `untagged`, `flatten` and tagged enums, and a newtype is the only thing in its data model
//! that a carrier can look like there. But a user's newtype struct takes one newtype off the buffered value. With only
//! one around the index of a buffer, `struct Id(u32)` would be read from it.

use std::fmt;
use std::marker::PhantomData;

use serde::de::value::{MapAccessDeserializer, SeqAccessDeserializer};
use serde::de::{self, Deserialize, Deserializer, IntoDeserializer, MapAccess, SeqAccess, Visitor};

/// How many newtypes there are. A type can have as many of its own around a carrier, less one.
const NEWTYPES: u32 = 8;

/// Hands `visitor` the value of `content`, within newtypes.
pub(super) fn visit<'de, D: Deserializer<'de>, V: Visitor<'de>>(
    content: D,
    visitor: V,
) -> Result<V::Value, D::Error> {
    Nested { content, left: NEWTYPES }.deserialize_any(visitor)
}

/// Reads the content of the newtypes that are left. In other formats there may be none.
pub(in super::super) fn content<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Deserialize<'de>,
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(Content(PhantomData))
}

struct Nested<D> {
    content: D,
    left: u32,
}

impl<'de, D: Deserializer<'de>> Deserializer<'de> for Nested<D> {
    type Error = D::Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, D::Error> {
        match self.left.checked_sub(1) {
            Some(left) => visitor.visit_newtype_struct(Nested { left, ..self }),
            None => self.content.deserialize_any(visitor),
        }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

struct Content<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for Content<T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("the content of an extension")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, deserializer: D) -> Result<T, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_u64<E: de::Error>(self, number: u64) -> Result<T, E> {
        T::deserialize(number.into_deserializer())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<T, A::Error> {
        T::deserialize(SeqAccessDeserializer::new(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<T, A::Error> {
        T::deserialize(MapAccessDeserializer::new(map))
    }
}
