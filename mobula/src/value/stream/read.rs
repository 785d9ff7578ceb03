//! From the stream to `serde`'s data model.
//!
//! The stream comes from another process. Each length is checked against the bytes that are left before anything is
//! taken or promised for it.

mod access;
mod heads;

use serde::de::{Deserialize, Deserializer, Error as _, Unexpected, Visitor};

use self::access::{Entries, Items, Variant};
use self::heads::{Head, Heads};
use super::error::{Error, Step};
use super::{Extension, buffering, extension, marker, nested, numbers};
use crate::value::buffer::Buffer;
use crate::value::context;
use mobula_runtime::stack::StackLimit;

/// The value at the front of bytes, and the bytes behind it.
pub(super) fn take<'de, T: Deserialize<'de>>(bytes: &'de [u8]) -> Result<(T, &'de [u8]), Error> {
    let mut reader = Reader::new(bytes);
    let value = T::deserialize(&mut reader)?;
    Ok((value, reader.heads.rest()))
}

/// Room on the stack for each buffered level: code that does not check the stack goes through the level again.
const BUFFERED_LEVEL_BYTES: usize = 16 << 10;

/// Reads one value after the other.
pub(super) struct Reader<'de> {
    heads: Heads<'de>,
    limit: StackLimit,
    /// How many of the `Some`s around the next nil have been read already.
    somes: u32,
    /// Where the last key of a map began.
    key_at: Option<usize>,
    /// How many levels are read without knowing their types.
    buffered: usize,
}

