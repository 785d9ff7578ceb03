//! Another owner as this client sees it: its table, our pins on it, and the segments of it that are mapped here.
//!
//! Everything read from the other's table is checked before it is used: the index against what the daemon committed,
//! the location against the true length of the segment.
//!
//! # Slots and peers
//!
//! What this process counts of the objects of an owner stands in the [`Slot`] that the owner has, which lives as long
//! as the client: the counts are found without a lock, and without counting a reference to the peer. The peer itself
//! [occupies](crate::counting::occupancy) the slot while that has *users*: one while the client knows the peer, and one for each entry
//! in use. The last to leave takes the peer out, which tells the daemon; only then can the slot be given to another owner.
//!
//! A peer keeps the client, and with it the slot. So what ends a use refers to the slot only until it has ended it.
//!
//! | entry's count | `segment` | changed by |
//! |---|---|---|
//! | 0 | none | the first use: enters the slot, sets the pin |
//! | uses, none of them `Bytes` | none | the first `Bytes` |
//! | uses, some of them `Bytes` | none, then the segment that the object lies in | set once by one who is lent the bytes; taken out by the last of them, who has the count to itself |

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::ptr::{self, NonNull};
use std::sync::atomic::{AtomicPtr, AtomicU32, Ordering};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{Reply, Request};
use mobula_shm::bell::Bell;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::fork::ForkGuard;
use mobula_shm::mapping::ReadMapping;
use mobula_shm::memory::check_received;
use mobula_shm::pins::PinWriter;
use mobula_shm::table::{Location, State, TABLE_BYTES, TableReader, Word};
use parking_lot::{Mutex, RwLock};

use crate::counting::count::{Chunks, Count, TooMany, Use};
use crate::counting::occupancy::{Guest, Occupancy};
use crate::daemon::connection::Answer;
use crate::error::ClientError;
use crate::shared::Shared;

/// How long an entry may stay in the state in which its owner looks at the pins.
const DYING_PATIENCE: Duration = Duration::from_secs(1);

/// What this process uses of the owner in a slot.
pub(crate) struct Slot {
    pub(crate) guard: ForkGuard,
    entries: Chunks<Entry>,
    peer: Occupancy<Peer>,
}

/// What this process uses of one object.
#[derive(Default)]
struct Entry {
    count: Count,
    /// An `Arc` that was made a pointer, or null; the module's documentation has the table.
    segment: AtomicPtr<PeerSegment>,
}

/// What the end of a use has left to be dropped, now that nothing refers to the slot any more. Dropping it tells the daemon,
/// so others need not wait for that; and it may drop the client.
#[must_use]
#[derive(Default)]
pub(crate) struct Released {
    _segment: Option<Arc<PeerSegment>>,
    _peer: Option<Arc<Peer>>,
}

impl Slot {
    pub(crate) fn new(guard: ForkGuard) -> Self {
        Self { guard, entries: Chunks::new(), peer: Occupancy::new() }
    }

