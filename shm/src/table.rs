//! The object table: one 64-byte entry for each object of a client, written by that client alone.
//!
//! # Layout of the memory
//!
//! A header page, then [`ENTRIES_MAX`] entries. The file is sparse: the daemon allocates the pages of as many entries
//! as it *committed* to (see [`directory`](crate::directory)), and nobody touches an entry beyond.
//!
//! # States of an entry
//!
//! | state | means | who leaves it, for what |
//! |---|---|---|
//! | `Free` | no object; the generation is that of the next one | owner: `Promised`, `Sealed` |
//! | `Promised` | a result that is not there yet | owner: `Sealed`; daemon, for a dead owner: `Lost` |
//! | `Sealed` | location valid, bytes final | owner: `Dying`, `Deleted`; daemon, for a dead owner: `Dying` |
//! | `Dying` | its owner is looking whether anyone pins it | owner: back to `Sealed`, or `Free` with the next generation |
//! | `Deleted` | pins stay valid, new ones are refused | owner: `Free` with the next generation |
//! | `Lost` | a promise whose owner died | daemon: `Free` |
//!
//! The fields beside the word are written relaxed, before the word is stored with `Release` (at least); a reader that
//! has found the word `Sealed` with the generation it expects, *while it has a pin*, reads them relaxed. The pairing of
//! pins and words is [`pins`](crate::pins)' business.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::mapping::{ReadMapping, WriteMapping};
use crate::memory::PAGE_BYTES;

/// Bytes of an entry.
pub const ENTRY_BYTES: u64 = 64;
/// Objects that one owner can have alive at a time.
pub const ENTRIES_MAX: u32 = 1 << 22;
/// Bytes of a table's (sparse) memory.
pub const TABLE_BYTES: u64 = PAGE_BYTES + ENTRIES_MAX as u64 * ENTRY_BYTES;

const HEADER_SLEEPING: usize = 64;

const WORD: usize = 0;
const SEGMENT: usize = 8;
const FORMAT: usize = 12;
const OFFSET: usize = 16;
const LENGTH: usize = 24;
const REFERENCES: usize = 32;
const _: () = assert!(REFERENCES + size_of::<u32>() <= ENTRY_BYTES as usize);

/// The state of an entry; the module's documentation has the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum State {
    /// No object.
    Free = 0,
    /// A result that is not there yet.
    Promised = 1,
    /// Readable.
    Sealed = 2,
    /// Being looked at by its owner, who wants to free it.
    Dying = 3,
    /// Freed once the last pin is gone; no new pins.
    Deleted = 4,
    /// A promise that nobody can keep any more.
    Lost = 5,
}

impl State {
    fn from_bits(bits: u8) -> Option<Self> {
        [Self::Free, Self::Promised, Self::Sealed, Self::Dying, Self::Deleted, Self::Lost]
            .into_iter()
            .find(|state| *state as u8 == bits)
    }
}

/// An entry's word: the generation and the state, stored and loaded as one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Word(u64);

impl Word {
    /// The word of a generation in a state.
    pub fn new(generation: u32, state: State) -> Self {
        Self(u64::from(generation) << 32 | state as u64)
    }

    /// As it was loaded from memory that somebody else may have written.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits)
    }

    /// As it is stored.
    pub fn bits(self) -> u64 {
        self.0
    }

    /// Which of the objects that used this entry one after the other.
    pub fn generation(self) -> u32 {
        (self.0 >> 32) as u32
    }

    /// The state; `None` for bits that nobody honest wrote.
    pub fn state(self) -> Option<State> {
        if self.0 & 0xffff_ff00 != 0 {
            return None;
        }
        State::from_bits(self.0 as u8)
    }
}

/// Where the bytes of an object lie, and what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Location {
    /// Segment of the owner's.
    pub segment: u32,
    /// Byte offset in the segment.
    pub offset: u64,
    /// Bytes of the payload.
    pub length: u64,
    /// What the payload is; the store does not care.
    pub format: u32,
    /// Ids of other objects that this one keeps alive; 16 bytes each, behind the payload at
    /// [`references_offset`](Self::references_offset).
    pub references: u32,
}

