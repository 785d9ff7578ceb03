//! Takes a snapshot of a session in each interval, and turns it into rows.

use std::collections::{BTreeSet, HashMap};
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use mobula_client::{ClientError, ClientInfo};
use mobula_runtime::state::{
    ActorState, FunctionSummary, HeadReport, Observer, Snapshot, TaskPhase, TaskState, WorkerState,
};

use super::process::{self, ProcessFigures};
use super::rate::Rates;
use super::sample::{
    ActorRow, Figures, FunctionRow, Look, ResourceRow, Sample, StoreRow, Unknown, WaitRow, WantedRow,
    WorkerRow,
};

/// The last word of a wait for memory in `WorkerState::waits`.
const MEMORY_WAIT: &str = " bytes of memory";
/// The most rows of dead processes. `mobula postmortem` has all processes of which a record is left.
const DEAD_MAX: usize = 5;
/// The advice if calls are not recorded.
const RECORD: &str = "Start the program with MOBULA_EVENTS=all in its environment";

/// Samples one session, and remembers the sample before.
#[derive(Debug)]
pub(crate) struct Sampler {
    observer: Observer,
    number: u64,
    last: Option<Instant>,
    rates: Rates<Key>,
}

/// A number whose growth is shown as a rate.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Key {
    /// Processor time of the process with this start time.
    Cpu(u32, u64),
    /// Calls that a process has run.
    Calls(u32),
    /// Calls of a function that are over, and those of them that failed.
    Over(String),
    Failed(String),
    AllOver,
    AllFailed,
}

/// The clients of one process: a driver has a second one for its head.
#[derive(Debug, Default)]
struct Held {
    label: String,
    dead: bool,
    leased_bytes: u64,
    objects: u64,
    object_bytes: u64,
    spilled_bytes: u64,
    pins: u64,
}

impl Sampler {
    /// Connects to a session's store.
    pub(crate) fn connect(socket: &Path) -> Result<Self, ClientError> {
        Ok(Self { observer: Observer::connect(socket)?, number: 0, last: None, rates: Rates::default() })
    }

    /// Takes a sample. Blocks while the store does not answer, up to the client's timeout.
    pub(crate) fn look(&mut self) -> Result<Look, ClientError> {
        let began = Instant::now();
        let snapshot = self.observer.look()?;
        let now = Instant::now();
        let head = snapshot.head();
        let tasks = snapshot.tasks();
        let functions = self.functions(snapshot.summary(), now);
        let workers = self.workers(&snapshot, now);
        let actors = actors(snapshot.actors(), &tasks);
        let store = store(&snapshot, &workers);
        let pending = snapshot.queues().iter().map(|queue| queue.calls).sum();
        let figures = self.figures(&functions, &workers, pending, now);
        let sample = Sample {
            number: self.number,
            at: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64(),
            interval_s: self.last.map(|last| (now - last).as_secs_f64()),
            look_s: (now - began).as_secs_f64(),
            unknown: unknown(&snapshot, head.as_ref(), &workers, &functions),
            figures,
            workers,
            functions,
            actors,
            store,
            resources: resources(head.as_ref()),
            wanted: wanted(head.as_ref()),
        };
        self.rates.end();
        (self.last, self.number) = (Some(now), self.number + 1);
        Ok(Look { sample, snapshot })
    }

    fn functions(&mut self, summary: Vec<FunctionSummary>, now: Instant) -> Vec<FunctionRow> {
        let row = |function: FunctionSummary| {
            let over = function.finished.saturating_add(function.failed);
            FunctionRow {
                calls_per_s: self.rates.of(Key::Over(function.function.clone()), over, now),
                failures_per_s: self.rates.of(Key::Failed(function.function.clone()), function.failed, now),
                function: function.function,
                made: function.made,
                pending: function.pending,
                running: function.running,
                finished: function.finished,
                failed: function.failed,
                p50_s: function.p50_s,
                p99_s: function.p99_s,
                mean_s: function.mean_s,
                max_s: function.max_s,
                total_s: function.total_s,
            }
        };
        summary.into_iter().map(row).collect()
    }