    /// Becomes a user; `None` when the slot is empty, or about to be.
    #[inline]
    pub(crate) fn enter(&self) -> Option<Guest<'_, Peer>> {
        self.peer.enter()
    }

    /// Makes a peer known; `false` if there is another one, whose objects are still in use. One thread at a time.
    pub(crate) fn install(&self, peer: Arc<Peer>) -> bool {
        self.peer.install(peer)
    }

    /// Lets the peer go once nothing of it is in use; only the one with this id, if one is given.
    pub(crate) fn forget(&self, id: Option<OwnerId>) {
        self.peer.forget(|peer| id.is_none_or(|id| peer.id == id));
    }

    /// Counts a use of an object, whatever is in its entry; `Ok(None)` when the slot is not its owner's. Memory
    /// operations only.
    #[inline]
    pub(crate) fn acquire(&self, object: ObjectId, kind: Use) -> Result<Option<&Count>, ClientError> {
        if let Some(entry) = self.entries.get(object.index())
            && entry.count.add(kind)
        {
            // SAFETY: the entry is in use, by the use just counted at least.
            if unsafe { self.peer() }.id == object.owner() {
                return Ok(Some(&entry.count));
            }
            self.take_back(object.index(), kind);
        }
        self.acquire_first(object, kind)
    }

    /// One more use of kind `Bytes` of a sealed object of which there is one, and where it lies. `None` where there is
    /// more to be done, or found out.
    #[inline]
    pub(crate) fn lend_again(&self, object: ObjectId) -> Option<(&Count, NonNull<u8>, Location)> {
        let entry = self.entries.get(object.index())?;
        if !entry.count.add(Use::Bytes) {
            return None;
        }
        // SAFETY: the entry is in use, by the use just counted at least.
        let peer = unsafe { self.peer() };
        // SAFETY: that use is of kind `Bytes`.
        let segment = unsafe { entry.segment() };
        if peer.id == object.owner()
            && let Some(segment) = segment
            && peer.table.word(object.index()) == Word::new(object.generation(), State::Sealed)
        {
            let location = peer.table.location(object.index());
            if let Some(pointer) = segment.find(&location) {
                return Some((&entry.count, pointer, location));
            }
        }
        self.take_back(object.index(), Use::Bytes);
        None
    }

    /// Ends a use that was just counted, of what turned out to be another object.
    #[cold]
    fn take_back(&self, index: u32, kind: Use) {
        // SAFETY: the use is ended here, once; the slot stays, because whoever called this keeps the client.
        drop(unsafe { Self::release(NonNull::from(self), index, kind) });
    }

    fn acquire_first(&self, object: ObjectId, kind: Use) -> Result<Option<&Count>, ClientError> {
        let Some(guest) = self.enter() else { return Ok(None) };
        let peer = guest.occupant();
        if peer.id != object.owner() {
            return Ok(None);
        }
        // Pins beyond have no memory.
        if object.index() >= peer.shared.directory.committed(object.owner().slot()) {
            return Err(ClientError::NoSuchObject { object });
        }
        let entry = self.entries.get_or_make(object.index());
        self.count_first(guest, entry, object.index(), kind).map_err(|too_many| too_many.of(object))?;
        Ok(Some(&entry.count))
    }

    /// One more use of what is already used.
    #[inline]
    pub(crate) fn acquire_again(&self, index: u32, count: &Count, kind: Use) -> Result<(), TooMany> {
        if count.add(kind) {
            return Ok(());
        }
        let guest = self.enter().expect("an entry in use is a user");
        self.count_first(guest, self.entries.get_or_make(index), index, kind)
    }

    fn count_first(
        &self,
        guest: Guest<'_, Peer>,
        entry: &Entry,
        index: u32,
        kind: Use,
    ) -> Result<(), TooMany> {
        let mut busy = entry.count.lock();
        let unused = busy.is_unused();
        busy.add(kind)?;
        // The pin comes before the count: a thread that finds the count above zero relies on it.
        if busy.pin_bits() != busy.pin_bits_before() {
            guest.occupant().pins.set(index, busy.pin_bits());
        }
        if unused {
            guest.stay();
        }
        busy.finish();
        Ok(())
    }

    /// Ends a use; the owner notices by itself. Memory operations only.
    ///
    /// # Safety
    /// A use of this kind of the entry at `index` is counted, and is ended by this call. That it is counted keeps the slot until
    /// then, and nothing needs to keep it longer: it may be gone when this returns, or as soon as what it returns is dropped.
    #[inline]
    pub(crate) unsafe fn release(slot: NonNull<Self>, index: u32, kind: Use) -> Released {
        // SAFETY: the use keeps the slot.
        let entry = unsafe { slot.as_ref() }.entries.get_or_make(index);
        if entry.count.sub(kind) {
            return Released::default();
        }
        // SAFETY: the use that the caller says is counted is so still: it was not taken off the count above.
        unsafe { Self::release_last(slot, index, kind) }
    }

    /// # Safety
    /// As [`release`](Self::release).
    unsafe fn release_last(slot: NonNull<Self>, index: u32, kind: Use) -> Released {
        // Other threads may end the last use, and with it the slot, as soon as this one has stored the count, or left. So no
        // reference to any of it is an argument, which would have to be valid until the end.
        //
        // SAFETY: the use keeps the slot until the count is stored below. If that makes the entry unused, the entry's user
        // keeps it until it leaves.
        let this = unsafe { slot.as_ref() };
        let entry = this.entries.get_or_make(index);
        let mut busy = entry.count.lock();
        busy.sub(kind);
        let segment = if kind == Use::Bytes && busy.is_without(Use::Bytes) {
            // SAFETY: nobody is lent the bytes any more, and nobody can be: the count is ours.
            unsafe { entry.take_segment() }
        } else {
            None
        };
        let unused = busy.is_unused();
        // SAFETY: the entry counts as a user until it leaves below, or at the end of another use.
        let pins = &unsafe { this.peer() }.pins;
        if unused {
            pins.clear(index);
        } else if busy.pin_bits() != busy.pin_bits_before() {
            pins.change(index, busy.pin_bits());
        }
        let place = NonNull::from(&this.peer);
        busy.finish();
        let peer = if unused {
            // SAFETY: the entry was in use until now, and so a user, which leaves once. Nothing uses the peer afterwards.
            unsafe { Occupancy::leave(place) }
        } else {
            None
        };
        Released { _segment: segment, _peer: peer }
    }

    /// The state of an object that is used; see [`Peer::settled_state`].
    ///
    /// # Safety
    /// A use of an object of this slot is counted.
    #[inline]
    pub(crate) unsafe fn state(&self, object: ObjectId) -> Result<State, ClientError> {
        // SAFETY: the counted use of an object of this slot is a user of it, for as long as the caller has it.
        unsafe { self.peer() }.settled_state(object)
    }

    /// What the owner says of an object. Nothing of it is checked.
    ///
    /// # Safety
    /// As [`state`](Self::state).
    pub(crate) unsafe fn location(&self, object: ObjectId) -> Location {
        // SAFETY: the counted use of an object of this slot is a user of it, for as long as the caller has it.
        unsafe { self.peer() }.table.location(object.index())
    }

    /// Where the bytes of an object lie, and what they are; checked against the segment's true length. The first time
    /// it is asked for an object of a segment that is not mapped, this asks the daemon.
    ///
    /// # Safety
    /// A use of kind `Bytes` of the object, which is sealed, is counted. The bytes are mapped for as long as it is.
    #[inline]
    pub(crate) unsafe fn locate(&self, object: ObjectId) -> Result<(NonNull<u8>, Location), ClientError> {
        // SAFETY: the counted use of an object of this slot is a user of it, for as long as the caller has it.
        let peer = unsafe { self.peer() };
        let location = peer.table.location(object.index());
        let corrupt = || ClientError::Corrupt { object };
        let bytes = Location::extent(location.length, location.references).ok_or_else(corrupt)?;
        if bytes == 0 {
            return Ok((crate::object::dangling(), location));
        }
        let entry = self.entries.get_or_make(object.index());
        // SAFETY: a use of kind `Bytes` is counted for as long as the caller has it, so the segment is not taken out.
        let segment = match unsafe { entry.segment() } {
            Some(segment) => segment,
            // SAFETY: a use of kind `Bytes` is counted, as above, so that what is noted is not taken out.
            None => unsafe { entry.set_segment(peer.segment_of(object, location.segment)?) },
        };
        Ok((segment.find(&location).ok_or_else(corrupt)?, location))
    }

    /// The owner whose slot it is.
    ///
    /// # Safety
    /// As [`state`](Self::state).
    #[inline]
    pub(crate) unsafe fn owner(&self) -> OwnerId {
        // SAFETY: the counted use of an object of this slot is a user of it, for as long as the caller has it.
        unsafe { self.peer() }.id
    }

    /// The client that the peer belongs to.
    ///
    /// # Safety
    /// As [`state`](Self::state).
    #[inline]
    pub(crate) unsafe fn shared(&self) -> &Shared {
        // SAFETY: the counted use of an object of this slot is a user of it, for as long as the caller has it.
        &unsafe { self.peer() }.shared
    }

    /// # Safety
    /// The caller is, or has, a user of the slot for as long as it uses the peer. An entry in use is one.
    #[inline]
    unsafe fn peer(&self) -> &Peer {
        // SAFETY: the caller is, or has, a user of the slot for as long as it uses the peer.
        unsafe { self.peer.occupant() }
    }
}

