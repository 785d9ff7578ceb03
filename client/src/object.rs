//! Objects in use: [`Object`] lends out sealed bytes where they lie, [`Handle`] only keeps an object alive.
//!
//! Both are counted privately to the process; the first use of an object pins it, the last one takes the pin back (and
//! frees the object, where this client owns it). Cloning and dropping are memory operations.

use std::fmt;
use std::ops::Deref;
use std::ptr::NonNull;
use std::sync::Arc;

use mobula_protocol::id::ObjectId;
use mobula_shm::mapping::WriteMapping;
use mobula_shm::table::{Location, State};

use crate::counts::Use;
use crate::error::ClientError;
use crate::peer::{Peer, PeerSegment};
use crate::shared::Shared;

/// Whose object it is.
#[derive(Clone)]
pub(crate) enum Holder {
    Own(Arc<Shared>),
    Peer(Arc<Peer>),
}

impl Holder {
    pub(crate) fn of(shared: &Arc<Shared>, object: ObjectId) -> Result<Self, ClientError> {
        shared.check_process()?;
        if object.owner() == shared.own.id {
            return Ok(Self::Own(shared.clone()));
        }
        match shared.peer(object.owner()) {
            Ok(peer) => Ok(Self::Peer(peer)),
            Err(ClientError::Refused(mobula_protocol::message::Refusal::NoSuchOwner { .. })) => {
                Err(ClientError::NoSuchObject { object })
            }
            Err(error) => Err(error),
        }
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        match self {
            Self::Own(shared) => shared,
            Self::Peer(peer) => &peer.shared,
        }
    }

    /// Pins; the state is `Sealed`, `Promised` or `Lost`.
    pub(crate) fn acquire(&self, object: ObjectId, kind: Use) -> Result<State, ClientError> {
        match self {
            Self::Peer(peer) => peer.acquire(object, kind),
            Self::Own(shared) => {
                let own = &shared.own;
                if object.index() >= own.entries_committed() {
                    return Err(ClientError::NoSuchObject { object });
                }
                own.acquire(object.index(), kind);
                self.state(object).inspect_err(|_| self.release(object, kind))
            }
        }
    }

    pub(crate) fn state(&self, object: ObjectId) -> Result<State, ClientError> {
        match self {
            Self::Peer(peer) => peer.settled_state(object),
            Self::Own(shared) => {
                let word = shared.own.word(object.index());
                if word.generation() != object.generation() {
                    return Err(ClientError::NoSuchObject { object });
                }
                match word.state() {
                    // Only this process makes it dying, and never while it is used here.
                    Some(State::Dying) => Ok(State::Sealed),
                    Some(state @ (State::Sealed | State::Promised | State::Lost)) => Ok(state),
                    Some(State::Deleted) => Err(ClientError::Deleted { object }),
                    Some(State::Free) | None => Err(ClientError::NoSuchObject { object }),
                }
            }
        }
    }

    fn acquire_again(&self, object: ObjectId, kind: Use) {
        // As in `release_into`.
        if self.shared().guard.is_child() {
            return;
        }
        match self {
            Self::Own(shared) => shared.own.acquire(object.index(), kind),
            Self::Peer(peer) => peer.acquire_again(object.index(), kind),
        }
    }

    pub(crate) fn release(&self, object: ObjectId, kind: Use) {
        let mut garbage = Vec::new();
        self.release_into(object, kind, &mut garbage);
        drop_all(garbage);
    }

    fn release_into(&self, object: ObjectId, kind: Use, garbage: &mut Vec<Handle>) {
        // In a forked child the pins belong to the parent.
        if self.shared().guard.is_child() {
            return;
        }
        match self {
            Self::Own(shared) => shared.own.release(object.index(), kind, garbage),
            Self::Peer(peer) => peer.release(object.index(), kind),
        }
    }
}

/// Drops handles and what they alone kept, and so on, without recursion: chains of objects can be long.
pub(crate) fn drop_all(mut garbage: Vec<Handle>) {
    while let Some(handle) = garbage.pop() {
        let (holder, id) = handle.into_parts();
        holder.release_into(id, Use::Handle, &mut garbage);
    }
}

/// Keeps an object alive without mapping its bytes.
///
/// Clone and drop are memory operations; the object is freed when no process has a handle or its bytes any more.
pub struct Handle {
    holder: Holder,
    id: ObjectId,
}

impl Handle {
    pub(crate) fn hold(shared: &Arc<Shared>, id: ObjectId) -> Result<Self, ClientError> {
        let holder = Holder::of(shared, id)?;
        holder.acquire(id, Use::Handle)?;
        Ok(Self { holder, id })
    }

    /// Takes over a use of kind `Handle` that is already counted.
    pub(crate) fn adopt(holder: Holder, id: ObjectId) -> Self {
        Self { holder, id }
    }

