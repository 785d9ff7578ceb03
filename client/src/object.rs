//! Objects in use: [`Object`] lends out sealed bytes where they lie, [`Handle`] only keeps an object alive.
//!
//! Both are counted privately to the process; the first use of an object pins it, the last one takes the pin back (and
//! frees the object, where this client owns it). Cloning and dropping are memory operations.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::Refusal;
use mobula_shm::table::{Location, State};

use crate::counting::count::Use;
use crate::error::ClientError;
use crate::reference::Usage;
use crate::shared::Shared;
use crate::spill::copy::Copied;

/// How often a spilled object is asked for.
const RESTORES_MAX: usize = 16;

/// Drops handles and what they alone kept, and so on, without recursion: chains of objects can be long.
pub(crate) fn drop_all(mut garbage: Vec<Handle>) {
    while let Some(handle) = garbage.pop() {
        handle.usage.end(&mut garbage);
    }
}

/// Keeps an object alive without mapping its bytes.
///
/// Clone and drop are memory operations; the object is freed when no process has a handle or its bytes any more. A clone
/// panics when this process has 16,777,215 handles of the object, which is what it can count.
#[derive(Clone)]
pub struct Handle {
    usage: Usage,
}

impl Handle {
    #[inline]
    pub(crate) fn hold(shared: &Arc<Shared>, id: ObjectId) -> Result<Self, ClientError> {
        let usage = Usage::acquire(shared, id, Use::Handle)?;
        usage.state()?;
        Ok(Self { usage })
    }

    /// Made of a use of kind `Handle`.
    pub(crate) fn of(usage: Usage) -> Self {
        Self { usage }
    }

    pub(crate) fn usage(&self) -> &Usage {
        &self.usage
    }

    /// Its id.
    pub fn id(&self) -> ObjectId {
        self.usage.id()
    }

