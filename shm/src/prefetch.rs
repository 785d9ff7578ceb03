//! Hints to the processor: memory that is about to be used is fetched while other memory is waited for.
//!
//! A get at random among many objects finds the object's count, its pin and its entry in no cache. All three places
//! follow from the object's id. But an atomic operation begins only when all loads before it are done, and the
//! handshake has two, so without a hint each place would be waited for in turn.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Places at equal distances, of memory that may be unmapped by now.
#[derive(Debug)]
pub struct Lines {
    /// The address of the first place; 0 while it is not known.
    first: AtomicUsize,
    distance: usize,
}

impl Lines {
    /// Places that are not known yet.
    pub fn new(distance: usize) -> Self {
        Self { first: AtomicUsize::new(0), distance }
    }

    /// Says where the first place is.
    pub fn set(&self, first: usize) {
        self.first.store(first, Ordering::Relaxed);
    }

    /// Lets the processor fetch a place. Costs one load, and no wait.
    #[inline]
    pub fn prefetch(&self, index: u32) {
        let first = self.first.load(Ordering::Relaxed);
        if first != 0 {
            prefetch(first.wrapping_add(index as usize * self.distance));
        }
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch(address: usize) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: a hint, which reads nothing and fails at no address.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::without_provenance(address)) }
}

#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn prefetch(_address: usize) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_address_will_do() {
        let lines = Lines::new(64);
        lines.prefetch(7);
        for first in [1, 4096, usize::MAX - 100, &raw const lines as usize] {
            lines.set(first);
            [0, 1, u32::MAX].iter().for_each(|index| lines.prefetch(*index));
        }
    }
}
