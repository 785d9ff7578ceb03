//! Anonymous shared memory: memfds that only their owner may write and that nobody can resize.
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
use nix::unistd::ftruncate;

/// Bytes of a page; every length and offset of a mapping is a multiple of it.
pub const PAGE_BYTES: u64 = 4096;

/// Rounds up to whole pages; `None` where that would not fit 63 bits.
pub fn round_up_to_pages(bytes: u64) -> Option<u64> {
    bytes.checked_next_multiple_of(PAGE_BYTES).filter(|rounded| *rounded <= i64::MAX as u64)
}

/// A memory this process made: it holds the writable descriptor and decides who gets which.
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

    /// Gives the pages of `range` back to the system; the range then reads as zeros.
    ///
    /// # Errors
    /// The system's.
    pub fn punch_hole(&self, range: Range<u64>) -> io::Result<()> {
        if range.is_empty() {
            return Ok(());
        }
        let flags = FallocateFlags::FALLOC_FL_PUNCH_HOLE | FallocateFlags::FALLOC_FL_KEEP_SIZE;
        Ok(fallocate(&self.writable, flags, range.start as i64, (range.end - range.start) as i64)?)
    }

    /// The descriptor that may write. It goes to the memory's one writer and to nobody else.
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

    #[test]
    fn unsealed_memory_is_refused_by_its_receiver() {
        let unsealed =
            memfd_create(c"unsealed", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING).unwrap();
        ftruncate(&unsealed, 4096).unwrap();
        assert!(check_received(unsealed.as_fd(), 4096).is_err());
    }
}
