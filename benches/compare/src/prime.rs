//! Memory that the machine really has.
//!
//! A virtual machine gives free memory back to its host after a few seconds, and the next process that uses it waits
//! for the host: three hundred megabytes a second, where it is measured at all, and another figure each time. So before
//! rounds that use much memory for the first time, code that is not timed uses and frees as much.

use std::num::NonZeroUsize;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous, munmap};

/// Twice what any of the primed rounds needs.
const BYTES: NonZeroUsize = NonZeroUsize::new(1 << 30).expect("not zero");

/// Uses memory, and frees it. Does nothing where there is not enough.
pub(crate) fn prime() {
    let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new mapping, at an address of the kernel's choice.
    let Ok(memory) = (unsafe { mmap_anonymous(None, BYTES, access, MapFlags::MAP_PRIVATE) }) else { return };
    // SAFETY: advice about the mapping that was just made; huge pages are touched faster, that is all.
    let _ = unsafe { madvise(memory, BYTES.get(), MmapAdvise::MADV_HUGEPAGE) };
    for offset in (0..BYTES.get()).step_by(4096) {
        // SAFETY: inside the mapping that was just made, which nothing refers to.
        unsafe { memory.cast::<u8>().add(offset).write_volatile(1) };
    }
    // SAFETY: the whole of the mapping, which nothing refers to.
    let _ = unsafe { munmap(memory, BYTES.get()) };
}
