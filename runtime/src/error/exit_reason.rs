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
    /// A signal ended it: of the kernel's for what it did, of its own (`abort`), or of somebody else.
    Killed {
        /// The signal's number.
        signal: i32,
    },
    /// A thread of it used up its stack, mostly by recursion without end.
    StackOverflow,
    /// It had closed its connections to the session, or wrote nonsense to them, and the session killed it.
    Disconnected,
    /// It ended, and the kernel does not say how: the driver ignores SIGCHLD, or has waited for the process itself.
    Unknown,
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
            Self::Unknown => f.write_str(
                "how it ended is not known: the driver ignores SIGCHLD, or has waited for it itself",
            ),
        }
    }
}
