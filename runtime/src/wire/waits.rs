//! The reports of waiting processes to the head, which finds [deadlocks](crate::head).

use mobula_client::{ObjectId, OwnerId};
use serde::{Deserialize, Serialize};

use crate::demand::Demand;

/// The most waits of a process that are reported.
pub(crate) const WAITS_MAX: usize = 256;
/// The most results of a wait that are reported.
pub(crate) const RESULTS_MAX: usize = 256;
/// The most needs of one result that are reported.
pub(crate) const NEEDS_MAX: usize = 32;

/// A wait of a process: a thread that runs a call waits for results, without a time limit.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Waits {
    /// The number of the wait, as the process counts.
    pub(crate) number: u64,
    /// The function that waits; empty if the process cannot say.
    pub(crate) function: String,
    /// The function whose result it waits for, the first of them; empty if the process cannot say.
    pub(crate) waits_for: String,
    /// The place in the program.
    pub(crate) at: Option<String>,
    /// The process runs no call beside the one that waits, so it keeps its resources as long as the wait lasts.
    pub(crate) is_only: bool,
    /// How many of the results must come, or fail, before the wait can end.
    pub(crate) needed: u32,
    /// The needs of each result that is not there. All needs of a result must be met.
    pub(crate) results: Vec<Vec<Need>>,
}

impl Waits {
    /// Whether a process may report so much. A faulty one may write anything.
    pub(crate) fn is_within_limits(&self) -> bool {
        let is_short = |needs: &Vec<Need>| needs.len() <= NEEDS_MAX;
        self.results.len() <= RESULTS_MAX && self.results.iter().all(is_short)
    }
}

/// A call that a process has, and has not answered.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Held {
    /// The process that made it.
    pub(crate) caller: OwnerId,
    /// Its number, as its caller counts.
    pub(crate) task: u64,
    /// The call is not answered before, of each of these sets, one wait of the process is over. No set: it may be.
    pub(crate) behind: Vec<Vec<u64>>,
    /// How many items of its stream it has sent.
    pub(crate) items: u64,
}

impl Held {
    /// Whether a process may report so much.
    pub(crate) fn is_within_limits(&self) -> bool {
        self.behind.len() <= WAITS_MAX && self.behind.iter().map(Vec::len).sum::<usize>() <= WAITS_MAX
    }
}

/// The needs of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Need {
    /// A call that was sent to this process, by its number.
    Call { process: OwnerId, task: u64 },
    /// The item at this position of the stream of a call that was sent to this process.
    Item { process: OwnerId, task: u64, position: u64 },
    /// The result of a call that another process has made: the owner of the promise.
    Promise { object: ObjectId },
    /// A process for an actor that has none, or whose constructor runs.
    Actor { actor: u64 },
    /// A worker for calls of this demand.
    Worker { demand: Demand },
    /// A result that may come by itself.
    Unknown,
}