    /// Whether its bytes are there: `false` while it is promised. One load.
    ///
    /// # Errors
    /// [`ClientError::ForkedChild`] in a forked child;
    /// [`ClientError::Lost`] when it never will be.
    pub fn is_ready(&self) -> Result<bool, ClientError> {
        if self.usage.is_child() {
            return Err(ClientError::ForkedChild);
        }
        match self.usage.state() {
            Ok(State::Promised) => Ok(false),
            Ok(State::Lost) => Err(ClientError::Lost { object: self.id() }),
            // Deleted for others; who holds it keeps it.
            Ok(_) | Err(ClientError::Deleted { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Its bytes. Memory operations only, once a segment is mapped; the first object of a segment costs a round trip. One
    /// that was spilled to disk is brought back first; where the store has no memory for that, and none can be made, it is
    /// read into memory of this process's own.
    ///
    /// # Errors
    /// [`ClientError::NotReady`] while it is promised, [`ClientError::Lost`] when it never will be there. For one that was
    /// spilled, [`Refusal::SpillDamaged`], [`Refusal::NotRestored`], and as for a put. [`ClientError::TooManyUses`] when its bytes
    /// are lent out in this process 1,048,575 times.
    pub fn object(&self) -> Result<Object, ClientError> {
        if self.usage.is_child() {
            return Err(ClientError::ForkedChild);
        }
        // Pinned first: what is sealed might be spilled until then.
        let usage = self.usage.again(Use::Bytes)?;
        let state = match usage.state() {
            // For others; who holds it keeps it.
            Err(ClientError::Deleted { .. }) => State::Sealed,
            state => state?,
        };
        Object::lend(usage, state)
    }

    /// Says in this client's pin that a thread is going to sleep until the promised object is there: its owner then
    /// rings this client's bell. Look at [`is_ready`](Self::is_ready) once more before sleeping.
    ///
    /// # Errors
    /// [`ClientError::TooManyUses`] when 262,143 threads and calls of this process wait for it already.
    pub fn watch(&self) -> Result<Watch, ClientError> {
        Ok(Watch { usage: self.usage.again(Use::Wait)? })
    }

    /// Whether anybody else, in this process or another, keeps the object beside `own_handles` handles of this
    /// process. Only its owner can tell: `true` for objects of others.
    pub fn is_held_elsewhere(&self, own_handles: u64) -> bool {
        self.usage.is_held_elsewhere(own_handles)
    }
}

/// While it lives, the owner of a promised object rings this client when the promise is settled.
pub struct Watch {
    usage: Usage,
}

impl fmt::Debug for Watch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watch").field(&self.usage.id()).finish()
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.id()).finish()
    }
}

/// Where empty slices point: not null, aligned as everything else.
#[inline]
pub(crate) fn dangling() -> NonNull<u8> {
    NonNull::without_provenance(std::num::NonZeroUsize::new(64).expect("not zero"))
}

/// Sealed bytes, read where they lie; derefs to `&[u8]`, 64-byte aligned.
///
/// The bytes never change, and the memory stays while the object (or a clone, or a `Bytes` made from it)
/// lives, whatever happens to its owner or the daemon. Clone and drop are memory operations. A clone panics when the bytes are
/// lent out in this process 1,048,575 times, which is what it can count.
///
/// A forked child has no objects: nothing would keep them there. Its memory lacks them, so to deref an object panics, and to
/// read a slice, a `Bytes` from before the fork ends the child with SIGSEGV. It can connect to the store for
/// itself.
pub struct Object {
    usage: Usage,
    pointer: NonNull<u8>,
    length: usize,
    format: u32,
    references: u32,
    /// What `pointer` points into, where that is no memory of the store's.
    copied: Option<Arc<Copied>>,
}

// SAFETY: an object gives out shared access to bytes that nobody writes while it lives (see `deref`), in whatever thread, and
// its parts but the pointer to them are themselves Send.
unsafe impl Send for Object {}
// SAFETY: threads that share it read those bytes, and its parts but the pointer to them are themselves Sync.
unsafe impl Sync for Object {}

impl Object {
    #[inline]
    pub(crate) fn get(shared: &Arc<Shared>, id: ObjectId) -> Result<Self, ClientError> {
        match Usage::lend_again(shared, id) {
            Some((usage, pointer, location)) => Ok(Self::at(usage, pointer, &location)),
            None => Self::get_first(shared, id),
        }
    }

    fn get_first(shared: &Arc<Shared>, id: ObjectId) -> Result<Self, ClientError> {
        let usage = Usage::acquire(shared, id, Use::Bytes)?;
        let state = usage.state()?;
        Self::lend(usage, state)
    }

    /// Made of a use of kind `Bytes`, by which the state was seen.
    #[inline]
    fn lend(usage: Usage, state: State) -> Result<Self, ClientError> {
        match state {
            State::Sealed => Self::locate(usage),
            State::Spilled => Self::lend_spilled(usage),
            State::Lost => Err(ClientError::Lost { object: usage.id() }),
            _ => Err(ClientError::NotReady { object: usage.id() }),
        }
    }

    #[cold]
    fn lend_spilled(usage: Usage) -> Result<Self, ClientError> {
        for _ in 0..RESTORES_MAX {
            if let Err(error) = usage.restore() {
                match usage.copy_spilled() {
                    Ok(Some((copied, location))) => {
                        let (pointer, copied) = (copied.pointer(), Some(copied));
                        return Ok(Self { copied, ..Self::at(usage, pointer, &location) });
                    }
                    // It is back after all.
                    Ok(None) => {}
                    Err(damaged @ ClientError::Refused(Refusal::SpillDamaged { .. })) => return Err(damaged),
                    // That is why it was tried.
                    Err(_) => return Err(error),
                }
            }
            match usage.state() {
                // Its owner was looking whether to free it when the daemon looked.
                Ok(State::Spilled) => {}
                Ok(State::Sealed) | Err(ClientError::Deleted { .. }) => return Self::locate(usage),
                Ok(_) => break,
                Err(error) => return Err(error),
            }
        }
        let reason = "its owner says that it is back, and it is not".to_owned();
        Err(Refusal::NotRestored { object: usage.id(), reason }.into())
    }

