//! One counted use of an object: what a handle, an object and a writer consist of.
//!
//! A [`Usage`] has no `Arc` of anything: it points to its count, and to the client or the slot that the count is part
//! of. What it points to stays because it is counted: a client keeps itself while it is used ([`owner`](crate::owner)), and
//! so does a peer, with its client ([`peer`](crate::reader::peer)). So a clone is one compare-and-swap, and so is a drop.

use std::fs::File;
use std::mem::ManuallyDrop;
use std::ptr::NonNull;
use std::sync::Arc;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::{Refusal, Reply, Request};
use mobula_shm::table::{ENTRIES_MAX, Location, State};

use crate::counting::count::{Count, TooMany, Use};
use crate::error::ClientError;
use crate::object::Handle;
use crate::owner::{Begun, Own, Place};
use crate::reader::peer::{Peer, PeerSegment, Slot};
use crate::shared::Shared;
use crate::spill::copy::Copied;

/// A counted use; dropping it ends it.
///
/// A program with a million objects has a million of these: so the object's owner, which the view knows, is not noted,
/// and what is needed to tell its kind lies in bits that no index has.
pub(crate) struct Usage {
    /// A `Shared`, or a `Slot`.
    view: NonNull<()>,
    count: NonNull<Count>,
    /// The generation above, and below it whether the view is a `Shared`, the kind, and the index. One word, because a
    /// half that was just written cannot be read as part of a whole without waiting for it.
    entry: u64,
}

const _: () = assert!(size_of::<Usage>() == 24);

const GENERATION_SHIFT: u32 = 32;
const OWN: u64 = 1 << 31;
const KIND_SHIFT: u32 = 22;
const KIND: u64 = 3 << KIND_SHIFT;
const INDEX: u64 = (1 << KIND_SHIFT) - 1;
const _: () = assert!(ENTRIES_MAX as u64 <= INDEX + 1 && (Use::Wait as u64) << KIND_SHIFT <= KIND);

/// Whose object it is.
#[derive(Clone, Copy)]
enum View {
    Own(NonNull<Shared>),
    Peer(NonNull<Slot>),
}

// SAFETY: what it points to, and reaches through raw pointers there, is `Send` and `Sync`, which the compiler checks
// below; and it stays until the use ends, in whatever thread that is.
unsafe impl Send for Usage {}
// SAFETY: threads that share it only add uses of their own, which the count takes from any thread; and what it points to is
// `Sync`, as above, and stays until the use ends, which takes a `&mut`.
unsafe impl Sync for Usage {}

const _: () = {
    const fn is_shareable<T: Send + Sync>() {}
    is_shareable::<Shared>();
    is_shareable::<Slot>();
    is_shareable::<Peer>();
    is_shareable::<PeerSegment>();
    is_shareable::<Count>();
};

// A panic leaves no use half counted, and sealed bytes do not change at all.
impl std::panic::UnwindSafe for Usage {}
impl std::panic::RefUnwindSafe for Usage {}

impl Usage {
    /// The use of `id` that `count` was just counted up for. A peer's slot must have the owner of `id`.
    #[inline]
    fn new(view: View, count: NonNull<Count>, id: ObjectId, kind: Use) -> Self {
        let (view, own) = match view {
            View::Own(shared) => (shared.cast(), OWN),
            View::Peer(slot) => (slot.cast(), 0),
        };
        // What is counted has an entry, so its index is one.
        debug_assert!(u64::from(id.index()) <= INDEX);
        let place = u64::from(id.index()) | (kind as u64) << KIND_SHIFT | own;
        Self { view, count, entry: u64::from(id.generation()) << GENERATION_SHIFT | place }
    }

    #[inline]
    fn view(&self) -> View {
        if self.is_own() { View::Own(self.view.cast()) } else { View::Peer(self.view.cast()) }
    }

    #[inline]
    fn index(&self) -> u32 {
        (self.entry & INDEX) as u32
    }

    #[inline]
    fn kind(&self) -> Use {
        match (self.entry & KIND) >> KIND_SHIFT {
            0 => Use::Handle,
            1 => Use::Bytes,
            _ => Use::Wait,
        }
    }

