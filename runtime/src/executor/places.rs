//! The places for calls of an actor that runs several at a time, as deadlocks need them: which waits hold a call back.

use crate::call::task_id::TaskId;

/// The places for calls of a concurrent [instance](crate::Instance). Any thread may ask.
pub trait Places: Send + Sync {
    /// The waits that hold a call back which has not begun: it does not begin before one wait of each set is over. No
    /// set: it has begun, or may begin. `waits` are waits of calls that have begun.
    fn behind(&self, call: TaskId, waits: &[PlacedWait]) -> Vec<Vec<u64>>;
}

/// A thread of a concurrent [instance](crate::Instance) waits, and its call keeps its place meanwhile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct PlacedWait {
    /// The number of the wait.
    pub wait: u64,
    /// The method that waits.
    pub method: u32,
}

impl PlacedWait {
    pub(crate) fn new(wait: u64, method: u32) -> Self {
        Self { wait, method }
    }
}
