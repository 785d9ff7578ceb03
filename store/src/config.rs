//! The configuration of a store: every limit is a field of [`Config`], with its unit in its name or its type.
//!
//! A configuration is validated once, when a [`Server`](crate::Server) is bound with it. Later code relies on every
//! limit.

use std::path::{Path, PathBuf};
use std::time::Duration;

use mobula_protocol::size::ByteSize;
use mobula_protocol::socket::MESSAGE_BYTES_MAX;
use mobula_shm::memory::{PAGE_BYTES, round_up_to_pages};
use mobula_shm::table::ENTRIES_MAX;

use crate::error::StartError;
use crate::machine;

/// A day. With this limit, every moment that the store computes can be represented.
const TIMEOUT_MS_MAX: u64 = 24 * 60 * 60 * 1000;

/// The limits of one store. Every field except the first two has a default.
///
/// ```
/// use std::time::Duration;
/// use mobula_store::Config;
///
/// let mut config = Config::new("/run/user/1000/mobula.sock", 2 << 30);
/// config.clients_max = 64;
/// config.orphan_grace = Duration::from_millis(100);
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Where the store listens. The directory must exist, and belong to this user or to root. At the path there must be
    /// nothing, or the socket of a dead store.
    pub socket: PathBuf,
    /// Bytes that may be leased in all, rounded up to whole pages; at most the memory of the [machine], or of this
    /// process's control group. The objects' bytes count; the bookkeeping (tables, pins, channels) does not.
    pub capacity_bytes: u64,
    /// Clients at a time, including dead ones whose objects remain. Default 1024, at most 65,535.
    pub clients_max: u32,
    /// Connections without a hello; when more come, the oldest are closed. Default 256.
    pub greetings_max: usize,
    /// How long a connection may wait before it sends its hello. Default 5 s.
    pub hello_timeout: Duration,
    /// Messages that wait for a client to read them. A client for which more messages wait is disconnected. Default
    /// 4096.
    pub out_queue_messages_max: usize,
    /// Bytes of the messages that wait for a client to read them, likewise. Default 4 MiB.
    pub out_queue_bytes_max: usize,
    /// Bytes that one client may have leased. Segments that it has given back count while others have them mapped.
    /// Default: the capacity.
    pub client_bytes_max: u64,
    /// Bytes that all clients of one user may have leased together, dead ones included. Default: the capacity.
    pub user_bytes_max: u64,
    /// Bytes of all tables, pins and channels, which the capacity does not count. Default 4 GiB.
    pub bookkeeping_bytes_max: u64,
    /// Bytes of each of the two rings of a channel: a power of two, at least a page. Default 64 KiB.
    pub ring_bytes: u32,
    /// Channels between clients, in all. Default 16,384.
    pub channels_max: usize,
    /// Channels of one client, which count for both ends. Default 4096.
    pub channels_client_max: usize,
    /// Entries of a new client's table that have memory behind them; more follow on request. Default 512.
    pub table_entries_initial: u32,
    /// Entries of one client's table: objects that it can have at a time. Default, and at most, 4,194,304.
    pub table_entries_max: u32,
    /// Owners whose objects one client can use at a time; each costs it pins, as many as that owner's table has
    /// entries. Default 65,535.
    pub attached_client_max: usize,
    /// Segments, in all; each costs the daemon one or two descriptors. Default 16,384.
    pub segments_max: usize,
    /// Segments of one client. Default 8192.
    pub segments_client_max: usize,
    /// Named objects. Default 65,536.
    pub names_max: usize,
    /// Requests of one client that wait, for memory or for a name. Default 1024.
    pub waiters_max: usize,
    /// How long later requests for less memory may pass a waiting request. After that, the request has a reservation
    /// for the same time, and they may not pass it. Default 500 ms.
    pub lease_reservation: Duration,
    /// Dead clients whose events can still be read, the last ones to die. Each takes up to 1 MiB of memory beside the
    /// capacity. Default 32.
    pub recorders_max: usize,
    /// How long orphans are kept although no client pins them, because their ids may still be on their way to a client.
    /// Default 1 s.
    pub orphan_grace: Duration,
    /// Entries of a dead client's table that the daemon looks at before it serves other clients. Default 65,536.
    pub sweep_entries_max: u32,
    /// How long a store that takes the place of a killed one waits for those clients of the killed store whose
    /// processes are alive. It accepts new clients afterwards. Default 5 s.
    pub resume_window: Duration,
    /// How long such a store waits for the first of these clients. Before one comes, the store cannot know whether any
    /// of them is alive, and new clients wait as well. Choose [`resume_window`](Self::resume_window) where a client is
    /// known to be alive, as the driver of a session is. Default 1 s.
    pub first_resume_window: Duration,
    /// References recorded in the objects of one dead client that are followed. Default 1,048,576.
    pub references_max: usize,
    /// Directory for spilled objects: those that are held but not in use when the store is full. The store makes a
    /// directory of its own in it. It must exist, and belong to this user or to root; a symbolic link is refused.
    /// Should not be in memory itself, as `tmpfs` is. Default `None`: nothing is spilled, and a store that is full
    /// stays full.
    pub spill_directory: Option<PathBuf>,
    /// Bytes that spilled objects may take in files. Default eight times the capacity.
    pub spill_bytes_max: u64,
    /// Files of spilled objects; each costs the daemon and its owner a descriptor. Default 4096.
    pub spill_files_max: usize,
}

