//! The time limits of a call: those that its options give, and those of the call that was made.

use std::time::{Duration, Instant};

use parking_lot::Mutex;

use crate::error::{Failure, TimeLimit};

/// The limits in the options of a call.
#[derive(Debug, Clone, Default)]
pub(crate) struct LimitOptions {
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadline: Option<Deadline>,
}

/// When a call must be over, as its options give it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Deadline {
    /// This long after the call is made.
    After(Duration),
    At(Instant),
}

impl LimitOptions {
    /// Whether one is set.
    pub(crate) fn is_any(&self) -> bool {
        self.timeout.is_some() || self.deadline.is_some()
    }

    /// These, with `defaults` for those that are not set.
    pub(crate) fn or(self, defaults: Self) -> Self {
        Self { timeout: self.timeout.or(defaults.timeout), deadline: self.deadline.or(defaults.deadline) }
    }
}

/// The limits of a call that was made.
#[derive(Debug)]
pub(crate) struct CallLimits {
    made: Instant,
    pub(crate) timeout: Option<Duration>,
    pub(crate) deadline: Option<Instant>,
    /// When the attempt that runs must be over, if it has begun and there is a timeout.
    attempt: Mutex<Option<Instant>>,
}

impl CallLimits {
    /// The limits of a call that is made now. A limit too far in the future for the clock is ignored.
    pub(crate) fn new(options: &LimitOptions) -> Self {
        let made = Instant::now();
        let deadline = options.deadline.and_then(|deadline| match deadline {
            Deadline::After(time) => made.checked_add(time),
            Deadline::At(instant) => Some(instant),
        });
        Self { made, timeout: options.timeout, deadline, attempt: Mutex::new(None) }
    }

    /// The call begins to run. Returns when this attempt must be over.
    pub(crate) fn attempt_begins(&self, now: Instant) -> Option<Instant> {
        let due = now.checked_add(self.timeout?);
        *self.attempt.lock() = due;
        due
    }

    /// The attempt is over, and another one follows.
    pub(crate) fn attempt_over(&self) {
        *self.attempt.lock() = None;
    }

    /// Whether the running attempt must be over at this time.
    pub(crate) fn is_attempt_due(&self, due: Instant) -> bool {
        *self.attempt.lock() == Some(due)
    }

    /// The failure of the call after it has reached a limit.
    pub(crate) fn failure(&self, function: String, limit: TimeLimit) -> Failure {
        let after = match limit {
            TimeLimit::Timeout => self.timeout.unwrap_or_default(),
            TimeLimit::Deadline => {
                self.deadline.map_or(Duration::ZERO, |deadline| deadline.saturating_duration_since(self.made))
            }
        };
        Failure::TaskTimedOut { function, limit, after }
    }
}
