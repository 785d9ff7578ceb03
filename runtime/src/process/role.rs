//! The role of a process that a session starts: a worker, the store, the process of a session that drivers share, or a
//! head that keeps the detached actors of a driver there.
//!
//! The role is in the last argument and not in the environment. So a process that a worker starts does not inherit the
//! role.

use std::ffi::OsString;

use crate::environment::Told;
use crate::launch::Launch;
use crate::process::lifeline::WatchedNumbers;
use crate::resources::Resources;
use crate::wire;

/// The prefix of the last argument of a worker and of an embedded store. It is the first one of a Rust program.
pub const ROLE: &str = "mobula-role=";

/// The role of a started process. It is in the process's last argument, as hexadecimal digits.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) enum Role {
    Worker(WorkerRole),
    Store(StoreRole),
    Session(SessionRole),
    Head(HeadRole),
}

/// A worker or actor process.
#[derive(Debug, serde::Serialize, serde::Deserialize)]
pub(crate) struct WorkerRole {
    pub(crate) socket: OsString,
    pub(crate) head: mobula_client::OwnerId,
    /// The number by which the head knows the process.
    pub(crate) token: u64,
    pub(crate) lifeline: WatchedNumbers,
    /// Whether it labels its output, because a process reads it.
    pub(crate) labels_output: bool,
    /// The resources of the session.
    pub(crate) resources: Resources,
    pub(crate) spin: std::time::Duration,
    /// The description of its environment, from [`Environment::told`](crate::environment::Environment::told).
    pub(crate) environment: Told,
    /// The namespace of actors for which none is named.
    pub(crate) namespace: String,
    /// The names of the GPUs that it can use.
    pub(crate) gpus: Vec<String>,
}

/// The embedded store.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct StoreRole {
    pub(crate) socket: OsString,
    pub(crate) capacity_bytes: u64,
    pub(crate) clients_max: u32,
    pub(crate) spill_directory: Option<OsString>,
    /// The most bytes of spill files. `None`: the store's default.
    pub(crate) spill_bytes_max: Option<u64>,
    pub(crate) lifeline: WatchedNumbers,
    /// The link to the session's directory. It is removed with the directory.
    pub(crate) link: Option<OsString>,
}

/// The process of a session that drivers share. A file of the directory has all other data.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct SessionRole {
    /// The session's directory.
    pub(crate) directory: OsString,
}

/// The head of a driver's detached actors, in a session that drivers share. The driver starts it.
#[derive(Debug, Clone, serde::Serialize, serde::Deserialize)]
pub(crate) struct HeadRole {
    /// The session's directory.
    pub(crate) directory: OsString,
    /// The driver's head. This head stays while that one lives.
    pub(crate) driver: mobula_client::OwnerId,
    /// Descriptors that the process inherits from the driver, and closes.
    pub(crate) lifeline: WatchedNumbers,
    /// The program of the workers, and that of the session's process.
    pub(crate) launch: Launch,
    pub(crate) store_launch: Launch,
    /// The most processes.
    pub(crate) processes_max: usize,
    pub(crate) build_id: u64,
    pub(crate) forward_output: bool,
    /// The directory of log files, and their most bytes.
    pub(crate) log_dir: Option<OsString>,
    pub(crate) log_bytes_max: u64,
    pub(crate) spin: std::time::Duration,
    pub(crate) namespace: String,
}

impl Role {
    /// The role in the text behind [`ROLE`]; `None` if it is of another build.
    pub(crate) fn from_text(text: &str) -> Option<Self> {
        let pairs = text.as_bytes().chunks(2);
        let bytes: Option<Vec<u8>> =
            pairs.map(|pair| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok()).collect();
        wire::read(&bytes?).ok()
    }

    /// The role as an argument of the process.
    pub(crate) fn to_argument(&self) -> String {
        let digits: String = wire::to_vec(self).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{ROLE}{digits}")
    }
}
