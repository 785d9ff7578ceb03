//! An object that has a spill record is evicted and restored.
//!
//! An object is evicted although processes hold it, as long as none borrows its bytes. Its count is busy meanwhile, and
//! the owner and its readers run the handshake of [`mobula_shm::pins`] for the bit that says *mapped*. The object has
//! no memory afterwards, and its entry says where its spill record lies. It is freed as other objects are.

use mobula_protocol::id::ObjectId;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::pins::try_spill;
use mobula_shm::spill::SpillLocation;
use mobula_shm::table::{Location, State as ObjectState, Word};

use crate::counting::count::Kind;
use crate::owner::Owner;

/// A segment whose objects are to be evicted. Nothing is allocated in it meanwhile.
pub(crate) struct Evicting {
    /// The allocator's.
    number: u32,
    pub(crate) bytes: u64,
    pub(crate) objects: Vec<ObjectId>,
}

impl Owner {
    /// Chooses segments of `wanted` bytes in which, by a first look, no process borrows any bytes, the least recently
    /// used ones first. Each must be given to [`end_evicting`](Self::end_evicting).
    pub(crate) fn begin_evicting(&self, wanted: u64) -> Vec<Evicting> {
        let mut guard = self.state.lock();
        let state = &mut *guard;
        let least_recent: Vec<u32> = state.segments.allocator.least_recent().collect();
        let numbers = least_recent.iter().max().map_or(0, |last| *last as usize + 1);
        let mut entries: Vec<Vec<u32>> = vec![Vec::new(); numbers];
        for (index, allocation) in state.entries.allocated() {
            // A segment that is being evicted already is not among them.
            if let Some(of_segment) = entries.get_mut(allocation.segment as usize) {
                of_segment.push(index);
            }
        }
        let (mut chosen, mut chosen_bytes) = (Vec::new(), 0);
        for number in least_recent {
            if chosen_bytes >= wanted {
                break;
            }
            let bytes = state.segments.allocator.pages_bytes(number);
            let in_it = std::mem::take(&mut entries[number as usize]);
            let Some(objects) = in_it.into_iter().map(|index| self.evictable(index)).collect() else {
                continue;
            };
            chosen_bytes += bytes;
            state.segments.allocator.close(number);
            chosen.push(Evicting { number, bytes, objects });
        }
        chosen
    }

    /// Unmaps a segment that was chosen if it is empty now, and returns its id; else it is used again.
    pub(crate) fn end_evicting(&self, segment: &Evicting) -> Option<u32> {
        let mut state = self.state.lock();
        let removed = state.segments.remove(segment.number);
        if removed.is_none() {
            state.segments.allocator.reopen(segment.number);
        }
        removed
    }

    /// Evicts an object with a spill record at `place`; `false` if it stays, because its bytes are borrowed or it is
    /// not sealed. The caller has a handle.
    pub(crate) fn evict(&self, object: ObjectId, place: SpillLocation) -> bool {
        let index = object.index();
        let sealed = Word::new(object.generation(), ObjectState::Sealed);
        // Busy: no thread here borrows the bytes meanwhile.
        let busy = self.table.known_count(index).lock();
        if !busy.is_without(Kind::Borrow) || self.table.word(index) != sealed {
            return false;
        }
        let is_evicted = try_spill(
            self.table.atomic_word(index),
            object.generation(),
            || self.readers.borrow(index),
            || self.table.set_spill_location(index, place),
        );
        if is_evicted {
            failpoint(Failpoint::SpillStored);
            let mut guard = self.state.lock();
            let state = &mut *guard;
            if let Some(allocation) = state.entries.take_allocation(index) {
                state.segments.allocator.free(allocation);
            }
        }
        busy.finish();
        is_evicted
    }

    /// Gives a spilled object the memory of a reserved one, whose entry becomes vacant when its last reference ends;
    /// `false` if the object is not spilled any more. The caller has a reference to it.
    pub(crate) fn restore(&self, object: ObjectId, reserved: ObjectId, location: &Location) -> bool {
        let busy = self.table.known_count(object.index()).lock();
        if self.table.spill_record(object).is_none() {
            return false;
        }
        let mut state = self.state.lock();
        if let Some(allocation) = state.entries.take_allocation(reserved.index()) {
            state.entries.set_allocation(object.index(), allocation);
        }
        drop(state);
        self.table.restore(object, location);
        busy.finish();
        true
    }

    /// The object in an entry, if it is sealed and no process seems to borrow its bytes.
    fn evictable(&self, index: u32) -> Option<ObjectId> {
        let word = self.table.word(index);
        let is_borrowed_here = self.table.count(index).is_none_or(|count| count.is_borrowed());
        let is_evictable =
            word.state() == Some(ObjectState::Sealed) && !is_borrowed_here && !self.readers.borrow(index);
        is_evictable.then(|| ObjectId::new(self.id(), index, word.generation()))
    }
}
