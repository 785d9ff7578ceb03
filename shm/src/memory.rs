//! Anonymous shared memory: memfds that only their owner may write and that no process can resize.
//!
//! A memory is made by the daemon, sealed against resizing *before* anyone else sees it, and given the mode 0400, so
//! that a read-only descriptor cannot be reopened for writing through `/proc` by another user. Pages are allocated
//! ahead of use: a machine without memory is an error here, never a `SIGBUS` at a store instruction.

use std::ffi::CStr;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use nix::fcntl::{FallocateFlags, FcntlArg, OFlag, SealFlag, fallocate, fcntl, open};
use nix::sys::memfd::{MFdFlags, memfd_create};
use nix::sys::stat::{Mode, fchmod, fstat};
use nix::unistd::{ftruncate, geteuid};

use crate::mapping::WriteMapping;
use crate::page::HUGE_PAGE_BYTES;

pub use crate::page::{PAGE_BYTES, round_up_to_pages};

/// A memory this process made: it has the writable descriptor, and decides which process gets which descriptor.
#[derive(Debug)]
pub struct SharedMemory {
    writable: OwnedFd,
    bytes: u64,
}

impl SharedMemory {
    /// Makes a memory of `bytes`, without pages yet, sealed against shrinking, growing and further seals.
    ///
    /// `name` is what `/proc/PID/maps` shows. Costs five system calls.
    ///
    /// # Errors
    /// The system's: too many descriptors, or no memory for the file itself.
    pub fn create(name: &CStr, bytes: u64) -> io::Result<Self> {
        let flags = MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING;
        let writable = memfd_create(name, flags)?;
        let length = i64::try_from(bytes).map_err(|_| io::ErrorKind::FileTooLarge)?;
        ftruncate(&writable, length)?;
        fchmod(&writable, Mode::S_IRUSR)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&writable, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self { writable, bytes })
    }

    /// Takes over a memory that another process made as [`create`](Self::create) does, by a descriptor that may write.
    ///
    /// # Errors
    /// `InvalidData` unless it is a memory of exactly this many bytes, sealed as `create` seals it, and owned by this
    /// user; `PermissionDenied` for a descriptor that may not write.
    pub fn take_over(writable: OwnedFd, bytes: u64) -> io::Result<Self> {
        check_taken_over(writable.as_fd(), bytes)?;
        let flags = OFlag::from_bits_retain(fcntl(&writable, FcntlArg::F_GETFL)?);
        if flags & OFlag::O_ACCMODE != OFlag::O_RDWR {
            let text = "received memory that cannot be written where it must";
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        Ok(Self { writable, bytes })
    }

    /// Takes over memory with a read-only descriptor: the memory's mode is changed for a moment, so that this user can
    /// open it for writing. Five system calls.
    ///
    /// # Errors
    /// As [`take_over`](Self::take_over), and the system's.
    pub fn take_over_read_only(descriptor: BorrowedFd<'_>, bytes: u64) -> io::Result<Self> {
        check_taken_over(descriptor, bytes)?;
        let path = format!("/proc/self/fd/{}", descriptor.as_raw_fd());
        fchmod(descriptor, Mode::S_IRUSR | Mode::S_IWUSR)?;
        let writable = open(path.as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty());
        fchmod(descriptor, Mode::S_IRUSR)?;
        Ok(Self { writable: writable?, bytes })
    }

    /// Allocates the pages of `range`, so that touching them cannot fail later.
    ///
    /// # Errors
    /// `OutOfMemory`-like errors of the system where the machine (or its control group) has no more memory.
    pub fn allocate(&self, range: Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let length = range.end - range.start;
        loop {
            match fallocate(&self.writable, FallocateFlags::empty(), range.start as i64, length as i64) {
                Err(nix::errno::Errno::EINTR) => continue,
                result => return Ok(result?),
            }
        }
    }

    /// Allocates like [`allocate`](Self::allocate), in huge pages as far as the kernel has them: a tenth of the time,
    /// and one page fault for each 2 MiB instead of 512 at the first touch.
    ///
    /// One small page in each 2 MiB is allocated, and the kernel asked to make a huge page of it. The kernel zeroes the
    /// rest of the huge page in place. Small pages would be zeroed, copied and freed.
    ///
    /// # Errors
    /// As [`allocate`](Self::allocate). A lack of huge pages is not an error.
    pub fn allocate_huge(&self, range: Range<u64>) -> io::Result<()> {
        const HUGE: u64 = HUGE_PAGE_BYTES as u64;
        let blocks = range.start.next_multiple_of(HUGE)..range.end / HUGE * HUGE;
        if !blocks.is_empty() {
            for block in blocks.clone().step_by(HUGE_PAGE_BYTES) {
                self.allocate(block..block + PAGE_BYTES)?;
            }
            let length = (blocks.end - blocks.start) as usize;
            if let Ok(mapping) = WriteMapping::map(self.writable(), blocks.start, length) {
                let _in_part_at_most = mapping.collapse();
            }
        }
        // Pages that are there already cost next to nothing.
        self.allocate(range)
    }

    /// Gives the pages of `range` back to the system; the range then reads as zeros.
    ///
    /// # Errors
    /// The system's.
    pub fn punch_hole(&self, range: Range<u64>) -> io::Result<()> {
        punch_hole(self.writable.as_fd(), range)
    }

    /// Bytes of the pages that there are now, as the kernel counts them. One system call.
    ///
    /// # Errors
    /// The system's.
    pub fn allocated_bytes(&self) -> io::Result<u64> {
        const BLOCK_BYTES: u64 = 512;
        let blocks = u64::try_from(fstat(&self.writable)?.st_blocks).unwrap_or(0);
        Ok((blocks * BLOCK_BYTES).min(self.bytes))
    }

    /// The descriptor that may write. It goes to the memory's one writer only.
    pub fn writable(&self) -> BorrowedFd<'_> {
        self.writable.as_fd()
    }

    /// A new descriptor that can only read. One system call.
    ///
    /// # Errors
    /// The system's: too many descriptors, or no `/proc`.
    pub fn read_only(&self) -> io::Result<OwnedFd> {
        let path = format!("/proc/self/fd/{}", self.writable.as_raw_fd());
        Ok(open(path.as_str(), OFlag::O_RDONLY | OFlag::O_CLOEXEC, Mode::empty())?)
    }

    /// Its length in bytes.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// Gives the pages of a range of a memory back to the system; the range then reads as zeros. The one writer of the