    /// The processes that record events, and those that only the store knows.
    fn workers(&mut self, snapshot: &Snapshot, now: Instant) -> Vec<WorkerRow> {
        let mut held = held(&snapshot.store().clients);
        let mut rows: Vec<WorkerRow> = Vec::new();
        for worker in snapshot.workers() {
            let held = held.remove(&worker.pid).unwrap_or_default();
            rows.push(self.recorded(worker, held, now));
        }
        for (pid, held) in held {
            let Some(kind) =
                ["driver", "worker", "actor"].into_iter().find(|kind| held.label.starts_with(kind))
            else {
                continue;
            };
            let state = if held.dead { "dead" } else { "unknown" };
            let row =
                WorkerRow { pid, kind: kind.to_owned(), state: state.to_owned(), ..WorkerRow::default() };
            rows.push(self.measured(row, &held, now));
        }
        rows.sort_by_key(|row| (row.state == "dead", row.kind != "driver", row.pid));
        rows.truncate(rows.iter().filter(|row| row.state != "dead").count() + DEAD_MAX);
        rows
    }

    fn recorded(&mut self, worker: WorkerState, held: Held, now: Instant) -> WorkerRow {
        let waits = worker.waits.into_iter().map(|(what, for_s)| WaitRow { what, for_s }).collect();
        let row = WorkerRow {
            pid: worker.pid,
            kind: worker.kind.to_owned(),
            state: worker.state,
            recorded: worker.recorded,
            function: worker.function,
            task: worker.task,
            running_s: worker.running_s,
            waits,
            calls: worker.recorded.then_some(worker.calls),
            calls_per_s: self.rates.of(Key::Calls(worker.pid), worker.calls, now).filter(|_| worker.recorded),
            holds: worker.holds,
            actor: worker.actor,
            ..WorkerRow::default()
        };
        self.measured(row, &held, now)
    }

    /// Adds the figures of the kernel and of the store for a process.
    fn measured(&mut self, row: WorkerRow, held: &Held, now: Instant) -> WorkerRow {
        let figures = if row.state == "dead" { None } else { process::figures(row.pid) };
        let cpu = figures.and_then(|ProcessFigures { began, cpu_nanos, .. }| {
            self.rates.of(Key::Cpu(row.pid, began), cpu_nanos, now)
        });
        WorkerRow {
            cpu_percent: cpu.map(|nanos_a_second| nanos_a_second / 1e7),
            memory_bytes: figures.map(|figures| figures.memory_bytes),
            shared_bytes: figures.map(|figures| figures.shared_bytes),
            threads: figures.map(|figures| figures.threads),
            leased_bytes: held.leased_bytes,
            objects: held.objects,
            object_bytes: held.object_bytes,
            spilled_bytes: held.spilled_bytes,
            pins: held.pins,
            ..row
        }
    }

    fn figures(
        &mut self,
        functions: &[FunctionRow],
        workers: &[WorkerRow],
        pending: u64,
        now: Instant,
    ) -> Figures {
        let sum = |of: fn(&FunctionRow) -> u64| {
            functions.iter().map(of).fold(0, |sum: u64, count| sum.saturating_add(count))
        };
        let (over, failed) = (sum(|row| row.finished.saturating_add(row.failed)), sum(|row| row.failed));
        let is_counted = !functions.is_empty();
        let living = || workers.iter().filter(|row| row.state != "dead");
        let cpu: Vec<f64> = living().filter_map(|row| row.cpu_percent).collect();
        Figures {
            calls_per_s: self.rates.of(Key::AllOver, over, now).filter(|_| is_counted),
            failures_per_s: self.rates.of(Key::AllFailed, failed, now).filter(|_| is_counted),
            running: is_counted.then(|| sum(|row| row.running)),
            pending: Some(pending),
            cpu_percent: (!cpu.is_empty()).then(|| cpu.iter().sum()),
            memory_bytes: living().filter_map(|row| row.memory_bytes).sum(),
            processes: living().count() as u64,
        }
    }
}

/// The resources that the processes hold, by pid.
fn held(clients: &[ClientInfo]) -> HashMap<u32, Held> {
    let mut held: HashMap<u32, Held> = HashMap::new();
    for client in clients {
        let process = held.entry(client.pid).or_default();
        // The head's client is its driver's second one.
        if process.label.is_empty() || !client.label.starts_with("head ") {
            (process.label, process.dead) = (client.label.clone(), client.dead);
        }
        process.leased_bytes += client.leased_bytes;
        process.objects += client.objects;
        process.object_bytes += client.object_bytes;
        process.spilled_bytes += client.spilled_bytes;
        process.pins += client.pins;
    }
    held
}

