//! Processes that fail to start: after some failures in a row, no more processes of that environment are started.

use std::collections::HashMap;

use crate::environment::Environment;
use crate::error::ExitReason;

/// The number of failures in a row after which no more processes are started.
const FAILURES_MAX: u32 = 3;
/// This number for processes that are killed from outside before they serve. Such a death says little about the
/// next process; but when memory is short, every start fails.
const KILLS_MAX: u32 = 100;

/// The recent failures of each environment that has some.
#[derive(Debug, Default)]
pub(super) struct StartFailures(HashMap<Environment, Counts>);

/// Failures in a row.
#[derive(Debug, Default)]
struct Counts {
    failures: u32,
    /// The processes that were killed from outside.
    kills: u32,
}

impl StartFailures {
    /// A process of this environment serves.
    pub(super) fn one_came_up(&mut self, environment: &Environment) {
        self.0.remove(environment);
    }

    /// A process of this environment has ended before it could serve.
    pub(super) fn one_did_not_come_up(&mut self, environment: &Environment, reason: ExitReason) {
        let counts = self.0.entry(environment.clone()).or_default();
        if reason == (ExitReason::Killed { signal: libc::SIGKILL }) {
            counts.kills += 1;
            if counts.kills >= KILLS_MAX {
                counts.failures = FAILURES_MAX;
            }
        } else {
            counts.failures += 1;
        }
    }

    /// The system has refused to start a process of this environment.
    pub(super) fn one_was_not_started(&mut self, environment: &Environment) {
        self.0.entry(environment.clone()).or_default().failures += 1;
    }

    /// Processes of this environment can never serve.
    pub(super) fn give_up(&mut self, environment: Environment) {
        self.0.entry(environment).or_default().failures = FAILURES_MAX;
    }

    /// Whether no more processes of this environment are started.
    pub(super) fn are_too_many(&self, environment: &Environment) -> bool {
        self.0.get(environment).is_some_and(|counts| counts.failures >= FAILURES_MAX)
    }

    /// Allows to start processes of every environment again.
    pub(super) fn try_again(&mut self) {
        self.0.retain(|_, counts| counts.failures < FAILURES_MAX);
    }

    /// Allows one more process of each of these environments. If its start fails too, no more are started.
    pub(super) fn try_once_more(&mut self, is_meant: impl Fn(&Environment) -> bool) {
        let too_many = self.0.iter_mut().filter(|(_, counts)| counts.failures >= FAILURES_MAX);
        too_many.filter(|(environment, _)| is_meant(environment)).for_each(|(_, counts)| {
            counts.failures = FAILURES_MAX - 1;
        });
    }
}
