//! Free runs of whole pages in one segment.
//!
//! A run that was just freed is kept as it is, for the next object of just that size: its pages are warm. Other free
//! runs are joined with their neighbours, and the smallest that fits is used.

use std::collections::{BTreeMap, BTreeSet};

/// Runs that a segment remembers just as they were freed.
const WARM_MAX: usize = 64;

/// A segment, as the allocator knows it.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) bytes: u64,
    /// Bytes of pages that have gone back to the system.
    pub(super) gone: u64,
    /// Bytes of objects' runs, and of the slabs that hold objects, each as a whole.
    pub(super) used: u64,
    /// Free runs by place, joined with their neighbours: offset → bytes.
    pub(super) free: BTreeMap<u64, u64>,
    /// Free runs by size: (bytes, offset).
    sizes: BTreeSet<(u64, u64)>,
    /// Free runs as they were freed, the last one last: (offset, bytes). These are not in `free`.
    warm: Vec<(u64, u64)>,
    /// When it last became empty, in the caller's ticks.
    pub(super) emptied: u64,
    /// Nothing is allocated in it, because its objects are being evicted.
    pub(super) closed: bool,
}

impl Segment {
    pub(super) fn new(bytes: u64, now: u64) -> Self {
        let (free, sizes) = (BTreeMap::from([(0, bytes)]), BTreeSet::from([(bytes, 0)]));
        Self {
            bytes,
            gone: 0,
            used: 0,
            free,
            sizes,
            warm: Vec::with_capacity(WARM_MAX),
            emptied: now,
            closed: false,
        }
    }

    /// Takes a run that was just as large when it was freed.
    pub(super) fn take_warm(&mut self, bytes: u64) -> Option<u64> {
        let position = self.warm.iter().rposition(|(_, run)| *run == bytes)?;
        Some(self.warm.remove(position).0)
    }

    /// Takes the smallest free run that fits.
    pub(super) fn take_fitting(&mut self, bytes: u64) -> Option<u64> {
        let (run, offset) = self.sizes.range((bytes, 0)..).next().copied()?;
        self.sizes.remove(&(run, offset));
        self.free.remove(&offset);
        if run > bytes {
            self.free.insert(offset + bytes, run - bytes);
            self.sizes.insert((run - bytes, offset + bytes));
        }
        Some(offset)
    }

    pub(super) fn give(&mut self, offset: u64, bytes: u64) {
        if self.warm.len() == WARM_MAX {
            let (offset, bytes) = self.warm.remove(0);
            self.join(offset, bytes);
        }
        self.warm.push((offset, bytes));
    }

    /// Joins all warm runs with their neighbours; `true` if there were any.
    pub(super) fn cool(&mut self) -> bool {
        let mut any = false;
        while let Some((offset, bytes)) = self.warm.pop() {
            self.join(offset, bytes);
            any = true;
        }
        any
    }

    fn join(&mut self, mut offset: u64, mut bytes: u64) {
        if let Some(next) = self.free.remove(&(offset + bytes)) {
            self.sizes.remove(&(next, offset + bytes));
            bytes += next;
        }
        if let Some((&before, &run)) = self.free.range(..offset).next_back()
            && before + run == offset
        {
            self.sizes.remove(&(run, before));
            offset = before;
            bytes += run;
        }
        self.free.insert(offset, bytes);
        self.sizes.insert((bytes, offset));
        debug_assert!(offset + bytes <= self.bytes);
    }

    /// Takes the last `bytes` of a free run out.
    pub(super) fn cut(&mut self, offset: u64, run: u64, bytes: u64) {
        self.free.remove(&offset);
        self.sizes.remove(&(run, offset));
        if run > bytes {
            self.free.insert(offset, run - bytes);
            self.sizes.insert((run - bytes, offset));
        }
        self.count_gone(bytes);
    }

    pub(super) fn count_gone(&mut self, bytes: u64) {
        self.gone += bytes;
    }

    pub(super) fn count_used(&mut self, bytes: u64) {
        self.used += bytes;
    }

    pub(super) fn count_unused(&mut self, bytes: u64, now: u64) {
        self.used -= bytes;
        if self.used == 0 {
            self.emptied = now;
        }
    }
}