fn actors(actors: Vec<ActorState>, tasks: &[TaskState]) -> Vec<ActorRow> {
    let row = |actor: ActorState| {
        let is_its = |task: &&TaskState| actor.pid.is_some() && task.worker_pid == actor.pid;
        let calls = || tasks.iter().filter(is_its);
        let count = |phase: TaskPhase| calls().filter(|task| task.state == phase).count() as u64;
        let callers: BTreeSet<u32> = calls().map(|task| task.caller_pid).filter(|pid| *pid != 0).collect();
        ActorRow {
            actor: actor.actor,
            class: actor.class,
            name: actor.name,
            state: actor.state,
            pid: actor.pid,
            queue: actor.queued.map(|queued| queued.max(count(TaskPhase::Pending))),
            in_flight: actor.queued.map(|_| actor.running.max(count(TaskPhase::Running))),
            function: actor.function,
            callers: callers.into_iter().collect(),
            restarts: actor.restarts,
            holds: actor.demand,
            death: actor.death,
        }
    };
    actors.into_iter().map(row).collect()
}

fn store(snapshot: &Snapshot, workers: &[WorkerRow]) -> StoreRow {
    let (stats, totals) = (snapshot.store(), &snapshot.store().totals);
    let object_bytes = stats.object_bytes().saturating_sub(stats.spilled_bytes());
    let waits = workers.iter().filter(|row| row.state != "dead").flat_map(|row| &row.waits);
    let waiting = waits.filter(|wait| wait.what.ends_with(MEMORY_WAIT)).count() as u64;
    StoreRow {
        capacity_bytes: totals.capacity_bytes,
        used_bytes: totals.leased_bytes + totals.orphaned_bytes + totals.retired_bytes,
        free_bytes: totals.free_bytes,
        leased_bytes: totals.leased_bytes,
        orphaned_bytes: totals.orphaned_bytes,
        retired_bytes: totals.retired_bytes,
        objects: stats.objects(),
        object_bytes,
        fragment_bytes: (totals.leased_bytes + totals.orphaned_bytes).saturating_sub(object_bytes),
        segments: totals.segments,
        spilled_objects: stats.spilled_objects(),
        spilled_bytes: stats.spilled_bytes(),
        spill_file_bytes: totals.spill_bytes,
        spill_files: totals.spill_files,
        waiting: workers.iter().any(|row| row.recorded).then_some(waiting),
        names: totals.names,
        pins: stats.clients.iter().map(|client| client.pins).sum(),
        dead_clients: totals.dead_clients,
    }
}

fn resources(head: Option<&HeadReport>) -> Vec<ResourceRow> {
    let Some(head) = head else { return Vec::new() };
    let free =
        |name: &str| head.free.iter().find(|(free, _)| free == name).map_or(0.0, |(_, amount)| *amount);
    let row = |(name, total): &(String, f64)| ResourceRow {
        name: name.clone(),
        total: *total,
        used: (total - free(name)).max(0.0),
    };
    head.resources.iter().map(row).collect()
}

fn wanted(head: Option<&HeadReport>) -> Vec<WantedRow> {
    let wanted = head.into_iter().flat_map(|head| &head.wanted);
    let row = |wanted: &mobula_runtime::state::Wanted| WantedRow {
        pid: (wanted.pid != 0).then_some(wanted.pid),
        demand: wanted.demand.clone(),
        workers: wanted.workers,
        waited_s: wanted.waited_s,
    };
    wanted.map(row).collect()
}

/// Lists the figures that the sample does not contain.
fn unknown(
    snapshot: &Snapshot,
    head: Option<&HeadReport>,
    workers: &[WorkerRow],
    functions: &[FunctionRow],
) -> Vec<Unknown> {
    let mut unknown = Vec::new();
    let mut add = |what: &str, why: String, remedy: &str| {
        unknown.push(Unknown { what: what.to_owned(), why, remedy: remedy.to_owned() });
    };
    if head.is_none() {
        add(
            "resources, actors, and the resources of workers",
            "the head of the session did not answer within 2 s".to_owned(),
            "If it stays so, the driver is stopped or too busy",
        );
    }
    let silent = workers.iter().filter(|row| !row.recorded && row.state != "dead").count();
    if silent > 0 {
        let why = format!("{silent} of {} processes record nothing", workers.len());
        add("their running calls, their waits, and their counts of calls", why, RECORD);
    } else if functions.is_empty() && !workers.is_empty() {
        add("calls by function", "no call was recorded so far".to_owned(), RECORD);
    }
    let lost = snapshot.lost_events();
    if lost > 0 {
        let why = format!("{lost} older events were overwritten: each process keeps its last ones");
        add("older calls, in lists and timelines", why, "Counts and rates are still exact");
    }
    unknown
}