/// memory has such a descriptor.
///
/// # Errors
/// The system's.
pub fn punch_hole(writable: BorrowedFd<'_>, range: Range<u64>) -> io::Result<()> {
    if range.is_empty() {
        return Ok(());
    }
    let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
    loop {
        match fallocate(writable, flags, range.start as i64, (range.end - range.start) as i64) {
            Err(nix::errno::Errno::EINTR) => {}
            result => return Ok(result?),
        }
    }
}

/// The identity of a memory: two descriptors with the same identity are of the same memory.
///
/// # Errors
/// The system's.
pub fn identity(descriptor: BorrowedFd<'_>) -> io::Result<(u64, u64)> {
    let status = fstat(descriptor)?;
    Ok((status.st_dev, status.st_ino))
}

/// Whether a descriptor is of a memory as [`SharedMemory::create`] makes it, owned by this user, and of exactly this
/// many bytes.
fn check_taken_over(descriptor: BorrowedFd<'_>, bytes: u64) -> io::Result<()> {
    let invalid = |text: String| Err(io::Error::new(io::ErrorKind::InvalidData, text));
    let Ok(seals) = fcntl(descriptor, FcntlArg::F_GET_SEALS) else {
        return invalid("received a descriptor that is of no shared memory".to_owned());
    };
    let expected = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    if SealFlag::from_bits_retain(seals) != expected {
        return invalid("received memory that is not sealed as the store seals it".to_owned());
    }
    let status = fstat(descriptor)?;
    if u64::try_from(status.st_size) != Ok(bytes) {
        return invalid(format!("received memory of {} bytes where {bytes} were announced", status.st_size));
    }
    if status.st_uid != geteuid().as_raw() {
        return invalid(format!("received memory of user {}", status.st_uid));
    }
    Ok(())
}

