//! `mobula list` and `mobula summary`: calls, actors, processes, objects, names and drivers of a session, as rows.

use std::borrow::Cow;
use std::error::Error;

use clap::Subcommand;
use mobula_protocol::size::ByteSize;
use mobula_runtime::state::{
    ActorState, DriverState, FunctionSummary, NameState, ObjectState, TaskState, WorkerState,
};
use mobula_runtime::words::{seconds, with_sizes};
use serde::Serialize;

use crate::rows::{Rows, StateRows, words};
use crate::session::maybe_seconds;
use crate::table::{Side, columns, printable, shortened};

/// Lists calls, actors, processes, objects, names or drivers.
#[derive(Debug, clap::Args)]
pub(crate) struct ListCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The calls that were made lately, the latest first.
    #[command(after_help = words::<TaskState>())]
    Tasks(StateRows),
    /// The actors.
    #[command(after_help = words::<ActorState>())]
    Actors(StateRows),
    /// The processes: drivers, workers and actors, each with its running call and its waits.
    #[command(after_help = words::<WorkerState>())]
    Workers(StateRows),
    /// The objects of the store, the largest first.
    #[command(after_help = words::<ObjectState>())]
    Objects(StateRows),
    /// The names of objects and of actors.
    #[command(after_help = words::<NameState>())]
    Names(StateRows),
    /// The programs that started the session, or joined it.
    #[command(after_help = words::<DriverState>())]
    Drivers(StateRows),
}

/// Calls by function: how many there were, and how long they took.
#[derive(Debug, clap::Args)]
pub(crate) struct SummaryCommand {
    #[command(subcommand)]
    what: Summarized,
}

#[derive(Debug, Subcommand)]
enum Summarized {
    /// Calls by function. The counts are exact, also where `list` does not know every call any more.
    #[command(after_help = words::<FunctionSummary>())]
    Tasks(Rows),
}

/// The hint under a table of calls without rows.
const NO_TASKS: &str =
    "  none; running and failed calls are recorded, and with MOBULA_EVENTS=all each call\n";

/// Characters of the reason for which an actor is over.
const DEATH_LENGTH: usize = 100;

/// The parts of a row that the common options use.
pub(crate) trait Row: Serialize {
    /// The key of the list in the JSON.
    const NAME: &'static str;
    /// All states.
    const STATES: &'static [&'static str];
    /// The keys of a row in the JSON.
    const KEYS: &'static [&'static str];
    /// The columns whose heads are no keys, with their keys.
    const HEADS: &'static [(&'static str, &'static str)];
    /// The most rows without `--limit`.
    const LIMIT: usize = 100;

    /// The text that `--state` compares.
    fn state(&self) -> Cow<'_, str>;

    /// The text that `--function` compares.
    fn function(&self) -> Option<&str>;

    /// The rows for people.
    fn table(rows: &[Self]) -> String
    where
        Self: Sized;
}

impl ListCommand {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        match self.what {
            What::Tasks(rows) => rows.show(|look| {
                let snapshot = look.look()?;
                Ok((snapshot.tasks(), snapshot.lost_events()))
            }),
            What::Actors(rows) => rows.show(|look| Ok((look.look()?.actors(), 0))),
            What::Workers(rows) => rows.show(|look| Ok((look.look()?.workers(), 0))),
            What::Drivers(rows) => rows.show(|look| Ok((look.look()?.drivers(), 0))),
            What::Objects(rows) => rows.show(|look| {
                let observer = look.observer()?;
                Ok((observer.look()?.objects(&observer)?, 0))
            }),
            What::Names(rows) => rows.show(|look| {
                let observer = look.observer()?;
                Ok((observer.look()?.names(&observer)?, 0))
            }),
        }
    }
}

impl SummaryCommand {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let Summarized::Tasks(rows) = self.what;
        rows.show(|look| Ok((look.look()?.summary(), 0)))
    }
}

const TASK_HEAD: [(&str, Side); 7] = [
    ("TASK", Side::Left),
    ("FUNCTION", Side::Left),
    ("STATE", Side::Left),
    ("CALLER", Side::Right),
    ("WORKER", Side::Right),
    ("RAN", Side::Right),
    ("WAITS FOR", Side::Left),
];

