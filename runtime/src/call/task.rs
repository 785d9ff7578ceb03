//! A task: a call that was made, with its arguments, the cells of its results, and the number of times it was sent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, AtomicUsize, Ordering};
use std::time::Duration;

use mobula_client::Handle;
use smallvec::SmallVec;

use crate::call::arguments::TaskArguments;
use crate::call::error_retries::ErrorRetries;
use crate::call::items::Items;
use crate::call::limits::CallLimits;
use crate::call::options::is_within;
use crate::call::result_cell::ResultCell;
use crate::call::watched::Watched;
use crate::definition::{Key, Name};
use crate::demand::Demand;
use crate::error::{Failure, TimeLimit};
use crate::wire::{CallContext, Returns};

/// The function, method or constructor that a task runs.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    /// A function, which any worker of the session can run.
    Function { key: Key, name: Name },
    /// A method of an actor.
    Method {
        actor: u64,
        method: u32,
        class: Name,
        name: Name,
        /// Keeps the actor alive until the call is over.
        #[expect(dead_code, reason = "held, not read")]
        token: Arc<Handle>,
        /// It waits for earlier calls of this process whose arguments are not there.
        is_in_order: bool,
    },
    /// The start of an actor. The arguments go to the head.
    Constructor { actor: u64, class: Name },
}

impl Target {
    /// The name in errors and output.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Function { name, .. } => name.to_string(),
            Self::Method { class, name, .. } => format!("{class}::{name}"),
            Self::Constructor { class, .. } => format!("{class}::new"),
        }
    }

    /// The failure of this call, if its actor is over because of `failure`.
    pub(crate) fn failure_of_actor(&self, pid: u32, failure: &Failure) -> Failure {
        let Self::Method { class, name, .. } = self else { return failure.clone() };
        let Failure::ActorDied { cause, .. } = failure else { return failure.clone() };
        Failure::ActorDied { class: class.to_string(), method: name.to_string(), pid, cause: *cause }
    }
}

/// The cells of a call's results; nearly always one.
pub(crate) type ResultCells = SmallVec<[Arc<ResultCell>; 1]>;

/// A call that was made.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: u64,
    /// The call of this process that made this one, as the number of calls that had begun here. Always 0 in the driver,
    /// and of a detached call.
    pub(crate) parent: u64,
    /// It goes on when this process is gone.
    pub(crate) is_detached: bool,
    pub(crate) target: Target,
    pub(crate) arguments: TaskArguments,
    pub(crate) returns: Returns,
    pub(crate) results: ResultCells,
    /// The items of a stream. Its one result is its end.
    pub(crate) items: Option<Arc<Items>>,
    /// Arguments that are still pending, and one more while the task is being submitted.
    pub(crate) unready: AtomicUsize,
    /// Set, and read, with the submitter's state locked.
    pub(crate) is_cancelled: AtomicBool,
    /// The resources that the call of a function demands.
    pub(crate) demand: Demand,
    /// How often the call of a function may be retried. A method has its number elsewhere: see
    /// [`retries_max`](Self::retries_max).
    pub(crate) max_retries: u32,
    pub(crate) extras: Option<Box<Extras>>,
    /// How often it was retried.
    pub(crate) retries: AtomicU32,
    /// How often it was sent to a process that died before it began.
    pub(crate) sent_in_vain: AtomicU32,
    /// How often it was retried because memory was short.
    pub(crate) memory_retries: AtomicU16,
}

/// The parts that few calls have. They have a box of their own, so that the other calls are no larger.
#[derive(Debug)]
pub(crate) struct Extras {
    pub(crate) limits: Option<CallLimits>,
    pub(crate) context: Option<CallContext>,
    /// The retries because of errors; `None`: errors are not retried.
    pub(crate) error_retries: Option<ErrorRetries>,
    /// How often the call of a method may be retried; `None`: as often as its actor says.
    pub(crate) max_task_retries: Option<u32>,
    /// A thread must look at the mail although none waits for the results.
    pub(crate) watched: Option<Watched>,
}

/// The most processes that may die before they begin the same call. After so many it is no accident.
const SENT_IN_VAIN_MAX: u32 = 100;

impl Task {
    /// The time limits, if there are any.
    pub(crate) fn limits(&self) -> Option<&CallLimits> {
        self.extras.as_ref()?.limits.as_ref()
    }

    /// The context in which the call was made, if it has one. Each attempt has the same.
    pub(crate) fn context(&self) -> Option<&CallContext> {
        self.extras.as_ref()?.context.as_ref()
    }

    /// Whether a thread must look at the mail although none waits for the results.
    pub(crate) fn is_watched(&self) -> bool {
        self.extras.as_ref().is_some_and(|extras| extras.watched.is_some())
    }