    /// Finds the bytes of a sealed object.
    #[inline]
    fn locate(usage: Usage) -> Result<Self, ClientError> {
        let (pointer, location) = usage.locate()?;
        Ok(Self::at(usage, pointer, &location))
    }

    /// Made of a use of kind `Bytes` of a sealed object, and of where it lies.
    #[inline]
    pub(crate) fn at(usage: Usage, pointer: NonNull<u8>, location: &Location) -> Self {
        let Location { length, format, references, .. } = *location;
        Self { usage, pointer, length: length as usize, format, references, copied: None }
    }

    /// Its id, which any process of the same store can get it by.
    #[inline]
    pub fn id(&self) -> ObjectId {
        self.usage.id()
    }

    /// What its bytes are, in the words of those who put it; 0 for plain bytes.
    pub fn format(&self) -> u32 {
        self.format
    }

    /// A handle that keeps it alive without its bytes.
    ///
    /// # Panics
    /// As a clone of a handle.
    pub fn handle(&self) -> Handle {
        Handle::of(self.usage.again_or_panic(Use::Handle))
    }

    /// The objects that it keeps alive, in the order in which they were given.
    pub fn references(&self) -> Vec<ObjectId> {
        self.assert_process();
        let count = self.references as usize;
        if count == 0 {
            return Vec::new();
        }
        // The payload begins at a multiple of 64, so this is where `Location::references_offset` says.
        let start = self.length.next_multiple_of(ObjectId::BYTES);
        // SAFETY: payload and references were found to lie inside the mapping (in `Own::begin` and `locate`, or in
        // `Slot::locate`), which the counted use keeps, or inside the copy (in `Copied::read`), which this object keeps. They were sealed together, and nobody writes them while the object is
        // pinned, which the use does: all as for the payload in `deref`. Not in a forked child, which has panicked.
        let bytes = unsafe {
            std::slice::from_raw_parts(self.pointer.byte_add(start).as_ptr(), count * ObjectId::BYTES)
        };
        let (ids, _) = bytes.as_chunks::<{ ObjectId::BYTES }>();
        ids.iter().map(|id| ObjectId::from_bytes(*id)).collect()
    }

    /// No memory of the store is mapped in a forked child. One load.
    #[inline]
    fn assert_process(&self) {
        if self.usage.is_child() {
            self.refuse_child();
        }
    }

    #[cold]
    fn refuse_child(&self) -> ! {
        panic!(
            "object {} belongs to the parent process: the memory of the store is not mapped in a forked child, \
             which must connect for itself",
            self.usage.id()
        );
    }
}

impl Deref for Object {
    type Target = [u8];

    #[inline]
    fn deref(&self) -> &[u8] {
        self.assert_process();
        // SAFETY: `pointer..pointer + length` was found to lie inside a mapping, when it was allocated or located. The
        // counted use keeps that mapping: an owner does not give back a segment in which an entry has memory, and lets no
        // object go from its memory of which bytes are in use; a reader keeps the segment of which it lends out bytes. A forked
        // child, in which none of that is mapped, has panicked. The bytes are initialised: the file's zeros, or what was
        // written. The object was sealed, and the use keeps it pinned: its owner neither writes nor reuses the memory. Its own
        // client's writers end when they seal; every other process has it mapped read-only. Or the pointer points into
        // `copied`, which has as many bytes behind it, and which this object keeps and nobody changes.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.length) }
    }
}

impl AsRef<[u8]> for Object {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Clone for Object {
    #[inline]
    fn clone(&self) -> Self {
        let Self { pointer, length, format, references, .. } = *self;
        let (usage, copied) = (self.usage.again_or_panic(Use::Bytes), self.copied.clone());
        Self { usage, pointer, length, format, references, copied }
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("id", &self.id()).field("bytes", &self.length).finish()
    }
}

impl From<Object> for bytes::Bytes {
    /// The same bytes, without a copy; they keep the object alive.
    fn from(object: Object) -> Self {
        bytes::Bytes::from_owner(object)
    }
}
