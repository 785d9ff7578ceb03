//! The calls of an actor that may have several of them under way: the state of each, on any thread that runs it.
//!
//! A process that runs one call at a time has this state once, in its [executor](crate::executor). Here a thread
//! [enters](enter) a call while it runs the call or polls its future. Then a `get` or a call made by that thread knows
//! which call it belongs to. A thread that user code has started belongs to none.

use std::cell::Cell;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::Waker;

use parking_lot::Mutex;

thread_local! {
    static CURRENT: Cell<Option<Arc<UnderWay>>> = const { Cell::new(None) };
}

/// A call that has begun and is not answered.
#[derive(Debug, Default)]
pub(crate) struct UnderWay {
    /// Its number, as [`Executor::call_number`](crate::executor::Executor::call_number) counts. The calls that it makes
    /// have it as their parent.
    number: u64,
    is_cancelled: AtomicBool,
    /// How many items of its stream the caller has taken.
    items_taken: AtomicU64,
    /// Woken when it is cancelled, when its caller is gone, and when items are taken.
    wakers: Mutex<Vec<Waker>>,
}

impl UnderWay {
    pub(crate) fn new(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number
    }

    /// Whether the call was cancelled. One load.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::SeqCst)
    }

    /// The wakers must be woken.
    #[must_use]
    pub(crate) fn cancel(&self) -> Vec<Waker> {
        self.is_cancelled.store(true, Ordering::SeqCst);
        self.take_wakers()
    }

    /// How many items of its stream the caller has taken. One load.
    pub(crate) fn items_taken(&self) -> u64 {
        self.items_taken.load(Ordering::SeqCst)
    }

    /// Notes the number of items that the caller has taken. The wakers must be woken.
    #[must_use]
    pub(crate) fn set_items_taken(&self, items: u64) -> Vec<Waker> {
        self.items_taken.fetch_max(items, Ordering::SeqCst);
        self.take_wakers()
    }

    /// Registers a future, which is woken when the state of the call changes. The caller checks afterwards whether it
    /// has changed.
    pub(crate) fn wake_when_changed(&self, waker: &Waker) {
        let waker = waker.clone();
        let mut wakers = self.wakers.lock();
        if !wakers.iter().any(|other| other.will_wake(&waker)) {
            wakers.push(waker);
        }
    }

    /// The wakers must be woken, with no lock held.
    #[must_use]
    pub(crate) fn take_wakers(&self) -> Vec<Waker> {
        std::mem::take(&mut self.wakers.lock())
    }
}

/// From now on this thread runs the call, until the guard is dropped.
pub(crate) fn enter(call: Arc<UnderWay>) -> Entered {
    Entered { before: CURRENT.try_with(|current| current.replace(Some(call))).ok().flatten() }
}

/// See [`enter`].
pub(crate) struct Entered {
    before: Option<Arc<UnderWay>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        let _ = CURRENT.try_with(|current| current.set(self.before.take()));
    }
}

/// Asks the call that this thread runs, if it runs one.
pub(crate) fn with_current<T>(ask: impl FnOnce(&UnderWay) -> T) -> Option<T> {
    CURRENT
        .try_with(|current| {
            let call = current.take()?;
            let answer = ask(&call);
            current.set(Some(call));
            Some(answer)
        })
        .ok()
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_thread_runs_the_call_that_it_entered_last() {
        let number = || with_current(UnderWay::number);
        assert_eq!(number(), None);
        let outer = enter(Arc::new(UnderWay::new(1)));
        let inner = enter(Arc::new(UnderWay::new(2)));
        assert_eq!(number(), Some(2));
        assert_eq!(std::thread::scope(|scope| scope.spawn(number).join().unwrap()), None);
        drop(inner);
        assert_eq!(number(), Some(1));
        drop(outer);
        assert_eq!(number(), None);
    }
}
