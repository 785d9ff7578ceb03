//! Arguments and results as records carry them: small values themselves, large ones by the ids of their objects.
//!
//! Payloads are written one behind the other. All numbers are little-endian; a list does not say how many it has, the
//! record before it does.
//!
//! | bytes | of an inline payload | of a stored one |
//! |---|---|---|
//! | 4 | length of the encoded value, *v* | 2³² − 1 |
//! | 2 | number of its references, *r* | zero |
//! | 2 | its [format tag](crate::format) | zero: the object has one |
//! | *v*, or 16 | the encoded value | the object's id |
//! | 16·*r* | the ids of its references | |
//!
//! The sender keeps the named objects alive until the receiver has acknowledged the record, or until the call that they
//! belong to is over.

use std::fmt;
use std::ops::Range;

use mobula_client::{Client, ClientError, Handle, Layout, ObjectId};
use smallvec::SmallVec;

use crate::call::result_cell::Inline;
use crate::error::Failure;

/// Bytes of a value that travels in a record; a larger one goes through the store.
const INLINE_BYTES_MAX: usize = 4096;
/// Objects that a value in a record may refer to.
const INLINE_REFERENCES_MAX: usize = 32;
/// In place of the length of an inline payload.
const STORED: u32 = u32::MAX;
/// Bytes before an inline value.
const HEAD_BYTES: usize = 8;

/// Why a value did not become a payload.
#[derive(Debug)]
pub enum PushError<E> {
    /// The front could not write it.
    Value(E),
    /// The store had no room for it, or is gone.
    Store(ClientError),
}

impl<E: Into<Failure>> From<PushError<E>> for Failure {
    fn from(error: PushError<E>) -> Self {
        match error {
            PushError::Value(error) => error.into(),
            PushError::Store(error) => error.into(),
        }
    }
}

impl<E: fmt::Display> fmt::Display for PushError<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Value(error) => error.fmt(f),
            Self::Store(error) => error.fmt(f),
        }
    }
}

/// What a front has made of a value that is to become a payload.
#[derive(Debug)]
pub enum Written<A> {
    /// All of it stands behind the other payloads, and refers to no object.
    Whole {
        /// Its [tag](crate::format).
        format: u32,
    },
    /// Nothing was written yet: it is large, or refers to objects.
    Apart(A),
}

/// A value that a front has encoded, and that is not yet where it shall lie.
pub trait Encoded {
    /// Bytes of the payload.
    fn payload_bytes(&self) -> usize;

    /// Its [tag](crate::format).
    fn format(&self) -> u32;

    /// The objects that it refers to, each once.
    fn references(&self) -> &[Handle];

    /// Writes the payload: every byte of `out`, which has [`payload_bytes`](Self::payload_bytes).
    fn write_into(&self, out: &mut [u8]);
}

/// Payloads to be sent, and what keeps the objects that they name.
#[derive(Debug, Default)]
pub(crate) struct Payloads {
    bytes: Vec<u8>,
    /// Where each ends.
    ends: SmallVec<[u32; 4]>,
    held: Vec<Handle>,
}

impl Payloads {
    /// Appends a value: inline if it is small, else by way of the store. `write` appends it to the bytes that it is given,
    /// and to nothing else.
    pub(crate) fn push<A: Encoded, E>(
        &mut self,
        client: &Client,
        write: impl FnOnce(&mut Vec<u8>) -> Result<Written<A>, E>,
    ) -> Result<(), PushError<E>> {
        let start = self.begin();
        match write(&mut self.bytes).map_err(PushError::Value)? {
            Written::Whole { format } => self.end_whole(client, start, format).map_err(PushError::Store),
            Written::Apart(encoded) => {
                self.bytes.truncate(start);
                self.push_encoded(client, &encoded).map_err(PushError::Store)
            }
        }
    }

    /// Makes room for what stands before an inline value; where that is.
    fn begin(&mut self) -> usize {
        if self.bytes.capacity() == 0 {
            self.bytes = spare::take();
        }
        let start = self.bytes.len();
        append_head(&mut self.bytes, 0, 0, 0);
        start
    }

    /// The value that begins behind `start` is whole.
    fn end_whole(&mut self, client: &Client, start: usize, format: u32) -> Result<(), ClientError> {
        let length = self.bytes.len() - start - HEAD_BYTES;
        if length <= INLINE_BYTES_MAX {
            self.bytes[start..start + HEAD_BYTES].copy_from_slice(&head(length, 0, format));
            self.end_one();
        } else {
            let payload = &self.bytes[start + HEAD_BYTES..];
            let stored = store_bytes(client, format, payload)?;
            self.bytes.truncate(start);
            // What went through here is in the store: the call need not keep memory for it, too.
            self.bytes.shrink_to(INLINE_BYTES_MAX);
            self.push_stored(stored);
        }
        Ok(())
    }

