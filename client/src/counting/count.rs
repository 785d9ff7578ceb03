//! The number of references of each kind that this process has to an object. The count is private to the process: other
//! processes see only the pin word, which changes when the count of a kind leaves zero or comes back to it.
//!
//! # The word
//!
//! | bits | hold |
//! |---|---|
//! | 0–23 | handles |
//! | 24–43 | borrows of its bytes |
//! | 44–61 | waits until it is sealed: of threads, and of calls that have it as an argument |
//! | 62 | `QUEUED`: this client's own object, which waits in a list to be freed; see [`owner`](crate::owner) |
//! | 63 | `BUSY`: one thread has the word to itself |
//!
//! A count that stays above zero is changed with one compare-and-swap. The changes from and to zero also write the pin
//! word (or free the object): they make the word [`Busy`] with a compare-and-swap, do their work, and store the new
//! word. A thread that meets a busy word waits: for some instructions, as a rule. So a pin that one thread takes back
//! cannot erase the pin that another one has just set, and a thread that finds a count above zero relies on the pin.
//!
//! Acquire, when a reference begins, pairs with the release of the thread that stored the word: the pin, and the
//! segment that is noted beside the count, come before. Release, when a reference ends, passes a thread's reads of the
//! object's bytes on to the thread that ends the last one, which acquires them when it makes the word busy.
//! `shm/tests/loom/counts.rs` explores both.

use mobula_shm::pins::{HELD, MAPPED, WAITING};
use mobula_shm::sync::{AtomicU64, Ordering, spin_loop, yield_now};

const QUEUED: u64 = 1 << 62;
const BUSY: u64 = 1 << 63;
const REFERENCES: u64 = QUEUED - 1;

/// The number of looks at a busy word before a thread lets others run.
const SPINS: u32 = 64;

/// The kind of a reference; each kind is counted for itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// The object stays alive.
    Handle,
    /// Its bytes are read.
    Borrow,
    /// A thread waits until it is sealed.
    Wait,
}

impl Kind {
    #[inline]
    const fn shift(self) -> u32 {
        match self {
            Self::Handle => 0,
            Self::Borrow => 24,
            Self::Wait => 44,
        }
    }

    #[inline]
    const fn one(self) -> u64 {
        1 << self.shift()
    }

    #[inline]
    const fn max(self) -> u64 {
        match self {
            Self::Handle => (1 << 24) - 1,
            Self::Borrow => (1 << 20) - 1,
            Self::Wait => (1 << 18) - 1,
        }
    }

    #[inline]
    const fn of(self, word: u64) -> u64 {
        word >> self.shift() & self.max()
    }

    /// The pin bits of one reference alone.
    #[inline]
    pub(crate) fn pin_bits(self) -> u32 {
        pin_bits(self.one())
    }

    /// The kind in the plural, as it stands before the object in a message.
    pub(crate) const fn plural(self) -> &'static str {
        match self {
            Self::Handle => "handles to",
            Self::Borrow => "borrows of",
            Self::Wait => "waits for",
        }
    }
}

/// The error when a word can count no more references of one kind to an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooMany {
    pub(crate) kind: Kind,
    pub(crate) max: u64,
}

/// The references to one object.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

/// The outcome of [`Count::lock_unused`].
pub(crate) enum Unused<'a> {
    /// There is no reference to the object, and can be none until this is finished.
    Locked(Busy<'a>),
    /// There are references, and the object is no longer marked as queued.
    InUse,
    /// Another thread has the word; it is queued as before.
    Busy,
}

