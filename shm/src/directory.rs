//! The daemon's page: the facts that clients must know of each other without asking. The daemon writes it, and all
//! clients read it.
//!
//! Each slot has a record of 64 bytes:
//!
//! | field | means |
//! |---|---|
//! | `epoch` | the owner that has the slot now; 0 for none |
//! | `readers` | how often a reader has joined this owner. An owner frees nothing until it knows that many. |
//! | `committed` | entries of the owner's table, and of all pins on it, that have memory behind them |
//! | `process` | the owner's process id; 0 where the daemon cannot see it |
//! | `serial` | the owner's number among the clients of its process |
//!
//! It lies at the beginning of the daemon's [control memory](crate::control), which outlives the daemon, since clients
//! have it: a daemon that takes the place of a killed one continues with it.

use std::io;
use std::os::fd::BorrowedFd;

use crate::mapping::{ReadMapping, WriteMapping};
use crate::memory::round_up_to_pages;
use crate::sync::Ordering;
use crate::table::TABLE_BYTES;

const RECORD_BYTES: usize = 64;
const EPOCH: usize = 0;
const READERS: usize = 8;
const COMMITTED: usize = 16;
const PROCESS: usize = 24;
const SERIAL: usize = 32;
const _: () = assert!((u16::MAX as u64 + 1) * RECORD_BYTES as u64 <= TABLE_BYTES);

/// The record of the owner in a slot.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SlotRecord {
    /// The owner's epoch.
    pub epoch: u64,
    /// Entries with memory behind them.
    pub committed: u32,
    /// Its process; 0 where the daemon could not see it.
    pub process: u32,
    /// Its number among the clients of that process, from its hello.
    pub serial: u64,
}

/// Bytes of the directory for `slots` owners, in whole pages.
pub fn directory_bytes(slots: u32) -> u64 {
    round_up_to_pages(u64::from(slots) * RECORD_BYTES as u64).expect("slots are few")
}

/// Where the words of a record are.
#[cfg(mobula_loom)]
pub(crate) fn record_words(slot: u16) -> impl Iterator<Item = usize> {
    [EPOCH, READERS, COMMITTED].into_iter().map(move |at| usize::from(slot) * RECORD_BYTES + at)
}

/// The directory as the daemon sees it.
#[derive(Debug)]
pub struct DirectoryWriter {
    mapping: WriteMapping,
}

impl DirectoryWriter {
    /// Maps the directory for writing.
    ///
    /// # Errors
    /// The system's.
    pub fn map(descriptor: BorrowedFd<'_>, slots: u32) -> io::Result<Self> {
        Ok(Self { mapping: WriteMapping::map(descriptor, 0, directory_bytes(slots) as usize)? })
    }

    /// Gives a slot to an owner.
    pub fn set_owner(&self, slot: u16, owner: SlotRecord) {
        let record = usize::from(slot) * RECORD_BYTES;
        self.mapping.word64(record + READERS).store(0, Ordering::Relaxed);
        self.mapping.word64(record + COMMITTED).store(u64::from(owner.committed), Ordering::Relaxed);
        self.mapping.word64(record + PROCESS).store(u64::from(owner.process), Ordering::Relaxed);
        self.mapping.word64(record + SERIAL).store(owner.serial, Ordering::Relaxed);
        self.mapping.word64(record + EPOCH).store(owner.epoch, Ordering::Release);
    }

    /// Records that the slot no longer has an owner.
    pub fn clear_owner(&self, slot: u16) {
        self.mapping.word64(usize::from(slot) * RECORD_BYTES + EPOCH).store(0, Ordering::Release);
    }

    /// The owner of a slot; `None` for a vacant one.
    pub fn owner(&self, slot: u16) -> Option<SlotRecord> {
        let record = usize::from(slot) * RECORD_BYTES;
        let load = |field| self.mapping.word64(record + field).load(Ordering::Acquire);
        let (epoch, committed, process) = (load(EPOCH), load(COMMITTED) as u32, load(PROCESS) as u32);
        (epoch != 0).then_some(SlotRecord { epoch, committed, process, serial: load(SERIAL) })
    }

    /// Sets how many readers an owner must have heard of. For a daemon that takes the place of another: the number that
    /// the owner reports, plus the readers that the owner is about to be told of.
    pub fn set_readers(&self, slot: u16, readers: u64) {
        self.mapping.word64(usize::from(slot) * RECORD_BYTES + READERS).store(readers, Ordering::Release);
    }

    /// Counts a reader that joins, before the reader is told; returns the count.
    pub fn count_reader(&self, slot: u16) -> u64 {
        // Release: for owners that acquire the count. It comes before the new reader's fence, since the reader hears of
        // the owner only later. An owner that does not see it has its own fence before that one, and is seen dying.
        self.mapping.word64(usize::from(slot) * RECORD_BYTES + READERS).fetch_add(1, Ordering::Release) + 1
    }

    /// Records how many entries have memory behind them. Call it after the memory was allocated.
    pub fn set_committed(&self, slot: u16, committed: u32) {
        let offset = usize::from(slot) * RECORD_BYTES + COMMITTED;
        self.mapping.word64(offset).store(u64::from(committed), Ordering::Release);
    }
}

/// The directory as clients see it. The daemon is trusted: these words are used as they are.
#[derive(Debug)]
pub struct DirectoryReader {
    mapping: ReadMapping,
}

impl DirectoryReader {
    /// Maps the directory for reading.
    ///
    /// # Errors
    /// The system's.
    pub fn map(descriptor: BorrowedFd<'_>, slots: u32) -> io::Result<Self> {
        Ok(Self { mapping: ReadMapping::map(descriptor, 0, directory_bytes(slots) as usize)? })
    }

    /// How many readers have joined the owner in a slot.
    #[inline]
    pub fn readers(&self, slot: u16) -> u64 {
        // Acquire: pairs with `count_reader`. In the handshake it comes after the owner's fence.
        self.mapping.load64_acquire(usize::from(slot) * RECORD_BYTES + READERS)
    }

    /// How many entries of the owner in a slot may be touched.
    #[inline]
    pub fn committed(&self, slot: u16) -> u32 {
        // Acquire: pairs with `set_committed`; the memory was allocated before.
        self.mapping.load64_acquire(usize::from(slot) * RECORD_BYTES + COMMITTED) as u32
    }

    /// The epoch of the owner that has a slot now; 0 for none.
    pub fn epoch(&self, slot: u16) -> u64 {
        // Acquire: pairs with `set_owner`; the rest of the record was stored before.
        self.mapping.load64_acquire(usize::from(slot) * RECORD_BYTES + EPOCH)
    }
}
