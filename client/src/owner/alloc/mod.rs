//! Where in the leased segments an object lies: pure bookkeeping, in the owner's own heap, about memory that it never
//! touches.
//!
//! Small objects come from *slabs*: runs of [`SLAB_BYTES`] cut into slots of one size class, four classes to each
//! doubling. Larger ones are *runs* of whole pages. In both, what was freed last is used first, because its pages are
//! warm. Everything is aligned to 64 bytes.
//!
//! What is free is kept in two stages, so that a loop of put and drop costs neither a tree nor a heap allocation:
//!
//! | free | is kept | becomes the next stage |
//! |---|---|---|
//! | a slot | in its slab; the one freed last is used first | with the last object of the slab: a spare slab |
//! | a slab without objects | as its class's spare, at most one | with a second one, or when memory is short: a run |
//! | a run | in the segment's `warm` list, at most [`WARM_MAX`], for a next one of just that size | when the list is full, or memory is short: joined with its free neighbours |
//! | joined runs | by place and by size; the smallest that fits is used | |
//!
//! A segment is empty when nothing but spare slabs and warm runs is left in it. Of one that is not, unused pages can go back
//! to the system all the same ([`unused`]), the more so once small objects have moved together ([`compaction`]).
//!
//! Where there is no room for a whole slab, one of as few pages as hold a slot is made, as if the others had gone.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::table::ALIGNMENT;

use self::cells::{FreeSlots, SLOTS_MAX};

mod cells;
mod compaction;
mod unused;
pub(crate) use self::compaction::Compaction;
pub(crate) use self::unused::UnusedPages;

/// Bytes of the run that a slab is.
const SLAB_BYTES: u64 = 64 << 10;
const _: () = assert!(SLAB_BYTES / ALIGNMENT <= SLOTS_MAX as u64);
/// The largest object that comes from a slab.
const SMALL_BYTES_MAX: u64 = 16 << 10;
/// Runs that a segment remembers just as they were freed.
const WARM_MAX: usize = 64;

/// A place in a segment. A million objects have one each, so it is small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allocation {
    /// The segment's place in the allocator's books, as [`Allocator::add_segment`] gave it.
    pub(crate) segment: u32,
    /// In units of [`ALIGNMENT`].
    offset_units: u32,
    /// The number of the slab it belongs to, plus one; or [`RUN`] and the pages of a run of its own. Never zero, so
    /// that an `Option` of it costs nothing.
    part: NonZeroU32,
}

const _: () = assert!(size_of::<Option<Allocation>>() == 12);

/// Marks an [`Allocation`] as a run.
const RUN: u32 = 1 << 31;

impl Allocation {
    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.offset_units) * ALIGNMENT
    }

    fn new(segment: u32, offset: u64, part: u32) -> Self {
        let part = NonZeroU32::new(part).expect("a slab's number plus one, or a run");
        let offset_units = u32::try_from(offset / ALIGNMENT).expect("a segment is smaller than 256 GiB");
        Self { segment, offset_units, part }
    }
}

#[derive(Debug)]
struct Slab {
    segment: u32,
    class: u32,
    offset: u64,
    free: FreeSlots,
    /// How many there are.
    slots: u16,
    /// A bit for each page that the slab does not have (any more). Slots that touch such a page are not counted in `slots`.
    gone: u16,
    /// Whether the class knows it as one with free slots.
    listed: bool,
}

/// Slots of one size.
#[derive(Debug)]
struct Class {
    bytes: u64,
    /// Slabs with free slots; the last is used first.
    listed: Vec<u32>,
    /// A slab without objects, kept for the next one; it is listed too.
    spare: Option<u32>,
}

#[derive(Debug)]
struct Segment {
    bytes: u64,
    /// Bytes of pages that have gone back to the system.
    gone: u64,
    /// Bytes of objects' runs and of slabs that hold objects, whole ones.
    used: u64,
    /// Free runs by place, joined with their neighbours: offset → bytes.
    free: BTreeMap<u64, u64>,
    /// The same by size: (bytes, offset).
    sizes: BTreeSet<(u64, u64)>,
    /// Free runs as they were freed, the last one last: (offset, bytes). Not among the above.
    warm: Vec<(u64, u64)>,
    /// When it last became empty, in the caller's ticks.
    emptied: u64,
    /// Its objects are being moved out: nothing is allocated in it.
    closed: bool,
}

