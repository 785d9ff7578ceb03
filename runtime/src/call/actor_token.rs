//! What a handle to an actor holds: the token that keeps the actor alive, and the calls that count for its limit.

use std::collections::VecDeque;
use std::fmt;
use std::sync::{Arc, Weak};

use mobula_client::Handle;
use parking_lot::Mutex;

use crate::call::result_cell::ResultCell;

/// See the module's documentation. The clones of a handle share one.
#[derive(Debug)]
pub(crate) struct ActorToken {
    pub(crate) handle: Handle,
    /// `None`: any number of calls may be pending.
    pub(crate) limit: Option<PendingCalls>,
}

impl ActorToken {
    /// With 0 any number of calls may be pending.
    pub(crate) fn new(handle: Handle, max_pending_calls: u32) -> Arc<Self> {
        let limit = (max_pending_calls > 0).then(|| PendingCalls::new(max_pending_calls));
        Arc::new(Self { handle, limit })
    }

    /// How many calls may be pending; 0: any number.
    pub(crate) fn max_pending_calls(&self) -> u32 {
        self.limit.as_ref().map_or(0, |limit| limit.max)
    }
}

/// The calls of a handle whose results are not there, of which there may be so many.
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
    fn new(max: u32) -> Self {
        Self { max, calls: Mutex::default() }
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