impl Entry {
    /// # Safety
    /// A use of kind `Bytes` is counted for as long as the segment is used.
    #[inline]
    unsafe fn segment(&self) -> Option<&PeerSegment> {
        // SAFETY: null, or the pointer of an `Arc` that `set_segment` stored and that stays while bytes are lent.
        // Acquire: pairs with that store.
        unsafe { self.segment.load(Ordering::Acquire).as_ref() }
    }

    /// Notes the segment, unless another thread has.
    ///
    /// # Safety
    /// As [`segment`](Self::segment).
    unsafe fn set_segment(&self, segment: Arc<PeerSegment>) -> &PeerSegment {
        let new = Arc::into_raw(segment).cast_mut();
        let noted = self.segment.compare_exchange(ptr::null_mut(), new, Ordering::AcqRel, Ordering::Acquire);
        if noted.is_err() {
            // SAFETY: it was made a pointer just now, and went nowhere.
            drop(unsafe { Arc::from_raw(new) });
        }
        // SAFETY: the caller has a use of kind `Bytes` counted for as long as it uses the segment.
        unsafe { self.segment() }.expect("one was noted")
    }

    /// # Safety
    /// No use of kind `Bytes` is counted, and none can be before this returns.
    unsafe fn take_segment(&self) -> Option<Arc<PeerSegment>> {
        let segment = self.segment.load(Ordering::Acquire);
        self.segment.store(ptr::null_mut(), Ordering::Release);
        // SAFETY: `set_segment` made the pointer of an `Arc`; it is taken out once, since nobody else is at the entry.
        (!segment.is_null()).then(|| unsafe { Arc::from_raw(segment) })
    }
}

