//! Fields of messages as bytes: little-endian integers, and byte strings and lists with their length in front.

use std::fmt;

use bytes::{Buf, BufMut};

use crate::id::{ObjectId, OwnerId};
use crate::message::error::DecodeError;

/// A value that messages are made of.
pub(crate) trait Field: Sized + fmt::Debug {
    /// Appends the value's bytes.
    fn put(&self, out: &mut Vec<u8>);
    /// Takes the value from the front of the input.
    fn take(input: &mut &[u8]) -> Result<Self, DecodeError>;

    /// Shows the value to people.
    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }

    /// Shows a list of such fields.
    fn show_list(list: &[Self], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(list, f)
    }
}

/// A field whose `Debug` is for people: a list of bytes is a name, which is shown as text.
pub(crate) struct Shown<'a, T>(pub(crate) &'a T);

impl<T: Field> fmt::Debug for Shown<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.show(f)
    }
}

/// Shows bytes as text if they are UTF-8, else as a byte string with escapes.
fn show_bytes(bytes: &[u8], f: &mut fmt::Formatter<'_>) -> fmt::Result {
    match std::str::from_utf8(bytes) {
        Ok(text) => fmt::Debug::fmt(text, f),
        Err(_) => write!(f, "b\"{}\"", bytes.escape_ascii()),
    }
}

macro_rules! integers {
    ($($type:ty, $put:ident, $take:ident;)*) => {$(
        impl Field for $type {
            fn put(&self, out: &mut Vec<u8>) {
                out.$put(*self);
            }
            fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
                input.$take().map_err(|_| DecodeError::Truncated)
            }
        }
    )*};
}

integers! {
    u16, put_u16_le, try_get_u16_le;
    u32, put_u32_le, try_get_u32_le;
    u64, put_u64_le, try_get_u64_le;
}

impl Field for u8 {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(*self);
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        input.try_get_u8().map_err(|_| DecodeError::Truncated)
    }

    fn show_list(list: &[Self], f: &mut fmt::Formatter<'_>) -> fmt::Result {
        show_bytes(list, f)
    }
}

impl Field for bool {
    fn put(&self, out: &mut Vec<u8>) {
        out.put_u8(u8::from(*self));
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        match u8::take(input)? {
            0 => Ok(false),
            1 => Ok(true),
            other => Err(DecodeError::BadField { field: "bool", value: u64::from(other) }),
        }
    }
}

impl Field for OwnerId {
    fn put(&self, out: &mut Vec<u8>) {
        self.bits().put(out);
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        u64::take(input).map(OwnerId::from_bits)
    }
}

impl Field for ObjectId {
    fn put(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.to_bytes());
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let (bytes, rest) = input.split_first_chunk().ok_or(DecodeError::Truncated)?;
        *input = rest;
        Ok(ObjectId::from_bytes(*bytes))
    }
}

impl<T: Field> Field for Option<T> {
    fn put(&self, out: &mut Vec<u8>) {
        self.is_some().put(out);
        if let Some(value) = self {
            value.put(out);
        }
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        Ok(if bool::take(input)? { Some(T::take(input)?) } else { None })
    }
}

impl<T: Field> Field for Vec<T> {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        for item in self {
            item.put(out);
        }
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let count = u32::take(input)? as usize;
        // Every item takes a byte at least, so a forged length cannot reserve more than the input has.
        if count > input.len() {
            return Err(DecodeError::Truncated);
        }
        (0..count).map(|_| T::take(input)).collect()
    }

    fn show(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        T::show_list(self, f)
    }
}

impl Field for String {
    fn put(&self, out: &mut Vec<u8>) {
        (self.len() as u32).put(out);
        out.extend_from_slice(self.as_bytes());
    }

    fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
        let bytes = Vec::<u8>::take(input)?;
        String::from_utf8(bytes).map_err(|_| DecodeError::NotText)
    }
}
