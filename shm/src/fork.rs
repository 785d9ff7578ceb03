//! Noticing that this process is a forked child, without a system call.
//!
//! A forked child inherits a client's descriptors, but not its identity: its pins and its table belong to the parent. Nor
//! does it inherit the [mappings](crate::mapping): nothing would keep what it sees there. The kernel wipes one page of
//! every child (`MADV_WIPEONFORK`), so that one load tells.
//!
//! The page has one number, which names the process. A guard notes it. In a child the page has zero, and later, if the child
//! makes guards of its own, another number, which no guard of an ancestor has noted.

use std::io;
use std::num::NonZeroUsize;
use std::ptr::NonNull;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap_anonymous};

use crate::memory::PAGE_BYTES;

/// The page, mapped once and never given back.
struct Page(NonNull<AtomicU64>);

// SAFETY: the page holds one atomic word and stays mapped until the process ends, in a forked child too.
unsafe impl Send for Page {}
// SAFETY: threads that share it reach that word only atomically.
unsafe impl Sync for Page {}

impl Page {
    fn map() -> io::Result<Self> {
        let length = NonZeroUsize::new(PAGE_BYTES as usize).expect("not zero");
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        // SAFETY: a new private mapping at an address of the kernel's choice touches no existing memory.
        let base = unsafe { mmap_anonymous(None, length, protection, MapFlags::MAP_PRIVATE)? };
        // SAFETY: the range is the whole of the mapping just made, to which nothing refers yet. The advice takes effect in
        // forked children, where the page reads as zeros, which is a value of the word.
        unsafe { madvise(base, length.get(), MmapAdvise::MADV_WIPEONFORK)? };
        Ok(Self(base.cast()))
    }

    fn word(&self) -> &'static AtomicU64 {
        // SAFETY: the mapping begins at a page, so the word is aligned; it is initialised, since the kernel zeroes the page;
        // it stays mapped for the rest of the process's life; and nobody reaches it but atomically.
        unsafe { self.0.as_ref() }
    }
}

/// Tells whether the process that made it is the one that asks.
#[derive(Debug, Clone, Copy)]
pub struct ForkGuard {
    word: &'static AtomicU64,
    process: u64,
}

impl ForkGuard {
    /// The guard of this process.
    ///
    /// # Errors
    /// The system's, the first time: no memory, or a kernel older than 4.14.
    pub fn new() -> io::Result<Self> {
        static PAGE: OnceLock<Page> = OnceLock::new();
        // A child has a copy of it, which goes on from where the parent was: so no number comes twice in a line of
        // processes.
        static LAST: AtomicU64 = AtomicU64::new(0);
        let page = match PAGE.get() {
            Some(page) => page,
            None => {
                let page = Page::map()?;
                // A second thread that loses the race leaks its page, once.
                PAGE.get_or_init(|| page)
            }
        };
        let word = page.word();
        let mine = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        // The first guard of a process names it. The others find the name.
        let process = match word.compare_exchange(0, mine, Ordering::Relaxed, Ordering::Relaxed) {
            Ok(_) => mine,
            Err(named) => named,
        };
        Ok(Self { word, process })
    }

    /// Whether this is a forked child of the process that made the guard. One load.
    #[inline]
    pub fn is_child(&self) -> bool {
        self.word.load(Ordering::Relaxed) != self.process
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
