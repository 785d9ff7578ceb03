//! From `serde`'s data model to the stream.

mod compound;

use std::fmt::Display;

use mobula_client::ObjectWriter;
use serde::ser::{self, Serialize, Serializer};

use self::compound::Compound;
use super::error::{Error, Step};
use super::numbers::{self, Number};
use super::read::take;
use super::{Extension, extension, marker};
use crate::value::buffer::Buffer;
use crate::value::context::{self, StoreRefused};
use mobula_runtime::stack::StackLimit;

/// Writes one value behind the bytes of `out`.
pub(super) struct Writer<'a> {
    out: &'a mut Vec<u8>,
    limit: StackLimit,
}

/// Lists of numbers, strings and binary of at least this size go beside the stream.
const BESIDE_BYTES_MIN: usize = 4096;

/// An array or a map.
#[derive(Clone, Copy)]
enum Kind {
    Array,
    Map,
}

/// An extension's marker, length and type, where its length is not known at first.
const EXT_HEAD_BYTES: usize = 6;
/// The bytes of the extension that stands for `Some`s around nil.
const SOME_BYTES: usize = 7;

/// Whether this many bytes go beside the stream.
fn goes_beside(bytes: usize) -> bool {
    bytes >= BESIDE_BYTES_MIN
}

impl<'a> Writer<'a> {
    pub(super) fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, limit: StackLimit::here() }
    }

    /// One level down.
    #[inline]
    fn deeper(&self) -> Result<(), Error> {
        if self.limit.is_reached() { Err(Error::too_deep()) } else { Ok(()) }
    }

    #[inline]
    fn put(&mut self, marker: u8, bytes: &[u8]) {
        self.out.push(marker);
        self.out.extend_from_slice(bytes);
    }

    #[inline]
    fn put_unsigned(&mut self, number: u64) {
        match number {
            0..=0x7f => self.out.push(number as u8),
            0x80..=0xff => self.put(marker::U8, &[number as u8]),
            0x100..=0xffff => self.put(marker::U16, &(number as u16).to_be_bytes()),
            0x1_0000..=0xffff_ffff => self.put(marker::U32, &(number as u32).to_be_bytes()),
            _ => self.put(marker::U64, &number.to_be_bytes()),
        }
    }

    #[inline]
    fn put_signed(&mut self, number: i64) {
        if number >= 0 {
            return self.put_unsigned(number as u64);
        }
        match number {
            -32.. => self.out.push(number as u8),
            -0x80.. => self.put(marker::I8, &[number as u8]),
            -0x8000.. => self.put(marker::I16, &(number as i16).to_be_bytes()),
            -0x8000_0000.. => self.put(marker::I32, &(number as i32).to_be_bytes()),
            _ => self.put(marker::I64, &number.to_be_bytes()),
        }
    }

    #[inline]
    fn put_text(&mut self, text: &str) -> Result<(), Error> {
        match text.len() {
            length @ 0..=31 => self.out.push(marker::FIXSTR | length as u8),
            length @ 32..=0xff => self.put(marker::STR_8, &[length as u8]),
            length @ 0x100..=0xffff => self.put(marker::STR_16, &(length as u16).to_be_bytes()),
            length => self.put(marker::STR_32, &wide(length)?),
        }
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    #[inline]
    fn put_length(&mut self, kind: Kind, length: usize) -> Result<(), Error> {
        let (short, medium, long) = match kind {
            Kind::Array => (marker::FIXARRAY, marker::ARRAY_16, marker::ARRAY_32),
            Kind::Map => (marker::FIXMAP, marker::MAP_16, marker::MAP_32),
        };
        match length {
            0..=15 => self.out.push(short | length as u8),
            16..=0xffff => self.put(medium, &(length as u16).to_be_bytes()),
            _ => self.put(long, &wide(length)?),
        }
        Ok(())
    }

    fn put_extension(&mut self, code: u8, data: &[u8]) -> Result<(), Error> {
        self.put_extension_head(code, data.len())?;
        self.out.extend_from_slice(data);
        Ok(())
    }

    fn put_extension_head(&mut self, code: u8, length: usize) -> Result<(), Error> {
        match length {
            0..=0xff => self.put(marker::EXT_8, &[length as u8]),
            0x100..=0xffff => self.put(marker::EXT_16, &(length as u16).to_be_bytes()),
            _ => self.put(marker::EXT_32, &wide(length)?),
        }
        self.out.push(code);
        Ok(())
    }

    /// Puts a copy of bytes into a buffer beside the stream, and its place into the stream.
    fn put_copy_beside(&mut self, code: u8, bytes: &[u8]) -> Result<(), Error> {
        let copy = match context::memory_for(bytes.len())? {
            Some(mut memory) => {
                mobula_client::internal::copy(&mut memory, bytes);
                Buffer::of_object(memory.seal())
            }
            None => Buffer::on_heap(bytes::Bytes::copy_from_slice(bytes)),
        };
        self.put_beside(code, &[], &copy)
    }

    /// Puts a buffer beside the stream, and its place into the stream.
    fn put_beside(&mut self, code: u8, before: &[u8], buffer: &Buffer) -> Result<(), Error> {
        let index = context::add_buffer(buffer)
            .ok_or_else(|| Error::new("nothing can go beside a stream that is no payload's"))?;
        self.put_extension_head(code, before.len() + size_of::<u32>())?;
        self.out.extend_from_slice(before);
        self.out.extend_from_slice(&index.to_le_bytes());
        Ok(())
    }

    /// The map of one entry that a variant with content is, up to its content.
    #[inline]
    fn put_variant(&mut self, variant: &str) -> Result<(), Error> {
        self.put_length(Kind::Map, 1)?;
        self.put_text(variant)
    }

    /// An extension with one value as its data.
    fn put_value_within<T: Serialize + ?Sized>(&mut self, code: u8, value: &T) -> Result<(), Error> {
        let start = self.out.len();
        self.out.extend_from_slice(&[marker::EXT_32, 0, 0, 0, 0, code]);
        context::invited(|| value.serialize(&mut *self))?;
        let length = wide(self.out.len() - start - EXT_HEAD_BYTES)?;
        self.out[start + 1..start + 5].copy_from_slice(&length);
        Ok(())
    }
}

