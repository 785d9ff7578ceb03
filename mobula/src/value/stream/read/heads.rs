//! Reads the bytes of a stream: the head of each value, which has its kind and its length, and then its content.

use crate::value::stream::error::Error;
use crate::value::stream::marker;

/// Bytes that are read from the front. Each length is checked against the bytes that are left.
#[derive(Clone, Copy)]
pub(super) struct Heads<'de> {
    bytes: &'de [u8],
    /// The position of the first byte that has not been read.
    pub(super) at: usize,
}

/// The beginning of a value.
#[derive(Clone, Copy)]
pub(super) enum Head {
    Nil,
    Bool(bool),
    Unsigned(u64),
    Signed(i64),
    F32(f32),
    F64(f64),
    /// With their bytes to come.
    Text(usize),
    Binary(usize),
    Extension(u8, usize),
    /// With so many elements, or entries, to come.
    Array(usize),
    Map(usize),
}

impl<'de> Heads<'de> {
    pub(super) fn new(bytes: &'de [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    /// These bytes, from an earlier position on.
    pub(super) fn back_to(self, at: usize) -> Self {
        Self { at, ..self }
    }

    /// The bytes that have not been read.
    pub(super) fn rest(&self) -> &'de [u8] {
        &self.bytes[self.at..]
    }

    #[inline]
    pub(super) fn take(&mut self, length: usize) -> Result<&'de [u8], Error> {
        match self.rest().get(..length) {
            Some(taken) => {
                self.at += length;
                Ok(taken)
            }
            None => Err(self.cut_short(length)),
        }
    }

    #[cold]
    pub(super) fn cut_short(&self, wanted: usize) -> Error {
        let (at, left) = (self.at, self.rest().len());
        Error::new(format!(
            "the stream is cut short: {wanted} bytes should follow its byte {at}, but {left} do"
        ))
    }

    #[inline]
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], Error> {
        Ok(self.take(N)?.try_into().expect("as many as were taken"))
    }

    #[inline]
    fn short(&mut self) -> Result<usize, Error> {
        Ok(self.array::<1>()?[0].into())
    }

    #[inline]
    fn medium(&mut self) -> Result<usize, Error> {
        Ok(u16::from_be_bytes(self.array()?).into())
    }

    #[inline]
    fn long(&mut self) -> Result<usize, Error> {
        Ok(u32::from_be_bytes(self.array()?) as usize)
    }

    #[inline]
    pub(super) fn head(&mut self) -> Result<Head, Error> {
        Ok(match self.array::<1>()?[0] {
            byte @ 0..=0x7f => Head::Unsigned(byte.into()),
            byte @ 0x80..=0x8f => Head::Map((byte & 0x0f).into()),
            byte @ 0x90..=0x9f => Head::Array((byte & 0x0f).into()),
            byte @ 0xa0..=0xbf => Head::Text((byte & 0x1f).into()),
            byte @ 0xe0.. => Head::Signed((byte as i8).into()),
            marker::NIL => Head::Nil,
            marker::FALSE => Head::Bool(false),
            marker::TRUE => Head::Bool(true),
            marker::U8 => Head::Unsigned(u8::from_be_bytes(self.array()?).into()),
            marker::U16 => Head::Unsigned(u16::from_be_bytes(self.array()?).into()),
            marker::U32 => Head::Unsigned(u32::from_be_bytes(self.array()?).into()),
            marker::U64 => Head::Unsigned(u64::from_be_bytes(self.array()?)),
            marker::I8 => Head::Signed(i8::from_be_bytes(self.array()?).into()),
            marker::I16 => Head::Signed(i16::from_be_bytes(self.array()?).into()),
            marker::I32 => Head::Signed(i32::from_be_bytes(self.array()?).into()),
            marker::I64 => Head::Signed(i64::from_be_bytes(self.array()?)),
            marker::F32 => Head::F32(f32::from_be_bytes(self.array()?)),
            marker::F64 => Head::F64(f64::from_be_bytes(self.array()?)),
            marker::STR_8 => Head::Text(self.short()?),
            marker::STR_16 => Head::Text(self.medium()?),
            marker::STR_32 => Head::Text(self.long()?),
            marker::BIN_8 => Head::Binary(self.short()?),
            marker::BIN_16 => Head::Binary(self.medium()?),
            marker::BIN_32 => Head::Binary(self.long()?),
            marker::ARRAY_16 => Head::Array(self.medium()?),
            marker::ARRAY_32 => Head::Array(self.long()?),
            marker::MAP_16 => Head::Map(self.medium()?),
            marker::MAP_32 => Head::Map(self.long()?),
            byte @ marker::FIXEXT_1..=marker::FIXEXT_16 => self.extension(1 << (byte - marker::FIXEXT_1))?,
            marker::EXT_8 => {
                let length = self.short()?;
                self.extension(length)?
            }
            marker::EXT_16 => {
                let length = self.medium()?;
                self.extension(length)?
            }
            marker::EXT_32 => {
                let length = self.long()?;
                self.extension(length)?
            }
            byte => return Err(Error::new(format!("no value begins with the byte {byte:#04x}"))),
        })
    }

    fn extension(&mut self, length: usize) -> Result<Head, Error> {
        Ok(Head::Extension(self.array::<1>()?[0], length))
    }

    /// Text of so many bytes.
    #[inline]
    pub(super) fn text(&mut self, length: usize) -> Result<&'de str, Error> {
        let bytes = self.take(length)?;
        std::str::from_utf8(bytes).map_err(|error| Error::new(format!("text that is not UTF-8: {error}")))
    }

    /// Passes over a value, however deep.
    pub(super) fn skip(&mut self) -> Result<(), Error> {
        let mut left = 1u64;
        while left > 0 {
            left -= 1;
            match self.head()? {
                Head::Text(length) | Head::Binary(length) | Head::Extension(_, length) => {
                    self.take(length)?;
                }
                Head::Array(length) => left += length as u64,
                Head::Map(length) => left += 2 * length as u64,
                _ => {}
            }
        }
        Ok(())
    }
}
