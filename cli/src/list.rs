//! `mobula list` and `mobula summary`: calls, actors, processes, objects, names and drivers of a session, as rows.

use std::borrow::Cow;
use std::error::Error;

use clap::Subcommand;
use mobula_protocol::size::ByteSize;
use mobula_runtime::state::{
    ActorState, DriverState, FunctionSummary, NameState, ObjectState, TaskState, WorkerState,
};
use serde::Serialize;

use crate::rows::Rows;
use crate::session::{Look, maybe_seconds, seconds};
use crate::table::{Side, columns, printable};

/// Lists calls, actors, processes, objects, names or drivers.
#[derive(Debug, clap::Args)]
pub(crate) struct ListCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The calls that were made lately, the latest first.
    Tasks(Rows),
    /// The actors.
    Actors(Rows),
    /// The processes: drivers, workers and actors, each with its running call and its waits.
    Workers(Rows),
    /// The objects of the store, the largest first.
    Objects(Rows),
    /// The names of objects and of actors.
    Names(Rows),
    /// The programs that started the session, or joined it.
    Drivers(Rows),
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
    Tasks {
        #[command(flatten)]
        look: Look,
    },
}

/// The hint under a table of calls without rows.
const NO_TASKS: &str =
    "  none; running and failed calls are recorded, and with MOBULA_EVENTS=all each call\n";

/// The parts of a row that the common options use.
pub(crate) trait Row: Serialize {
    /// The text that `--state` compares.
    fn state(&self) -> Cow<'_, str>;

    /// The text that `--function` compares.
    fn function(&self) -> Option<&str>;
}

impl ListCommand {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        match self.what {
            What::Tasks(rows) => {
                let snapshot = rows.look.look()?;
                rows.show("tasks", snapshot.tasks(), snapshot.lost_events(), |tasks: &[TaskState]| {
                    let shown = columns(TASK_HEAD, &tasks.iter().map(task_row).collect::<Vec<_>>());
                    shown + if tasks.is_empty() { NO_TASKS } else { "" }
                })
            }
            What::Actors(rows) => {
                rows.show("actors", rows.look.look()?.actors(), 0, |actors: &[ActorState]| {
                    columns(ACTOR_HEAD, &actors.iter().map(actor_row).collect::<Vec<_>>())
                })
            }
            What::Workers(rows) => {
                rows.show("workers", rows.look.look()?.workers(), 0, |workers: &[WorkerState]| {
                    columns(WORKER_HEAD, &workers.iter().map(worker_row).collect::<Vec<_>>())
                })
            }
            What::Drivers(rows) => {
                rows.show("drivers", rows.look.look()?.drivers(), 0, |drivers: &[DriverState]| {
                    columns(DRIVER_HEAD, &drivers.iter().map(driver_row).collect::<Vec<_>>())
                })
            }
            What::Objects(rows) => {
                let observer = rows.look.observer()?;
                let objects = observer.look()?.objects(&observer)?;
                rows.show("objects", objects, 0, |objects: &[ObjectState]| {
                    columns(OBJECT_HEAD, &objects.iter().map(object_row).collect::<Vec<_>>())
                })
            }
            What::Names(rows) => {
                let observer = rows.look.observer()?;
                let names = observer.look()?.names(&observer)?;
                rows.show("names", names, 0, |names: &[NameState]| {
                    columns(NAME_HEAD, &names.iter().map(name_row).collect::<Vec<_>>())
                })
            }
        }
    }
}

impl SummaryCommand {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let Summarized::Tasks { look } = self.what;
        let summary = look.look()?.summary();
        look.show(&serde_json::json!({ "functions": summary }), || {
            let rows: Vec<_> = summary.iter().map(summary_row).collect();
            columns(SUMMARY_HEAD, &rows) + if rows.is_empty() { NO_TASKS } else { "" }
        })
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
        task.waits_for.clone().unwrap_or_default(),
    ]
}

const ACTOR_HEAD: [(&str, Side); 7] = [
    ("ACTOR", Side::Right),
    ("CLASS", Side::Left),
    ("NAME", Side::Left),
    ("STATE", Side::Left),
    ("PID", Side::Right),
    ("RESTARTS", Side::Right),
    ("RUNS", Side::Left),
];

fn actor_row(actor: &ActorState) -> [String; 7] {
    [
        actor.actor.to_string(),
        printable(&actor.class),
        printable(actor.name.as_deref().unwrap_or("")),
        printable(&actor.state),
        actor.pid.map_or_else(|| "-".to_owned(), |pid| pid.to_string()),
        actor.restarts.to_string(),
        running_text(actor.function.as_deref(), actor.running),
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
        printable(&waits.join(", ")),
        printable(&worker.holds),
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
        printable(&driver.command).chars().take(60).collect(),
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
    fn state(&self) -> Cow<'_, str> {
        self.state.to_string().into()
    }

    fn function(&self) -> Option<&str> {
        Some(&self.function)
    }
}

impl Row for ActorState {
    fn state(&self) -> Cow<'_, str> {
        self.state.as_str().into()
    }

    fn function(&self) -> Option<&str> {
        self.function.as_deref().or(Some(&self.class))
    }
}

impl Row for WorkerState {
    fn state(&self) -> Cow<'_, str> {
        self.state.as_str().into()
    }

    fn function(&self) -> Option<&str> {
        self.function.as_deref()
    }
}

impl Row for ObjectState {
    fn state(&self) -> Cow<'_, str> {
        self.state.into()
    }

    fn function(&self) -> Option<&str> {
        None
    }
}

impl Row for NameState {
    fn state(&self) -> Cow<'_, str> {
        self.state.as_str().into()
    }

    fn function(&self) -> Option<&str> {
        Some(&self.of)
    }
}

impl Row for DriverState {
    fn state(&self) -> Cow<'_, str> {
        "driver".into()
    }

    fn function(&self) -> Option<&str> {
        Some(&self.command)
    }
}
