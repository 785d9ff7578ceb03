//! Objects in the making: [`ObjectWriter`] lends out writable store memory until it is sealed, [`Promise`] stands for
//! an object that somebody else is still to make.

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::ptr::NonNull;
use std::sync::Arc;

use mobula_protocol::id::ObjectId;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::table::Location;

use crate::counting::count::Use;
use crate::error::ClientError;
use crate::object::{Handle, Object, dangling};
use crate::owner::Place;
use crate::reference::Usage;
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
    /// Dropped with the entry unsealed, it takes entry and memory back.
    usage: Usage,
    location: Location,
    references: Vec<Handle>,
    pointer: NonNull<u8>,
}

// SAFETY: the writer alone gives access to its bytes, in whatever thread it is, and its parts but the pointer to them are Send.
unsafe impl Send for ObjectWriter {}
// SAFETY: threads that share it can only read its bytes, which are written through a `&mut` of it, and its parts but the
// pointer to them are Sync.
unsafe impl Sync for ObjectWriter {}

impl ObjectWriter {
    #[inline]
    pub(crate) fn begin(shared: &Arc<Shared>, layout: Layout) -> Result<Self, ClientError> {
        let Layout { length, format, references } = layout;
        let count = references.len() as u32;
        let (usage, place) = Usage::begin(shared, length, count, Use::Bytes)?;
        let (location, pointer) = match place {
            None => (Location { format, ..Location::default() }, dangling()),
            Some(Place { segment, offset, pointer }) => {
                (Location { segment, offset, length, format, references: count }, pointer)
            }
        };
        Ok(Self { usage, location, references, pointer })
    }

    /// The id that the object will have once it is sealed.
    pub fn id(&self) -> ObjectId {
        self.usage.id()
    }

    /// Makes the object visible to every process, for good: one atomic store, at any size.
    ///
    /// # Panics
    /// In a forked child, as all access to the bytes does.
    #[inline]
    pub fn seal(mut self) -> Object {
        self.usage.shared().assert_process();
        self.write_references();
        let Self { usage, location, references, pointer } = self;
        let id = usage.id();
        usage.shared().own.seal(id.index(), id.generation(), &location, references);
        Object::at(usage, pointer, &location)
    }

    /// Gives the memory, into which the payload and the references of a spilled object have been written, to that object;
    /// `false` if it is not spilled any more.
    pub(crate) fn bring_back(self, object: ObjectId, location: &Location) -> bool {
        let Location { segment, offset, .. } = self.location;
        let own = &self.usage.shared().own;
        own.bring_back(object, self.usage.id().index(), &Location { segment, offset, ..*location })
    }

    /// Writes the ids of the references behind the payload, for whoever looks after the object when we are gone.
    #[inline]
    fn write_references(&mut self) {
        if self.references.is_empty() {
            return;
        }
        let start = self.location.references_offset().expect("it was allocated") - self.location.offset;
        for (position, handle) in self.references.iter().enumerate() {
            let offset = start as usize + position * ObjectId::BYTES;
            // SAFETY: payload and references were allocated together (`Location::extent`), and `pointer` was checked
            // against the mapping for all of it; the writer is its only user, and its use keeps the mapping. The write need
            // not be aligned. Not in a forked child, where none of it is mapped: all who call this have refused that.
            unsafe {
                let target = self.pointer.byte_add(offset).cast::<[u8; ObjectId::BYTES]>();
                target.write_unaligned(handle.id().to_bytes());
            }
        }
        failpoint(Failpoint::SealReferenced);
    }
}

impl Deref for ObjectWriter {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.usage.shared().assert_process();
        // SAFETY: as in `deref_mut`, of which this is the shared half: the range was allocated for this writer and lies inside a
        // mapping that its use keeps; its bytes are initialised; and they are written only through a `&mut` of the writer. A
        // forked child has panicked.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.location.length as usize) }
    }
}

impl DerefMut for ObjectWriter {
    #[inline]
    fn deref_mut(&mut self) -> &mut [u8] {
        failpoint(Failpoint::Write);
        // Memory that is written is not mapped in a forked child.
        self.usage.shared().assert_process();
        // SAFETY: the range was allocated for this writer and lies inside a mapping, which stays while its entry is in
        // use: an owner does not give back a segment in which such an entry has memory. Its bytes are initialised (the
        // file's zeros, or an earlier object's). No object refers to it before `seal`, which takes the writer, and
        // nobody pins what is not sealed.
        unsafe { std::slice::from_raw_parts_mut(self.pointer.as_ptr(), self.location.length as usize) }
    }
}

impl fmt::Debug for ObjectWriter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ObjectWriter").field("id", &self.id()).field("bytes", &self.location.length).finish()
    }
}

/// An object that is not there yet: its id can be passed on, and whoever gets it waits.
///
/// Dropped unfulfilled, the object is lost, and waiters get an error.
pub struct Promise {
    handle: Handle,
    open: bool,
}

impl Promise {
    pub(crate) fn make(shared: &Arc<Shared>) -> Result<Self, ClientError> {
        let (usage, _) = Usage::begin(shared, 0, 0, Use::Handle)?;
        shared.own.promise(usage.id().index(), usage.id().generation());
        Ok(Self { handle: Handle::of(usage), open: true })
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
        let shared = self.handle.usage().shared();
        shared.assert_process();
        writer.write_references();
        let ObjectWriter { usage, location, references, .. } = writer;
        shared.own.fulfil(self.handle.id(), usage.id().index(), &location, references);
        self.open = false;
    }
}

impl Drop for Promise {
    fn drop(&mut self) {
        if self.open && !self.handle.usage().is_child() {
            self.handle.usage().shared().own.break_promise(self.handle.id());
        }
    }
}

impl fmt::Debug for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Promise").field(&self.handle.id()).finish()
    }
}
