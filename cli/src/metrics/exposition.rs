//! OpenMetrics text, by the crate `prometheus-client`.

use std::collections::{BTreeMap, HashSet};
use std::fmt;

use mobula_runtime::metrics::MetricSeries;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::{Registry, Unit};

use super::user;
use crate::live::sample::{ActorRow, FunctionRow, Sample, WorkerRow};

/// Names and values of labels.
pub(super) type Labels = Vec<(String, String)>;

/// The text for a look.
pub(super) fn text(sample: Sample, of_program: &[MetricSeries]) -> String {
    let living =
        sample.workers.iter().filter(|worker| worker.state != "dead").map(|worker| worker.pid).collect();
    let families = user::families(of_program, &living);
    written(OfSession { sample: Some(sample), families })
}

/// The text if there is no session that answers.
pub(super) fn down() -> String {
    written(OfSession { sample: None, families: Vec::new() })
}

fn written(collector: OfSession) -> String {
    let mut registry = Registry::default();
    registry.register_collector(Box::new(collector));
    let mut text = String::new();
    // Writing into a text cannot fail.
    let _ = encode(&mut text, &registry);
    text
}

#[derive(Debug)]
struct OfSession {
    sample: Option<Sample>,
    families: Vec<user::Family>,
}

/// A value of a family, with the labels that distinguish it from the others.
type Values = Vec<(Labels, f64)>;

fn labels<const N: usize>(pairs: [(&str, &dyn fmt::Display); N]) -> Labels {
    pairs.map(|(name, value)| (name.to_owned(), value.to_string())).into()
}

/// Writes the families.
struct Writer<'a>(DescriptorEncoder<'a>);

impl Writer<'_> {
    fn gauge(&mut self, name: &str, help: &str, unit: Option<&Unit>, values: Values) -> fmt::Result {
        self.family(name, help, unit, MetricType::Gauge, values)
    }

    fn counter(&mut self, name: &str, help: &str, unit: Option<&Unit>, values: Values) -> fmt::Result {
        self.family(name, help, unit, MetricType::Counter, values)
    }

    fn family(
        &mut self,
        name: &str,
        help: &str,
        unit: Option<&Unit>,
        kind: MetricType,
        values: Values,
    ) -> fmt::Result {
        if values.is_empty() {
            return Ok(());
        }
        let mut family = self.0.encode_descriptor(name, help, unit, kind)?;
        for (labels, value) in values {
            let encoder = family.encode_family(&labels)?;
            match kind {
                MetricType::Counter => ConstCounter::new(value).encode(encoder)?,
                _ => ConstGauge::new(value).encode(encoder)?,
            }
        }
        Ok(())
    }
}

impl Collector for OfSession {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let mut to = Writer(encoder);
        let up = f64::from(u8::from(self.sample.is_some()));
        to.gauge("mobula_up", "Whether there is a session that answers", None, vec![(Vec::new(), up)])?;
        if let Some(sample) = &self.sample {
            processes(sample, &mut to)?;
            functions(sample, &mut to)?;
            actors(sample, &mut to)?;
            store(sample, &mut to)?;
        }
        for family in &self.families {
            family.encode(&mut to.0)?;
        }
        Ok(())
    }
}

fn processes(sample: &Sample, to: &mut Writer<'_>) -> fmt::Result {
    let mut counts: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for row in &sample.workers {
        *counts.entry((&row.kind, &row.state)).or_default() += 1.0;
    }
    let counts = counts
        .into_iter()
        .map(|((kind, state), count)| (labels([("kind", &kind), ("state", &state)]), count));
    to.gauge("mobula_processes", "Processes of the session", None, counts.collect())?;
    // A process that has connected more than once is one: its first row has what it holds.
    let mut pids = HashSet::new();
    let living: Vec<&WorkerRow> =
        sample.workers.iter().filter(|row| row.state != "dead" && pids.insert(row.pid)).collect();
    let living = || living.iter().copied();
    let of = |row: &WorkerRow| labels([("kind", &row.kind), ("pid", &row.pid)]);
    let memory = living().filter_map(|row| Some((of(row), row.memory_bytes? as f64)));
    to.gauge(
        "mobula_process_memory",
        "Memory of a process, without the store and without mapped files",
        Some(&Unit::Bytes),
        memory.collect(),
    )?;
    let cpu = living().filter_map(|row| Some((of(row), row.cpu_percent? / 100.0)));
    to.gauge(
        "mobula_process_cpu",
        "Processors that a process uses, since the last reading",
        Some(&Unit::Other("ratio".to_owned())),
        cpu.collect(),
    )?;
    let leased = living().map(|row| (of(row), row.leased_bytes as f64));
    to.gauge(
        "mobula_process_leased",
        "Store memory that a process has leased",
        Some(&Unit::Bytes),
        leased.collect(),
    )?;
    let waiting = living().map(|row| (of(row), row.waits.len() as f64));
    to.gauge("mobula_process_waiting_threads", "Threads of a process that wait", None, waiting.collect())?;
    let total = sample.resources.iter().map(|row| (labels([("resource", &row.name)]), row.total));
    to.gauge("mobula_resource_capacity", "Amount of a resource", None, total.collect())?;
    let used = sample.resources.iter().map(|row| (labels([("resource", &row.name)]), row.used));
    to.gauge("mobula_resource_used", "Amount of a resource that is in use", None, used.collect())?;
    let wanted = sample.wanted.iter().map(|row| u64::from(row.workers)).sum::<u64>() as f64;
    to.gauge("mobula_workers_wanted", "Workers that calls wait for", None, vec![(Vec::new(), wanted)])
}

