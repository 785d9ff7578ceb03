//! The errors between a call and its result.
//!
//! An [`Error`] is what a function of this process returns. A [`Failure`] is the part that travels: it takes the place
//! of a task's value, is stored, is passed on through chains of tasks, and comes out of `get` inside an [`Error`]. A
//! [`TaskError`] says which function failed, and has that function's failure as its cause.
//!
//! Every text is complete by itself: it contains the texts of its sources. The sources are for programs, which match
//! them.

mod deadlock;
mod exit_reason;
mod failure;
mod store;
mod task;
mod util;

use std::time::Duration;

use mobula_client::{ClientError, Refusal};

pub use self::deadlock::WaitingCall;
pub(crate) use self::exit_reason::Bytes;
pub use self::exit_reason::{ExitReason, MemoryLimit};
pub use self::failure::{ActorEnd, Failure, TimeLimit};
pub use self::store::{ObjectProblem, StoreFailure};
pub use self::task::{TaskError, TaskErrorKind};
pub use self::util::UtilFailure;

/// The result of most operations. The second parameter is for a function that has another error.
///
/// ```
/// use mobula::Result;
///
/// fn doubled(x: i64) -> Result<i64> {
///     Ok(2 * mobula::put(&x)?.get()?)
/// }
///
/// let _mobula = mobula::init()?;
/// assert_eq!(doubled(4)?, 8);
/// # Ok::<(), mobula::Error>(())
/// ```
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
///
/// An error of a function that ran, and the lack of a result, are different variants, and each of them has the numbers
/// that a program needs to act:
///
/// ```
/// use mobula::{Error, Failure, TaskErrorKind};
///
/// #[mobula::remote]
/// fn divide(a: i64, b: i64) -> i64 {
///     a / b
/// }
///
/// let _mobula = mobula::init()?;
/// match divide::remote(1, 0).get() {
///     Ok(quotient) => println!("{quotient}"),
///     Err(Error::Task(error)) => {
///         assert_eq!(error.kind, TaskErrorKind::Panicked);
///         assert_eq!(error.message, "attempt to divide by zero");
///     }
///     Err(Error::Failed(Failure::WorkerDied { pid, reason, .. })) => eprintln!("process {pid}: {reason}"),
///     Err(error) => return Err(error),
/// }
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no session in this process.
    #[error(
        "mobula is not initialized: call `init` first, and keep what it returns while you use the session"
    )]
    NotInitialized,
    /// This process has a session already.
    #[error(
        "mobula is already initialized in this process: end the first session before you start another, or share it by \
         `init_or_join`"
    )]
    AlreadyInitialized,
    /// A worker process starts no session of its own.
    #[error("this is a worker process: it is part of its driver's session, and cannot start another")]
    InWorker,
    /// Only a method of an actor can end its actor.
    #[error("exit_actor ends the actor whose method calls it, and this process is no actor")]
    NotInActor,
    /// The thread is ending, and its thread-local values are being dropped.
    #[error(
        "this thread is ending: a destructor of one of its thread-local values can neither call nor get anything; \
         do that before the thread ends, or in another one"
    )]
    ThreadEnding,
    /// The session could not be started.
    #[error("the session could not start: {0}")]
    Start(String),
    /// An invalid configuration.
    #[error("{field} cannot be {value}: {expected}")]
    Config {
        /// The builder's setter.
        field: &'static str,
        /// The value that was given.
        value: String,
        /// The values that are possible.
        expected: String,
    },
    /// A remote function or method ran and failed, or it could not be called, or its result could not be passed on. The
    /// error's [cause](TaskError::cause) is the failure.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// There is no result, although no function failed: a process died, an actor is gone, an object is lost, the store
    /// had no room for an argument, or there was no worker. The [`Failure`] says which.
    #[error(transparent)]
    Failed(Failure),
    /// No result within the time given.
    #[error(
        "not ready within {waited:?}: {ready} of {wanted} results were there, and the others may still come"
    )]
    Timeout {
        /// How long the wait was.
        waited: Duration,
        /// The number of references that were ready.
        ready: usize,
        /// The number of references that were waited for.
        wanted: usize,
    },
    /// No living actor has the name.
    #[error("no actor of this session is named {name:?}: none was started under that name, or it has ended")]
    NoSuchActor {
        /// The name that was asked for.
        name: String,
    },
    /// The actor with this name is of another class.
    #[error("the actor named {name:?} is of class {found}, not {expected}")]
    WrongActorClass {
        /// Its name.
        name: String,
        /// The class that was asked for.
        expected: String,
        /// The class of the actor.
        found: String,
    },
    /// A value could not be encoded or decoded; the front says why. In Rust it is a `mobula::value::ValueError`.
    #[error(transparent)]
    Value(Box<dyn std::error::Error + Send + Sync>),
    /// The store refused a request of this process, or is gone. If it refused another process, in which a call ran, the
    /// error is [`Failure::Store`].
    #[error(transparent)]
    Store(#[from] ClientError),
}

impl Error {
    /// The refusal of the store that is the reason of this error, if there is one. The store refused this process, or a
    /// process in which a call ran. Any number of tasks may stand between the two, each of which failed with the
    /// failure of another one.
    ///
    /// ```
    /// use mobula::{Error, Refusal};
    ///
    /// #[mobula::remote]
    /// fn zeros(count: usize) -> Vec<u64> {
    ///     vec![0; count]
    /// }
    ///
    /// let _mobula = mobula::Builder::new().capacity_bytes(16 << 20).init()?;
    /// let error = zeros::remote(4_000_000).get().unwrap_err();
    /// assert!(matches!(error.refusal(), Some(Refusal::TooLarge { requested_bytes: 32_000_000.., .. })));
    /// # Ok::<(), mobula::Error>(())
    /// ```
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        match self {
            Self::Store(ClientError::Refused(refusal)) => Some(refusal),
            Self::Failed(failure) => failure.refusal(),
            Self::Task(error) => error.cause.as_deref().and_then(Failure::refusal),
            _ => None,
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Task(error) => Self::Task(error),
            Failure::NotInitialized => Self::NotInitialized,
            Failure::ThreadEnding => Self::ThreadEnding,
            other => Self::Failed(other),
        }
    }
}
