//! The object table as its owner writes it, beside this process's counts of its entries.
//!
//! Each operation here commits by one store of an entry's state word. Nothing here takes a lock: the caller has the
//! entry to itself, because it made it, or because it made the entry's count busy.

use std::sync::atomic::{AtomicU64, Ordering};

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::pins::PinWriter;
use mobula_shm::spill::SpillLocation;
use mobula_shm::table::{Asleep, Location, State, TableWriter, Word};

use crate::counting::count::{Count, Kind};
use crate::counting::lazy::Lazy;
use crate::error::ClientError;

/// The entries of this client's objects.
pub(crate) struct Table {
    id: OwnerId,
    words: TableWriter,
    counts: Lazy<Count>,
    /// This process's references to its own objects, for the daemon to show.
    pins: PinWriter,
}

impl Table {
    pub(crate) fn new(id: OwnerId, words: TableWriter, pins: PinWriter) -> Self {
        Self { id, words, counts: Lazy::new(), pins }
    }

    #[inline]
    pub(crate) fn id(&self) -> OwnerId {
        self.id
    }

    // ---- the words of an entry ----

    /// The state word of an entry.
    #[inline]
    pub(crate) fn word(&self, index: u32) -> Word {
        // Acquire: pairs with the sealing store.
        Word::from_bits(self.words.word(index).load(Ordering::Acquire))
    }

    /// The state word, for a change that commits by a store of it.
    #[inline]
    pub(crate) fn atomic_word(&self, index: u32) -> &AtomicU64 {
        self.words.word(index)
    }

    /// The location of an object. Segment and offset of a spilled object mean nothing.
    #[inline]
    pub(crate) fn location(&self, index: u32) -> Location {
        self.words.location(index)
    }

    /// The state of an object that is in use: `Sealed`, `Promised`, `Lost` or `Spilled`; every other state is an error.
    #[inline]
    pub(crate) fn settled_state(&self, object: ObjectId) -> Result<State, ClientError> {
        let word = self.word(object.index());
        if word.generation() != object.generation() {
            return Err(ClientError::NoSuchObject { object });
        }
        match word.state() {
            Some(state @ (State::Sealed | State::Promised | State::Lost | State::Spilled)) => Ok(state),
            // In use, it is not being freed: it is about to be evicted, or stays.
            Some(State::Dying) => Ok(State::Sealed),
            Some(State::Deleted) => Err(ClientError::Deleted { object }),
            Some(State::Free) | None => Err(ClientError::NoSuchObject { object }),
        }
    }

    /// The location of a spilled object, and the place of its spill record; `None` if it is not spilled.
    pub(crate) fn spill_record(&self, object: ObjectId) -> Option<(Location, SpillLocation)> {
        let index = object.index();
        let spilled = Word::new(object.generation(), State::Spilled);
        if self.counts.get(index).is_none() || self.word(index) != spilled {
            return None;
        }
        Some((self.words.location(index), self.words.spill_location(index)?))
    }

    // ---- the counts of this process ----

    /// The count of an entry; `None` where no entry of its neighbourhood was ever used.
    #[inline]
    pub(crate) fn count(&self, index: u32) -> Option<&Count> {
        self.counts.get(index)
    }

    /// The count of an entry that was used before.
    #[inline]
    pub(crate) fn known_count(&self, index: u32) -> &Count {
        self.counts.get_or_make(index)
    }

    /// Counts the first reference to a vacant entry, which the caller has to itself. Returns its count and generation.
    #[inline]
    pub(crate) fn take(&self, index: u32, kind: Kind) -> (&Count, u32) {
        // The count is zero, which no other thread changes, and no other process writes the pin.
        let generation = Word::from_bits(self.words.word(index).load(Ordering::Relaxed)).generation();
        self.pins.set_own(index, kind.pin_bits());
        failpoint(Failpoint::CreatePinned);
        let count = self.counts.get_or_make(index);
        count.begin(kind);
        (count, generation)
    }

