//! The stream of a payload: [postcard], a compact `serde` format whose numbers are variable-length integers.
//!
//! postcard follows a value as deep as it goes, and a few bytes for each level are enough to go deeper than any stack.
//! So whoever takes or gives a byte looks at how much of the stack is left: a type that can nest without end takes at
//! least one byte for each level.

use std::cell::Cell;

use postcard::{de_flavors, ser_flavors};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use super::{ValueError, context};
use crate::stack::StackLimit;

/// Appends the stream of `value`. What an error leaves behind is for the caller to cut off.
pub(super) fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), ValueError> {
    let too_deep = Cell::new(false);
    let growing = Growing { out, limit: StackLimit::here(), too_deep: &too_deep };
    postcard::serialize_with_flavor(value, growing).map_err(|error| match too_deep.get() {
        true => ValueError::TooDeep,
        false => ValueError::Unwritable { type_name: std::any::type_name::<T>(), reason: error.to_string() },
    })
}

/// The value that all of `stream` makes up.
pub(super) fn read<T: DeserializeOwned>(stream: &[u8]) -> Result<T, ValueError> {
    let type_name = std::any::type_name::<T>();
    let (value, rest) =
        take(stream).map_err(|error| ValueError::Unreadable { type_name, reason: error.to_string() })?;
    if rest.is_empty() { Ok(value) } else { Err(ValueError::TrailingBytes { type_name, extra: rest.len() }) }
}

/// The value at the front of bytes that come from another process, and what is behind it.
pub(crate) fn take<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> postcard::Result<(T, &'de [u8])> {
    let flavor = Limited { bytes: de_flavors::Slice::new(bytes), limit: StackLimit::here() };
    let mut deserializer = postcard::Deserializer::from_flavor(flavor);
    Ok((T::deserialize(&mut deserializer)?, deserializer.finalize()?))
}

/// postcard's own flavor for vectors extends them byte by byte.
struct Growing<'a> {
    out: &'a mut Vec<u8>,
    limit: StackLimit,
    too_deep: &'a Cell<bool>,
}

impl ser_flavors::Flavor for Growing<'_> {
    type Output = ();

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        if self.limit.is_reached() {
            self.too_deep.set(true);
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.out.extend_from_slice(bytes);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        if self.limit.is_reached() {
            self.too_deep.set(true);
            return Err(postcard::Error::SerializeBufferFull);
        }
        self.out.push(byte);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}

/// postcard's own flavor for slices, with a look at the stack.
struct Limited<'de> {
    bytes: de_flavors::Slice<'de>,
    limit: StackLimit,
}

impl<'de> de_flavors::Flavor<'de> for Limited<'de> {
    type Remainder = &'de [u8];
    type Source = &'de [u8];

    #[inline]
    fn pop(&mut self) -> postcard::Result<u8> {
        if self.limit.is_reached() {
            return Err(context::refuse(ValueError::TooDeep));
        }
        self.bytes.pop()
    }

    #[inline]
    fn size_hint(&self) -> Option<usize> {
        self.bytes.size_hint()
    }

    /// Comes after a length, so the stack has been looked at.
    #[inline]
    fn try_take_n(&mut self, count: usize) -> postcard::Result<&'de [u8]> {
        self.bytes.try_take_n(count)
    }

    fn finalize(self) -> postcard::Result<&'de [u8]> {
        self.bytes.finalize()
    }
}
