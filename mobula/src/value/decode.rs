//! From a payload to a value whose carriers borrow from the memory that the payload lies in.

use std::collections::hash_map::Entry;

use mobula_client::{Client, Handle, Object, ObjectId};
use rustc_hash::FxHashMap;
use serde::de::DeserializeOwned;
use smallvec::SmallVec;

use super::buffer::Buffer;
use super::copied::Form;
use super::payload::{self, Layout, Record};
use super::{Bytes, ValueError, context, format, stream};

/// Where a payload lies, and the objects that it refers to.
#[derive(Clone)]
pub struct Source {
    memory: Memory,
    references: References,
}

#[derive(Clone)]
enum Memory {
    Object(Object),
    /// With its tag.
    Heap(u32, bytes::Bytes),
}

/// The objects that a payload refers to, in the order of their positions.
#[derive(Clone)]
pub(crate) enum References {
    /// By handles.
    Held(Vec<Handle>),
    /// By ids, of which handles are made as they are asked for: the owner of the payload keeps these objects alive.
    Named(Client, Vec<ObjectId>),
}

impl References {
    fn count(&self) -> u32 {
        let count = match self {
            Self::Held(handles) => handles.len(),
            Self::Named(_, ids) => ids.len(),
        };
        u32::try_from(count).unwrap_or(u32::MAX)
    }

    /// Errors are boxed: they are large and rare, and a value may have many references.
    fn get(&self, reference: u32) -> Result<Handle, Box<ValueError>> {
        let found = match self {
            Self::Held(handles) => handles.get(reference as usize).map(|handle| Ok(handle.clone())),
            Self::Named(client, ids) => ids.get(reference as usize).map(|id| client.hold(*id)),
        };
        match found {
            Some(Ok(handle)) => Ok(handle),
            Some(Err(error)) => Err(Box::new(error.into())),
            None => Err(Box::new(ValueError::NoSuchReference { reference, count: self.count() })),
        }
    }
}

impl Source {
    /// A payload that is an object's bytes: carriers borrow from the mapping. `references` are the handles of the
    /// object's references, in their order.
    pub fn object(object: Object, references: Vec<Handle>) -> Self {
        Self { memory: Memory::Object(object), references: References::Held(references) }
    }

    /// As [`object`](Self::object), for an object in the store of `client`: it keeps its references alive itself, so
    /// none is held before the value asks for it.
    pub(crate) fn object_of(client: &Client, object: Object) -> Self {
        let ids = object.references();
        Self { memory: Memory::Object(object), references: References::Named(client.clone(), ids) }
    }

    /// A payload on the heap, as it came through a ring: carriers borrow from it. `references` are the handles of
    /// [`Encoded::references`](super::Encoded::references), in their order.
    ///
    /// Bytes that lie in the store are copied first, since their owner could still write them.
    pub fn heap(payload: impl Into<bytes::Bytes>, references: Vec<Handle>) -> Self {
        let payload = Buffer::found(payload.into()).copied_out(Form::Unchanged);
        Self::tagged(format::PLAIN, payload.into_bytes(), references)
    }

    /// As [`heap`](Self::heap), for bytes of this process's own, with the tag that came with them.
    pub(crate) fn tagged(format: u32, payload: bytes::Bytes, references: Vec<Handle>) -> Self {
        Self { memory: Memory::Heap(format, payload), references: References::Held(references) }
    }
}

/// Reads the value of `source`. A buffer is neither copied nor looked at, unless its memory is not aligned as its
/// elements must be (which it is in the store), or it is Arrow data, which is validated.
///
/// An object of plain bytes ([`format::RAW`]) reads as [`Bytes`].
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

/// Like [`decode`], from a payload that is only lent, in memory of this process's own. Its buffers are copied; a small
/// value seldom has any.
pub(crate) fn decode_lent<T: DeserializeOwned>(
    format: u32,
    payload: &[u8],
    references: References,
) -> Result<T, ValueError> {
    check_format(format)?;
    let layout = Layout::read(payload, payload.len())?;
    let memory = || Memory::Heap(format, bytes::Bytes::copy_from_slice(payload));
    decode_parts(payload, layout, memory, references)
}

/// Bytes of a payload that are copied before it is known how many are needed: all of a small value's.
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
    let (value, decoding) = context::decoding(decoding, || stream::read(stream));
    match (value, decoding.refusal) {
        // `serde` may have recovered from a refusal by trying another variant, so the refusal counts only if it caused this
        // error.
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
    if found == payload::stored_name(expected) {
        Ok(())
    } else {
        Err(ValueError::WrongType { expected, found: String::from_utf8_lossy(found).into_owned() })
    }
}

