//! Memory mapped into this address space: [`WriteMapping`] by its one writer, [`ReadMapping`] by all other processes.
//!
//! This is where raw addresses live and end. Words are reached as atomics, with their place checked on every access;
//! bulk bytes only through the `unsafe` slices, whose callers say why no process writes them meanwhile.
//!
//! Large mappings are placed so that address and file offset agree modulo 2 MiB: only then can the kernel back them
//! with huge pages.
//!
//! # Forked children
//!
//! No mapping is inherited by a forked child (`MADV_DONTFORK`). What a parent writes, a child must not; and what a
//! parent reads is kept by its pins, which say nothing of its children, so that it would change under a child's eyes as
//! soon as the parent lets go. A child that follows an address from before the fork is ended by SIGSEGV. Since other
//! things may lie there by then, a mapping that is dropped in a child is not unmapped.
//!
//! # Loads from memory that is mapped read-only
//!
//! The standard library promises one kind of atomic access to such memory: a `Relaxed` load of at most a machine word,
//! on the targets that it lists. Every other one is undefined behaviour, also a compare-and-swap that fails: a
//! processor may implement it by writing. So [`ReadMapping`] has no way to name an ordering, and hands out no reference
//! to a word. It has relaxed loads of 32 and 64 bits, and [`load64_acquire`](ReadMapping::load64_acquire), which is one
//! with a fence behind it. Larger things are loaded word by word.

use std::io;
use std::num::NonZeroUsize;
use std::os::fd::BorrowedFd;
use std::ptr::NonNull;
use std::sync::atomic::AtomicUsize;

use nix::sys::mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, mmap_anonymous, munmap};

use crate::fork::ForkGuard;
use crate::page::{HUGE_PAGE_BYTES, PAGE_BYTES};
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

const WORD_BYTES: usize = size_of::<u64>();

/// An address range that is unmapped on drop, by the process that mapped it.
#[derive(Debug)]
struct Region {
    base: NonNull<u8>,
    len: usize,
    guard: ForkGuard,
}

// SAFETY: a region is an address range that any thread may unmap, not a reference; what may be done with its bytes is
// decided by the accessors of the two mapping types, which reach words atomically or give out addresses.
unsafe impl Send for Region {}
// SAFETY: a shared region gives out nothing but what those accessors do: atomic words, and addresses.
unsafe impl Sync for Region {}

impl Region {
    fn map(descriptor: BorrowedFd<'_>, offset: u64, len: usize, protection: ProtFlags) -> io::Result<Self> {
        Self::map_beside(descriptor, offset, len, protection, offset as usize)
    }

    /// Maps so that the address, if `len` is large, agrees with `place` modulo a huge page. `place` is in whole pages.
    fn map_beside(
        descriptor: BorrowedFd<'_>,
        offset: u64,
        len: usize,
        protection: ProtFlags,
        place: usize,
    ) -> io::Result<Self> {
        let region = Self::place(descriptor, offset, len, protection, place)?;
        region.advise(MmapAdvise::MADV_DONTFORK)?;
        Ok(region)
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

    /// Gives back what the reservation has before and after `skew..skew + len`, which another region now owns.
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
        // SAFETY: the range is this region's own, and the advice (`MADV_DONTFORK`) changes nothing in this process. It
        // is as old as Linux 2.6.16.
        Ok(unsafe { madvise(self.base.cast(), self.len, advice) }?)
    }

    #[inline]
    fn word<T>(&self, offset: usize) -> NonNull<T> {
        let end = offset.checked_add(size_of::<T>());
        assert!(
            end.is_some_and(|end| end <= self.len),
            "word at {offset} of a mapping of {} bytes",
            self.len
        );
        assert!(offset.is_multiple_of(align_of::<T>()), "misaligned word at {offset}");
        // SAFETY: the offset was just found to lie inside the region, which is one mapping and smaller than
        // `isize::MAX`.
        unsafe { self.base.byte_add(offset).cast() }
    }

    /// `count` words that follow each other.
    fn words(&self, offset: usize, count: usize) -> &[AtomicU64] {
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

    #[inline]
    fn contains(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len)
    }
}

impl Drop for Region {
    fn drop(&mut self) {
        if self.guard.is_child() {
            return;
        }
        // SAFETY: the region owns this range, and every borrow of it has ended. It is this process's: a forked child,
        // in which something else may lie there, has returned.
        let _ = unsafe { munmap(self.base.cast(), self.len) };
    }
}

/// Memory that this process alone writes.
#[derive(Debug)]
pub struct WriteMapping {
    region: Region,
}

impl WriteMapping {
    /// Maps `len` bytes at `offset` for reading and writing. A handful of system calls.
    ///
    /// # Errors
    /// The system's; `InvalidInput` for an empty range.
    pub fn map(descriptor: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        let protection = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        Ok(Self { region: Region::map(descriptor, offset, len, protection)? })
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
        unsafe { libc::madvise(self.region.base.as_ptr().cast(), self.region.len, MADV_COLLAPSE) == 0 }
    }

