//! The stream of a payload: [postcard], a compact `serde` format whose numbers are variable-length integers.

use postcard::ser_flavors::Flavor;
use serde::Serialize;
use serde::de::DeserializeOwned;

use super::ValueError;

/// Appends the stream of `value`. What an error leaves behind is for the caller to cut off.
pub(super) fn append<T: Serialize + ?Sized>(value: &T, out: &mut Vec<u8>) -> Result<(), ValueError> {
    postcard::serialize_with_flavor(value, Growing(out)).map_err(|error| ValueError::Unwritable {
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

/// postcard's own flavor for vectors extends them byte by byte.
struct Growing<'a>(&'a mut Vec<u8>);

impl Flavor for Growing<'_> {
    type Output = ();

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

    fn finalize(self) -> postcard::Result<()> {
        Ok(())
    }
}