    fn push_encoded(&mut self, client: &Client, encoded: &impl Encoded) -> Result<(), ClientError> {
        let (length, references) = (encoded.payload_bytes(), encoded.references());
        if length <= INLINE_BYTES_MAX && references.len() <= INLINE_REFERENCES_MAX {
            append_head(&mut self.bytes, length, references.len(), encoded.format());
            let start = self.bytes.len();
            self.bytes.resize(start + length, 0);
            encoded.write_into(&mut self.bytes[start..]);
            append_ids(&mut self.bytes, references);
            self.held.extend_from_slice(references);
            self.end_one();
        } else {
            self.push_stored(store(client, encoded)?);
        }
        Ok(())
    }

    /// Appends a small encoded value.
    pub(crate) fn push_inline(&mut self, inline: &Inline) {
        append_inline(&mut self.bytes, inline.format, &inline.value, &inline.references);
        self.held.extend_from_slice(&inline.references);
        self.end_one();
    }

    /// Appends an object.
    pub(crate) fn push_stored(&mut self, handle: Handle) {
        append_stored(&mut self.bytes, handle.id());
        self.held.push(handle);
        self.end_one();
    }

    /// Appends a place without a payload: something else will be sent instead.
    pub(crate) fn push_nothing(&mut self) {
        self.end_one();
    }

    fn end_one(&mut self) {
        self.ends.push(self.bytes.len() as u32);
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.ends.len()
    }

    /// All of them, as they are sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Some of them, as they are sent.
    pub(crate) fn bytes_of(&self, positions: Range<usize>) -> &[u8] {
        let end = |position: usize| match position.checked_sub(1) {
            Some(before) => self.ends[before] as usize,
            None => 0,
        };
        &self.bytes[end(positions.start)..end(positions.end)]
    }

    /// What they name.
    pub(crate) fn held(&self) -> &[Handle] {
        &self.held
    }

    /// Takes out what keeps the objects that they name.
    pub(crate) fn take_held(&mut self) -> Vec<Handle> {
        std::mem::take(&mut self.held)
    }
}

impl Drop for Payloads {
    fn drop(&mut self) {
        spare::give(std::mem::take(&mut self.bytes));
    }
}

/// Memory for payloads, used again and again: a thread that makes calls takes it here and gives it back when it deals
/// with their results.
mod spare {
    use std::cell::RefCell;

    /// Room for the arguments of most calls.
    const BYTES_INITIAL: usize = 120;
    const BYTES_MAX: usize = 512;
    const COUNT_MAX: usize = 1024;

    thread_local! {
        static SPARE: RefCell<Vec<Vec<u8>>> = const { RefCell::new(Vec::new()) };
    }

    pub(super) fn take() -> Vec<u8> {
        let spare = SPARE.try_with(|spare| spare.borrow_mut().pop()).ok().flatten();
        spare.unwrap_or_else(|| Vec::with_capacity(BYTES_INITIAL))
    }

    pub(super) fn give(mut bytes: Vec<u8>) {
        if !(BYTES_INITIAL..=BYTES_MAX).contains(&bytes.capacity()) {
            return;
        }
        bytes.clear();
        // A thread that is ending keeps nothing.
        let _ = SPARE.try_with(|spare| {
            let mut spare = spare.borrow_mut();
            if spare.len() < COUNT_MAX {
                spare.push(bytes);
            }
        });
    }
}

/// Puts an encoded value into the store.
pub(crate) fn store(client: &Client, encoded: &impl Encoded) -> Result<Handle, ClientError> {
    let references = encoded.references().to_vec();
    let layout = Layout { length: encoded.payload_bytes() as u64, format: encoded.format(), references };
    let mut writer = client.create(layout)?;
    encoded.write_into(&mut writer);
    Ok(writer.seal().handle())
}

/// Puts a value into the store that refers to no objects.
fn store_bytes(client: &Client, format: u32, value: &[u8]) -> Result<Handle, ClientError> {
    let layout = Layout { length: value.len() as u64, format, references: Vec::new() };
    let mut writer = client.create(layout)?;
    writer.copy_from_slice(value);
    Ok(writer.seal().handle())
}

/// Appends an inline payload.
pub(crate) fn append_inline(out: &mut Vec<u8>, format: u32, value: &[u8], references: &[Handle]) {
    append_head(out, value.len(), references.len(), format);
    out.extend_from_slice(value);
    append_ids(out, references);
}

/// Appends a stored payload.
pub(crate) fn append_stored(out: &mut Vec<u8>, object: ObjectId) {
    out.extend_from_slice(&STORED.to_le_bytes());
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(&object.to_bytes());
}

fn append_head(out: &mut Vec<u8>, value: usize, references: usize, format: u32) {
    out.extend_from_slice(&head(value, references, format));
}