    /// Its length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.region.len
    }

    /// Whether it has no bytes, which cannot be.
    pub fn is_empty(&self) -> bool {
        self.region.len == 0
    }

    /// The 64-bit word at a byte offset.
    ///
    /// # Panics
    /// Where the offset is misaligned or out of range: offsets here are the program's own, never a peer's.
    #[inline]
    pub fn word64(&self, offset: usize) -> &AtomicU64 {
        // SAFETY: in range and aligned (checked by `word`), mapped for as long as `self`, and every process reaches
        // words only atomically.
        unsafe { self.region.word::<AtomicU64>(offset).as_ref() }
    }

    /// The 32-bit word at a byte offset.
    ///
    /// # Panics
    /// As [`word64`](Self::word64).
    #[inline]
    pub fn word32(&self, offset: usize) -> &AtomicU32 {
        // SAFETY: in range and aligned (checked by `word`), mapped for as long as `self`, and every process reaches
        // words only atomically.
        unsafe { self.region.word::<AtomicU32>(offset).as_ref() }
    }

    /// Stores bytes as words, relaxed, the last one filled up with zeros.
    ///
    /// # Panics
    /// As [`word64`](Self::word64), for any of the words.
    pub fn store_words(&self, offset: usize, bytes: &[u8]) {
        let words = self.region.words(offset, bytes.len().div_ceil(WORD_BYTES));
        let (whole, rest) = bytes.as_chunks();
        let mut last = [0; WORD_BYTES];
        last[..rest.len()].copy_from_slice(rest);
        let last = (!rest.is_empty()).then_some(&last);
        for (word, bytes) in words.iter().zip(whole.iter().chain(last)) {
            word.store(u64::from_ne_bytes(*bytes), Ordering::Relaxed);
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
        unsafe { self.region.word::<[AtomicU64; N]>(offset).as_ref() }
    }

    /// Whether `offset..offset + len` lies inside.
    #[inline]
    pub fn contains(&self, offset: usize, len: usize) -> bool {
        self.region.contains(offset, len)
    }

    /// The address of a byte.
    ///
    /// # Panics
    /// Where the range is not inside the mapping.
    #[inline]
    pub fn pointer(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(
            self.contains(offset, len),
            "{len} bytes at {offset} of a mapping of {} bytes",
            self.region.len
        );
        // SAFETY: just found to lie inside.
        unsafe { self.region.base.byte_add(offset) }
    }
}

/// Memory that another process writes, or wrote.
#[derive(Debug)]
pub struct ReadMapping {
    region: Region,
}

impl ReadMapping {
    /// Maps `len` bytes at `offset` for reading. A handful of system calls.
    ///
    /// # Errors
    /// The system's; `InvalidInput` for an empty range.
    pub fn map(descriptor: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        Ok(Self { region: Region::map(descriptor, offset, len, ProtFlags::PROT_READ)? })
    }

    /// The same for one of many mappings of which the same places are read one after the other: each gets another place
    /// modulo a huge page. Side by side they would all compete for the same few entries of the processor's address
    /// translation, and each look would be a walk of the page tables.
    ///
    /// # Errors
    /// As [`map`](Self::map).
    pub fn map_scattered(descriptor: BorrowedFd<'_>, offset: u64, len: usize) -> io::Result<Self> {
        static PLACE: AtomicUsize = AtomicUsize::new(0);
        let place = PLACE.fetch_add(PAGE_BYTES as usize, Ordering::Relaxed);
        Ok(Self { region: Region::map_beside(descriptor, offset, len, ProtFlags::PROT_READ, place)? })
    }

    /// Its length in bytes.
    #[inline]
    pub fn len(&self) -> usize {
        self.region.len
    }

    /// Whether it has no bytes, which cannot be.
    pub fn is_empty(&self) -> bool {
        self.region.len == 0
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
        unsafe { self.region.word::<AtomicU64>(offset).as_ref() }.load(Ordering::Relaxed)
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
        unsafe { self.region.word::<AtomicU32>(offset).as_ref() }.load(Ordering::Relaxed)
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
        let words = self.region.words(offset, len.div_ceil(WORD_BYTES));
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
        let words = unsafe { self.region.word::<[AtomicU64; N]>(offset).as_ref() };
        std::array::from_fn(|at| words[at].load(Ordering::Relaxed))
    }

    /// Whether `offset..offset + len` lies inside.
    #[inline]
    pub fn contains(&self, offset: usize, len: usize) -> bool {
        self.region.contains(offset, len)
    }