impl Count {
    /// Counts one more reference if there is already one of its kind; `false` if not: then [`lock`](Self::lock) is
    /// needed.
    #[inline]
    pub(crate) fn add(&self, kind: Kind) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            let count = kind.of(word);
            if count == 0 || count == kind.max() || word & BUSY != 0 {
                return false;
            }
            let more = word + kind.one();
            match self.0.compare_exchange_weak(word, more, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// Counts one reference less if it is not the last of its kind; `false` if it is: then [`lock`](Self::lock) is
    /// needed.
    #[inline]
    pub(crate) fn sub(&self, kind: Kind) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if kind.of(word) <= 1 || word & BUSY != 0 {
                return false;
            }
            let less = word - kind.one();
            match self.0.compare_exchange_weak(word, less, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(now) => word = now,
            }
        }
    }

    /// Waits until this thread has the word to itself.
    #[inline]
    pub(crate) fn lock(&self) -> Busy<'_> {
        self.lock_if(|_| true).expect("any word will do")
    }

    /// As [`lock`](Self::lock), but `None` if the word has neither a reference nor a mark. Only [`begin`](Self::begin)
    /// ever changes such a word.
    #[inline]
    pub(crate) fn lock_known(&self) -> Option<Busy<'_>> {
        self.lock_if(|word| word != 0)
    }

    /// Makes a queued word busy if there is no reference to the object; otherwise removes the mark.
    pub(crate) fn lock_unused(&self) -> Unused<'_> {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if word & BUSY != 0 {
                return Unused::Busy;
            }
            let used = word & REFERENCES != 0;
            let next = if used { word & !QUEUED } else { word | BUSY };
            match self.0.compare_exchange_weak(word, next, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) if used => return Unused::InUse,
                Ok(_) => return Unused::Locked(Busy { count: self, word, before: word }),
                Err(now) => word = now,
            }
        }
    }

    /// Counts the first reference to an object that is just being made: the word is zero, so no other thread changes
    /// it.
    #[inline]
    pub(crate) fn begin(&self, kind: Kind) {
        debug_assert_eq!(self.0.load(Ordering::Relaxed), 0);
        self.0.store(kind.one(), Ordering::Release);
    }

    /// Whether its bytes are borrowed, or about to be.
    pub(crate) fn is_borrowed(&self) -> bool {
        let word = self.0.load(Ordering::Relaxed);
        word & BUSY != 0 || Kind::Borrow.of(word) > 0
    }

    /// The number of handles and borrows: of references that keep the object alive.
    pub(crate) fn keeping(&self) -> u64 {
        let word = self.0.load(Ordering::Acquire);
        Kind::Handle.of(word) + Kind::Borrow.of(word)
    }

    #[inline]
    fn lock_if(&self, wanted: impl Fn(u64) -> bool) -> Option<Busy<'_>> {
        let mut spins = 0;
        loop {
            let word = self.0.load(Ordering::Relaxed);
            if !wanted(word) {
                return None;
            }
            if word & BUSY == 0
                && self
                    .0
                    .compare_exchange_weak(word, word | BUSY, Ordering::Acquire, Ordering::Relaxed)
                    .is_ok()
            {
                return Some(Busy { count: self, word, before: word });
            }
            spins += 1;
            if spins < SPINS { spin_loop() } else { yield_now() }
        }
    }
}

/// A count that one thread has to itself. If this is dropped without [`finish`](Self::finish), the count stays
/// unchanged.
#[derive(Debug)]
pub(crate) struct Busy<'a> {
    count: &'a Count,
    word: u64,
    before: u64,
}

impl Busy<'_> {
    /// Counts one more reference, if the word can count it.
    #[inline]
    pub(crate) fn add(&mut self, kind: Kind) -> Result<(), TooMany> {
        if kind.of(self.word) == kind.max() {
            return Err(TooMany { kind, max: kind.max() });
        }
        self.word += kind.one();
        Ok(())
    }

    /// Counts one reference less.
    #[inline]
    pub(crate) fn sub(&mut self, kind: Kind) {
        assert!(kind.of(self.word) > 0, "a reference that was never counted");
        self.word -= kind.one();
    }

    /// Whether there is no reference of a kind.
    #[inline]
    pub(crate) fn is_without(&self, kind: Kind) -> bool {
        kind.of(self.word) == 0
    }

    /// Whether there is no reference at all.
    #[inline]
    pub(crate) fn is_unused(&self) -> bool {
        self.word & REFERENCES == 0
    }

    /// Marks the object as one in a list of objects to be freed; `false` if it was marked before.
    #[inline]
    pub(crate) fn queue(&mut self) -> bool {
        let queued = self.word & QUEUED != 0;
        self.word |= QUEUED;
        !queued
    }

    /// Removes the mark.
    #[inline]
    pub(crate) fn unqueue(&mut self) {
        self.word &= !QUEUED;
    }

    /// The pin bits that belong to the count as it is now.
    #[inline]
    pub(crate) fn pin_bits(&self) -> u32 {
        pin_bits(self.word)
    }

    /// The pin bits that belonged to the count before.
    #[inline]
    pub(crate) fn pin_bits_before(&self) -> u32 {
        pin_bits(self.before)
    }

    /// Stores the changed count and makes it available to other threads. The store is the last access to the count.
    #[inline]
    pub(crate) fn finish(mut self) {
        self.before = self.word;
    }
}

impl Drop for Busy<'_> {
    #[inline]
    fn drop(&mut self) {
        self.count.0.store(self.before, Ordering::Release);
    }
}

#[inline]
fn pin_bits(word: u64) -> u32 {
    let bit = |kind: Kind, bit| if kind.of(word) > 0 { bit } else { 0 };
    bit(Kind::Handle, HELD) | bit(Kind::Borrow, HELD | MAPPED) | bit(Kind::Wait, HELD | WAITING)
}

// Not where these atomics are a model checker's: `shm/tests/loom/counts.rs` includes this file.
#[cfg(all(test, not(mobula_loom)))]
mod tests {
    use super::*;
    use std::sync::atomic::AtomicU32;

    /// Miri is slow.
    const ROUNDS: u32 = if cfg!(miri) { 50 } else { 20_000 };

    /// Takes and ends references as owners and readers do, with the pin in a variable.
    #[derive(Default)]
    struct Pinned {
        count: Count,
        pin: AtomicU32,
    }

    impl Pinned {
        fn acquire(&self, kind: Kind) {
            if self.count.add(kind) {
                return;
            }
            let mut busy = self.count.lock();
            busy.add(kind).unwrap();
            self.pin.store(busy.pin_bits(), Ordering::SeqCst);
            busy.finish();
        }