    /// Counts a use of an object, and pins it if it is the first; look at its [`state`](Self::state) before anything
    /// else. Memory operations only, except for the first object of an owner.
    #[inline]
    pub(crate) fn acquire(shared: &Arc<Shared>, id: ObjectId, kind: Use) -> Result<Self, ClientError> {
        shared.check_process()?;
        let (view, count) = if id.owner() == shared.own.id {
            let count = shared.own.acquire(id.index(), kind).map_err(|too_many| too_many.of(id))?;
            let count = count.ok_or(ClientError::NoSuchObject { object: id })?;
            (View::Own(NonNull::from(&**shared)), count)
        } else {
            let slot = shared.slot(id.owner().slot());
            let counted = match slot {
                Some(slot) => slot.acquire(id, kind)?.map(|count| (slot, count)),
                None => None,
            };
            let (slot, count) = match counted {
                Some(counted) => counted,
                None => Self::attach_and_acquire(shared, id, kind)?,
            };
            (View::Peer(NonNull::from(slot)), count)
        };
        Ok(Self::new(view, count.into(), id, kind))
    }

    /// One more use of the bytes of another's object that are lent out here already, and where they lie; `None` where
    /// that is not so.
    #[inline]
    pub(crate) fn lend_again(shared: &Shared, id: ObjectId) -> Option<(Self, NonNull<u8>, Location)> {
        if shared.guard.is_child() {
            return None;
        }
        let slot = shared.slot(id.owner().slot())?;
        let (count, pointer, location) = slot.lend_again(id)?;
        let usage = Self::new(View::Peer(NonNull::from(slot)), count.into(), id, Use::Bytes);
        Some((usage, pointer, location))
    }

    #[cold]
    fn attach_and_acquire(
        shared: &Arc<Shared>,
        id: ObjectId,
        kind: Use,
    ) -> Result<(&Slot, &Count), ClientError> {
        let no_such_object = || ClientError::NoSuchObject { object: id };
        // The peer is kept until the use is counted.
        let _peer = match shared.peer(id.owner()) {
            Err(ClientError::Refused(Refusal::NoSuchOwner { .. })) => return Err(no_such_object()),
            peer => peer?,
        };
        let slot = shared.slot(id.owner().slot()).ok_or_else(no_such_object)?;
        let count = slot.acquire(id, kind)?.ok_or_else(no_such_object)?;
        Ok((slot, count))
    }

    /// Begins an object of so many bytes and references, and is its first use.
    #[inline]
    pub(crate) fn begin(
        shared: &Arc<Shared>,
        length: u64,
        references: u32,
        kind: Use,
    ) -> Result<(Self, Option<Place>), ClientError> {
        let Begun { index, generation, count, place } = shared.begin(length, references, kind)?;
        let id = ObjectId::new(shared.own.id, index, generation);
        Ok((Self::new(View::Own(NonNull::from(&**shared)), count.into(), id, kind), place))
    }

    /// One more use of the same object.
    ///
    /// # Errors
    /// [`ClientError::TooManyUses`].
    #[inline]
    pub(crate) fn again(&self, kind: Use) -> Result<Self, ClientError> {
        // In a forked child the counts and pins belong to the parent, and nothing is counted.
        if !self.is_child() && !self.count().add(kind) {
            self.acquire_again(kind).map_err(|too_many| too_many.of(self.id()))?;
        }
        let entry = self.entry & !KIND | (kind as u64) << KIND_SHIFT;
        Ok(Self { view: self.view, count: self.count, entry })
    }

    /// As [`again`](Self::again), for operations that have no error to return.
    ///
    /// # Panics
    /// When there are as many uses of the kind as can be counted.
    #[inline]
    pub(crate) fn again_or_panic(&self, kind: Use) -> Self {
        self.again(kind).unwrap_or_else(|error| panic!("{error}"))
    }

    /// The first use of its kind.
    fn acquire_again(&self, kind: Use) -> Result<(), TooMany> {
        match self.view() {
            View::Own(shared) => {
                // SAFETY: this use keeps the client.
                let own = &unsafe { shared.as_ref() }.own;
                let counted = own.acquire_first(self.index(), self.count(), kind)?;
                debug_assert!(counted, "an object in use is known");
                Ok(())
            }
            // SAFETY: this use keeps the slot.
            View::Peer(slot) => unsafe { slot.as_ref() }.acquire_again(self.index(), self.count(), kind),
        }
    }

