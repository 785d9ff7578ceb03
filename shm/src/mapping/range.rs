//! An address range that this process has mapped: the unsafe base of both kinds of mapping.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::fork::ForkGuard;
use crate::page::HUGE_PAGE_BYTES;
use crate::sync::AtomicU64;

pub(super) const WORD_BYTES: usize = size_of::<u64>();

/// An address range that is unmapped on drop, by the process that mapped it.
#[derive(Debug)]
pub(super) struct AddressRange {
    pub(super) base: NonNull<u8>,
    pub(super) len: usize,
    guard: ForkGuard,
}

// SAFETY: a range is an address range that any thread may unmap, not a reference; what may be done with its bytes is
// decided by the accessors of the two mapping types, which reach words atomically or give out addresses.
unsafe impl Send for AddressRange {}
// SAFETY: a shared range gives out nothing but what those accessors do: atomic words, and addresses.
unsafe impl Sync for AddressRange {}

impl AddressRange {
    pub(super) fn map(
        descriptor: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        protection: ProtFlags,
    ) -> io::Result<Self> {
        Self::map_beside(descriptor, offset, len, protection, offset as usize)
    }

    /// Maps so that the address, if `len` is large, agrees with `place` modulo a huge page. `place` is in whole pages.
    pub(super) fn map_beside(
        descriptor: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        protection: ProtFlags,
        place: usize,
    ) -> io::Result<Self> {
        let range = Self::place(descriptor, offset, len, protection, place)?;
        range.advise(MmapAdvise::MADV_DONTFORK)?;
        Ok(range)
    }

    fn place(
        descriptor: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        protection: ProtFlags,
        place: usize,
    ) -> io::Result<Self> {
        let guard = ForkGuard::new()?;
        let length = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        if len < HUGE_PAGE_BYTES {
            // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
            let base = unsafe { mmap(None, length, protection, MapFlags::MAP_SHARED, descriptor, offset)? };
            return Ok(Self { base: base.cast(), len, guard });
        }
        let reservation = Self::reserve(len + HUGE_PAGE_BYTES, guard)?;
        let start = reservation.base.as_ptr() as usize;
        let skew = place.wrapping_sub(start) % HUGE_PAGE_BYTES;
        let address = NonZeroUsize::new(start + skew).ok_or(io::ErrorKind::AddrNotAvailable)?;
        let flags = MapFlags::MAP_SHARED | MapFlags::MAP_FIXED;
        // SAFETY: `address..address + len` lies inside the reservation made above (skew < 2 MiB, which is what it
        // has more), which nothing else refers to.
        let base = unsafe { mmap(Some(address), length, protection, flags, descriptor, offset)? };
        reservation.trim_around(skew, len);
        Ok(Self { base: base.cast(), len, guard })
    }

    /// Address space without memory, to place a mapping in.
    fn reserve(len: usize, guard: ForkGuard) -> io::Result<Self> {
        let length = NonZeroUsize::new(len).ok_or(io::ErrorKind::InvalidInput)?;
        let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_NORESERVE;
        // SAFETY: a new mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe { mmap_anonymous(None, length, ProtFlags::PROT_NONE, flags)? };
        Ok(Self { base: base.cast(), len, guard })
    }

    /// Gives back what the reservation has before and after `skew..skew + len`, which another range now owns.
    fn trim_around(self, skew: usize, len: usize) {
        let tail = self.len - skew - len;
        // SAFETY: both ranges lie inside this reservation and outside the part that was mapped over, and nothing
        // refers to them. Whole pages, because skew, len and the page size divide each other's multiples.
        unsafe {
            if skew > 0 {
                let _ = munmap(self.base.cast(), skew);
            }
            if tail > 0 {
                let _ = munmap(self.base.byte_add(skew + len).cast(), tail);
            }
        }
        std::mem::forget(self);
    }

    fn advise(&self, advice: MmapAdvise) -> io::Result<()> {
        // SAFETY: the range is this range's own, and the advice (`MADV_DONTFORK`) changes nothing in this process. It
        // is as old as Linux 2.6.16.
        Ok(unsafe { madvise(self.base.cast(), self.len, advice) }?)
    }

    #[inline]
    pub(super) fn word<T>(&self, offset: usize) -> NonNull<T> {
        let end = offset.checked_add(size_of::<T>());
        assert!(
            end.is_some_and(|end| end <= self.len),
            "word at {offset} of a mapping of {} bytes",
            self.len
        );
        assert!(offset.is_multiple_of(align_of::<T>()), "misaligned word at {offset}");
        // SAFETY: the offset was just found to lie inside the range, which is one mapping and smaller than
        // `isize::MAX`.
        unsafe { self.base.byte_add(offset).cast() }
    }

    /// `count` words that follow each other.
    pub(super) fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
        let bytes = count.saturating_mul(WORD_BYTES);
        assert!(
            self.contains(offset, bytes) && offset.is_multiple_of(WORD_BYTES),
            "{count} words at {offset} of a mapping of {} bytes",
            self.len
        );
        // SAFETY: in range and aligned (just checked; a mapping begins at a page), initialised (bytes that were
        // never written are zero), mapped for as long as `self`, and words are reached only atomically.
        unsafe { std::slice::from_raw_parts(self.base.byte_add(offset).cast().as_ptr(), count) }
    }

    /// The address of a byte, behind which `len` bytes lie inside.
    #[inline]
    pub(super) fn pointer(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(self.contains(offset, len), "{len} bytes at {offset} of a mapping of {} bytes", self.len);
        // SAFETY: just found to lie inside.
        unsafe { self.base.byte_add(offset) }
    }

    #[inline]
    pub(super) fn contains(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }
}

impl Drop for AddressRange {
    fn drop(&mut self) {
        if self.guard.is_child() {
            return;
        }
        // SAFETY: the range owns this range, and every borrow of it has ended. It is this process's: a forked child,
        // in which something else may lie there, has returned.
        let _ = unsafe { munmap(self.base.cast(), self.len) };
    }
}
