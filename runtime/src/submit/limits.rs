//! The times at which calls reach their limits.
//!
//! A call that is over leaves its times here, as no more than a few words. They go when their time comes, or when there
//! are many more of them than calls with limits.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Instant;

use rustc_hash::FxHashMap;

use crate::call::task::Task;
use crate::error::TimeLimit;

/// So many times are kept whatever the number of calls.
const TIMES_MIN: usize = 64;

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Limits {
    times: BTreeMap<(Instant, u64, TimeLimit), Weak<Task>>,
}

impl Limits {
    /// A call reaches a limit at this time, unless it is over by then. At most `limited` calls with limits are there.
    pub(super) fn add(&mut self, due: Instant, task: &Arc<Task>, limit: TimeLimit, limited: usize) {
        // A call has two times at most, and one more for each retry.
        if self.times.len() >= TIMES_MIN.max(4 * limited) {
            self.times.retain(|_, task| task.upgrade().is_some_and(|task| !task.is_over()));
        }
        self.times.insert((due, task.id, limit), Arc::downgrade(task));
    }

    /// The next time.
    pub(super) fn first(&self) -> Option<Instant> {
        self.times.first_key_value().map(|((due, ..), _)| *due)
    }

    /// Removes the times that have come. Returns the limits that calls have reached, by the numbers of the calls.
    pub(super) fn take_due(&mut self, now: Instant) -> FxHashMap<u64, TimeLimit> {
        let mut reached = FxHashMap::default();
        while let Some(first) = self.times.first_entry().filter(|first| first.key().0 <= now) {
            let ((due, id, limit), task) = first.remove_entry();
            let Some(task) = task.upgrade().filter(|task| !task.is_over()) else { continue };
            let is_reached = match (limit, task.limits()) {
                (TimeLimit::Timeout, Some(limits)) => limits.is_attempt_due(due),
                _ => true,
            };
            if is_reached {
                reached.insert(id, limit);
            }
        }
        reached
    }
}