    /// The retries because of errors; `None`: errors are not retried.
    pub(crate) fn error_retries(&self) -> Option<ErrorRetries> {
        self.extras.as_ref()?.error_retries
    }

    /// How often the call may be retried, if the actor of a method says `of_actor`. The method's own number comes
    /// before that.
    pub(crate) fn retries_max(&self, of_actor: u32) -> u32 {
        match self.target {
            Target::Method { .. } => {
                self.extras.as_ref().and_then(|extras| extras.max_task_retries).unwrap_or(of_actor)
            }
            Target::Function { .. } | Target::Constructor { .. } => self.max_retries,
        }
    }

    /// Whether it is not sent again: it was cancelled, or its results are there.
    pub(crate) fn is_over(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
            || !self.results.is_empty() && self.results.iter().all(|cell| cell.is_ready())
    }

    /// The failure of the call after it has reached a limit.
    pub(crate) fn timed_out(&self, limit: TimeLimit) -> Failure {
        let function = self.target.name();
        match self.limits() {
            Some(limits) => limits.failure(function, limit),
            None => Failure::TaskTimedOut { function, limit, after: Duration::ZERO },
        }
    }

    /// The attempt is over, and another one may follow.
    pub(crate) fn attempt_over(&self) {
        if let Some(limits) = self.limits() {
            limits.attempt_over();
        }
    }

    /// Whether a call that had not begun when its process died may go to another process; counts it if so.
    pub(crate) fn may_be_sent_again(&self) -> bool {
        self.attempt_over();
        self.sent_in_vain.fetch_add(1, Ordering::Relaxed) < SENT_IN_VAIN_MAX
    }

    /// Whether the call of a function may ever be retried after the process that ran it died.
    pub(crate) fn is_retriable(&self) -> bool {
        self.max_retries > 0
    }

    /// The number of the retry that the call may have after its process was ended because memory was short, from 1 on;
    /// counts it. `None`: it may have none.
    pub(crate) fn retry_for_memory(&self, max: u32) -> Option<u32> {
        let retries = self.memory_retries.load(Ordering::Relaxed);
        if self.is_over() || !self.is_retriable() || !is_within(retries.into(), max) {
            return None;
        }
        self.attempt_over();
        let retries = retries.saturating_add(1);
        self.memory_retries.store(retries, Ordering::Relaxed);
        Some(retries.into())
    }

    /// How often the call was retried, for any reason.
    pub(crate) fn attempt(&self) -> u16 {
        let retries = self.retries.load(Ordering::Relaxed);
        let retries = retries.saturating_add(self.memory_retries.load(Ordering::Relaxed).into());
        retries.try_into().unwrap_or(u16::MAX)
    }

    /// Whether the call may be retried, of at most `max` times; counts the retry if so.
    pub(crate) fn may_retry(&self, max: u32) -> bool {
        // Only the thread that removed the call from the state asks, so no other thread counts at the same time.
        let retries = self.retries.load(Ordering::Relaxed);
        let may = is_within(retries, max);
        if may {
            self.attempt_over();
            self.retries.store(retries.saturating_add(1), Ordering::Relaxed);
        }
        may
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::call::limits::LimitOptions;

    #[test]
    fn an_attempt_that_is_over_has_no_limit_before_the_next_one_begins() {
        let options = LimitOptions { timeout: Some(Duration::from_secs(1)), deadline: None };
        let limits = CallLimits::new(&options);
        let task = Task {
            id: 1,
            parent: 0,
            is_detached: false,
            target: Target::Constructor { actor: 1, class: Name::Static("Counter") },
            arguments: TaskArguments::default(),
            returns: Returns::One,
            results: ResultCells::new(),
            items: None,
            unready: AtomicUsize::new(0),
            is_cancelled: AtomicBool::new(false),
            demand: Demand::default(),
            max_retries: 3,
            extras: Some(Box::new(Extras {
                limits: Some(limits),
                context: None,
                error_retries: None,
                max_task_retries: None,
                watched: None,
            })),
            retries: AtomicU32::new(0),
            sent_in_vain: AtomicU32::new(0),
            memory_retries: AtomicU16::new(0),
        };
        let limits = task.limits().unwrap();
        let ways: [fn(&Task); 3] = [
            |task| assert!(task.may_retry(3)),
            |task| assert!(task.may_be_sent_again()),
            |task| assert_eq!(task.retry_for_memory(3), Some(1)),
        ];
        for retry in ways {
            let due = limits.attempt_begins(Instant::now()).unwrap();
            assert!(limits.is_attempt_due(due));
            retry(&task);
            assert!(!limits.is_attempt_due(due), "the time between two attempts is not limited");
        }
        // The last attempt keeps its limit.
        let due = limits.attempt_begins(Instant::now()).unwrap();
        assert!(!task.may_retry(1) && task.retry_for_memory(1).is_none());
        assert!(limits.is_attempt_due(due));
    }
}
