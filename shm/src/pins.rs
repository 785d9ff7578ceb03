//! Pins: which client uses which object, and the handshake by which an owner frees objects that no client uses.
//!
//! Each process has pins in its [control memory](crate::control), which it alone writes: an extent for each owner, in
//! the order of their slots, and in it a word for each entry. The daemon allocates the pages when a client attaches to
//! an owner. Finding a word needs no directory. An owner maps the extent that concerns it of every reader.
//!
//! In the word of the first entry of each group of 1024, above that entry's own bits, the client counts the pins of the
//! group: up before it sets one, down after it took one back. So an owner sees with one look that a reader pins
//! none of the objects that it would like to free. A client that dies in between leaves a count that is too high, which
//! costs looks.
//!
//! # The handshake
//!
//! ```text
//! reader                                 owner
//! pin.store(HELD)                        word.store(gen|Dying)
//! fence(SeqCst)                          fence(SeqCst)
//! word.load() == gen|Sealed?             any pin.load() != 0?
//! ```
//! This is Dekker's algorithm: at least one of the two loads sees the other side's store, because one of the two fences
//! comes first in the one order of all `SeqCst` fences, and what was stored before it is seen after the other one.
//! Either the reader finds the entry `Dying` and takes its pin back, or the owner finds the pin and puts `Sealed` back.
//! Without one of the fences both could pass. The loads themselves are relaxed, with an acquire fence behind them: each
//! side has the other's word [mapped read-only](crate::mapping).
//!
//! An owner that frees many entries at once ([`free_together`]) stores `Dying` to all of them and then passes one
//! fence.
//!
//! A group's count takes part as a pin does: it lies before the same fence. An owner that sees no count, or then no
//! pin, has its fence before the reader's.
//!
//! Spilling is the same handshake for other bits: an object may be evicted from memory ([`try_spill`]) while no client
//! has it [`MAPPED`], although many may have it [`HELD`]. So a reader that wants the bytes sets `MAPPED` first, and
//! believes the word only afterwards; what it knew from its other pins may be out of date.
//!
//! Compaction is the same once more ([`try_compact`]): the object moves to another place in memory, which needs that no
//! client has its bytes mapped.
//!
//! An owner's pins on its own entries take no part: it does not free objects that it uses itself.
//!
//! A reader that the owner has not heard of would break it, so the owner also checks, between its fence and
//! its look at the pins, that it knows all its readers: the daemon counts them in its [directory](crate::directory)
//! *before* it tells a new reader that it may pin.
//!
//! Proved by exploring this code: `shm/tests/loom/handshake.rs` (pin against free, one entry and many; a group's count
//! under two threads; a reader that joins; a reference that is handed on), `spilling.rs` (borrowed bytes stay in
//! memory), `compaction.rs` (and where they are) and `takeover.rs` (the owner dies at any store).

use std::io;
use std::os::fd::BorrowedFd;

pub use crate::control::{PIN_BYTES, PIN_EXTENT_BYTES};

use crate::control::pin_extent_offset;
use crate::failpoints::{Failpoint, failpoint};
use crate::mapping::{ReadMapping, WriteMapping};
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};
use crate::table::{State, Word};

/// The client has a reference to the object.
pub const HELD: u32 = 1;
/// The client borrows the object's bytes.
pub const MAPPED: u32 = 2;
/// The client sleeps until the promised object is there.
pub const WAITING: u32 = 4;

/// The bits of a pin.
const BITS: u32 = 0xff;
/// Entries of a group: those whose pins share a page.
const GROUP: u32 = 1024;
/// One pin in a group, in the word of its first entry.
const GROUP_ONE: u32 = BITS + 1;
/// Pins that are looked at to save looks at single ones.
const RANGE_MAX: usize = 256;

/// This process's pins on one owner.
#[derive(Debug)]
pub struct PinWriter {
    mapping: WriteMapping,
}

