//! Objects in the making: [`ObjectWriter`] lends out writable store memory until it is sealed, [`Promise`] stands for
//! an object that somebody else is still to make.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use mobula_protocol::id::ObjectId;
use mobula_shm::mapping::WriteMapping;
use mobula_shm::table::Location;

use crate::counts::Use;
use crate::error::ClientError;
use crate::object::{Handle, Holder, Object, dangling};
use crate::shared::Shared;

/// What an object is going to be.
#[derive(Debug, Default)]
pub struct Layout {
    /// Bytes of its payload.
    pub length: u64,
    /// What the payload is, in the words of those who put and get it; 0 for plain bytes.
    pub format: u32,
    /// Objects that it keeps alive for as long as it lives itself.
    pub references: Vec<Handle>,
}

/// Store memory to write an object into, in place: derefs to `&mut [u8]`, 64-byte aligned.
///
/// The bytes begin as whatever an earlier object of this client left there. Nobody else sees them before
/// [`seal`](Self::seal); dropped unsealed, the object is aborted and its memory free again.
pub struct ObjectWriter {
    shared: Arc<Shared>,
    id: ObjectId,
    location: Location,
    references: Vec<Handle>,
    mapping: Option<Arc<WriteMapping>>,
    pointer: NonNull<u8>,
    /// Whether the entry still has to be given back on drop.
    open: bool,
}

// SAFETY: the writer alone gives access to its bytes, by the usual borrow rules; its parts are Send and Sync.
unsafe impl Send for ObjectWriter {}
// SAFETY: as above.
unsafe impl Sync for ObjectWriter {}

impl ObjectWriter {
    pub(crate) fn begin(shared: &Arc<Shared>, layout: Layout) -> Result<Self, ClientError> {
        let Layout { length, format, references } = layout;
        let count = references.len() as u32;
        let begun = shared.begin(length, count, Use::Bytes)?;
        let (location, mapping, pointer) = match begun.place {
            None => (Location { format, ..Location::default() }, None, dangling()),
            Some((allocation, mapping)) => {
                let (segment, offset) = (allocation.segment, allocation.offset());
                let location = Location { segment, offset, length, format, references: count };
                let extent = Location::extent(length, count).expect("it was just allocated") as usize;
                let pointer = mapping.pointer(offset as usize, extent);
                (location, Some(mapping), pointer)
            }
        };
        let id = ObjectId::new(shared.own.id, begun.index, begun.generation);
        Ok(Self { shared: shared.clone(), id, location, references, mapping, pointer, open: true })
    }

    /// The id that the object will have once it is sealed.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// Makes the object visible to every process, for good: one atomic store, at any size.
    ///
    /// # Panics
    /// In a forked child, as all access to the bytes does.
    pub fn seal(mut self) -> Object {
        self.shared.assert_process();
        self.write_references();
        let references = std::mem::take(&mut self.references);
        self.shared.own.seal(self.id.index(), self.id.generation(), &self.location, references);
        self.open = false;
        Object::sealed(self.shared.clone(), self.id, self.location, self.mapping.clone())
    }

    /// Writes the ids of the references behind the payload, for whoever looks after the object when we are gone.
    fn write_references(&mut self) {
        if self.references.is_empty() {
            return;
        }
        let start = self.location.references_offset().expect("it was allocated") - self.location.offset;
        for (position, handle) in self.references.iter().enumerate() {
            let offset = start as usize + position * ObjectId::BYTES;
            // SAFETY: payload and references were allocated together (`Location::extent`), and `pointer` was checked
            // against the mapping for all of it; the writer is its only user.
            unsafe {
                let target = self.pointer.byte_add(offset).cast::<[u8; ObjectId::BYTES]>();
                target.write_unaligned(handle.id().to_bytes());
            }
        }
    }
}

impl Deref for ObjectWriter {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.shared.assert_process();
        // SAFETY: as in `deref_mut`.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.location.length as usize) }
    }
}

impl DerefMut for ObjectWriter {
    fn deref_mut(&mut self) -> &mut [u8] {
        // Memory that is written is not mapped in a forked child.
        self.shared.assert_process();
        // SAFETY: the range was allocated for this writer and lies inside the mapping that it keeps. Its bytes are
        // initialised (the file's zeros, or an earlier object's). No object refers to it before `seal`, which takes
        // the writer, and nobody pins what is not sealed.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.location.length as usize) }
    }
}

impl Drop for ObjectWriter {
    fn drop(&mut self) {
        if self.open && !self.shared.guard.is_child() {
            self.shared.own.abort(self.id.index(), Use::Bytes);
        }
    }
}

impl fmt::Debug for ObjectWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectWriter").field("id", &self.id).field("bytes", &self.location.length).finish()
    }
}

/// An object that is not there yet: its id can be passed on, and whoever gets it waits.
///
/// Dropped unfulfilled, the object is lost, and waiters get an error.
pub struct Promise {
    shared: Arc<Shared>,
    handle: Handle,
    open: bool,
}

impl Promise {
    pub(crate) fn make(shared: &Arc<Shared>) -> Result<Self, ClientError> {
        let begun = shared.begin(0, 0, Use::Handle)?;
        shared.own.promise(begun.index, begun.generation);
        let id = ObjectId::new(shared.own.id, begun.index, begun.generation);
        let handle = Handle::adopt(Holder::Own(shared.clone()), id);
        Ok(Self { shared: shared.clone(), handle, open: true })
    }

    /// Keeps the promised object alive, and is how others are told of it.
    pub fn handle(&self) -> &Handle {
        &self.handle
    }

    /// Keeps the promise with what the writer holds, and wakes who waits for it. No copy.
    ///
    /// # Panics
    /// In a forked child.
    pub fn fulfil(mut self, mut writer: ObjectWriter) {
        self.shared.assert_process();
        writer.write_references();
        let references = std::mem::take(&mut writer.references);
        writer.open = false;
        let written = writer.id.index();
        // The writer's own use of its entry ends first: the entry becomes vacant.
        self.shared.own.counts.release(written, Use::Bytes, |_| self.shared.own.unpin(written));
        self.shared.own.fulfil(self.handle.id(), written, &writer.location, references);
        self.open = false;
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if self.open && !self.shared.guard.is_child() {
            self.shared.own.break_promise(self.handle.id());
        }
    }
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Promise").field(&self.handle.id()).finish()
    }
}
