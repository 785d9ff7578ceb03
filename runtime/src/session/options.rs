//! The options of a session.

use std::path::PathBuf;
use std::time::Duration;

use super::gpus::{Found, GPUS_MAX};
use super::surroundings;
use crate::call::options::UNLIMITED;
use crate::environment::VISIBLE_GPUS;
use crate::error::{Error, Result};
use crate::head::MemoryOptions;
use crate::launch::Launch;
use crate::process::output::OutputSink;
use crate::resources::{Amounts, Resources};

/// The most workers that are kept.
const WORKERS_MAX: usize = 1000;
/// The share of the memory that may be in use, and how often the monitor looks: Ray has the same defaults.
const MEMORY_USAGE_THRESHOLD: f64 = 0.95;
const MEMORY_MONITOR_INTERVAL: Duration = Duration::from_millis(250);

/// The most bytes of log files.
pub(super) const LOG_BYTES_MAX: u64 = 64 << 20;

/// The options of a session, as a front fills them in. Environment variables give those that are `None`.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionOptions {
    /// The worker processes that are kept for calls of functions; more start when resources are free for more calls.
    /// From 1 to 1000. `None`: one for each CPU.
    pub workers: Option<usize>,
    /// The resources that calls and actors can demand. The default number of CPUs is one for each of the `workers`, or
    /// the number that this process may run on. The default GPUs are those that are found. The default memory is that
    /// of the machine without the store's capacity.
    pub amounts: Amounts,
    /// The GPUs that were found.
    pub(super) gpus: Found,
    /// Processes that the session may have at a time, actors included; more than `workers`. `None`: the number for
    /// which the limits of this process, its control groups and the machine have room.
    pub max_processes: Option<usize>,
    /// The capacity of the store in bytes. `None`: 30 % of the memory that this process may have.
    pub capacity_bytes: Option<u64>,
    /// The directory for objects that are held but not in use when the store is full. `None`: `/var/tmp`, if it exists.
    pub spill_directory: Option<PathBuf>,
    /// The most bytes of such objects on the disk. `None`: eight times the capacity.
    pub spill_bytes_max: Option<u64>,
    /// The session to join, which drivers share: `auto`, its directory, or its store's socket. `None`: a session of
    /// this process alone.
    pub address: Option<PathBuf>,
    /// The directory in which the session's directory is made. `None`: the user's runtime directory.
    pub session_dir: Option<PathBuf>,
    /// The namespace of named actors whose options name none. `None`: "default".
    pub namespace: Option<String>,
    /// Whether the output of workers appears in this process's output, with a prefix. `None`: yes.
    pub forward_output: Option<bool>,
    /// The directory that keeps the log files of workers after the end of the session. `None`: they are removed with
    /// the session.
    pub log_dir: Option<PathBuf>,
    /// The most bytes of log files. 0: no log files. `None`: 64 MiB.
    pub log_bytes_max: Option<u64>,
    /// The function that gets the output, in place of this process's output.
    pub output: Option<OutputSink>,
    /// The longest time for which a waiting process looks for mail before it sleeps. `None`: 30 µs.
    pub spin: Option<Duration>,
    /// The share of the memory, of the machine or of a control group, that may be in use before a worker is ended. More
    /// than 0, at most 1. `None`: 0.95.
    pub memory_usage_threshold: Option<f64>,
    /// The time between two looks at the memory that is in use. With zero there are no looks. `None`: 250 ms.
    pub memory_monitor_interval: Option<Duration>,
    /// How often a call whose worker was ended because memory was short is retried, if it may be retried at all.
    /// `None`: without limit.
    pub task_oom_retries: Option<u32>,
    /// The directory that the system's files about memory are in. For tests.
    #[doc(hidden)]
    pub memory_root: PathBuf,
    /// The program that workers run. It must have the same `build_id`.
    pub launch: Launch,
    /// The program that the store runs.
    pub store_launch: Launch,
    /// The [`build_id`](crate::Host::build_id) of this process's host.
    pub build_id: u64,
}

impl SessionOptions {
    /// The defaults.
    pub fn new(build_id: u64, launch: Launch) -> Self {
        Self {
            workers: None,
            amounts: Amounts::default(),
            gpus: Found::default(),
            max_processes: None,
            capacity_bytes: None,
            spill_directory: None,
            spill_bytes_max: None,
            address: None,
            session_dir: None,
            namespace: None,
            forward_output: None,
            log_dir: None,
            log_bytes_max: None,
            output: None,
            spin: None,
            memory_usage_threshold: None,
            memory_monitor_interval: None,
            task_oom_retries: None,
            memory_root: "/".into(),
            store_launch: launch.clone(),
            launch,
            build_id,
        }
    }