/// The buffers and references beside a stream that is being read.
pub(super) struct Decoding {
    references: References,
    /// `None` where there are none, as in most small values.
    buffers: Option<Box<Buffers>>,
    /// The reason why a type refused a value, where the stream's errors cannot say all of it.
    pub(super) refusal: Option<Box<ValueError>>,
}

impl Decoding {
    fn new(buffers: Option<Box<Buffers>>, references: References) -> Self {
        Self { references, buffers, refusal: None }
    }

    /// A reference by its position.
    pub(super) fn reference(&self, index: u32) -> Result<Handle, Box<ValueError>> {
        self.references.get(index)
    }

    /// A buffer by its index, borrowing from where it lies.
    pub(super) fn buffer(&mut self, index: u32) -> Result<Buffer, ValueError> {
        match &mut self.buffers {
            Some(buffers) => buffers.get(index, &self.references),
            None => Err(ValueError::NoSuchBuffer { buffer: index, count: 0 }),
        }
    }

    /// A buffer by its index, which is going to be copied. An honest payload names each such buffer once, so all of the
    /// copies together are no larger than the memory that they are made of.
    pub(super) fn buffer_to_copy(&mut self, index: u32) -> Result<Buffer, ValueError> {
        let buffer = self.buffer(index)?;
        if let Some(buffers) = &mut self.buffers {
            buffers.count_copy(index, buffer.len())?;
        }
        Ok(buffer)
    }
}

/// The buffers of a payload, and where they lie.
struct Buffers {
    memory: Memory,
    /// All of the payload, from the first time that a buffer borrows from it.
    payload: Option<Buffer>,
    /// Their records, copied out of the payload; `None` when the whole memory is the one buffer.
    table: Option<Box<[u8]>>,
    /// The referenced objects that buffers borrow from, by position.
    mapped: FxHashMap<u32, Buffer>,
    /// Bytes of these objects.
    mapped_bytes: usize,
    /// Bytes of buffers that have been copied out.
    copied_bytes: usize,
}

impl Buffers {
    fn whole(memory: Memory) -> Box<Self> {
        Box::new(Self {
            memory,
            payload: None,
            table: None,
            mapped: FxHashMap::default(),
            mapped_bytes: 0,
            copied_bytes: 0,
        })
    }

    fn of_table(memory: Memory, table: &[u8]) -> Box<Self> {
        Box::new(Self {
            memory,
            payload: None,
            table: Some(table.into()),
            mapped: FxHashMap::default(),
            mapped_bytes: 0,
            copied_bytes: 0,
        })
    }

    fn get(&mut self, index: u32, references: &References) -> Result<Buffer, ValueError> {
        let Some(table) = &self.table else {
            return match index {
                0 => Ok(self.payload().clone()),
                _ => Err(ValueError::NoSuchBuffer { buffer: index, count: 1 }),
            };
        };
        let record = Record::read(table, index)?;
        let home = match record.reference {
            None => self.payload(),
            Some(reference) => self.mapped(reference, references)?,
        };
        let range = record.range(index, home.len())?;
        Ok(if range.is_empty() { Buffer::default() } else { home.slice(range) })
    }

    /// Counts another copy, of `length` bytes.
    fn count_copy(&mut self, index: u32, length: usize) -> Result<(), ValueError> {
        self.copied_bytes = self.copied_bytes.saturating_add(length);
        let available = self.payload().len().saturating_add(self.mapped_bytes);
        if self.copied_bytes > available {
            return Err(ValueError::CopiedAgain { buffer: index, available: available as u64 });
        }
        Ok(())
    }

    fn payload(&mut self) -> &Buffer {
        self.payload.get_or_insert_with(|| match &self.memory {
            Memory::Object(object) => Buffer::of_object(object.clone()),
            Memory::Heap(_, payload) => Buffer::on_heap(payload.clone()),
        })
    }

    fn mapped(&mut self, reference: u32, references: &References) -> Result<&Buffer, ValueError> {
        Ok(match self.mapped.entry(reference) {
            Entry::Occupied(mapped) => mapped.into_mut(),
            Entry::Vacant(vacant) => {
                let handle = references.get(reference).map_err(|error| *error)?;
                let object = Buffer::of_object(handle.object()?);
                self.mapped_bytes = self.mapped_bytes.saturating_add(object.len());
                vacant.insert(object)
            }
        })
    }
}
