//! A call on its way: its options, its arguments, and the cells that its results go to.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

use mobula_client::Handle;
use smallvec::SmallVec;

use crate::call::arguments::TaskArguments;
use crate::call::result_cell::ResultCell;
use crate::host::{Key, Name};
use crate::wire::Returns;

/// In place of a number of retries or restarts: as often as it takes.
pub const UNLIMITED: u32 = u32::MAX;

/// Whether something that has been begun again so often may be begun again once more.
pub(crate) fn is_within(begun_again: u32, max: u32) -> bool {
    max == UNLIMITED || begun_again < max
}

/// Options of a call.
///
/// ```
/// # use mobula_runtime::TaskOptions;
/// let options = TaskOptions::new().max_retries(3);
/// ```
#[derive(Debug, Clone, Default)]
pub struct TaskOptions {
    pub(crate) max_retries: Option<u32>,
}

impl TaskOptions {
    /// The defaults: no retries.
    pub fn new() -> Self {
        Self::default()
    }

    /// How often the call is begun again when the process that runs it dies; [`UNLIMITED`] is possible. An `Err` or a
    /// panic is a result, and not retried.
    ///
    /// Default: 0. Then the function runs at most once, and a call that may have begun when its process died is
    /// [`Failure::WorkerDied`]. One that had not begun goes to another process, which is no retry. With *n* retries it runs at most *n* + 1 times, and at least
    /// once if it succeeds; what an attempt had already done to the world when its process died is not undone, so such
    /// a function should be one that may run twice. An attempt that runs again also makes the calls again that the
    /// function makes.
    pub fn max_retries(mut self, retries: u32) -> Self {
        self.max_retries = Some(retries);
        self
    }

    /// What is not set here, as `defaults` has it.
    pub fn or(self, defaults: Self) -> Self {
        Self { max_retries: self.max_retries.or(defaults.max_retries) }
    }
}

/// What a task runs.
#[derive(Debug, Clone)]
pub(crate) enum Target {
    Function {
        key: Key,
        name: Name,
    },
    Method {
        actor: u64,
        method: u32,
        class: Name,
        name: Name,
        /// Keeps the actor alive until the call is over.
        #[expect(dead_code, reason = "held, not read")]
        token: Arc<Handle>,
    },
    /// The start of an actor: its arguments go to the head.
    Constructor {
        actor: u64,
        class: Name,
    },
}

impl Target {
    /// As people read it.
    pub(crate) fn name(&self) -> String {
        match self {
            Self::Function { name, .. } => name.to_string(),
            Self::Method { class, name, .. } => format!("{class}::{name}"),
            Self::Constructor { class, .. } => format!("{class}::new"),
        }
    }
}

/// The cells of a call's results; nearly always one.
pub(crate) type ResultCells = SmallVec<[Arc<ResultCell>; 1]>;

/// A call that was made.
#[derive(Debug)]
pub(crate) struct Task {
    pub(crate) id: u64,
    pub(crate) target: Target,
    pub(crate) arguments: TaskArguments,
    pub(crate) returns: Returns,
    pub(crate) results: ResultCells,
    /// Arguments that are still pending, and one more while the task is being submitted.
    pub(crate) unready: AtomicUsize,
    /// How often the call may be begun again; of a method, the head says so when it matters.
    pub(crate) max_retries: u32,
    pub(crate) begun_again: AtomicU32,
    /// How often it was sent to a process that died before it began.
    pub(crate) sent_in_vain: AtomicU32,
}

/// So often a call is sent to processes that die before they begin it: by then it is no accident.
const SENT_IN_VAIN_MAX: u32 = 100;

impl Task {
    /// Whether the call, which has not begun in a process that died, goes to another one; if so, that is counted.
    pub(crate) fn may_be_sent_again(&self) -> bool {
        self.sent_in_vain.fetch_add(1, Ordering::Relaxed) < SENT_IN_VAIN_MAX
    }

    /// Whether the call may be begun again after the process that had it died; if so, that is counted.
    pub(crate) fn may_begin_again(&self, max: u32) -> bool {
        // Only whoever took the call off the books asks, so nobody counts at the same time.
        let begun_again = self.begun_again.load(Ordering::Relaxed);
        let may = is_within(begun_again, max);
        if may {
            self.begun_again.store(begun_again.saturating_add(1), Ordering::Relaxed);
        }
        may
    }
}