fn task_row(task: &TaskState) -> [String; 7] {
    let cause = task.cause.map_or_else(String::new, |cause| format!(" ({cause})"));
    [
        task.task.clone(),
        printable(&task.function),
        task.state.to_string() + &cause,
        task.caller_pid.to_string(),
        task.worker_pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        maybe_seconds(task.ran_s),
        with_sizes(task.waits_for.as_deref().unwrap_or_default()),
    ]
}

const ACTOR_HEAD: [(&str, Side); 8] = [
    ("ACTOR", Side::Right),
    ("CLASS", Side::Left),
    ("NAME", Side::Left),
    ("STATE", Side::Left),
    ("PID", Side::Right),
    ("RESTARTS", Side::Right),
    ("RUNS", Side::Left),
    ("DEATH", Side::Left),
];

fn actor_row(actor: &ActorState) -> [String; 8] {
    [
        actor.actor.to_string(),
        printable(&actor.class),
        printable(actor.name.as_deref().unwrap_or("")),
        printable(&actor.state),
        actor.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        actor.restarts.to_string(),
        running_text(actor.function.as_deref(), actor.running),
        shortened(actor.death.as_deref().unwrap_or_default(), DEATH_LENGTH),
    ]
}

/// The function that runs, and how many calls run beside it.
fn running_text(function: Option<&str>, running: u64) -> String {
    let function = printable(function.unwrap_or(""));
    match running.saturating_sub(1) {
        0 => function,
        others => format!("{function} and {others} more"),
    }
}

const WORKER_HEAD: [(&str, Side); 8] = [
    ("PID", Side::Right),
    ("KIND", Side::Left),
    ("STATE", Side::Left),
    ("RUNS", Side::Left),
    ("FOR", Side::Right),
    ("WAITS FOR", Side::Left),
    ("HOLDS", Side::Left),
    ("CALLS", Side::Right),
];

fn worker_row(worker: &WorkerState) -> [String; 8] {
    let waits: Vec<String> =
        worker.waits.iter().map(|(what, time)| format!("{what} ({})", seconds(*time))).collect();
    [
        worker.pid.to_string(),
        worker.kind.to_owned(),
        printable(&worker.state),
        running_text(worker.function.as_deref(), worker.running),
        maybe_seconds(worker.running_s),
        with_sizes(&printable(&waits.join(", "))),
        with_sizes(&printable(&worker.holds)),
        worker.calls.to_string(),
    ]
}

const SUMMARY_HEAD: [(&str, Side); 10] = [
    ("FUNCTION", Side::Left),
    ("MADE", Side::Right),
    ("PENDING", Side::Right),
    ("RUNNING", Side::Right),
    ("FINISHED", Side::Right),
    ("FAILED", Side::Right),
    ("P50", Side::Right),
    ("P99", Side::Right),
    ("MAX", Side::Right),
    ("TOTAL", Side::Right),
];

fn summary_row(function: &FunctionSummary) -> [String; 10] {
    [
        printable(&function.function),
        function.made.to_string(),
        function.pending.map_or_else(|| "-".to_owned(), |count| count.to_string()),
        function.running.to_string(),
        function.finished.to_string(),
        function.failed.to_string(),
        maybe_seconds(function.p50_s),
        maybe_seconds(function.p99_s),
        maybe_seconds(function.max_s),
        seconds(function.total_s),
    ]
}

const DRIVER_HEAD: [(&str, Side); 7] = [
    ("PID", Side::Right),
    ("COMMAND", Side::Left),
    ("WORKERS", Side::Right),
    ("ACTORS", Side::Right),
    ("WAITING CALLS", Side::Right),
    ("OBJECTS", Side::Right),
    ("BYTES", Side::Right),
];

fn driver_row(driver: &DriverState) -> [String; 7] {
    [
        driver.pid.to_string(),
        shortened(&driver.command, 60),
        driver.workers.to_string(),
        driver.actors.to_string(),
        driver.waiting_calls.to_string(),
        driver.objects.to_string(),
        ByteSize(driver.object_bytes).to_string(),
    ]
}

