//! An object is in use: references to it begin and end in this process. The last end lets it be freed.

use std::ptr::NonNull;

use mobula_protocol::id::ObjectId;
use mobula_shm::table::{Location, State as ObjectState};

use crate::counting::count::{Count, Kind, TooMany};
use crate::counting::keep_alive::KeepAlive;
use crate::counting::raw::RawReference;
use crate::error::ClientError;
use crate::located::{Located, dangling};
use crate::owner::reclaim::BATCH;
use crate::owner::{Owner, ReferencesToEnd};

/// An object of at least this size is freed at once.
const LARGE_BYTES_MIN: u64 = 64 << 10;

impl Owner {
    /// Counts a reference to an object in any state; an error where there is none. Memory operations only.
    #[inline]
    pub(crate) fn acquire(&self, object: ObjectId, kind: Kind) -> Result<RawReference, ClientError> {
        self.check_process()?;
        let no_such_object = || ClientError::NoSuchObject { object };
        let count = self.table.count(object.index()).ok_or_else(no_such_object)?;
        let is_counted = count.add(kind)
            || self.acquire_first(object.index(), count, kind).map_err(|too_many| too_many.of(object))?;
        if !is_counted {
            return Err(no_such_object());
        }
        // SAFETY: it was just counted, here or by `acquire_first`.
        Ok(unsafe { self.reference(count, object, kind) })
    }

    /// The reference to an object that was just counted.
    ///
    /// # Safety
    /// `count` is the object's, and was counted up for this reference alone.
    #[inline]
    pub(super) unsafe fn reference(&self, count: &Count, object: ObjectId, kind: Kind) -> RawReference {
        let (owner, index, generation) = (NonNull::from(self).cast(), object.index(), object.generation());
        // SAFETY: an owner may be used by any thread. The caller has counted the reference, and a counted one keeps the
        // client, of which owner and count are parts.
        unsafe { RawReference::new(owner, true, count, index, generation, kind) }
    }

    /// Counts the first reference of its kind; `false` where there is nothing.
    pub(crate) fn acquire_first(&self, index: u32, count: &Count, kind: Kind) -> Result<bool, TooMany> {
        let Some(mut busy) = count.lock_known() else { return Ok(false) };
        let is_first = busy.is_unused();
        busy.add(kind)?;
        self.table.set_pin(index, busy.pin_bits());
        if is_first {
            self.state.lock().in_use += 1;
        }
        busy.finish();
        Ok(true)
    }

    /// Where an object lies that is borrowed here.
    ///
    /// # Errors
    /// [`ClientError::Corrupt`].
    pub(crate) fn locate(&self, object: ObjectId) -> Result<Located, ClientError> {
        let location = self.table.location(object.index());
        let corrupt = || ClientError::Corrupt { object };
        let bytes = Location::extent(location.length, location.references).ok_or_else(corrupt)?;
        if bytes == 0 {
            return Ok(Located { pointer: dangling(), location });
        }
        let state = self.state.lock();
        let allocation = state.entries.allocation(object.index()).ok_or_else(corrupt)?;
        Ok(Located { pointer: state.segments.address(allocation, bytes).1, location })
    }

    /// Whether any process has references to the object, beyond `expected` references of this one.
    pub(crate) fn is_held_elsewhere(&self, index: u32, count: &Count, expected: u64) -> bool {
        count.keeping() > expected || self.readers.hold(index)
    }

    /// Refuses new references to an object; `false` if it is not sealed.
    pub(crate) fn delete(&self, object: ObjectId) -> bool {
        let Some(count) = self.table.count(object.index()) else { return false };
        // Busy: it is not being freed meanwhile.
        let Some(busy) = count.lock_known() else { return false };
        let is_deleted = self.table.delete(object);
        busy.finish();
        is_deleted
    }

    /// Ends the last reference of a kind. After the last reference of all, the object can be freed. References that a
    /// freed object kept join those to end.
    ///
    /// The caller drops a returned client when it no longer needs any part of it. If nothing is returned, other threads
    /// may already have ended the client: the last access to it is the store of the count, or the unlocking of the
    /// state.
    ///
    /// # Safety
    /// A reference of this kind to the entry at `index` is counted in `count`, and this call ends it. The count keeps
    /// the client until then, and nothing else needs to.
    pub(crate) unsafe fn release_last(
        owner: NonNull<Self>,
        index: u32,
        count: NonNull<Count>,
        kind: Kind,
        to_end: &mut ReferencesToEnd,
    ) -> Option<KeepAlive> {
        // No reference to any of it is an argument, which would have to be valid until the end.
        //
        // SAFETY: the counted reference keeps the client, of which both are parts, until the count is stored, and the
        // state is unlocked, below. Neither is used after that.
        let (this, count) = unsafe { (owner.as_ref(), count.as_ref()) };
        let mut busy = count.lock();
        busy.sub(kind);
        if !busy.is_unused() {
            this.table.set_pin(index, busy.pin_bits());
            busy.finish();
            return None;
        }
        this.table.set_pin(index, 0);
        let word = this.table.word(index);
        // A client that waits for a deleted object hears that it is gone, once it is: it may be in either list.
        let is_deleted = word.state() == Some(ObjectState::Deleted);
        let mut is_urgent = is_deleted;
        let client = {
            let mut guard = this.state.lock();
            let state = &mut *guard;
            state.in_use -= 1;
            // It was the last reference, for which a closed client was kept.
            let mut client = if state.in_use == 0 { state.keep_alive.take() } else { None };
            if word.state() == Some(ObjectState::Free) {
                // It was reserved and never sealed, or a promise has got its content.
                this.table.vacate(index, word.generation());
                if let Some(allocation) = state.entries.vacate(index, to_end) {
                    state.segments.allocator.free(allocation);
                }
            } else if busy.queue() {
                state.retired.retire.push_back(index);
                let location = this.table.location(index);
                is_urgent |= state.retired.retire.len() >= BATCH
                    || location.length >= LARGE_BYTES_MIN
                    || location.references > 0
                    || state.is_closed
                    // Without leases the background thread does not come by.
                    || !state.segments.are_any();
            }
            if is_urgent && client.is_none() {
                // It cannot be gone yet: it is in use until the lock is free.
                client = this.client.upgrade();
            }
            // Inside the lock: a thread that finds nothing in use also finds this thread done with the count.
            busy.finish();
            client
        };
        let client = client?;
        if is_urgent {
            // SAFETY: the client that was just taken keeps all of its parts, so the owner too.
            let this = unsafe { owner.as_ref() };
            this.reclaim(is_deleted, to_end);
        }
        Some(client)
    }
}
