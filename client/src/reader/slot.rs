//! The references that this process has to the objects of the owner in one client slot.
//!
//! A [`Slot`] lives as long as the client: its counts are found without a lock, and without a reference to the peer.
//! The peer itself [occupies](crate::counting::occupancy) the slot while the slot has *users*: one user while the
//! client knows the peer, and one for each entry in use. The last user to leave takes the peer out, which tells the
//! daemon. Only then can the daemon give the slot to another owner.
//!
//! A peer keeps the client, and with it the slot. So a reference that ends uses the slot only until it has ended.
//!
//! | count of an entry | its `segment` | changed by |
//! |---|---|---|
//! | 0 | none | the first reference: enters the slot, sets the pin |
//! | references, no borrow | none | the first borrow |
//! | references with borrows | none, then the object's segment | a borrower, once; the last borrow takes it out |

use std::ptr::{self, NonNull};
use std::sync::Arc;
use std::sync::atomic::{AtomicPtr, Ordering};

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_shm::control::PIN_BYTES;
use mobula_shm::fork::ForkGuard;
use mobula_shm::prefetch::Lines;
use mobula_shm::table::{ENTRY_BYTES, Location};

use crate::counting::count::{Count, Kind, TooMany};
use crate::counting::lazy::Lazy;
use crate::counting::occupancy::{Guest, Occupancy};
use crate::counting::raw::RawReference;
use crate::error::ClientError;
use crate::located::{Located, dangling};
use crate::reader::peer::Peer;
use crate::reader::segment::PeerSegment;

/// This process's references to the objects of the owner in a slot.
pub(crate) struct Slot {
    pub(crate) guard: ForkGuard,
    entries: Lazy<ObjectReferences>,
    peer: Occupancy<Peer>,
    /// The entries of the last peer's table, and the pins on them.
    table_lines: Lines,
    pin_lines: Lines,
}

/// This process's references to one object.
#[derive(Default)]
struct ObjectReferences {
    count: Count,
    /// The pointer of an `Arc`, or null; the module's documentation has the table.
    segment: AtomicPtr<PeerSegment>,
}

/// Memory and peer that nothing refers to any more. To drop them tells the daemon, which is done after the reference
/// has ended, so that no other thread waits for it. It may also drop the client.
#[must_use]
#[derive(Default)]
pub(crate) struct Released {
    _segment: Option<Arc<PeerSegment>>,
    _peer: Option<Arc<Peer>>,
}

impl Slot {
    pub(crate) fn new(guard: ForkGuard) -> Self {
        Self {
            guard,
            entries: Lazy::new(),
            peer: Occupancy::new(),
            table_lines: Lines::new(ENTRY_BYTES as usize),
            pin_lines: Lines::new(PIN_BYTES as usize),
        }
    }

