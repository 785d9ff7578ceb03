//! Decodes a payload into a value. The carriers in the value borrow from the memory that the payload lies in.

use std::fmt;

use mobula_client::{Client, Handle, Object};
use serde::de::DeserializeOwned;
use smallvec::SmallVec;

use super::copied::Form;
use super::decoding::{Buffers, Decoding, Memory, References};
use super::payload::{self, Layout};
use super::{Bytes, ValueError, context, format, stream};

/// Where a payload lies, and the objects that it refers to: the argument of [`decode`].
///
/// ```
/// use mobula::value::{Bytes, Source, decode};
///
/// let session = mobula::init()?;
/// let object = session.client().put(b"raw bytes")?; // an object without a value in it
/// let bytes: Bytes = decode(Source::object(object, vec![]))?; // in place
/// assert_eq!(&bytes[..], b"raw bytes");
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Clone)]
#[must_use = "nothing is read before `decode` is called"]
pub struct Source {
    memory: Memory,
    references: References,
}

impl fmt::Debug for Source {
    /// Shows the place and the numbers. The bytes are left out, because they may be gigabytes.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut shown = f.debug_struct("Source");
        match &self.memory {
            Memory::Object(object) => shown.field("object", &object.id()).field("length", &object.len()),
            Memory::Heap(format, payload) => shown.field("format", format).field("length", &payload.len()),
        };
        shown.field("references", &self.references.count()).finish()
    }
}

impl Source {
    /// A payload that is an object's bytes: carriers borrow from the mapping. `references` are the handles of the
    /// object's references, in their order.
    ///
    /// ```
    /// use mobula::client::Layout;
    /// use mobula::value::{Source, decode, encode};
    ///
    /// let session = mobula::init()?;
    /// let client = session.client();
    /// let encoded = encode(&(1, 2.5))?;
    /// let layout = Layout::new(encoded.len() as u64).format(encoded.format());
    /// let mut writer = client.create(layout)?;
    /// encoded.write_into(&mut writer);
    /// let object = writer.seal();
    ///
    /// let again = client.get(object.id())?; // in any process of the session
    /// assert_eq!(decode::<(i32, f64)>(Source::object(again, vec![]))?, (1, 2.5));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn object(object: Object, references: Vec<Handle>) -> Self {
        Self { memory: Memory::Object(object), references: References::Held(references) }
    }

    /// As [`object`](Self::object), for an object in the store of `client`. The object keeps its references alive, so
    /// this holds none before the value needs it.
    pub(crate) fn object_of(client: &Client, object: Object) -> Self {
        let ids = object.references();
        Self { memory: Memory::Object(object), references: References::Named(client.clone(), ids) }
    }

    /// A payload on the heap, as it came through a ring: carriers borrow from it. `references` are the handles of
    /// [`Encoded::references`](super::Encoded::references), in their order.
    ///
    /// Takes the memory of a vector over. Bytes that lie in the store are copied first, since their owner could still
    /// write them.
    ///
    /// ```
    /// use mobula::value::{Source, decode, encode};
    ///
    /// let payload: Vec<u8> = encode(&42_u64)?.to_vec();
    /// assert_eq!(decode::<u64>(Source::heap(payload, vec![]))?, 42);
    /// # Ok::<(), mobula::value::ValueError>(())
    /// ```
    pub fn heap(payload: impl Into<Bytes>, references: Vec<Handle>) -> Self {
        let payload = payload.into().0.copied_out(Form::Unchanged);
        Self::tagged(format::PLAIN, payload.into_bytes(), references)
    }

    /// As [`heap`](Self::heap), for bytes of this process's own, with the tag that came with them.
    pub(crate) fn tagged(format: u32, payload: bytes::Bytes, references: Vec<Handle>) -> Self {
        Self { memory: Memory::Heap(format, payload), references: References::Held(references) }
    }
}

/// Reads the value of `source`. A buffer is neither copied nor looked at, unless its memory is not aligned as its
/// elements must be (which it is in the store), or it is Arrow data, which is validated. Plain `Vec`s and text are
/// copied out. No system call and no message to the daemon, unless the payload refers to objects of an owner that this
/// process has not read from before.
///
/// An object of plain bytes ([`format::RAW`]) reads as [`Bytes`].
///
/// ```
/// use mobula::value::{Source, ValueError, decode, encode};
///
/// let payload = encode(&42_u64)?.to_vec();
/// assert_eq!(decode::<u64>(Source::heap(payload.clone(), vec![]))?, 42);
/// let error = decode::<String>(Source::heap(payload, vec![])).unwrap_err(); // never another value
/// assert!(matches!(error, ValueError::WrongType { .. }));
/// # Ok::<(), mobula::value::ValueError>(())
/// ```
///
/// # Errors
///
/// [`ValueError::WrongType`] when it is a value of another type, and other errors for everything that is not a
/// well-formed payload.
pub fn decode<T: DeserializeOwned>(source: Source) -> Result<T, ValueError> {
    let Source { memory, references } = source;
    match memory {
        Memory::Object(object) if object.format() == format::RAW => {
            check_type::<T>(std::any::type_name::<Bytes>().as_bytes())?;
            read(RAW_STREAM, Decoding::new(Some(Buffers::whole(Memory::Object(object))), references))
        }
        Memory::Object(object) => {
            check_format(object.format())?;
            let (layout, structure) = copy_structure(&object)?;
            decode_parts(&structure, layout, || Memory::Object(object), references)
        }
        Memory::Heap(format, payload) => {
            check_format(format)?;
            let layout = Layout::read(&payload, payload.len())?;
            let share = payload.clone();
            decode_parts(&payload, layout, || Memory::Heap(format, share), references)
        }
    }
}