    /// Shows this process's references to an entry's object.
    #[inline]
    pub(crate) fn set_pin(&self, index: u32, bits: u32) {
        self.pins.set_own(index, bits);
    }

    /// Records the time and the place at which the object of an entry is made.
    pub(crate) fn set_origin(&self, index: u32, tick: u64, place: u16) {
        self.words.set_origin(index, tick, place);
    }

    // ---- changes of an entry ----

    /// Makes an object visible: from here on its bytes never change.
    #[inline]
    pub(crate) fn seal(&self, index: u32, generation: u32, location: &Location) {
        self.words.fill(index, location);
        failpoint(Failpoint::SealFilled);
        // Release: publishes the bytes and the location to every process that finds the word sealed.
        self.words.word(index).store(Word::new(generation, State::Sealed).bits(), Ordering::Release);
        failpoint(Failpoint::SealStored);
    }

    /// Makes a promise visible: the object is still to be made.
    pub(crate) fn promise(&self, object: ObjectId) {
        let word = Word::new(object.generation(), State::Promised);
        self.words.word(object.index()).store(word.bits(), Ordering::Release);
        failpoint(Failpoint::PromiseStored);
    }

    /// Ends a promise: with the object's location, or as lost. Passes a fence; the caller then looks for waiting
    /// readers.
    pub(crate) fn settle(&self, promised: ObjectId, location: Option<&Location>) {
        let index = promised.index();
        if let Some(location) = location {
            self.words.fill(index, location);
            failpoint(Failpoint::FulfilFilled);
        }
        let state = if location.is_some() { State::Sealed } else { State::Lost };
        self.words.settle(index, Word::new(promised.generation(), state));
        failpoint(Failpoint::SettleStored);
    }

    /// Refuses new references to a sealed object; `false` if it is not sealed. The caller has made its count busy.
    pub(crate) fn delete(&self, object: ObjectId) -> bool {
        let sealed = Word::new(object.generation(), State::Sealed).bits();
        let deleted = Word::new(object.generation(), State::Deleted).bits();
        let word = self.words.word(object.index());
        // Release, as every store of the word: a process that holds the object follows its location, deleted or not.
        let done = word.compare_exchange(sealed, deleted, Ordering::Release, Ordering::Relaxed).is_ok();
        failpoint(Failpoint::DeleteStored);
        done
    }

    /// Makes an entry that was reserved and never sealed free again, with the next generation. The maker may have
    /// passed on the old id, which must not refer to the next object.
    pub(crate) fn vacate(&self, index: u32, generation: u32) {
        let next = Word::new(generation.wrapping_add(1), State::Free);
        self.words.word(index).store(next.bits(), Ordering::Release);
        failpoint(Failpoint::AbortFreed);
    }

    /// Says that a spilled object is in memory again.
    pub(crate) fn restore(&self, object: ObjectId, location: &Location) {
        let index = object.index();
        self.words.fill(index, location);
        failpoint(Failpoint::RestoreFilled);
        // Release: as for an object that is sealed for the first time.
        let sealed = Word::new(object.generation(), State::Sealed);
        self.words.word(index).store(sealed.bits(), Ordering::Release);
        failpoint(Failpoint::RestoreStored);
        self.words.set_spill_location(index, None);
    }

    /// Notes where the spill record of an entry lies.
    pub(crate) fn set_spill_location(&self, index: u32, place: SpillLocation) {
        self.words.set_spill_location(index, Some(place));
    }

    /// Takes the place of the spill record of an entry that has been freed.
    pub(crate) fn take_spill_location(&self, index: u32) -> Option<SpillLocation> {
        let place = self.words.spill_location(index);
        self.words.set_spill_location(index, None);
        place
    }

    /// Records that an object lies at another position. One store.
    pub(crate) fn set_place(&self, index: u32, segment: u32, offset: u64) {
        self.words.set_place(index, segment, offset);
    }

    // ---- sleeping ----

    /// Says that this process is about to sleep on its bell, until the guard is dropped.
    pub(crate) fn begin_sleep(&self) -> Asleep<'_> {
        self.words.begin_sleep()
    }
}