impl PinWriter {
    /// Maps the extent of one's own control memory that concerns the owner in `slot`.
    ///
    /// # Errors
    /// The system's.
    pub fn map(control: BorrowedFd<'_>, slot: u16) -> io::Result<Self> {
        let mapping = WriteMapping::map(control, pin_extent_offset(slot), PIN_EXTENT_BYTES as usize)?;
        Ok(Self { mapping })
    }

    /// Stores a pin, and passes a fence: the first half of the reader's side of the handshake. Load the entry's word
    /// afterwards.
    ///
    /// For each entry, one thread at a time; this goes for all that writes.
    #[inline]
    pub fn set(&self, index: u32, bits: u32) {
        let before = self.bits(index);
        if before == 0 && bits != 0 {
            // Relaxed: the fence below puts it before the load of the word, as it does the pin.
            self.group(index).fetch_add(GROUP_ONE, Ordering::Relaxed);
            failpoint(Failpoint::PinCounted);
        }
        // Release: as in `clear`, for a bit that is taken back.
        self.store(index, before, bits, Ordering::Release);
        // SeqCst: pairs with the owner's fence behind its store of `Dying`; see the module's documentation. WAITING
        // pairs with the fence of `TableWriter::settle` in the same way.
        fence(Ordering::SeqCst);
        failpoint(Failpoint::PinStored);
        if before != 0 && bits == 0 {
            self.uncount(index);
        }
    }

    /// Changes the bits of an entry that is pinned, and stays so. No part of the handshake.
    #[inline]
    pub fn change(&self, index: u32, bits: u32) {
        let before = self.bits(index);
        debug_assert!(before != 0 && bits != 0);
        // Release: as in `clear`, for a bit that is taken back.
        self.store(index, before, bits, Ordering::Release);
        failpoint(Failpoint::PinChanged);
    }

    /// Takes a pin back.
    #[inline]
    pub fn clear(&self, index: u32) {
        let before = self.bits(index);
        // Release: the reads of the object's bytes come before; pairs with the owner's load.
        self.store(index, before, 0, Ordering::Release);
        failpoint(Failpoint::UnpinCleared);
        if before != 0 {
            self.uncount(index);
        }
    }

    /// Takes back every pin of the first `entries` that `keep` does not want, and counts the groups anew: for a daemon
    /// that goes on with the pins of one that was killed, perhaps between a count and its pin.
    pub fn retain(&self, entries: u32, keep: impl Fn(u32) -> bool) {
        for first in (0..entries).step_by(GROUP as usize) {
            let mut kept = 0;
            for index in first..entries.min(first + GROUP) {
                let bits = self.bits(index);
                if bits != 0 && keep(index) {
                    kept += 1;
                } else if index != first {
                    self.word(index).store(0, Ordering::Release);
                }
            }
            let bits = if keep(first) { self.bits(first) } else { 0 };
            // The count never says less than there are pins that stay. Release: as in `clear`.
            self.word(first).store(bits + kept * GROUP_ONE, Ordering::Release);
        }
    }

    /// Says what an owner uses of its own entries: for the daemon to show. No part of the handshake, and not counted.
    #[inline]
    pub fn set_own(&self, index: u32, bits: u32) {
        self.word(index).store(bits, Ordering::Release);
    }

    #[inline]
    fn bits(&self, index: u32) -> u32 {
        self.word(index).load(Ordering::Relaxed) & BITS
    }

    #[inline]
    fn store(&self, index: u32, before: u32, bits: u32, ordering: Ordering) {
        if index.is_multiple_of(GROUP) {
            // The rest of the word is the group's count, which other threads change.
            self.word(index).fetch_xor(before ^ bits, ordering);
        } else {
            self.word(index).store(bits, ordering);
        }
    }

    #[inline]
    fn uncount(&self, index: u32) {
        // Release: as in `clear`, for an owner that looks at the count alone.
        self.group(index).fetch_sub(GROUP_ONE, Ordering::Release);
        failpoint(Failpoint::UnpinUncounted);
    }

    #[inline]
    fn word(&self, index: u32) -> &AtomicU32 {
        self.mapping.word32(index as usize * PIN_BYTES as usize)
    }

