//! Atomics and fences as loom has them, with three additions.
//!
//! # `SeqCst` accesses
//!
//! loom knows the one order of all `SeqCst` *fences*, but takes a `SeqCst` access for no more than an acquiring or
//! releasing one. The language promises more: a `SeqCst` store comes before a later `SeqCst` load of the same thread, of
//! whatever word, in that one order. That is what Dekker's handshake stands on, so a fence takes its place here, and
//! there are two places for it: [behind every `SeqCst` store](Fences::BehindStores), or
//! [before every `SeqCst` load](Fences::BeforeLoads). Each of the two alone promises what the language does for a store and
//! a load that are both `SeqCst`; and each promises something that it does not: the first also orders loads that are
//! weaker, the second also stores that are. So the tests explore every model with the one and then with the other: a
//! store that is too weak is found with the first, a load with the second.
//!
//! What this does not tell apart: a relaxed store that the same thread makes *before* a `SeqCst` one is ordered by the
//! fence as well, which the language does not promise.
//!
//! # Weakening
//!
//! [`Settings::weaken`] is asked for the ordering of every access, which it knows by its file, its offset and its kind.
//! That is how a test plants a mistake into code that it does not own a copy of.
//!
//! # Waiting
//!
//! A thread that waits for another one looks again and again, and every look is a branch: there would be no end of
//! executions in which only those run that wait. So an execution is explored up to its first [`YIELDS_MAX`] waits, and from
//! there on ends in the one order in which everyone gets a turn.
//!
//! # Killing
//!
//! [`killed_after`] runs code up to its *n*-th store, which is not done any more, nor is anything after it: what is
//! left is what a process that is killed there leaves behind.

use std::cell::Cell;
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::thread::panicking;

use loom::sync::atomic as inner;
use loom::thread::ThreadId;

/// Where the fence stands that makes `SeqCst` accesses what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fences {
    /// Behind each `SeqCst` store and exchange.
    BehindStores,
    /// Before each `SeqCst` load and exchange.
    BeforeLoads,
}

/// What is done to a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is loaded.
    Load,
    /// It is stored.
    Store,
    /// It is changed by a read-modify-write.
    Update,
    /// No word: a fence.
    Fence,
}

/// One access, before it is done.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// What the file with the word is called; empty for words outside of all files, and for fences.
    pub file: &'static str,
    /// Where in the file the word is.
    pub offset: usize,
    /// What is done.
    pub kind: Kind,
    /// The ordering that the code asks for.
    pub ordering: Ordering,
}

/// How a model is run.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// See there.
    pub fences: Fences,
    /// The ordering that an access gets. A fence that gets `Relaxed` is left out.
    pub weaken: fn(Access) -> Ordering,
}

impl Settings {
    const PLAIN: Self = Self { fences: Fences::BehindStores, weaken: |access| access.ordering };
}

/// Somebody who is to be killed: the thread that it is, and the stores that it has left.
#[derive(Debug, Clone, Copy)]
struct Doomed {
    thread: ThreadId,
    stores_left: usize,
}

/// Waits in an execution, of all threads, up to which every order is explored.
pub const YIELDS_MAX: usize = 6;

thread_local! {
    static YIELDS: Cell<usize> = const { Cell::new(0) };
    // The threads of a model are coroutines of the one thread that runs it.
    static SETTINGS: Cell<Settings> = const { Cell::new(Settings::PLAIN) };
    static DOOMED: Cell<Option<Doomed>> = const { Cell::new(None) };
}

/// Runs a model with settings of its own.
pub fn with_settings<R>(settings: Settings, run: impl FnOnce() -> R) -> R {
    struct Restore;
    impl Drop for Restore {
        fn drop(&mut self) {
            SETTINGS.set(Settings::PLAIN);
            DOOMED.set(None);
        }
    }
    let _restore = Restore;
    SETTINGS.set(settings);
    run()
}

/// Every execution of a model begins with this.
pub fn begin_execution() {
    YIELDS.set(0);
}

/// Lets others run.
pub fn yield_now() {
    YIELDS.set(YIELDS.get() + 1);
    if YIELDS.get() > YIELDS_MAX {
        loom::skip_branch();
    }
    loom::thread::yield_now();
}

/// Runs what a process does until it has stored so many times, and kills it before it stores once more; `false` when it
/// ends by itself first. One at a time.
pub fn killed_after(stores: usize, process: impl FnOnce()) -> bool {
    DOOMED.set(Some(Doomed { thread: loom::thread::current().id(), stores_left: stores }));
    let result = catch_unwind(AssertUnwindSafe(process));
    DOOMED.set(None);
    match result {
        Ok(()) => false,
        Err(payload) if payload.is::<Killed>() => true,
        Err(payload) => resume_unwind(payload),
    }
}

