//! The errors of a store that does not start, or that ends before it is told to.

use std::io;
use std::path::PathBuf;

use mobula_protocol::size::ByteSize;

/// The error of a store that does not start. It has changed nothing at the socket's path.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// The kernel's address structure has no room for the last part of the path.
    #[error("the name of the socket has {bytes} bytes, where the system takes {max}: {}", path.display())]
    NameTooLong {
        /// The path in the configuration.
        path: PathBuf,
        /// The length of its last part.
        bytes: usize,
        /// The longest.
        max: usize,
    },
    /// At the path there is a file that is no socket of a store.
    #[error("{} exists and is not a socket; it was left alone", path.display())]
    NotASocket {
        /// The path in the configuration.
        path: PathBuf,
    },
    /// Another process listens there.
    #[error("a store is already running at {}; it was not disturbed", path.display())]
    AlreadyRunning {
        /// The path in the configuration.
        path: PathBuf,
    },
    /// The socket's directory does not exist.
    #[error("the directory of the socket does not exist: {}", directory.display())]
    NoDirectory {
        /// The directory.
        directory: PathBuf,
    },
    /// Other users could replace the socket.
    #[error("the directory of the socket {problem}: {}", directory.display())]
    DirectoryNotSafe {
        /// The directory.
        directory: PathBuf,
        /// The problem with it.
        problem: &'static str,
    },
    /// Objects cannot be spilled there.
    #[error("cannot spill objects into {}: {problem}", directory.display())]
    SpillDirectory {
        /// The path in the configuration.
        directory: PathBuf,
        /// The problem with it.
        problem: String,
    },
    /// A store without memory.
    #[error("a store with a capacity of 0 bytes could hold nothing")]
    CapacityZero,
    /// More capacity than memory.
    #[error(
        "a capacity of {capacity} is more than the {memory} of memory that this machine, or the control group that the \
         store runs in, has"
    )]
    CapacityAboveMemory {
        /// The capacity in the configuration.
        capacity: ByteSize,
        /// Memory that there is.
        memory: ByteSize,
    },
    /// The store's own memory is a sparse file, larger than this process may make one.
    #[error(
        "the limit of file sizes (RLIMIT_FSIZE, `ulimit -f`) is {max}, and counts for shared memory too: the store \
         needs {needed} of address space for its bookkeeping, of which it uses little; raise the limit, \
         or lower clients_max"
    )]
    FileSizeLimit {
        /// The limit.
        max: ByteSize,
        /// Bytes that the store needs.
        needed: ByteSize,
    },
    /// `/proc` is not mounted.
    #[error(
        "/proc is not mounted, and the store needs it, to open shared memory read-only for others: mount it, as in \
         `mount -t proc proc /proc`"
    )]
    NoProc,
    /// A limit out of its range.
    #[error("{limit} = {value} is not between {min} and {max}")]
    Limit {
        /// Field of the configuration.
        limit: &'static str,
        /// The value in the configuration.
        value: u64,
        /// The least.
        min: u64,
        /// The most.
        max: u64,
    },
    /// A ring whose positions could not be computed by masking.
    #[error("ring_bytes = {value} is not a power of two")]
    RingNotPowerOfTwo {
        /// The value in the configuration.
        value: u32,
    },
    /// The system refused something.
    #[error("cannot {action}: {source}")]
    System {
        /// The action that the system refused.
        action: &'static str,
        /// The system's reason.
        source: io::Error,
    },
}

impl StartError {
    /// An error of the system in an action.
    pub(crate) fn system(action: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::System { action, source }
    }
}

/// The reason why a running store ends by itself. No act of a client is ever a reason.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RunError {
    /// The system can no longer tell what happens on the sockets.
    #[error("cannot wait for events: {0}")]
    Wait(io::Error),
}
