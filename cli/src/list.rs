//! `mobula list` and `mobula summary`: calls, actors and processes of a session, as rows.

use std::error::Error;

use clap::{Subcommand, ValueEnum};
use mobula_runtime::state::{ActorState, FunctionSummary, Snapshot, TaskState, WorkerState};
use serde::Serialize;

use crate::session::{Look, maybe_seconds, seconds};
use crate::table::{Side, columns, printable};

/// Lists calls, actors or processes.
#[derive(Debug, clap::Args)]
pub(crate) struct ListCommand {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// The calls that were made lately, the latest first.
    Tasks(TaskRows),
    /// The actors.
    Actors(Rows),
    /// The processes: the driver, workers and actors, with what each runs and waits for.
    Workers(Rows),
}

#[derive(Debug, clap::Args)]
struct Rows {
    #[command(flatten)]
    look: Look,
    /// Only rows in this state.
    #[arg(long)]
    state: Option<String>,
    /// Only rows of functions with this name; a `*` stands for any text.
    #[arg(long, value_name = "PATTERN")]
    function: Option<String>,
    /// At most so many rows.
    #[arg(long, default_value_t = 100)]
    limit: usize,
}

#[derive(Debug, clap::Args)]
struct TaskRows {
    #[command(flatten)]
    rows: Rows,
    /// The order of the rows.
    #[arg(long, value_enum, default_value_t = Order::Created)]
    sort: Order,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Order {
    /// The latest first.
    Created,
    /// Those that ran longest first.
    Time,
    /// By function.
    Function,
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

/// The hint under a table without rows.
const NOTHING: &str = "  none; calls are recorded in programs that start with MOBULA_EVENTS=all\n";

impl ListCommand {
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        match self.what {
            What::Tasks(TaskRows { rows, sort }) => {
                let snapshot = rows.look.look()?;
                let mut tasks = snapshot.tasks();
                match sort {
                    Order::Created => {}
                    Order::Time => tasks.sort_by(|one, other| {
                        other.ran_s.unwrap_or(0.0).total_cmp(&one.ran_s.unwrap_or(0.0))
                    }),
                    Order::Function => tasks.sort_by(|one, other| one.function.cmp(&other.function)),
                }
                let is_it = |task: &TaskState| rows.are(Some(&task.function), &task.state.to_string());
                rows.show("tasks", tasks, is_it, &snapshot, |tasks| {
                    let tasks: Vec<_> = tasks.iter().map(task_row).collect();
                    columns(TASK_HEAD, &tasks)
                })
            }
            What::Actors(rows) => {
                let snapshot = rows.look.look()?;
                let is_it = |actor: &ActorState| rows.are(actor.function.as_deref(), &actor.state);
                rows.show("actors", snapshot.actors(), is_it, &snapshot, |actors| {
                    let actors: Vec<_> = actors.iter().map(actor_row).collect();
                    columns(ACTOR_HEAD, &actors)
                })
            }
            What::Workers(rows) => {
                let snapshot = rows.look.look()?;
                let is_it = |worker: &WorkerState| rows.are(worker.function.as_deref(), &worker.state);
                rows.show("workers", snapshot.workers(), is_it, &snapshot, |workers| {
                    let workers: Vec<_> = workers.iter().map(worker_row).collect();
                    columns(WORKER_HEAD, &workers)
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
            columns(SUMMARY_HEAD, &rows) + if rows.is_empty() { NOTHING } else { "" }
        })
    }
}

impl Rows {
    /// Whether a row is wanted.
    fn are(&self, function: Option<&str>, state: &str) -> bool {
        let is_of_function = |pattern: &String| function.is_some_and(|function| matches(pattern, function));
        self.state.as_ref().is_none_or(|wanted| wanted.eq_ignore_ascii_case(state))
            && self.function.as_ref().is_none_or(is_of_function)
    }

    fn show<T: Serialize>(
        &self,
        name: &str,
        mut rows: Vec<T>,
        is_wanted: impl Fn(&T) -> bool,
        snapshot: &Snapshot,
        text: impl FnOnce(&[T]) -> String,
    ) -> Result<(), Box<dyn Error>> {
        rows.retain(is_wanted);
        let (total, lost) = (rows.len(), snapshot.lost_events());
        rows.truncate(self.limit);
        let found = serde_json::json!({ name: rows, "total": total, "overwritten_events": lost });
        self.look.show(&found, || {
            let mut shown = text(&rows);
            if total == 0 && name == "tasks" {
                shown += NOTHING;
            }
            if total > rows.len() {
                shown += &format!("  {} of {total}: --limit shows more\n", rows.len());
            }
            shown
        })
    }
}

/// Whether a text is as a pattern says, in which each `*` stands for any text.
fn matches(pattern: &str, text: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == text };
    let Some(mut left) = text.strip_prefix(first) else { return false };
    loop {
        if matches(rest, left) {
            return true;
        }
        let mut characters = left.chars();
        if characters.next().is_none() {
            return false;
        }
        left = characters.as_str();
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
        printable(actor.function.as_deref().unwrap_or("")),
    ]
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
        printable(worker.function.as_deref().unwrap_or("")),
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
        function.pending.to_string(),
        function.running.to_string(),
        function.finished.to_string(),
        function.failed.to_string(),
        maybe_seconds(function.p50_s),
        maybe_seconds(function.p99_s),
        maybe_seconds(function.max_s),
        seconds(function.total_s),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, text) in
            [("fit", "fit"), ("fit*", "fit"), ("*::fit", "Model::fit"), ("f*t*", "fast"), ("*", "")]
        {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [("fit", "fits"), ("*fit", "fits"), ("", "x"), ("a*b*c", "acb")] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
    }
}
