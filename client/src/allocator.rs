//! Where in the leased segments an object lies: pure bookkeeping, in the owner's own heap, about memory that it never
//! touches.
//!
//! Small objects come from *slabs*: runs of [`SLAB_BYTES`] cut into slots of one size class, four classes to each
//! doubling. Larger ones are runs of whole pages, first fit, neighbours joined when freed. In both, what was freed
//! last is used first, because its pages are warm. Everything is aligned to 64 bytes.

use std::collections::{BTreeMap, HashMap};

use mobula_shm::memory::PAGE_BYTES;

/// What every object is aligned to, as Arrow wants it.
pub(crate) const ALIGNMENT: u64 = 64;
/// Bytes of the run that a slab is.
const SLAB_BYTES: u64 = 64 << 10;
/// The largest object that comes from a slab.
const SMALL_BYTES_MAX: u64 = 16 << 10;

/// A place in a segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allocation {
    pub(crate) segment: u32,
    /// In units of [`ALIGNMENT`].
    offset_units: u32,
    /// The slab it belongs to, or `None` for a run of pages of its own.
    slab: Option<SlabId>,
}

impl Allocation {
    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.offset_units) * ALIGNMENT
    }
}

type SlabId = std::num::NonZeroU32;

#[derive(Debug)]
struct Slab {
    segment: u32,
    offset: u64,
    class: usize,
    free: Vec<u16>,
    slots: u16,
    /// Whether the class knows it as one with free slots.
    listed: bool,
}

#[derive(Debug)]
struct Segment {
    bytes: u64,
    used: u64,
    /// Free runs: offset → bytes.
    free: BTreeMap<u64, u64>,
    /// No free run is larger than this.
    largest_at_most: u64,
    /// Start of a run in use → its bytes; needed because an allocation does not carry its length.
    runs: HashMap<u64, u64>,
    /// When it last became empty, in the caller's ticks.
    emptied: u64,
}

/// The bookkeeping of all segments of one owner.
#[derive(Debug, Default)]
pub(crate) struct Allocator {
    segments: HashMap<u32, Segment>,
    /// Most recently used for freeing or leasing first.
    order: Vec<u32>,
    slabs: HashMap<SlabId, Slab>,
    slab_last: u32,
    /// For each class, slabs with free slots.
    classes: Vec<Vec<SlabId>>,
    class_bytes: Vec<u64>,
    now: u64,
}

impl Allocator {
    pub(crate) fn new() -> Self {
        let mut class_bytes = Vec::new();
        let mut bytes = ALIGNMENT;
        while bytes <= SMALL_BYTES_MAX {
            class_bytes.push(bytes);
            let step =
                (bytes.next_power_of_two() / if bytes.is_power_of_two() { 4 } else { 8 }).max(ALIGNMENT);
            bytes += step;
        }
        Self { classes: vec![Vec::new(); class_bytes.len()], class_bytes, ..Self::default() }
    }

    /// A lease arrived.
    pub(crate) fn add_segment(&mut self, id: u32, bytes: u64) {
        let free = BTreeMap::from([(0, bytes)]);
        let segment =
            Segment { bytes, used: 0, free, largest_at_most: bytes, runs: HashMap::new(), emptied: self.now };
        self.segments.insert(id, segment);
        self.order.insert(0, id);
    }

    /// Takes an empty segment out, to be given back; `false` if it is in use.
    pub(crate) fn remove_segment(&mut self, id: u32) -> bool {
        if self.segments.get(&id).is_none_or(|segment| segment.used > 0) {
            return false;
        }
        self.segments.remove(&id);
        self.order.retain(|other| *other != id);
        true
    }

    /// Segments without any object that have been so since `before`.
    pub(crate) fn empty_since(&self, before: u64) -> Vec<u32> {
        let is_empty = |segment: &Segment| segment.used == 0 && segment.emptied <= before;
        self.segments.iter().filter(|(_, segment)| is_empty(segment)).map(|(id, _)| *id).collect()
    }