    fn into_parts(self) -> (Holder, ObjectId) {
        let this = std::mem::ManuallyDrop::new(self);
        let holder = &raw const this.holder;
        // SAFETY: `this` is never dropped and not used again, so the holder is moved out exactly once.
        (unsafe { holder.read() }, this.id)
    }

    /// Its id.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// Whether its bytes are there: `false` while it is promised. One load.
    ///
    /// # Errors
    /// [`ClientError::ForkedChild`] in a forked child;
    /// [`ClientError::Lost`] when it never will be.
    pub fn is_ready(&self) -> Result<bool, ClientError> {
        self.holder.shared().check_process()?;
        match self.holder.state(self.id) {
            Ok(State::Promised) => Ok(false),
            Ok(State::Lost) => Err(ClientError::Lost { object: self.id }),
            // Deleted for others; who holds it keeps it.
            Ok(_) | Err(ClientError::Deleted { .. }) => Ok(true),
            Err(error) => Err(error),
        }
    }

    /// Its bytes. Memory operations only, once a segment is mapped; the first object of a segment costs a round trip.
    ///
    /// # Errors
    /// [`ClientError::NotReady`] while it is promised, [`ClientError::Lost`] when it never will be there.
    pub fn object(&self) -> Result<Object, ClientError> {
        match self.is_ready()? {
            true => {
                self.holder.acquire_again(self.id, Use::Bytes);
                Object::locate(self.holder.clone(), self.id)
            }
            false => Err(ClientError::NotReady { object: self.id }),
        }
    }

    /// Says in this client's pin that a thread is going to sleep until the promised object is there: its owner then
    /// rings this client's bell. Look at [`is_ready`](Self::is_ready) once more before sleeping.
    pub fn watch(&self) -> Watch {
        self.holder.acquire_again(self.id, Use::Wait);
        Watch { handle: self.clone() }
    }

    /// Whether anybody else, in this process or another, keeps the object beside `own_handles` handles of this
    /// process. Only its owner can tell: `true` for objects of others.
    pub fn is_held_elsewhere(&self, own_handles: u64) -> bool {
        match &self.holder {
            Holder::Own(shared) => shared.own.is_held_elsewhere(self.id.index(), own_handles),
            Holder::Peer(_) => true,
        }
    }
}

/// While it lives, the owner of a promised object rings this client when the promise is settled.
#[derive(Debug)]
pub struct Watch {
    handle: Handle,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.handle.holder.release(self.handle.id, Use::Wait);
    }
}

impl Clone for Handle {
    fn clone(&self) -> Self {
        self.holder.acquire_again(self.id, Use::Handle);
        Self { holder: self.holder.clone(), id: self.id }
    }
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.holder.release(self.id, Use::Handle);
    }
}

impl fmt::Debug for Handle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Handle").field(&self.id).finish()
    }
}

/// What keeps an object's bytes mapped.
#[derive(Clone)]
enum Mapped {
    Nothing,
    Own(Arc<WriteMapping>),
    Peer(Arc<PeerSegment>),
}

impl Mapped {
    fn pointer(&self, offset: u64, len: usize) -> NonNull<u8> {
        match self {
            Self::Nothing => dangling(),
            Self::Own(mapping) => mapping.pointer(offset as usize, len),
            Self::Peer(segment) => segment.mapping.pointer(offset as usize, len),
        }
    }
}

/// Where empty slices point: not null, aligned as everything else.
pub(crate) fn dangling() -> NonNull<u8> {
    NonNull::without_provenance(std::num::NonZeroUsize::new(64).expect("not zero"))
}

/// Sealed bytes, read where they lie; derefs to `&[u8]`, 64-byte aligned.
///
/// The bytes never change, and the memory stays while the object (or a clone, or a `Bytes` or `Buffer` made from it)
/// lives, whatever happens to its owner or the daemon. Clone and drop are memory operations.
pub struct Object {
    holder: Holder,
    id: ObjectId,
    pointer: NonNull<u8>,
    location: Location,
    mapped: Mapped,
}

// SAFETY: an object gives out shared access to bytes that nobody writes while it lives (see `deref`), and its parts are
// themselves Send and Sync.
unsafe impl Send for Object {}
// SAFETY: as above.
unsafe impl Sync for Object {}

// A panic leaves no object half changed: sealed bytes do not change at all.
impl std::panic::UnwindSafe for Object {}
impl std::panic::RefUnwindSafe for Object {}
impl std::panic::UnwindSafe for Handle {}
impl std::panic::RefUnwindSafe for Handle {}

impl Object {
    pub(crate) fn get(shared: &Arc<Shared>, id: ObjectId) -> Result<Self, ClientError> {
        let holder = Holder::of(shared, id)?;
        match holder.acquire(id, Use::Bytes)? {
            State::Sealed => Self::locate(holder, id),
            State::Lost => {
                holder.release(id, Use::Bytes);
                Err(ClientError::Lost { object: id })
            }
            _ => {
                holder.release(id, Use::Bytes);
                Err(ClientError::NotReady { object: id })
            }
        }
    }

