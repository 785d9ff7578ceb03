//! The options of a session.

use std::path::PathBuf;
use std::time::Duration;

use super::surroundings;
use crate::error::{Error, Result};
use crate::mail::spin::SPIN_DEFAULT;
use crate::process::launch::Launch;

/// The options of a session, as a front fills them in.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct SessionOptions {
    /// Calls of functions that run at the same time: so many worker processes, and more while some of them wait for
    /// results of others. From 1 to 1000.
    pub workers: usize,
    /// Processes that the session may have at a time, actors included; more than `workers`. `None`: what the limits of
    /// this process, its control groups and the machine have room for.
    pub max_processes: Option<usize>,
    /// The capacity of the store in bytes. `None`: 30 % of the memory that this process may have.
    pub capacity_bytes: Option<u64>,
    /// The directory for objects that are held but not in use when the store is full. `None`: `/var/tmp`, if it exists.
    pub spill_directory: Option<PathBuf>,
    /// The most bytes of such objects on the disk. `None`: eight times the capacity.
    pub spill_bytes_max: Option<u64>,
    /// The directory in which the session's directory is made. `None`: the user's runtime directory.
    pub session_dir: Option<PathBuf>,
    /// Whether the output of workers appears in this process's output, with a prefix.
    pub forward_output: bool,
    /// The longest time for which a waiting process looks for mail before it sleeps.
    pub spin: Duration,
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
            workers: std::thread::available_parallelism().map_or(1, std::num::NonZeroUsize::get),
            max_processes: None,
            capacity_bytes: None,
            spill_directory: None,
            spill_bytes_max: None,
            session_dir: None,
            forward_output: true,
            spin: SPIN_DEFAULT,
            store_launch: launch.clone(),
            launch,
            build_id,
        }
    }

    /// Refuses what cannot be.
    pub(super) fn check(&self) -> Result<()> {
        let cannot = |field, value: String, expected: &str| {
            Err(Error::Config { field, value, expected: expected.to_owned() })
        };
        if self.workers == 0 || self.workers > 1000 {
            return cannot("workers", self.workers.to_string(), "between 1 and 1000 processes");
        }
        if let Some(max) = self.max_processes
            && (max <= self.workers || max > surroundings::PROCESSES_MAX)
        {
            let expected =
                format!("more than the {} workers, at most {}", self.workers, surroundings::PROCESSES_MAX);
            return cannot("max_processes", max.to_string(), &expected);
        }
        if self.capacity_bytes == Some(0) {
            return cannot("capacity_bytes", "0".into(), "at least 1 byte");
        }
        Ok(())
    }
}
