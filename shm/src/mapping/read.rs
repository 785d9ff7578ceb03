//! Memory that this process only reads.
//!
//! The standard library promises one kind of atomic access to memory that is mapped read-only: a `Relaxed` load of at
//! most a machine word, on the targets that it lists. Every other access is undefined behaviour, even a
//! compare-and-swap that fails, because a processor may implement it by a write. So no method of [`ReadMapping`] takes
//! an ordering, and none returns a reference to a word. It has relaxed loads of 32 and 64 bits, and
//! [`load64_acquire`](ReadMapping::load64_acquire), which is a relaxed load followed by a fence. Larger things are
//! loaded word by word.

use std::io;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicUsize;

use nix::sys::mman::ProtFlags;

use crate::mapping::range::{AddressRange, WORD_BYTES};
use crate::page::PAGE_BYTES;
use crate::sync::{AtomicU32, AtomicU64, Ordering, fence};

// Of the targets that the standard library lists, those on which 64 bits are a word. On any other one a relaxed load
// from memory mapped read-only might be done by a write.
#[cfg(not(any(
    target_arch = "x86_64",
    target_arch = "aarch64",
    target_arch = "loongarch64",
    target_arch = "mips64",
    target_arch = "powerpc64",
    target_arch = "riscv64",
    target_arch = "s390x",
    target_arch = "sparc64",
)))]
compile_error!(
    "Mobula loads 64-bit words from memory that is mapped read-only, which Rust allows on few targets"
);

/// Memory that another process writes, or wrote.
#[derive(Debug)]
pub struct ReadMapping {
    range: AddressRange,
}

impl ReadMapping {
    /// Maps `len` bytes at `offset` for reading. A handful of system calls.
    ///
    /// # Errors
    /// The system's; `InvalidInput` for an empty range.
    pub fn map(descriptor: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        Ok(Self { range: AddressRange::map(descriptor, offset, len, ProtFlags::PROT_READ)? })
    }

    /// Maps one of many mappings that are read at the same offsets, one after the other. Each gets another
    /// address modulo a huge page. With equal addresses, they would all compete for the same few entries of the
    /// processor's address translation, and each read would walk the page tables.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn map_scattered(descriptor: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        static PLACE: AtomicUsize = AtomicUsize::new(0);
        let place = PLACE.fetch_add(PAGE_BYTES as usize, Ordering::Relaxed);
        Ok(Self { range: AddressRange::map_beside(descriptor, offset, len, ProtFlags::PROT_READ, place)? })
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

    /// Loads the 64-bit word at a byte offset; relaxed.
    ///
    /// # Panics
    /// Where the offset is misaligned or out of range: check a peer's offset first.
    #[inline]
    pub fn load64_relaxed(&self, offset: usize) -> u64 {
        // SAFETY: in range and aligned (checked by `word`), mapped for as long as `self`, and reached only atomically
        // by every process. The page is read-only: the reference lives for this one load, which is relaxed and of a
        // word.
        unsafe { self.range.word::<AtomicU64>(offset).as_ref() }.load(Ordering::Relaxed)
    }

    /// Loads the 32-bit word at a byte offset; relaxed.
    ///
    /// # Panics
    /// As [`load64_relaxed`](Self::load64_relaxed).
    #[inline]
    pub fn load32_relaxed(&self, offset: usize) -> u32 {
        // SAFETY: in range and aligned (checked by `word`), mapped for as long as `self`, and reached only atomically
        // by every process. The page is read-only: the reference lives for this one load, which is relaxed and of half
        // a word.
        unsafe { self.range.word::<AtomicU32>(offset).as_ref() }.load(Ordering::Relaxed)
    }

    /// Loads the 64-bit word at a byte offset, and acquires what was stored before it: a relaxed load, then a fence.
    ///
    /// # Panics
    /// As [`load64_relaxed`](Self::load64_relaxed).
    #[inline]
    pub fn load64_acquire(&self, offset: usize) -> u64 {
        let value = self.load64_relaxed(offset);
        fence(Ordering::Acquire);
        value
    }

    /// Loads the 32-bit word at a byte offset, and acquires what was stored before it: a relaxed load, then a fence.
    ///
    /// # Panics
    /// As [`load64_relaxed`](Self::load64_relaxed).
    #[inline]
    pub fn load32_acquire(&self, offset: usize) -> u32 {
        let value = self.load32_relaxed(offset);
        fence(Ordering::Acquire);
        value
    }

    /// Loads words, relaxed, and appends their bytes to `out`, up to `len`.
    ///
    /// # Panics
    /// As [`load64_relaxed`](Self::load64_relaxed), for any of the words.
    pub fn load_words(&self, offset: usize, len: usize, out: &mut Vec<u8>) {
        // The page is read-only: nothing but relaxed loads of a word each.
        let words = self.range.words(offset, len.div_ceil(WORD_BYTES));
        let start = out.len();
        out.resize(start + words.len() * WORD_BYTES, 0);
        let (chunks, _) = out[start..].as_chunks_mut();
        for (chunk, word) in chunks.iter_mut().zip(words) {
            *chunk = word.load(Ordering::Relaxed).to_ne_bytes();
        }
        out.truncate(start + len);
    }

    /// The bits that are set in any of the `count` 32-bit words that begin at a byte offset; relaxed loads.
    ///
    /// # Panics
    /// As [`load64_relaxed`](Self::load64_relaxed).
    #[inline]
    pub fn or_words32(&self, offset: usize, count: usize) -> u32 {
        let pointer = self.pointer(offset, count.saturating_mul(size_of::<u32>())).cast::<AtomicU32>();
        assert!(pointer.is_aligned(), "misaligned words at {offset}");
        // SAFETY: in range (checked by `pointer`) and aligned (just checked), mapped for as long as `self`, and reached
        // only atomically by every process. The page is read-only: the slice is used for relaxed loads of half a word
        // each.
        let words = unsafe { std::slice::from_raw_parts(pointer.as_ptr(), count) };
        // Four at a time, none of which waits for the others; the compiler does not reorder atomic loads.
        let (fours, rest) = words.as_chunks::<4>();
        let mut bits = [0; 4];
        for four in fours {
            for (bits, word) in bits.iter_mut().zip(four) {
                *bits |= word.load(Ordering::Relaxed);
            }
        }
        let rest = rest.iter().fold(0, |bits, word| bits | word.load(Ordering::Relaxed));
        bits[0] | bits[1] | bits[2] | bits[3] | rest
    }

    /// Loads the `N` 64-bit words that begin at a byte offset, one after the other and relaxed: one check for all.
    ///
    /// # Panics
    /// As [`load64_relaxed`](Self::load64_relaxed).
    #[inline]
    pub fn load_words64<const N: usize>(&self, offset: usize) -> [u64; N] {
        // SAFETY: the array is in range and aligned as a whole (checked by `word`), mapped for as long as `self`, and
        // its words are reached only atomically by every process. The page is read-only: the reference is used for
        // relaxed loads of a word each.
        let words = unsafe { self.range.word::<[AtomicU64; N]>(offset).as_ref() };
        std::array::from_fn(|at| words[at].load(Ordering::Relaxed))
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
