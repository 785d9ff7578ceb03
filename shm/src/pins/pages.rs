//! The pages of pins: one process writes them, an owner reads them.

use std::io;
use std::os::fd::BorrowedFd;

use crate::control::{PIN_BYTES, PIN_EXTENT_BYTES, pin_extent_offset};
use crate::failpoints::{Failpoint, failpoint};
use crate::mapping::{ReadMapping, WriteMapping};
use crate::sync::{AtomicU32, Ordering, fence};

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

    /// The address of the first pin; the others follow at distances of [`PIN_BYTES`]. For hints alone.
    #[cfg(not(mobula_loom))]
    pub fn first_pin(&self) -> usize {
        self.mapping.pointer(0, 1).addr().get()
    }

    /// Stores a pin, and passes a fence: the first half of the reader's side of the handshake. Load the entry's word
    /// afterwards.
    ///
    /// Only one thread at a time may call this for an entry. The same holds for all methods that write.
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

    /// Changes the bits of an entry that is pinned and stays pinned. No part of the handshake.
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

    /// Takes back every pin of the first `entries` that `keep` does not want, and counts the groups again. This is for
    /// a daemon that takes over the pins of a killed one, which may have died between a count and its pin.
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

    /// Records the owner's use of one of its own entries, for the daemon to show. No part of the handshake, and not
    /// counted.
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
        // Acquire: everything that the reader did before it took a pin back comes before.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::control_bytes;

    /// Miri is slow.
    const ROUNDS: u32 = if cfg!(miri) { 50 } else { 20_000 };

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
