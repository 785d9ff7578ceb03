//! The leased memory of an owner: its segments, mapped for writing, and the positions of its objects in them.

use std::io;
use std::os::fd::OwnedFd;
use std::ptr::NonNull;
use std::sync::Arc;

use mobula_shm::mapping::WriteMapping;

use crate::owner::alloc::{Allocation, Allocator, UnusedPages};

/// The segments of one owner. The allocator's numbers name them here; their ids name them for everyone else.
pub(crate) struct Segments {
    pub(crate) allocator: Allocator,
    /// By the allocator's numbers.
    mapped: Vec<Option<Segment>>,
    /// The largest id so far.
    id_last: u32,
}

struct Segment {
    id: u32,
    mapping: WriteMapping,
    descriptor: Arc<OwnedFd>,
}

/// A segment as another daemon has to know it.
pub(crate) struct HeldSegment {
    pub(crate) id: u32,
    pub(crate) bytes: u64,
    pub(crate) descriptor: OwnedFd,
}

/// Unused pages of a segment, which the allocator has given up.
pub(crate) struct UnusedPart {
    pub(crate) segment: u32,
    pub(crate) descriptor: Arc<OwnedFd>,
    pub(crate) offset: u64,
    pub(crate) bytes: u64,
}

impl Segments {
    pub(crate) fn new() -> Self {
        Self { allocator: Allocator::new(), mapped: Vec::new(), id_last: 0 }
    }

    /// The segment of an allocation of `bytes`, and its address here.
    #[inline]
    pub(crate) fn address(&self, allocation: Allocation, bytes: u64) -> (u32, NonNull<u8>) {
        let segment = self.segment(allocation.segment);
        (segment.id, segment.mapping.pointer(allocation.offset() as usize, bytes as usize))
    }

    /// Whether an object of so many bytes would find room.
    pub(crate) fn have_room(&mut self, bytes: u64) -> bool {
        let found = self.allocator.allocate(bytes);
        found.inspect(|found| self.allocator.free(*found)).is_some()
    }

    /// Whether anything is leased.
    pub(crate) fn are_any(&self) -> bool {
        self.allocator.has_segments()
    }

    /// Bytes of the pages of all leases.
    pub(crate) fn leased_bytes(&self) -> u64 {
        self.allocator.held_bytes()
    }

    /// A lease has arrived.
    pub(crate) fn add(&mut self, id: u32, mapping: WriteMapping, descriptor: OwnedFd) {
        self.id_last = self.id_last.max(id);
        let number = self.allocator.add_segment(mapping.len() as u64) as usize;
        if number == self.mapped.len() {
            self.mapped.push(None);
        }
        self.mapped[number] = Some(Segment { id, mapping, descriptor: Arc::new(descriptor) });
    }

    /// Unmaps a segment if it is empty, and returns its id.
    pub(crate) fn remove(&mut self, number: u32) -> Option<u32> {
        if !self.allocator.remove_segment(number) {
            return None;
        }
        self.mapped[number as usize].take().map(|segment| segment.id)
    }

    /// Unmaps the segments that have been empty since `before`, and returns their ids.
    pub(crate) fn remove_empty(&mut self, before: u64) -> Vec<u32> {
        let empty = self.allocator.empty_since(before);
        empty.into_iter().filter_map(|number| self.remove(number)).collect()
    }

    /// Takes unused pages from the allocator: `wanted` bytes, or all that exist. It takes pages of slabs only if
    /// objects have been compacted.
    pub(crate) fn take_unused(&mut self, wanted: u64, is_compacted: bool) -> Vec<UnusedPart> {
        let unused = if is_compacted {
            self.allocator.take_unused(wanted)
        } else {
            self.allocator.take_unused_runs(wanted)
        };
        let part = |pages: UnusedPages| {
            let segment = self.segment(pages.segment);
            let (offset, bytes) = (pages.offset, pages.bytes);
            UnusedPart { segment: segment.id, descriptor: segment.descriptor.clone(), offset, bytes }
        };
        unused.into_iter().map(part).collect()
    }

    /// All segments, and the largest id so far.
    pub(crate) fn held(&self) -> io::Result<(Vec<HeldSegment>, u32)> {
        let held = self.mapped.iter().flatten().map(|segment| {
            let descriptor = segment.descriptor.try_clone()?;
            Ok(HeldSegment { id: segment.id, bytes: segment.mapping.len() as u64, descriptor })
        });
        Ok((held.collect::<io::Result<_>>()?, self.id_last))
    }

    /// Sets the clock that [`remove_empty`](Self::remove_empty) compares with.
    pub(crate) fn set_now(&mut self, now: u64) {
        self.allocator.set_now(now);
    }

    fn segment(&self, number: u32) -> &Segment {
        self.mapped[number as usize].as_ref().expect("the allocator's segments are mapped")
    }
}