/// The length of a memory that another process sent: at least `expected` bytes, or an error.
///
/// Mapping more than a file has turns a read into a `SIGBUS`; a descriptor that came over a socket is measured first.
///
/// # Errors
/// `InvalidData` where the file is shorter than expected or may still be shrunk.
pub fn check_received(descriptor: BorrowedFd<'_>, expected: u64) -> io::Result<()> {
    let actual = fstat(descriptor)?.st_size;
    let seals = fcntl(descriptor, FcntlArg::F_GET_SEALS)?;
    if !SealFlag::from_bits_retain(seals).contains(SealFlag::F_SEAL_SHRINK) {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "received memory that may still shrink"));
    }
    if actual < 0 || (actual as u64) < expected {
        let message = format!("received memory of {actual} bytes where {expected} were announced");
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sealed_memory_cannot_be_resized_or_reopened_for_writing_by_its_reader() {
        let memory = SharedMemory::create(c"test", 8192).unwrap();
        memory.allocate(0..8192).unwrap();
        assert!(ftruncate(memory.writable(), 4096).is_err(), "shrank");
        assert!(ftruncate(memory.writable(), 16384).is_err(), "grew");
        let reader = memory.read_only().unwrap();
        assert!(nix::unistd::write(&reader, b"x").is_err(), "wrote through the reader's descriptor");
        assert_eq!(fstat(&reader).unwrap().st_mode & 0o777, 0o400);
        check_received(reader.as_fd(), 8192).unwrap();
        assert!(check_received(reader.as_fd(), 8193).is_err());
    }

    /// Memory in use by a file, in bytes, as the system counts it.
    fn allocated_bytes(memory: &SharedMemory) -> u64 {
        fstat(memory.writable()).unwrap().st_blocks as u64 * 512
    }

    #[test]
    fn every_page_of_a_range_is_allocated_whatever_it_is_made_of() {
        const HUGE: u64 = HUGE_PAGE_BYTES as u64;
        for range in [0..HUGE, 0..HUGE + PAGE_BYTES, PAGE_BYTES..3 * HUGE - PAGE_BYTES, 0..PAGE_BYTES, 0..0] {
            let memory = SharedMemory::create(c"test", 4 * HUGE).unwrap();
            let wanted = range.end - range.start;
            memory.allocate_huge(range.clone()).unwrap();
            assert_eq!(allocated_bytes(&memory), wanted, "{range:?}");
            // And it can be written, read, and given back.
            if wanted > 0 {
                let mapping = WriteMapping::map(memory.writable(), 0, 4 * HUGE_PAGE_BYTES).unwrap();
                mapping.word64(range.start as usize).store(1, std::sync::atomic::Ordering::Relaxed);
                assert_eq!(
                    mapping.word64(range.end as usize - 8).load(std::sync::atomic::Ordering::Relaxed),
                    0
                );
            }
            memory.punch_hole(0..4 * HUGE).unwrap();
            assert_eq!(allocated_bytes(&memory), 0, "{range:?}");
        }
    }

    #[test]
    fn large_memory_is_huge_where_the_kernel_can() {
        let memory = SharedMemory::create(c"test", 16 * HUGE_PAGE_BYTES as u64).unwrap();
        memory.allocate_huge(0..memory.bytes()).unwrap();
        let mapping = WriteMapping::map(memory.writable(), 0, memory.bytes() as usize).unwrap();
        for offset in (0..mapping.len()).step_by(PAGE_BYTES as usize) {
            mapping.word64(offset).store(1, std::sync::atomic::Ordering::Relaxed);
        }
        let smaps = std::fs::read_to_string("/proc/self/smaps").unwrap();
        let start = format!("{:x}-", mapping.pointer(0, 1).addr());
        let mut lines = smaps.lines().skip_while(|line| !line.starts_with(&start));
        let huge = lines.find(|line| line.starts_with("ShmemPmdMapped:")).expect("the mapping is listed");
        println!("{huge}");
        if !mapping.collapse() {
            println!("SKIP: this kernel cannot make huge pages of shared memory, or has none to spare");
            return;
        }
        assert!(!huge.split_whitespace().nth(1).expect("a number").starts_with('0'), "{huge}");
    }

    #[test]
    fn a_memory_is_taken_over_whole_or_not_at_all() {
        let memory = SharedMemory::create(c"test", 8192).unwrap();
        memory.allocate(0..8192).unwrap();
        let reader = memory.read_only().unwrap();
        let writable = || memory.writable().try_clone_to_owned().unwrap();
        let taken = SharedMemory::take_over(writable(), 8192).unwrap();
        assert_eq!(identity(taken.writable()).unwrap(), identity(reader.as_fd()).unwrap());
        let reopened = SharedMemory::take_over_read_only(reader.as_fd(), 8192).unwrap();
        let mapping = WriteMapping::map(reopened.writable(), 0, 8192).unwrap();
        mapping.word64(0).store(7, std::sync::atomic::Ordering::Relaxed);
        let seen = WriteMapping::map(memory.writable(), 0, 8192).unwrap();
        assert_eq!(seen.word64(0).load(std::sync::atomic::Ordering::Relaxed), 7);
        assert_eq!(fstat(&reader).unwrap().st_mode & 0o777, 0o400, "its mode is as it was");
        let kind = |result: io::Result<SharedMemory>| result.unwrap_err().kind();
        assert_eq!(kind(SharedMemory::take_over(writable(), 4096)), io::ErrorKind::InvalidData);
        assert_eq!(kind(SharedMemory::take_over(writable(), 12288)), io::ErrorKind::InvalidData);
        assert_eq!(kind(SharedMemory::take_over(reader, 8192)), io::ErrorKind::PermissionDenied);
        let file: OwnedFd = std::fs::File::open("/dev/zero").unwrap().into();
        assert_eq!(kind(SharedMemory::take_over_read_only(file.as_fd(), 0)), io::ErrorKind::InvalidData);
        let unsealed =
            memfd_create(c"unsealed", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&unsealed, 8192).unwrap();
        assert_eq!(kind(SharedMemory::take_over(unsealed, 8192)), io::ErrorKind::InvalidData);
    }

    #[test]
    fn unsealed_memory_is_refused_by_its_receiver() {
        let unsealed =
            memfd_create(c"unsealed", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&unsealed, 4096).unwrap();
        assert!(check_received(unsealed.as_fd(), 4096).is_err());
    }
}