    /// The word that has the count of an entry's group.
    #[inline]
    fn group(&self, index: u32) -> &AtomicU32 {
        self.word(index - index % GROUP)
    }
}

/// Another client's pins on one owner, as that owner (or the daemon) reads them.
#[derive(Debug)]
pub struct PinReader {
    mapping: ReadMapping,
}

impl PinReader {
    /// Maps the extent of a reader's control memory that concerns the owner in `slot`.
    ///
    /// # Errors
    /// The system's.
    pub fn map(control: BorrowedFd<'_>, slot: u16) -> io::Result<Self> {
        let (offset, len) = (pin_extent_offset(slot), PIN_EXTENT_BYTES as usize);
        // An owner looks at the same places of every reader's extent; see there.
        Ok(Self { mapping: ReadMapping::map_scattered(control, offset, len)? })
    }

    /// The pin word of an entry. The second half of the handshake for an owner that has passed a fence.
    #[inline]
    pub fn get(&self, index: u32) -> u32 {
        // Acquire: what the reader did before it took a pin back came before.
        self.mapping.load32_acquire(index as usize * PIN_BYTES as usize) & BITS
    }
}

impl PinReader {
    /// Whether any entry of a range may be pinned, as far as a few looks show: one for each group when there are no
    /// pins in it. The second half of the handshake for an owner that has passed a fence.
    ///
    /// # Panics
    /// Beyond [`ENTRIES_MAX`](crate::table::ENTRIES_MAX).
    #[inline]
    pub fn may_hold(&self, indices: std::ops::RangeInclusive<u32>) -> bool {
        let (first, last) = indices.into_inner();
        let offset = |index: u32| index as usize * PIN_BYTES as usize;
        let is_counted = |group: u32| {
            // Relaxed: the owner's fence came before it.
            self.mapping.load32_relaxed(offset(group * GROUP)) >= GROUP_ONE
        };
        let counted = (first / GROUP..=last / GROUP).any(is_counted);
        let count = (last as usize + 1).saturating_sub(first as usize);
        let held =
            counted && (count > RANGE_MAX || self.mapping.or_words32(offset(first), count) & BITS != 0);
        // Acquire: with the loads before it, what `get` does.
        fence(Ordering::Acquire);
        held
    }
}

/// The owner's side of the handshake: `true` when the entry is free now, with the next generation.
///
/// `from` is the state that the entry is in, `Sealed`, `Deleted` or `Spilled`; `held` looks at every reader's pin, and
/// says
/// `true` as well when it does not know all readers. It is called after the fence.
pub fn try_free(word: &AtomicU64, generation: u32, from: State, held: impl Fn() -> bool) -> bool {
    store_dying(word, generation);
    failpoint(Failpoint::SweepDying);
    if held() {
        // Release, so that a reader that finds it sealed again also finds the location.
        word.store(Word::new(generation, from).bits(), Ordering::Release);
        return false;
    }
    word.store(Word::new(generation.wrapping_add(1), State::Free).bits(), Ordering::Release);
    true
}

/// The owner's side of the handshake for a sealed object that is to be evicted from memory: `true` when it is spilled,
/// and its memory can be used for other objects.
///
/// Its spill record is whole already. `mapped` looks for [`MAPPED`] in every reader's pin, and says `true` as well when
/// it does not know all readers; `commit` notes where the record lies. A process that is killed in between leaves the
/// object sealed, or spilled: with a [place](crate::table) noted it is spilled, without one it is sealed.
pub fn try_spill(
    word: &AtomicU64,
    generation: u32,
    mapped: impl FnOnce() -> bool,
    commit: impl FnOnce(),
) -> bool {
    try_leave(
        word,
        generation,
        mapped,
        commit,
        State::Spilled,
        [Failpoint::SpillDying, Failpoint::SpillNoted],
    )
}

