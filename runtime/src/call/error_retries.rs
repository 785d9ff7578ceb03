//! Retries of a call because of its errors. Their number, which they share with retries because a process died, is
//! elsewhere: a function's options have it, and for a method its own options or its actor.

use std::time::Duration;

use crate::error::TaskError;

/// The longest time before the first retry. The clock has all times up to there.
const FIRST_DELAY_MAX: Duration = Duration::from_secs(50 * 24 * 3600);

/// The options of a call about retries because of errors.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct ErrorRetryOptions {
    pub(crate) retry_exceptions: Option<bool>,
    pub(crate) retry_if: Option<fn(&TaskError) -> bool>,
    pub(crate) retry_delay: Option<Duration>,
}

impl ErrorRetryOptions {
    /// Whether one is set.
    pub(crate) fn is_any(&self) -> bool {
        self.retry_exceptions.is_some() || self.retry_if.is_some() || self.retry_delay.is_some()
    }

    /// These, with `defaults` for those that are not set.
    pub(crate) fn or(self, defaults: Self) -> Self {
        Self {
            retry_exceptions: self.retry_exceptions.or(defaults.retry_exceptions),
            retry_if: self.retry_if.or(defaults.retry_if),
            retry_delay: self.retry_delay.or(defaults.retry_delay),
        }
    }

    /// Whether errors are retried.
    pub(crate) fn is_wanted(&self) -> bool {
        self.retry_exceptions.unwrap_or(self.retry_if.is_some())
    }

    /// The retries of a call with these options; `None`: errors are not retried.
    pub(crate) fn retries(self) -> Option<ErrorRetries> {
        self.is_wanted().then(|| ErrorRetries {
            first_delay: self.retry_delay.unwrap_or_default().min(FIRST_DELAY_MAX),
            is_retried: self.retry_if,
        })
    }
}

/// The retries of a call that was made.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ErrorRetries {
    /// The time before the first retry.
    pub(crate) first_delay: Duration,
    /// Says which errors are retried; `None`: all.
    pub(crate) is_retried: Option<fn(&TaskError) -> bool>,
}
