//! The encoding of records without a layout of their own: `postcard`, borrowed from the record where possible. Both
//! ends are the same build, so the encoding need not describe itself.

use serde::{Deserialize, Serialize};

/// Reads a record, or a failure, with nothing behind it.
pub(crate) fn read<'a, T: Deserialize<'a>>(bytes: &'a [u8]) -> Result<T, postcard::Error> {
    match postcard::take_from_bytes(bytes)? {
        (record, []) => Ok(record),
        _ => Err(postcard::Error::DeserializeBadEncoding),
    }
}

/// Appends a record, or a failure, to `out`.
pub(crate) fn append(record: &impl Serialize, out: &mut Vec<u8>) {
    postcard::to_io(record, out).expect("records are plain data, and memory takes all of it");
}

/// A record, or a failure, alone.
pub(crate) fn to_vec(record: &impl Serialize) -> Vec<u8> {
    let mut bytes = Vec::new();
    append(record, &mut bytes);
    bytes
}