    /// Finds the bytes of an object of which a use of kind `Bytes` is already counted.
    fn locate(holder: Holder, id: ObjectId) -> Result<Self, ClientError> {
        let located = match &holder {
            Holder::Peer(peer) => peer
                .locate(id)
                .map(|(location, segment)| (location, segment.map_or(Mapped::Nothing, Mapped::Peer))),
            Holder::Own(shared) => {
                let location = shared.own.location(id.index());
                match Location::extent(location.length, location.references) {
                    Some(0) => Ok((location, Mapped::Nothing)),
                    _ => match shared.own.mapping(location.segment) {
                        Some(mapping) => Ok((location, Mapped::Own(mapping))),
                        None => Err(ClientError::Corrupt { object: id }),
                    },
                }
            }
        };
        match located {
            Ok((location, mapped)) => {
                let pointer = mapped.pointer(location.offset, location.length as usize);
                Ok(Self { holder, id, pointer, location, mapped })
            }
            Err(error) => {
                holder.release(id, Use::Bytes);
                Err(error)
            }
        }
    }

    /// Takes over a use of kind `Bytes` of an object of one's own that was just sealed.
    pub(crate) fn sealed(
        shared: Arc<Shared>,
        id: ObjectId,
        location: Location,
        mapping: Option<Arc<WriteMapping>>,
    ) -> Self {
        let mapped = mapping.map_or(Mapped::Nothing, Mapped::Own);
        let pointer = mapped.pointer(location.offset, location.length as usize);
        Self { holder: Holder::Own(shared), id, pointer, location, mapped }
    }

    /// Its id, which any process of the same store can get it by.
    pub fn id(&self) -> ObjectId {
        self.id
    }

    /// What its bytes are, in the words of those who put it; 0 for plain bytes.
    pub fn format(&self) -> u32 {
        self.location.format
    }

    /// A handle that keeps it alive without its bytes.
    pub fn handle(&self) -> Handle {
        self.holder.acquire_again(self.id, Use::Handle);
        Handle::adopt(self.holder.clone(), self.id)
    }

    /// The objects that it keeps alive, in the order in which they were given.
    pub fn references(&self) -> Vec<ObjectId> {
        let count = self.location.references as usize;
        if count == 0 {
            return Vec::new();
        }
        self.assert_mapped();
        let start = self.location.references_offset().expect("checked when it was located");
        let len = count * ObjectId::BYTES;
        let pointer = self.mapped.pointer(start, len);
        // SAFETY: inside the mapping (`pointer` checked), which `self` keeps; sealed with the payload, so nobody
        // writes it (see `deref`).
        let bytes = unsafe { std::slice::from_raw_parts(pointer.as_ptr(), len) };
        let (ids, _) = bytes.as_chunks::<{ ObjectId::BYTES }>();
        ids.iter().map(|id| ObjectId::from_bytes(*id)).collect()
    }

    /// One's own memory is not mapped in a forked child.
    fn assert_mapped(&self) {
        assert!(
            !(matches!(self.mapped, Mapped::Own(_)) && self.holder.shared().guard.is_child()),
            "object {} belongs to the parent process: its memory is not mapped in a forked child",
            self.id
        );
    }
}

impl Deref for Object {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.assert_mapped();
        // SAFETY: `pointer..pointer + length` lies inside the mapping (checked when it was made), which `mapped` keeps.
        // The object was sealed, and the counted use keeps it pinned: its owner neither writes nor reuses the memory.
        // Its own client's writers end when they seal; every other process has it mapped read-only.
        unsafe { std::slice::from_raw_parts(self.pointer.as_ptr(), self.location.length as usize) }
    }
}

impl AsRef<[u8]> for Object {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl Clone for Object {
    fn clone(&self) -> Self {
        self.holder.acquire_again(self.id, Use::Bytes);
        Self {
            holder: self.holder.clone(),
            id: self.id,
            pointer: self.pointer,
            location: self.location,
            mapped: self.mapped.clone(),
        }
    }
}

impl Drop for Object {
    fn drop(&mut self) {
        // The mapping outlives the pin: taking the pin back may free and reuse the memory, never unmap it.
        self.holder.release(self.id, Use::Bytes);
    }
}

impl fmt::Debug for Object {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Object").field("id", &self.id).field("bytes", &self.location.length).finish()
    }
}

impl From<Object> for bytes::Bytes {
    /// The same bytes, without a copy; they keep the object alive.
    fn from(object: Object) -> Self {
        bytes::Bytes::from_owner(object)
    }
}

impl From<Object> for arrow_buffer::Buffer {
    /// The same bytes, without a copy; they keep the object alive.
    fn from(object: Object) -> Self {
        Self::from(bytes::Bytes::from(object))
    }
}