/// A length as MessagePack's widest form has it.
fn wide(length: usize) -> Result<[u8; 4], Error> {
    let wide =
        u32::try_from(length).map_err(|_| Error::new(format!("a length of {length} is over 2^32 - 1")))?;
    Ok(wide.to_be_bytes())
}

impl<'w, 'a> Serializer for &'w mut Writer<'a> {
    type Ok = ();
    type Error = Error;
    type SerializeSeq = Compound<'w, 'a>;
    type SerializeTuple = Compound<'w, 'a>;
    type SerializeTupleStruct = Compound<'w, 'a>;
    type SerializeTupleVariant = Compound<'w, 'a>;
    type SerializeMap = Compound<'w, 'a>;
    type SerializeStruct = Compound<'w, 'a>;
    type SerializeStructVariant = Compound<'w, 'a>;

    #[inline]
    fn serialize_bool(self, value: bool) -> Result<(), Error> {
        self.out.push(if value { marker::TRUE } else { marker::FALSE });
        Ok(())
    }

    #[inline]
    fn serialize_i8(self, value: i8) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    #[inline]
    fn serialize_i16(self, value: i16) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    #[inline]
    fn serialize_i32(self, value: i32) -> Result<(), Error> {
        self.serialize_i64(value.into())
    }

    #[inline]
    fn serialize_i64(self, value: i64) -> Result<(), Error> {
        self.put_signed(value);
        Ok(())
    }

    fn serialize_i128(self, value: i128) -> Result<(), Error> {
        match (i64::try_from(value), u64::try_from(value)) {
            (Ok(value), _) => self.put_signed(value),
            (_, Ok(value)) => self.put_unsigned(value),
            _ => self.put_extension(extension::SIGNED, &value.to_le_bytes())?,
        }
        Ok(())
    }

    #[inline]
    fn serialize_u8(self, value: u8) -> Result<(), Error> {
        self.serialize_u64(value.into())
    }

    #[inline]
    fn serialize_u16(self, value: u16) -> Result<(), Error> {
        self.serialize_u64(value.into())
    }

    #[inline]
    fn serialize_u32(self, value: u32) -> Result<(), Error> {
        self.serialize_u64(value.into())
    }

    #[inline]
    fn serialize_u64(self, value: u64) -> Result<(), Error> {
        self.put_unsigned(value);
        Ok(())
    }

    fn serialize_u128(self, value: u128) -> Result<(), Error> {
        match i128::try_from(value) {
            Ok(value) => self.serialize_i128(value),
            Err(_) => self.put_extension(extension::UNSIGNED, &value.to_le_bytes()),
        }
    }

