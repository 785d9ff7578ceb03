//! The reports of waiting processes to the head, which finds [deadlocks](crate::head).

use mobula_client::{ObjectId, OwnerId};
use serde::{Deserialize, Serialize};

use crate::demand::Demand;

/// The wait of a process: the only thread that runs its calls waits for results, without a time limit.
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
    /// How many of the results must come.
    pub(crate) needed: u32,
    /// The needs of each result that is not there. All needs of a result must be met.
    pub(crate) results: Vec<Vec<Need>>,
}

/// The needs of a result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Need {
    /// A call that was sent to this process, by its number.
    Call { process: OwnerId, task: u64 },
    /// The result of a call that another process has made: the owner of the promise.
    Promise { object: ObjectId },
    /// A process for an actor that has none, or whose constructor runs.
    Actor { actor: u64 },
    /// A worker for calls of this demand.
    Worker { demand: Demand },
    /// A result that may come by itself.
    Unknown,
}
