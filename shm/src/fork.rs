//! Noticing that this process is a forked child, without a system call.
//!
//! A forked child inherits a client's descriptors and read-only mappings, but not its identity: its pins and its
//! table belong to the parent. The kernel wipes one page of every child (`MADV_WIPEONFORK`), so that one load tells.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};

use crate::memory::PAGE_BYTES;

const ORIGINAL: u64 = 0x6d6f_6275_6c61_0001;

/// The page, mapped once and never given back.
struct Page(NonNull<AtomicU64>);

// SAFETY: the page holds one atomic word and stays mapped until the process ends.
unsafe impl Send for Page {}
// SAFETY: as above.
unsafe impl Sync for Page {}

/// Tells whether the process that made it is the one that asks.
#[derive(Debug, Clone, Copy)]
pub struct ForkGuard {
    word: &'static AtomicU64,
}

impl ForkGuard {
    /// The guard of this process.
    ///
    /// # Errors
    /// The system's, the first time: no memory, or a kernel older than 4.14.
    pub fn new() -> io::Result<Self> {
        static PAGE: OnceLock<Page> = OnceLock::new();
        if let Some(page) = PAGE.get() {
            // SAFETY: mapped for the rest of the process's life.
            return Ok(Self { word: unsafe { page.0.as_ref() } });
        }
        let length = NonZeroUsize::new(PAGE_BYTES as usize).expect("not zero");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice.
        let base = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE)? };
        // SAFETY: the whole of the mapping just made; the advice only takes effect in forked children.
        unsafe { madvise(base, length.get(), MmapAdvise::MADV_WIPEONFORK)? };
        let page = Page(base.cast());
        // SAFETY: just mapped, page-aligned, zeroed: a valid word that stays for the rest of the process's life.
        unsafe { page.0.as_ref() }.store(ORIGINAL, Ordering::Relaxed);
        // A second thread that loses the race leaks its page, once.
        let page = PAGE.get_or_init(|| page);
        // SAFETY: as above.
        let word: &'static AtomicU64 = unsafe { page.0.as_ref() };
        Ok(Self { word })
    }

    /// Whether this is a forked child of the process that made the guard. One load.
    #[inline]
    pub fn is_child(&self) -> bool {
        self.word.load(Ordering::Relaxed) != ORIGINAL
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::wait::{WaitStatus, waitpid};
    use nix::unistd::{ForkResult, fork};

    #[test]
    fn only_the_child_is_a_child() {
        let guard = ForkGuard::new().unwrap();
        assert!(!guard.is_child());
        // SAFETY: the child only loads a word and exits.
        match unsafe { fork() }.unwrap() {
            // SAFETY: `_exit` is safe in a forked child.
            ForkResult::Child => unsafe { libc::_exit(i32::from(guard.is_child())) },
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 1));
            }
        }
        assert!(!guard.is_child());
    }
}