    #[inline]
    fn serialize_f32(self, value: f32) -> Result<(), Error> {
        self.put(marker::F32, &value.to_be_bytes());
        Ok(())
    }

    #[inline]
    fn serialize_f64(self, value: f64) -> Result<(), Error> {
        self.put(marker::F64, &value.to_be_bytes());
        Ok(())
    }

    fn serialize_char(self, value: char) -> Result<(), Error> {
        self.put_text(value.encode_utf8(&mut [0; 4]))
    }

    #[inline]
    fn serialize_str(self, value: &str) -> Result<(), Error> {
        if goes_beside(value.len()) {
            return self.put_copy_beside(extension::TEXT_BESIDE, value.as_bytes());
        }
        self.put_text(value)
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Error> {
        match value.len() {
            length if goes_beside(length) => return self.put_copy_beside(extension::BYTES_BESIDE, value),
            length @ 0..=0xff => self.put(marker::BIN_8, &[length as u8]),
            length @ 0x100..=0xffff => self.put(marker::BIN_16, &(length as u16).to_be_bytes()),
            length => self.put(marker::BIN_32, &wide(length)?),
        }
        self.out.extend_from_slice(value);
        Ok(())
    }

    #[inline]
    fn serialize_none(self) -> Result<(), Error> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Error> {
        self.deeper()?;
        let start = self.out.len();
        value.serialize(&mut *self)?;
        // A value that would be taken for `None`, or for fewer `Some`s than there are, gets their number.
        match self.out[start..] {
            [marker::NIL] => {
                self.out.truncate(start);
                self.put_extension(extension::SOME, &1u32.to_le_bytes())
            }
            [marker::EXT_8, 4, extension::SOME, a, b, c, d] => {
                let more = u32::from_le_bytes([a, b, c, d]).checked_add(1).ok_or_else(Error::too_deep)?;
                self.out.truncate(start + SOME_BYTES - size_of::<u32>());
                self.out.extend_from_slice(&more.to_le_bytes());
                Ok(())
            }
            _ => Ok(()),
        }
    }

    #[inline]
    fn serialize_unit(self) -> Result<(), Error> {
        self.out.push(marker::NIL);
        Ok(())
    }

    #[inline]
    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Error> {
        self.serialize_unit()
    }

    #[inline]
    fn serialize_unit_variant(self, _: &'static str, _: u32, variant: &'static str) -> Result<(), Error> {
        self.put_text(variant)
    }

    #[inline]
    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.deeper()?;
        match Extension::of_name(name) {
            Some(extension) => self.put_value_within(extension.code(), value),
            None => value.serialize(self),
        }
    }

    #[inline]
    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Error> {
        self.deeper()?;
        self.put_variant(variant)?;
        value
            .serialize(self)
            .map_err(|error| error.at(Step::Name(variant.into()), Some(std::any::type_name::<T>())))
    }

    #[inline]
    fn serialize_seq(self, length: Option<usize>) -> Result<Compound<'w, 'a>, Error> {
        Compound::begin(self, Kind::Array, length)
    }

    #[inline]
    fn serialize_tuple(self, length: usize) -> Result<Compound<'w, 'a>, Error> {
        Compound::begin(self, Kind::Array, Some(length))
    }

    #[inline]
    fn serialize_tuple_struct(self, _: &'static str, length: usize) -> Result<Compound<'w, 'a>, Error> {
        Compound::begin(self, Kind::Array, Some(length))
    }

    #[inline]
    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Compound<'w, 'a>, Error> {
        self.put_variant(variant)?;
        Ok(Compound::begin(self, Kind::Array, Some(length))?.of(variant))
    }

    #[inline]
    fn serialize_map(self, length: Option<usize>) -> Result<Compound<'w, 'a>, Error> {
        Compound::begin(self, Kind::Map, length)
    }

    #[inline]
    fn serialize_struct(self, _: &'static str, length: usize) -> Result<Compound<'w, 'a>, Error> {
        Compound::begin(self, Kind::Map, Some(length))
    }