/// Another owner, attached.
pub(crate) struct Peer {
    pub(crate) id: OwnerId,
    pub(crate) shared: Arc<Shared>,
    table: TableReader,
    /// For the next daemon, should the owner be dead by then.
    control: OwnedFd,
    pins: PinWriter,
    bell: Bell,
    /// The sleep of the other process for which this one has rung last.
    rung_for: AtomicU32,
    segments: RwLock<Segments>,
    /// One thread at a time maps a segment: for the daemon it is mapped once, so only one may say that it is not.
    mapping: Mutex<()>,
}

#[derive(Default)]
struct Segments {
    /// In the order of their numbers.
    mapped: Vec<Arc<PeerSegment>>,
    /// Those given back by their owner, never to be kept again: in the order of their numbers, with what is still in use.
    retired: Vec<(u32, Weak<PeerSegment>)>,
}

impl Segments {
    fn find(&self, segment: u32) -> Result<usize, usize> {
        self.mapped.binary_search_by_key(&segment, |mapped| mapped.segment)
    }

    fn find_retired(&self, segment: u32) -> Result<usize, usize> {
        self.retired.binary_search_by_key(&segment, |(retired, _)| *retired)
    }
}

/// A segment of another owner, mapped read-only; says so to the daemon when it is unmapped.
pub(crate) struct PeerSegment {
    mapping: ReadMapping,
    /// For the next daemon, should the owner be dead by then.
    descriptor: OwnedFd,
    owner: OwnerId,
    segment: u32,
    shared: Arc<Shared>,
}