    /// Becomes a user; `None` when the slot is empty, or about to be.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Guest<'_, Peer>> {
        self.peer.enter()
    }

    /// Makes a peer known; `false` if another peer's objects are still in use. One thread at a time.
    pub(crate) fn install(&self, peer: Arc<Peer>) -> bool {
        let (first_entry, first_pin) = peer.first_places();
        let is_installed = self.peer.install(peer);
        if is_installed {
            self.table_lines.set(first_entry);
            self.pin_lines.set(first_pin);
        }
        is_installed
    }

    /// Lets the peer go once nothing of it is in use; with an id, only the peer of this id.
    pub(crate) fn forget(&self, id: Option<OwnerId>) {
        self.peer.forget(|peer| id.is_none_or(|id| peer.id == id));
    }

    /// Counts a reference to an object in any state. The first reference pins the object. Memory operations only,
    /// except for `attach`. It is called while the object's owner is not the occupant of this slot, and makes it the
    /// occupant.
    ///
    /// # Errors
    /// [`ClientError::NoSuchObject`]; [`ClientError::TooManyReferences`]; those of `attach`.
    #[inline]
    pub(crate) fn acquire(
        &self,
        object: ObjectId,
        kind: Kind,
        attach: impl Fn(&ObjectId) -> Result<(), ClientError>,
    ) -> Result<RawReference, ClientError> {
        self.prefetch(object.index());
        match self.count(object, kind)? {
            // SAFETY: `count` has just counted it.
            Some(entry) => Ok(unsafe { self.reference(entry, object, kind) }),
            None => self.acquire_attached(&object, kind, attach),
        }
    }

    /// Counts a borrow of an object, as [`acquire`](Self::acquire) does. Also finds the bytes of an object that is
    /// borrowed already and sealed.
    #[inline]
    pub(crate) fn borrow(
        &self,
        object: ObjectId,
        attach: impl Fn(&ObjectId) -> Result<(), ClientError>,
    ) -> Result<(RawReference, Option<Located>), ClientError> {
        self.prefetch(object.index());
        match self.borrow_again(object) {
            Some((reference, located)) => Ok((reference, Some(located))),
            None => self.borrow_first(&object, attach).map(|reference| (reference, None)),
        }
    }

    /// Counts a reference of another kind to an object that this process already refers to.
    #[inline]
    pub(crate) fn acquire_again(&self, index: u32, count: &Count, kind: Kind) -> Result<(), TooMany> {
        if count.add(kind) {
            return Ok(());
        }
        let guest = self.enter().expect("an entry in use is a user");
        self.count_first(guest, self.entries.get_or_make(index), index, kind)
    }

    /// Ends a reference; the owner notices by itself. Memory operations only.
    ///
    /// # Safety
    /// A reference of this kind to the entry at `index` is counted, and this call ends it. The count keeps the slot
    /// until then, and nothing else needs to: the slot may be gone when this returns, or when its result is dropped.
    #[inline]
    pub(crate) unsafe fn release(slot: NonNull<Self>, index: u32, kind: Kind) -> Released {
        // SAFETY: the counted reference keeps the slot.
        let entry = unsafe { slot.as_ref() }.entries.get_or_make(index);
        if entry.count.sub(kind) {
            return Released::default();
        }
        // SAFETY: the reference is still counted: it was not taken off the count above.
        unsafe { Self::release_last(slot, index, kind) }
    }

    /// The bytes of an object, checked against the segment's true length. The first borrow from a segment that is not
    /// mapped asks the daemon for it.
    ///
    /// # Safety
    /// A borrow of the object, which is sealed, is counted. The bytes stay mapped for as long as it is.
    #[inline]
    pub(crate) unsafe fn locate(&self, object: ObjectId) -> Result<Located, ClientError> {
        // SAFETY: the counted borrow makes the entry a user, for as long as the caller has it.
        let peer = unsafe { self.peer() };
        let location = peer.location(object.index());
        let corrupt = || ClientError::Corrupt { object };
        let extent = Location::extent(location.length, location.references).ok_or_else(corrupt)?;
        if extent == 0 {
            return Ok(Located { pointer: dangling(), location });
        }
        let entry = self.entries.get_or_make(object.index());
        // SAFETY: a borrow is counted for as long as the caller has it, so the segment is not taken out.
        let segment = match unsafe { entry.segment() } {
            Some(segment) => segment,
            // SAFETY: a borrow is counted, as above, so the segment that is noted here is not taken out.
            None => unsafe { entry.note_segment(peer.segment_of(object, location.segment)?) },
        };
        Ok(Located { pointer: segment.find(&location).ok_or_else(corrupt)?, location })
    }

    /// # Safety
    /// The caller is, or has, a user of the slot for as long as it uses the peer. An entry in use is one.
    #[inline]
    pub(crate) unsafe fn peer(&self) -> &Peer {
        // SAFETY: the caller is, or has, a user of the slot for as long as it uses the peer.
        unsafe { self.peer.occupant() }
    }

    /// Counts one more borrow of an object that is already borrowed and sealed, and finds its bytes; `None` in every
    /// other case.
    #[inline]
    fn borrow_again(&self, object: ObjectId) -> Option<(RawReference, Located)> {
        let entry = self.entries.get(object.index())?;
        if !entry.count.add(Kind::Borrow) {
            return None;
        }
        // SAFETY: a borrow was just counted, so the entry is in use, and its segment is not taken out.
        let (peer, segment) = unsafe { (self.peer(), entry.segment()) };
        if peer.id == object.owner()
            && let Some(segment) = segment
            && peer.is_sealed(object)
        {
            let location = peer.location(object.index());
            if let Some(pointer) = segment.find(&location) {
                // SAFETY: the borrow was counted above.
                let reference = unsafe { self.reference(entry, object, Kind::Borrow) };
                return Some((reference, Located { pointer, location }));
            }
        }
        self.take_back(object.index(), Kind::Borrow);
        None
    }

    /// Prefetches the pin and the entry that the first reference to an object needs, while the processor still waits
    /// for its count.
    #[inline]
    fn prefetch(&self, index: u32) {
        self.table_lines.prefetch(index);
        self.pin_lines.prefetch(index);
    }

    #[cold]
    fn acquire_attached(
        &self,
        object: &ObjectId,
        kind: Kind,
        attach: impl Fn(&ObjectId) -> Result<(), ClientError>,
    ) -> Result<RawReference, ClientError> {
        loop {
            attach(object)?;
            if let Some(entry) = self.count(*object, kind)? {
                // SAFETY: `count` has just counted it.
                return Ok(unsafe { self.reference(entry, *object, kind) });
            }
        }
    }

    // Out of line, so that the usual path needs few registers.
    #[cold]
    fn borrow_first(
        &self,
        object: &ObjectId,
        attach: impl Fn(&ObjectId) -> Result<(), ClientError>,
    ) -> Result<RawReference, ClientError> {
        self.acquire(*object, Kind::Borrow, attach)
    }

    /// The reference to an object that was just counted.
    ///
    /// # Safety
    /// The entry is the object's, and its count was counted up for this reference alone.
    #[inline]
    unsafe fn reference(&self, entry: &ObjectReferences, object: ObjectId, kind: Kind) -> RawReference {
        let (slot, index, generation) = (NonNull::from(self).cast(), object.index(), object.generation());
        // SAFETY: a slot may be used by any thread. The caller has counted the reference, and a counted one keeps the
        // peer, which keeps the client, of which slot and count are parts.
        unsafe { RawReference::new(slot, false, &entry.count, index, generation, kind) }
    }

    #[inline]
    fn count(&self, object: ObjectId, kind: Kind) -> Result<Option<&ObjectReferences>, ClientError> {
        if let Some(entry) = self.entries.get(object.index())
            && entry.count.add(kind)
        {
            // SAFETY: the entry is in use, by the reference just counted at least.
            if unsafe { self.peer() }.id == object.owner() {
                return Ok(Some(entry));
            }
            self.take_back(object.index(), kind);
        }
        self.count_with_pin(object, kind)
    }

    /// Ends a reference that was just counted, because the object proved to be another owner's.
    #[cold]
    fn take_back(&self, index: u32, kind: Kind) {
        // SAFETY: the reference is ended here, once. The slot stays, because the caller's caller keeps the client.
        drop(unsafe { Self::release(NonNull::from(self), index, kind) });
    }

    fn count_with_pin(&self, object: ObjectId, kind: Kind) -> Result<Option<&ObjectReferences>, ClientError> {
        let Some(guest) = self.enter() else { return Ok(None) };
        let peer = guest.occupant();
        if peer.id != object.owner() {
            return Ok(None);
        }
        // Pins beyond the committed entries have no memory.
        if object.index() >= peer.entries_committed() {
            return Err(ClientError::NoSuchObject { object });
        }
        let entry = self.entries.get_or_make(object.index());
        self.count_first(guest, entry, object.index(), kind).map_err(|too_many| too_many.of(object))?;
        Ok(Some(entry))
    }

    /// Counts the first reference of its kind.
    fn count_first(
        &self,
        guest: Guest<'_, Peer>,
        entry: &ObjectReferences,
        index: u32,
        kind: Kind,
    ) -> Result<(), TooMany> {
        let mut busy = entry.count.lock();
        let unused = busy.is_unused();
        busy.add(kind)?;
        // The pin comes before the count: a thread that finds the count above zero relies on the pin.
        if busy.pin_bits() != busy.pin_bits_before() {
            guest.occupant().pins.set(index, busy.pin_bits());
        }
        if unused {
            guest.stay();
        }
        busy.finish();
        Ok(())
    }

    /// # Safety
    /// As [`release`](Self::release).
    unsafe fn release_last(slot: NonNull<Self>, index: u32, kind: Kind) -> Released {
        // Other threads may end the last reference, and with it the slot, as soon as this one has stored the count, or
        // has left. So no reference to any of it is an argument, which would have to be valid until the end.
        //
        // SAFETY: the counted reference keeps the slot until the count is stored below. If that makes the entry unused,
        // the entry's user keeps it until it leaves.
        let this = unsafe { slot.as_ref() };
        let entry = this.entries.get_or_make(index);
        let mut busy = entry.count.lock();
        busy.sub(kind);
        let segment = if kind == Kind::Borrow && busy.is_without(Kind::Borrow) {
            // SAFETY: there is no borrow any more, and there can be none: this thread has the count to itself.
            unsafe { entry.take_segment() }
        } else {
            None
        };
        let unused = busy.is_unused();
        // SAFETY: the entry is a user until it leaves below, or at the end of another reference.
        let pins = &unsafe { this.peer() }.pins;
        if unused {
            pins.clear(index);
        } else if busy.pin_bits() != busy.pin_bits_before() {
            pins.change(index, busy.pin_bits());
        }
        let place = NonNull::from(&this.peer);
        busy.finish();
        let peer = if unused {
            // SAFETY: the entry was in use until now, and so a user, which leaves once. Nothing uses the peer
            // afterwards.
            unsafe { Occupancy::leave(place) }
        } else {
            None
        };
        Released { _segment: segment, _peer: peer }
    }
}