fn functions(sample: &Sample, to: &mut Writer<'_>) -> fmt::Result {
    type Of = fn(&FunctionRow) -> f64;
    let all = |of: Of| {
        let values = sample.functions.iter().map(|row| (labels([("function", &row.function)]), of(row)));
        values.collect::<Values>()
    };
    let made = "Calls that were made, or that have begun where the callers do not count them";
    to.counter("mobula_tasks_made", made, None, all(|row| row.made as f64))?;
    to.counter("mobula_tasks_finished", "Calls that have succeeded", None, all(|row| row.finished as f64))?;
    to.counter("mobula_tasks_failed", "Calls that have failed", None, all(|row| row.failed as f64))?;
    let pending = sample.functions.iter().filter_map(|row| {
        let pending = row.pending?;
        Some((labels([("function", &row.function)]), pending as f64))
    });
    to.gauge("mobula_tasks_pending", "Calls that wait", None, pending.collect())?;
    to.gauge("mobula_tasks_running", "Calls that run", None, all(|row| row.running as f64))?;
    let help = "Time for which calls have run";
    to.counter("mobula_task_run", help, Some(&Unit::Seconds), all(|row| row.total_s))?;
    let mut quantiles = Vec::new();
    for row in &sample.functions {
        for (quantile, time) in [("0.5", row.p50_s), ("0.99", row.p99_s), ("1", row.max_s)] {
            if let Some(time) = time {
                quantiles.push((labels([("function", &row.function), ("quantile", &quantile)]), time));
            }
        }
    }
    let help = "Run time that this part of the calls did not exceed, since the session began";
    to.gauge("mobula_task_duration", help, Some(&Unit::Seconds), quantiles)
}

fn actors(sample: &Sample, to: &mut Writer<'_>) -> fmt::Result {
    let mut counts: BTreeMap<(&str, &str), f64> = BTreeMap::new();
    for row in &sample.actors {
        *counts.entry((&row.class, &row.state)).or_default() += 1.0;
    }
    let counts = counts
        .into_iter()
        .map(|((class, state), count)| (labels([("class", &class), ("state", &state)]), count));
    to.gauge("mobula_actors", "Actors", None, counts.collect())?;
    let living = || sample.actors.iter().filter(|row| row.state != "dead");
    let of = |row: &ActorRow| {
        let name = row.name.as_deref().unwrap_or("");
        labels([("actor", &row.actor), ("class", &row.class), ("name", &name)])
    };
    let queue = living().filter_map(|row| Some((of(row), row.queue? as f64)));
    to.gauge("mobula_actor_pending_tasks", "Calls that wait for an actor", None, queue.collect())?;
    let running = living().filter_map(|row| Some((of(row), row.in_flight? as f64)));
    to.gauge("mobula_actor_running_tasks", "Calls that an actor runs", None, running.collect())?;
    let restarts = living().map(|row| (of(row), f64::from(row.restarts)));
    to.counter("mobula_actor_restarts", "Restarts of an actor", None, restarts.collect())
}

fn store(sample: &Sample, to: &mut Writer<'_>) -> fmt::Result {
    let store = &sample.store;
    for (name, help, bytes) in [
        ("mobula_store_capacity", "Memory of the store", store.capacity_bytes),
        ("mobula_store_free", "Memory of the store that can be leased", store.free_bytes),
        ("mobula_store_leased", "Memory of the store that processes have leased", store.leased_bytes),
        ("mobula_store_orphaned", "Memory with objects of dead processes", store.orphaned_bytes),
        ("mobula_store_retired", "Memory that was given back and is still mapped", store.retired_bytes),
        ("mobula_store_objects", "Objects in memory", store.object_bytes),
        ("mobula_store_fragments", "Leased memory without objects", store.fragment_bytes),
        ("mobula_store_spilled", "Objects on disk", store.spilled_bytes),
        ("mobula_store_spill_files", "Spill files", store.spill_file_bytes),
    ] {
        to.gauge(name, help, Some(&Unit::Bytes), vec![(Vec::new(), bytes as f64)])?;
    }
    for (name, help, number) in [
        ("mobula_store_object_count", "Objects", store.objects),
        ("mobula_store_spilled_object_count", "Objects on disk", store.spilled_objects),
        ("mobula_store_segment_count", "Segments", store.segments.into()),
        ("mobula_store_pin_count", "Pins of processes on objects", store.pins),
        ("mobula_store_name_count", "Named objects", store.names),
    ] {
        to.gauge(name, help, None, vec![(Vec::new(), number as f64)])?;
    }
    let waiting = store.waiting.map(|waiting| (Vec::new(), waiting as f64));
    let help = "Threads that wait for memory of the store";
    to.gauge("mobula_store_waiting_threads", help, None, waiting.into_iter().collect())
}