impl Config {
    /// The defaults, for a store that listens at `socket` and leases up to `capacity_bytes`.
    pub fn new(socket: impl Into<PathBuf>, capacity_bytes: u64) -> Self {
        Self {
            socket: socket.into(),
            capacity_bytes,
            clients_max: 1024,
            greetings_max: 256,
            hello_timeout: Duration::from_secs(5),
            out_queue_messages_max: 4096,
            out_queue_bytes_max: 4 << 20,
            client_bytes_max: u64::MAX,
            user_bytes_max: u64::MAX,
            bookkeeping_bytes_max: 4 << 30,
            ring_bytes: 64 << 10,
            channels_max: 16_384,
            channels_client_max: 4096,
            table_entries_initial: 512,
            table_entries_max: ENTRIES_MAX,
            attached_client_max: 65_535,
            segments_max: 16_384,
            segments_client_max: 8192,
            names_max: 65_536,
            waiters_max: 1024,
            lease_reservation: Duration::from_millis(500),
            recorders_max: 32,
            orphan_grace: Duration::from_secs(1),
            sweep_entries_max: 65_536,
            resume_window: Duration::from_secs(5),
            first_resume_window: Duration::from_secs(1),
            references_max: 1 << 20,
            spill_directory: None,
            spill_bytes_max: capacity_bytes.saturating_mul(8),
            spill_files_max: 4096,
        }
    }

