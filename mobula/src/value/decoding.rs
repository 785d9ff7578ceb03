//! The buffers and references beside a stream that is being read: where a payload lies, and the buffers in it, which
//! borrow from that memory.

use std::collections::hash_map::Entry;

use mobula_client::{Client, Handle, Object, ObjectId};
use rustc_hash::FxHashMap;

use super::ValueError;
use super::buffer::Buffer;
use super::payload::BufferRecord;

/// Where a payload lies.
#[derive(Clone)]
pub(super) enum Memory {
    Object(Object),
    /// With its tag.
    Heap(u32, bytes::Bytes),
}

/// The objects that a payload refers to, in the order of their positions.
#[derive(Clone)]
pub(crate) enum References {
    /// By handles.
    Held(Vec<Handle>),
    /// By ids. A handle is made when it is needed. Until then the owner of the payload keeps these objects alive.
    Named(Client, Vec<ObjectId>),
}

impl References {
    pub(super) fn count(&self) -> u32 {
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

/// The buffers and references beside a stream that is being read.
pub(super) struct Decoding {
    references: References,
    /// `None` where there are none, as in most small values.
    buffers: Option<Box<Buffers>>,
    /// The reason why a type refused a value, if the error of the stream cannot contain all of it.
    pub(super) refusal: Option<Box<ValueError>>,
}

impl Decoding {
    pub(super) fn new(buffers: Option<Box<Buffers>>, references: References) -> Self {
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
pub(super) struct Buffers {
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
    /// The whole memory, as the one buffer.
    pub(super) fn whole(memory: Memory) -> Box<Self> {
        Box::new(Self {
            memory,
            payload: None,
            table: None,
            mapped: FxHashMap::default(),
            mapped_bytes: 0,
            copied_bytes: 0,
        })
    }

    /// The buffers whose records are in `table`, a copy of the payload's.
    pub(super) fn of_table(memory: Memory, table: &[u8]) -> Box<Self> {
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
        let record = BufferRecord::read(table, index)?;
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
