//! The pending calls of a handle to an actor, which may be limited.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::call::result_cell::ResultCell;

/// The number of calls of a handle whose results are not there yet, and its limit. The clones of a handle share one.
///
/// A call leaves when its result is ready, so that a program that has its result finds room for the next call. The
/// cells say that by themselves: nothing is counted when a result comes.
pub(crate) struct PendingCalls {
    max: u32,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Calls {
    /// The first result of each call, in the order in which they were made.
    results: VecDeque<Weak<ResultCell>>,
    /// Calls that are being made.
    begun: usize,
}

impl PendingCalls {
    /// `None` for 0, which is no limit.
    pub(crate) fn at_most(max: u32) -> Option<Arc<Self>> {
        (max > 0).then(|| Arc::new(Self { max, calls: Mutex::default() }))
    }

    /// The most calls that may be pending.
    pub(crate) fn max(&self) -> u32 {
        self.max
    }

    /// Takes a place for a call, which [`made`](Self::made) follows.
    ///
    /// # Errors
    /// The limit, if so many calls are pending.
    pub(crate) fn begin(&self) -> Result<(), u32> {
        let mut calls = self.calls.lock();
        while calls.results.front().is_some_and(|result| !is_pending(result)) {
            calls.results.pop_front();
        }
        if calls.results.len() + calls.begun >= self.max as usize {
            calls.results.retain(is_pending);
        }
        if calls.results.len() + calls.begun >= self.max as usize {
            return Err(self.max);
        }
        calls.begun += 1;
        Ok(())
    }

    /// The call is made; this is its first result.
    pub(crate) fn made(&self, result: Option<&Arc<ResultCell>>) {
        let mut calls = self.calls.lock();
        calls.begun -= 1;
        calls.results.extend(result.map(Arc::downgrade));
    }

    /// Whether there is room for one more call, at the moment.
    ///
    /// # Errors
    /// The limit.
    pub(crate) fn check(&self) -> Result<(), u32> {
        self.begin()?;
        self.made(None);
        Ok(())
    }
}

fn is_pending(result: &Weak<ResultCell>) -> bool {
    result.upgrade().is_some_and(|result| !result.is_ready())
}

impl fmt::Debug for PendingCalls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PendingCalls").field("max", &self.max).finish()
    }
}
