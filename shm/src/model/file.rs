//! A memory that a model's processes share.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd, RawFd};
use std::sync::{Arc, Mutex};

use super::atomics::{AtomicU32, AtomicU64};
use crate::control::pin_extent_offset;
use crate::{directory, pins, ring, table};

/// The files of all models that run now, by their descriptors.
static FILES: Mutex<BTreeMap<RawFd, Arc<Words>>> = Mutex::new(BTreeMap::new());

/// Stands for a memfd: a mapping of its descriptor reaches its words. The descriptor itself leads nowhere.
///
/// It has the words that the code uses, each in one width, and all of them from the beginning: a model begins with one
/// thread, which makes them, so that their zeros come before any thread's accesses.
#[derive(Debug)]
pub struct File {
    descriptor: OwnedFd,
}

#[derive(Debug)]
pub(crate) struct Words {
    wide: BTreeMap<usize, AtomicU64>,
    narrow: BTreeMap<usize, AtomicU32>,
}

impl File {
    /// A file with 64-bit words and 32-bit words at the given offsets.
    ///
    /// # Panics
    /// Outside of a model.
    pub fn new(
        name: &'static str,
        wide: impl IntoIterator<Item = usize>,
        narrow: impl IntoIterator<Item = usize>,
    ) -> Self {
        let wide = wide.into_iter().map(|offset| (offset, AtomicU64::in_file(0, name, offset)));
        let narrow = narrow.into_iter().map(|offset| (offset, AtomicU32::in_file(0, name, offset)));
        let words = Arc::new(Words { wide: wide.collect(), narrow: narrow.collect() });
        let descriptor = OwnedFd::from(std::fs::File::open("/dev/null").expect("the system has it"));
        files().insert(descriptor.as_raw_fd(), words);
        Self { descriptor }
    }

    /// A table with its first entries.
    pub fn table(name: &'static str, entries: u32) -> Self {
        Self::new(name, (0..entries).flat_map(table::entry_words), [table::HEADER_SLEEPS])
    }

    /// The pins of a client on the first entries of the owner in slot 0.
    pub fn pins(name: &'static str, entries: u32) -> Self {
        let first = pin_extent_offset(0) as usize;
        Self::new(name, [], (0..entries as usize).map(|index| first + index * pins::PIN_BYTES as usize))
    }

    /// The directory of so many owners.
    pub fn directory(slots: u16) -> Self {
        Self::new("directory", (0..slots).flat_map(directory::record_words), [])
    }

    /// An end of a channel.
    pub fn ring(name: &'static str, data_bytes: u32) -> Self {
        Self::new(name, ring::end_words(data_bytes), [])
    }

    pub(crate) fn words(descriptor: BorrowedFd<'_>) -> Arc<Words> {
        files().get(&descriptor.as_raw_fd()).expect("the descriptor is a model's file").clone()
    }
}

impl Words {
    pub(crate) fn wide(&self, offset: usize) -> &AtomicU64 {
        self.wide.get(&offset).unwrap_or_else(|| panic!("the model has no 64-bit word at {offset}"))
    }

    pub(crate) fn narrow(&self, offset: usize) -> &AtomicU32 {
        self.narrow.get(&offset).unwrap_or_else(|| panic!("the model has no 32-bit word at {offset}"))
    }
}

impl AsFd for File {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Drop for File {
    fn drop(&mut self) {
        files().remove(&self.descriptor.as_raw_fd());
    }
}

fn files() -> std::sync::MutexGuard<'static, BTreeMap<RawFd, Arc<Words>>> {
    FILES.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
}
