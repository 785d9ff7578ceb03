//! Which slots of a slab are free: a bit for each, and the one that was freed last, which is taken first.

/// As many slots as a slab has at most.
pub(crate) const SLOTS_MAX: usize = 1024;

const WORD_BITS: usize = u64::BITS as usize;

/// The free ones among a slab's slots.
#[derive(Debug, Clone)]
pub(crate) struct FreeSlots {
    words: [u64; SLOTS_MAX / WORD_BITS],
    count: u16,
    freed_last: u16,
}

impl FreeSlots {
    /// All of the first `slots`.
    ///
    /// # Panics
    /// Above [`SLOTS_MAX`].
    pub(crate) fn all(slots: u16) -> Self {
        assert!(usize::from(slots) <= SLOTS_MAX, "{slots} slots");
        let word = |at: usize| match usize::from(slots).saturating_sub(at * WORD_BITS) {
            0 => 0,
            some if some < WORD_BITS => (1 << some) - 1,
            _ => u64::MAX,
        };
        Self { words: std::array::from_fn(word), count: slots, freed_last: 0 }
    }

    pub(crate) fn count(&self) -> u16 {
        self.count
    }

    /// Whether a slot is free.
    pub(crate) fn is_free(&self, slot: u16) -> bool {
        self.words[usize::from(slot) / WORD_BITS] & 1 << (usize::from(slot) % WORD_BITS) != 0
    }

    /// Free slots become slots that there are not; returns how many.
    pub(crate) fn remove_where(&mut self, gone: impl Fn(u16) -> bool) -> u16 {
        let before = self.count;
        for slot in 0..SLOTS_MAX as u16 {
            if self.is_free(slot) && gone(slot) {
                self.words[usize::from(slot) / WORD_BITS] &= !(1 << (usize::from(slot) % WORD_BITS));
                self.count -= 1;
            }
        }
        before - self.count
    }

    /// The one that was freed last, or else the first.
    #[inline]
    pub(crate) fn take(&mut self) -> Option<u16> {
        let slot = if self.is_free(self.freed_last) { self.freed_last } else { self.first()? };
        self.take_this(slot);
        Some(slot)
    }

    /// The first one.
    #[inline]
    pub(crate) fn first(&self) -> Option<u16> {
        let at = self.words.iter().position(|word| *word != 0)?;
        Some((at * WORD_BITS) as u16 + self.words[at].trailing_zeros() as u16)
    }

    /// Takes one that is free.
    #[inline]
    pub(crate) fn take_this(&mut self, slot: u16) {
        debug_assert!(self.is_free(slot));
        self.words[usize::from(slot) / WORD_BITS] &= !(1 << (usize::from(slot) % WORD_BITS));
        self.count -= 1;
    }

    /// Takes one back.
    #[inline]
    pub(crate) fn give(&mut self, slot: u16) {
        let (word, bit) =
            (&mut self.words[usize::from(slot) / WORD_BITS], 1 << (usize::from(slot) % WORD_BITS));
        debug_assert!(*word & bit == 0, "slot {slot} is freed twice");
        *word |= bit;
        self.count += 1;
        self.freed_last = slot;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_slot_is_taken_once_and_the_one_freed_last_first() {
        for slots in [1, 4, 63, 64, 65, 1000, SLOTS_MAX as u16] {
            let mut free = FreeSlots::all(slots);
            let taken: Vec<_> = std::iter::from_fn(|| free.take()).collect();
            assert!(taken.iter().copied().eq(0..slots), "{slots} slots: {taken:?}");
            assert_eq!(free.count(), 0);
            for slot in (0..slots).rev() {
                free.give(slot);
                assert_eq!(free.take(), Some(slot));
                free.give(slot);
            }
            assert_eq!(free.count(), slots);
        }
        assert_eq!(FreeSlots::all(0).take(), None);
    }

    #[test]
    fn slots_that_are_removed_are_not_taken() {
        let mut free = FreeSlots::all(100);
        assert_eq!(free.take(), Some(0));
        assert_eq!(free.remove_where(|slot| slot < 64), 63);
        assert_eq!(
            (free.count(), free.is_free(0), free.is_free(1), free.is_free(64)),
            (36, false, false, true)
        );
        free.give(0);
        assert!(std::iter::from_fn(|| free.take()).eq(std::iter::once(0).chain(64..100)));
    }
}
