//! The memory of the tables, pins and channels of all clients, as a sum that is kept up to date, so that no request
//! must count it.

use std::cell::Cell;

/// The number of requests after which the bytes are counted again. The time of a count grows with the number of
/// clients.
const REQUESTS_PER_COUNT: u32 = 256;

/// An upper bound of the bytes that are in use. Requests add to it. Bytes that clients give back are subtracted at the
/// next count.
#[derive(Debug, Default)]
pub(crate) struct Bookkeeping {
    used_at_most: Cell<u64>,
    /// Requests until the next count.
    left: Cell<u32>,
}

impl Bookkeeping {
    /// Takes `requested` bytes for a request, if all together stay within `max`. `count` counts the bytes in use.
    ///
    /// # Errors
    /// The bytes in use, counted just now.
    pub(crate) fn take(&self, requested: u64, max: u64, count: impl FnOnce() -> u64) -> Result<(), u64> {
        let together = self.used_at_most.get().saturating_add(requested);
        if let Some(left) = self.left.get().checked_sub(1).filter(|_| together <= max) {
            self.left.set(left);
            self.used_at_most.set(together);
            return Ok(());
        }
        let used = count();
        let together = used.saturating_add(requested);
        let is_within = together <= max;
        self.left.set(REQUESTS_PER_COUNT);
        self.used_at_most.set(if is_within { together } else { used });
        is_within.then_some(()).ok_or(used)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_seldom_and_before_a_refusal() {
        let (bookkeeping, counts, used) = (Bookkeeping::default(), Cell::new(0), Cell::new(0));
        let take = |requested| {
            let count = || {
                counts.set(counts.get() + 1);
                used.get()
            };
            let taken = bookkeeping.take(requested, 1000, count);
            if taken.is_ok() {
                used.set(used.get() + requested);
            }
            taken
        };
        for _ in 0..100 {
            assert_eq!(take(10), Ok(()));
        }
        assert_eq!(counts.get(), 1);
        assert_eq!(take(1), Err(1000));
        // The bytes that were given back are counted when there seems to be no room.
        used.set(500);
        assert_eq!((take(400), take(101)), (Ok(()), Err(900)));
        used.set(0);
        for _ in 0..1000 {
            assert_eq!(take(0), Ok(()));
        }
        assert!((4..=8).contains(&counts.get()), "{} counts", counts.get());
    }
}
