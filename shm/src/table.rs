//! The object table: one 64-byte entry for each object of a client, written by that client alone.
//!
//! # Layout
//!
//! A header page, then [`ENTRIES_MAX`] entries. The file is sparse: the daemon allocates the pages of the entries that
//! it has *committed* (see [`directory`](crate::directory)), and no process touches an entry beyond them.
//!
//! # States of an entry
//!
//! | state | means | next states, and which process stores them |
//! |---|---|---|
//! | `Free` | no object; the generation is that of the next one | owner: `Promised`, `Sealed` |
//! | `Promised` | a result that is not there yet | owner: `Sealed`; daemon*: `Lost` |
//! | `Sealed` | location valid, bytes final | owner: `Dying`, `Deleted`; daemon*: `Dying` |
//! | `Dying` | its owner looks at the pins | owner: the state before, `Spilled`, `Free` (next generation) |
//! | `Deleted` | pins stay valid, new ones are refused | owner: `Free` with the next generation |
//! | `Lost` | a promise whose owner died | daemon*: `Free` |
//! | `Spilled` | its bytes are in a file; its location is not valid | owner, daemon*: `Sealed` elsewhere, `Dying` |
//!
//! \* The daemon stores states only for a dead owner.
//!
//! Where the bytes lie, segment and offset, is one word. So one store of that word *moves* an object to another
//! position in memory, while its state word is `Dying`. An owner that dies in between leaves it at the old position or
//! at the new one. The bytes are complete at both.
//!
//! An entry also has room for the [place](SpillLocation) of its record in a spill file, beside the location. While a
//! place is set, there is a complete record there, in every state of the word. The place is set before the word says
//! `Spilled`, and it is cleared, if ever, after the word has left `Spilled`. So each of the two changes is one store of
//! the word; and an entry that its owner left `Dying` is spilled if it has a place, and sealed if it has none.
//!
//! An entry may also contain the time and the place at which its object was made, for people who inspect a store.
//!
//! The fields beside the word are written relaxed, before the word is stored with `Release`; a reader that has found
//! the word `Sealed` with the generation it expects, *while it has a pin*, has acquired them and reads them relaxed.
//! The pairing of pins and words is [`pins`](crate::pins)' business.
//!
//! loom explores this code, in `shm/tests/loom`:
//!
//! - `handshake.rs` shows that sealed bytes were written before the seal;
//! - `promise.rs`, that a waiting process learns of a settled promise;
//! - `spilling.rs`, that an object is in memory or in a file, whenever its owner dies;
//! - `compaction.rs`, that an object that moves is in one of two places in memory;
//! - `takeover.rs`, that a lost promise never becomes an object.

use std::io;
use std::os::fd::BorrowedFd;

use crate::failpoints::{Failpoint, failpoint};
pub use crate::location::{ALIGNMENT, Location};
use crate::location::{LOCATION_WORDS as WORDS, SpillLocation, place_bits};
use crate::mapping::{ReadMapping, WriteMapping};
use crate::memory::PAGE_BYTES;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

/// Bytes of an entry.
pub const ENTRY_BYTES: u64 = 64;
/// Objects that one owner can have alive at a time.
pub const ENTRIES_MAX: u32 = 1 << 22;
/// Bytes of a table's (sparse) memory.
pub const TABLE_BYTES: u64 = PAGE_BYTES + ENTRIES_MAX as u64 * ENTRY_BYTES;

pub(crate) const HEADER_SLEEPS: usize = 64;

/// 64-bit words of an entry that are read together, all of them accessed as a whole: the state word; offset, in units
/// of [`ALIGNMENT`] (low half), and segment; length; format (low half) and number of references.
/// Byte offset of the word that says where the bytes lie in an entry.
const PLACE: usize = size_of::<u64>();
/// Byte offset of the place in a spill file in an entry: the next word.
const SPILL: usize = WORDS * size_of::<u64>();
/// Byte offset of the next two words: the tick and the number of the place at which an object was made.
const ORIGIN: usize = SPILL + size_of::<u64>();
const _: () = assert!(ORIGIN + 2 * size_of::<u64>() <= ENTRY_BYTES as usize);

