//! The allocator: it chooses an object's segment and its place in the segment.
//!
//! Where there is no room for a whole slab, it makes a slab of the few pages that hold one cell, as if the other pages
//! had been given back to the system.

use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::table::ALIGNMENT;

use super::allocation::{Allocation, RUN};
use super::cells::FreeCells;
use super::runs::Segment;
use super::slab::{SLAB_BYTES, SizeClass, Slab};

/// The largest object that comes from a slab.
pub(super) const SMALL_BYTES_MAX: u64 = 16 << 10;

/// The free and the used memory of all segments of one owner.
#[derive(Debug)]
pub(crate) struct Allocator {
    /// By number; the numbers of removed segments are used again.
    pub(super) segments: Vec<Option<Segment>>,
    /// The most recently leased, or freed in, comes first.
    order: Vec<u32>,
    pub(super) slabs: Vec<Slab>,
    /// Places in `slabs` to use again.
    slabs_vacant: Vec<u32>,
    pub(super) classes: Vec<SizeClass>,
    /// The class of a length, by the length in units of [`ALIGNMENT`], rounded up.
    pub(super) class_of: Box<[u8]>,
    now: u64,
}

impl Allocator {
    pub(crate) fn new() -> Self {
        let mut classes = Vec::new();
        let mut class_of = vec![0];
        let mut bytes = ALIGNMENT;
        while bytes <= SMALL_BYTES_MAX {
            class_of.resize((bytes / ALIGNMENT) as usize + 1, classes.len() as u8);
            classes.push(SizeClass { bytes, listed: Vec::new(), spare: None });
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

    /// Adds a leased segment; returns the number by which its allocations name it.
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

    /// Removes an empty segment, which is to be given back; `false` if it is in use.
    pub(crate) fn remove_segment(&mut self, number: u32) -> bool {
        let cell = self.segments.get_mut(number as usize);
        let Some(cell) = cell.filter(|cell| cell.as_ref().is_some_and(|segment| segment.used == 0)) else {
            return false;
        };
        *cell = None;
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

    /// The segments that have been empty since `before`.
    pub(crate) fn empty_since(&self, before: u64) -> Vec<u32> {
        // A segment with missing pages is not worth keeping warm. A closed segment is removed by the thread that closed
        // it.
        let is_due = |segment: &Segment| segment.emptied <= before || segment.gone > 0;
        let is_empty = |segment: &Segment| segment.used == 0 && is_due(segment) && !segment.closed;
        let numbered = self.segments.iter().enumerate();
        let empty = numbered.filter(|(_, segment)| segment.as_ref().is_some_and(is_empty));
        empty.map(|(number, _)| number as u32).collect()
    }

    /// The segments that are open, the least recently used one first.
    pub(crate) fn least_recent(&self) -> impl Iterator<Item = u32> {
        self.order.iter().rev().copied()
    }

    /// From now on nothing is allocated in a segment, so that it becomes empty. Then it is
    /// [removed](Self::remove_segment), or else [opened again](Self::reopen).
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

    /// Allocates in a closed segment again.
    pub(crate) fn reopen(&mut self, number: u32) {
        self.segment_mut(number).closed = false;
        self.order.push(number);
        for (id, slab) in self.slabs.iter_mut().enumerate() {
            if slab.segment == number && slab.cells > 0 && slab.free.count() > 0 {
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
            return Some(self.take_cell(class, slab));
        }
        let bytes = bytes.checked_next_multiple_of(PAGE_BYTES)?;
        let (number, offset) = self.take_run(bytes)?;
        self.segment_mut(number).count_used(bytes);
        let pages = u32::try_from(bytes / PAGE_BYTES).expect("a segment has fewer pages");
        Some(Allocation::new(number, offset, RUN | pages))
    }

    /// Frees a place.
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
        let cell = (allocation.offset() - slab.offset) as u32 / class.bytes as u32;
        slab.free.give(cell as u16);
        // No slab of a closed segment is listed, so this is off the usual path.
        if !slab.listed {
            if self.segments[slab.segment as usize].as_ref().is_some_and(|segment| segment.closed) {
                return self.free_in_closed(id);
            }
            slab.listed = true;
            class.listed.push(id);
        }
        if slab.free.count() == slab.cells {
            let (number, class_number) = (slab.segment, slab.class as usize);
            // A slab with missing pages is no spare: the next slab is to have all of them.
            let spare = if slab.gone == 0 { class.spare.replace(id) } else { Some(id) };
            let now = self.now;
            self.segment_mut(number).count_unused(SLAB_BYTES, now);
            if let Some(spare) = spare {
                self.remove_slab(class_number, spare);
            }
        }
    }

    /// A cell has been freed in a slab of a closed segment.
    #[cold]
    fn free_in_closed(&mut self, id: u32) {
        let slab = &self.slabs[id as usize];
        if slab.free.count() == slab.cells {
            let (number, class, now) = (slab.segment, slab.class as usize, self.now);
            self.segment_mut(number).count_unused(SLAB_BYTES, now);
            self.remove_slab(class, id);
        }
    }

    pub(super) fn segment_mut(&mut self, number: u32) -> &mut Segment {
        self.segments[number as usize].as_mut().expect("an allocation's segment exists")
    }

    fn take_cell(&mut self, class_number: usize, id: u32) -> Allocation {
        let class = &mut self.classes[class_number];
        let slab = &mut self.slabs[id as usize];
        if slab.free.count() == slab.cells {
            if class.spare == Some(id) {
                class.spare = None;
            }
            self.segments[slab.segment as usize]
                .as_mut()
                .expect("a slab's segment exists")
                .count_used(SLAB_BYTES);
        }
        let cell = slab.free.take().expect("a listed slab has a free cell");
        if slab.free.count() == 0 {
            slab.listed = false;
            class.listed.pop();
        }
        Allocation::new(slab.segment, slab.offset + u64::from(cell) * class.bytes, id + 1)
    }

    /// Adds a slab without objects.
    fn add_slab(&mut self, class_number: usize) -> Option<u32> {
        let class_bytes = self.classes[class_number].bytes;
        let cells = (SLAB_BYTES / class_bytes) as u16;
        let (class, listed, free) = (class_number as u32, true, FreeCells::all(cells));
        let slab = match self.take_run(SLAB_BYTES) {
            Some((segment, offset)) => Slab { segment, class, offset, free, cells, gone: 0, listed },
            None => {
                let bytes = class_bytes.next_multiple_of(PAGE_BYTES);
                let (segment, offset) = self.take_run(bytes)?;
                let mut slab = Slab { segment, class, offset, free, cells, gone: 0, listed };
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
        // So that nothing takes it for a slab of its segment.
        self.slabs[id as usize].cells = 0;
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

    /// As [`take_run`](Self::take_run), once all free runs have been joined.
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
    pub(super) fn join_all_that_is_free(&mut self) -> bool {
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
