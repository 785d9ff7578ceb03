//! A future that waits for results, as the results see it.

use std::sync::{Arc, OnceLock};
use std::task::Waker;
use std::time::{Duration, Instant};

use crate::sync::{AtomicUsize, Mutex, Ordering};

/// Wakes the task of an executor when a number of results are there.
#[derive(Debug)]
pub(crate) struct Waiter {
    /// How many results have still to come.
    left: AtomicUsize,
    /// A failure ends the wait.
    ends_on_failure: bool,
    waker: Mutex<Option<Waker>>,
    began: Instant,
    /// When the last result came.
    ended: OnceLock<Instant>,
}

impl Waiter {
    pub(crate) fn new(results: usize, ends_on_failure: bool) -> Arc<Self> {
        Arc::new(Self {
            left: AtomicUsize::new(results),
            ends_on_failure,
            waker: Mutex::new(None),
            began: Instant::now(),
            ended: OnceLock::new(),
        })
    }

    /// Replaces the task that will be woken. The caller checks afterwards whether the results are there.
    pub(crate) fn set_waker(&self, waker: &Waker) {
        let mut set = self.waker.lock();
        match &mut *set {
            Some(set) => set.clone_from(waker),
            None => *set = Some(waker.clone()),
        }
    }

    /// Whether all awaited results have come.
    pub(crate) fn has_ended(&self) -> bool {
        // More may come than are waited for, but not so many that the number wraps around to one of those.
        self.left.load(Ordering::Acquire).cast_signed() <= 0
    }

    /// Counts one result. Returns the waker if the wait is over. The caller wakes it while it holds no lock, because an
    /// executor may run the task at once.
    #[must_use = "a task waits to be woken"]
    pub(crate) fn one_is_ready(&self, has_failed: bool) -> Option<Waker> {
        let is_last = self.left.fetch_sub(1, Ordering::AcqRel) == 1;
        if !(is_last || has_failed && self.ends_on_failure) {
            return None;
        }
        let _ = self.ended.set(Instant::now());
        self.waker.lock().take()
    }

    /// The time until the results were there, or until now. The time of waking the task does not count.
    pub(crate) fn took(&self) -> Duration {
        self.ended.get().map_or_else(|| self.began.elapsed(), |ended| ended.duration_since(self.began))
    }
}
