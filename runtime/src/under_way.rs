//! The calls that have begun and are not answered: whether each was cancelled, how many items of its stream its caller
//! has taken, and the futures that wait for news of it.
//!
//! A process that runs one call at a time has one [`UnderWay`], which its [queue](crate::executor) uses for each call
//! in turn. An actor that may have several under way has one for each. There a thread [enters](enter) a call while it
//! runs the call or polls its future. Then a `get` or a call made by that thread knows which call it belongs to. A
//! thread that user code has started belongs to none.
//!
//! # Waiting for news
//!
//! The words are `Relaxed`: they publish no other memory. A thread or a future waits for a change of them, and another
//! thread makes the change. Each of the two takes two steps:
//!
//! | | it waits | it changes | ordered by |
//! |---|---|---|---|
//! | a future | registers its waker, then looks at the word | changes the word, then takes the wakers | `wakers` |
//! | a thread | notes the arrivals, then looks at the word | changes the word, then announces | [`Waiters`] |
//!
//! So either the one that waits sees the change, or it is woken. `shm/tests/loom/cancel.rs` and `stream.rs` explore
//! this file.
//!
//! [`Waiters`]: crate::mail::waiters::Waiters

use std::cell::Cell;
use std::sync::Arc;
use std::task::Waker;

use crate::sync::{AtomicBool, AtomicU64, Mutex, Ordering, thread_local};

thread_local! {
    static CURRENT: Cell<Option<Arc<UnderWay>>> = const { Cell::new(None) };
}

/// A call that has begun and is not answered. See the module's documentation.
#[derive(Debug)]
pub(crate) struct UnderWay {
    /// How many calls of the process had begun with it. The calls that it makes have this number as their parent.
    number: AtomicU64,
    is_cancelled: AtomicBool,
    /// Its answer may come from another thread than the one that runs it.
    may_be_later: AtomicBool,
    /// How many items of its stream it has sent, since [`set_items_sent`](Self::set_items_sent).
    items_sent: AtomicU64,
    /// How many items of its stream the caller has taken.
    items_taken: AtomicU64,
    /// Woken when it is cancelled, when its caller is gone, and when items are taken.
    wakers: Mutex<Vec<Waker>>,
    /// Whether there may be wakers. Written with the wakers locked.
    has_wakers: AtomicBool,
}

impl UnderWay {
    pub(crate) fn new(number: u64) -> Self {
        Self {
            number: AtomicU64::new(number),
            is_cancelled: AtomicBool::new(false),
            may_be_later: AtomicBool::new(false),
            items_sent: AtomicU64::new(0),
            items_taken: AtomicU64::new(0),
            wakers: Mutex::new(Vec::new()),
            has_wakers: AtomicBool::new(false),
        }
    }

    /// From now on, it is another call, of this number: no change for the last one counts any more. The queue is
    /// locked, so that no thread cancels a call or notes taken items meanwhile. Returns the wakers of the last call.
    /// Costs three stores and a load.
    pub(crate) fn restart(&self, number: u64) -> Vec<Waker> {
        self.number.store(number, Ordering::Relaxed);
        self.is_cancelled.store(false, Ordering::Relaxed);
        self.items_taken.store(0, Ordering::Relaxed);
        // A waker that another thread adds meanwhile, for the last call or for this one, may stay.
        if self.has_wakers.load(Ordering::Relaxed) { self.take_wakers() } else { Vec::new() }
    }

    pub(crate) fn number(&self) -> u64 {
        self.number.load(Ordering::Relaxed)
    }

    /// Whether the call was cancelled. Costs one load.
    pub(crate) fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }

    /// The wakers must be woken, and waiting threads told.
    #[must_use]
    pub(crate) fn cancel(&self) -> Vec<Waker> {
        self.is_cancelled.store(true, Ordering::Relaxed);
        self.take_wakers()
    }

    /// From now on, any thread may answer the call.
    pub(crate) fn set_may_be_later(&self) {
        self.may_be_later.store(true, Ordering::Relaxed);
    }

    /// Whether another thread than the one that runs the call may answer it.
    pub(crate) fn may_be_later(&self) -> bool {
        self.may_be_later.load(Ordering::Relaxed)
    }

    /// Notes the number of items that were sent. Costs one store.
    pub(crate) fn set_items_sent(&self, items: u64) {
        self.items_sent.store(items, Ordering::Relaxed);
    }

    /// How many items of its stream it has sent: of a call that makes one.
    pub(crate) fn items_sent(&self) -> u64 {
        self.items_sent.load(Ordering::Relaxed)
    }

    /// How many items of its stream the caller has taken. Costs one load.
    pub(crate) fn items_taken(&self) -> u64 {
        self.items_taken.load(Ordering::Relaxed)
    }

    /// Notes the number of items that the caller has taken. The wakers must be woken, and waiting threads told.
    #[must_use]
    pub(crate) fn set_items_taken(&self, items: u64) -> Vec<Waker> {
        // The records of two threads of the caller may come in the wrong order.
        self.items_taken.fetch_max(items, Ordering::Relaxed);
        self.take_wakers()
    }

    /// Registers a future, which is woken when the state of the call changes. The caller checks afterwards whether it
    /// has changed.
    pub(crate) fn wake_when_changed(&self, waker: &Waker) {
        let waker = waker.clone();
        let mut wakers = self.wakers.lock();
        if !wakers.iter().any(|other| other.will_wake(&waker)) {
            wakers.push(waker);
            self.has_wakers.store(true, Ordering::Relaxed);
        }
    }

    /// The wakers must be woken, with no lock held.
    #[must_use]
    pub(crate) fn take_wakers(&self) -> Vec<Waker> {
        let mut wakers = self.wakers.lock();
        self.has_wakers.store(false, Ordering::Relaxed);
        std::mem::take(&mut wakers)
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

// The models of `shm/tests/loom` include this file, and have threads of their own.
#[cfg(all(test, not(mobula_loom)))]
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
