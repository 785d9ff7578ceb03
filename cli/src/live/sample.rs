//! The rows of one sample. Times are in seconds, sizes in bytes, rates in events per second. `None` stands for unknown.

use mobula_runtime::state::Snapshot;
use serde::Serialize;

/// One sample of a session.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Sample {
    /// The number of samples before this one.
    pub(crate) number: u64,
    /// The time, in seconds since 1970.
    pub(crate) at: f64,
    /// The time since the sample before, over which the rates are measured; `None` in the first sample.
    pub(crate) interval_s: Option<f64>,
    /// The time that taking the sample took.
    pub(crate) look_s: f64,
    /// The session as a whole.
    pub(crate) figures: Figures,
    /// The driver first, then by pid; processes that have died last.
    pub(crate) workers: Vec<WorkerRow>,
    /// The functions, those that took the most time first.
    pub(crate) functions: Vec<FunctionRow>,
    /// The actors, in the order in which they were made.
    pub(crate) actors: Vec<ActorRow>,
    pub(crate) store: StoreRow,
    pub(crate) resources: Vec<ResourceRow>,
    /// Demands for which there are no workers or resources.
    pub(crate) wanted: Vec<WantedRow>,
    /// The unknown figures, with the reasons.
    pub(crate) unknown: Vec<Unknown>,
}

/// Sums over the session.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct Figures {
    /// Calls that ended per second, including those that failed.
    pub(crate) calls_per_s: Option<f64>,
    pub(crate) failures_per_s: Option<f64>,
    /// Calls that run.
    pub(crate) running: Option<u64>,
    /// Calls that wait for arguments, for a worker or for calls before them.
    pub(crate) pending: Option<u64>,
    /// Of all processes together; 100 is one processor.
    pub(crate) cpu_percent: Option<f64>,
    /// Memory of all processes together, without the store's and without mapped files.
    pub(crate) memory_bytes: u64,
    /// Processes that are alive.
    pub(crate) processes: u64,
}

/// A process of the session.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct WorkerRow {
    pub(crate) pid: u32,
    /// `driver`, `worker` or `actor`.
    pub(crate) kind: String,
    /// Its state in the head, such as `idle`, `leased`, `blocked` or `actor`; or `dead`.
    pub(crate) state: String,
    /// Whether it records events. If not, the fields from `function` to `calls_per_s` are unknown.
    pub(crate) recorded: bool,
    /// The function that runs.
    pub(crate) function: Option<String>,
    /// The call that runs, as `mobula why` takes it.
    pub(crate) task: Option<String>,
    /// The time that the call has run.
    pub(crate) running_s: Option<f64>,
    /// The waits of its threads.
    pub(crate) waits: Vec<WaitRow>,
    /// Calls that it has run.
    pub(crate) calls: Option<u64>,
    pub(crate) calls_per_s: Option<f64>,
    /// The resources that it holds.
    pub(crate) holds: String,
    /// Its actor.
    pub(crate) actor: Option<u64>,
    /// 100 is one processor.
    pub(crate) cpu_percent: Option<f64>,
    /// Resident memory, without the store's and without mapped files, as in `mobula list workers`.
    pub(crate) memory_bytes: Option<u64>,
    /// Pages of the store that it has mapped and touched.
    pub(crate) shared_bytes: Option<u64>,
    pub(crate) threads: Option<u32>,
    /// Store memory that it has leased.
    pub(crate) leased_bytes: u64,
    /// Objects that it has made and that still exist.
    pub(crate) objects: u64,
    pub(crate) object_bytes: u64,
    pub(crate) spilled_bytes: u64,
    /// Objects that it uses, its own included.
    pub(crate) pins: u64,
}

/// A wait of a thread.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct WaitRow {
    /// A call (`4711.12`), an object's id, an amount of memory, or `unknown`.
    pub(crate) what: String,
    pub(crate) for_s: f64,
}