    #[inline]
    pub(crate) fn id(&self) -> ObjectId {
        let owner = match self.view() {
            // SAFETY: this use keeps the client.
            View::Own(shared) => unsafe { shared.as_ref() }.own.id,
            // SAFETY: this use keeps the slot, and is counted as one of an object in it.
            View::Peer(slot) => unsafe { slot.as_ref().owner() },
        };
        ObjectId::new(owner, self.index(), (self.entry >> GENERATION_SHIFT) as u32)
    }

    pub(crate) fn is_own(&self) -> bool {
        self.entry & OWN != 0
    }

    /// Whether this process is a forked child of the one that counts the use. One load.
    #[inline]
    pub(crate) fn is_child(&self) -> bool {
        match self.view() {
            // SAFETY: this use keeps the client.
            View::Own(shared) => unsafe { shared.as_ref() }.guard.is_child(),
            // SAFETY: this use keeps the slot.
            View::Peer(slot) => unsafe { slot.as_ref() }.guard.is_child(),
        }
    }

    #[inline]
    pub(crate) fn shared(&self) -> &Shared {
        match self.view() {
            // SAFETY: this use keeps the client.
            View::Own(shared) => unsafe { shared.as_ref() },
            // SAFETY: this use keeps the slot, and is counted as one of an object in it.
            View::Peer(slot) => unsafe { slot.as_ref().shared() },
        }
    }

    /// `Sealed`, `Promised`, `Lost` or `Spilled`; everything else is an error. Whether an object is sealed or spilled
    /// changes, unless this is a use of kind `Bytes`: then one that is found sealed stays so.
    #[inline]
    pub(crate) fn state(&self) -> Result<State, ClientError> {
        let object = self.id();
        match self.view() {
            // SAFETY: this use keeps the slot, and is counted as one of an object in it.
            View::Peer(slot) => unsafe { slot.as_ref().state(object) },
            View::Own(shared) => {
                // SAFETY: this use keeps the client.
                let word = unsafe { shared.as_ref() }.own.word(object.index());
                if word.generation() != object.generation() {
                    return Err(ClientError::NoSuchObject { object });
                }
                match word.state() {
                    Some(state @ (State::Sealed | State::Promised | State::Lost | State::Spilled)) => {
                        Ok(state)
                    }
                    // In use, it is not being freed: it is about to be spilled, or stays.
                    Some(State::Dying) => Ok(State::Sealed),
                    Some(State::Deleted) => Err(ClientError::Deleted { object }),
                    Some(State::Free) | None => Err(ClientError::NoSuchObject { object }),
                }
            }
        }
    }

    /// Has a spilled object brought back into memory: by this thread, or by its owner at the daemon's request. This must be
    /// a use of kind `Bytes`, so that it stays there.
    ///
    /// # Errors
    /// As [`crate::spill::restore`].
    #[cold]
    pub(crate) fn restore(&self) -> Result<(), ClientError> {
        assert!(self.kind() == Use::Bytes);
        let (shared, object) = (self.shared(), self.id());
        if self.is_own() {
            let shared = shared.own.client().ok_or(ClientError::StoreLost)?;
            return crate::spill::restore(&shared, object);
        }
        let timeout = shared.lease_timeout;
        let request = Request::Restore { object, timeout_ms: timeout.as_millis() as u64 };
        shared.connection.request_within("bring a spilled object back", &request, timeout)?;
        Ok(())
    }

