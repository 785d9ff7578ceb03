//! The configuration of a store: [`Config`] has a setter for every limit, with the unit in its name or its type.
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

/// The configuration of one store: where it listens, how much memory it leases, and its other limits, each with a
/// default. A setter takes the configuration and returns it, and [`Server::bind`](crate::Server::bind) checks it.
///
/// ```
/// use std::time::Duration;
/// use mobula_store::{Config, Server};
///
/// # let directory = tempfile::tempdir()?;
/// # let socket = directory.path().join("mobula.sock");
/// let config = Config::new(&socket, 64 << 20).clients_max(64).orphan_grace(Duration::from_millis(100));
/// let server = Server::bind(config)?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq)]
#[must_use = "a configuration has no effect before a store is bound with it"]
pub struct Config {
    pub(crate) socket: PathBuf,
    pub(crate) capacity_bytes: u64,
    pub(crate) clients_max: u32,
    pub(crate) greetings_max: usize,
    pub(crate) hello_timeout: Duration,
    pub(crate) out_queue_messages_max: usize,
    pub(crate) out_queue_bytes_max: usize,
    pub(crate) client_bytes_max: u64,
    pub(crate) user_bytes_max: u64,
    pub(crate) bookkeeping_bytes_max: u64,
    pub(crate) ring_bytes: u32,
    pub(crate) channels_max: usize,
    pub(crate) channels_client_max: usize,
    pub(crate) table_entries_initial: u32,
    pub(crate) table_entries_max: u32,
    pub(crate) attached_client_max: usize,
    pub(crate) segments_max: usize,
    pub(crate) segments_client_max: usize,
    pub(crate) names_max: usize,
    pub(crate) waiters_max: usize,
    pub(crate) lease_reservation: Duration,
    pub(crate) recorders_max: usize,
    pub(crate) orphan_grace: Duration,
    pub(crate) sweep_entries_max: u32,
    pub(crate) resume_window: Duration,
    pub(crate) first_resume_window: Duration,
    pub(crate) references_max: usize,
    pub(crate) spill_directory: Option<PathBuf>,
    pub(crate) spill_bytes_max: u64,
    pub(crate) spill_files_max: usize,
}

impl Config {
    /// The defaults, for a store that listens at `socket`, and leases up to `capacity_bytes` in all.
    ///
    /// The socket's directory must exist, and belong to this user or to root. At the path there must be nothing, or the
    /// socket of a dead store. The capacity is rounded up to whole pages. It is at most the memory of the
    /// [machine](crate::machine), or of this process's control group. The objects' bytes count; the bookkeeping
    /// (tables, pins, channels) does not.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).validate()?;
    /// # Ok::<(), mobula_store::StartError>(())
    /// ```
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

    /// The most clients at a time, including dead ones whose objects remain. Every control memory has a slot for each
    /// of them. From 1 to 65,535. Default: 1024.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).clients_max(64);
    /// assert!(config.clients_max(0).validate().is_err());
    /// ```
    pub fn clients_max(mut self, clients: u32) -> Self {
        self.clients_max = clients;
        self
    }

