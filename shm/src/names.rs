//! Names of objects, at the end of the daemon's [control memory](crate::control), where they outlive the daemon.
//!
//! The first word is the number of records that were ever in use. The records follow, at fixed offsets:
//!
//! | offset | field |
//! |---|---|
//! | 0 | bytes of the name, stored last; 0 for a record that is vacant |
//! | 8 | the object, 16 bytes |
//! | 64 | the name |
//!
//! The daemon writes a record whole before it stores the length, and clears it by the same word: a daemon that is
//! killed in between has given no name, or removed none. Only the next daemon reads it.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::atomic::Ordering;

use crate::mapping::WriteMapping;
use crate::memory::{PAGE_BYTES, round_up_to_pages};

/// Bytes of the longest name that a record takes.
pub const NAME_BYTES_MAX: usize = 1024;
/// Bytes of an object's id.
pub const OBJECT_BYTES: usize = 16;

const USED: usize = 0;
const HEADER_BYTES: usize = 64;
const LENGTH: usize = 0;
const OBJECT: usize = 8;
const NAME: usize = 64;
const RECORD_BYTES: usize = NAME + NAME_BYTES_MAX;

/// Bytes that `count` names take at most, in whole pages; most of them are never allocated.
pub fn names_bytes(count: u32) -> u64 {
    round_up_to_pages(HEADER_BYTES as u64 + u64::from(count) * RECORD_BYTES as u64).expect("names are few")
}

/// The records, as their one writer sees them.
#[derive(Debug)]
pub struct NameRecords {
    mapping: WriteMapping,
}

impl NameRecords {
    /// Maps the records of `count` names, which begin at `offset`.
    ///
    /// # Errors
    /// The system's.
    pub fn map(descriptor: BorrowedFd<'_>, offset: u64, count: u32) -> io::Result<Self> {
        Ok(Self { mapping: WriteMapping::map(descriptor, offset, names_bytes(count) as usize)? })
    }

    /// The bytes, counted from the beginning, that must be allocated before a record is written. The first page must be
    /// allocated too.
    pub fn extent(place: u32) -> std::ops::Range<u64> {
        let start = record(place) as u64;
        start / PAGE_BYTES * PAGE_BYTES..(start + RECORD_BYTES as u64).next_multiple_of(PAGE_BYTES)
    }

    /// Writes a record, which is vacant.
    ///
    /// # Panics
    /// For a name of no bytes or more than [`NAME_BYTES_MAX`]; beyond the last record.
    pub fn store(&self, place: u32, name: &[u8], object: [u8; OBJECT_BYTES]) {
        assert!((1..=NAME_BYTES_MAX).contains(&name.len()), "a name of {} bytes", name.len());
        let record = record(place);
        let used = self.mapping.word64(USED);
        // Before the record: the next daemon must not overlook it.
        used.store(used.load(Ordering::Relaxed).max(u64::from(place) + 1), Ordering::Relaxed);
        self.mapping.store_words(record + OBJECT, &object);
        self.mapping.store_words(record + NAME, name);
        self.mapping.word64(record + LENGTH).store(name.len() as u64, Ordering::Release);
    }

    /// Makes a record vacant.
    ///
    /// # Panics
    /// Beyond the last record.
    pub fn clear(&self, place: u32) {
        self.mapping.word64(record(place) + LENGTH).store(0, Ordering::Release);
    }

    /// The number of records that were ever in use; records behind them have no memory.
    pub fn used(&self) -> u32 {
        let records = (self.mapping.len() - HEADER_BYTES) / RECORD_BYTES;
        self.mapping.word64(USED).load(Ordering::Acquire).min(records as u64) as u32
    }

    /// Reads a record; `None` for one that is vacant.
    ///
    /// # Panics
    /// Beyond the last record.
    pub fn load(&self, place: u32) -> Option<(Vec<u8>, [u8; OBJECT_BYTES])> {
        let record = record(place);
        let length = self.mapping.word64(record + LENGTH).load(Ordering::Acquire) as usize;
        if !(1..=NAME_BYTES_MAX).contains(&length) {
            return None;
        }
        let bytes = |offset: usize, length: usize| -> Vec<u8> {
            let words = (0..length.div_ceil(8)).map(|at| self.mapping.word64(record + offset + 8 * at));
            let mut bytes: Vec<u8> =
                words.flat_map(|word| word.load(Ordering::Relaxed).to_ne_bytes()).collect();
            bytes.truncate(length);
            bytes
        };
        let object = bytes(OBJECT, OBJECT_BYTES).try_into().expect("just so many bytes");
        Some((bytes(NAME, length), object))
    }
}

fn record(place: u32) -> usize {
    HEADER_BYTES + place as usize * RECORD_BYTES
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::SharedMemory;

    #[test]
    fn what_one_daemon_stored_the_next_one_reads() {
        let bytes = names_bytes(100);
        let memory = SharedMemory::create(c"test", PAGE_BYTES + bytes).unwrap();
        memory.allocate(0..PAGE_BYTES + bytes).unwrap();
        let records = NameRecords::map(memory.writable(), PAGE_BYTES, 100).unwrap();
        assert_eq!((records.used(), records.load(0)), (0, None));
        let longest = vec![b'x'; NAME_BYTES_MAX];
        records.store(0, b"a", [1; 16]);
        records.store(99, &longest, [2; 16]);
        records.store(7, b"seven, in more than a word", [3; 16]);
        records.clear(0);
        drop(records);
        let records = NameRecords::map(memory.writable(), PAGE_BYTES, 100).unwrap();
        let found: Vec<_> = (0..records.used()).filter_map(|place| records.load(place)).collect();
        assert_eq!(found, [(b"seven, in more than a word".to_vec(), [3; 16]), (longest, [2; 16])]);
    }

    #[test]
    fn the_extent_of_a_record_is_whole_pages_inside_the_memory() {
        for place in [0, 1, 3, 99] {
            let extent = NameRecords::extent(place);
            let (start, end) = (record(place) as u64, (record(place) + RECORD_BYTES) as u64);
            assert!(extent.start <= start && end <= extent.end && extent.end <= names_bytes(100));
            assert!(extent.start.is_multiple_of(PAGE_BYTES) && extent.end.is_multiple_of(PAGE_BYTES));
        }
    }
}
