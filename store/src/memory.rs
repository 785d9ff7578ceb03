//! Making the shared memories that the store hands out, each allocated before anyone may touch it.
//!
//! Other modules decide what goes into them and which process gets which descriptor; the layouts are those of
//! `mobula_shm`.

use std::ffi::CStr;
use std::fs::File;
use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use mobula_shm::bell::Bell;
use mobula_shm::control::{control_bytes, pin_extent_offset};
use mobula_shm::directory::directory_bytes;
use mobula_shm::memory::{PAGE_BYTES, SharedMemory};
use mobula_shm::names::{NameRecords, names_bytes};
use mobula_shm::pins::{PIN_BYTES, PIN_EXTENT_BYTES};
use mobula_shm::recorder::RECORDER_BYTES;
use mobula_shm::ring::end_bytes;
use mobula_shm::table::{ENTRY_BYTES, TABLE_BYTES};
use nix::sys::uio::{pread, pwrite};

/// A shared memory, and one read-only descriptor of it. Every process except its writer gets a copy of that descriptor.
/// A clone opens no descriptor, so messages that wait in a queue cost none.
#[derive(Debug, Clone)]
pub(crate) struct Memory {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    memory: SharedMemory,
    read_only: OnceLock<OwnedFd>,
}

impl Memory {
    fn create(name: &CStr, bytes: u64) -> io::Result<Self> {
        let memory = SharedMemory::create(name, bytes)?;
        Ok(Self { inner: Arc::new(Inner { memory, read_only: OnceLock::new() }) })
    }

    /// A memory that a client hands back, by a descriptor that may write.
    pub(crate) fn returned(writable: OwnedFd, bytes: u64) -> io::Result<Self> {
        let memory = SharedMemory::take_over(writable, bytes)?;
        Ok(Self { inner: Arc::new(Inner { memory, read_only: OnceLock::new() }) })
    }

    /// A memory that a client hands back, by a descriptor that can only read.
    pub(crate) fn returned_read_only(descriptor: OwnedFd, bytes: u64) -> io::Result<Self> {
        let memory = SharedMemory::take_over_read_only(descriptor.as_fd(), bytes)?;
        Ok(Self { inner: Arc::new(Inner { memory, read_only: OnceLock::from(descriptor) }) })
    }

    /// The daemon's control memory: the directory is there, and the first page of the names.
    pub(crate) fn daemon_control(slots: u32, names_max: u32) -> io::Result<Self> {
        let names = control_bytes(slots);
        let control = Self::create(c"mobula-directory", daemon_control_bytes(slots, names_max))?;
        control.inner.memory.allocate(0..directory_bytes(slots))?;
        control.inner.memory.allocate(names..names + PAGE_BYTES)?;
        Ok(control)
    }

    /// In the daemon's control memory: the pages of the record of a name.
    pub(crate) fn allocate_name(&self, slots: u32, place: u32) -> io::Result<()> {
        let (start, extent) = (control_bytes(slots), NameRecords::extent(place));
        self.inner.memory.allocate(start + extent.start..start + extent.end)
    }

    /// A memory of which every page is there.
    pub(crate) fn allocated(name: &CStr, bytes: u64) -> io::Result<Self> {
        let memory = Self::create(name, bytes)?;
        memory.inner.memory.allocate(0..bytes)?;
        Ok(memory)
    }

    /// A client's control memory where there are `slots` owners: `entries` of its table are there, and no pins yet.
    pub(crate) fn control(slots: u32, entries: u32) -> io::Result<Self> {
        let control = Self::create(c"mobula-control", control_bytes(slots))?;
        control.inner.memory.allocate(0..entry_offset(entries))?;
        Ok(control)
    }

    /// A segment, without pages yet.
    pub(crate) fn segment(bytes: u64) -> io::Result<Self> {
        Self::create(c"mobula-segment", bytes)
    }

    /// One end of a channel.
    pub(crate) fn ring_end(ring_bytes: u32) -> io::Result<Self> {
        Self::allocated(c"mobula-ring", end_bytes(ring_bytes))
    }

    /// In a client's control memory: the pages of some entries.
    pub(crate) fn allocate_entries(&self, entries: Range<u32>) -> io::Result<()> {
        self.inner.memory.allocate(entry_offset(entries.start)..entry_offset(entries.end))
    }

