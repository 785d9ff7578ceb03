//! Lists, maps and variants that are being read.

use serde::de::{
    self, DeserializeSeed, Deserializer, EnumAccess, Error as _, MapAccess, SeqAccess, Unexpected,
    VariantAccess, Visitor,
};

use super::Reader;
use crate::value::stream::error::{Error, Step};

/// An array being read.
pub(super) struct Items<'r, 'de> {
    pub(super) reader: &'r mut Reader<'de>,
    pub(super) left: usize,
    pub(super) index: usize,
}

impl<'de> SeqAccess<'de> for Items<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_element_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<Option<T::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        self.index += 1;
        let value = seed.deserialize(&mut *self.reader);
        value
            .map(Some)
            .map_err(|error| error.at(Step::Index(self.index - 1), Some(std::any::type_name::<T::Value>())))
    }

    /// No more than there are bytes for.
    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(self.reader.heads.rest().len()))
    }
}

/// A map being read.
pub(super) struct Entries<'r, 'de> {
    pub(super) reader: &'r mut Reader<'de>,
    pub(super) left: usize,
    pub(super) index: usize,
    pub(super) key_start: usize,
}

impl<'de> MapAccess<'de> for Entries<'_, 'de> {
    type Error = Error;

    #[inline]
    fn next_key_seed<K: DeserializeSeed<'de>>(&mut self, seed: K) -> Result<Option<K::Value>, Error> {
        let Some(left) = self.left.checked_sub(1) else { return Ok(None) };
        self.left = left;
        self.index += 1;
        self.key_start = self.reader.heads.at;
        self.reader.key_at = Some(self.key_start);
        let key = seed.deserialize(&mut *self.reader);
        key.map(Some).map_err(|error| error.at(Step::Index(self.index - 1), None))
    }

    #[inline]
    fn next_value_seed<T: DeserializeSeed<'de>>(&mut self, seed: T) -> Result<T::Value, Error> {
        let value = seed.deserialize(&mut *self.reader);
        value.map_err(|error| {
            let step = self.reader.step_to(self.key_start, self.index.saturating_sub(1));
            error.at(step, Some(std::any::type_name::<T::Value>()))
        })
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.left.min(self.reader.heads.rest().len()))
    }
}

/// A variant being read: its name, and then its content.
pub(super) struct Variant<'r, 'de> {
    pub(super) reader: &'r mut Reader<'de>,
    pub(super) has_content: bool,
}

impl<'r, 'de> EnumAccess<'de> for Variant<'r, 'de> {
    type Error = Error;
    type Variant = Self;

    #[inline]
    fn variant_seed<V: DeserializeSeed<'de>>(self, seed: V) -> Result<(V::Value, Self), Error> {
        let name = seed.deserialize(&mut *self.reader)?;
        Ok((name, self))
    }
}

impl Variant<'_, '_> {
    fn content(&self, expected: &dyn de::Expected) -> Result<(), Error> {
        if self.has_content { Ok(()) } else { Err(Error::invalid_type(Unexpected::UnitVariant, expected)) }
    }
}

impl<'de> VariantAccess<'de> for Variant<'_, 'de> {
    type Error = Error;

    #[inline]
    fn unit_variant(self) -> Result<(), Error> {
        if self.has_content { de::Deserialize::deserialize(self.reader) } else { Ok(()) }
    }

    #[inline]
    fn newtype_variant_seed<T: DeserializeSeed<'de>>(self, seed: T) -> Result<T::Value, Error> {
        self.content(&"a variant with a value")?;
        seed.deserialize(self.reader)
    }

    #[inline]
    fn tuple_variant<V: Visitor<'de>>(self, length: usize, visitor: V) -> Result<V::Value, Error> {
        self.content(&"a variant with values")?;
        self.reader.deserialize_tuple(length, visitor)
    }

    #[inline]
    fn struct_variant<V: Visitor<'de>>(
        self,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.content(&"a variant with fields")?;
        self.reader.deserialize_struct("", fields, visitor)
    }
}