    /// Sets the clock that `empty_since` compares with.
    pub(crate) fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    /// Whether there are any leases.
    pub(crate) fn has_segments(&self) -> bool {
        !self.segments.is_empty()
    }

    /// Room for `bytes` (more than 0), or `None` where a lease is needed.
    pub(crate) fn allocate(&mut self, bytes: u64) -> Option<Allocation> {
        let class = self.class_bytes.partition_point(|class_bytes| *class_bytes < bytes);
        let listed = self.classes.get(class).and_then(|slabs| slabs.last().copied());
        let slab = listed.or_else(|| if bytes <= SMALL_BYTES_MAX { self.add_slab(class) } else { None });
        // Where there is no room for a slab, a small object takes pages of its own.
        let Some(id) = slab else {
            let (segment, offset) = self.take_run(bytes.checked_next_multiple_of(PAGE_BYTES)?)?;
            return Some(Self::allocation(segment, offset, None));
        };
        let slab = self.slabs.get_mut(&id).expect("a listed slab exists");
        let slot = slab.free.pop().expect("a listed slab has a free slot");
        if slab.free.is_empty() {
            slab.listed = false;
            self.classes[class].pop();
        }
        let offset = slab.offset + u64::from(slot) * self.class_bytes[class];
        Some(Self::allocation(slab.segment, offset, Some(id)))
    }

    /// Takes a place back.
    pub(crate) fn free(&mut self, allocation: Allocation) {
        let Some(id) = allocation.slab else {
            return self.give_run(allocation.segment, allocation.offset());
        };
        let slab = self.slabs.get_mut(&id).expect("an allocation's slab exists");
        let slot = (allocation.offset() - slab.offset) / self.class_bytes[slab.class];
        slab.free.push(slot as u16);
        let class = slab.class;
        if slab.free.len() == usize::from(slab.slots) {
            let slab = self.slabs.remove(&id).expect("just found");
            self.classes[class].retain(|other| *other != id);
            self.give_run(slab.segment, slab.offset);
        } else if !slab.listed {
            slab.listed = true;
            self.classes[class].push(id);
        }
    }

    fn allocation(segment: u32, offset: u64, slab: Option<SlabId>) -> Allocation {
        let offset_units = u32::try_from(offset / ALIGNMENT).expect("a segment is smaller than 256 GiB");
        Allocation { segment, offset_units, slab }
    }

    fn add_slab(&mut self, class: usize) -> Option<SlabId> {
        let (segment, offset) = self.take_run(SLAB_BYTES)?;
        let slots = (SLAB_BYTES / self.class_bytes[class]) as u16;
        let id = loop {
            self.slab_last = self.slab_last.wrapping_add(1);
            match SlabId::new(self.slab_last) {
                Some(id) if !self.slabs.contains_key(&id) => break id,
                _ => continue,
            }
        };
        let free = (0..slots).rev().collect();
        self.slabs.insert(id, Slab { segment, offset, class, free, slots, listed: true });
        self.classes[class].push(id);
        Some(id)
    }

    fn take_run(&mut self, bytes: u64) -> Option<(u32, u64)> {
        for id in &self.order {
            let segment = self.segments.get_mut(id).expect("an ordered segment exists");
            if segment.largest_at_most < bytes {
                continue;
            }
            let Some((&offset, &run)) = segment.free.iter().find(|(_, run)| **run >= bytes) else {
                segment.largest_at_most = segment.free.values().copied().max().unwrap_or(0);
                continue;
            };
            segment.free.remove(&offset);
            if run > bytes {
                segment.free.insert(offset + bytes, run - bytes);
            }
            segment.runs.insert(offset, bytes);
            segment.used += bytes;
            return Some((*id, offset));
        }
        None
    }