impl<'de> Reader<'de> {
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Self { heads: Heads::new(bytes), limit: StackLimit::here(), somes: 0, key_at: None, buffered: 0 }
    }

    /// One level down.
    #[inline]
    fn deeper(&self) -> Result<(), Error> {
        if self.limit.is_within(self.buffered * BUFFERED_LEVEL_BYTES) {
            return Err(Error::too_deep());
        }
        Ok(())
    }

    /// Reads a value, as the type that the stream has.
    #[inline]
    fn value<V: Visitor<'de>>(&mut self, visitor: V) -> Result<V::Value, Error> {
        let start = self.heads.at;
        let head = self.heads.head()?;
        self.value_of(start, head, visitor)
    }

    /// Reads the value that began with `head`, at `start`.
    fn value_of<V: Visitor<'de>>(&mut self, start: usize, head: Head, visitor: V) -> Result<V::Value, Error> {
        match head {
            Head::Nil => visitor.visit_unit(),
            Head::Bool(value) => visitor.visit_bool(value),
            // An unsigned key would be taken for the number of a field, or of a variant.
            Head::Unsigned(value) if self.key_at == Some(start) => match i64::try_from(value) {
                Ok(value) => visitor.visit_i64(value),
                Err(_) => visitor.visit_u64(value),
            },
            Head::Unsigned(value) => visitor.visit_u64(value),
            Head::Signed(value) => visitor.visit_i64(value),
            Head::F32(value) => visitor.visit_f32(value),
            Head::F64(value) => visitor.visit_f64(value),
            Head::Text(length) => visitor.visit_borrowed_str(self.heads.text(length)?),
            Head::Binary(length) => visitor.visit_borrowed_bytes(self.heads.take(length)?),
            Head::Array(length) => {
                self.deeper()?;
                let mut items = Items { reader: self, left: length, index: 0 };
                let value = visitor.visit_seq(&mut items)?;
                match items.left {
                    0 => Ok(value),
                    left => Err(Error::new(format!("a list has {left} elements more than are read"))),
                }
            }
            Head::Map(length) => {
                self.deeper()?;
                let mut entries = Entries { reader: self, left: length, index: 0, key_start: 0 };
                let value = visitor.visit_map(&mut entries)?;
                match entries.left {
                    0 => Ok(value),
                    left => Err(Error::new(format!("a map has {left} entries more than are read"))),
                }
            }
            Head::Extension(code, length) => self.value_of_extension(start, code, length, visitor),
        }
    }

    /// Reads the value that began with `head`, but bytes become a list of numbers if they could be mistaken for text,
    /// or for an id.
    fn value_with_bytes_listed<V: Visitor<'de>>(
        &mut self,
        start: usize,
        head: Head,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match head {
            Head::Binary(length) => numbers::visit(b'B', self.heads.take(length)?, visitor),
            Head::Extension(extension::BYTES_BESIDE, length) => {
                let bytes = self.beside(length)?.copy_once();
                match std::str::from_utf8(&bytes) {
                    Ok(_) => numbers::visit(b'B', &bytes, visitor),
                    Err(_) => visitor.visit_byte_buf(bytes),
                }
            }
            head => self.value_of(start, head, visitor),
        }
    }

    fn value_of_extension<V: Visitor<'de>>(
        &mut self,
        start: usize,
        code: u8,
        length: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        match code {
            extension::SOME => {
                if self.some_is_next(start, length)? {
                    self.deeper()?;
                    return visitor.visit_some(self);
                }
                visitor.visit_unit()
            }
            extension::SIGNED => visitor.visit_i128(i128::from_le_bytes(self.data(length)?)),
            extension::UNSIGNED => visitor.visit_u128(u128::from_le_bytes(self.data(length)?)),
            extension::NUMBERS | extension::NUMBERS_BESIDE => {
                self.deeper()?;
                match self.numbers(code, length)? {
                    (code, Place::Stream(bytes)) => numbers::visit(code, bytes, visitor),
                    (code, Place::Buffer(buffer)) => numbers::visit(code, &buffer, visitor),
                }
            }
            extension::TEXT_BESIDE => {
                let bytes = self.beside(length)?.copy_once();
                let text = String::from_utf8(bytes);
                visitor.visit_string(
                    text.map_err(|error| {
                        Error::new(format!("text that is not UTF-8: {}", error.utf8_error()))
                    })?,
                )
            }
            extension::BYTES_BESIDE => visitor.visit_byte_buf(self.beside(length)?.copy_once()),
            extension::BUFFER | extension::REFERENCE | extension::TENSOR | extension::ARROW => {
                self.deeper()?;
                // Each has a form of its own, by which they are told apart in `serde`'s buffer.
                let data = self.heads.rest().get(..length).ok_or_else(|| self.heads.cut_short(length))?;
                let is_right = matches!(
                    (code, data),
                    (extension::BUFFER, [0..=0x7f | marker::U8..=marker::U64, ..])
                        | (extension::REFERENCE, [0x91, ..])
                        | (extension::TENSOR | extension::ARROW, [0x80..=0x8f, ..])
                );
                if !is_right {
                    return Err(Error::new(format!("an extension of type {code} with another value in it")));
                }
                let end = self.heads.at + length;
                let value = nested::visit(&mut *self, visitor)?;
                if self.heads.at == end {
                    return Ok(value);
                }
                Err(Error::new(format!("an extension of {length} bytes ends elsewhere than the value in it")))
            }
            _ => Err(Error::new(format!("an extension of the unknown type {code}"))),
        }
    }

    /// The data of an extension that has `N` bytes.
    fn data<const N: usize>(&mut self, length: usize) -> Result<[u8; N], Error> {
        if length != N {
            return Err(Error::new(format!("an extension of {length} bytes, where {N} belong")));
        }
        self.heads.array()
    }

    /// A buffer to be copied out, which an extension that began `length` bytes before its end names.
    fn beside(&mut self, length: usize) -> Result<Buffer, Error> {
        let index = u32::from_le_bytes(self.data(length)?);
        context::buffer_to_copy(index).map_err(context::refuse)
    }

    /// A list of numbers: of which kind, and where.
    fn numbers(&mut self, code: u8, length: usize) -> Result<(u8, Place<'de>), Error> {
        let [element] = self.heads.array()?;
        let Some(length) = length.checked_sub(1) else {
            return Err(Error::new("a list of numbers of no kind"));
        };
        let place = match code {
            extension::NUMBERS => Place::Stream(self.heads.take(length)?),
            _ => Place::Buffer(self.beside(length)?),
        };
        Ok((element, place))
    }

    /// Whether the value that began at `start`, nil inside of `Some`s, is one more `Some`. If so, it is counted;
    /// otherwise the value has been read.
    fn some_is_next(&mut self, start: usize, length: usize) -> Result<bool, Error> {
        let somes = u32::from_le_bytes(self.data(length)?);
        if self.somes < somes {
            self.somes += 1;
            self.heads.at = start;
            return Ok(true);
        }
        self.somes = 0;
        Ok(false)
    }

    /// The step to an entry, by its key.
    #[cold]
    fn step_to(&self, key_start: usize, index: usize) -> Step {
        let mut heads = self.heads.back_to(key_start);
        match heads.head() {
            Ok(Head::Text(length)) => match heads.text(length) {
                Ok(name) => Step::Name(name.to_owned().into()),
                Err(_) => Step::Index(index),
            },
            _ => Step::Index(index),
        }
    }
}

/// Whether the name of a newtype struct is a request to the format: our own, or a private one of a crate such as
/// `serde_json`. For these, the value is passed on as it was written. Other names that begin with `$` belong to users.
#[inline]
fn is_request(name: &str) -> bool {
    name.starts_with('$') && (Extension::of_name(name).is_some() || name.contains("private"))
}

/// Where bytes lie.
enum Place<'de> {
    Stream(&'de [u8]),
    Buffer(Buffer),
}

/// A number is passed on as the requested type if it fits, because some visitors accept no other type.
macro_rules! integers {
    ($($deserialize:ident $visit:ident $number:ty;)*) => {$(
        #[inline]
        fn $deserialize<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            let start = self.heads.at;
            let head = self.heads.head()?;
            let number = match head {
                Head::Unsigned(number) => <$number>::try_from(number).ok(),
                Head::Signed(number) => <$number>::try_from(number).ok(),
                _ => None,
            };
            match number {
                Some(number) => visitor.$visit(number),
                None => self.value_of(start, head, visitor),
            }
        }
    )*};
}