impl PeerSegment {
    /// The address of an object that lies in here with its references: `None` where its owner wrote
    /// nonsense. (An honest one does not move an object while its bytes are lent.)
    #[inline]
    fn find(&self, location: &Location) -> Option<NonNull<u8>> {
        let lies_here = location.segment == self.segment && location.fits(self.mapping.len() as u64);
        lies_here.then(|| self.mapping.pointer(location.offset as usize, location.length as usize))
    }
}

impl Peer {
    /// An owner that the daemon has given permission to pin: what came with its answer.
    pub(crate) fn attached(
        shared: &Arc<Shared>,
        id: OwnerId,
        answer: Answer,
    ) -> Result<Arc<Self>, ClientError> {
        let Reply::Attached { .. } = answer.reply else {
            return Err(ClientError::BadReply(format!("{:?}", answer.reply)));
        };
        let views = answer.descriptors().and_then(|[control, bell]| {
            check_received(control.as_fd(), TABLE_BYTES)?;
            let pins = PinWriter::map(shared.control.as_fd(), id.slot())?;
            Ok((TableReader::map(control.as_fd())?, control, pins, Bell::check_received(bell)?))
        });
        let (table, control, pins, bell) =
            views.inspect_err(|_| shared.connection.tell(&Request::Detach { owner: id }))?;
        Ok(Arc::new(Self {
            id,
            table,
            control,
            pins,
            bell,
            rung_for: AtomicU32::new(0),
            segments: RwLock::default(),
            mapping: Mutex::default(),
            shared: shared.clone(),
        }))
    }

