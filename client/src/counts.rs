//! How many handles this process has to each object of an owner. Private to the process: other processes see only
//! the pin word, which changes when a count leaves zero or comes back to it.
//!
//! A count that stays above zero is changed with one compare-and-swap. The changes from and to zero, which also write
//! the pin word (or free the object), happen under a lock that is one of many, so that a pin that one thread takes
//! back cannot erase the pin that another one has just set.

use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

use mobula_shm::pins::{HELD, MAPPED, WAITING};
use mobula_shm::table::ENTRIES_MAX;
use parking_lot::{Mutex, MutexGuard};

const CHUNK: usize = 4096;
const LOCKS: usize = 64;

/// Why a process keeps an object; each is counted for itself, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Use {
    /// A handle: it stays alive.
    Handle,
    /// Its bytes are lent out.
    Bytes,
    /// A thread waits until it is sealed.
    Wait,
}

impl Use {
    const fn shift(self) -> u32 {
        match self {
            Self::Handle => 0,
            Self::Bytes => 28,
            Self::Wait => 52,
        }
    }

    const fn one(self) -> u64 {
        1 << self.shift()
    }

    const fn mask(self) -> u64 {
        match self {
            Self::Handle => (1 << 28) - 1,
            Self::Bytes => (1 << 24) - 1,
            Self::Wait => (1 << 12) - 1,
        }
    }

    const fn of(self, word: u64) -> u64 {
        word >> self.shift() & self.mask()
    }
}

/// The pin bits that say what a count says.
pub(crate) fn pin_bits(word: u64) -> u32 {
    let bit = |kind: Use, bit| if kind.of(word) > 0 { bit } else { 0 };
    match word {
        0 => 0,
        _ => HELD | bit(Use::Bytes, MAPPED) | bit(Use::Wait, WAITING),
    }
}

type Chunk = Box<[AtomicU64]>;

/// The counts of all entries of one owner; memory for them comes as indices are used.
#[derive(Debug)]
pub(crate) struct Counts {
    chunks: Box<[OnceLock<Chunk>]>,
    locks: Box<[Mutex<()>]>,
}

impl Counts {
    pub(crate) fn new() -> Self {
        Self {
            chunks: (0..ENTRIES_MAX as usize / CHUNK).map(|_| OnceLock::new()).collect(),
            locks: (0..LOCKS).map(|_| Mutex::new(())).collect(),
        }
    }

    /// Counts one more use. `changed` stores the pin word when its bits change.
    pub(crate) fn acquire(&self, index: u32, kind: Use, changed: impl FnOnce(u32)) {
        let word = self.word(index);
        if self.change_above(word, kind, 0, |before| before + kind.one()) {
            return;
        }
        let _lock = self.lock(index);
        // Which counts are zero does not change without the lock, so the bits hold although counts may change.
        let before = word.load(Ordering::Acquire);
        assert!(kind.of(before) < kind.mask(), "too many uses of one object in one process");
        let bits = pin_bits(before + kind.one());
        // The pin comes first: a thread that finds the count above zero relies on it.
        if bits != pin_bits(before) {
            changed(bits);
        }
        word.fetch_add(kind.one(), Ordering::AcqRel);
    }

    /// Counts one use less. `changed` stores the pin word when its bits change; with 0, nothing uses the object any
    /// more, and no other thread can begin to before `changed` returns.
    pub(crate) fn release(&self, index: u32, kind: Use, changed: impl FnOnce(u32)) {
        let word = self.word(index);
        if self.change_above(word, kind, 1, |before| before - kind.one()) {
            return;
        }
        let _lock = self.lock(index);
        let before = word.fetch_sub(kind.one(), Ordering::AcqRel);
        debug_assert!(kind.of(before) > 0);
        if pin_bits(before) != pin_bits(before - kind.one()) {
            changed(pin_bits(before - kind.one()));
        }
    }

    /// Keeps every thread from beginning or ending to use the entry; `Some` only if none uses it.
    pub(crate) fn lock_unused(&self, index: u32) -> Option<MutexGuard<'_, ()>> {
        let lock = self.lock(index);
        (self.word(index).load(Ordering::Acquire) == 0).then_some(lock)
    }

    /// How many handles and lent bytes there are.
    pub(crate) fn handles(&self, index: u32) -> u64 {
        let word = self.word(index).load(Ordering::Acquire);
        Use::Handle.of(word) + Use::Bytes.of(word)
    }

    /// Changes the count without the lock where it stays above `floor`.
    fn change_above(&self, word: &AtomicU64, kind: Use, floor: u64, change: impl Fn(u64) -> u64) -> bool {
        let mut before = word.load(Ordering::Relaxed);
        while kind.of(before) > floor && kind.of(before) < kind.mask() {
            // AcqRel: a thread that gives a use up passes its reads on to the one that takes the last one back.
            match word.compare_exchange_weak(before, change(before), Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => before = now,
            }
        }
        false
    }

    fn word(&self, index: u32) -> &AtomicU64 {
        let chunk = self.chunks[index as usize / CHUNK]
            .get_or_init(|| (0..CHUNK).map(|_| AtomicU64::new(0)).collect());
        &chunk[index as usize % CHUNK]
    }

    fn lock(&self, index: u32) -> MutexGuard<'_, ()> {
        self.locks[index as usize % LOCKS].lock()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    #[test]
    fn the_pin_word_says_what_is_counted() {
        let (counts, pin) = (Counts::new(), AtomicU32::new(0));
        let set = |bits| pin.store(bits, Ordering::Relaxed);
        let check = |step: &dyn Fn(), expected: u32| {
            step();
            assert_eq!(pin.load(Ordering::Relaxed), expected);
        };
        check(&|| counts.acquire(5000, Use::Handle, set), HELD);
        check(&|| counts.acquire(5000, Use::Handle, set), HELD);
        check(&|| counts.acquire(5000, Use::Bytes, set), HELD | MAPPED);
        check(&|| counts.acquire(5000, Use::Wait, set), HELD | MAPPED | WAITING);
        assert!(counts.lock_unused(5000).is_none());
        check(&|| counts.release(5000, Use::Handle, set), HELD | MAPPED | WAITING);
        check(&|| counts.release(5000, Use::Handle, set), HELD | MAPPED | WAITING);
        check(&|| counts.release(5000, Use::Wait, set), HELD | MAPPED);
        check(&|| counts.release(5000, Use::Bytes, set), 0);
        assert!(counts.lock_unused(5000).is_some());
    }

    #[test]
    fn threads_that_come_and_go_leave_the_pin_that_belongs_to_the_count() {
        let (counts, pin) = (Counts::new(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..20_000 {
                        counts.acquire(1, Use::Handle, |bits| pin.store(bits, Ordering::SeqCst));
                        assert_eq!(pin.load(Ordering::SeqCst), HELD, "used without a pin");
                        counts.release(1, Use::Handle, |bits| pin.store(bits, Ordering::SeqCst));
                    }
                });
            }
        });
        assert_eq!(pin.load(Ordering::SeqCst), 0);
    }
}
