//! Calls that failed, and that are retried after a while or wait for the decision of the program's `retry_if`.
//!
//! No record arrives when a retry is due, so the background poller sleeps at most until the next one is due.

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::call::task::Task;
use crate::error::Failure;

/// The longest time before a retry, unless the first one takes longer.
const DELAY_MAX: Duration = Duration::from_secs(60);

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Delayed {
    /// The calls that are retried later, by the times at which they are due, and their numbers.
    calls: BTreeMap<(Instant, u64), Arc<Task>>,
    /// The calls for which the program decides, by their numbers.
    undecided: BTreeMap<u64, Undecided>,
}

/// A call that failed, and is retried if the program says so.
struct Undecided {
    task: Arc<Task>,
    failure: Failure,
    /// A thread asks the program.
    is_asked: bool,
}

impl Delayed {
    pub(super) fn add(&mut self, task: Arc<Task>, due: Instant) {
        self.calls.insert((due, task.id), task);
    }

    /// When the next one is due.
    pub(super) fn first(&self) -> Option<Instant> {
        self.calls.first_key_value().map(|((due, _), _)| *due)
    }

    /// Removes and returns those that are due.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Arc<Task>> {
        let later = self.calls.split_off(&(now, u64::MAX));
        std::mem::replace(&mut self.calls, later).into_values().collect()
    }

    /// Adds a failed call for which the program decides whether it is retried.
    pub(super) fn add_undecided(&mut self, task: Arc<Task>, failure: Failure) {
        self.undecided.insert(task.id, Undecided { task, failure, is_asked: false });
    }

    /// The next call for which this thread asks the program. The call stays in the map, so that a thread that cancels
    /// it finds it.
    pub(super) fn next_undecided(&mut self) -> Option<(Arc<Task>, Failure)> {
        let next = self.undecided.values_mut().find(|undecided| !undecided.is_asked)?;
        next.is_asked = true;
        Some((next.task.clone(), next.failure.clone()))
    }

    /// The program has been asked. Returns whether the call is still there.
    pub(super) fn decided(&mut self, task: u64) -> bool {
        self.undecided.remove(&task).is_some()
    }

    /// Whether such a call is there.
    pub(super) fn any(&self, is_chosen: &dyn Fn(&Task) -> bool) -> bool {
        let undecided = self.undecided.values().map(|undecided| &undecided.task);
        self.calls.values().chain(undecided).any(|task| is_chosen(task))
    }

    /// Removes and returns those that are chosen.
    pub(super) fn take_if(&mut self, is_chosen: &dyn Fn(&Task) -> bool) -> Vec<Arc<Task>> {
        let delayed = self.calls.extract_if(.., |_, task| is_chosen(task)).map(|(_, task)| task);
        let undecided = self.undecided.extract_if(.., |_, undecided| is_chosen(&undecided.task));
        delayed.chain(undecided.map(|(_, undecided)| undecided.task)).collect()
    }

    /// Removes and returns all: the session is over.
    pub(super) fn take_all(&mut self) -> Vec<Arc<Task>> {
        let undecided = std::mem::take(&mut self.undecided).into_values().map(|undecided| undecided.task);
        std::mem::take(&mut self.calls).into_values().chain(undecided).collect()
    }
}

/// The time before the retry of this number, from 1 on. It doubles with each retry, up to [`DELAY_MAX`]. A random time
/// between half of that and all of it is used, so that calls that failed together are not retried together.
pub(super) fn delay(first: Duration, retry: u32) -> Duration {
    let doubled = first.saturating_mul(1u32.checked_shl(retry.saturating_sub(1)).unwrap_or(u32::MAX));
    let longest = doubled.min(DELAY_MAX.max(first));
    let random = std::collections::hash_map::RandomState::new().hash_one(retry) % 1000;
    longest / 2 + longest.mul_f64(random as f64 / 2000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_before_a_retry_doubles_up_to_a_limit_and_is_random() {
        let first = Duration::from_millis(100);
        for (retry, longest) in [(1, 100), (2, 200), (5, 1600), (10, 51_200), (11, 60_000), (40, 60_000)] {
            let longest = Duration::from_millis(longest);
            let delays: Vec<_> = (0..50).map(|_| delay(first, retry)).collect();
            assert!(delays.iter().all(|delay| (longest / 2..longest).contains(delay)), "{delays:?}");
            assert!(delays.iter().any(|delay| *delay != delays[0]), "{delays:?}");
        }
        assert!(delay(Duration::from_secs(300), 3) >= Duration::from_secs(150));
        assert_eq!(delay(Duration::ZERO, 7), Duration::ZERO);
        let _ = delay(Duration::MAX, u32::MAX);
    }
}