    /// Reads a spilled object into this process's own memory, because it cannot be brought back; `None` if it is back by now.
    /// This must be a use of kind `Bytes`, so that its file stays.
    ///
    /// # Errors
    /// As [`Copied::read`]; what can go wrong with the daemon.
    #[cold]
    pub(crate) fn copy_spilled(&self) -> Result<Option<(Arc<Copied>, Location)>, ClientError> {
        assert!(self.kind() == Use::Bytes);
        let object = self.id();
        let (location, file, offset) = match self.view() {
            View::Own(shared) => {
                // SAFETY: this use keeps the client.
                let own = &unsafe { shared.as_ref() }.own;
                let Some((location, place)) = own.spilled(object) else { return Ok(None) };
                let Some(file) = own.spills.file(place.file()) else { return Ok(None) };
                (location, file, place.offset())
            }
            View::Peer(slot) => {
                let request = Request::OpenSpilled { object };
                let answer = self.shared().connection.request("open a spilled object", &request)?;
                let offset = match answer.reply {
                    Reply::SpillFileOpened { offset } => offset,
                    Reply::Done {} => return Ok(None),
                    other => return Err(ClientError::BadReply(format!("{other:?}"))),
                };
                let [descriptor] = answer.descriptors()?;
                // SAFETY: this use keeps the slot, and is counted as one of an object in it.
                let location = unsafe { slot.as_ref().location(object) };
                (location, Arc::new(File::from(descriptor)), offset)
            }
        };
        Copied::read(object, &location, &file, offset).map(|copied| Some((copied, location)))
    }

    /// Where the bytes lie, and what they are. They stay there for as long as there is a use of kind `Bytes`, which
    /// this one must be, of an object that is sealed.
    ///
    /// # Errors
    /// [`ClientError::Corrupt`]; for the first object of a segment also what can go wrong with the daemon.
    #[inline]
    pub(crate) fn locate(&self) -> Result<(NonNull<u8>, Location), ClientError> {
        assert!(self.kind() == Use::Bytes);
        match self.view() {
            // SAFETY: this use keeps the slot, and is counted as a use of kind `Bytes` of a sealed object in it.
            View::Peer(slot) => unsafe { slot.as_ref().locate(self.id()) },
            View::Own(shared) => {
                // SAFETY: this use keeps the client.
                let located = unsafe { shared.as_ref() }.own.locate(self.index());
                located.ok_or(ClientError::Corrupt { object: self.id() })
            }
        }
    }

    /// Whether anybody else keeps the object beside `expected` handles of this process; `true` for objects of others, and
    /// in a forked child.
    pub(crate) fn is_held_elsewhere(&self, expected: u64) -> bool {
        if self.is_child() {
            return true;
        }
        match self.view() {
            View::Peer(_) => true,
            View::Own(shared) => {
                // SAFETY: this use keeps the client.
                let own = &unsafe { shared.as_ref() }.own;
                own.is_held_elsewhere(self.index(), self.count(), expected)
            }
        }
    }

    /// Ends the use; what an object kept that was freed by this goes to `garbage`.
    pub(crate) fn end(self, garbage: &mut Vec<Handle>) {
        ManuallyDrop::new(self).release(garbage);
    }

    #[inline]
    fn count(&self) -> &Count {
        // SAFETY: the count is part of what this use keeps.
        unsafe { self.count.as_ref() }
    }

    /// Called once, and last.
    #[inline]
    fn release(&mut self, garbage: &mut Vec<Handle>) {
        // In a forked child the pins belong to the parent.
        if !self.is_child() && !self.count().sub(self.kind()) {
            self.release_last(garbage);
        }
    }

    /// The last use of its kind. What this points to may be gone as soon as the use has ended.
    fn release_last(&self, garbage: &mut Vec<Handle>) {
        match self.view() {
            View::Own(shared) => {
                // SAFETY: this use keeps the client, of which this is a part, until it is ended below.
                let own = NonNull::from(unsafe { &(*shared.as_ptr()).own });
                // SAFETY: this use is counted there, and ends here, once.
                drop(unsafe { Own::release_last(own, self.index(), self.count, self.kind(), garbage) });
            }
            // SAFETY: this use is counted there, and ends here, once.
            View::Peer(slot) => drop(unsafe { Slot::release(slot, self.index(), self.kind()) }),
        }
    }
}

impl Clone for Usage {
    /// # Panics
    /// When there are as many uses of its kind as can be counted: see [`ClientError::TooManyUses`].
    #[inline]
    fn clone(&self) -> Self {
        self.again_or_panic(self.kind())
    }
}

impl Drop for Usage {
    #[inline]
    fn drop(&mut self) {
        let mut garbage = Vec::new();
        self.release(&mut garbage);
        if !garbage.is_empty() {
            crate::object::drop_all(garbage);
        }
    }
}