    /// The spill directory of a store that was not given one: `/var/tmp`, the usual directory for large temporary
    /// files; `None` on a machine without it.
    pub fn default_spill_directory() -> Option<PathBuf> {
        let path = Path::new("/var/tmp");
        std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()).then(|| path.to_owned())
    }

    /// The configuration as the store will use it, with the capacity in whole pages, and paths that stay the same when
    /// the process changes its directory.
    ///
    /// # Errors
    /// [`StartError`] with the first value that is impossible.
    pub fn validate(mut self) -> Result<Self, StartError> {
        if self.capacity_bytes == 0 {
            return Err(StartError::CapacityZero);
        }
        let memory = machine::memory_bytes();
        let capacity = round_up_to_pages(self.capacity_bytes).unwrap_or(u64::MAX);
        if let Some(memory) = memory.filter(|memory| capacity > *memory) {
            return Err(StartError::CapacityAboveMemory {
                capacity: ByteSize(self.capacity_bytes),
                memory: ByteSize(memory),
            });
        }
        self.capacity_bytes = capacity;
        let absolute =
            |path: &Path| std::path::absolute(path).map_err(StartError::system("find the directory"));
        self.socket = absolute(&self.socket)?;
        self.spill_directory = self.spill_directory.as_deref().map(absolute).transpose()?;
        let within = |limit: &'static str, value: u64, min: u64, max: u64| {
            if (min..=max).contains(&value) {
                Ok(())
            } else {
                Err(StartError::Limit { limit, value, min, max })
            }
        };
        within("clients_max", u64::from(self.clients_max), 1, u64::from(u16::MAX))?;
        within("greetings_max", self.greetings_max as u64, 1, u64::MAX)?;
        within("out_queue_messages_max", self.out_queue_messages_max as u64, 1, u64::MAX)?;
        within("out_queue_bytes_max", self.out_queue_bytes_max as u64, MESSAGE_BYTES_MAX as u64, u64::MAX)?;
        within("ring_bytes", u64::from(self.ring_bytes), PAGE_BYTES, 1 << 30)?;
        if !self.ring_bytes.is_power_of_two() {
            return Err(StartError::RingNotPowerOfTwo { value: self.ring_bytes });
        }
        let entries = u64::from(self.table_entries_initial);
        within("table_entries_max", u64::from(self.table_entries_max), 1, u64::from(ENTRIES_MAX))?;
        within("table_entries_initial", entries, 1, u64::from(self.table_entries_max))?;
        within("client_bytes_max", self.client_bytes_max, PAGE_BYTES, u64::MAX)?;
        within("user_bytes_max", self.user_bytes_max, PAGE_BYTES, u64::MAX)?;
        for (limit, value) in [
            ("hello_timeout in ms", self.hello_timeout),
            ("lease_reservation in ms", self.lease_reservation),
            ("orphan_grace in ms", self.orphan_grace),
            ("resume_window in ms", self.resume_window),
            ("first_resume_window in ms", self.first_resume_window),
        ] {
            within(limit, u64::try_from(value.as_millis()).unwrap_or(u64::MAX), 0, TIMEOUT_MS_MAX)?;
        }
        within("names_max", self.names_max as u64, 0, 1 << 30)?;
        within("sweep_entries_max", u64::from(self.sweep_entries_max), 1, u64::from(u32::MAX))?;
        Ok(self)
    }

    /// Slots of every control memory: the clients' and, with number 0, the daemon's own.
    pub(crate) fn slots(&self) -> u32 {
        self.clients_max + 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> Config {
        Config::new("/tmp/mobula.sock", 1 << 20)
    }

    #[test]
    fn a_capacity_is_rounded_up_to_whole_pages() {
        let valid = Config { capacity_bytes: 1, ..config() }.validate().unwrap();
        assert_eq!(valid.capacity_bytes, PAGE_BYTES);
    }

    #[test]
    fn paths_become_absolute() {
        let here = std::env::current_dir().unwrap();
        let relative =
            Config { spill_directory: Some("spill".into()), ..Config::new("rel/store.sock", 1 << 20) };
        let valid = relative.validate().unwrap();
        assert_eq!(valid.socket, here.join("rel/store.sock"));
        assert_eq!(valid.spill_directory, Some(here.join("spill")));
    }

    #[test]
    fn impossible_values_are_named() {
        let check = |config: Config, expected: &str| {
            let error = config.validate().unwrap_err().to_string();
            assert!(error.contains(expected), "{error:?} does not say {expected:?}");
        };
        check(Config { capacity_bytes: 0, ..config() }, "capacity of 0 bytes");
        check(Config { capacity_bytes: u64::MAX, ..config() }, "TiB");
        check(Config { capacity_bytes: 1 << 60, ..config() }, "1048576 TiB");
        check(Config { clients_max: 0, ..config() }, "clients_max");
        check(Config { clients_max: 65_536, ..config() }, "65535");
        check(Config { ring_bytes: 1024, ..config() }, "ring_bytes");
        check(Config { ring_bytes: 12_288, ..config() }, "power of two");
        check(Config { orphan_grace: Duration::MAX, ..config() }, "orphan_grace");
        check(Config { table_entries_initial: 0, ..config() }, "table_entries_initial");
        check(Config { table_entries_max: 100, ..config() }, "table_entries_initial = 512");
        check(Config { table_entries_max: u32::MAX, ..config() }, "table_entries_max");
        check(Config { client_bytes_max: 0, ..config() }, "client_bytes_max");
        check(Config { user_bytes_max: 1, ..config() }, "user_bytes_max");
    }
}
