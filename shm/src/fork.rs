//! Noticing that this process is a forked child, without a system call.
//!
//! A forked child inherits a client's descriptors, but not its identity: its pins and its table belong to the parent.
//! It does not inherit the [mappings](crate::mapping) either, because no pin of its own would keep the bytes there. The
//! kernel wipes one page of every child (`MADV_WIPEONFORK`), so that one load tells.
//!
//! A child that makes guards of its own gets another page. The first page stays wiped, for the guards that were made
//! before the fork.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicPtr, AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};

use crate::page::PAGE_BYTES;

const ORIGINAL: u64 = 0x6d6f_6275_6c61_0001;

/// A new page, never given back; its word says that this process is the original.
fn map_page() -> io::Result<&'static AtomicU64> {
    let length = NonZeroUsize::new(PAGE_BYTES as usize).expect("not zero");
    let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
    // SAFETY: a new private mapping at an address of the kernel's choice touches no existing memory.
    let base = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE)? };
    // SAFETY: the range is the whole of the mapping just made, to which nothing refers yet. The advice takes effect in
    // forked children, where the page reads as zeros, which is a value of the word.
    unsafe { madvise(base, length.get(), MmapAdvise::MADV_WIPEONFORK)? };
    let word: NonNull<AtomicU64> = base.cast();
    // SAFETY: the mapping begins at a page, so the word is aligned; it is initialised, since the kernel zeroes the
    // page; it stays mapped for the rest of the process's life, in a forked child too; and it is reached only
    // atomically.
    let word: &'static AtomicU64 = unsafe { word.as_ref() };
    word.store(ORIGINAL, Ordering::Relaxed);
    Ok(word)
}

/// Tells whether this is the process that made it.
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
        // The page of this process, or of an ancestor: then its word is wiped.
        static PAGE: AtomicPtr<AtomicU64> = AtomicPtr::new(std::ptr::null_mut());
        // Acquire: pairs with the exchange below; the word was stored before.
        let known = PAGE.load(Ordering::Acquire);
        // SAFETY: null, or a word that `map_page` has given out for the rest of the process's life.
        let guard = unsafe { known.as_ref() }.map(|word| Self { word }).filter(|guard| !guard.is_child());
        if let Some(guard) = guard {
            return Ok(guard);
        }
        let word = map_page()?;
        let page = std::ptr::from_ref(word).cast_mut();
        match PAGE.compare_exchange(known, page, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => Ok(Self { word }),
            // A second thread that loses the race leaks its page, once.
            //
            // SAFETY: a word that `map_page` has given out, for the other thread.
            Err(faster) => Ok(Self { word: unsafe { &*faster } }),
        }
    }

    /// Whether this is a forked child of the process that made the guard. Costs one load.
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

    /// Whether something holds in a forked child.
    fn holds_in_a_child(check: impl FnOnce() -> bool) -> bool {
        // SAFETY: the child loads and stores a few words, takes no lock that another thread could have, and exits.
        match unsafe { fork() }.unwrap() {
            // SAFETY: `_exit` may be called in a forked child; it runs nothing of the parent's.
            ForkResult::Child => unsafe { libc::_exit(i32::from(check())) },
            ForkResult::Parent { child } => match waitpid(child, None).unwrap() {
                WaitStatus::Exited(_, code) => code == 1,
                other => panic!("{other:?}"),
            },
        }
    }

    #[test]
    fn only_the_child_is_a_child() {
        let guard = ForkGuard::new().unwrap();
        assert!(!guard.is_child());
        assert!(holds_in_a_child(|| guard.is_child()));
        assert!(!guard.is_child());
    }

    #[test]
    fn a_child_has_guards_of_its_own_and_is_still_a_child_for_those_before() {
        let guard = ForkGuard::new().unwrap();
        assert!(holds_in_a_child(|| {
            let own = ForkGuard::new().unwrap();
            let again = ForkGuard::new().unwrap();
            guard.is_child()
                && !own.is_child()
                && !again.is_child()
                && holds_in_a_child(|| guard.is_child() && own.is_child())
        }));
        assert!(!guard.is_child());
    }
}