/// The state of an entry; the module's documentation has the table.
///
/// This is exhaustive on purpose: the crates of one build handle each variant, so a new one must be a compile error
/// there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// No object.
    Free = 0,
    /// A result that is not there yet.
    Promised = 1,
    /// Readable.
    Sealed = 2,
    /// Its owner wants to free it and looks at the pins.
    Dying = 3,
    /// Freed once the last pin is gone; no new pins.
    Deleted = 4,
    /// A promise that no client can fulfil, because its owner has died.
    Lost = 5,
    /// In a spill file; restored when a client wants its bytes.
    Spilled = 6,
}

impl State {
    #[inline]
    fn from_bits(bits: u8) -> Option<Self> {
        const ALL: [State; 7] = [
            State::Free,
            State::Promised,
            State::Sealed,
            State::Dying,
            State::Deleted,
            State::Lost,
            State::Spilled,
        ];
        // In the order of their numbers (a test looks).
        ALL.get(usize::from(bits)).copied()
    }
}

/// An entry's word: the generation and the state, stored and loaded as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word(u64);

impl Word {
    /// The word of a generation in a state.
    #[inline]
    pub fn new(generation: u32, state: State) -> Self {
        Self(u64::from(generation) << 32 | state as u64)
    }

    /// The word as it was loaded from memory that another process may have written.
    #[inline]
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// The word as it is stored.
    #[inline]
    pub fn bits(self) -> u64 {
        self.0
    }

    /// The number that tells successive objects of this entry apart.
    #[inline]
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The state; `None` for bits that no honest process stores.
    #[inline]
    pub fn state(self) -> Option<State> {
        if self.0 & 0xffff_ff00 != 0 {
            return None;
        }
        State::from_bits(self.0 as u8)
    }
}

#[inline]
fn entry(index: u32) -> usize {
    (PAGE_BYTES + u64::from(index) * ENTRY_BYTES) as usize
}

/// Where the words of an entry are that are used.
#[cfg(mobula_loom)]
pub(crate) fn entry_words(index: u32) -> impl Iterator<Item = usize> {
    (0..=WORDS).map(move |at| entry(index) + at * size_of::<u64>())
}

/// A table as its one writer sees it: the owner, or the daemon once the owner has died.
#[derive(Debug)]
pub struct TableWriter {
    mapping: WriteMapping,
}