    #[inline]
    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        length: usize,
    ) -> Result<Compound<'w, 'a>, Error> {
        self.put_variant(variant)?;
        Ok(Compound::begin(self, Kind::Map, Some(length))?.of(variant))
    }

    #[inline]
    fn collect_seq<I>(self, items: I) -> Result<(), Error>
    where
        I: IntoIterator,
        I::Item: Serialize,
    {
        match numbers::dispatch(items.into_iter(), Numbers { writer: self }) {
            Ok(written) => written,
            Err((items, Numbers { writer })) => {
                let length = match items.size_hint() {
                    (low, Some(high)) if low == high => Some(low),
                    _ => None,
                };
                let mut elements = writer.serialize_seq(length)?;
                for item in items {
                    ser::SerializeSeq::serialize_element(&mut elements, &item)?;
                }
                elements.finish()
            }
        }
    }

    fn collect_str<T: Display + ?Sized>(self, value: &T) -> Result<(), Error> {
        self.serialize_str(&value.to_string())
    }
}

/// Writes a list of numbers.
struct Numbers<'w, 'a> {
    writer: &'w mut Writer<'a>,
}

impl numbers::Receiver for Numbers<'_, '_> {
    type Output = Result<(), Error>;

    fn receive<N: Number>(self, numbers: impl Iterator<Item = N>) -> Result<(), Error> {
        let Self { writer } = self;
        let (low, high) = numbers.size_hint();
        let bytes = low.saturating_mul(size_of::<N>());
        if high != Some(low) || goes_beside(bytes) {
            let exact = if high == Some(low) { bytes } else { 0 };
            return match context::memory_for(exact)? {
                Some(memory) => writer.put_numbers_in(memory, numbers),
                None => writer.put_numbers(numbers.collect()),
            };
        }
        let start = writer.out.len();
        writer.put_extension_head(extension::NUMBERS, 1 + bytes)?;
        writer.out.push(N::CODE);
        let first = writer.out.len();
        writer.out.reserve(bytes);
        numbers.for_each(|number| writer.out.extend_from_slice(bytemuck::bytes_of(&number)));
        if writer.out.len() - first == bytes {
            return Ok(());
        }
        // There were more, or fewer, than the iterator said.
        let numbers = writer.out.split_off(first);
        writer.out.truncate(start);
        writer.put_extension_head(extension::NUMBERS, 1 + numbers.len())?;
        writer.out.push(N::CODE);
        writer.out.extend_from_slice(&numbers);
        Ok(())
    }
}

impl Writer<'_> {
    fn put_numbers<N: Number>(&mut self, numbers: Vec<N>) -> Result<(), Error> {
        let bytes = size_of_val(&numbers[..]);
        if goes_beside(bytes) {
            let buffer = Buffer::on_heap(bytes::Bytes::from_owner(AsBytes(numbers)));
            return self.put_beside(extension::NUMBERS_BESIDE, &[N::CODE], &buffer);
        }
        self.put_extension_head(extension::NUMBERS, 1 + bytes)?;
        self.out.push(N::CODE);
        self.out.extend_from_slice(bytemuck::cast_slice(&numbers));
        Ok(())
    }
}

impl Writer<'_> {
    /// Writes the numbers into `memory`, which has room for the announced number of them.
    fn put_numbers_in<N: Number>(
        &mut self,
        mut memory: ObjectWriter,
        mut numbers: impl Iterator<Item = N>,
    ) -> Result<(), Error> {
        let mut count = 0;
        for place in memory.chunks_exact_mut(size_of::<N>()) {
            let Some(number) = numbers.next() else { break };
            place.copy_from_slice(bytemuck::bytes_of(&number));
            count += 1;
        }
        let next = numbers.next();
        if count * size_of::<N>() == memory.len() && next.is_none() {
            return self.put_beside(extension::NUMBERS_BESIDE, &[N::CODE], &Buffer::of_object(memory.seal()));
        }
        // The iterator has more, or fewer, elements than it announced.
        let written = memory.chunks_exact(size_of::<N>()).take(count);
        let mut all: Vec<N> = written.map(bytemuck::pod_read_unaligned).collect();
        all.extend(next.into_iter().chain(numbers));
        self.put_numbers(all)
    }
}

impl From<StoreRefused> for Error {
    fn from(_: StoreRefused) -> Self {
        Self::new("the store has no memory for it")
    }
}

/// Numbers as the owner of their bytes.
struct AsBytes<N>(Vec<N>);

impl<N: Number> AsRef<[u8]> for AsBytes<N> {
    fn as_ref(&self) -> &[u8] {
        bytemuck::cast_slice(&self.0)
    }
}