/// Like [`decode`], from a borrowed payload, in memory of this process's own. Its buffers are copied; a small
/// value seldom has any.
pub(crate) fn decode_borrowed<T: DeserializeOwned>(
    format: u32,
    payload: &[u8],
    references: References,
) -> Result<T, ValueError> {
    check_format(format)?;
    let layout = Layout::read(payload, payload.len())?;
    let memory = || Memory::Heap(format, bytes::Bytes::copy_from_slice(payload));
    decode_parts(payload, layout, memory, references)
}

/// The bytes of a payload that are copied before its header is read. A small value has no more.
const STRUCTURE_BYTES_FIRST: usize = 256;

/// A payload up to the end of its stream, copied once, because its owner can still write to it. The inline buffers
/// behind it are only ever plain data.
fn copy_structure(payload: &[u8]) -> Result<(Layout, SmallVec<[u8; STRUCTURE_BYTES_FIRST]>), ValueError> {
    let first = payload.len().min(STRUCTURE_BYTES_FIRST);
    let mut structure = SmallVec::from_elem(0, first);
    mobula_client::internal::copy_once(&mut structure, &payload[..first]);
    let layout = Layout::read(&structure, payload.len())?;
    if layout.stream.end > first {
        structure.resize(layout.stream.end, 0);
        mobula_client::internal::copy_once(&mut structure[first..], &payload[first..layout.stream.end]);
    }
    Ok((layout, structure))
}

/// Decodes a payload whose `structure` is in memory of this process's own.
fn decode_parts<T: DeserializeOwned>(
    structure: &[u8],
    layout: Layout,
    memory: impl FnOnce() -> Memory,
    references: References,
) -> Result<T, ValueError> {
    check_type::<T>(&structure[layout.type_name.clone()])?;
    let count = references.count();
    if layout.references > count {
        return Err(ValueError::NoSuchReference { reference: layout.references - 1, count });
    }
    let table = &structure[payload::HEADER_BYTES..layout.type_name.start];
    let buffers = (layout.buffers > 0).then(|| Buffers::of_table(memory(), table));
    read(&structure[layout.stream], Decoding::new(buffers, references))
}

fn read<T: DeserializeOwned>(stream: &[u8], decoding: Decoding) -> Result<T, ValueError> {
    let (value, decoding) = context::decoding::<T, _>(decoding, || stream::read(stream));
    match (value, decoding.refusal) {
        // `serde` may have recovered from a refusal by trying another variant. So the refusal counts only if it caused
        // this error.
        (Err(ValueError::Unreadable { reason, .. }), Some(refusal))
            if reason.ends_with(&refusal.to_string()) =>
        {
            Err(*refusal)
        }
        (value, _) => value,
    }
}

/// An object of plain bytes is read as if it were the only buffer of a payload with this stream: it is the buffer 0.
const RAW_STREAM: &[u8] = &stream::BUFFER_0;

fn check_format(format: u32) -> Result<(), ValueError> {
    if format::is_payload(format) { Ok(()) } else { Err(ValueError::NotAValue { format }) }
}

fn check_type<T>(found: &[u8]) -> Result<(), ValueError> {
    let expected = std::any::type_name::<T>();
    // A value of another language has no name of a type. The stream describes itself, and decides.
    if found.is_empty() || found == payload::stored_name(expected) {
        Ok(())
    } else {
        Err(ValueError::WrongType { expected, found: String::from_utf8_lossy(found).into_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A value of another language has no name of a type: its stream decides.
    #[test]
    fn a_value_without_a_type_is_read_as_every_type_that_it_fits() {
        let payload = |stream: &[u8]| {
            let mut payload = vec![0; payload::HEADER_BYTES];
            Layout::new(0, 0, 0, stream.len()).write(&mut payload);
            payload.extend_from_slice(stream);
            Source::heap(payload, vec![])
        };
        assert_eq!(decode::<u64>(payload(&[7])).unwrap(), 7);
        assert_eq!(decode::<f32>(payload(&[7])).unwrap(), 7.0);
        assert_eq!(decode::<Option<(i8, i16)>>(payload(&[0x92, 1, 2])).unwrap(), Some((1, 2)));
        assert!(decode::<String>(payload(&[7])).is_err());
        assert!(decode::<i8>(payload(&[0xcc, 200])).is_err());
    }
}
