//! Slabs: runs of [`SLAB_BYTES`], cut into cells of one size class.
//!
//! A slab can give up pages in which no cell is in use. The cells that touch such a page are then no longer part of the
//! slab.

use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::table::ALIGNMENT;

use super::cells::{CELLS_MAX, FreeCells};

/// Bytes of the run that a slab is.
pub(super) const SLAB_BYTES: u64 = 64 << 10;
const _: () = assert!(SLAB_BYTES / ALIGNMENT <= CELLS_MAX as u64);

/// A run that is cut into cells of one size class.
#[derive(Debug)]
pub(super) struct Slab {
    pub(super) segment: u32,
    pub(super) class: u32,
    pub(super) offset: u64,
    pub(super) free: FreeCells,
    /// The number of cells, free or in use.
    pub(super) cells: u16,
    /// A bit for each page that the slab does not have (any more). Cells that touch such a page do not count in
    /// `cells`.
    pub(super) gone: u16,
    /// Whether the class knows it as one with free cells.
    pub(super) listed: bool,
}

/// The slabs with cells of one size.
#[derive(Debug)]
pub(super) struct SizeClass {
    pub(super) bytes: u64,
    /// Slabs with free cells; the last is used first.
    pub(super) listed: Vec<u32>,
    /// A slab without objects, kept for the next one; it is listed too.
    pub(super) spare: Option<u32>,
}

/// Pages of a slab: a bit for each.
type Pages = u16;
const SLAB_PAGES: u32 = (SLAB_BYTES / PAGE_BYTES) as u32;
const _: () = assert!(SLAB_PAGES == Pages::BITS);

impl Slab {
    /// The runs of pages that a slab still has: where they begin in it, and their bytes.
    pub(super) fn runs(&self) -> impl Iterator<Item = (u64, u64)> + use<> {
        stretches(!self.gone)
    }

    /// Pages that are there, and in which no cell is in use.
    pub(super) fn unused_pages(&self, cell_bytes: u64) -> Pages {
        let mut used = self.gone;
        for cell in 0..(SLAB_BYTES / cell_bytes) as u16 {
            let pages = pages_of(cell, cell_bytes);
            // A cell of which a page has gone is not in use.
            if pages & self.gone == 0 && !self.free.is_free(cell) {
                used |= pages;
            }
        }
        !used
    }

    /// Gives up all pages but the first ones, of `bytes`.
    pub(super) fn keep_only(&mut self, bytes: u64, cell_bytes: u64) {
        self.give_up(!pages_of(0, bytes), cell_bytes);
    }

    /// Gives up pages, with the cells that touch them.
    pub(super) fn give_up(&mut self, pages: Pages, cell_bytes: u64) {
        self.gone |= pages;
        let gone = self.gone;
        let lost = self.free.remove_where(|cell| pages_of(cell, cell_bytes) & gone != 0);
        self.cells -= lost;
    }
}

/// The pages that a cell lies in.
fn pages_of(cell: u16, cell_bytes: u64) -> Pages {
    let (start, end) = (u64::from(cell) * cell_bytes, (u64::from(cell) + 1) * cell_bytes);
    let (first, last) = ((start / PAGE_BYTES) as u32, ((end - 1) / PAGE_BYTES) as u32);
    (Pages::MAX >> (SLAB_PAGES - 1 - last)) & (Pages::MAX << first)
}

/// Pages that lie side by side, as places in a slab: where they begin, and their bytes.
pub(super) fn stretches(pages: Pages) -> impl Iterator<Item = (u64, u64)> {
    let is_in = move |page: u32| page < SLAB_PAGES && pages & 1 << page != 0;
    let begins = move |page: &u32| is_in(*page) && (*page == 0 || !is_in(page - 1));
    (0..SLAB_PAGES).filter(begins).map(move |first| {
        let count = (first..SLAB_PAGES).take_while(|page| is_in(*page)).count() as u64;
        (u64::from(first) * PAGE_BYTES, count * PAGE_BYTES)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pages_of_cells_and_stretches_of_pages() {
        assert_eq!((pages_of(0, 64), pages_of(63, 64), pages_of(64, 64)), (1, 1, 2));
        assert_eq!((pages_of(0, 5120), pages_of(1, 5120), pages_of(11, 5120)), (0b11, 0b110, 0x6000));
        assert_eq!(pages_of(3, 16 << 10), 0xf000);
        assert_eq!(stretches(0).count(), 0);
        assert_eq!(stretches(Pages::MAX).collect::<Vec<_>>(), [(0, SLAB_BYTES)]);
        let two: Vec<_> = stretches(0b1000_0000_0000_0110).collect();
        assert_eq!(two, [(4096, 8192), (15 * 4096, 4096)]);
    }
}
