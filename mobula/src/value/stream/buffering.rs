//! Finds the visitors that fill `serde`'s own buffer. `serde` buffers values for `untagged`, `flatten` and tagged
//! enums, and asks the format for any value, as a user's type may do, too. But buffered values are read a second time,
//! by types that the format does not see. So the format must know whether the visitor fills a buffer.
//!
//! These visitors are private. So we let `serde` show them: two enums of ours are read, once in a process, from a
//! deserializer that notes the types of its visitors and has no value.

use std::any::TypeId;
use std::sync::OnceLock;

use serde::de::{Deserialize, DeserializeSeed, Deserializer, Error as _, MapAccess, Visitor};

use super::Error;

/// Whether `V` puts the value that it visits, or the keys and values in it, into `serde`'s buffer.
pub(super) fn is_buffer<V>() -> bool {
    static VISITORS: OnceLock<Vec<TypeId>> = OnceLock::new();
    VISITORS.get_or_init(visitors).contains(&typeid::of::<V>())
}

fn visitors() -> Vec<TypeId> {
    #[derive(serde::Deserialize)]
    #[serde(untagged)]
    enum Untagged {
        Unit(()),
    }

    #[derive(serde::Deserialize)]
    #[serde(tag = "tag")]
    enum Tagged {
        Unit,
    }

    let mut visitors = Vec::new();
    let untagged = Untagged::deserialize(Notes { visitors: &mut visitors, is_key: false });
    let tagged = Tagged::deserialize(Notes { visitors: &mut visitors, is_key: false });
    debug_assert!(matches!((untagged, tagged), (Err(_), Err(_))));
    visitors
}

/// A map with a key that cannot be read, or that key. It notes the types of the visitors that are to read it.
struct Notes<'a> {
    visitors: &'a mut Vec<TypeId>,
    is_key: bool,
}

impl<'de> Deserializer<'de> for Notes<'_> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.visitors.push(typeid::of::<V>());
        if self.is_key { Err(Error::custom("there is no value")) } else { visitor.visit_map(self) }
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map struct enum identifier ignored_any
    }
}

impl<'de> MapAccess<'de> for Notes<'_> {
    type Error = Error;

    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        seed.deserialize(Notes { visitors: &mut *self.visitors, is_key: true }).map(Some)
    }

    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, _: T) -> Result<T::Value, Error> {
        Err(Error::custom("there is no value"))
    }
}
