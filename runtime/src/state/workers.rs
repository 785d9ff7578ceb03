//! The processes of a session.

use serde::Serialize;

use super::snapshot::{HEAD_LABEL, Snapshot};

/// A process of the session.
#[derive(Debug, Clone, Serialize)]
#[non_exhaustive]
pub struct WorkerState {
    /// Its pid.
    pub pid: u32,
    /// What it is: `driver`, `worker` or `actor`.
    pub kind: &'static str,
    /// What it does, as the head knows it: such as `idle`, `leased` or `actor`; `dead`.
    pub state: String,
    /// Whether it records what goes on in it. Without that, the function, the call, the waits and the number of calls
    /// are not known.
    pub recorded: bool,
    /// The function that runs.
    pub function: Option<String>,
    /// The call that runs.
    pub task: Option<String>,
    /// How long it has run, in seconds.
    pub running_s: Option<f64>,
    /// What its threads wait for, and how long they have waited, in seconds.
    pub waits: Vec<(String, f64)>,
    /// The resources that it holds.
    pub holds: String,
    /// Calls that it has run.
    pub calls: u64,
    /// Bytes of store memory that it has leased.
    pub leased_bytes: u64,
    /// Bytes of its memory, without the store's; `None` if it has ended.
    pub memory_bytes: Option<u64>,
}

impl Snapshot {
    /// The processes of the session, the driver first; those that have died and whose events are kept last.
    pub fn workers(&self) -> Vec<WorkerState> {
        use mobula_client::internal::recorder::Counter;
        let mut workers: Vec<WorkerState> = Vec::new();
        let known = self.processes.iter().filter(|process| !process.label.starts_with(HEAD_LABEL));
        for process in known {
            let owner = process.owner.bits();
            let head = self.head.as_ref();
            let seen = head.and_then(|head| head.processes.iter().find(|known| known.owner == Some(owner)));
            let is_driver = process.label.starts_with("driver ");
            let is_actor = seen.is_some_and(|known| known.actor.is_some());
            let run = process.run.filter(|_| !process.dead);
            let since = |tick: u64| self.now.saturating_sub(self.nanos(tick)) as f64 / 1e9;
            let waits = process.waits.iter().filter(|_| !process.dead);
            let client = self.stats.clients.iter().find(|info| info.owner == process.owner);
            workers.push(WorkerState {
                pid: process.pid,
                kind: if is_driver {
                    "driver"
                } else if is_actor {
                    "actor"
                } else {
                    "worker"
                },
                state: match (process.dead, seen) {
                    (true, _) => "dead".to_owned(),
                    (false, Some(known)) => known.job.clone(),
                    (false, None) => if is_driver { "driver" } else { "unknown" }.to_owned(),
                },
                // Others are not listed here.
                recorded: true,
                function: run.map(|run| process.name(run.name).to_owned()),
                task: run.map(|run| format!("{}.{}", self.pid_of(run.caller), run.task)),
                running_s: run.filter(|run| run.since != 0).map(|run| since(run.since)),
                waits: waits
                    .map(|wait| (self.awaited(process.pid, wait.what, wait.values), since(wait.since)))
                    .collect(),
                holds: seen.map(|known| known.holds.clone()).unwrap_or_default(),
                calls: process
                    .counts
                    .iter()
                    .fold(0, |sum, counts| sum.saturating_add(counts.get(Counter::Ran))),
                leased_bytes: client.map_or(0, |info| info.leased_bytes),
                memory_bytes: if process.dead { None } else { memory_of(process.pid) },
            });
        }
        workers.sort_by_key(|worker| (worker.state == "dead", worker.kind != "driver", worker.pid));
        workers
    }
}

/// Bytes of a process's memory that it shares with no other.
fn memory_of(pid: u32) -> Option<u64> {
    let statm = std::fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let mut pages = statm.split_whitespace().map(|field| field.parse::<u64>().unwrap_or(0));
    let (resident, shared) = (pages.nth(1)?, pages.next()?);
    Some(resident.saturating_sub(shared) * 4096)
}
