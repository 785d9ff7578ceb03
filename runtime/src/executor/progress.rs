//! The progress of the calls of a process, and the state that other parts derive from it: whether the running call
//! waits, so that its CPUs are free; whether the process has no calls; whether it declines calls.
//!
//! The thread that runs calls, threads that begin to wait, and threads that handle the mail meet here. Each of them
//! changes a word and then reads the words of the others, always with `SeqCst`. So of two threads that do this at the
//! same time, at least one sees the change of the other, and tells the head.
//!
//! | word | changed by | looked at afterwards |
//! |---|---|---|
//! | `begun`, `over` | the thread that runs calls | `blocked`, `asked`, `waiting` |
//! | `waiting` | a thread that begins or ends a wait | `begun`, `over` |
//! | `blocked` | the thread that has `telling` locked | `waiting`, `begun`, `over`, until it is right |
//! | `asked` | the thread that handles the head's record | `begun`, `over` |
//! | `spent` | the thread that runs calls, or the mail's | the queue, which it empties |
//!
//! `blocked` and `spent` are set before the queue is emptied, and read while the queue is locked. So no call that may
//! be declined stays in the queue. This file knows no calls, no links and no messages. `shm/tests/loom/executor.rs`
//! explores it.

use crate::sync::{AtomicBool, AtomicU64, AtomicUsize, Mutex, Ordering};

/// See the module's documentation.
pub(crate) struct Progress {
    /// The number of calls that have begun, that are over, and that had begun when the background poller last looked.
    begun: AtomicU64,
    over: AtomicU64,
    begun_before: AtomicU64,
    /// The number of threads of this process that wait for results of other calls.
    waiting: AtomicUsize,
    /// Whether the head was told that the running call waits, so that its CPUs are free.
    blocked: AtomicBool,
    /// Locked while the head is told.
    telling: Mutex<()>,
    /// Whether the head wants to be told when no call is left here.
    asked: AtomicBool,
    /// Whether this process begins no more calls of functions.
    spent: AtomicBool,
}

impl Progress {
    pub(crate) fn new() -> Self {
        Self {
            begun: AtomicU64::new(0),
            over: AtomicU64::new(0),
            begun_before: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            blocked: AtomicBool::new(false),
            telling: Mutex::new(()),
            asked: AtomicBool::new(false),
            spent: AtomicBool::new(false),
        }
    }

    // ---- calls ----

    /// A call begins. The queue is locked.
    pub(crate) fn begin(&self) {
        // SeqCst: before the look at whether the background poller sleeps, and at what others wait for.
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    /// The call that has begun last is over.
    pub(crate) fn end(&self) {
        self.over.fetch_add(1, Ordering::SeqCst);
    }

    /// The number of calls that have begun.
    pub(crate) fn begun(&self) -> u64 {
        self.begun.load(Ordering::Acquire)
    }

    /// Whether a call runs.
    pub(crate) fn runs(&self) -> bool {
        // With this order of the loads, no running call is overlooked.
        let over = self.over.load(Ordering::SeqCst);
        self.begun.load(Ordering::SeqCst) != over
    }

    /// Whether a call runs, or has run since the last look of the background poller.
    pub(crate) fn is_active(&self) -> bool {
        let begun = self.begun.load(Ordering::SeqCst);
        begun != self.over.load(Ordering::SeqCst) || begun != self.begun_before.load(Ordering::Acquire)
    }

    /// For a look of the background poller. Returns whether calls have begun since its last look, and whether one runs.
    pub(crate) fn look(&self) -> (bool, bool) {
        let begun = self.begun.load(Ordering::Acquire);
        let runs = self.runs();
        (self.begun_before.swap(begun, Ordering::AcqRel) != begun, runs)
    }

    // ---- waits ----

    /// A thread begins to wait.
    pub(crate) fn begin_wait(&self) {
        // SeqCst, here and where it is looked at: of a call that begins and a wait that begins, one sees the other.
        self.waiting.fetch_add(1, Ordering::SeqCst);
    }

    /// A thread ends its wait.
    pub(crate) fn end_wait(&self) {
        self.waiting.fetch_sub(1, Ordering::SeqCst);
    }

    /// Reports whether the running call waits, after each change. Only one thread at a time calls `tell`. Its last call
    /// has the current state.
    pub(crate) fn tell_whether_blocked(&self, mut tell: impl FnMut(bool)) {
        let _telling = self.telling.lock();
        // Each thread that changes `blocked` checks afterwards whether it is still right.
        loop {
            let is_blocked = self.waiting.load(Ordering::SeqCst) > 0 && self.runs();
            if self.blocked.swap(is_blocked, Ordering::SeqCst) == is_blocked {
                return;
            }
            tell(is_blocked);
        }
    }

    /// Whether the head may have to be told that a call has begun or is over. Usually three loads.
    pub(crate) fn is_of_interest(&self) -> bool {
        let is_blocked = self.blocked.load(Ordering::SeqCst);
        let (is_asked, waits) = (self.is_asked(), self.waiting.load(Ordering::SeqCst) > 0);
        is_blocked || is_asked || waits
    }

    // ---- without calls ----

    /// The head wants to be told when no call is left.
    pub(crate) fn ask(&self) {
        self.asked.store(true, Ordering::SeqCst);
    }

    pub(crate) fn is_asked(&self) -> bool {
        // SeqCst: a call that ends meanwhile either is over when it is looked for, or sees that the head has asked.
        self.asked.load(Ordering::SeqCst)
    }

    /// Whether the head must be told now that no call runs. Returns `true` once for each question of the head. The
    /// queue is empty, and locked: a call is counted as begun when it is taken out.
    pub(crate) fn take_asked(&self) -> bool {
        !self.runs() && self.asked.swap(false, Ordering::SeqCst)
    }

    // ---- declining ----

    /// From now on no call of a function begins. Returns the state before. The caller then empties the queue.
    pub(crate) fn set_spent(&self) -> bool {
        self.spent.swap(true, Ordering::AcqRel)
    }

    /// Whether calls that may run elsewhere are declined. The queue is locked.
    pub(crate) fn declines(&self) -> bool {
        self.blocked.load(Ordering::Acquire) || self.spent.load(Ordering::Acquire)
    }
}