    /// The address of a byte.
    ///
    /// # Panics
    /// Where the range is not inside the mapping.
    #[inline]
    pub fn pointer(&self, offset: usize, len: usize) -> NonNull<u8> {
        assert!(
            self.contains(offset, len),
            "{len} bytes at {offset} of a mapping of {} bytes",
            self.region.len
        );
        // SAFETY: just found to lie inside.
        unsafe { self.region.base.byte_add(offset) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::memory::SharedMemory;

    #[test]
    fn a_large_mapping_agrees_with_its_offset_modulo_a_huge_page() {
        let memory = SharedMemory::create(c"test", 16 << 20).unwrap();
        for offset in [0, 4096, 2 << 20, (4 << 20) + 8192] {
            let mapping = ReadMapping::map(memory.read_only().unwrap().as_fd(), offset, 5 << 20).unwrap();
            let address = mapping.pointer(0, 1).as_ptr() as usize;
            assert_eq!(address % HUGE_PAGE_BYTES, offset as usize % HUGE_PAGE_BYTES);
        }
    }

    #[test]
    fn a_child_that_drops_a_mapping_unmaps_nothing_of_its_own() {
        use nix::sys::wait::{WaitStatus, waitpid};
        use nix::unistd::{ForkResult, fork};
        let memory = SharedMemory::create(c"test", PAGE_BYTES).unwrap();
        let mapping = ReadMapping::map(memory.read_only().unwrap().as_fd(), 0, PAGE_BYTES as usize).unwrap();
        let (address, length) = (mapping.region.base, NonZeroUsize::new(PAGE_BYTES as usize).unwrap());
        // SAFETY: the child makes system calls, and exits.
        match unsafe { fork() }.unwrap() {
            ForkResult::Child => {
                let place = NonZeroUsize::new(address.as_ptr() as usize);
                let flags = MapFlags::MAP_PRIVATE | MapFlags::MAP_FIXED_NOREPLACE;
                // SAFETY: nothing is mapped there in the child, or the call fails.
                let other = unsafe { mmap_anonymous(place, length, ProtFlags::PROT_READ, flags) };
                drop(mapping);
                // SAFETY: as the call above; it fails if the page is there still.
                let again = unsafe { mmap_anonymous(place, length, ProtFlags::PROT_READ, flags) };
                // SAFETY: ends the child without the parent's cleanup.
                unsafe { libc::_exit(i32::from(other.is_ok() && again.is_err())) }
            }
            ForkResult::Parent { child } => {
                assert_eq!(waitpid(child, None).unwrap(), WaitStatus::Exited(child, 1));
            }
        }
        assert_eq!(mapping.load64_relaxed(0), 0);
    }

    #[test]
    fn what_one_mapping_writes_another_reads() {
        let memory = SharedMemory::create(c"test", 4096).unwrap();
        let writer = WriteMapping::map(memory.writable(), 0, 4096).unwrap();
        let reader = ReadMapping::map(memory.read_only().unwrap().as_fd(), 0, 4096).unwrap();
        writer.word64(4088).store(7, Ordering::Release);
        assert_eq!((reader.load64_acquire(4088), reader.load64_relaxed(4088)), (7, 7));
        assert!(!reader.contains(4089, 8));
        assert!(!reader.contains(usize::MAX, 2));
    }

    #[test]
    fn bytes_stored_as_words_are_loaded_as_they_were() {
        let memory = SharedMemory::create(c"test", 4096).unwrap();
        let writer = WriteMapping::map(memory.writable(), 0, 4096).unwrap();
        let reader = ReadMapping::map(memory.read_only().unwrap().as_fd(), 0, 4096).unwrap();
        let bytes: Vec<u8> = (1..=100).collect();
        for len in 0..=bytes.len() {
            writer.store_words(4096 - len.next_multiple_of(8), &bytes[..len]);
            let mut loaded = vec![7];
            reader.load_words(4096 - len.next_multiple_of(8), len, &mut loaded);
            assert_eq!((loaded[0], &loaded[1..]), (7, &bytes[..len]));
        }
    }

    #[test]
    #[should_panic(expected = "2 words at 4088")]
    fn words_across_the_end_panic() {
        let memory = SharedMemory::create(c"test", 4096).unwrap();
        WriteMapping::map(memory.writable(), 0, 4096).unwrap().store_words(4088, &[0; 9]);
    }

    #[test]
    fn scattered_mappings_differ_in_their_place_and_show_the_same() {
        let memory = SharedMemory::create(c"test", 8 << 20).unwrap();
        let writer = WriteMapping::map(memory.writable(), 0, 8 << 20).unwrap();
        writer.word32((4 << 20) + 8).store(7, Ordering::Release);
        let read_only = memory.read_only().unwrap();
        let map = || ReadMapping::map_scattered(read_only.as_fd(), 4 << 20, 4 << 20).unwrap();
        let (one, other) = (map(), map());
        let place = |mapping: &ReadMapping| mapping.pointer(0, 1).as_ptr() as usize % HUGE_PAGE_BYTES;
        assert_ne!(place(&one), place(&other));
        for mapping in [one, other] {
            assert_eq!((mapping.load32_acquire(8), mapping.load32_relaxed(8)), (7, 7));
            assert_eq!((mapping.or_words32(0, 16), mapping.or_words32(12, 16)), (7, 0));
        }
    }

    #[test]
    #[should_panic(expected = "word at 4092")]
    fn a_word_across_the_end_panics() {
        let memory = SharedMemory::create(c"test", 4096).unwrap();
        WriteMapping::map(memory.writable(), 0, 4096).unwrap().word64(4092);
    }

    use std::os::fd::AsFd;
}