struct Killed;

fn about_to_store() {
    let Some(doomed) = DOOMED.get().filter(|doomed| doomed.thread == loom::thread::current().id()) else {
        return;
    };
    match doomed.stores_left.checked_sub(1) {
        Some(stores_left) => DOOMED.set(Some(Doomed { stores_left, ..doomed })),
        None => resume_unwind(Box::new(Killed)),
    }
}

fn weakened(file: &'static str, offset: usize, kind: Kind, ordering: Ordering) -> Ordering {
    (SETTINGS.get().weaken)(Access { file, offset, kind, ordering })
}

fn fence_for(ordering: Ordering, place: Fences) {
    if ordering == Ordering::SeqCst && SETTINGS.get().fences == place {
        inner::fence(Ordering::SeqCst);
    }
}

/// What is left of an ordering without the order of all `SeqCst` operations.
fn for_load(ordering: Ordering) -> Ordering {
    if ordering == Ordering::SeqCst { Ordering::Acquire } else { ordering }
}

fn for_store(ordering: Ordering) -> Ordering {
    if ordering == Ordering::SeqCst { Ordering::Release } else { ordering }
}

fn for_update(ordering: Ordering) -> Ordering {
    if ordering == Ordering::SeqCst { Ordering::AcqRel } else { ordering }
}

/// A fence between threads.
pub fn fence(ordering: Ordering) {
    let ordering = weakened("", 0, Kind::Fence, ordering);
    if ordering != Ordering::Relaxed && !panicking() {
        inner::fence(ordering);
    }
}

macro_rules! atomic {
    ($name:ident, $value:ty) => {
        /// As the standard library has it; see the module's documentation.
        #[derive(Debug)]
        pub struct $name {
            inner: inner::$name,
            file: &'static str,
            offset: usize,
        }

        #[expect(missing_docs, reason = "these are the standard library's")]
        impl $name {
            pub fn new(value: $value) -> Self {
                Self::in_file(value, "", 0)
            }

            pub(super) fn in_file(value: $value, file: &'static str, offset: usize) -> Self {
                Self { inner: inner::$name::new(value), file, offset }
            }

            pub fn load(&self, ordering: Ordering) -> $value {
                // A model that has failed, or a process that was killed, is being torn down: nothing happens any more.
                if panicking() {
                    return 0;
                }
                let ordering = weakened(self.file, self.offset, Kind::Load, ordering);
                fence_for(ordering, Fences::BeforeLoads);
                self.inner.load(for_load(ordering))
            }

            pub fn store(&self, value: $value, ordering: Ordering) {
                if panicking() {
                    return;
                }
                about_to_store();
                let ordering = weakened(self.file, self.offset, Kind::Store, ordering);
                self.inner.store(value, for_store(ordering));
                fence_for(ordering, Fences::BehindStores);
            }

            pub fn swap(&self, value: $value, ordering: Ordering) -> $value {
                self.update(ordering, |ordering| self.inner.swap(value, ordering))
            }

            pub fn fetch_add(&self, value: $value, ordering: Ordering) -> $value {
                self.update(ordering, |ordering| self.inner.fetch_add(value, ordering))
            }

            pub fn fetch_sub(&self, value: $value, ordering: Ordering) -> $value {
                self.update(ordering, |ordering| self.inner.fetch_sub(value, ordering))
            }

            pub fn fetch_xor(&self, value: $value, ordering: Ordering) -> $value {
                self.update(ordering, |ordering| self.inner.fetch_xor(value, ordering))
            }

            pub fn compare_exchange(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                if panicking() {
                    return Ok(current);
                }
                about_to_store();
                let success = weakened(self.file, self.offset, Kind::Update, success);
                fence_for(success, Fences::BeforeLoads);
                let result =
                    self.inner.compare_exchange(current, new, for_update(success), for_load(failure));
                fence_for(success, Fences::BehindStores);
                result
            }

            pub fn compare_exchange_weak(
                &self,
                current: $value,
                new: $value,
                success: Ordering,
                failure: Ordering,
            ) -> Result<$value, $value> {
                self.compare_exchange(current, new, success, failure)
            }

            fn update(&self, ordering: Ordering, update: impl FnOnce(Ordering) -> $value) -> $value {
                if panicking() {
                    return 0;
                }
                about_to_store();
                let ordering = weakened(self.file, self.offset, Kind::Update, ordering);
                fence_for(ordering, Fences::BeforeLoads);
                let before = update(for_update(ordering));
                fence_for(ordering, Fences::BehindStores);
                before
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(0)
            }
        }
    };
}

atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
