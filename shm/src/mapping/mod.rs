//! Memory mapped into this address space: [`WriteMapping`] by its one writer, [`ReadMapping`] by all other processes.
//!
//! Raw addresses exist only here. Words are accessed as atomics, and each access checks the offset. Bulk bytes are
//! accessed only through the `unsafe` slices, whose callers say why no process writes them meanwhile.
//!
//! Large mappings are placed so that address and file offset agree modulo 2 MiB: only then can the kernel back them
//! with huge pages.
//!
//! # Forked children
//!
//! No mapping is inherited by a forked child (`MADV_DONTFORK`). A child must not write its parent's memory. A parent's
//! pins keep the bytes that the parent reads, but not for its children: the bytes could change while a child reads
//! them, as soon as the parent removes its pins. A child that follows an address from before the fork is ended by
//! SIGSEGV. Other memory may be mapped at that address by then, so a mapping that is dropped in a child is not
//! unmapped.

mod range;
mod read;
mod write;

pub use read::ReadMapping;
pub use write::WriteMapping;

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;
    use std::sync::atomic::Ordering;

    use super::*;
    use crate::memory::SharedMemory;
    use crate::page::{HUGE_PAGE_BYTES, PAGE_BYTES};

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
        use nix::sys::mman::{MapFlags, ProtFlags, mmap_anonymous};
        use nix::sys::wait::{WaitStatus, waitpid};
        use nix::unistd::{ForkResult, fork};
        let memory = SharedMemory::create(c"test", PAGE_BYTES).unwrap();
        let mapping = ReadMapping::map(memory.read_only().unwrap().as_fd(), 0, PAGE_BYTES as usize).unwrap();
        let (address, length) = (mapping.pointer(0, 1), NonZeroUsize::new(PAGE_BYTES as usize).unwrap());
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
