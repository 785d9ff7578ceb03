//! Memory that this process writes.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;

use nix::sys::mman::ProtFlags;

use crate::mapping::range::{AddressRange, WORD_BYTES};
use crate::page::PAGE_BYTES;
use crate::sync::{AtomicU32, AtomicU64, Ordering};

/// Memory that this process alone writes.
#[derive(Debug)]
pub struct WriteMapping {
    range: AddressRange,
}

impl WriteMapping {
    /// Maps `len` bytes at `offset` for reading and writing. A handful of system calls.
    ///
    /// # Errors
    /// The system's; `InvalidInput` for an empty range.
    pub fn map(descriptor: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        Ok(Self { range: AddressRange::map(descriptor, offset, len, protection)? })
    }

    /// Asks the kernel to put huge pages behind the mapping now, the missing ones zeroed; content stays. A system call.
    ///
    /// Works although huge pages of shared memory are switched off (`shmem_enabled` is `never`), on every 2 MiB that
    /// have a page already. `false` where the kernel cannot (older than 6.1), or has no huge page to spare: then some,
    /// or all, of the mapping is as it was.
    pub fn collapse(&self) -> bool {
        // As the kernel's headers have it; neither `nix` nor `libc` names it yet.
        const MADV_COLLAPSE: libc::c_int = 25;
        // SAFETY: the range is mapped for as long as `self`, and the advice changes what backs it, never what is read
        // from it, so that nothing that refers into it notices.
        unsafe { libc::madvise(self.range.base.as_ptr().cast(), self.range.len, MADV_COLLAPSE) == 0 }
    }

    /// Allocates the pages of a part, and maps them: no access to it faults later, or fails. A system call. On a kernel
    /// that cannot (older than 5.14), nothing happens.
    ///
    /// # Errors
    /// The system's, where it has no memory.
    ///
    /// # Panics
    /// Where the part is not inside the mapping, or does not begin with a page.
    pub fn populate(&self, offset: usize, len: usize) -> io::Result<()> {
        let part = self.range.pointer(offset, len);
        assert!(offset.is_multiple_of(PAGE_BYTES as usize), "{offset} is inside a page");
        // SAFETY: the part is mapped for as long as `self`; the pages that the advice brings are those that the first
        // access would bring, and it changes nothing of what they have.
        match unsafe { libc::madvise(part.as_ptr().cast(), len, libc::MADV_POPULATE_WRITE) } {
            0 => Ok(()),
            _ => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::EINVAL) => Ok(()),
                error => Err(error),
            },
        }
    }

    /// Its length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.range.len
    }

    /// Whether it has no bytes. Always `false`.
    pub fn is_empty(&self) -> bool {
        self.range.len == 0
    }

    /// The 64-bit word at a byte offset.
    ///
    /// # Panics
    /// Where the offset is misaligned or out of range: offsets here are the program's own, never a peer's.
    #[inline]
    pub fn word64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: in range and aligned (checked by `word`), mapped for as long as `self`, and every process reaches
        // words only atomically.
        unsafe { self.range.word::<AtomicU64>(offset).as_ref() }
    }

    /// The 32-bit word at a byte offset.
    ///
    /// # Panics
    /// As [`word64`](Self::word64).
    #[inline]
    pub fn word32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: in range and aligned (checked by `word`), mapped for as long as `self`, and every process reaches
        // words only atomically.
        unsafe { self.range.word::<AtomicU32>(offset).as_ref() }
    }

    /// Stores bytes as words, relaxed, the last one filled up with zeros.
    ///
    /// # Panics
    /// As [`word64`](Self::word64), for any of the words.
    pub fn store_words(&self, offset: usize, bytes: &[u8]) {
        let (whole, rest) = bytes.as_chunks();
        let words = self.range.words(offset, bytes.len().div_ceil(WORD_BYTES));
        let (words, last) = words.split_at(whole.len());
        for (word, bytes) in words.iter().zip(whole) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
        }
        if let [last] = last {
            let mut bytes = [0; WORD_BYTES];
            bytes[..rest.len()].copy_from_slice(rest);
            last.store(u64::from_ne_bytes(bytes), Ordering::Relaxed);
        }
    }

    /// The `N` 64-bit words that begin at a byte offset: one check for all of them.
    ///
    /// # Panics
    /// As [`word64`](Self::word64).
    #[inline]
    pub fn words64<const N: usize>(&self, offset: usize) -> &[AtomicU64; N] {
        // SAFETY: the array is in range and aligned as a whole (checked by `word`), mapped for as long as `self`, and
        // every process reaches its words only atomically.
        unsafe { self.range.word::<[AtomicU64; N]>(offset).as_ref() }
    }

    /// Whether `offset..offset + len` lies inside.
    #[inline]
    pub fn contains(&self, offset: usize, len: usize) -> bool {
        self.range.contains(offset, len)
    }

    /// The address of a byte.
    ///
    /// # Panics
    /// Where the range is not inside the mapping.
    #[inline]
    pub fn pointer(&self, offset: usize, len: usize) -> NonNull<u8> {
        self.range.pointer(offset, len)
    }
}