    /// The resources of the session, whose store has this capacity.
    pub(super) fn resources(&self, capacity_bytes: u64) -> Result<Resources> {
        let machine = || std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get);
        let cpus = self.workers.unwrap_or_else(machine) as f64;
        let memory = mobula_store::machine::memory_bytes().unwrap_or(0).saturating_sub(capacity_bytes);
        let gpus = Some(f64::from(self.gpus.count()));
        let found = Amounts { memory: Some(memory), num_gpus: gpus, ..Amounts::default() };
        self.amounts.clone().or(found).resolve(cpus).map_err(|bad| Error::Config {
            field: bad.field,
            value: bad.value,
            expected: bad.expected,
        })
    }

    /// The names of the session's GPUs.
    pub(super) fn gpu_names(&self) -> Result<Vec<String>> {
        let cannot = |expected: String| {
            let value = self.amounts.num_gpus.unwrap_or_default().to_string();
            Error::Config { field: "num_gpus", value, expected }
        };
        let count = self.amounts.num_gpus.unwrap_or_else(|| self.gpus.count().into());
        if count.fract() != 0.0 || !(0.0..=f64::from(GPUS_MAX)).contains(&count) {
            return Err(cannot(format!("a whole number of GPUs, at most {GPUS_MAX}")));
        }
        let visible = self.gpus.count();
        let expected = || cannot(format!("at most the {visible} that {VISIBLE_GPUS} names"));
        self.gpus.names(count as u32).ok_or_else(expected)
    }

    /// The workers that are kept in a session of this process's own.
    fn workers(&self) -> usize {
        self.workers_for(&self.resources(0).unwrap_or_default())
    }

    /// The workers that are kept in a session with these resources.
    pub(super) fn workers_for(&self, resources: &Resources) -> usize {
        self.workers.unwrap_or_else(|| resources.cpus_ceiling().clamp(1, WORKERS_MAX))
    }

    /// The most processes, including the `workers` that are kept.
    pub(super) fn processes_max(&self, workers: usize) -> usize {
        self.max_processes.unwrap_or_else(|| surroundings::default_processes_max(workers))
    }

    /// The options of the memory monitor.
    pub(super) fn memory(&self) -> MemoryOptions {
        MemoryOptions {
            threshold: self.memory_usage_threshold.unwrap_or(MEMORY_USAGE_THRESHOLD),
            interval: self.memory_monitor_interval.unwrap_or(MEMORY_MONITOR_INTERVAL),
            retries: self.task_oom_retries.unwrap_or(UNLIMITED),
            root: self.memory_root.clone(),
        }
    }

    /// Refuses options that a session which is joined has already.
    pub(super) fn check_joining(&self) -> Result<()> {
        let given = [
            ("num_cpus", self.amounts.num_cpus.map(|cpus| cpus.to_string())),
            ("num_gpus", self.amounts.num_gpus.map(|gpus| gpus.to_string())),
            ("memory", self.amounts.memory.map(|bytes| bytes.to_string())),
            ("resources", self.amounts.resources.as_ref().map(|given| format!("{given:?}"))),
            ("capacity_bytes", self.capacity_bytes.map(|bytes| bytes.to_string())),
            ("spill_directory", self.spill_directory.as_ref().map(|path| path.display().to_string())),
            ("spill_bytes_max", self.spill_bytes_max.map(|bytes| bytes.to_string())),
        ];
        match given.into_iter().find_map(|(field, value)| Some((field, value?))) {
            Some((field, value)) => Err(Error::Config {
                field,
                value,
                expected: "a session that is joined has its own: give this option to `mobula start`"
                    .to_owned(),
            }),
            None => Ok(()),
        }
    }

    /// Refuses invalid options.
    pub(super) fn check(&self) -> Result<()> {
        let cannot = |field, value: String, expected: &str| {
            Err(Error::Config { field, value, expected: expected.to_owned() })
        };
        if let Some(workers) = self.workers.filter(|workers| !(1..=WORKERS_MAX).contains(workers)) {
            return cannot("workers", workers.to_string(), "between 1 and 1000 processes");
        }
        self.resources(0)?;
        self.gpu_names()?;
        let workers = self.workers();
        if let Some(max) = self.max_processes
            && (max <= workers || max > surroundings::PROCESSES_MAX)
        {
            let expected =
                format!("more than the {workers} workers, at most {}", surroundings::PROCESSES_MAX);
            return cannot("max_processes", max.to_string(), &expected);
        }
        if let Some(share) = self.memory_usage_threshold.filter(|share| !(*share > 0.0 && *share <= 1.0)) {
            return cannot("memory_usage_threshold", share.to_string(), "more than 0, at most 1");
        }
        if self.namespace.as_deref() == Some("") {
            return cannot("namespace", "\"\"".into(), "text of at least one character");
        }
        if self.capacity_bytes == Some(0) {
            return cannot("capacity_bytes", "0".into(), "at least 1 byte");
        }
        Ok(())
    }
}