impl Segment {
    fn new(bytes: u64, now: u64) -> Self {
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

    /// A run that was just as large when it was freed.
    fn take_warm(&mut self, bytes: u64) -> Option<u64> {
        let position = self.warm.iter().rposition(|(_, run)| *run == bytes)?;
        Some(self.warm.remove(position).0)
    }

    /// The smallest free run that fits.
    fn take_fitting(&mut self, bytes: u64) -> Option<u64> {
        let (run, offset) = self.sizes.range((bytes, 0)..).next().copied()?;
        self.sizes.remove(&(run, offset));
        self.free.remove(&offset);
        if run > bytes {
            self.free.insert(offset + bytes, run - bytes);
            self.sizes.insert((run - bytes, offset + bytes));
        }
        Some(offset)
    }

    fn give(&mut self, offset: u64, bytes: u64) {
        if self.warm.len() == WARM_MAX {
            let (offset, bytes) = self.warm.remove(0);
            self.join(offset, bytes);
        }
        self.warm.push((offset, bytes));
    }

    /// Joins all warm runs with their neighbours; `true` if there were any.
    fn cool(&mut self) -> bool {
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
    fn cut(&mut self, offset: u64, run: u64, bytes: u64) {
        self.free.remove(&offset);
        self.sizes.remove(&(run, offset));
        if run > bytes {
            self.free.insert(offset, run - bytes);
            self.sizes.insert((run - bytes, offset));
        }
        self.count_gone(bytes);
    }

    fn count_gone(&mut self, bytes: u64) {
        self.gone += bytes;
    }

    fn count_used(&mut self, bytes: u64) {
        self.used += bytes;
    }

    fn count_unused(&mut self, bytes: u64, now: u64) {
        self.used -= bytes;
        if self.used == 0 {
            self.emptied = now;
        }
    }
}

/// The bookkeeping of all segments of one owner.
#[derive(Debug)]
pub(crate) struct Allocator {
    /// By number; the numbers of segments that went are used again.
    segments: Vec<Option<Segment>>,
    /// Most recently used for freeing or leasing first.
    order: Vec<u32>,
    slabs: Vec<Slab>,
    /// Places in `slabs` to use again.
    slabs_vacant: Vec<u32>,
    classes: Vec<Class>,
    /// The class of a length, by the length in units of [`ALIGNMENT`], rounded up.
    class_of: Box<[u8]>,
    now: u64,
}

impl Allocator {
    pub(crate) fn new() -> Self {
        let mut classes = Vec::new();
        let mut class_of = vec![0];
        let mut bytes = ALIGNMENT;
        while bytes <= SMALL_BYTES_MAX {
            class_of.resize((bytes / ALIGNMENT) as usize + 1, classes.len() as u8);
            classes.push(Class { bytes, listed: Vec::new(), spare: None });
            let step =
                (bytes.next_power_of_two() / if bytes.is_power_of_two() { 4 } else { 8 }).max(ALIGNMENT);
            bytes += step;
        }
        Self {
            segments: Vec::new(),
            order: Vec::new(),
            slabs: Vec::new(),
            slabs_vacant: Vec::new(),
            classes,
            class_of: class_of.into(),
            now: 0,
        }
    }

    /// A lease arrived; returns the number that its allocations name it by.
    pub(crate) fn add_segment(&mut self, bytes: u64) -> u32 {
        let segment = Some(Segment::new(bytes, self.now));
        let vacant = self.segments.iter().position(Option::is_none);
        let number = vacant.unwrap_or(self.segments.len()) as u32;
        match vacant {
            Some(at) => self.segments[at] = segment,
            None => self.segments.push(segment),
        }
        self.order.insert(0, number);
        number
    }

    /// Takes an empty segment out, to be given back; `false` if it is in use.
    pub(crate) fn remove_segment(&mut self, number: u32) -> bool {
        let slot = self.segments.get_mut(number as usize);
        let Some(slot) = slot.filter(|slot| slot.as_ref().is_some_and(|segment| segment.used == 0)) else {
            return false;
        };
        *slot = None;
        for class in 0..self.classes.len() {
            if let Some(spare) = self.classes[class].spare
                && self.slabs[spare as usize].segment == number
            {
                self.forget_spare(class);
            }
        }
        self.order.retain(|other| *other != number);
        true
    }

    /// Segments without any object that have been so since `before`.
    pub(crate) fn empty_since(&self, before: u64) -> Vec<u32> {
        // One that is closed is looked after by whoever empties it.
        // A segment with missing pages is not worth keeping warm.
        let is_due = |segment: &Segment| segment.emptied <= before || segment.gone > 0;
        let is_empty = |segment: &Segment| segment.used == 0 && is_due(segment) && !segment.closed;
        let numbered = self.segments.iter().enumerate();
        let empty = numbered.filter(|(_, segment)| segment.as_ref().is_some_and(is_empty));
        empty.map(|(number, _)| number as u32).collect()
    }

    /// The segments that are in use, the one that was used least recently first.
    pub(crate) fn least_recent(&self) -> impl Iterator<Item = u32> {
        self.order.iter().rev().copied()
    }

    /// From now on nothing is allocated in a segment, so that it becomes empty: to be [taken out](Self::remove_segment),
    /// or [to stay](Self::reopen) after all.
    pub(crate) fn close(&mut self, number: u32) {
        for class in 0..self.classes.len() {
            if let Some(spare) = self.classes[class].spare
                && self.slabs[spare as usize].segment == number
            {
                self.classes[class].spare = None;
                self.remove_slab(class, spare);
            }
            let slabs = &mut self.slabs;
            self.classes[class].listed.retain(|id| {
                let slab = &mut slabs[*id as usize];
                slab.listed = slab.segment != number;
                slab.listed
            });
        }
        self.order.retain(|other| *other != number);
        self.segment_mut(number).closed = true;
    }

    /// A segment that was to leave is used again.
    pub(crate) fn reopen(&mut self, number: u32) {
        self.segment_mut(number).closed = false;
        self.order.push(number);
        for (id, slab) in self.slabs.iter_mut().enumerate() {
            if slab.segment == number && slab.slots > 0 && slab.free.count() > 0 {
                slab.listed = true;
                self.classes[slab.class as usize].listed.push(id as u32);
            }
        }
    }

    /// Sets the clock that `empty_since` compares with.
    pub(crate) fn set_now(&mut self, now: u64) {
        self.now = now;
    }

    /// Bytes of the pages of all segments.
    pub(crate) fn held_bytes(&self) -> u64 {
        self.segments.iter().flatten().map(|segment| segment.bytes - segment.gone).sum()
    }

    /// Bytes of the pages that a segment has.
    pub(crate) fn pages_bytes(&self, number: u32) -> u64 {
        self.segments[number as usize].as_ref().map_or(0, |segment| segment.bytes - segment.gone)
    }

    /// Whether there are any leases.
    pub(crate) fn has_segments(&self) -> bool {
        !self.order.is_empty()
    }

    /// Room for `bytes` (more than 0), or `None` where a lease is needed.
    pub(crate) fn allocate(&mut self, bytes: u64) -> Option<Allocation> {
        if bytes <= SMALL_BYTES_MAX {
            let class = usize::from(self.class_of[bytes.div_ceil(ALIGNMENT) as usize]);
            let slab = self.classes[class].listed.last().copied().or_else(|| self.add_slab(class))?;
            return Some(self.take_slot(class, slab));
        }
        let bytes = bytes.checked_next_multiple_of(PAGE_BYTES)?;
        let (number, offset) = self.take_run(bytes)?;
        self.segment_mut(number).count_used(bytes);
        let pages = u32::try_from(bytes / PAGE_BYTES).expect("a segment has fewer pages");
        Some(Allocation::new(number, offset, RUN | pages))
    }

    /// Takes a place back.
    pub(crate) fn free(&mut self, allocation: Allocation) {
        let part = allocation.part.get();
        if part & RUN != 0 {
            let bytes = u64::from(part & !RUN) * PAGE_BYTES;
            self.give_run(allocation.segment, allocation.offset(), bytes);
            let now = self.now;
            return self.segment_mut(allocation.segment).count_unused(bytes, now);
        }
        let id = part - 1;
        let slab = &mut self.slabs[id as usize];
        let class = &mut self.classes[slab.class as usize];
        // Divided as 32 bits: half the cost, and a slab's bytes fit.
        let slot = (allocation.offset() - slab.offset) as u32 / class.bytes as u32;
        slab.free.give(slot as u16);
        // None of a segment that is closed is listed, so this is off the usual path.
        if !slab.listed {
            if self.segments[slab.segment as usize].as_ref().is_some_and(|segment| segment.closed) {
                return self.free_in_closed(id);
            }
            slab.listed = true;
            class.listed.push(id);
        }
        if slab.free.count() == slab.slots {
            let (number, class_number) = (slab.segment, slab.class as usize);
            // The next one is to have all of its pages.
            let spare = if slab.gone == 0 { class.spare.replace(id) } else { Some(id) };
            let now = self.now;
            self.segment_mut(number).count_unused(SLAB_BYTES, now);
            if let Some(spare) = spare {
                self.remove_slab(class_number, spare);
            }
        }
    }

    /// A slot of a slab in a segment that is closed has been given back.
    #[cold]
    fn free_in_closed(&mut self, id: u32) {
        let slab = &self.slabs[id as usize];
        if slab.free.count() == slab.slots {
            let (number, class, now) = (slab.segment, slab.class as usize, self.now);
            self.segment_mut(number).count_unused(SLAB_BYTES, now);
            self.remove_slab(class, id);
        }
    }

    fn segment_mut(&mut self, number: u32) -> &mut Segment {
        self.segments[number as usize].as_mut().expect("an allocation's segment exists")
    }

    fn take_slot(&mut self, class_number: usize, id: u32) -> Allocation {
        let class = &mut self.classes[class_number];
        let slab = &mut self.slabs[id as usize];
        if slab.free.count() == slab.slots {
            if class.spare == Some(id) {
                class.spare = None;
            }
            self.segments[slab.segment as usize]
                .as_mut()
                .expect("a slab's segment exists")
                .count_used(SLAB_BYTES);
        }
        let slot = slab.free.take().expect("a listed slab has a free slot");
        if slab.free.count() == 0 {
            slab.listed = false;
            class.listed.pop();
        }
        Allocation::new(slab.segment, slab.offset + u64::from(slot) * class.bytes, id + 1)
    }

    /// Adds a slab without objects.
    fn add_slab(&mut self, class_number: usize) -> Option<u32> {
        let class_bytes = self.classes[class_number].bytes;
        let slots = (SLAB_BYTES / class_bytes) as u16;
        let (class, listed, free) = (class_number as u32, true, FreeSlots::all(slots));
        let slab = match self.take_run(SLAB_BYTES) {
            Some((segment, offset)) => Slab { segment, class, offset, free, slots, gone: 0, listed },
            None => {
                let bytes = class_bytes.next_multiple_of(PAGE_BYTES);
                let (segment, offset) = self.take_run(bytes)?;
                let mut slab = Slab { segment, class, offset, free, slots, gone: 0, listed };
                slab.keep_only(bytes, class_bytes);
                slab
            }
        };
        let id = self.slabs_vacant.pop().unwrap_or(self.slabs.len() as u32);
        match self.slabs.get_mut(id as usize) {
            Some(vacant) => *vacant = slab,
            None => self.slabs.push(slab),
        }
        self.classes[class_number].listed.push(id);
        Some(id)
    }

    /// Makes a slab without objects a free run, or the runs of the pages that it still has.
    fn remove_slab(&mut self, class_number: usize, id: u32) {
        self.forget_slab(class_number, id);
        let slab = &self.slabs[id as usize];
        let (segment, start) = (slab.segment, slab.offset);
        for (offset, bytes) in slab.runs() {
            self.give_run(segment, start + offset, bytes);
        }
    }

    fn forget_slab(&mut self, class_number: usize, id: u32) {
        self.classes[class_number].listed.retain(|other| *other != id);
        // So that it is not taken for one of its segment's.
        self.slabs[id as usize].slots = 0;
        self.slabs_vacant.push(id);
    }

    fn forget_spare(&mut self, class_number: usize) {
        if let Some(spare) = self.classes[class_number].spare.take() {
            self.forget_slab(class_number, spare);
        }
    }

    fn take_run(&mut self, bytes: u64) -> Option<(u32, u64)> {
        for number in &self.order {
            let segment = self.segments[*number as usize].as_mut().expect("an ordered segment exists");
            if let Some(offset) = segment.take_warm(bytes).or_else(|| segment.take_fitting(bytes)) {
                return Some((*number, offset));
            }
        }
        self.take_run_from_all_that_is_free(bytes)
    }

    /// The same once everything that is free has been joined.
    #[cold]
    fn take_run_from_all_that_is_free(&mut self, bytes: u64) -> Option<(u32, u64)> {
        if !self.join_all_that_is_free() {
            return None;
        }
        self.order.iter().find_map(|number| {
            let segment = self.segments[*number as usize].as_mut().expect("an ordered segment exists");
            segment.take_fitting(bytes).map(|offset| (*number, offset))
        })
    }

    /// Makes spare slabs runs, and joins all runs with their neighbours; `true` if there were any.
    fn join_all_that_is_free(&mut self) -> bool {
        let mut any = false;
        for class in 0..self.classes.len() {
            if let Some(spare) = self.classes[class].spare.take() {
                self.remove_slab(class, spare);
                any = true;
            }
        }
        for segment in self.segments.iter_mut().flatten() {
            any |= segment.cool();
        }
        any
    }

    fn give_run(&mut self, number: u32, offset: u64, bytes: u64) {
        self.segment_mut(number).give(offset, bytes);
        if self.order.first() != Some(&number)
            && let Some(position) = self.order.iter().position(|other| *other == number)
        {
            self.order[..=position].rotate_right(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_aligned_and_waste_a_quarter_at_most() {
        let allocator = Allocator::new();
        let class_bytes: Vec<u64> = allocator.classes.iter().map(|class| class.bytes).collect();
        assert_eq!(class_bytes.first(), Some(&64));
        assert_eq!(class_bytes.last(), Some(&SMALL_BYTES_MAX));
        for pair in class_bytes.windows(2) {
            assert_eq!(pair[1] % ALIGNMENT, 0);
            assert!(pair[1] - pair[0] <= (pair[0] / 4).max(ALIGNMENT), "{pair:?}");
        }
        for bytes in 1..=SMALL_BYTES_MAX {
            let class = usize::from(allocator.class_of[bytes.div_ceil(ALIGNMENT) as usize]);
            assert_eq!(class, class_bytes.partition_point(|class_bytes| *class_bytes < bytes), "{bytes}");
        }
    }

    #[test]
    fn the_whole_of_a_segment_can_be_one_object() {
        let mut allocator = Allocator::new();
        let number = allocator.add_segment(1 << 20);
        let all = allocator.allocate(1 << 20).unwrap();
        assert_eq!((all.segment, all.offset()), (number, 0));
        assert!(allocator.allocate(1).is_none());
        assert!(!allocator.remove_segment(number));
        allocator.free(all);
        assert!(allocator.remove_segment(number));
        assert!(!allocator.remove_segment(number));
        assert!(!allocator.has_segments());
        // The number is used again, and nothing of the old segment with it.
        assert_eq!(allocator.add_segment(1 << 20), number);
        let all = allocator.allocate(1 << 20).unwrap();
        assert_eq!((all.segment, all.offset()), (number, 0));
    }

    #[test]
    fn what_was_freed_last_is_used_first() {
        let mut allocator = Allocator::new();
        allocator.add_segment(1 << 20);
        for bytes in [100, 100_000] {
            let places: Vec<_> = (0..4).map(|_| allocator.allocate(bytes).unwrap()).collect();
            allocator.free(places[2]);
            assert_eq!(allocator.allocate(bytes), Some(places[2]), "{bytes} bytes");
            places.into_iter().for_each(|place| allocator.free(place));
        }
    }

    #[test]
    fn a_large_object_that_is_put_and_dropped_again_and_again_keeps_its_place() {
        let mut allocator = Allocator::new();
        allocator.add_segment(8 << 20);
        let small: Vec<_> = (0..100).map(|_| allocator.allocate(5000).unwrap()).collect();
        let first = allocator.allocate(5 << 20).unwrap();
        allocator.free(first);
        small.into_iter().for_each(|place| allocator.free(place));
        for _ in 0..100 {
            let place = allocator.allocate(5 << 20).unwrap();
            assert_eq!(place, first);
            // Others come and go meanwhile.
            let (other, another) = (allocator.allocate(100).unwrap(), allocator.allocate(100_000).unwrap());
            allocator.free(place);
            allocator.free(other);
            allocator.free(another);
        }
    }

    #[test]
    fn what_is_kept_for_the_next_object_of_a_size_is_there_for_one_of_any_size() {
        let mut allocator = Allocator::new();
        let number = allocator.add_segment(1 << 20);
        for bytes in [64, 100, 1000, 16 << 10, 20_000, 100_000, 200_000] {
            let place = allocator.allocate(bytes).unwrap();
            allocator.free(place);
        }
        assert_eq!(allocator.empty_since(0), [number]);
        let all = allocator.allocate(1 << 20).unwrap();
        assert_eq!(all.offset(), 0);
        allocator.free(all);
        // A spare slab goes with its segment.
        let place = allocator.allocate(64).unwrap();
        allocator.free(place);
        assert!(allocator.remove_segment(number));
        assert!(allocator.allocate(64).is_none());
    }

    #[test]
    fn nothing_is_allocated_in_a_segment_that_leaves_until_it_stays() {
        let mut allocator = Allocator::new();
        let number = allocator.add_segment(1 << 20);
        let places: Vec<_> = [64, 64, 5000, 100_000].map(|bytes| allocator.allocate(bytes).unwrap()).into();
        let spare = allocator.allocate(1000).unwrap();
        allocator.free(spare);
        allocator.close(number);
        assert!([64, 1000, 5000, 100_000].iter().all(|bytes| allocator.allocate(*bytes).is_none()));
        let other = allocator.add_segment(1 << 20);
        assert_eq!(allocator.allocate(64).map(|place| place.segment), Some(other));
        // What is freed in it meanwhile is not used again.
        allocator.free(places[1]);
        assert_eq!(allocator.allocate(64).map(|place| place.segment), Some(other));
        assert!(!allocator.remove_segment(number));
        // It stays: what is free in it can be used again, and what is not is not.
        allocator.reopen(number);
        assert_eq!(allocator.least_recent().collect::<Vec<_>>(), [number, other]);
        allocator.close(other);
        assert_eq!(allocator.allocate(64), Some(places[1]));
        assert!(allocator.allocate(500_000).is_some_and(|place| place.segment == number));
        // It leaves in the end.
        allocator.close(number);
        let mut allocator_empty = |places: &[Allocation]| {
            places.iter().for_each(|place| allocator.free(*place));
            allocator.empty_since(u64::MAX).is_empty()
        };
        assert!(allocator_empty(&places));
        assert!(!allocator.remove_segment(number), "an object is still there");
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
        allocator.add_segment(segment_bytes);
        allocator.add_segment(segment_bytes);
        let mut live: Vec<(Allocation, u64)> = Vec::new();
        // Miri is slow.
        const STEPS: u32 = if cfg!(miri) { 200 } else { 20_000 };
        for step in 0..STEPS {
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