    /// Its control memory and its bell, for another daemon.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.control.as_fd(), self.bell.as_fd()]
    }

    /// Its segments that are mapped here: number, bytes, descriptor.
    pub(crate) fn mapped(&self) -> io::Result<Vec<(u32, u64, OwnedFd)>> {
        let segments = self.segments.read();
        let retired = segments.retired.iter().filter_map(|(_, segment)| segment.upgrade());
        let mapped = segments.mapped.iter().cloned().chain(retired);
        mapped
            .map(|mapped| Ok((mapped.segment, mapped.mapping.len() as u64, mapped.descriptor.try_clone()?)))
            .collect()
    }

    /// The state of a pinned object: `Sealed`, `Promised`, `Lost` or `Spilled`; everything else is an error.
    #[inline]
    fn settled_state(&self, object: ObjectId) -> Result<State, ClientError> {
        let mut patience = None;
        loop {
            // The reader's second half of the handshake (see `mobula_shm::pins`).
            let word = self.table.word(object.index());
            if word.generation() != object.generation() {
                return Err(ClientError::NoSuchObject { object });
            }
            match word.state() {
                Some(state @ (State::Sealed | State::Promised | State::Lost | State::Spilled)) => {
                    return Ok(state);
                }
                Some(State::Deleted) => return Err(ClientError::Deleted { object }),
                // Its owner sees our pin, or did not: it will be what it was, spilled, or gone, in a moment.
                Some(State::Dying) => {
                    let deadline = *patience.get_or_insert_with(|| Instant::now() + DYING_PATIENCE);
                    if Instant::now() > deadline {
                        return Err(ClientError::OwnerStalled { object });
                    }
                    std::thread::yield_now();
                }
                Some(State::Free) | None => return Err(ClientError::NoSuchObject { object }),
            }
        }
    }

    /// Its owner gave a segment back: forget the mapping once nothing uses it.
    pub(crate) fn retire(&self, segment: u32) {
        let mut segments = self.segments.write();
        let mapped = segments.find(segment).ok().map(|place| segments.mapped.remove(place));
        if let Err(place) = segments.find_retired(segment) {
            let still_used = mapped.as_ref().map_or_else(Weak::new, Arc::downgrade);
            segments.retired.insert(place, (segment, still_used));
        }
        drop(segments);
        if mapped.is_none() {
            // The daemon may think that it is mapped here: somebody asked, and gave up waiting for the answer; or it is
            // one that was only kept.
            self.shared.connection.tell(&Request::UnmapSegment { owner: self.id, segment });
        }
    }

    /// Wakes the other process if it sleeps; whether it did. A load; a system call the first time for each of its sleeps.
    pub(crate) fn wake(&self) -> bool {
        let Some(sleep) = self.table.sleep() else { return false };
        if self.rung_for.swap(sleep, Ordering::Relaxed) != sleep {
            self.bell.ring();
        }
        true
    }

    fn segment(&self, segment: u32) -> Result<Arc<PeerSegment>, ClientError> {
        match self.mapped_segment(segment) {
            Some(mapped) => Ok(mapped),
            None => self.map_segment(segment),
        }
    }

    fn mapped_segment(&self, segment: u32) -> Option<Arc<PeerSegment>> {
        let segments = self.segments.read();
        segments.find(segment).ok().map(|place| segments.mapped[place].clone())
    }

    /// The segment that an object lies in.
    fn segment_of(&self, object: ObjectId, segment: u32) -> Result<Arc<PeerSegment>, ClientError> {
        self.segment(segment).or_else(|error| {
            // Its owner and the daemon may have died at once, and the object with them: then its entry says so.
            self.settled_state(object)?;
            Err(error)
        })
    }

    #[cold]
    fn map_segment(&self, segment: u32) -> Result<Arc<PeerSegment>, ClientError> {
        let _mapping = self.mapping.lock();
        // Another thread may have been faster.
        if let Some(mapped) = self.mapped_segment(segment) {
            return Ok(mapped);
        }
        let request = Request::MapSegment { owner: self.id, segment };
        loop {
            let answer = self.shared.connection.request("map a segment", &request)?;
            let Some(_still) = self.shared.connection.hold_still(answer.daemon) else { continue };
            return self.take_segment(segment, answer);
        }
    }

    fn take_segment(&self, segment: u32, answer: Answer) -> Result<Arc<PeerSegment>, ClientError> {
        let Reply::SegmentMapped { bytes } = answer.reply else {
            return Err(ClientError::BadReply(format!("{:?}", answer.reply)));
        };
        failpoint(Failpoint::MapGranted);
        let mapping = answer.descriptors().and_then(|[descriptor]| {
            check_received(descriptor.as_fd(), bytes)?;
            Ok((ReadMapping::map(descriptor.as_fd(), 0, bytes as usize)?, descriptor))
        });
        let (mapping, descriptor) = mapping.inspect_err(|_| {
            self.shared.connection.tell(&Request::UnmapSegment { owner: self.id, segment });
        })?;
        failpoint(Failpoint::MapMapped);
        let mut segments = self.segments.write();
        let place = match segments.find(segment) {
            Ok(place) => return Ok(segments.mapped[place].clone()),
            Err(place) => place,
        };
        let (owner, shared) = (self.id, self.shared.clone());
        let mapped = Arc::new(PeerSegment { mapping, descriptor, owner, segment, shared });
        match segments.find_retired(segment) {
            Ok(retired) => segments.retired[retired].1 = Arc::downgrade(&mapped),
            Err(_) => segments.mapped.insert(place, mapped.clone()),
        }
        Ok(mapped)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if !self.shared.guard.is_child() {
            self.shared.connection.tell(&Request::Detach { owner: self.id });
            failpoint(Failpoint::DetachTold);
        }
    }
}

impl Drop for PeerSegment {
    fn drop(&mut self) {
        if !self.shared.guard.is_child() {
            let request = Request::UnmapSegment { owner: self.owner, segment: self.segment };
            self.shared.connection.tell(&request);
            failpoint(Failpoint::UnmapTold);
        }
    }
}
