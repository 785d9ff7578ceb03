//! The processes of a session.

use mobula_client::internal::recorder::{Counter, Queue};
use serde::Serialize;

use super::snapshot::Snapshot;
use crate::wire::ProcessRecord;

/// A process of the session.
///
/// ```
/// # #[mobula::remote]
/// # fn square(x: i64) -> i64 { x * x }
/// let _mobula = mobula::init()?;
/// assert_eq!(square::remote(3).get()?, 9);
/// let workers = mobula::state::workers()?;
/// let (mine, others): (Vec<_>, Vec<_>) = workers.iter().partition(|it| it.pid == std::process::id());
/// assert_eq!((mine[0].kind, mine[0].recorded), ("driver", true));
/// assert!(others.iter().any(|it| it.kind == "worker"));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Default, Serialize)]
#[non_exhaustive]
pub struct WorkerState {
    /// Its id in the session, as hexadecimal digits; empty before it has connected to the store.
    pub id: String,
    /// Its pid.
    pub pid: u32,
    /// Its kind: `driver`, `worker`, `actor`, or `client` for a client of the store alone.
    pub kind: &'static str,
    /// Its state in the head, such as `idle`, `leased` or `actor`; or `dead`.
    pub state: String,
    /// Whether it records events. If not, the function, the call, the waits and the number of calls are not known.
    pub recorded: bool,
    /// Its actor.
    pub actor: Option<u64>,
    /// The number of calls that run: in an actor with several at a time, it may be more than one.
    pub running: u64,
    /// The function that runs; of several, the one that began first.
    pub function: Option<String>,
    /// The call of that function.
    pub task: Option<String>,
    /// How long it has run, in seconds.
    pub running_s: Option<f64>,
    /// The waits of its threads, each with its length in seconds.
    pub waits: Vec<(String, f64)>,
    /// Calls that arrived here and have not begun.
    pub queued: u64,
    /// Calls that it made and that wait for a worker, or for arguments.
    pub waiting_calls: u64,
    /// The process whose calls it runs.
    pub caller_pid: Option<u32>,
    /// The time since it was leased to that process, or became an actor's, in seconds.
    pub held_s: Option<f64>,
    /// The resources that it holds.
    pub holds: String,
    /// Calls that it has run.
    pub calls: u64,
    /// Bytes of store memory that it has leased.
    pub leased_bytes: u64,
    /// Bytes of its resident memory, without the store's and without mapped files, such as programs and libraries;
    /// `None` if it has ended.
    pub memory_bytes: Option<u64>,
}

impl Snapshot {
    /// The processes of the session, the driver first; those that have died and whose events are kept last.
    ///
    /// ```
    /// let _mobula = mobula::init()?;
    /// let workers = mobula::state::look()?.workers();
    /// assert_eq!((workers[0].kind, workers[0].pid), ("driver", std::process::id()));
    /// let bytes: u64 = workers.iter().filter_map(|worker| worker.memory_bytes).sum();
    /// println!("{} processes have {bytes} bytes", workers.len());
    /// # Ok::<(), mobula::Error>(())
    /// ```
    pub fn workers(&self) -> Vec<WorkerState> {
        let mut workers: Vec<WorkerState> = Vec::new();
        let known = self.processes.iter().filter(|process| !process.is_head());
        for process in known {
            let owner = process.owner.bits();
            let head = self.head.as_ref();
            // A process that has just connected has not reported its client to the head yet.
            let is_it = |known: &&ProcessRecord| match known.owner {
                Some(its) => its == owner,
                None => known.pid == process.pid && !process.dead,
            };
            let seen = head.and_then(|head| head.processes.iter().find(is_it));
            let is_actor = seen.is_some_and(|known| known.actor.is_some());
            let runs = if process.dead { Vec::new() } else { process.running() };
            let run = runs.first();
            // If the process records nothing, the waits that it reported to the head.
            let told = seen.and_then(|known| known.waits.as_ref());
            let told_function = told.map(|told| told.function.clone()).filter(|name| !name.is_empty());
            let mut waits = self.waits_of(process);
            if let Some(told) = told.filter(|_| waits.is_empty()) {
                let at = told.at.as_ref().map_or_else(String::new, |at| format!(" ({at})"));
                waits.push((format!("{}{at}", told.waits_for), 0.0));
            }
            let client = self.stats.clients.iter().find(|info| info.owner == process.owner);
            let kind = match process {
                _ if process.is_driver() => "driver",
                _ if is_actor => "actor",
                _ if process.is_worker() => "worker",
                _ => "client",
            };
            workers.push(WorkerState {
                id: format!("{owner:016x}"),
                pid: process.pid,
                kind,
                state: match (process.dead, seen) {
                    (true, _) => "dead".to_owned(),
                    (false, Some(known)) => known.job.clone(),
                    (false, None) if process.is_worker() => "unknown".to_owned(),
                    (false, None) => kind.to_owned(),
                },
                recorded: process.is_recorded,
                actor: seen.and_then(|known| known.actor),
                running: runs.len() as u64,
                function: run.map(|run| process.name(run.name).to_owned()).or(told_function),
                task: run.map(|run| format!("{}.{}", self.pid_of(run.caller), run.task)),
                running_s: run.map(|run| self.for_s(run.since)),
                waits,
                queued: process.queue(Queue::Arrived),
                waiting_calls: process
                    .queue(Queue::ForWorker)
                    .saturating_add(process.queue(Queue::ForArguments)),
                caller_pid: seen.and_then(|known| known.lessee).map(|caller| self.pid_of(caller)),
                held_s: seen.and_then(|known| known.given_nanos).map(|nanos| nanos as f64 / 1e9),
                holds: seen.map(|known| known.holds.clone()).unwrap_or_default(),
                calls: process
                    .counts
                    .iter()
                    .fold(0, |sum, counts| sum.saturating_add(counts.get(Counter::Ran))),
                leased_bytes: client.map_or(0, |info| info.leased_bytes),
                memory_bytes: if process.dead { None } else { memory_of(process.pid) },
            });
        }
        // Only the head knows processes that have not started completely.
        let has_connected = |pid| self.processes.iter().any(|process| process.pid == pid && !process.dead);
        let coming = self.head.iter().flat_map(|head| &head.processes);
        for known in coming.filter(|known| known.owner.is_none() && !has_connected(known.pid)) {
            workers.push(WorkerState {
                pid: known.pid,
                kind: "worker",
                state: known.job.clone(),
                actor: known.actor,
                holds: known.holds.clone(),
                memory_bytes: memory_of(known.pid),
                ..WorkerState::default()
            });
        }
        workers.sort_by_key(|worker| (worker.state == "dead", worker.kind != "driver", worker.pid));
        workers
    }
}

/// Bytes of a process's resident memory that are neither shared memory nor mapped files.
fn memory_of(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = statm.split_whitespace().map(|field| field.parse::<u64>().unwrap_or(0));
    let (resident, shared) = (pages.nth(1)?, pages.next()?);
    Some(resident.saturating_sub(shared) * 4096)
}
