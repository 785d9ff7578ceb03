//! A session at a glance: resources, drivers, processes, queues, the store, and unusual things.
//!
//! The heads and the store know this even when no events are recorded. The usual events add the lengths of the queues,
//! the threads that wait for memory, and recent events.

use std::collections::BTreeMap;

use mobula_client::internal::recorder::{Queue, WaitFor};
use serde::Serialize;

use super::snapshot::{Process, Snapshot};
use super::unusual::Unusual;
use crate::wire::WantRecord;

/// A session at a glance.
///
/// ```
/// let _mobula = mobula::init()?;
/// let overview = mobula::state::overview()?;
/// for thing in &overview.unusual {
///     println!("{}", thing.text);
/// }
/// assert_eq!(overview.drivers.len(), 1);
/// assert!(overview.actors.is_empty() && overview.queues.is_empty());
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct Overview {
    /// The resources of the session; empty if no head has answered.
    pub resources: Vec<ResourceUse>,
    /// The programs that started the session, or joined it.
    pub drivers: Vec<DriverState>,
    /// The processes that run calls, by their states.
    pub workers: ProcessCounts,
    /// The actors by their states, such as `alive`.
    pub actors: BTreeMap<String, u64>,
    /// The waiting calls, grouped by the reason of their wait.
    pub queues: Vec<QueueState>,
    /// The store.
    pub store: StoreUse,
    /// Things in the session that a person should look at.
    pub unusual: Vec<Unusual>,
}

/// A resource.
///
/// ```
/// let _mobula = mobula::Builder::new().resources([("licence", 2)]).init()?;
/// let resources = mobula::state::overview()?.resources;
/// let licences = resources.iter().find(|resource| resource.name == "licence").expect("the session has some");
/// assert_eq!((licences.total, licences.used, licences.free), (2.0, 0.0, 2.0));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct ResourceUse {
    /// `CPU`, `GPU`, `memory`, or the session's own name for it.
    pub name: String,
    /// The session's amount; memory in bytes.
    pub total: f64,
    /// The amount that calls and actors have. It can exceed the total when calls continue after a wait.
    pub used: f64,
    /// The free amount.
    pub free: f64,
}

/// A program that started the session, or joined it.
///
/// ```
/// let _mobula = mobula::init()?;
/// let _kept = mobula::put(&vec![0_u8; 100_000])?;
/// let driver = &mobula::state::drivers()?[0];
/// assert_eq!(driver.pid, std::process::id());
/// assert!(driver.objects >= 1 && driver.object_bytes >= 100_000);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct DriverState {
    /// Its process.
    pub pid: u32,
    /// Its command line, as the system reports it; empty if it does not.
    pub command: String,
    /// The time at which it joined, in seconds since 1970; `None` if it records nothing.
    pub since: Option<f64>,
    /// Calls that it made and that wait for a worker, or for arguments.
    pub waiting_calls: u64,
    /// Processes that run calls of this driver's.
    pub workers: u64,
    /// Actors that it made.
    pub actors: u64,
    /// The waits of its threads, each with its length in seconds.
    pub waits: Vec<(String, f64)>,
    /// Bytes of store memory that it has leased.
    pub leased_bytes: u64,
    /// Its objects.
    pub objects: u64,
    /// Bytes of their payloads.
    pub object_bytes: u64,
}

/// Processes that run calls.
///
/// ```
/// let _mobula = mobula::init()?;
/// let counts = mobula::state::overview()?.workers;
/// println!("{} of {} processes are idle", counts.idle, counts.total);
/// let busy = counts.leased + counts.blocked + counts.actors;
/// assert_eq!(counts.starting + counts.idle + busy + counts.ending, counts.total);
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
#[non_exhaustive]
pub struct ProcessCounts {
    /// All processes.
    pub total: u64,
    /// Processes that start.
    pub starting: u64,
    /// Workers without calls.
    pub idle: u64,
    /// Workers that are leased to a caller.
    pub leased: u64,
    /// Workers whose call waits for results of other calls.
    pub blocked: u64,
    /// Actors.
    pub actors: u64,
    /// Processes that are ending, or finish a last call.
    pub ending: u64,
}

/// Calls that wait for the same reason.
///
/// ```
/// let _mobula = mobula::init()?;
/// for queue in mobula::state::queues()? {
///     println!("{} calls of process {} wait for {}", queue.calls, queue.pid, queue.waits_for);
/// }
/// # assert!(mobula::state::queues()?.is_empty());
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct QueueState {
    /// `resources`: a worker with these; `worker`: a worker that is busy with calls before them; `arguments`; `actor`:
    /// an actor that is busy with calls before them; `process`: an actor waits for a process of its own.
    pub kind: &'static str,
    /// The reason of the wait, in words.
    pub waits_for: String,
    /// How many calls wait.
    pub calls: u64,
    /// The process in which they wait; 0 for an actor that waits for a process.
    pub pid: u32,
    /// The time since a wait of this group ended, in seconds; `None` if it is not known.
    pub waited_s: Option<f64>,
}