/// Values that are read as the type that the stream has.
macro_rules! values {
    ($($deserialize:ident($($parameter:ty),*);)*) => {$(
        #[inline]
        fn $deserialize<V: Visitor<'de>>(self, $(_: $parameter,)* visitor: V) -> Result<V::Value, Error> {
            self.value(visitor)
        }
    )*};
}

/// Lists, which may have been written as bytes.
macro_rules! lists {
    ($($deserialize:ident($($parameter:ty),*);)*) => {$(
        #[inline]
        fn $deserialize<V: Visitor<'de>>(self, $(_: $parameter,)* visitor: V) -> Result<V::Value, Error> {
            let start = self.heads.at;
            match self.heads.head()? {
                Head::Binary(length) => numbers::visit(b'B', self.heads.take(length)?, visitor),
                Head::Extension(extension::BYTES_BESIDE, length) => {
                    numbers::visit(b'B', &self.beside(length)?, visitor)
                }
                head => self.value_of(start, head, visitor),
            }
        }
    )*};
}

impl<'de> Deserializer<'de> for &mut Reader<'de> {
    type Error = Error;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.buffered += 1;
        let start = self.heads.at;
        let value = self.heads.head().and_then(|head| match head {
            Head::Binary(_) | Head::Extension(extension::BYTES_BESIDE, _) if buffering::is_buffer::<V>() => {
                self.value_with_bytes_listed(start, head, visitor)
            }
            head => self.value_of(start, head, visitor),
        });
        self.buffered -= 1;
        value
    }

    #[inline]
    fn deserialize_identifier<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let start = self.heads.at;
        match self.heads.head()? {
            Head::Text(length) => visitor.visit_borrowed_str(self.heads.text(length)?),
            head => self.value_with_bytes_listed(start, head, visitor),
        }
    }

    integers! {
        deserialize_i8 visit_i8 i8;
        deserialize_i16 visit_i16 i16;
        deserialize_i32 visit_i32 i32;
        deserialize_i64 visit_i64 i64;
        deserialize_i128 visit_i128 i128;
        deserialize_u8 visit_u8 u8;
        deserialize_u16 visit_u16 u16;
        deserialize_u32 visit_u32 u32;
        deserialize_u64 visit_u64 u64;
        deserialize_u128 visit_u128 u128;
    }

    values! {
        deserialize_bool();
        deserialize_f32();
        deserialize_f64();
        deserialize_str();
        deserialize_string();
        deserialize_unit();
        deserialize_unit_struct(&'static str);
        deserialize_map();
        deserialize_struct(&'static str, &'static [&'static str]);
    }

    lists! {
        deserialize_seq();
        deserialize_tuple(usize);
        deserialize_tuple_struct(&'static str, usize);
    }

    fn deserialize_char<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let start = self.heads.at;
        match self.heads.head()? {
            Head::Text(length) => {
                let text = self.heads.text(length)?;
                let mut letters = text.chars();
                match (letters.next(), letters.next()) {
                    (Some(letter), None) => visitor.visit_char(letter),
                    _ => visitor.visit_borrowed_str(text),
                }
            }
            head => self.value_of(start, head, visitor),
        }
    }

    fn deserialize_bytes<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let start = self.heads.at;
        match self.heads.head()? {
            Head::Extension(code @ (extension::NUMBERS | extension::NUMBERS_BESIDE), length) => {
                match self.numbers(code, length)? {
                    (b'B', Place::Stream(bytes)) => visitor.visit_borrowed_bytes(bytes),
                    (b'B', Place::Buffer(buffer)) => visitor.visit_byte_buf(buffer.copy_once()),
                    (code, Place::Stream(bytes)) => numbers::visit(code, bytes, visitor),
                    (code, Place::Buffer(buffer)) => numbers::visit(code, &buffer, visitor),
                }
            }
            head => self.value_of(start, head, visitor),
        }
    }

    fn deserialize_byte_buf<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.deserialize_bytes(visitor)
    }

    #[inline]
    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        let start = self.heads.at;
        match self.heads.head()? {
            Head::Nil => visitor.visit_none(),
            Head::Extension(extension::SOME, length) => {
                if self.some_is_next(start, length)? {
                    self.deeper()?;
                    return visitor.visit_some(self);
                }
                visitor.visit_none()
            }
            _ => {
                self.deeper()?;
                self.heads.at = start;
                visitor.visit_some(self)
            }
        }
    }

    #[inline]
    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deeper()?;
        if is_request(name) { self.value(visitor) } else { visitor.visit_newtype_struct(self) }
    }

    #[inline]
    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _: &'static str,
        _: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deeper()?;
        let start = self.heads.at;
        match self.heads.head()? {
            Head::Text(_) => {
                self.heads.at = start;
                visitor.visit_enum(Variant { reader: self, has_content: false })
            }
            Head::Map(1) => visitor.visit_enum(Variant { reader: self, has_content: true }),
            Head::Map(_) => Err(Error::invalid_value(
                Unexpected::Map,
                &"the name of a variant, or a map from it to its content",
            )),
            head => self.value_of(start, head, visitor),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        self.heads.skip()?;
        self.somes = 0;
        visitor.visit_unit()
    }
}
