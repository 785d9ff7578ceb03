//! Payloads: arguments and results in a record. A small value is in the record itself. A large value is an object of
//! the store, and the record contains its id.
//!
//! Payloads follow each other without gaps. All numbers are little-endian. The record in front of the payloads contains
//! their number.
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

use crate::call::inline::Inline;
use crate::error::Failure;

/// The most bytes of a value in a record. A larger value goes through the store.
const INLINE_BYTES_MAX: usize = 4096;
/// The most objects that a value in a record may refer to.
const INLINE_REFERENCES_MAX: usize = 32;
/// The mark of a stored payload. It stands in place of the length of an inline one.
const STORED: u32 = u32::MAX;
/// Bytes before an inline value.
const HEAD_BYTES: usize = 8;

/// Why a value did not become a payload.
#[derive(Debug)]
#[non_exhaustive]
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

/// How a front has encoded a value for a payload.
///
/// Fronts make this, and only the core reads it, so it may get more variants.
#[derive(Debug)]
pub enum Written<A> {
    /// The front has appended the whole value, which refers to no object.
    Whole {
        /// Its [tag](crate::format).
        format: u32,
    },
    /// The front has written nothing yet: the value is large, or refers to objects.
    Apart(A),
}

/// An encoded value that the core has still to write, into a record or an object.
pub trait Encoded {
    /// The length of the payload in bytes.
    fn payload_bytes(&self) -> usize;

    /// Its [tag](crate::format).
    fn format(&self) -> u32;

    /// The objects that it refers to, each once.
    fn references(&self) -> &[Handle];

    /// Writes the payload: every byte of `out`, which has [`payload_bytes`](Self::payload_bytes).
    fn write_into(&self, out: &mut [u8]);
}

/// Handles to the objects that payloads name, as far as these can be read and held.
pub(crate) fn hold_all(client: &Client, mut payloads: &[u8], count: u32) -> Vec<Handle> {
    let mut held = Vec::new();
    for _ in 0..count {
        match take(&mut payloads) {
            Ok(Payload::Stored(object)) => held.extend(client.hold(object)),
            Ok(Payload::Inline { references, .. }) => {
                held.extend(references.iter().flat_map(|object| client.hold(object)));
            }
            Err(_) => break,
        }
    }
    held
}

/// Payloads to be sent, and handles to the objects that they name.
#[derive(Debug, Default)]
pub(crate) struct Payloads {
    bytes: Vec<u8>,
    /// The position behind each payload.
    ends: SmallVec<[u32; 4]>,
    held: Vec<Handle>,
}

impl Payloads {
    /// Appends a value: inline if it is small, else as an object of the store. `write` appends the value to the bytes
    /// that it gets, and leaves the bytes before it unchanged.
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

    /// Makes room for the head of an inline payload. Returns the head's position.
    #[inline]
    fn begin(&mut self) -> usize {
        if self.bytes.capacity() == 0 {
            self.bytes = spare::take();
        }
        let start = self.bytes.len();
        append_head(&mut self.bytes, 0, 0, 0);
        start
    }

    /// Completes the payload at `start`. The whole value stands behind its head.
    #[inline]
    fn end_whole(&mut self, client: &Client, start: usize, format: u32) -> Result<(), ClientError> {
        let length = self.bytes.len() - start - HEAD_BYTES;
        if length <= INLINE_BYTES_MAX {
            self.bytes[start..start + HEAD_BYTES].copy_from_slice(&head(length, 0, format));
            self.end_one();
        } else {
            let payload = &self.bytes[start + HEAD_BYTES..];
            let stored = store_bytes(client, format, payload)?;
            self.bytes.truncate(start);
            // The value is in the store now, so its memory here is given back.
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

    /// Appends an empty place, in which another payload is sent.
    pub(crate) fn push_nothing(&mut self) {
        self.end_one();
    }

    #[inline]
    fn end_one(&mut self) {
        self.ends.push(self.bytes.len() as u32);
    }

    /// Gives back the memory beyond what the payloads need.
    pub(crate) fn give_back_spare_memory(&mut self) {
        let needed = self.bytes.as_slice().to_vec();
        spare::give(std::mem::replace(&mut self.bytes, needed));
    }

    /// The number of payloads.
    pub(crate) fn count(&self) -> usize {
        self.ends.len()
    }

    /// The bytes of all payloads, as they are sent.
    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The bytes of the payloads at `positions`, as they are sent.
    pub(crate) fn bytes_of(&self, positions: Range<usize>) -> &[u8] {
        let end = |position: usize| match position.checked_sub(1) {
            Some(before) => self.ends[before] as usize,
            None => 0,
        };
        &self.bytes[end(positions.start)..end(positions.end)]
    }

    /// The objects that the payloads name.
    pub(crate) fn held(&self) -> &[Handle] {
        &self.held
    }

    /// Takes the handles to the objects that the payloads name.
    pub(crate) fn take_held(&mut self) -> Vec<Handle> {
        std::mem::take(&mut self.held)
    }
}

impl Drop for Payloads {
    fn drop(&mut self) {
        spare::give(std::mem::take(&mut self.bytes));
    }
}

/// Reuses the memory of payloads. A thread takes it for the arguments of a call, and gives it back when it handles the
/// results.
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
    let layout = Layout::new(encoded.payload_bytes() as u64).format(encoded.format()).references(references);
    let mut writer = client.create(layout)?;
    encoded.write_into(&mut writer);
    Ok(writer.seal().handle())
}

/// Puts a value into the store that refers to no objects.
fn store_bytes(client: &Client, format: u32, value: &[u8]) -> Result<Handle, ClientError> {
    let layout = Layout::new(value.len() as u64).format(format);
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

/// The head of an inline payload.
fn head(value: usize, references: usize, format: u32) -> [u8; HEAD_BYTES] {
    // The sizes of inline values and the tags are limited, so all numbers fit.
    let [a, b, c, d] = (value as u32).to_le_bytes();
    let ([e, f], [g, h]) = ((references as u16).to_le_bytes(), (format as u16).to_le_bytes());
    [a, b, c, d, e, f, g, h]
}

fn append_ids(out: &mut Vec<u8>, references: &[Handle]) {
    references.iter().for_each(|handle| out.extend_from_slice(&handle.id().to_bytes()));
}

/// An argument or a result in a record that arrived.
///
/// This is exhaustive on purpose: a front handles each variant, so a new one must be an error of its compiler.
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
    /// The id of an object: the value is large, or was in the store already.
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

/// The object ids in a payload, as bytes of a record.
#[derive(Debug, Clone, Copy)]
pub struct ObjectIds<'a>(&'a [[u8; ObjectId::BYTES]]);

impl<'a> ObjectIds<'a> {
    /// Whether there are none.
    #[inline]
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Iterates over the ids.
    pub fn iter(self) -> impl Iterator<Item = ObjectId> + 'a {
        self.0.iter().map(|bytes| ObjectId::from_bytes(*bytes))
    }
}

/// The bytes of a record end within a payload.
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
