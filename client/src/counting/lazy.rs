//! A table with a place for each entry of one owner. Memory for it comes as entries are used, in chunks, and stays.

use std::sync::OnceLock;

use mobula_shm::table::ENTRIES_MAX;

/// Places of a chunk.
const CHUNK: usize = 4096;

/// A table of [`ENTRIES_MAX`] places, which are found without a lock.
#[derive(Debug)]
pub(crate) struct Lazy<T> {
    chunks: Box<[OnceLock<Box<[T]>>]>,
}

impl<T: Default> Lazy<T> {
    pub(crate) fn new() -> Self {
        Self { chunks: (0..ENTRIES_MAX as usize / CHUNK).map(|_| OnceLock::new()).collect() }
    }

    /// The place of an entry; `None` where no entry of its chunk was ever used.
    #[inline]
    pub(crate) fn get(&self, index: u32) -> Option<&T> {
        let chunk = self.chunks.get(index as usize / CHUNK)?.get()?;
        Some(&chunk[index as usize % CHUNK])
    }

    /// The place of an entry. Makes its chunk if necessary.
    ///
    /// # Panics
    /// Beyond [`ENTRIES_MAX`].
    #[inline]
    pub(crate) fn get_or_make(&self, index: u32) -> &T {
        let chunk = self.chunks[index as usize / CHUNK]
            .get_or_init(|| std::iter::repeat_with(T::default).take(CHUNK).collect());
        &chunk[index as usize % CHUNK]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_exists_with_its_chunk_and_not_before() {
        let table: Lazy<std::cell::Cell<u32>> = Lazy::new();
        assert!(table.get(5000).is_none());
        table.get_or_make(5000).set(7);
        assert_eq!(table.get(5000).map(|place| place.get()), Some(7));
        assert_eq!(table.get(CHUNK as u32).map(|place| place.get()), Some(0));
        assert!(table.get(0).is_none() && table.get(u32::MAX).is_none());
    }
}