impl TableWriter {
    /// Maps a table for writing.
    ///
    /// # Errors
    /// The system's.
    pub fn map(descriptor: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { mapping: WriteMapping::map(descriptor, 0, TABLE_BYTES as usize)? })
    }

    /// The word of an entry.
    ///
    /// # Panics
    /// Beyond [`ENTRIES_MAX`].
    #[inline]
    pub fn word(&self, index: u32) -> &AtomicU64 {
        self.mapping.word64(entry(index))
    }

    /// Stores the final state of a promise, and passes a fence. Look for [`WAITING`](crate::pins::WAITING) in every
    /// reader's pin afterwards, and ring those that wait.
    pub fn settle(&self, index: u32, word: Word) {
        // Release: publishes the bytes and the location of a promise that is kept.
        self.word(index).store(word.bits(), Ordering::Release);
        // SeqCst: pairs with the waiter's fence between its store of WAITING and its last look at the word. Either the
        // waiter finds the promise settled, or its pin is found here.
        fence(Ordering::SeqCst);
    }

    /// Writes the fields beside the word; the caller stores the word afterwards.
    #[inline]
    pub fn fill(&self, index: u32, location: &Location) {
        let words = self.mapping.words64::<WORDS>(entry(index));
        let values = location.to_words();
        for at in 1..WORDS {
            words[at].store(values[at], Ordering::Relaxed);
        }
    }

    /// Records that the bytes lie at another position. One store; see [`try_compact`](crate::pins::try_compact).
    #[inline]
    pub fn set_place(&self, index: u32, segment: u32, offset: u64) {
        // Release: the bytes there, and the word before, come before; a killed process leaves what it stored in this
        // order.
        self.mapping.word64(entry(index) + PLACE).store(place_bits(segment, offset), Ordering::Release);
    }

    /// Reads the fields beside the word.
    #[inline]
    pub fn location(&self, index: u32) -> Location {
        let words = self.mapping.words64::<WORDS>(entry(index));
        Location::from_words(std::array::from_fn(|at| words[at].load(Ordering::Relaxed)))
    }

    /// Where the entry's record lies in a spill file, if it has one; the module's documentation says when it counts.
    pub fn spill_location(&self, index: u32) -> Option<SpillLocation> {
        SpillLocation::from_bits(self.mapping.word64(entry(index) + SPILL).load(Ordering::Relaxed))
    }

    /// Notes where the entry's record lies, or that it has none. One store.
    pub fn set_spill_location(&self, index: u32, place: Option<SpillLocation>) {
        let bits = place.map_or(0, SpillLocation::to_bits);
        // Release: the record, and the word before, come before; a killed process leaves what it stored in this order.
        self.mapping.word64(entry(index) + SPILL).store(bits, Ordering::Release);
    }

    /// Records the time and the place at which the object of an entry is made. This is for people: nothing depends on
    /// it.
    pub fn set_origin(&self, index: u32, tick: u64, place: u16) {
        let words = self.mapping.words64::<2>(entry(index) + ORIGIN);
        words[0].store(tick, Ordering::Relaxed);
        words[1].store(place.into(), Ordering::Relaxed);
    }

    /// Records that this process is about to sleep on its bell; see [`bell`](crate::bell). One thread of a process at a
    /// time. The drop of the returned guard records that it is awake.
    pub fn begin_sleep(&self) -> Asleep<'_> {
        let word = self.mapping.word32(HEADER_SLEEPS);
        // Another odd number, whether the word was odd or even. Relaxed: the fence puts it before the look at
        // everything.
        word.store(word.load(Ordering::Relaxed).wrapping_add(1) | 1, Ordering::Relaxed);
        // SeqCst: pairs with the waker's fence in `TableReader::sleep`.
        fence(Ordering::SeqCst);
        failpoint(Failpoint::SleepBegun);
        Asleep { word }
    }
}

/// The time in which a process sleeps on its bell.
#[derive(Debug)]
pub struct Asleep<'a> {
    word: &'a AtomicU32,
}

impl Drop for Asleep<'_> {
    fn drop(&mut self) {
        // Relaxed: a waker that still finds the sleep rings in vain. If a waker finds it ended, the look after the next
        // sleep's fence sees all that the waker has published.
        self.word.store(self.word.load(Ordering::Relaxed).wrapping_add(1) & !1, Ordering::Relaxed);
        failpoint(Failpoint::SleepEnded);
    }
}

/// A table as every process but its owner sees it. The owner may have written anything there: check each value, then
/// use it.
#[derive(Debug)]
pub struct TableReader {
    mapping: ReadMapping,
}

impl TableReader {
    /// Maps a table for reading.
    ///
    /// # Errors
    /// The system's.
    pub fn map(descriptor: BorrowedFd<'_>) -> io::Result<Self> {
        Ok(Self { mapping: ReadMapping::map(descriptor, 0, TABLE_BYTES as usize)? })
    }

    /// Loads the word of an entry, and acquires what its owner stored before it. The second half of the handshake for a
    /// reader that has set its pin.
    ///
    /// # Panics
    /// Beyond [`ENTRIES_MAX`].
    #[inline]
    pub fn word(&self, index: u32) -> Word {
        Word::from_bits(self.mapping.load64_acquire(entry(index)))
    }

    /// The address of the first entry; the others follow at distances of [`ENTRY_BYTES`]. For hints alone.
    #[cfg(not(mobula_loom))]
    pub fn first_entry(&self) -> usize {
        self.mapping.pointer(entry(0), 1).addr().get()
    }