/// The calls of a function.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct FunctionRow {
    /// The function, or the class and the method.
    pub(crate) function: String,
    pub(crate) made: u64,
    /// `None`: the callers do not count them.
    pub(crate) pending: Option<u64>,
    pub(crate) running: u64,
    pub(crate) finished: u64,
    pub(crate) failed: u64,
    /// Calls that ended per second, including those that failed.
    pub(crate) calls_per_s: Option<f64>,
    pub(crate) failures_per_s: Option<f64>,
    /// Half of all calls took longer.
    pub(crate) p50_s: Option<f64>,
    /// One call of a hundred took longer.
    pub(crate) p99_s: Option<f64>,
    pub(crate) mean_s: Option<f64>,
    pub(crate) max_s: Option<f64>,
    /// The time of all calls together.
    pub(crate) total_s: f64,
}

/// An actor.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct ActorRow {
    pub(crate) actor: u64,
    pub(crate) class: String,
    pub(crate) name: Option<String>,
    /// `reserved`, `waiting`, `constructing`, `alive` or `dead`.
    pub(crate) state: String,
    pub(crate) pid: Option<u32>,
    /// Calls that wait for it.
    pub(crate) queue: Option<u64>,
    /// Calls that it runs.
    pub(crate) in_flight: Option<u64>,
    /// The method that runs.
    pub(crate) function: Option<String>,
    /// The processes that called it lately.
    pub(crate) callers: Vec<u32>,
    pub(crate) restarts: u32,
    /// The resources that it has.
    pub(crate) holds: String,
    /// The reason of its end.
    pub(crate) death: Option<String>,
}

/// The store.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct StoreRow {
    pub(crate) capacity_bytes: u64,
    /// Memory that cannot be leased now: leased, of dead processes, or given back and still mapped.
    pub(crate) used_bytes: u64,
    pub(crate) free_bytes: u64,
    pub(crate) leased_bytes: u64,
    pub(crate) orphaned_bytes: u64,
    pub(crate) retired_bytes: u64,
    pub(crate) objects: u64,
    /// Payloads of objects that are in memory.
    pub(crate) object_bytes: u64,
    /// Leased memory without objects: room for the next objects, and gaps between objects.
    pub(crate) fragment_bytes: u64,
    pub(crate) segments: u32,
    pub(crate) spilled_objects: u64,
    pub(crate) spilled_bytes: u64,
    /// Bytes of the spill files.
    pub(crate) spill_file_bytes: u64,
    pub(crate) spill_files: u32,
    /// Threads that wait for memory; `None` if that is not recorded.
    pub(crate) waiting: Option<u64>,
    pub(crate) names: u64,
    pub(crate) pins: u64,
    /// Dead processes whose objects remain.
    pub(crate) dead_clients: u32,
}

/// A resource of the session.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub(crate) struct ResourceRow {
    /// `CPU`, `GPU`, `memory` (in bytes), or a name of the session's.
    pub(crate) name: String,
    pub(crate) total: f64,
    pub(crate) used: f64,
}

/// Workers that a process waits for.
#[derive(Debug, Clone, Default, Serialize)]
pub(crate) struct WantedRow {
    /// The process that waits for them; `None` for an actor that waits for its own process.
    pub(crate) pid: Option<u32>,
    /// The demand of each call.
    pub(crate) demand: String,
    pub(crate) workers: u32,
    pub(crate) waited_s: f64,
}

/// Figures that a sample does not contain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Unknown {
    /// The figures.
    pub(crate) what: String,
    /// The reason.
    pub(crate) why: String,
    /// A way to get them.
    pub(crate) remedy: String,
}

/// A sample, and the snapshot that it was made from, for the lists of calls and the timelines of some screens.
#[derive(Debug)]
pub(crate) struct Look {
    pub(crate) sample: Sample,
    pub(crate) snapshot: Snapshot,
}
