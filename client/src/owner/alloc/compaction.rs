//! Compaction: better places for small objects, so that few pages hold them.
//!
//! The slabs of a size class are put in an order, those with the most objects first, and their cells are filled in this
//! order. The [owner](crate::owner) takes objects from the end, and each moves into the first free cell, until no free
//! cell lies before it. Objects in slabs that are needed in any case stay. At the end each class has one slab that is
//! partly free; other free cells lie only before objects that cannot move.

use mobula_shm::memory::PAGE_BYTES;

use super::allocation::{Allocation, RUN};
use super::allocator::Allocator;

/// The order of the slabs.
pub(crate) struct Compaction {
    /// By class.
    slabs: Vec<Vec<u32>>,
    /// How many of them have no free cell, from the first on; by class.
    full: Vec<usize>,
    /// How many of them, from the first on, have cells enough for all objects; by class.
    needed: Vec<usize>,
    /// The place of each slab in the order, by its number.
    ranks: Vec<usize>,
}

/// Where a small object lies in the order: an earlier place is a better one.
pub(crate) type Rank = (usize, u64);

impl Allocator {
    /// Puts the slabs in order, if pages may come free by it.
    pub(crate) fn begin_compaction(&self) -> Option<Compaction> {
        let mut slabs = vec![Vec::new(); self.classes.len()];
        let mut ranks = vec![usize::MAX; self.slabs.len()];
        for (id, slab) in self.slabs.iter().enumerate() {
            let is_closed = || self.segments[slab.segment as usize].as_ref().is_none_or(|known| known.closed);
            if slab.cells > slab.free.count() && !is_closed() {
                slabs[slab.class as usize].push(id as u32);
            }
        }
        let free_bytes = |id: &u32| {
            let slab = &self.slabs[*id as usize];
            u64::from(slab.free.count()) * self.classes[slab.class as usize].bytes
        };
        if !slabs.iter().any(|of_class| of_class.iter().map(free_bytes).sum::<u64>() >= PAGE_BYTES) {
            return None;
        }
        for of_class in &mut slabs {
            of_class.sort_by_key(|id| {
                let slab = &self.slabs[*id as usize];
                std::cmp::Reverse(slab.cells - slab.free.count())
            });
            of_class.iter().enumerate().for_each(|(rank, id)| ranks[*id as usize] = rank);
        }
        let needed = slabs.iter().map(|of_class| self.slabs_needed(of_class)).collect();
        let full = vec![0; slabs.len()];
        Some(Compaction { slabs, full, needed, ranks })
    }

    fn slabs_needed(&self, of_class: &[u32]) -> usize {
        let slabs = || of_class.iter().map(|id| &self.slabs[*id as usize]);
        let mut objects: u32 = slabs().map(|slab| u32::from(slab.cells - slab.free.count())).sum();
        slabs()
            .take_while(|slab| {
                let is_needed = objects > 0;
                objects = objects.saturating_sub(u32::from(slab.cells));
                is_needed
            })
            .count()
    }

    /// The position of an object in the order. `None` for an object that does not move: a large one, or one in a slab
    /// that is needed in any case, except the last of these slabs.
    pub(crate) fn rank(&self, compaction: &Compaction, place: Allocation) -> Option<Rank> {
        let part = place.part.get();
        if part & RUN != 0 {
            return None;
        }
        let rank = *compaction.ranks.get((part - 1) as usize)?;
        let slab = &self.slabs[(part - 1) as usize];
        let may_move = rank != usize::MAX && rank + 1 >= compaction.needed[slab.class as usize];
        may_move.then(|| (rank, place.offset() - slab.offset))
    }