/// The store.
///
/// ```
/// let _mobula = mobula::init()?;
/// let store = mobula::state::overview()?.store;
/// println!("{} % of the store are free", 100 * store.free_bytes / store.capacity_bytes);
/// assert_eq!(store.used_bytes + store.free_bytes, store.capacity_bytes);
/// assert_eq!((store.objects, store.spilled_objects), (0, 0));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct StoreUse {
    /// Bytes that may be leased in all.
    pub capacity_bytes: u64,
    /// Bytes of segments that are not free: leased, left by dead owners, or given back and still mapped.
    pub used_bytes: u64,
    /// Bytes that can be leased now.
    pub free_bytes: u64,
    /// Objects of all clients.
    pub objects: u64,
    /// Bytes of their payloads.
    pub object_bytes: u64,
    /// Objects of these that are in spill files.
    pub spilled_objects: u64,
    /// Bytes of their payloads.
    pub spilled_bytes: u64,
    /// Bytes of all spill files.
    pub spill_file_bytes: u64,
    /// Threads that wait for memory.
    pub waiting: u64,
    /// Bytes that they wait for.
    pub waiting_bytes: u64,
    /// Threads that wait for an object to be restored from its spill file.
    pub restoring: u64,
}

impl Snapshot {
    /// The session at a glance.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let observer = mobula::state::Observer::here()?;
    /// let before = observer.look()?.overview();
    /// let _kept = mobula::put(&vec![0_u8; 100_000])?;
    /// let after = observer.look()?.overview();
    /// assert!(after.store.object_bytes >= before.store.object_bytes + 100_000);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn overview(&self) -> Overview {
        let mut overview = Overview {
            resources: self.resources(),
            drivers: self.drivers(),
            workers: self.process_counts(),
            actors: BTreeMap::new(),
            queues: self.queues(),
            store: self.store_use(),
            unusual: Vec::new(),
        };
        for actor in self.head.iter().flat_map(|head| &head.actors) {
            *overview.actors.entry(actor.stage.clone()).or_default() += 1;
        }
        overview.unusual = self.unusual(&overview);
        overview
    }

    fn resources(&self) -> Vec<ResourceUse> {
        let Some(head) = &self.head else { return Vec::new() };
        let used = |((name, total), (_, free)): (&(String, f64), (String, f64))| ResourceUse {
            name: name.clone(),
            total: *total,
            used: total - free,
            free,
        };
        head.resources.iter().zip(head.free()).map(used).collect()
    }

    /// The programs that started the session, or joined it, in the order of joining.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let drivers = mobula::state::look()?.drivers();
    /// assert_eq!(drivers.iter().map(|driver| driver.pid).collect::<Vec<_>>(), [std::process::id()]);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn drivers(&self) -> Vec<DriverState> {
        let drivers = self.processes.iter().filter(|process| process.is_driver() && !process.dead);
        drivers.map(|driver| self.driver(driver)).collect()
    }

    fn driver(&self, driver: &Process) -> DriverState {
        let info = self.stats.clients.iter().find(|info| info.owner == driver.owner);
        let owner = driver.owner.bits();
        let is_of_it = |lessee: &Option<u64>| *lessee == Some(owner);
        let head = self.head.as_ref();
        DriverState {
            pid: driver.pid,
            command: command_of(driver.pid),
            since: driver.is_recorded.then(|| self.seconds(driver.began.nanos)),
            waiting_calls: driver.queue(Queue::ForWorker).saturating_add(driver.queue(Queue::ForArguments)),
            workers: head.map_or(0, |head| {
                head.processes.iter().filter(|process| is_of_it(&process.lessee)).count() as u64
            }),
            actors: head.map_or(0, |head| {
                let is_its = |stage: &str, creator| stage != "dead" && creator == owner;
                head.actors.iter().filter(|actor| is_its(&actor.stage, actor.creator)).count() as u64
            }),
            waits: self.waits_of(driver),
            leased_bytes: info.map_or(0, |info| info.leased_bytes),
            objects: info.map_or(0, |info| info.objects),
            object_bytes: info.map_or(0, |info| info.object_bytes),
        }
    }

    /// The waits of the threads of a process, each with its length in seconds.
    pub(super) fn waits_of(&self, process: &Process) -> Vec<(String, f64)> {
        let waits = process.waits.iter().filter(|_| !process.dead);
        waits
            .map(|wait| (self.awaited(process.pid, wait.what, wait.values), self.for_s(wait.since)))
            .collect()
    }

    /// Seconds since a tick.
    pub(super) fn for_s(&self, tick: u64) -> f64 {
        self.now.saturating_sub(self.nanos(tick)) as f64 / 1e9
    }

    fn process_counts(&self) -> ProcessCounts {
        let mut counts = ProcessCounts::default();
        for process in self.head.iter().flat_map(|head| &head.processes) {
            counts.total += 1;
            match process.job.as_str() {
                "starting" => counts.starting += 1,
                "idle" => counts.idle += 1,
                "leased" => counts.leased += 1,
                "blocked" => counts.blocked += 1,
                "actor" => counts.actors += 1,
                _ => counts.ending += 1,
            }
        }
        counts
    }

    /// The waiting calls, grouped by the reason of their wait; the longest queue first.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let queues = mobula::state::look()?.queues();
    /// let waiting: u64 = queues.iter().map(|queue| queue.calls).sum();
    /// assert_eq!(waiting, 0);
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn queues(&self) -> Vec<QueueState> {
        let mut queues = Vec::new();
        let wants = || self.head.iter().flat_map(|head| &head.wants);
        for want in wants() {
            queues.push(self.queue_of(want, wants().filter(|other| other.caller == want.caller).count()));
        }
        for process in self.processes.iter().filter(|process| !process.is_head()) {
            let [for_worker, for_arguments, arrived] =
                [Queue::ForWorker, Queue::ForArguments, Queue::Arrived].map(|queue| process.queue(queue));
            let mut add = |kind, waits_for: String, calls| {
                if calls > 0 {
                    let (pid, waited_s) = (process.pid, None);
                    queues.push(QueueState { kind, waits_for, calls, pid, waited_s });
                }
            };
            if !wants().any(|want| want.caller == Some(process.owner.bits())) {
                add("worker", "workers that have calls before them".to_owned(), for_worker);
            }
            add("arguments", "arguments".to_owned(), for_arguments);
            match self.actor_in(process) {
                Some(actor) => add("actor", actor, arrived),
                None => add("worker", format!("process {}", process.pid), arrived),
            }
        }
        queues.sort_by_key(|queue| std::cmp::Reverse(queue.calls));
        queues
    }

    /// The calls for which a process wants workers. If all wait for the same resources, the process's own count is
    /// used.
    pub(super) fn queue_of(&self, want: &WantRecord, wants_of_caller: usize) -> QueueState {
        let (waits_for, waited_s) = (want.demand.clone(), Some(want.waited_nanos as f64 / 1e9));
        let Some(caller) = want.caller else {
            let (kind, calls) = ("process", want.workers.into());
            return QueueState { kind, waits_for, calls, pid: 0, waited_s };
        };
        let said = self.process(caller).map_or(0, |process| process.queue(Queue::ForWorker));
        let calls = u64::from(want.workers).max(if wants_of_caller == 1 { said } else { 0 });
        QueueState { kind: "resources", waits_for, calls, pid: self.pid_of(caller), waited_s }
    }

    /// The actor that a process is, in words.
    fn actor_in(&self, process: &Process) -> Option<String> {
        let head = self.head.as_ref()?;
        let number = head.processes.iter().find(|known| known.owner == Some(process.owner.bits()))?.actor?;
        let class = head.actors.iter().find(|actor| actor.actor == number).map(|actor| actor.class.as_str());
        Some(format!("actor:{number} ({})", class.unwrap_or("?")))
    }

    fn store_use(&self) -> StoreUse {
        let (totals, stats) = (&self.stats.totals, &self.stats);
        let living = self.processes.iter().filter(|process| !process.dead);
        let waits: Vec<_> = living.flat_map(|process| &process.waits).collect();
        let for_memory = || waits.iter().filter(|wait| wait.what == WaitFor::Memory);
        StoreUse {
            capacity_bytes: totals.capacity_bytes,
            used_bytes: totals.capacity_bytes.saturating_sub(totals.free_bytes),
            free_bytes: totals.free_bytes,
            objects: stats.objects(),
            object_bytes: stats.object_bytes(),
            spilled_objects: stats.spilled_objects(),
            spilled_bytes: stats.spilled_bytes(),
            spill_file_bytes: totals.spill_bytes,
            waiting: for_memory().count() as u64,
            waiting_bytes: for_memory().fold(0, |sum: u64, wait| sum.saturating_add(wait.values[0])),
            restoring: waits.iter().filter(|wait| wait.what == WaitFor::Restore).count() as u64,
        }
    }
}

/// The command line of a process, if the system reports it.
fn command_of(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words = bytes.split(|byte| *byte == 0).map(String::from_utf8_lossy);
    words.collect::<Vec<_>>().join(" ").trim_end().to_owned()
}
