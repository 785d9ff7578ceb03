//! The free cells of a slab: a bit for each cell, and the cell that was freed last. That one is taken first.

/// The most cells of a slab.
pub(crate) const CELLS_MAX: usize = 1024;

const WORD_BITS: usize = u64::BITS as usize;

/// The free ones among a slab's cells.
#[derive(Debug, Clone)]
pub(crate) struct FreeCells {
    words: [u64; CELLS_MAX / WORD_BITS],
    count: u16,
    freed_last: u16,
}

impl FreeCells {
    /// All of the first `cells`.
    ///
    /// # Panics
    /// Above [`CELLS_MAX`].
    pub(crate) fn all(cells: u16) -> Self {
        assert!(usize::from(cells) <= CELLS_MAX, "{cells} cells");
        let word = |at: usize| match usize::from(cells).saturating_sub(at * WORD_BITS) {
            0 => 0,
            some if some < WORD_BITS => (1 << some) - 1,
            _ => u64::MAX,
        };
        Self { words: std::array::from_fn(word), count: cells, freed_last: 0 }
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// Whether a cell is free.
    pub(crate) fn is_free(&self, cell: u16) -> bool {
        self.words[usize::from(cell) / WORD_BITS] & 1 << (usize::from(cell) % WORD_BITS) != 0
    }

    /// Removes free cells from the slab; returns how many.
    pub(crate) fn remove_where(&mut self, gone: impl Fn(u16) -> bool) -> u16 {
        let before = self.count;
        for cell in 0..CELLS_MAX as u16 {
            if self.is_free(cell) && gone(cell) {
                self.words[usize::from(cell) / WORD_BITS] &= !(1 << (usize::from(cell) % WORD_BITS));
                self.count -= 1;
            }
        }
        before - self.count
    }

    /// The one that was freed last, or else the first.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<u16> {
        let cell = if self.is_free(self.freed_last) { self.freed_last } else { self.first()? };
        self.take_this(cell);
        Some(cell)
    }

    /// The first one.
    #[inline]
    pub(crate) fn first(&self) -> Option<u16> {
        let at = self.words.iter().position(|word| *word != 0)?;
        Some((at * WORD_BITS) as u16 + self.words[at].trailing_zeros() as u16)
    }

    /// Takes one that is free.
    #[inline]
    pub(crate) fn take_this(&mut self, cell: u16) {
        debug_assert!(self.is_free(cell));
        self.words[usize::from(cell) / WORD_BITS] &= !(1 << (usize::from(cell) % WORD_BITS));
        self.count -= 1;
    }

    /// Takes one back.
    #[inline]
    pub(crate) fn give(&mut self, cell: u16) {
        let (word, bit) =
            (&mut self.words[usize::from(cell) / WORD_BITS], 1 << (usize::from(cell) % WORD_BITS));
        debug_assert!(*word & bit == 0, "cell {cell} is freed twice");
        *word |= bit;
        self.count += 1;
        self.freed_last = cell;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_cell_is_taken_once_and_the_one_freed_last_first() {
        for cells in [1, 4, 63, 64, 65, 1000, CELLS_MAX as u16] {
            let mut free = FreeCells::all(cells);
            let taken: Vec<_> = std::iter::from_fn(|| free.take()).collect();
            assert!(taken.iter().copied().eq(0..cells), "{cells} cells: {taken:?}");
            assert_eq!(free.count(), 0);
            for cell in (0..cells).rev() {
                free.give(cell);
                assert_eq!(free.take(), Some(cell));
                free.give(cell);
            }
            assert_eq!(free.count(), cells);
        }
        assert_eq!(FreeCells::all(0).take(), None);
    }

    #[test]
    fn cells_that_are_removed_are_not_taken() {
        let mut free = FreeCells::all(100);
        assert_eq!(free.take(), Some(0));
        assert_eq!(free.remove_where(|cell| cell < 64), 63);
        assert_eq!(
            (free.count(), free.is_free(0), free.is_free(1), free.is_free(64)),
            (36, false, false, true)
        );
        free.give(0);
        assert!(std::iter::from_fn(|| free.take()).eq(std::iter::once(0).chain(64..100)));
    }
}