/// The owner's side of the handshake for a sealed object that is to move to another place in memory: `true` when it
/// has, and the old place can be used for others.
///
/// The bytes are in the new place already. `mapped` is as for [`try_spill`]; `commit`
/// [says](crate::table::TableWriter::set_place) in one store where that is. A process that is killed in between leaves
/// the object in the old place or in the new one.
pub fn try_compact(
    word: &AtomicU64,
    generation: u32,
    mapped: impl FnOnce() -> bool,
    commit: impl FnOnce(),
) -> bool {
    try_leave(
        word,
        generation,
        mapped,
        commit,
        State::Sealed,
        [Failpoint::CompactDying, Failpoint::CompactNoted],
    )
}

fn try_leave(
    word: &AtomicU64,
    generation: u32,
    mapped: impl FnOnce() -> bool,
    commit: impl FnOnce(),
    then: State,
    failpoints: [Failpoint; 2],
) -> bool {
    store_dying(word, generation);
    failpoint(failpoints[0]);
    let stays = mapped();
    if !stays {
        commit();
        failpoint(failpoints[1]);
    }
    let state = if stays { State::Sealed } else { then };
    // Release, so that a reader that finds it sealed again also finds the location.
    word.store(Word::new(generation, state).bits(), Ordering::Release);
    !stays
}

/// The first half of the owner's side of the handshake for one entry.
fn store_dying(word: &AtomicU64, generation: u32) {
    // Relaxed: the fence puts it before the look at the pins.
    word.store(Word::new(generation, State::Dying).bits(), Ordering::Relaxed);
    // SeqCst: pairs with the reader's fence between its store of the pin and its load of the word.
    fence(Ordering::SeqCst);
}

/// An entry that its owner would like to free together with others.
#[derive(Debug)]
pub struct Candidate<'a> {
    /// Index of the entry.
    pub index: u32,
    /// Its state word.
    pub word: &'a AtomicU64,
    /// The value of the word: a generation, and `Sealed`, `Deleted`, `Spilled` or `Lost`.
    pub from: Word,
    /// Whether a client has been found to hold it.
    pub held: bool,
}

