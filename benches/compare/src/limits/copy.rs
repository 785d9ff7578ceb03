//! A copy into shared memory that is there already, in huge pages: the least that putting something large can cost.

use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::time::{Duration, Instant};

use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::mman::{MapFlags, ProtFlags, mmap, mmap_anonymous, munmap};
use nix::unistd::ftruncate;

use crate::peer::{Failure, Figure, check, error, median_of, pattern};

const HUGE_BYTES: usize = 2 << 20;
/// `MADV_COLLAPSE`, which the C library's headers do not have everywhere.
const COLLAPSE: i32 = 25;

/// Bytes, and shared memory to copy them to.
pub(crate) struct Copy {
    source: Vec<u8>,
    reserved: NonNull<libc::c_void>,
    reserved_bytes: usize,
    target: NonNull<u8>,
    huge: bool,
}

impl Copy {
    pub(crate) fn new(bytes: usize) -> Result<Self, Failure> {
        let Some(reserved_bytes) = NonZeroUsize::new(bytes.next_multiple_of(HUGE_BYTES) + HUGE_BYTES) else {
            return error("nothing to copy");
        };
        let file = memfd_create(c"mobula-compare-copy", MFdFlags::MFD_CLOEXEC)?;
        let length = bytes.next_multiple_of(HUGE_BYTES);
        ftruncate(&file, length as i64)?;
        // A page in each is enough for the kernel to make a huge one of it.
        for offset in (0..length).step_by(HUGE_BYTES) {
            fallocate(&file, FallocateFlags::empty(), offset as i64, 4096)?;
        }
        // SAFETY: a new mapping, at an address of the kernel's choice.
        let reserved =
            unsafe { mmap_anonymous(None, reserved_bytes, ProtFlags::PROT_NONE, MapFlags::MAP_PRIVATE)? };
        let address = (reserved.as_ptr() as usize).next_multiple_of(HUGE_BYTES);
        let (Some(address), Some(length)) = (NonZeroUsize::new(address), NonZeroUsize::new(length)) else {
            return error("no address");
        };
        let (access, flags) =
            (ProtFlags::PROT_READ | ProtFlags::PROT_WRITE, MapFlags::MAP_SHARED | MapFlags::MAP_FIXED);
        // SAFETY: it replaces a part of the mapping that was just made for it, which nothing refers to.
        let target = unsafe { mmap(Some(address), length, access, flags, &file, 0)? };
        // SAFETY: advice about the mapping that was just made.
        let huge = unsafe { libc::madvise(target.as_ptr(), length.get(), COLLAPSE) } == 0;
        let copy = Self {
            source: pattern(bytes),
            reserved,
            reserved_bytes: reserved_bytes.get(),
            target: target.cast(),
            huge,
        };
        // Makes the memory warm, with pages of either size.
        copy.once()?;
        Ok(copy)
    }

    /// Whether the pages are huge.
    pub(crate) fn is_huge(&self) -> bool {
        self.huge
    }

    pub(crate) fn measure(&self, budget: Duration) -> Figure {
        self.once()?;
        median_of(budget, || self.once())
    }

    fn once(&self) -> Figure {
        // SAFETY: the mapping is as long as the source at least, and this process alone has it.
        let target = unsafe { std::slice::from_raw_parts_mut(self.target.as_ptr(), self.source.len()) };
        let start = Instant::now();
        target.copy_from_slice(&self.source);
        let taken = start.elapsed().as_secs_f64();
        check(target.last() == self.source.last(), "a copy")?;
        Ok(taken)
    }
}

impl Drop for Copy {
    fn drop(&mut self) {
        // SAFETY: the range that was reserved, with the mapping of the file in it; nothing refers to it any more.
        let _ = unsafe { munmap(self.reserved, self.reserved_bytes) };
    }
}