impl Location {
    /// Bytes of one recorded reference.
    pub const REFERENCE_BYTES: u64 = 16;

    /// Where the recorded references begin; `None` where a forged length overflows.
    pub fn references_offset(&self) -> Option<u64> {
        self.offset.checked_add(self.length)?.checked_next_multiple_of(16)
    }

    /// Bytes of payload and references together, from `offset`.
    pub fn extent(length: u64, references: u32) -> Option<u64> {
        let payload =
            if references == 0 { length } else { length.checked_next_multiple_of(Self::REFERENCE_BYTES)? };
        payload.checked_add(u64::from(references) * Self::REFERENCE_BYTES)
    }

    /// Whether payload and references lie inside a segment of `segment_bytes`.
    pub fn fits(&self, segment_bytes: u64) -> bool {
        let end = if self.references == 0 {
            self.offset.checked_add(self.length)
        } else {
            self.references_offset()
                .and_then(|start| start.checked_add(u64::from(self.references) * Self::REFERENCE_BYTES))
        };
        end.is_some_and(|end| end <= segment_bytes)
    }
}

fn entry(index: u32) -> usize {
    (PAGE_BYTES + u64::from(index) * ENTRY_BYTES) as usize
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
    pub fn word(&self, index: u32) -> &AtomicU64 {
        self.mapping.word64(entry(index) + WORD)
    }

    /// Writes the fields beside the word; the caller stores the word afterwards.
    pub fn fill(&self, index: u32, location: &Location) {
        let entry = entry(index);
        self.mapping.word32(entry + SEGMENT).store(location.segment, Ordering::Relaxed);
        self.mapping.word32(entry + FORMAT).store(location.format, Ordering::Relaxed);
        self.mapping.word64(entry + OFFSET).store(location.offset, Ordering::Relaxed);
        self.mapping.word64(entry + LENGTH).store(location.length, Ordering::Relaxed);
        self.mapping.word32(entry + REFERENCES).store(location.references, Ordering::Relaxed);
    }

    /// Reads the fields beside the word.
    pub fn location(&self, index: u32) -> Location {
        let entry = entry(index);
        Location {
            segment: self.mapping.word32(entry + SEGMENT).load(Ordering::Relaxed),
            format: self.mapping.word32(entry + FORMAT).load(Ordering::Relaxed),
            offset: self.mapping.word64(entry + OFFSET).load(Ordering::Relaxed),
            length: self.mapping.word64(entry + LENGTH).load(Ordering::Relaxed),
            references: self.mapping.word32(entry + REFERENCES).load(Ordering::Relaxed),
        }
    }

    /// The flag that says that this process sleeps on its bell; see [`bell`](crate::bell).
    pub fn sleeping(&self) -> &AtomicU32 {
        self.mapping.word32(HEADER_SLEEPING)
    }
}

/// A table as everyone but its owner sees it. Everything read from it is the owner's word for it: check, then use.
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

    /// Loads the word of an entry.
    ///
    /// # Panics
    /// Beyond [`ENTRIES_MAX`].
    pub fn word(&self, index: u32, ordering: Ordering) -> Word {
        Word::from_bits(self.mapping.load64(entry(index) + WORD, ordering))
    }

    /// Reads the fields beside the word; meaningful only while a pin holds the entry.
    pub fn location(&self, index: u32) -> Location {
        let entry = entry(index);
        Location {
            segment: self.mapping.load32(entry + SEGMENT, Ordering::Relaxed),
            format: self.mapping.load32(entry + FORMAT, Ordering::Relaxed),
            offset: self.mapping.load64(entry + OFFSET, Ordering::Relaxed),
            length: self.mapping.load64(entry + LENGTH, Ordering::Relaxed),
            references: self.mapping.load32(entry + REFERENCES, Ordering::Relaxed),
        }
    }

    /// Whether the owner says that it sleeps on its bell.
    pub fn is_sleeping(&self) -> bool {
        self.mapping.load32(HEADER_SLEEPING, Ordering::SeqCst) != 0
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