const OBJECT_HEAD: [(&str, Side); 7] = [
    ("OBJECT", Side::Left),
    ("BYTES", Side::Right),
    ("FORMAT", Side::Left),
    ("STATE", Side::Left),
    ("OWNER", Side::Right),
    ("HOLDERS", Side::Right),
    ("NAMES", Side::Left),
];

fn object_row(object: &ObjectState) -> [String; 7] {
    [
        object.object.clone(),
        ByteSize(object.bytes).to_string(),
        object.format.to_owned(),
        object.state.to_owned(),
        object.owner_pid.to_string(),
        object.holders.to_string(),
        printable(&object.names.join(", ")),
    ]
}

const NAME_HEAD: [(&str, Side); 6] = [
    ("NAME", Side::Left),
    ("KIND", Side::Left),
    ("OF", Side::Left),
    ("STATE", Side::Left),
    ("PID", Side::Right),
    ("BYTES", Side::Right),
];

fn name_row(name: &NameState) -> [String; 6] {
    let namespace = name.namespace.as_ref().map_or_else(String::new, |namespace| format!("{namespace}/"));
    let unknown = || "-".to_owned();
    [
        printable(&format!("{namespace}{}", name.name)),
        name.kind.to_owned(),
        printable(&name.of),
        name.state.clone(),
        name.pid.map_or_else(unknown, |pid| pid.to_string()),
        name.bytes.map_or_else(unknown, |bytes| ByteSize(bytes).to_string()),
    ]
}

impl Row for TaskState {
    const NAME: &'static str = "tasks";
    const STATES: &'static [&'static str] =
        &["pending_arguments", "pending", "running", "finished", "failed"];
    const KEYS: &'static [&'static str] = &[
        "task",
        "id",
        "actor",
        "function",
        "state",
        "caller_pid",
        "worker_pid",
        "parent",
        "created",
        "started",
        "ended",
        "ran_s",
        "waits_for",
        "cause",
        "arguments",
    ];
    const HEADS: &'static [(&'static str, &'static str)] =
        &[("CALLER", "caller_pid"), ("WORKER", "worker_pid"), ("RAN", "ran_s"), ("WAITS FOR", "waits_for")];

    fn state(&self) -> Cow<'_, str> {
        self.state.to_string().into()
    }

    fn function(&self) -> Option<&str> {
        Some(&self.function)
    }

    fn table(rows: &[Self]) -> String {
        let none = if rows.is_empty() { NO_TASKS } else { "" };
        columns(TASK_HEAD, &rows.iter().map(task_row).collect::<Vec<_>>()) + none
    }
}

impl Row for FunctionSummary {
    const NAME: &'static str = "functions";
    const STATES: &'static [&'static str] = &[];
    const KEYS: &'static [&'static str] = &[
        "function", "made", "pending", "running", "finished", "failed", "p50_s", "p99_s", "mean_s", "max_s",
        "total_s",
    ];
    const HEADS: &'static [(&'static str, &'static str)] =
        &[("P50", "p50_s"), ("P99", "p99_s"), ("MEAN", "mean_s"), ("MAX", "max_s"), ("TOTAL", "total_s")];
    const LIMIT: usize = usize::MAX;

    fn state(&self) -> Cow<'_, str> {
        "".into()
    }

    fn function(&self) -> Option<&str> {
        Some(&self.function)
    }

    fn table(rows: &[Self]) -> String {
        let none = if rows.is_empty() { NO_TASKS } else { "" };
        columns(SUMMARY_HEAD, &rows.iter().map(summary_row).collect::<Vec<_>>()) + none
    }
}