        fn release(&self, kind: Kind) {
            if self.count.sub(kind) {
                return;
            }
            let mut busy = self.count.lock();
            busy.sub(kind);
            self.pin.store(busy.pin_bits(), Ordering::SeqCst);
            busy.finish();
        }

        fn pin(&self) -> u32 {
            self.pin.load(Ordering::SeqCst)
        }
    }

    #[test]
    fn the_pin_word_says_what_is_counted() {
        let pinned = Pinned::default();
        let check = |step: &dyn Fn(&Pinned), expected: u32| {
            step(&pinned);
            assert_eq!(pinned.pin(), expected);
        };
        check(&|it| it.acquire(Kind::Handle), HELD);
        check(&|it| it.acquire(Kind::Handle), HELD);
        check(&|it| it.acquire(Kind::Borrow), HELD | MAPPED);
        check(&|it| it.acquire(Kind::Wait), HELD | MAPPED | WAITING);
        assert!(matches!(pinned.count.lock_unused(), Unused::InUse));
        check(&|it| it.release(Kind::Handle), HELD | MAPPED | WAITING);
        check(&|it| it.release(Kind::Handle), HELD | MAPPED | WAITING);
        check(&|it| it.release(Kind::Wait), HELD | MAPPED);
        check(&|it| it.release(Kind::Borrow), 0);
        assert!(matches!(pinned.count.lock_unused(), Unused::Locked(_)));
    }

    #[test]
    fn an_unused_count_is_not_locked_and_an_unfinished_change_is_undone() {
        let count = Count::default();
        assert!(count.lock_known().is_none());
        let mut busy = count.lock();
        busy.add(Kind::Borrow).unwrap();
        assert!(matches!(count.lock_unused(), Unused::Busy));
        drop(busy);
        assert!(count.lock_known().is_none());
        count.begin(Kind::Borrow);
        let mut busy = count.lock_known().unwrap();
        busy.sub(Kind::Borrow);
        assert!(busy.queue() && !busy.queue());
        busy.finish();
        // A queued object that is used again is no longer queued after the next look.
        let mut busy = count.lock_known().unwrap();
        busy.add(Kind::Handle).unwrap();
        busy.finish();
        assert!(matches!(count.lock_unused(), Unused::InUse));
        let mut busy = count.lock();
        assert!(busy.queue());
        busy.unqueue();
        busy.sub(Kind::Handle);
        busy.finish();
        assert!(count.lock_known().is_none());
    }

    #[test]
    fn a_reference_too_many_is_an_error_that_names_the_limit_and_changes_nothing() {
        for (kind, max) in [(Kind::Handle, 16_777_215), (Kind::Borrow, 1_048_575), (Kind::Wait, 262_143)] {
            let count = Count(AtomicU64::new(kind.one() * max));
            assert!(!count.add(kind));
            let mut busy = count.lock();
            assert_eq!(busy.add(kind), Err(TooMany { kind, max }));
            drop(busy);
            assert_eq!(count.0.load(Ordering::Relaxed), kind.one() * max);
            // Other kinds are not touched, and there is room again once one reference has ended.
            assert!(count.sub(kind) && count.add(kind) && !count.add(kind));
        }
    }

    #[test]
    fn threads_that_come_and_go_leave_the_pin_that_belongs_to_the_count() {
        let pinned = Pinned::default();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let pinned = &pinned;
                scope.spawn(move || {
                    for step in 0..ROUNDS {
                        let (kind, bits) = match (thread + step) % 3 {
                            0 => (Kind::Handle, HELD),
                            1 => (Kind::Borrow, HELD | MAPPED),
                            _ => (Kind::Wait, HELD | WAITING),
                        };
                        pinned.acquire(kind);
                        assert_eq!(pinned.pin() & bits, bits, "used without a pin");
                        pinned.release(kind);
                    }
                });
            }
        });
        assert_eq!(pinned.pin(), 0);
    }

    /// One thread frees an unused object, others come and go: no thread ever uses it while it is being freed.
    #[test]
    fn a_count_that_is_locked_as_unused_is_used_by_no_thread() {
        let (pinned, freeing) = (Pinned::default(), AtomicU32::new(0));
        std::thread::scope(|scope| {
            let users: Vec<_> = (0..3)
                .map(|_| {
                    scope.spawn(|| {
                        for _ in 0..ROUNDS {
                            pinned.acquire(Kind::Borrow);
                            assert_eq!(freeing.load(Ordering::SeqCst), 0, "used while it is freed");
                            pinned.release(Kind::Borrow);
                        }
                    })
                })
                .collect();
            while !users.iter().all(|user| user.is_finished()) {
                if let Unused::Locked(busy) = pinned.count.lock_unused() {
                    freeing.store(1, Ordering::SeqCst);
                    assert_eq!(pinned.pin(), 0);
                    freeing.store(0, Ordering::SeqCst);
                    busy.finish();
                }
            }
        });
    }
}