    /// In a control memory: the pages of the pins on some entries of the owner in `slot`.
    pub(crate) fn allocate_pins(&self, slot: u16, entries: Range<u32>) -> io::Result<()> {
        let offset = |entry: u32| pin_extent_offset(slot) + u64::from(entry) * PIN_BYTES;
        self.inner.memory.allocate(offset(entries.start)..offset(entries.end))
    }

    /// In a control memory: gives back the pages of the pins on an owner that no client knows any more.
    pub(crate) fn free_pins(&self, slot: u16) {
        let start = pin_extent_offset(slot);
        if let Err(error) = self.inner.memory.punch_hole(start..start + PIN_EXTENT_BYTES) {
            tracing::warn!(slot, %error, "cannot give the memory of pins back");
        }
    }

    /// In a client's control memory: whether the client has recorded events.
    pub(crate) fn has_events(&self) -> bool {
        let mut first = [0; size_of::<u64>()];
        self.read(TABLE_BYTES, &mut first).is_ok() && first != [0; size_of::<u64>()]
    }

    /// In a client's control memory: gives back the pages of everything but its events.
    pub(crate) fn keep_events(&self) {
        let rest = [0..TABLE_BYTES, TABLE_BYTES + RECORDER_BYTES..self.inner.memory.bytes()];
        for range in rest {
            if let Err(error) = self.inner.memory.punch_hole(range) {
                tracing::warn!(%error, "cannot give the memory of a dead client's table back");
            }
        }
    }

    /// The descriptor that may write.
    pub(crate) fn writable(&self) -> BorrowedFd<'_> {
        self.inner.memory.writable()
    }

    /// To send: the descriptor that may write.
    pub(crate) fn to_write(&self) -> Attachment {
        Attachment::Writable(self.clone())
    }

    /// To send: the descriptor that may only read. A system call the first time.
    pub(crate) fn to_read(&self) -> io::Result<Attachment> {
        if self.inner.read_only.get().is_none() {
            // There is one thread; were there two, the loser's descriptor would be closed.
            let _ = self.inner.read_only.set(self.inner.memory.read_only()?);
        }
        Ok(Attachment::ReadOnly(self.clone()))
    }

    /// In a segment: reads a part.
    pub(crate) fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        let mut read = 0;
        while read < bytes.len() {
            let at = offset + read as u64;
            match pread(self.writable(), &mut bytes[read..], at as i64) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(more) => read += more,
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// In a segment: writes a part of which the pages are there.
    pub(crate) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut written = 0;
        while written < bytes.len() {
            let at = offset + written as u64;
            match pwrite(self.writable(), &bytes[written..], at as i64) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(more) => written += more,
                Err(nix::errno::Errno::EINTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Ok(())
    }

    /// Bytes of the pages that there are.
    pub(crate) fn allocated_bytes(&self) -> io::Result<u64> {
        self.inner.memory.allocated_bytes()
    }

    /// In a segment: the pages of a part of it, huge ones as far as possible.
    pub(crate) fn allocate_slice(&self, range: Range<u64>) -> io::Result<()> {
        self.inner.memory.allocate_huge(range)
    }
}

/// Bytes of the daemon's control memory, the largest memory that it makes. It is sparse.
pub(crate) fn daemon_control_bytes(slots: u32, names_max: u32) -> u64 {
    control_bytes(slots) + names_bytes(names_max)
}

/// Where an entry begins.
fn entry_offset(entry: u32) -> u64 {
    PAGE_BYTES + u64::from(entry) * ENTRY_BYTES
}

/// A descriptor that travels with a message, kept open until it has been sent.
#[derive(Debug, Clone)]
pub(crate) enum Attachment {
    Writable(Memory),
    ReadOnly(Memory),
    Bell(Arc<Bell>),
    File(Arc<File>),
}

impl AsFd for Attachment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Writable(memory) => memory.writable(),
            Self::ReadOnly(memory) => {
                memory.inner.read_only.get().expect("opened when the attachment was made").as_fd()
            }
            Self::Bell(bell) => bell.as_fd(),
            Self::File(file) => file.as_fd(),
        }
    }
}