/// What stands before an inline value.
fn head(value: usize, references: usize, format: u32) -> [u8; HEAD_BYTES] {
    // Values that travel inline are limited, and so are tags, so all of them fit.
    let [a, b, c, d] = (value as u32).to_le_bytes();
    let ([e, f], [g, h]) = ((references as u16).to_le_bytes(), (format as u16).to_le_bytes());
    [a, b, c, d, e, f, g, h]
}

fn append_ids(out: &mut Vec<u8>, references: &[Handle]) {
    references.iter().for_each(|handle| out.extend_from_slice(&handle.id().to_bytes()));
}

/// An argument, or a result, as it came.
#[derive(Debug, Clone, Copy)]
pub enum Payload<'a> {
    /// Small: the encoded value itself.
    Inline {
        /// Its [tag](crate::format).
        format: u32,
        /// Its bytes.
        value: &'a [u8],
        /// The objects that it refers to.
        references: ObjectIds<'a>,
    },
    /// Large, or in the store anyway.
    Stored(ObjectId),
}

impl Payload<'_> {
    /// Every object that it names.
    pub(crate) fn objects(&self) -> impl Iterator<Item = ObjectId> {
        let (stored, references) = match self {
            Self::Inline { references, .. } => (None, *references),
            Self::Stored(object) => (Some(*object), ObjectIds(&[])),
        };
        stored.into_iter().chain(references.iter())
    }
}

/// Ids, as they lie in a record.
#[derive(Debug, Clone, Copy)]
pub struct ObjectIds<'a>(&'a [[u8; ObjectId::BYTES]]);

impl<'a> ObjectIds<'a> {
    /// One after the other.
    pub fn iter(self) -> impl Iterator<Item = ObjectId> + 'a {
        self.0.iter().map(|bytes| ObjectId::from_bytes(*bytes))
    }
}

/// The bytes are not the payloads that they should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Malformed;

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a payload is cut short")
    }
}

/// Takes the first payload off `bytes`, which come from another process.
pub(crate) fn take<'a>(bytes: &mut &'a [u8]) -> Result<Payload<'a>, Malformed> {
    let mut take = |length: usize| {
        let (taken, rest) = bytes.split_at_checked(length).ok_or(Malformed)?;
        *bytes = rest;
        Ok::<&'a [u8], Malformed>(taken)
    };
    let length = u32::from_le_bytes(take(4)?.try_into().map_err(|_| Malformed)?);
    let mut number = || Ok(u16::from_le_bytes(take(2)?.try_into().map_err(|_| Malformed)?));
    let (references, format) = (number()?, number()?);
    if length == STORED {
        let id = take(ObjectId::BYTES)?.try_into().map_err(|_| Malformed)?;
        return Ok(Payload::Stored(ObjectId::from_bytes(id)));
    }
    let value = take(length as usize)?;
    let ids = take(usize::from(references) * ObjectId::BYTES)?;
    Ok(Payload::Inline { format: format.into(), value, references: ObjectIds(ids.as_chunks().0) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format;

    #[test]
    fn what_was_appended_is_taken_in_order() {
        let id = ObjectId::from_bytes([7; ObjectId::BYTES]);
        let mut bytes = Vec::new();
        append_inline(&mut bytes, format::PLAIN, b"small", &[]);
        append_stored(&mut bytes, id);
        append_inline(&mut bytes, format::ARROW, b"", &[]);
        let mut rest = &bytes[..];
        let value = |payload| match payload {
            Payload::Inline { format, value, .. } => (Some(format), value.to_vec()),
            Payload::Stored(object) => (None, object.to_bytes().to_vec()),
        };
        let taken: Vec<_> = (0..3).map(|_| value(take(&mut rest).unwrap())).collect();
        let small = (Some(format::PLAIN), b"small".to_vec());
        assert_eq!(taken, [small, (None, vec![7; 16]), (Some(format::ARROW), vec![])]);
        assert_eq!(take(&mut rest).unwrap_err(), Malformed);
    }

    #[test]
    fn whatever_is_cut_short_or_too_long_is_refused() {
        let mut whole = Vec::new();
        append_inline(&mut whole, format::PLAIN, b"value", &[]);
        for length in 0..whole.len() {
            assert_eq!(take(&mut &whole[..length]).unwrap_err(), Malformed, "{length} bytes");
        }
        for (length, references) in [(u32::MAX - 1, 0), (0, u16::MAX), (6, 0), (5, 1), (STORED, 0)] {
            let mut forged = [&length.to_le_bytes()[..], &references.to_le_bytes(), &[0; 2]].concat();
            forged.extend_from_slice(b"value");
            assert_eq!(take(&mut &forged[..]).unwrap_err(), Malformed, "{length} and {references}");
        }
    }
}
