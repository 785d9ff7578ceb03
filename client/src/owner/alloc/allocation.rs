//! The position of an object's memory in a segment. It is small, because a program may have a million of them.

use std::num::NonZeroU32;

use mobula_shm::table::ALIGNMENT;

/// A position in a segment. Each object has one, and there may be a million, so it is small.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Allocation {
    /// The allocator's number of the segment.
    pub(crate) segment: u32,
    /// In units of [`ALIGNMENT`].
    offset_units: u32,
    /// The number of the slab it belongs to, plus one; or [`RUN`] and the pages of a run of its own. Never zero, so
    /// that an `Option` of it costs nothing.
    pub(super) part: NonZeroU32,
}

const _: () = assert!(size_of::<Option<Allocation>>() == 12);

/// Marks an [`Allocation`] as a run.
pub(super) const RUN: u32 = 1 << 31;

impl Allocation {
    pub(crate) fn offset(&self) -> u64 {
        u64::from(self.offset_units) * ALIGNMENT
    }

    pub(super) fn new(segment: u32, offset: u64, part: u32) -> Self {
        let part = NonZeroU32::new(part).expect("a slab's number plus one, or a run");
        let offset_units = u32::try_from(offset / ALIGNMENT).expect("a segment is smaller than 256 GiB");
        Self { segment, offset_units, part }
    }
}