/// The owner's side of the handshake for many entries, with one fence for all of them. Entries that are not `held`
/// afterwards are free, with the next generation; the others are as before.
///
/// `look` looks at every reader's pins on every candidate and marks those that are held: all of them, when it does not
/// know all readers. It is called after the fence.
pub fn free_together<'a>(candidates: &mut [Candidate<'a>], look: impl FnOnce(&mut [Candidate<'a>])) {
    // A lost promise has no bytes to protect, and must never be taken for an object: if this process dies now, the
    // daemon makes an entry that it finds dying sealed, or spilled.
    let with_bytes = candidates.iter().filter(|candidate| candidate.from.state() != Some(State::Lost));
    for candidate in with_bytes {
        let dying = Word::new(candidate.from.generation(), State::Dying);
        // Relaxed: the fence puts it before the look at the pins.
        candidate.word.store(dying.bits(), Ordering::Relaxed);
        failpoint(Failpoint::FreeDying);
    }
    // SeqCst: pairs with the reader's fence between its store of the pin and its load of the word.
    fence(Ordering::SeqCst);
    failpoint(Failpoint::FreeFenced);
    look(candidates);
    failpoint(Failpoint::FreeLooked);
    for candidate in candidates.iter() {
        let from = candidate.from;
        let next = Word::new(from.generation().wrapping_add(1), State::Free);
        // Release, so that a reader that finds it sealed again also finds the location.
        candidate.word.store(if candidate.held { from } else { next }.bits(), Ordering::Release);
        failpoint(Failpoint::FreeStored);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::control_bytes;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn freeing_goes_to_the_next_generation_only_while_no_client_holds() {
        let word = AtomicU64::new(Word::new(7, State::Sealed).bits());
        assert!(!try_free(&word, 7, State::Sealed, || true));
        assert_eq!(word.load(Ordering::Relaxed), Word::new(7, State::Sealed).bits());
        assert!(try_free(&word, 7, State::Sealed, || false));
        assert_eq!(word.load(Ordering::Relaxed), Word::new(8, State::Free).bits());
    }

    /// The reader's side of the handshake, as `PinWriter::set` and `TableReader::word` have it.
    fn pin_then_load(pin: &AtomicU32, bits: u32, word: &AtomicU64) -> u64 {
        pin.store(bits, Ordering::Release);
        fence(Ordering::SeqCst);
        word.load(Ordering::Acquire)
    }

    /// Miri is slow.
    const ROUNDS: u32 = if cfg!(miri) { 50 } else { 20_000 };

    #[test]
    fn pin_and_free_never_both_win() {
        let (word, pin) = (AtomicU64::new(0), AtomicU32::new(0));
        for generation in 0..ROUNDS {
            word.store(Word::new(generation, State::Sealed).bits(), Ordering::SeqCst);
            pin.store(0, Ordering::SeqCst);
            let (pinned, freed) = std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    pin_then_load(&pin, HELD, &word) == Word::new(generation, State::Sealed).bits()
                });
                let freed = try_free(&word, generation, State::Sealed, || pin.load(Ordering::Acquire) != 0);
                (reader.join().unwrap(), freed)
            });
            // A reader may have passed before the swap or after it was taken back, but never an entry that was freed.
            assert!(!(pinned && freed), "generation {generation} was freed under a reader");
        }
    }

    #[test]
    fn bytes_are_lent_or_spilled_and_never_both() {
        let (word, pin) = (AtomicU64::new(0), AtomicU32::new(0));
        for generation in 0..20_000 {
            let sealed = Word::new(generation, State::Sealed);
            word.store(sealed.bits(), Ordering::SeqCst);
            // Held throughout, which is no reason to stay in memory.
            pin.store(HELD, Ordering::SeqCst);
            let mut noted = false;
            let (borrowed, spilled) = std::thread::scope(|scope| {
                let reader = scope.spawn(|| pin_then_load(&pin, HELD | MAPPED, &word) == sealed.bits());
                let mapped = || pin.load(Ordering::Acquire) & MAPPED != 0;
                let spilled = try_spill(&word, generation, mapped, || noted = true);
                (reader.join().unwrap(), spilled)
            });
            assert!(!(borrowed && spilled), "generation {generation} was spilled under a reader");
            assert_eq!(noted, spilled);
            let state = if spilled { State::Spilled } else { State::Sealed };
            assert_eq!(word.load(Ordering::Relaxed), Word::new(generation, state).bits());
        }
    }

    #[test]
    fn pin_and_free_together_never_both_win() {
        const COUNT: usize = 8;
        let words: [AtomicU64; COUNT] = Default::default();
        let pins: [AtomicU32; COUNT] = Default::default();
        for generation in 0..ROUNDS / 2 {
            let sealed = Word::new(generation, State::Sealed);
            words.iter().for_each(|word| word.store(sealed.bits(), Ordering::SeqCst));
            pins.iter().for_each(|pin| pin.store(0, Ordering::SeqCst));
            let mut candidates: [Candidate<'_>; COUNT] = std::array::from_fn(|at| Candidate {
                index: at as u32,
                word: &words[at],
                from: sealed,
                held: false,
            });
            let pinned = std::thread::scope(|scope| {
                let reader = scope.spawn(|| {
                    // Against the owner's order, so that the two meet somewhere.
                    let mut pinned = [false; COUNT];
                    for at in (0..COUNT).rev() {
                        pinned[at] = pin_then_load(&pins[at], HELD, &words[at]) == sealed.bits();
                    }
                    pinned
                });
                free_together(&mut candidates, |candidates| {
                    for candidate in candidates {
                        candidate.held = pins[candidate.index as usize].load(Ordering::Acquire) != 0;
                    }
                });
                reader.join().unwrap()
            });
            for (at, candidate) in candidates.iter().enumerate() {
                assert!(
                    !pinned[at] || candidate.held,
                    "{at} in generation {generation} was freed under a reader"
                );
                let next = Word::new(generation + 1, State::Free);
                let expected = if candidate.held { sealed } else { next };
                assert_eq!(words[at].load(Ordering::Relaxed), expected.bits());
            }
        }
    }

    #[test]
    fn a_group_is_counted_beside_the_pins_of_its_first_entry() {
        use crate::memory::SharedMemory;
        use std::os::fd::AsFd;
        let memory = SharedMemory::create(c"test", control_bytes(1)).unwrap();
        let writer = PinWriter::map(memory.writable(), 0).unwrap();
        let reader = PinReader::map(memory.read_only().unwrap().as_fd(), 0).unwrap();
        let check = |pinned: &[(u32, u32)]| {
            for index in [0, 1, 5, GROUP - 1, GROUP, GROUP + 7] {
                let bits = pinned.iter().find(|(at, _)| *at == index).map_or(0, |(_, bits)| *bits);
                assert_eq!(reader.get(index), bits, "{index}");
                assert_eq!(reader.may_hold(index..=index), bits != 0, "{index}");
            }
            let in_group = |group| pinned.iter().any(|(index, _)| index / GROUP == group);
            assert_eq!(reader.may_hold(0..=GROUP - 1), in_group(0));
            assert_eq!(reader.may_hold(GROUP..=2 * GROUP), in_group(1));
            assert_eq!(reader.may_hold(7..=GROUP + 100), in_group(0) || in_group(1));
        };
        check(&[]);
        writer.set(5, HELD);
        check(&[(5, HELD)]);
        writer.set(0, HELD);
        writer.change(0, HELD | MAPPED);
        writer.set(5, HELD | WAITING);
        check(&[(0, HELD | MAPPED), (5, HELD | WAITING)]);
        writer.set(GROUP, HELD | MAPPED);
        writer.clear(5);
        writer.clear(5);
        check(&[(0, HELD | MAPPED), (GROUP, HELD | MAPPED)]);
        writer.set(0, 0);
        check(&[(GROUP, HELD | MAPPED)]);
        writer.clear(GROUP);
        check(&[]);
    }

    #[test]
    fn pins_that_are_not_wanted_go_and_the_groups_are_counted_anew() {
        use crate::memory::SharedMemory;
        use std::os::fd::AsFd;
        let memory = SharedMemory::create(c"test", control_bytes(1)).unwrap();
        let writer = PinWriter::map(memory.writable(), 0).unwrap();
        let reader = PinReader::map(memory.read_only().unwrap().as_fd(), 0).unwrap();
        for index in [0, 5, 9, GROUP, GROUP + 1] {
            writer.set(index, HELD);
        }
        // Counted, and killed before the pin.
        writer.group(0).fetch_add(GROUP_ONE, Ordering::SeqCst);
        writer.retain(GROUP + 100, |index| index == 5 || index == GROUP);
        for index in [0, 5, 9, GROUP, GROUP + 1] {
            let kept = index == 5 || index == GROUP;
            assert_eq!(reader.get(index) != 0, kept, "{index}");
        }
        writer.clear(5);
        assert!(!reader.may_hold(0..=GROUP - 1) && reader.may_hold(GROUP..=GROUP));
        writer.clear(GROUP);
        assert!(!reader.may_hold(0..=2 * GROUP));
    }

    #[test]
    fn threads_that_pin_in_one_group_leave_no_count_behind() {
        use crate::memory::SharedMemory;
        use std::os::fd::AsFd;
        let memory = SharedMemory::create(c"test", control_bytes(1)).unwrap();
        let writer = PinWriter::map(memory.writable(), 0).unwrap();
        let reader = PinReader::map(memory.read_only().unwrap().as_fd(), 0).unwrap();
        std::thread::scope(|scope| {
            for index in 0..4 {
                let (writer, reader) = (&writer, &reader);
                scope.spawn(move || {
                    for _ in 0..ROUNDS {
                        writer.set(index, HELD);
                        assert!(reader.may_hold(0..=GROUP - 1) && reader.get(index) == HELD);
                        writer.change(index, HELD | MAPPED);
                        assert_eq!(reader.get(index), HELD | MAPPED);
                        writer.clear(index);
                        assert_eq!(reader.get(index), 0);
                    }
                });
            }
        });
        assert!(!reader.may_hold(0..=GROUP - 1));
    }
}