    /// The most connections that have not sent a hello. When more come, the oldest are closed. At least 1. Default:
    /// 256.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).greetings_max(16);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn greetings_max(mut self, connections: usize) -> Self {
        self.greetings_max = connections;
        self
    }

    /// How long a connection may wait before it sends its hello. At most a day. Default: 5 s.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).hello_timeout(Duration::from_secs(1));
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn hello_timeout(mut self, time: Duration) -> Self {
        self.hello_timeout = time;
        self
    }

    /// The most messages that wait for a client to read them. A client for which more wait is disconnected. At least 1.
    /// Default: 4096.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).out_queue_messages_max(256);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn out_queue_messages_max(mut self, messages: usize) -> Self {
        self.out_queue_messages_max = messages;
        self
    }

    /// The most bytes of the messages that wait for a client to read them. A client for which more wait is
    /// disconnected. At least the size of the largest message, 32 KiB. Default: 4 MiB.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).out_queue_bytes_max(1 << 20);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn out_queue_bytes_max(mut self, bytes: usize) -> Self {
        self.out_queue_bytes_max = bytes;
        self
    }

    /// The most bytes that one client may have leased. Segments that it has given back count while others have them
    /// mapped. At least a page, 4 KiB. Default: the capacity.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).client_bytes_max(16 << 20);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn client_bytes_max(mut self, bytes: u64) -> Self {
        self.client_bytes_max = bytes;
        self
    }

    /// The most bytes that all clients of one user may have leased together, dead ones included. At least a page, 4
    /// KiB. Default: the capacity.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).user_bytes_max(32 << 20);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn user_bytes_max(mut self, bytes: u64) -> Self {
        self.user_bytes_max = bytes;
        self
    }

    /// The most bytes of all tables, pins and channels. The capacity does not count them. Default: 4 GiB.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).bookkeeping_bytes_max(256 << 20);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn bookkeeping_bytes_max(mut self, bytes: u64) -> Self {
        self.bookkeeping_bytes_max = bytes;
        self
    }

    /// The bytes of each of the two rings of a channel: a power of two, from a page (4 KiB) to 1 GiB. Default: 64 KiB.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).ring_bytes(16 << 10);
    /// assert!(config.ring_bytes(10_000).validate().is_err()); // no power of two
    /// ```
    pub fn ring_bytes(mut self, bytes: u32) -> Self {
        self.ring_bytes = bytes;
        self
    }

    /// The most channels between clients, in all. Default: 16,384.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).channels_max(1000);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn channels_max(mut self, channels: usize) -> Self {
        self.channels_max = channels;
        self
    }

    /// The most channels of one client. A channel counts for both ends. Default: 4096.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).channels_client_max(100);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn channels_client_max(mut self, channels: usize) -> Self {
        self.channels_client_max = channels;
        self
    }

    /// The entries of a new client's table that have memory behind them. More follow on request. From 1 to
    /// [`table_entries_max`](Self::table_entries_max). Default: 512.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).table_entries_initial(4096);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn table_entries_initial(mut self, entries: u32) -> Self {
        self.table_entries_initial = entries;
        self
    }

    /// The most entries of one client's table: the objects that it can have at a time. From 1 to 4,194,304. Default:
    /// 4,194,304.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).table_entries_max(100_000);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn table_entries_max(mut self, entries: u32) -> Self {
        self.table_entries_max = entries;
        self
    }

    /// The most owners whose objects one client can use at a time. Each costs it pins, as many as that owner's table
    /// has entries. Default: 65,535.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).attached_client_max(64);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn attached_client_max(mut self, owners: usize) -> Self {
        self.attached_client_max = owners;
        self
    }

    /// The most segments, in all. Each costs the daemon one or two descriptors. Default: 16,384.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).segments_max(1000);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn segments_max(mut self, segments: usize) -> Self {
        self.segments_max = segments;
        self
    }

    /// The most segments of one client. Default: 8192.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).segments_client_max(500);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn segments_client_max(mut self, segments: usize) -> Self {
        self.segments_client_max = segments;
        self
    }

    /// The most named objects. At most 1,073,741,824. Default: 65,536.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).names_max(1_000_000);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn names_max(mut self, names: usize) -> Self {
        self.names_max = names;
        self
    }

    /// The most requests of one client that wait, for memory or for a name. Default: 1024.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).waiters_max(16);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn waiters_max(mut self, requests: usize) -> Self {
        self.waiters_max = requests;
        self
    }

    /// How long later requests for less memory may pass a waiting request. After that, the request has a reservation
    /// for the same time, and they may not pass it. At most a day. Default: 500 ms.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).lease_reservation(Duration::from_millis(50));
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn lease_reservation(mut self, time: Duration) -> Self {
        self.lease_reservation = time;
        self
    }

    /// The most dead clients whose events can still be read: the last ones to die. Each takes up to 1 MiB of memory
    /// beside the capacity. Default: 32.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).recorders_max(0);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn recorders_max(mut self, clients: usize) -> Self {
        self.recorders_max = clients;
        self
    }

    /// How long orphans are kept although no client pins them, because their ids may still be on their way to a client.
    /// At most a day. Default: 1 s.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).orphan_grace(Duration::from_millis(100));
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn orphan_grace(mut self, time: Duration) -> Self {
        self.orphan_grace = time;
        self
    }

    /// The most entries of a dead client's table that the daemon looks at before it serves other clients. At least 1.
    /// Default: 65,536.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).sweep_entries_max(1000);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn sweep_entries_max(mut self, entries: u32) -> Self {
        self.sweep_entries_max = entries;
        self
    }

    /// How long a store that takes the place of a killed one waits for those clients of the killed store whose
    /// processes are alive. It accepts new clients afterwards. At most a day. Default: 5 s.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).resume_window(Duration::from_secs(30));
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn resume_window(mut self, time: Duration) -> Self {
        self.resume_window = time;
        self
    }

    /// How long such a store waits for the first of these clients. Before one comes, the store cannot know whether any
    /// of them is alive, and new clients wait as well. Choose [`resume_window`](Self::resume_window) where a client is
    /// known to be alive, as the driver of a session is. At most a day. Default: 1 s.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # use mobula_store::Config;
    /// let window = Duration::from_secs(30);
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20);
    /// let config = config.resume_window(window).first_resume_window(window);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn first_resume_window(mut self, time: Duration) -> Self {
        self.first_resume_window = time;
        self
    }

    /// The most references, recorded in the objects of one dead client, that are followed. Default: 1,048,576.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20).references_max(10_000);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn references_max(mut self, references: usize) -> Self {
        self.references_max = references;
        self
    }

    /// The directory for spilled objects: those that are held but not in use when the store is full. The store makes a
    /// directory of its own in it. It must exist, and belong to this user or to root; a symbolic link is refused. It
    /// should not be in memory itself, as `tmpfs` is. Default: none; nothing is spilled, and a store that is full stays
    /// full.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let mut config = Config::new("/run/user/1000/mobula.sock", 64 << 20);
    /// if let Some(directory) = Config::default_spill_directory() {
    ///     config = config.spill_directory(directory);
    /// }
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn spill_directory(mut self, directory: impl Into<PathBuf>) -> Self {
        self.spill_directory = Some(directory.into());
        self
    }

    /// The most bytes that spilled objects may take in files. Default: eight times the capacity.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20);
    /// let config = config.spill_directory("/var/tmp").spill_bytes_max(1 << 30);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn spill_bytes_max(mut self, bytes: u64) -> Self {
        self.spill_bytes_max = bytes;
        self
    }

    /// The most files of spilled objects. Each costs the daemon and its owner a descriptor. Default: 4096.
    ///
    /// ```
    /// # use mobula_store::Config;
    /// let config = Config::new("/run/user/1000/mobula.sock", 64 << 20);
    /// let config = config.spill_directory("/var/tmp").spill_files_max(100);
    /// # assert!(config.validate().is_ok());
    /// ```
    pub fn spill_files_max(mut self, files: usize) -> Self {
        self.spill_files_max = files;
        self
    }

    /// The spill directory of a store that was not given one: `/var/tmp`, the usual directory for large temporary
    /// files; `None` on a machine without it.
    ///
    /// ```
    /// let directory = mobula_store::Config::default_spill_directory();
    /// assert!(directory.is_none_or(|directory| directory.is_dir()));
    /// ```
    pub fn default_spill_directory() -> Option<PathBuf> {
        let path = Path::new("/var/tmp");
        std::fs::symlink_metadata(path).is_ok_and(|found| found.is_dir()).then(|| path.to_owned())
    }

    /// The configuration as the store will use it, with the capacity in whole pages, and paths that stay the same when
    /// the process changes its directory. [`Server::bind`](crate::Server::bind) calls it; so only a program that wants
    /// to know earlier does.
    ///
    /// # Errors
    /// [`StartError`] with the first value that is impossible.
    ///
    /// ```
    /// use mobula_store::{Config, StartError};
    ///
    /// let error = Config::new("/run/user/1000/mobula.sock", 0).validate().unwrap_err();
    /// assert!(matches!(error, StartError::CapacityZero));
    /// ```
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
        let valid = Config::new("/tmp/mobula.sock", 1).validate().unwrap();
        assert_eq!(valid.capacity_bytes, PAGE_BYTES);
    }

    #[test]
    fn paths_become_absolute() {
        let here = std::env::current_dir().unwrap();
        let relative = Config::new("rel/store.sock", 1 << 20).spill_directory("spill");
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
        check(Config::new("/tmp/mobula.sock", 0), "capacity of 0 bytes");
        check(Config::new("/tmp/mobula.sock", u64::MAX), "TiB");
        check(Config::new("/tmp/mobula.sock", 1 << 60), "1048576 TiB");
        check(config().clients_max(0), "clients_max");
        check(config().clients_max(65_536), "65535");
        check(config().ring_bytes(1024), "ring_bytes");
        check(config().ring_bytes(12_288), "power of two");
        check(config().orphan_grace(Duration::MAX), "orphan_grace");
        check(config().table_entries_initial(0), "table_entries_initial");
        check(config().table_entries_max(100), "table_entries_initial = 512");
        check(config().table_entries_max(u32::MAX), "table_entries_max");
        check(config().client_bytes_max(0), "client_bytes_max");
        check(config().user_bytes_max(1), "user_bytes_max");
    }
}
