//! A counted reference to an object of this client or of a peer. Handles, objects and writers consist of one.
//!
//! A [`Reference`] has no `Arc` of anything: it points to its count, and to the owner or the slot that the count is a
//! part of. They stay valid because the reference is counted: a client keeps itself while it is used
//! ([`owner`](crate::owner)), and a peer keeps its client while it is used ([`slot`](crate::reader::slot)). So a clone
//! is one compare-and-swap, and so is a drop.
//!
//! This file distinguishes own objects from those of peers for all fast paths: code above it asks the reference. Slow
//! paths that do different things for the two match on [`Source`]: restoring and copying spilled objects, and breaking
//! a promise.

use std::mem::ManuallyDrop;
use std::ptr::NonNull;

use mobula_protocol::id::ObjectId;
use mobula_shm::fork::ForkGuard;
use mobula_shm::table::State;

use crate::counting::count::{Count, Kind, TooMany};
use crate::counting::raw::RawReference;
use crate::error::ClientError;
use crate::located::Located;
use crate::owner::{Owner, ReferencesToEnd};
use crate::reader::peer::Peer;
use crate::reader::peers::Peers;
use crate::reader::segment::PeerSegment;
use crate::reader::slot::Slot;

/// A counted reference; dropping it ends it.
pub(crate) struct Reference(RawReference);

