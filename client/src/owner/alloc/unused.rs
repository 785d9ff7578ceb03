//! Unused pages: memory of segments that no object needs, although objects lie in them. They go back to the system.
//!
//! Whole pages of free runs are given back first. Pages of slabs in which no cell is in use follow after small objects
//! have been [compacted](super::compaction), because few cells fit into the rest of a slab. A page that was given back
//! is not used again: the allocator forgets the run, or the cells that touch the page, and the slab continues with its
//! other cells.

use mobula_shm::memory::PAGE_BYTES;

use super::allocator::Allocator;
use super::slab::{Slab, stretches};

/// Pages of a segment that the allocator has forgotten.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct UnusedPages {
    pub(crate) segment: u32,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Allocator {
    /// Forgets unused pages: `wanted` bytes, or all there are.
    pub(crate) fn take_unused(&mut self, wanted: u64) -> Vec<UnusedPages> {
        let mut taken = self.take_unused_runs(wanted);
        let mut missing = wanted.saturating_sub(taken.iter().map(|part| part.bytes).sum());
        for id in 0..self.slabs.len() as u32 {
            if missing == 0 {
                return taken;
            }
            for part in self.take_unused_of_slab(id) {
                missing = missing.saturating_sub(part.bytes);
                taken.push(part);
            }
        }
        taken
    }

    /// As [`take_unused`](Self::take_unused), of free runs alone. The largest runs come first.
    pub(crate) fn take_unused_runs(&mut self, wanted: u64) -> Vec<UnusedPages> {
        self.join_all_that_is_free();
        let mut taken = Vec::new();
        let mut missing = wanted;
        let mut runs: Vec<UnusedPages> = self.free_runs().collect();
        runs.sort_unstable_by_key(|run| std::cmp::Reverse(run.bytes));
        for run in runs {
            if missing == 0 {
                return taken;
            }
            // From the end of the run: objects in use lie mostly at the beginning of a segment.
            let bytes = run.bytes.min(missing.checked_next_multiple_of(PAGE_BYTES).unwrap_or(u64::MAX));
            let part = UnusedPages { offset: run.offset + run.bytes - bytes, bytes, ..run };
            self.segment_mut(run.segment).cut(run.offset, run.bytes, bytes);
            taken.push(part);
            missing = missing.saturating_sub(bytes);
        }
        taken
    }

    fn free_runs(&self) -> impl Iterator<Item = UnusedPages> {
        let numbered = self.segments.iter().enumerate();
        numbered
            .filter_map(|(number, segment)| Some((number as u32, segment.as_ref()?)))
            // A closed segment is removed by the thread that closed it.
            .filter(|(_, segment)| !segment.closed)
            .flat_map(|(segment, known)| {
                known.free.iter().map(move |(offset, bytes)| UnusedPages {
                    segment,
                    offset: *offset,
                    bytes: *bytes,
                })
            })
    }

    fn take_unused_of_slab(&mut self, id: u32) -> Vec<UnusedPages> {
        let slab = &mut self.slabs[id as usize];
        let is_closed =
            |slab: &Slab| self.segments[slab.segment as usize].as_ref().is_none_or(|segment| segment.closed);
        if slab.cells == 0 || slab.free.count() == 0 || is_closed(slab) {
            return Vec::new();
        }
        let class = &mut self.classes[slab.class as usize];
        let unused = slab.unused_pages(class.bytes);
        if unused == 0 {
            return Vec::new();
        }
        slab.give_up(unused, class.bytes);
        if slab.free.count() == 0 && std::mem::take(&mut slab.listed) {
            class.listed.retain(|other| *other != id);
        }
        let (segment, start) = (slab.segment, slab.offset);
        let part = |(offset, bytes)| UnusedPages { segment, offset: start + offset, bytes };
        let parts: Vec<UnusedPages> = stretches(unused).map(part).collect();
        let bytes = parts.iter().map(|part| part.bytes).sum();
        self.segment_mut(segment).count_gone(bytes);
        parts
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::alloc::Allocation;

    const SEGMENT_BYTES: u64 = 1 << 20;

    fn bytes(parts: &[UnusedPages]) -> u64 {
        parts.iter().map(|part| part.bytes).sum()
    }

    #[test]
    fn one_small_object_keeps_one_page() {
        let mut allocator = Allocator::new();
        let number = allocator.add_segment(SEGMENT_BYTES);
        let place = allocator.allocate(100).unwrap();
        assert_eq!(bytes(&allocator.take_unused(4096)), 4096);
        let rest = allocator.take_unused(u64::MAX);
        assert_eq!(bytes(&rest), SEGMENT_BYTES - 2 * 4096);
        assert!(allocator.take_unused(u64::MAX).is_empty());
        assert_eq!(allocator.held_bytes(), 4096);
        // The page is full of places, and there are no others.
        let others: Vec<_> = (0..31).map(|_| allocator.allocate(100).unwrap()).collect();
        assert!(others.iter().all(|other| other.offset() / 4096 == place.offset() / 4096));
        assert!(allocator.allocate(100).is_none() && allocator.allocate(4096).is_none());
        others.into_iter().chain([place]).for_each(|place| allocator.free(place));
        // The rest of the slab is a run.
        let page = allocator.allocate(4096).unwrap();
        assert_eq!(page.offset(), place.offset() / 4096 * 4096);
        allocator.free(page);
        assert!(allocator.remove_segment(number));
    }

    #[test]
    fn a_segment_that_is_closed_is_left_alone() {
        let mut allocator = Allocator::new();
        let number = allocator.add_segment(SEGMENT_BYTES);
        allocator.allocate(100).unwrap();
        allocator.close(number);
        assert!(allocator.take_unused(u64::MAX).is_empty());
        allocator.reopen(number);
        assert_eq!(bytes(&allocator.take_unused(u64::MAX)), SEGMENT_BYTES - 4096);
    }

    /// In any order of allocating, freeing and taking out, no page that has gone is ever part of a place, and all
    /// memory that is neither in use nor gone can be allocated.
    #[test]
    fn pages_that_have_gone_are_never_allocated() {
        // Miri is slow.
        const SEEDS: u64 = if cfg!(miri) { 1 } else { 50 };
        for seed in 1..=SEEDS {
            let mut random = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
            let mut next = move || {
                random ^= random << 13;
                random ^= random >> 7;
                random ^= random << 17;
                random
            };
            let mut allocator = Allocator::new();
            allocator.add_segment(SEGMENT_BYTES);
            allocator.add_segment(SEGMENT_BYTES);
            let mut gone = vec![[false; (SEGMENT_BYTES / PAGE_BYTES) as usize]; 2];
            let mut live: Vec<(Allocation, u64)> = Vec::new();
            for step in 0..3000 {
                match next() % 40 {
                    0 => {
                        for part in allocator.take_unused(next() % (SEGMENT_BYTES / 8)) {
                            assert!(part.bytes > 0 && part.bytes.is_multiple_of(PAGE_BYTES));
                            for page in part.offset / PAGE_BYTES..(part.offset + part.bytes) / PAGE_BYTES {
                                let known = &mut gone[part.segment as usize][page as usize];
                                assert!(!std::mem::replace(known, true), "seed {seed}, step {step}: twice");
                            }
                            for (place, bytes) in &live {
                                let apart = place.segment != part.segment
                                    || place.offset() >= part.offset + part.bytes
                                    || place.offset() + bytes <= part.offset;
                                assert!(apart, "seed {seed}, step {step}: {place:?} is in use");
                            }
                        }
                    }
                    1..=20 => {
                        let bytes = 1 + next() % [100, 2_000, 20_000, 100_000][(next() % 4) as usize];
                        if let Some(place) = allocator.allocate(bytes) {
                            let pages =
                                place.offset() / PAGE_BYTES..=(place.offset() + bytes - 1) / PAGE_BYTES;
                            let known = &gone[place.segment as usize];
                            assert!(
                                pages.into_iter().all(|page| !known[page as usize]),
                                "seed {seed}, step {step}: {place:?} of {bytes} has gone"
                            );
                            live.push((place, bytes));
                        }
                    }
                    _ if !live.is_empty() => {
                        let (place, _) = live.swap_remove((next() % live.len() as u64) as usize);
                        allocator.free(place);
                    }
                    _ => {}
                }
            }
            live.into_iter().for_each(|(place, _)| allocator.free(place));
            let left = gone.iter().flatten().filter(|gone| !**gone).count() as u64 * PAGE_BYTES;
            assert_eq!(allocator.held_bytes(), left, "seed {seed}");
            assert_eq!(bytes(&allocator.take_unused(u64::MAX)), left, "seed {seed}");
        }
    }
}
