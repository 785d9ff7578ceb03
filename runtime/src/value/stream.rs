//! The stream of a payload: [postcard], a compact `serde` format whose numbers are variable-length integers.

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;

use super::ValueError;

/// A stream; most are short.
pub(super) type Stream = SmallVec<[u8; 64]>;

/// The stream of `value`.
pub(super) fn write<T: Serialize + ?Sized>(value: &T) -> Result<Stream, ValueError> {
    let stream = Growing(Stream::new());
    postcard::serialize_with_flavor(value, stream).map_err(|error| ValueError::Unwritable {
        type_name: std::any::type_name::<T>(),
        reason: error.to_string(),
    })
}

/// The value that all of `stream` makes up.
pub(super) fn read<T: DeserializeOwned>(stream: &[u8]) -> Result<T, ValueError> {
    let type_name = std::any::type_name::<T>();
    let (value, rest) = postcard::take_from_bytes(stream)
        .map_err(|error| ValueError::Unreadable { type_name, reason: error.to_string() })?;
    if rest.is_empty() { Ok(value) } else { Err(ValueError::TrailingBytes { type_name, extra: rest.len() }) }
}

/// postcard's own flavor for vectors extends them byte by byte, and always on the heap.
struct Growing(Stream);

impl Flavor for Growing {
    type Output = Stream;

    #[inline]
    fn try_extend(&mut self, bytes: &[u8]) -> postcard::Result<()> {
        self.0.extend_from_slice(bytes);
        Ok(())
    }

    #[inline]
    fn try_push(&mut self, byte: u8) -> postcard::Result<()> {
        self.0.push(byte);
        Ok(())
    }

    fn finalize(self) -> postcard::Result<Stream> {
        Ok(self.0)
    }
}
