//! The rows of each tab: texts, and numbers for sorting.

use std::cmp::Ordering;

use mobula_protocol::size::ByteSize;
use mobula_runtime::words::{seconds, with_sizes};

use super::app::Tab;
use crate::live::sample::{ActorRow, FunctionRow, Sample, StoreRow, WorkerRow};
use crate::table::printable;

/// A column: its name, and its width; `None` for an equal share of the rest.
pub(super) type Column = (&'static str, Option<u16>);

/// Rows under columns.
#[derive(Debug, Default)]
pub(super) struct Table {
    pub(super) columns: &'static [Column],
    /// The columns that a narrow terminal leaves out, the first ones first.
    pub(super) spare: &'static [usize],
    pub(super) rows: Vec<Row>,
    pub(super) sorted_by: usize,
    pub(super) is_descending: bool,
}

/// One row, and the targets of orders on it.
#[derive(Debug, Default)]
pub(super) struct Row {
    /// Identifies the row, also in the next sample.
    pub(super) key: String,
    pub(super) cells: Vec<Cell>,
    pub(super) pid: Option<u32>,
    /// The call that runs.
    pub(super) task: Option<String>,
    /// The target of an order to kill, as an argument of `mobula kill`.
    pub(super) target: Option<String>,
    /// It has ended: it is shown dim.
    pub(super) is_dim: bool,
    /// It needs attention: it is highlighted.
    pub(super) is_strong: bool,
}

#[derive(Debug, Clone, Default)]
pub(super) struct Cell {
    pub(super) text: String,
    /// The value for sorting, if it is a number.
    pub(super) number: Option<f64>,
    pub(super) is_right: bool,
}

impl Cell {
    fn text(text: impl AsRef<str>) -> Self {
        Self { text: printable(text.as_ref()), number: None, is_right: false }
    }

    /// A cell for a number that may be unknown, with its text.
    fn number(number: Option<f64>, shown: impl FnOnce(f64) -> String) -> Self {
        Self { text: number.map_or_else(|| "-".to_owned(), shown), number, is_right: true }
    }

    /// Compares numbers by size, unknown ones first, and texts alphabetically.
    pub(super) fn order(&self, other: &Self) -> Ordering {
        match (self.number, other.number) {
            (None, None) => self.text.cmp(&other.text),
            (one, other) => one.unwrap_or(f64::NEG_INFINITY).total_cmp(&other.unwrap_or(f64::NEG_INFINITY)),
        }
    }
}

/// The rows of a tab.
pub(super) fn table(sample: &Sample, tab: Tab) -> Table {
    let (columns, spare, rows): (&'static [Column], &'static [usize], Vec<Row>) = match tab {
        Tab::Workers => (&WORKERS, &WORKERS_SPARE, sample.workers.iter().map(worker).collect()),
        Tab::Functions => (&FUNCTIONS, &FUNCTIONS_SPARE, sample.functions.iter().map(function).collect()),
        Tab::Actors => (&ACTORS, &ACTORS_SPARE, sample.actors.iter().map(actor).collect()),
        Tab::Store => (&STORE, &[], store(&sample.store)),
    };
    Table { columns, spare, rows, ..Table::default() }
}

const WORKERS: [Column; 8] = [
    ("PID", Some(8)),
    ("KIND", Some(6)),
    ("STATE", Some(9)),
    ("RUNS", None),
    ("FOR", Some(8)),
    ("WAITS FOR", None),
    ("CPU%", Some(5)),
    ("MEMORY", Some(9)),
];
/// Memory, processor time, kind and state: what runs and what it waits for say more.
const WORKERS_SPARE: [usize; 4] = [7, 6, 1, 2];

fn worker(row: &WorkerRow) -> Row {
    let waits: Vec<String> =
        row.waits.iter().map(|wait| format!("{} {}", wait.what, seconds(wait.for_s))).collect();
    let is_dead = row.state == "dead";
    Row {
        key: row.pid.to_string(),
        cells: vec![
            Cell::number(Some(row.pid.into()), |pid| format!("{pid}")),
            Cell::text(&row.kind),
            Cell::text(&row.state),
            Cell::text(row.function.as_deref().unwrap_or("")),
            Cell::number(row.running_s, seconds),
            Cell::text(with_sizes(&waits.join(", "))),
            Cell::number(row.cpu_percent, |percent| format!("{percent:.0}")),
            Cell::number(row.memory_bytes.map(|bytes| bytes as f64), bytes),
        ],
        pid: (!is_dead).then_some(row.pid),
        task: row.task.clone().filter(|_| !is_dead),
        target: (!is_dead && row.kind != "driver").then(|| row.pid.to_string()),
        is_dim: is_dead || row.state == "idle",
        is_strong: false,
    }
}

const FUNCTIONS: [Column; 8] = [
    ("FUNCTION", None),
    ("CALLS/S", Some(8)),
    ("FAIL/S", Some(7)),
    ("RUN", Some(5)),
    ("WAIT", Some(6)),
    ("P50", Some(8)),
    ("P99", Some(8)),
    ("FAILED", Some(7)),
];
const FUNCTIONS_SPARE: [usize; 6] = [6, 2, 7, 3, 4, 5];

fn function(row: &FunctionRow) -> Row {
    Row {
        key: row.function.clone(),
        cells: vec![
            Cell::text(&row.function),
            Cell::number(row.calls_per_s, rate),
            Cell::number(row.failures_per_s, rate),
            Cell::number(Some(row.running as f64), whole),
            Cell::number(row.pending.map(|count| count as f64), whole),
            Cell::number(row.p50_s, seconds),
            Cell::number(row.p99_s, seconds),
            Cell::number(Some(row.failed as f64), whole),
        ],
        is_strong: row.failures_per_s.is_some_and(|failures| failures > 0.0),
        ..Row::default()
    }
}

const ACTORS: [Column; 8] = [
    ("ACTOR", Some(6)),
    ("CLASS", None),
    ("NAME", None),
    ("STATE", Some(12)),
    ("PID", Some(8)),
    ("QUEUE", Some(6)),
    ("RUN", Some(4)),
    ("RUNS", None),
];
const ACTORS_SPARE: [usize; 5] = [6, 2, 4, 0, 7];

fn actor(row: &ActorRow) -> Row {
    let is_dead = row.state == "dead";
    Row {
        key: row.actor.to_string(),
        cells: vec![
            // In a session that drivers share, the upper half of the number identifies the driver.
            Cell::number(Some(row.actor as f64), |_| (row.actor & 0xffff_ffff).to_string()),
            Cell::text(&row.class),
            Cell::text(row.name.as_deref().unwrap_or("")),
            Cell::text(&row.state),
            Cell::number(row.pid.map(f64::from), |pid| format!("{pid}")),
            Cell::number(row.queue.map(|queue| queue as f64), whole),
            Cell::number(row.in_flight.map(|calls| calls as f64), whole),
            Cell::text(row.function.as_deref().unwrap_or("")),
        ],
        pid: row.pid.filter(|_| !is_dead),
        task: None,
        target: (!is_dead).then(|| format!("actor:{}", row.actor)),
        is_dim: is_dead,
        is_strong: false,
    }
}

const STORE: [Column; 2] = [("STORE", Some(24)), ("", None)];

fn store(row: &StoreRow) -> Vec<Row> {
    let size = |size: u64| ByteSize(size).to_string();
    let percent = |part: u64| match row.capacity_bytes {
        0 => String::new(),
        capacity => format!(" ({:.0} %)", part as f64 / capacity as f64 * 100.0),
    };
    let lines = [
        ("capacity", size(row.capacity_bytes)),
        ("in use", size(row.used_bytes) + &percent(row.used_bytes)),
        ("free", size(row.free_bytes) + &percent(row.free_bytes)),
        ("objects", format!("{}, {}", row.objects, size(row.object_bytes))),
        ("leased without objects", size(row.fragment_bytes)),
        ("of dead processes", size(row.orphaned_bytes)),
        ("given back, still mapped", size(row.retired_bytes)),
        ("segments", row.segments.to_string()),
        ("pins", row.pins.to_string()),
        ("names", row.names.to_string()),
        ("spilled", format!("{}, {}", row.spilled_objects, size(row.spilled_bytes))),
        ("spill files", format!("{}, {}", row.spill_files, size(row.spill_file_bytes))),
        ("threads that wait", row.waiting.map_or_else(|| "-".to_owned(), |waiting| waiting.to_string())),
    ];
    let row = |(at, (name, text)): (usize, (&str, String))| Row {
        key: name.to_owned(),
        // In this order.
        cells: vec![
            Cell { text: name.to_owned(), number: Some(at as f64), is_right: false },
            Cell::text(text),
        ],
        ..Row::default()
    };
    lines.into_iter().enumerate().map(row).collect()
}

pub(super) fn bytes(bytes: f64) -> String {
    ByteSize(bytes as u64).to_string()
}

pub(super) fn rate(rate: f64) -> String {
    match rate {
        _ if rate >= 1e6 => format!("{:.1}M", rate / 1e6),
        _ if rate >= 1e4 => format!("{:.1}k", rate / 1e3),
        _ if rate >= 100.0 => format!("{rate:.0}"),
        _ => format!("{rate:.1}"),
    }
}

fn whole(number: f64) -> String {
    format!("{number:.0}")
}