    /// Reads the fields beside the word; meaningful only while a pin holds the entry.
    #[inline]
    pub fn location(&self, index: u32) -> Location {
        Location::from_words(self.mapping.load_words64(entry(index)))
    }

    /// The time and the place at which the object of an entry was made, as its owner reports them: a tick, and the
    /// number of a name.
    ///
    /// # Panics
    /// Beyond [`ENTRIES_MAX`].
    pub fn origin(&self, index: u32) -> (u64, u16) {
        let [tick, place] = self.mapping.load_words64(entry(index) + ORIGIN);
        (tick, place as u16)
    }

    /// The number of the sleep on its bell that the owner is in; `None` while it is awake. A fence and a load, for a
    /// waker that has published something.
    #[inline]
    pub fn sleep(&self) -> Option<u32> {
        // SeqCst: puts what was published before the load; pairs with the sleeper's fence in
        // `TableWriter::begin_sleep`.
        fence(Ordering::SeqCst);
        Some(self.mapping.load32_relaxed(HEADER_SLEEPS)).filter(|sleeps| sleeps % 2 == 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_keep_generation_and_state_apart() {
        for generation in [0, 1, u32::MAX] {
            let word = Word::new(generation, State::Sealed);
            assert_eq!((word.generation(), word.state()), (generation, Some(State::Sealed)));
        }
        assert_eq!(Word::from_bits(0x0100).state(), None);
        assert_eq!(Word::from_bits(99).state(), None);
        for bits in 0..=u8::MAX {
            assert!(State::from_bits(bits).is_none_or(|state| state as u8 == bits));
        }
        assert_eq!(State::from_bits(State::Spilled as u8), Some(State::Spilled));
    }

    #[test]
    fn a_location_is_read_as_it_was_written() {
        let location =
            Location { segment: u32::MAX, offset: 64, length: 1 << 40, format: 0x8000_0001, references: 7 };
        assert_eq!(Location::from_words(location.to_words()), location);
        let last = u64::from(u32::MAX) * ALIGNMENT;
        for (offset, read) in [(last, last), (last + ALIGNMENT, last), (u64::MAX, last), (127, 64)] {
            let location = Location { offset, ..location };
            assert_eq!(Location::from_words(location.to_words()), Location { offset: read, ..location });
        }
    }

    #[test]
    fn the_place_of_a_record_is_kept_beside_the_location() {
        use crate::memory::SharedMemory;
        let memory = SharedMemory::create(c"test", TABLE_BYTES).unwrap();
        let table = TableWriter::map(memory.writable()).unwrap();
        let location = Location { segment: 1, offset: 128, length: 3, format: 4, references: 5 };
        let place = SpillLocation::new(7, 64 << 20).unwrap();
        table.fill(9, &location);
        table.set_place(9, 1 << 31, 64);
        assert_eq!(table.location(9), Location { segment: 1 << 31, offset: 64, ..location });
        table.set_place(9, 1, 128);
        assert_eq!(table.spill_location(9), None);
        table.set_spill_location(9, Some(place));
        assert_eq!((table.spill_location(9), table.location(9)), (Some(place), location));
        table.set_spill_location(9, None);
        assert_eq!((table.spill_location(9), table.location(10)), (None, Location::default()));
    }

    #[test]
    fn a_location_that_lies_does_not_fit() {
        let fits = |offset, length, references| {
            Location { offset, length, references, ..Location::default() }.fits(4096)
        };
        assert!(fits(0, 4096, 0));
        assert!(fits(4096, 0, 0));
        assert!(!fits(1, 4096, 0));
        assert!(!fits(u64::MAX, 2, 0));
        assert!(!fits(2, u64::MAX, 0));
        assert!(fits(0, 4080, 1));
        assert!(!fits(0, 4081, 1));
        assert!(!fits(0, 0, u32::MAX));
    }
}
