//! Processes that do not come up: after a few of them in a row, no more processes of their environment are started.

use std::collections::HashMap;

use crate::environment::Environment;
use crate::error::ExitReason;

/// After so many processes in a row that do not come up, no more are started.
const FAILURES_MAX: u32 = 3;
/// The same for processes that are killed from outside before they come up. Such a death says little about the next
/// process; but where memory is short, none comes up.
const KILLS_MAX: u32 = 100;

/// The processes that did not come up lately, for each environment that has some.
#[derive(Debug, Default)]
pub(super) struct StartFailures(HashMap<Environment, Counts>);

/// Processes in a row that did not come up.
#[derive(Debug, Default)]
struct Counts {
    failures: u32,
    /// Those that were killed from outside.
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

    /// No process of this environment can serve.
    pub(super) fn give_up(&mut self, environment: Environment) {
        self.0.entry(environment).or_default().failures = FAILURES_MAX;
    }

    /// Whether no more processes of this environment are started.
    pub(super) fn are_too_many(&self, environment: &Environment) -> bool {
        self.0.get(environment).is_some_and(|counts| counts.failures >= FAILURES_MAX)
    }

    /// There is a reason to start processes again of each environment.
    pub(super) fn try_again(&mut self) {
        self.0.retain(|_, counts| counts.failures < FAILURES_MAX);
    }

    /// Of these environments one more process may be started. If that fails too, no more are.
    pub(super) fn try_once_more(&mut self, is_meant: impl Fn(&Environment) -> bool) {
        let too_many = self.0.iter_mut().filter(|(_, counts)| counts.failures >= FAILURES_MAX);
        too_many.filter(|(environment, _)| is_meant(environment)).for_each(|(_, counts)| {
            counts.failures = FAILURES_MAX - 1;
        });
    }
}
