//! The state of this process's session as Rust values: calls, actors, objects, processes, queues, memory.
//!
//! Each function takes a snapshot: a few round trips to the store and to the head, some milliseconds. Other processes
//! do no work for it. The command `mobula` shows the same: `mobula list tasks`, `mobula status`, `mobula why`.
//!
//! The processes of a program record the running and the failed calls. If it is started with `MOBULA_EVENTS=all`, they
//! record each call; with `MOBULA_EVENTS=none`, none.
//!
//! To get several values of the same moment, take one [`Snapshot`] with [`Observer::here`].
//!
//! ```
//! # #[mobula::remote]
//! # fn square(x: i64) -> i64 { x * x }
//! let _mobula = mobula::init()?;
//! assert_eq!(square::remote(3).get()?, 9);
//! let idle = mobula::state::workers()?.into_iter().filter(|worker| worker.state == "idle").count();
//! let overview = mobula::state::overview()?;
//! println!("{idle} workers are idle, {} bytes of the store are free", overview.store.free_bytes);
//! assert_eq!(overview.drivers[0].pid, std::process::id());
//! # Ok::<(), mobula::Error>(())
//! ```
//!
//! # Errors
//! Each function returns [`Error::NotInitialized`](crate::Error::NotInitialized) if there is no session, and
//! [`Error::Store`](crate::Error::Store) when the store cannot be asked.

pub use mobula_runtime::state::{
    ActorState, Circle, DriverState, FormerActor, FunctionSummary, HeadReport, HeldObject, Hold, LastEvent,
    MemoryGroup, MemoryReport, NameState, NoSuchTarget, ObjectState, Observer, Overview, Postmortem,
    ProcessCounts, QueueState, ResourceUse, SiteGroup, Snapshot, StoreUse, TaskPhase, TaskState, TraceEvent,
    Unusual, Wanted, Why, WhyLink, WorkerState,
};

use crate::Result;

/// A snapshot of the session of this process.
///
/// ```
/// let _mobula = mobula::init()?;
/// let look = mobula::state::look()?;
/// println!("{} processes, {} calls", look.workers().len(), look.tasks().len());
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// Those of the [module](self).
pub fn look() -> Result<Snapshot> {
    Ok(Observer::here()?.look()?)
}

/// The calls that were made or run lately, the latest first.
///
/// ```
/// use mobula::state::TaskPhase;
///
/// let _mobula = mobula::init()?;
/// let running = mobula::state::tasks()?.into_iter().filter(|task| task.state == TaskPhase::Running);
/// assert_eq!(running.count(), 0);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// Those of the [module](self).
pub fn tasks() -> Result<Vec<TaskState>> {
    Ok(look()?.tasks())
}

/// The calls by function.
///
/// ```
/// let _mobula = mobula::init()?;
/// for function in mobula::state::summary()? {
///     println!("{}: {} calls, {} failed", function.function, function.made, function.failed);
/// }
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// Those of the [module](self).
pub fn summary() -> Result<Vec<FunctionSummary>> {
    Ok(look()?.summary())
}

/// The actors, including those that have ended.
///
/// ```
/// let _mobula = mobula::init()?;
/// assert!(mobula::state::actors()?.is_empty());
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// Those of the [module](self).
pub fn actors() -> Result<Vec<ActorState>> {
    Ok(look()?.actors())
}

/// The processes: drivers, workers and actors, each with its running call and its waits.
///
/// ```
/// let _mobula = mobula::init()?;
/// let workers = mobula::state::workers()?;
/// assert!(workers.iter().any(|worker| worker.kind == "driver" && worker.pid == std::process::id()));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// Those of the [module](self).
pub fn workers() -> Result<Vec<WorkerState>> {
    Ok(look()?.workers())
}

/// The programs that started the session, or joined it.
///
/// ```
/// let _mobula = mobula::init()?;
/// assert_eq!(mobula::state::drivers()?[0].pid, std::process::id());
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// Those of the [module](self).
pub fn drivers() -> Result<Vec<DriverState>> {
    Ok(look()?.drivers())
}

/// The waiting calls, grouped by the reason of their wait.
///
/// ```
/// let _mobula = mobula::init()?;
/// assert!(mobula::state::queues()?.is_empty());
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// Those of the [module](self).
pub fn queues() -> Result<Vec<QueueState>> {
    Ok(look()?.queues())
}

/// The objects of the store, the largest first.
///
/// ```
/// let _mobula = mobula::init()?;
/// let _kept = mobula::put(&vec![0_u8; 100_000])?;
/// assert!(mobula::state::objects()?[0].bytes >= 100_000);
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// Those of the [module](self).
pub fn objects() -> Result<Vec<ObjectState>> {
    let observer = Observer::here()?;
    Ok(observer.look()?.objects(&observer)?)
}

/// The names of objects and of actors.
///
/// ```
/// let _mobula = mobula::init()?;
/// assert!(mobula::state::names()?.is_empty());
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// Those of the [module](self).
pub fn names() -> Result<Vec<NameState>> {
    let observer = Observer::here()?;
    Ok(observer.look()?.names(&observer)?)
}

/// The objects of the store with their holders.
///
/// ```
/// let _mobula = mobula::init()?;
/// let _kept = mobula::put(&vec![0_u8; 100_000])?;
/// let group = &mobula::state::memory()?.groups[0];
/// assert_eq!((group.kind, group.pid, group.objects), ("handle", std::process::id(), 1));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// Those of the [module](self).
pub fn memory() -> Result<MemoryReport> {
    let observer = Observer::here()?;
    Ok(observer.look()?.memory(&observer)?)
}

/// The session at a glance: resources, drivers, processes, queues, the store, and unusual things.
///
/// ```
/// let _mobula = mobula::Builder::new().num_cpus(2).init()?;
/// let cpus = &mobula::state::overview()?.resources[0];
/// assert_eq!((cpus.name.as_str(), cpus.total), ("CPU", 2.0));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// Those of the [module](self).
pub fn overview() -> Result<Overview> {
    Ok(look()?.overview())
}

/// The recent events of the session's processes, as the JSON text that trace viewers read: chrome://tracing, and
/// <https://ui.perfetto.dev>.
///
/// ```
/// let _mobula = mobula::init()?;
/// assert!(mobula::state::timeline()?.starts_with('{'));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// # Errors
/// Those of the [module](self).
pub fn timeline() -> Result<String> {
    let look = look()?;
    Ok(look.timeline_json(&look.timeline()))
}