    fn give_run(&mut self, id: u32, mut offset: u64) {
        let segment = self.segments.get_mut(&id).expect("an allocation's segment exists");
        let mut bytes = segment.runs.remove(&offset).expect("an allocation's run exists");
        segment.used -= bytes;
        if segment.used == 0 {
            segment.emptied = self.now;
        }
        if let Some(next) = segment.free.remove(&(offset + bytes)) {
            bytes += next;
        }
        if let Some((&before, &run)) = segment.free.range(..offset).next_back()
            && before + run == offset
        {
            offset = before;
            bytes += run;
        }
        segment.free.insert(offset, bytes);
        segment.largest_at_most = segment.largest_at_most.max(bytes);
        debug_assert!(offset + bytes <= segment.bytes);
        if self.order.first() != Some(&id) {
            self.order.retain(|other| *other != id);
            self.order.insert(0, id);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_aligned_and_waste_a_quarter_at_most() {
        let allocator = Allocator::new();
        assert_eq!(allocator.class_bytes.first(), Some(&64));
        assert_eq!(allocator.class_bytes.last(), Some(&SMALL_BYTES_MAX));
        for pair in allocator.class_bytes.windows(2) {
            assert_eq!(pair[1] % ALIGNMENT, 0);
            assert!(pair[1] - pair[0] <= (pair[0] / 4).max(ALIGNMENT), "{pair:?}");
        }
    }

    #[test]
    fn the_whole_of_a_segment_can_be_one_object() {
        let mut allocator = Allocator::new();
        allocator.add_segment(1, 1 << 20);
        let all = allocator.allocate(1 << 20).unwrap();
        assert_eq!((all.segment, all.offset()), (1, 0));
        assert!(allocator.allocate(1).is_none());
        assert!(!allocator.remove_segment(1));
        allocator.free(all);
        assert!(allocator.remove_segment(1));
        assert!(!allocator.has_segments());
    }

    #[test]
    fn what_was_freed_last_is_used_first() {
        let mut allocator = Allocator::new();
        allocator.add_segment(1, 1 << 20);
        for bytes in [100, 100_000] {
            let places: Vec<_> = (0..4).map(|_| allocator.allocate(bytes).unwrap()).collect();
            allocator.free(places[2]);
            assert_eq!(allocator.allocate(bytes), Some(places[2]), "{bytes} bytes");
            places.into_iter().for_each(|place| allocator.free(place));
        }
    }

    /// Random allocations never overlap, stay inside, and leave an empty segment once all are freed.
    #[test]
    fn random_use_keeps_places_apart() {
        let seed = 0x6d6f_6275_6c61u64;
        println!("seed {seed}");
        let mut random = seed;
        let mut next = move || {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            random
        };
        let mut allocator = Allocator::new();
        let segment_bytes = 1u64 << 20;
        allocator.add_segment(7, segment_bytes);
        allocator.add_segment(8, segment_bytes);
        let mut live: Vec<(Allocation, u64)> = Vec::new();
        for step in 0..20_000 {
            if next() % 2 == 0 {
                let bytes = 1 + next() % [100, 2_000, 20_000, 200_000][(next() % 4) as usize];
                if let Some(place) = allocator.allocate(bytes) {
                    let (start, end) = (place.offset(), place.offset() + bytes);
                    assert!(end <= segment_bytes && start % ALIGNMENT == 0, "step {step}");
                    for (other, other_bytes) in &live {
                        let apart = other.segment != place.segment
                            || other.offset() >= end
                            || other.offset() + other_bytes <= start;
                        assert!(apart, "step {step}: {place:?} of {bytes} overlaps {other:?}");
                    }
                    live.push((place, bytes));
                }
            } else if !live.is_empty() {
                let (place, _) = live.swap_remove((next() % live.len() as u64) as usize);
                allocator.free(place);
            }
        }
        live.into_iter().for_each(|(place, _)| allocator.free(place));
        assert_eq!(allocator.empty_since(0).len(), 2);
        assert_eq!(allocator.allocate(segment_bytes).map(|place| place.offset()), Some(0));
    }
}