    /// A free place that is better than an object's.
    pub(crate) fn take_better(
        &mut self,
        compaction: &mut Compaction,
        from: Allocation,
    ) -> Option<Allocation> {
        let (from_rank, from_offset) = self.rank(compaction, from)?;
        let class_number = self.slabs[(from.part.get() - 1) as usize].class as usize;
        let class_bytes = self.classes[class_number].bytes;
        loop {
            let rank = compaction.full[class_number];
            let id = *compaction.slabs[class_number].get(rank)?;
            if rank > from_rank {
                return None;
            }
            let slab = &mut self.slabs[id as usize];
            let is_same = slab.class as usize == class_number && slab.cells > slab.free.count();
            let is_open = self.segments[slab.segment as usize].as_ref().is_some_and(|known| !known.closed);
            let first = if is_same && is_open { slab.free.first() } else { None };
            let Some(cell) = first else {
                compaction.full[class_number] += 1;
                continue;
            };
            if rank == from_rank && u64::from(cell) * class_bytes > from_offset {
                return None;
            }
            slab.free.take_this(cell);
            if slab.free.count() == 0 && std::mem::take(&mut slab.listed) {
                self.classes[class_number].listed.retain(|other| *other != id);
            }
            let offset = slab.offset + u64::from(cell) * class_bytes;
            return Some(Allocation::new(slab.segment, offset, id + 1));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::owner::alloc::slab::SLAB_BYTES;

    /// Moves everything that can move; how many did.
    fn compact(allocator: &mut Allocator, live: &mut [(Allocation, bool)]) -> usize {
        let Some(mut compaction) = allocator.begin_compaction() else { return 0 };
        let mut order: Vec<_> = live
            .iter()
            .enumerate()
            .filter(|(_, (_, moves))| *moves)
            .filter_map(|(at, (place, _))| Some((allocator.rank(&compaction, *place)?, at)))
            .collect();
        order.sort_unstable();
        let mut moved = 0;
        for (_, at) in order.into_iter().rev() {
            if let Some(better) = allocator.take_better(&mut compaction, live[at].0) {
                allocator.free(std::mem::replace(&mut live[at].0, better));
                moved += 1;
            }
        }
        moved
    }

    #[test]
    fn one_object_in_each_page_comes_to_lie_in_few() {
        // Miri is slow.
        const SEGMENT_BYTES: u64 = if cfg!(miri) { 1 << 20 } else { 8 << 20 };
        for bytes in [64, 100, 1000, 5000, 16 << 10] {
            let mut allocator = Allocator::new();
            allocator.add_segment(SEGMENT_BYTES);
            let all: Vec<_> = std::iter::from_fn(|| allocator.allocate(bytes)).collect();
            let mut live = Vec::new();
            for (at, place) in all.into_iter().enumerate() {
                let apart = (PAGE_BYTES / bytes).max(5) as usize;
                if at % apart == 0 { live.push((place, true)) } else { allocator.free(place) }
            }
            allocator.take_unused_runs(u64::MAX);
            let before = allocator.held_bytes();
            assert!(compact(&mut allocator, &mut live) > 0, "{bytes} bytes");
            allocator.take_unused(u64::MAX);
            let (after, needed) = (allocator.held_bytes(), live.len() as u64 * bytes);
            // A cell wastes a quarter at most, a slab its end, and the last one a cell and a page.
            assert!(after <= needed * 5 / 4 * 5 / 4 + SLAB_BYTES / 2, "{after} of {before} for {needed}");
            assert_eq!(compact(&mut allocator, &mut live), 0, "{bytes} bytes: compacted twice");
        }
    }

    #[test]
    fn what_does_not_move_stays_and_is_compacted_around() {
        let mut allocator = Allocator::new();
        allocator.add_segment(1 << 20);
        let all: Vec<_> = std::iter::from_fn(|| allocator.allocate(1024)).collect();
        let mut live = Vec::new();
        for (at, place) in all.into_iter().enumerate() {
            if at % 8 == 0 { live.push((place, at % 64 == 0)) } else { allocator.free(place) }
        }
        let before = live.clone();
        assert!(compact(&mut allocator, &mut live) > 0);
        for ((place, moves), (old, _)) in live.iter().zip(before) {
            assert!(*moves || *place == old);
        }
        let mut places: Vec<_> = live.iter().map(|(place, _)| (place.segment, place.offset())).collect();
        places.sort_unstable();
        places.dedup();
        assert_eq!(places.len(), live.len(), "two in one place");
        live.into_iter().for_each(|(place, _)| allocator.free(place));
        assert!(allocator.allocate(1 << 20).is_some());
    }
}