impl Row for ActorState {
    const NAME: &'static str = "actors";
    const STATES: &'static [&'static str] = &["reserved", "waiting", "constructing", "alive", "dead"];
    const KEYS: &'static [&'static str] = &[
        "actor",
        "class",
        "namespace",
        "name",
        "is_detached",
        "creator_pid",
        "state",
        "pid",
        "restarts",
        "demand",
        "death",
        "queued",
        "running",
        "function",
    ];
    const HEADS: &'static [(&'static str, &'static str)] = &[("RUNS", "function")];

    fn state(&self) -> Cow<'_, str> {
        self.state.as_str().into()
    }

    fn function(&self) -> Option<&str> {
        self.function.as_deref().or(Some(&self.class))
    }

    fn table(rows: &[Self]) -> String {
        columns(ACTOR_HEAD, &rows.iter().map(actor_row).collect::<Vec<_>>())
    }
}

impl Row for WorkerState {
    const NAME: &'static str = "workers";
    const STATES: &'static [&'static str] = &[
        "starting",
        "idle",
        "leased",
        "blocked",
        "finishing",
        "actor",
        "exiting",
        "driver",
        "client",
        "dead",
        "unknown",
    ];
    const KEYS: &'static [&'static str] = &[
        "id",
        "pid",
        "kind",
        "state",
        "recorded",
        "actor",
        "running",
        "function",
        "task",
        "running_s",
        "waits",
        "queued",
        "waiting_calls",
        "caller_pid",
        "held_s",
        "holds",
        "calls",
        "leased_bytes",
        "memory_bytes",
    ];
    const HEADS: &'static [(&'static str, &'static str)] =
        &[("RUNS", "function"), ("FOR", "running_s"), ("WAITS FOR", "waits")];

    fn state(&self) -> Cow<'_, str> {
        self.state.as_str().into()
    }

    fn function(&self) -> Option<&str> {
        self.function.as_deref()
    }

    fn table(rows: &[Self]) -> String {
        columns(WORKER_HEAD, &rows.iter().map(worker_row).collect::<Vec<_>>())
    }
}

impl Row for ObjectState {
    const NAME: &'static str = "objects";
    const STATES: &'static [&'static str] = &["sealed", "promised", "spilled"];
    const KEYS: &'static [&'static str] = &[
        "object",
        "bytes",
        "format",
        "state",
        "owner_pid",
        "is_orphan",
        "holders",
        "names",
        "age_s",
        "made_at",
    ];
    const HEADS: &'static [(&'static str, &'static str)] = &[("OWNER", "owner_pid")];

    fn state(&self) -> Cow<'_, str> {
        self.state.into()
    }

    fn function(&self) -> Option<&str> {
        None
    }

    fn table(rows: &[Self]) -> String {
        columns(OBJECT_HEAD, &rows.iter().map(object_row).collect::<Vec<_>>())
    }
}

impl Row for NameState {
    const NAME: &'static str = "names";
    const STATES: &'static [&'static str] =
        &["sealed", "promised", "spilled", "reserved", "waiting", "constructing", "alive"];
    const KEYS: &'static [&'static str] = &["name", "namespace", "kind", "of", "state", "pid", "bytes"];
    const HEADS: &'static [(&'static str, &'static str)] = &[];

    fn state(&self) -> Cow<'_, str> {
        self.state.as_str().into()
    }

    fn function(&self) -> Option<&str> {
        Some(&self.of)
    }

    fn table(rows: &[Self]) -> String {
        columns(NAME_HEAD, &rows.iter().map(name_row).collect::<Vec<_>>())
    }
}

impl Row for DriverState {
    const NAME: &'static str = "drivers";
    const STATES: &'static [&'static str] = &["driver"];
    const KEYS: &'static [&'static str] = &[
        "pid",
        "command",
        "since",
        "waiting_calls",
        "workers",
        "actors",
        "waits",
        "leased_bytes",
        "objects",
        "object_bytes",
    ];
    const HEADS: &'static [(&'static str, &'static str)] =
        &[("WAITING CALLS", "waiting_calls"), ("BYTES", "object_bytes")];

    fn state(&self) -> Cow<'_, str> {
        "driver".into()
    }

    fn function(&self) -> Option<&str> {
        Some(&self.command)
    }

    fn table(rows: &[Self]) -> String {
        columns(DRIVER_HEAD, &rows.iter().map(driver_row).collect::<Vec<_>>())
    }
}
