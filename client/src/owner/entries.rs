//! The data that each entry of the table needs in the owner's heap, the index that the next object gets, and the lists
//! of objects that are to be freed.

use std::collections::VecDeque;

use crate::counting::raw::RawReference;
use crate::owner::ReferencesToEnd;
use crate::owner::alloc::Allocation;
use crate::owner::kept::Kept;

/// While there are fresh indices, this many vacant ones rest before the first is used again.
const VACANT_MIN: usize = 1024;
/// With fewer entries, nothing is given back to the heap.
const TRIM_ENTRIES_MIN: usize = 1 << 16;

/// An entry has no memory committed in the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TableFull {
    /// The number of entries that are needed.
    pub(crate) entries_needed: u32,
}

/// The entries that were used so far.
pub(crate) struct Entries {
    entries: Vec<Entry>,
    /// Indices to use again: first in, first out, so that a generation lasts long.
    vacant: VecDeque<u32>,
    /// Entries that the daemon has committed in the table.
    committed: u32,
    kept: Kept,
    /// The number of objects that were ever begun.
    begun: u64,
    trimmed: Trimmed,
}

#[derive(Debug, Default)]
struct Entry {
    allocation: Option<Allocation>,
    /// Number of the list of references that the object keeps, plus one; 0 for an object without references.
    kept: u32,
}

const _: () = assert!(size_of::<Entry>() == 16);

/// The state of the entries when they were last checked for unused memory in the heap.
#[derive(Debug, Default)]
struct Trimmed {
    /// Objects begun, and vacant entries, at that time.
    seen: (u64, usize),
    /// Whether nothing is left to be given back since.
    is_done: bool,
}

impl Entries {
    pub(crate) fn new(committed: u32) -> Self {
        Self {
            entries: Vec::new(),
            vacant: VecDeque::new(),
            committed,
            kept: Kept::default(),
            begun: 0,
            trimmed: Trimmed::default(),
        }
    }

    /// The index that the next object gets.
    pub(crate) fn next(&self) -> Result<u32, TableFull> {
        let next = self.entries.len() as u32;
        let is_fresh = next < self.committed;
        match self.vacant.front() {
            Some(_) if is_fresh && self.vacant.len() < VACANT_MIN => Ok(next),
            Some(vacant) => Ok(*vacant),
            None if is_fresh => Ok(next),
            None => Err(TableFull { entries_needed: next.saturating_add(1) }),
        }
    }

    /// Takes the [`next`](Self::next) index for an object that lies at `allocation`.
    pub(crate) fn take(&mut self, index: u32, allocation: Option<Allocation>) {
        if index as usize == self.entries.len() {
            self.entries.push(Entry::default());
        } else {
            self.vacant.pop_front();
        }
        self.entries[index as usize].allocation = allocation;
        self.begun += 1;
    }

    /// Lets an object keep references.
    pub(crate) fn keep(&mut self, index: u32, references: Vec<RawReference>) {
        self.entries[index as usize].kept = self.kept.add(references) + 1;
    }

    /// Takes the references of all objects.
    pub(crate) fn take_kept(&mut self) -> ReferencesToEnd {
        self.kept.take_all()
    }

    pub(crate) fn allocation(&self, index: u32) -> Option<Allocation> {
        self.entries.get(index as usize)?.allocation
    }

    pub(crate) fn set_allocation(&mut self, index: u32, allocation: Allocation) {
        self.entries[index as usize].allocation = Some(allocation);
    }

    pub(crate) fn take_allocation(&mut self, index: u32) -> Option<Allocation> {
        self.entries[index as usize].allocation.take()
    }

    /// Gives memory and references of one entry to another, which has none.
    pub(crate) fn move_content(&mut self, from: u32, to: u32) {
        self.entries[to as usize] = std::mem::take(&mut self.entries[from as usize]);
    }

    /// Makes an entry vacant; returns its memory. Its references join those to end.
    pub(crate) fn vacate(&mut self, index: u32, to_end: &mut ReferencesToEnd) -> Option<Allocation> {
        let entry = std::mem::take(&mut self.entries[index as usize]);
        if let Some(number) = entry.kept.checked_sub(1) {
            to_end.append(&mut self.kept.take(number));
        }
        self.vacant.push_back(index);
        entry.allocation
    }

    /// The indices of the objects that have memory, with their places.
    pub(crate) fn allocated(&self) -> impl Iterator<Item = (u32, Allocation)> {
        let indexed = self.entries.iter().enumerate();
        indexed.filter_map(|(index, entry)| Some((index as u32, entry.allocation?)))
    }

    /// The daemon has committed more entries.
    pub(crate) fn set_committed(&mut self, committed: u32) {
        self.committed = committed;
    }

    /// Objects that are alive, those included that are promised or being made.
    pub(crate) fn live(&self) -> u64 {
        (self.entries.len() - self.vacant.len()) as u64
    }

    /// Whether there are many entries, most of them vacant, so that some of the heap can be given back.
    pub(crate) fn are_too_large(&self) -> bool {
        let (entries, vacant) = (self.entries.len(), self.vacant.len());
        let is_done = self.trimmed.is_done && self.trimmed.seen == (self.begun, vacant);
        entries >= TRIM_ENTRIES_MIN && vacant >= entries / 2 && !is_done
    }

    /// Gives back what the heap has for the vacant entries behind the last used one; `true` if those were many. They
    /// are fresh again: their generations stand in the table. Does nothing while objects come and go: it takes two
    /// calls without any object in between.
    pub(crate) fn trim(&mut self) -> bool {
        let seen = (self.begun, self.vacant.len());
        if self.trimmed.seen != seen {
            self.trimmed = Trimmed { seen, is_done: false };
            return false;
        }
        if !self.are_too_large() {
            return false;
        }
        let mut is_vacant = vec![false; self.entries.len()];
        self.vacant.iter().for_each(|index| is_vacant[*index as usize] = true);
        let len = is_vacant.iter().rposition(|vacant| !vacant).map_or(0, |last| last + 1);
        let many = self.entries.len() - len >= TRIM_ENTRIES_MIN / 2;
        if many {
            self.entries.truncate(len);
            self.entries.shrink_to_fit();
            self.vacant.retain(|index| (*index as usize) < len);
            self.vacant.shrink_to_fit();
        }
        self.trimmed = Trimmed { seen: (self.begun, self.vacant.len()), is_done: true };
        many
    }
}

/// Objects that this process does not use any more, by index.
#[derive(Debug, Default)]
pub(crate) struct Retired {
    /// To be freed with the next batch.
    pub(crate) retire: VecDeque<u32>,
    /// Still pinned when the last batch with them was freed.
    pub(crate) retry: VecDeque<u32>,
}

impl Retired {
    pub(crate) fn is_empty(&self) -> bool {
        self.retire.is_empty() && self.retry.is_empty()
    }

    pub(crate) fn shrink_to_fit(&mut self) {
        self.retire.shrink_to_fit();
        self.retry.shrink_to_fit();
    }
}
