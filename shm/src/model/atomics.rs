//! Atomics and fences as loom has them, with three additions.
//!
//! # `SeqCst` accesses
//!
//! loom knows the one order of all `SeqCst` *fences*, but treats a `SeqCst` access only as an acquiring or releasing
//! one. Words in [files](super::File) have no such access, because the code cannot have them where it [loads from
//! memory mapped read-only](crate::mapping): each handshake there is a store, a fence and a relaxed load on both sides,
//! and an access that asks for `SeqCst` fails the model. A word of one process may have them. The model then does what
//! a processor without such accesses does: a fence, followed by the acquiring or releasing access
//! (<https://www.cl.cam.ac.uk/~pes20/cpp/cpp0xmappings.html>, "leading sync"). A weaker access to the same word gets no
//! fence, as on that processor.
//!
//! # Weakening
//!
//! [`Settings::weaken`] is asked for the ordering of every access, which it knows by its file, its offset and its kind.
//! A fence has the file and the offset of the word that its thread has accessed last: the fence stands behind that
//! store or load. So a test can plant a mistake into code of which it has no copy.
//!
//! # Waiting
//!
//! A thread that waits for another one looks repeatedly, and every look is a branch: the number of executions in which
//! only waiting threads run would be infinite. So an execution is explored up to its first [`YIELDS_MAX`] waits, and
//! from there on ends in the one order in which every thread runs.
//!
//! # Killing
//!
//! [`killed_after`] runs code up to its *n*-th store. Neither that store nor anything after it is done: a process that
//! is killed there leaves the memory in this state.

use std::cell::{Cell, RefCell};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::atomic::Ordering;
use std::thread::panicking;

use loom::sync::atomic as inner;
use loom::thread::ThreadId;

/// An operation on a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// It is loaded.
    Load,
    /// It is stored.
    Store,
    /// It is changed by a read-modify-write.
    Update,
    /// It was accessed, and a fence follows.
    Fence,
}

/// One access, before it is done.
#[derive(Debug, Clone, Copy)]
pub struct Access {
    /// Name of the file with the word; empty for words outside of all files. For a fence: of the word that its
    /// thread has accessed last.
    pub file: &'static str,
    /// Where in the file the word is.
    pub offset: usize,
    /// The operation.
    pub kind: Kind,
    /// The ordering that the code asks for.
    pub ordering: Ordering,
}

/// The settings of a model.
#[derive(Debug, Clone, Copy)]
pub struct Settings {
    /// The ordering that an access gets. A fence that gets `Relaxed` is left out.
    pub weaken: fn(Access) -> Ordering,
}

impl Settings {
    const PLAIN: Self = Self { weaken: |access| access.ordering };
}

/// A process that is to be killed: its thread, and the stores that it has left.
#[derive(Debug, Clone, Copy)]
struct Doomed {
    thread: ThreadId,
    stores_left: usize,
}

/// Every order is explored up to this number of waits of all threads in an execution.
pub const YIELDS_MAX: usize = 6;

thread_local! {
    static YIELDS: Cell<usize> = const { Cell::new(0) };
    // The threads of a model are coroutines of the one thread that runs it.
    static SETTINGS: Cell<Settings> = const { Cell::new(Settings::PLAIN) };
    static DOOMED: Cell<Option<Doomed>> = const { Cell::new(None) };
    /// File and offset of the word that each thread of the execution has accessed last.
    static LAST: RefCell<Vec<(ThreadId, &'static str, usize)>> = const { RefCell::new(Vec::new()) };
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
    LAST.with_borrow_mut(Vec::clear);
}

/// Lets others run.
pub fn yield_now() {
    YIELDS.set(YIELDS.get() + 1);
    if YIELDS.get() > YIELDS_MAX {
        loom::skip_branch();
    }
    loom::thread::yield_now();
}

/// Runs a process until it has made this many stores, and kills it before the next one; `false` when it ends by itself
/// first. One at a time.
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
    assert!(
        ordering != Ordering::SeqCst || file.is_empty(),
        "an access that asks for the order of fences: {kind:?} at {offset} of {file}"
    );
    let thread = loom::thread::current().id();
    LAST.with_borrow_mut(|all| match all.iter_mut().find(|last| last.0 == thread) {
        Some(last) => (last.1, last.2) = (file, offset),
        None => all.push((thread, file, offset)),
    });
    let ordering = (SETTINGS.get().weaken)(Access { file, offset, kind, ordering });
    if ordering != Ordering::SeqCst {
        return ordering;
    }
    inner::fence(Ordering::SeqCst);
    match kind {
        Kind::Load => Ordering::Acquire,
        Kind::Store => Ordering::Release,
        Kind::Update | Kind::Fence => Ordering::AcqRel,
    }
}

/// A fence between threads.
pub fn fence(ordering: Ordering) {
    let thread = loom::thread::current().id();
    let last = LAST.with_borrow(|all| all.iter().find(|last| last.0 == thread).copied());
    let (file, offset) = last.map_or(("", 0), |(_, file, offset)| (file, offset));
    let ordering = (SETTINGS.get().weaken)(Access { file, offset, kind: Kind::Fence, ordering });
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

            #[allow(dead_code, reason = "files have words of two sizes")]
            pub(super) fn in_file(value: $value, file: &'static str, offset: usize) -> Self {
                Self { inner: inner::$name::new(value), file, offset }
            }

            pub fn load(&self, ordering: Ordering) -> $value {
                // A model that has failed, or a process that was killed, is being torn down: nothing happens any more.
                if panicking() {
                    return 0;
                }
                self.inner.load(weakened(self.file, self.offset, Kind::Load, ordering))
            }

            pub fn store(&self, value: $value, ordering: Ordering) {
                if panicking() {
                    return;
                }
                about_to_store();
                self.inner.store(value, weakened(self.file, self.offset, Kind::Store, ordering));
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

            pub fn fetch_max(&self, value: $value, ordering: Ordering) -> $value {
                self.update(ordering, |ordering| self.inner.fetch_max(value, ordering))
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
                self.inner.compare_exchange(current, new, success, failure)
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
                update(weakened(self.file, self.offset, Kind::Update, ordering))
            }
        }

        impl Default for $name {
            fn default() -> Self {
                Self::new(0)
            }
        }
    };
}

atomic!(AtomicU8, u8);
atomic!(AtomicU32, u32);
atomic!(AtomicU64, u64);
atomic!(AtomicUsize, usize);

/// As the standard library has it; see the module's documentation.
#[derive(Debug, Default)]
pub struct AtomicBool(AtomicU8);

#[expect(missing_docs, reason = "these are the standard library's")]
impl AtomicBool {
    pub fn new(value: bool) -> Self {
        Self(AtomicU8::new(value.into()))
    }

    pub fn load(&self, ordering: Ordering) -> bool {
        self.0.load(ordering) != 0
    }

    pub fn store(&self, value: bool, ordering: Ordering) {
        self.0.store(value.into(), ordering);
    }

    pub fn swap(&self, value: bool, ordering: Ordering) -> bool {
        self.0.swap(value.into(), ordering) != 0
    }
}