/// The owner of the object of a reference.
#[derive(Clone, Copy)]
pub(crate) enum Source<'a> {
    /// This client.
    Own(&'a Owner),
    /// Another client.
    Peer(&'a Peer),
}

// A `RawReference` may be used by any thread, and promises that of its source.
const _: () = {
    const fn is_shareable<T: Send + Sync>() {}
    is_shareable::<Owner>();
    is_shareable::<Slot>();
    is_shareable::<Peer>();
    is_shareable::<PeerSegment>();
    is_shareable::<Count>();
};

// A panic leaves no reference half counted, and sealed bytes do not change at all.
impl std::panic::UnwindSafe for Reference {}
impl std::panic::RefUnwindSafe for Reference {}

impl Reference {
    /// Counts a reference to an object, and pins it if it is the first. Look at its [`state`](Self::state) before
    /// anything else. Memory operations only, except for the first object of a peer.
    ///
    /// # Errors
    /// [`ClientError::NoSuchObject`]; [`ClientError::TooManyReferences`]; [`ClientError::ForkedChild`].
    #[inline]
    pub(crate) fn acquire(
        owner: &Owner,
        peers: &Peers,
        object: ObjectId,
        kind: Kind,
    ) -> Result<Self, ClientError> {
        if object.owner() == owner.id() {
            return owner.acquire(object, kind).map(Self);
        }
        owner.check_process()?;
        peers.acquire(object, kind).map(Self)
    }

    /// As [`acquire`](Self::acquire), for a borrow. Also finds the bytes of a sealed object; for any other object, its
    /// state takes their place.
    #[inline]
    pub(crate) fn borrow(
        owner: &Owner,
        peers: &Peers,
        object: ObjectId,
    ) -> Result<(Self, Result<Located, State>), ClientError> {
        let (reference, located) = if object.owner() == owner.id() {
            (owner.acquire(object, Kind::Borrow)?, None)
        } else {
            owner.check_process()?;
            peers.borrow(object)?
        };
        let borrow = Self(reference);
        let located = match located {
            Some(located) => Ok(located),
            None => match borrow.state()? {
                State::Sealed => Ok(borrow.locate()?),
                other => Err(other),
            },
        };
        Ok((borrow, located))
    }

    /// The reference that is this plain data: it ends when it is dropped.
    #[inline]
    pub(crate) fn of_raw(reference: RawReference) -> Self {
        Self(reference)
    }

    /// One more reference to the same object.
    ///
    /// # Errors
    /// [`ClientError::TooManyReferences`].
    #[inline]
    pub(crate) fn again(&self, kind: Kind) -> Result<Self, ClientError> {
        // In a forked child the counts and pins belong to the parent, and nothing is counted.
        if !self.is_child() && !self.0.count().add(kind) {
            self.acquire_again(kind).map_err(|too_many| too_many.of(self.id()))?;
        }
        // SAFETY: it was just counted; in a forked child, where nothing is ever freed, both stay in any case.
        Ok(Self(unsafe { self.0.again(kind) }))
    }

    /// As [`again`](Self::again), for operations that have no error to return.
    ///
    /// # Panics
    /// When as many references of the kind are counted as can be.
    #[inline]
    pub(crate) fn again_or_panic(&self, kind: Kind) -> Self {
        self.again(kind).unwrap_or_else(|error| panic!("{error}"))
    }

    // ---- the object ----

    #[inline]
    pub(crate) fn id(&self) -> ObjectId {
        let owner = match self.source() {
            Source::Own(owner) => owner.id(),
            Source::Peer(peer) => peer.id,
        };
        ObjectId::new(owner, self.0.index(), self.0.generation())
    }

    /// The owner of the object, which stays at least as long as this reference.
    #[inline]
    pub(crate) fn source(&self) -> Source<'_> {
        if self.0.is_own() {
            // SAFETY: the owner made the pointer of itself, and this reference keeps the client.
            Source::Own(unsafe { self.0.source().cast::<Owner>().as_ref() })
        } else {
            // SAFETY: this reference keeps the slot, and is a user of it.
            Source::Peer(unsafe { self.slot().as_ref().peer() })
        }
    }

    /// `Sealed`, `Promised`, `Lost` or `Spilled`; every other state is an error. Whether an object is sealed or spilled
    /// changes, unless this is a borrow: an object that a borrow finds sealed stays so.
    #[inline]
    pub(crate) fn state(&self) -> Result<State, ClientError> {
        match self.source() {
            Source::Own(owner) => owner.table.settled_state(self.id()),
            Source::Peer(peer) => peer.settled_state(self.id()),
        }
    }

    /// Where the bytes lie. This must be a borrow of a sealed object. The bytes stay there while there is a borrow.
    ///
    /// # Errors
    /// [`ClientError::Corrupt`]; for the first object of a segment also the daemon's and the system's.
    #[inline]
    pub(crate) fn locate(&self) -> Result<Located, ClientError> {
        assert!(self.0.kind() == Kind::Borrow);
        match self.source() {
            Source::Own(owner) => owner.locate(self.id()),
            // SAFETY: this reference keeps the slot, and is counted as a borrow of a sealed object in it.
            Source::Peer(_) => unsafe { self.slot().as_ref().locate(self.id()) },
        }
    }

    /// Whether anyone else keeps the object beside `expected` references of this process; `true` for objects of peers,
    /// and in a forked child.
    pub(crate) fn is_held_elsewhere(&self, expected: u64) -> bool {
        if self.is_child() {
            return true;
        }
        match self.source() {
            Source::Own(owner) => owner.is_held_elsewhere(self.0.index(), self.0.count(), expected),
            Source::Peer(_) => true,
        }
    }

    /// Whether this process is a forked child of the one that counts the reference. Costs one load.
    #[inline]
    pub(crate) fn is_child(&self) -> bool {
        self.guard().is_child()
    }

    // ---- its end ----

    /// The reference as plain data, which does not end by itself.
    pub(crate) fn into_raw(self) -> RawReference {
        let this = ManuallyDrop::new(self);
        // SAFETY: this takes the only field out of a value that is neither dropped nor used any more.
        unsafe { std::ptr::read(&this.0) }
    }

    /// Ends a reference that is plain data. The references of an object that is freed by this join those to end.
    pub(crate) fn end_raw(reference: RawReference, to_end: &mut ReferencesToEnd) {
        ManuallyDrop::new(Self(reference)).release(to_end);
    }

    /// Called once, and last.
    #[inline]
    fn release(&mut self, to_end: &mut ReferencesToEnd) {
        // In a forked child the pins belong to the parent.
        if !self.is_child() && !self.0.count().sub(self.0.kind()) {
            self.release_last(to_end);
        }
    }

    /// Ends the last reference of its kind. The owner or the slot may be gone as soon as it has ended.
    fn release_last(&self, to_end: &mut ReferencesToEnd) {
        let (index, kind) = (self.0.index(), self.0.kind());
        if self.0.is_own() {
            let owner = self.0.source().cast::<Owner>();
            // SAFETY: this reference is counted there, and ends here, once.
            drop(unsafe { Owner::release_last(owner, index, self.0.count_pointer(), kind, to_end) });
        } else {
            // SAFETY: this reference is counted there, and ends here, once.
            drop(unsafe { Slot::release(self.slot(), index, kind) });
        }
    }

    // ---- its count ----

    /// Counts the first reference of another kind.
    fn acquire_again(&self, kind: Kind) -> Result<(), TooMany> {
        match self.source() {
            Source::Own(owner) => {
                let is_counted = owner.acquire_first(self.0.index(), self.0.count(), kind)?;
                debug_assert!(is_counted, "an object in use is known");
                Ok(())
            }
            Source::Peer(_) => {
                // SAFETY: this reference keeps the slot.
                let slot = unsafe { self.slot().as_ref() };
                slot.acquire_again(self.0.index(), self.0.count(), kind)
            }
        }
    }

    #[inline]
    fn guard(&self) -> ForkGuard {
        if self.0.is_own() {
            // SAFETY: the owner made the pointer of itself, and this reference keeps the client.
            unsafe { self.0.source().cast::<Owner>().as_ref() }.guard
        } else {
            // SAFETY: this reference keeps the slot.
            unsafe { self.slot().as_ref() }.guard
        }
    }

    /// The slot of the peer's object, which made the pointer of itself.
    #[inline]
    fn slot(&self) -> NonNull<Slot> {
        debug_assert!(!self.0.is_own());
        self.0.source().cast()
    }
}

impl Clone for Reference {
    /// # Panics
    /// When as many references of its kind are counted as can be: see [`ClientError::TooManyReferences`].
    #[inline]
    fn clone(&self) -> Self {
        self.again_or_panic(self.0.kind())
    }
}

impl Drop for Reference {
    #[inline]
    fn drop(&mut self) {
        let mut to_end = ReferencesToEnd::new();
        self.release(&mut to_end);
        if !to_end.is_empty() {
            end_all(to_end);
        }
    }
}

/// Ends references, then the references that the freed objects kept, and so on. There is no recursion, because chains
/// of objects can be long.
#[cold]
fn end_all(mut to_end: ReferencesToEnd) {
    while let Some(reference) = to_end.pop() {
        Reference::end_raw(reference, &mut to_end);
    }
}
