//! How a process of a session ended.

use serde::{Deserialize, Serialize};

/// How a process ended, as far as the session knows.
///
/// ```
/// use mobula::{Error, ExitReason, Failure};
///
/// #[mobula::remote]
/// fn exits() {
///     std::process::exit(7)
/// }
///
/// let _mobula = mobula::init()?;
/// match exits::remote().get() {
///     Err(Error::Failed(Failure::WorkerDied { reason, .. })) => {
///         assert_eq!(reason, ExitReason::Exited { code: 7 });
///         assert_eq!(reason.to_string(), "it exited with code 7");
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ExitReason {
    /// It ended by itself.
    Exited {
        /// Its exit code.
        code: i32,
    },
    /// A signal ended it. The kernel sent the signal because of an error, the process sent it itself (`abort`), or
    /// another process did.
    Killed {
        /// The signal's number.
        signal: i32,
    },
    /// One of its threads used up its stack, usually by endless recursion.
    StackOverflow,
    /// It had closed its connections to the session, or wrote nonsense to them, and the session killed it.
    Disconnected,
    /// The session ended it because memory was short; see `Builder::memory_usage_threshold`.
    OutOfMemory {
        /// Where memory was short.
        limit: MemoryLimit,
        /// Bytes that were in use there, by all processes.
        used_bytes: u64,
        /// Bytes that there are.
        limit_bytes: u64,
        /// The part of the use that was shared memory, such as the store's objects. 0 where this is not known. It does
        /// not shrink when a process ends.
        shared_bytes: u64,
        /// Bytes that the process itself used, without shared memory. 0 where this is not known.
        own_bytes: u64,
    },
    /// The session ended it because its placement group was removed.
    PlacementGroupRemoved,
    /// It ended, and the kernel does not report how, because the driver ignores SIGCHLD or has waited for the process
    /// itself.
    Unknown,
}

/// A limit of memory.
///
/// ```
/// use mobula::{Error, ExitReason, Failure, MemoryLimit};
///
/// /// Whether a call failed because its container is too small.
/// fn needs_a_larger_container(error: &Error) -> bool {
///     match error {
///         Error::Failed(Failure::WorkerDied { reason: ExitReason::OutOfMemory { limit, .. }, .. }) => {
///             *limit == MemoryLimit::ControlGroup
///         }
///         _ => false,
///     }
/// }
/// assert!(!needs_a_larger_container(&Error::NotInitialized));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum MemoryLimit {
    /// The memory of the machine.
    Machine,
    /// That of a control group that the session is in: a container's, a service's.
    ControlGroup,
}

impl std::fmt::Display for MemoryLimit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Machine => "the machine",
            Self::ControlGroup => "the control group (the container or the service)",
        })
    }
}

/// Bytes in a form for people: `1.5 GiB`, `12.0 MiB`.
pub(crate) struct Bytes(pub(crate) u64);

impl std::fmt::Display for Bytes {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (unit, name) = if self.0 >= 1 << 30 { (1u64 << 30, "GiB") } else { (1 << 20, "MiB") };
        write!(f, "{:.1} {name}", self.0 as f64 / unit as f64)
    }
}

impl std::fmt::Display for ExitReason {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Exited { code } => write!(f, "it exited with code {code}"),
            Self::Killed { signal: libc::SIGKILL } => {
                f.write_str("it was killed by SIGKILL (out of memory?)")
            }
            Self::Killed { signal } => match nix::sys::signal::Signal::try_from(*signal) {
                Ok(name) => write!(f, "it was killed by {name}"),
                Err(_) => write!(f, "it was killed by signal {signal}"),
            },
            Self::StackOverflow => f.write_str("its stack overflowed"),
            Self::Disconnected => {
                f.write_str("it had closed its connections, or wrote nonsense to them, and was killed")
            }
            Self::OutOfMemory { limit, used_bytes, limit_bytes, shared_bytes, own_bytes } => {
                let (used, of) = (Bytes(*used_bytes), Bytes(*limit_bytes));
                write!(
                    f,
                    "the session ended it because memory was short: {used} of {of} of {limit} were in use"
                )?;
                if *own_bytes > 0 {
                    write!(f, ", {} by this process itself", Bytes(*own_bytes))?;
                }
                if *shared_bytes > 0 {
                    write!(f, ", {} for shared memory such as the store's objects", Bytes(*shared_bytes))?;
                }
                f.write_str(
                    "; let fewer such calls run at a time (`num_cpus` or `memory` in their options), use less memory \
                     in each, keep fewer objects, or give more memory; `Builder::memory_usage_threshold` says how much \
                     may be in use",
                )
            }
            Self::PlacementGroupRemoved => f.write_str("its placement group was removed"),
            Self::Unknown => f.write_str(
                "how it ended is not known: the driver ignores SIGCHLD, or has waited for it itself",
            ),
        }
    }
}
