//! A counted reference as plain data, without behaviour.
//!
//! A program with a million objects has a million of these, so they are small: the object's owner is not noted, because
//! the source knows it, and the kind lies in bits that no index has.

use std::ptr::NonNull;

use mobula_shm::table::ENTRIES_MAX;

use crate::counting::count::{Count, Kind};

/// One counted reference. It does not end by itself: it is made and ended by a `Reference`, and an owner keeps it in
/// this form for its objects.
#[must_use]
pub(crate) struct RawReference {
    /// The owner or the slot that the count is a part of.
    source: NonNull<()>,
    count: NonNull<Count>,
    /// The generation above, and below it whether the object is this client's own, the kind, and the index. It is one
    /// word, because a load is slow if only half of the word was just stored.
    entry: u64,
}

const _: () = assert!(size_of::<RawReference>() == 24);

const GENERATION_SHIFT: u32 = 32;
const OWN: u64 = 1 << 31;
const KIND_SHIFT: u32 = 22;
const KIND: u64 = 3 << KIND_SHIFT;
const INDEX: u64 = (1 << KIND_SHIFT) - 1;
const _: () = assert!(ENTRIES_MAX as u64 <= INDEX + 1 && (Kind::Wait as u64) << KIND_SHIFT <= KIND);

// SAFETY: a count takes references from any thread, and `new` demands the same of the source. Both stay until the
// reference ends, in whatever thread that is.
unsafe impl Send for RawReference {}
// SAFETY: as above: threads that share it only count more references, and read what does not change.
unsafe impl Sync for RawReference {}

impl RawReference {
    /// The reference that `count` was just counted up for.
    ///
    /// # Safety
    /// `source` may be used by any thread. It and the count must stay valid until the reference ends, because the
    /// reference is counted.
    #[inline]
    pub(crate) unsafe fn new(
        source: NonNull<()>,
        is_own: bool,
        count: &Count,
        index: u32,
        generation: u32,
        kind: Kind,
    ) -> Self {
        // A counted object has an entry, so its index is below the bits of the kind.
        debug_assert!(u64::from(index) <= INDEX);
        let own = if is_own { OWN } else { 0 };
        let place = u64::from(index) | (kind as u64) << KIND_SHIFT | own;
        let entry = u64::from(generation) << GENERATION_SHIFT | place;
        Self { source, count: NonNull::from(count), entry }
    }

    /// Another reference to the same object, for which the count was just counted up.
    ///
    /// # Safety
    /// As [`new`](Self::new).
    #[inline]
    pub(crate) unsafe fn again(&self, kind: Kind) -> Self {
        let entry = self.entry & !KIND | (kind as u64) << KIND_SHIFT;
        Self { source: self.source, count: self.count, entry }
    }

    #[inline]
    pub(crate) fn source(&self) -> NonNull<()> {
        self.source
    }

    /// Whether the object is this client's own.
    #[inline]
    pub(crate) fn is_own(&self) -> bool {
        self.entry & OWN != 0
    }

    /// The count, which may be gone as soon as the reference has ended.
    #[inline]
    pub(crate) fn count_pointer(&self) -> NonNull<Count> {
        self.count
    }

    #[inline]
    pub(crate) fn count(&self) -> &Count {
        // SAFETY: the count stays until this reference ends, as `new` demands, which takes more than a `&self`.
        unsafe { self.count.as_ref() }
    }

    #[inline]
    pub(crate) fn index(&self) -> u32 {
        (self.entry & INDEX) as u32
    }

    #[inline]
    pub(crate) fn generation(&self) -> u32 {
        (self.entry >> GENERATION_SHIFT) as u32
    }

    #[inline]
    pub(crate) fn kind(&self) -> Kind {
        match (self.entry & KIND) >> KIND_SHIFT {
            0 => Kind::Handle,
            1 => Kind::Borrow,
            _ => Kind::Wait,
        }
    }
}