impl ObjectReferences {
    /// # Safety
    /// A borrow is counted for as long as the segment is used.
    #[inline]
    unsafe fn segment(&self) -> Option<&PeerSegment> {
        // SAFETY: null, or the pointer of an `Arc` that `note_segment` stored and that stays while bytes are borrowed.
        // Acquire: pairs with that store.
        unsafe { self.segment.load(Ordering::Acquire).as_ref() }
    }

    /// Notes the segment, unless another thread has.
    ///
    /// # Safety
    /// As [`segment`](Self::segment).
    unsafe fn note_segment(&self, segment: Arc<PeerSegment>) -> &PeerSegment {
        let new = Arc::into_raw(segment).cast_mut();
        let noted = self.segment.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
        if noted.is_err() {
            // SAFETY: it was made a pointer just now, and went nowhere.
            drop(unsafe { Arc::from_raw(new) });
        }
        // SAFETY: the caller has a borrow counted for as long as it uses the segment.
        unsafe { self.segment() }.expect("one was noted")
    }

    /// # Safety
    /// No borrow is counted, and none can be before this returns.
    unsafe fn take_segment(&self) -> Option<Arc<PeerSegment>> {
        let segment = self.segment.load(Ordering::Acquire);
        self.segment.store(ptr::null_mut(), Ordering::Release);
        // SAFETY: `note_segment` made the pointer of an `Arc`; it is taken out once, because this thread alone is at
        // the entry.
        (!segment.is_null()).then(|| unsafe { Arc::from_raw(segment) })
    }
}
