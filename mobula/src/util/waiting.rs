//! Calls of this module's actors that may wait there for a long time. Each has a number, by which its caller can give
//! it up.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use mobula_runtime::{Error, Result};
use serde::de::DeserializeOwned;

use crate::object_ref::ObjectRef;

/// The number of a call, which is unique in this process.
pub(super) fn next_number() -> u64 {
    static NUMBERS: AtomicU64 = AtomicU64::new(0);
    NUMBERS.fetch_add(1, Ordering::Relaxed)
}

/// A call that is under way. If it is dropped before its answer is there, it gives the call up by another call of the
/// actor, which is not waited for.
pub(super) struct PendingCall<A, F: FnOnce()> {
    answer: ObjectRef<A>,
    /// `Some` until the answer is there.
    give_up: Option<F>,
}

impl<A: DeserializeOwned, F: FnOnce()> PendingCall<A, F> {
    pub(super) fn new(answer: ObjectRef<A>, give_up: F) -> Self {
        Self { answer, give_up: Some(give_up) }
    }

    /// Waits for the answer; `None` after the timeout.
    pub(super) fn wait(&mut self, timeout: Option<Duration>) -> Result<Option<A>> {
        let answer = match timeout {
            None => self.answer.get(),
            Some(timeout) => self.answer.get_timeout(timeout),
        };
        self.over(answer)
    }

    /// Waits for the answer.
    pub(super) async fn wait_async(&mut self) -> Result<Option<A>> {
        let answer = self.answer.get_async().await;
        self.over(answer)
    }

    /// The actor must answer at once.
    pub(super) fn give_up(&mut self) {
        if let Some(give_up) = self.give_up.take() {
            give_up();
        }
    }

    fn over(&mut self, answer: Result<A>) -> Result<Option<A>> {
        match answer {
            Err(Error::Timeout { .. }) => Ok(None),
            Err(error) => Err(error),
            Ok(answer) => {
                self.give_up = None;
                Ok(Some(answer))
            }
        }
    }
}

impl<A, F: FnOnce()> Drop for PendingCall<A, F> {
    fn drop(&mut self) {
        if let Some(give_up) = self.give_up.take() {
            give_up();
        }
    }
}

/// Removes and returns the chosen elements.
pub(super) fn extract<T>(from: &mut VecDeque<T>, is_chosen: impl Fn(&T) -> bool) -> VecDeque<T> {
    if !from.iter().any(&is_chosen) {
        return VecDeque::new();
    }
    let (chosen, left) = std::mem::take(from).into_iter().partition(is_chosen);
    *from = left;
    chosen
}
