//! What can go wrong between a call and its result.
//!
//! A [`Failure`] is the part that travels: it is the result of a task instead of a value, is stored, passed on through
//! chains of tasks, and comes out of `get` inside an [`Error`].

use std::time::Duration;

use mobula_client::{ClientError, ObjectId};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

pub use crate::process::exit_reason::ExitReason;

/// Bytes of an error message that travel; longer ones are cut.
const MESSAGE_BYTES_MAX: usize = 4096;
/// Sources of an error that its message shows.
const SOURCES_MAX: usize = 64;
/// Causes of an error that travel, one behind the other: each is a task that failed with the failure of another one.
const CAUSES_MAX: usize = 64;

/// The result of most operations.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why an operation failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// There is no session in this process.
    #[error(
        "mobula is not initialized: call `let _mobula = mobula::init()?` first, and keep the guard while you use it"
    )]
    NotInitialized,
    /// There is one already.
    #[error(
        "mobula is already initialized in this process: drop the first session's guard before starting another, or share it \
         by mobula::init_or_join()"
    )]
    AlreadyInitialized,
    /// A worker process starts no session of its own.
    #[error("this is a worker process: it is part of its driver's session, and cannot start another")]
    InWorker,
    /// The thread is ending, and its thread-local values are being dropped.
    #[error(
        "this thread is ending: a destructor of one of its thread-local values can neither call nor get anything; do that before the thread ends, or in another one"
    )]
    ThreadEnding,
    /// The session could not be started.
    #[error("the session could not start: {0}")]
    Start(String),
    /// A configuration that cannot be.
    #[error("{field} cannot be {value}: {expected}")]
    Config {
        /// The builder's setter.
        field: &'static str,
        /// What came.
        value: String,
        /// What would do.
        expected: String,
    },
    /// A remote function or method failed.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// The process that ran it is gone.
    #[error("{0}")]
    Failed(Failure),
    /// No result within the time given.
    #[error(
        "not ready within {waited:?}: {ready} of {wanted} results were there, and the others may still come"
    )]
    Timeout {
        /// For how long.
        waited: Duration,
        /// How many were ready.
        ready: usize,
        /// How many were asked for.
        wanted: usize,
    },
    /// No living actor has the name.
    #[error("no actor of this session is named {name:?}: none was started under that name, or it has ended")]
    NoSuchActor {
        /// What was asked for.
        name: String,
    },
    /// The named actor is of another class.
    #[error("the actor named {name:?} is of class {found}, not {expected}")]
    WrongActorClass {
        /// Its name.
        name: String,
        /// What was asked for.
        expected: String,
        /// What it is.
        found: String,
    },
    /// A value could not be encoded or decoded; the front says why. In Rust it is a `mobula::value::ValueError`.
    #[error(transparent)]
    Value(Box<dyn std::error::Error + Send + Sync>),
    /// The store refused or is gone.
    #[error(transparent)]
    Store(#[from] ClientError),
}

/// Why there is an error instead of a result; travels between processes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum Failure {
    /// The function ran, and failed.
    Task(TaskError),
    /// The process that ran it ended.
    WorkerDied {
        /// The remote function.
        function: String,
        /// The process's id.
        pid: u32,
        /// How it ended.
        reason: ExitReason,
    },
    /// The actor is gone, so the call was not (or not fully) carried out.
    ActorDied {
        /// The actor's class.
        class: String,
        /// The method that was called.
        method: String,
        /// Its process's id; 0 where it never came to be.
        pid: u32,
        /// Why.
        cause: String,
        /// How its process ended, where that is why.
        reason: Option<ExitReason>,
    },
    /// The actor's process died before the result was there, and the actor is being started again. The call may have
    /// been carried out, or not, but not twice.
    ActorUnavailable {
        /// The actor's class.
        class: String,
        /// The method that was called.
        method: String,
        /// The id of the process that died.
        pid: u32,
        /// How.
        reason: ExitReason,
    },
    /// The constructor failed, so there is no actor.
    ConstructorFailed {
        /// The actor's class.
        class: String,
        /// What the constructor said.
        error: TaskError,
    },
    /// No channel to the process that is to run the call could be opened, or the channel was lost; for want of
    /// descriptors or memory, here or there. The next call tries again.
    Unreachable {
        /// What the system, or the store, said.
        reason: String,
    },
    /// There are as many processes as there may be, and the call, or the actor, needs one more to go on.
    ProcessLimit {
        /// How many there may be: [`SessionOptions::max_processes`](crate::SessionOptions::max_processes), or fewer, where the driver
        /// has no descriptors for so many.
        limit: usize,
        /// How many there are.
        in_use: usize,
    },
    /// The name is taken.
    NameTaken {
        /// What was asked for.
        name: String,
    },
    /// The object is lost with its owner.
    ObjectLost {
        /// Which.
        object: ObjectId,
    },
    /// This process has no session.
    NotInitialized,
    /// The session that the reference, the call or the actor belongs to has ended.
    SessionOver,
    /// Whatever the store or the encoding said.
    Other(String),
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Task(error) => error.fmt(f),
            Self::WorkerDied { function, pid, reason } => {
                write!(f, "the worker process {pid} died while it ran {function}: {reason}")
            }
            Self::ActorDied { class, method, pid, cause, .. } => {
                write!(f, "{class}::{method} was not carried out: its actor (process {pid}) is gone: {cause}")
            }
            Self::ActorUnavailable { class, method, pid, reason } => {
                write!(
                    f,
                    "{class}::{method} may or may not have been carried out: its actor's process ({pid}) died, and \
                     the actor is being started again: {reason}"
                )
            }
            Self::ConstructorFailed { class, error } => {
                write!(f, "actor {class} was not constructed: {error}")
            }
            Self::Unreachable { reason } => {
                write!(f, "the process that is to run the call cannot be reached: {reason}")
            }
            Self::ProcessLimit { limit, in_use } => write!(
                f,
                "{in_use} of at most {limit} processes are in use, and none of them will be free for this one: calls wait \
                 for others, or actors have them; allow more with `Builder::max_processes`, and by the driver's limit of open \
                 descriptors (RLIMIT_NOFILE), or nest and keep fewer"
            ),
            Self::NameTaken { name } => write!(
                f,
                "the actor name {name:?} is taken by a living actor: choose another name, or find that actor by \
                 `mobula::get_actor`"
            ),
            Self::ObjectLost { object } => {
                write!(f, "object {object} is lost: the process that was to make it, or that owned it, has died")
            }
            Self::NotInitialized => Error::NotInitialized.fmt(f),
            Self::SessionOver => f.write_str(
                "it is of a session that has ended: references and actor handles last as long as the session that they \
                 came from",
            ),
            Self::Other(message) => f.write_str(message),
        }
    }
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Task(error) => Self::Task(error),
            Failure::NotInitialized => Self::NotInitialized,
            other => Self::Failed(other),
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Task(error) => Self::Task(error),
            Error::Failed(failure) => failure,
            Error::NotInitialized => Self::NotInitialized,
            Error::Store(error) => error.into(),
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Lost { object } | ClientError::NoSuchObject { object } => {
                Self::ObjectLost { object }
            }
            other => Self::Other(other.to_string()),
        }
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        Self::Task(error)
    }
}

/// How a remote function or method failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TaskErrorKind {
    /// It returned an `Err`.
    Returned,
    /// It panicked.
    Panicked,
    /// It could not be called: an argument did not decode, or the function is not registered.
    NotCalled,
    /// What it returned could not be encoded, or stored.
    NotReturned,
}

/// A remote function or method failed: where, how, and in its own words.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskError {
    /// The function, with its module, or `Class::method`.
    pub function: String,
    /// The process that ran it.
    pub pid: u32,
    /// How it failed.
    pub kind: TaskErrorKind,
    /// The error's `Display` with its sources, or the panic's message.
    pub message: String,
    /// The failure of another task that this one failed with: it returned a [`mobula::Error`](Error).
    pub cause: Option<Box<TaskError>>,
}

impl TaskError {
    /// An error of this process. A longer message than 4 KiB is cut.
    pub fn new(function: &str, kind: TaskErrorKind, mut message: String) -> Self {
        if message.len() > MESSAGE_BYTES_MAX {
            message.truncate(message.floor_char_boundary(MESSAGE_BYTES_MAX));
            message.push('…');
        }
        Self { function: function.to_owned(), pid: std::process::id(), kind, message, cause: None }
    }

    /// An error that a function returned, with its first source. Where one of them is what `get` gave the function, the
    /// task that it came from is kept.
    pub fn returned<E: std::fmt::Display + 'static>(
        error: &E,
        source: Option<&(dyn std::error::Error + 'static)>,
    ) -> Self {
        // The alternate form shows the sources of errors that know how.
        let mut message = format!("{error:#}");
        let mut cause = match (error as &dyn std::any::Any).downcast_ref() {
            Some(Error::Task(cause)) => Some(cause),
            _ => None,
        };
        for source in std::iter::successors(source, |source| source.source()).take(SOURCES_MAX) {
            let text = source.to_string();
            if !message.ends_with(&text) && !message.contains(&format!("{text}: ")) {
                message = format!("{message}: {text}");
            }
            cause = cause.or_else(|| match source.downcast_ref() {
                Some(Error::Task(cause)) => Some(cause),
                _ => source.downcast_ref(),
            });
        }
        let mut task = Self::new("", TaskErrorKind::Returned, message);
        task.cause = cause.map(|cause| Box::new(cause.cut(CAUSES_MAX - 1)));
        task
    }

    /// A copy with so many causes at most.
    fn cut(&self, causes: usize) -> Self {
        let causes = std::iter::successors(Some(self), |error| error.cause.as_deref()).take(causes + 1);
        let causes: Vec<_> = causes.map(Alone::of).collect();
        Alone::join(causes).expect("there is one, and no more than that")
    }
}

/// An error without its cause. Errors travel as the list of them, so that reading and writing go no deeper for a long
/// one.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Alone {
    function: String,
    pid: u32,
    kind: TaskErrorKind,
    message: String,
}

impl Alone {
    fn of(error: &TaskError) -> Self {
        let TaskError { function, pid, kind, message, .. } = error;
        Self { function: function.clone(), pid: *pid, kind: *kind, message: message.clone() }
    }

    /// The first, caused by the others, each by the next one. `None` of none, and of more than there can be.
    fn join(errors: Vec<Self>) -> Option<TaskError> {
        if errors.len() > CAUSES_MAX + 1 {
            return None;
        }
        errors.into_iter().rev().fold(None, |cause, error| {
            let Self { function, pid, kind, message } = error;
            Some(TaskError { function, pid, kind, message, cause: cause.map(Box::new) })
        })
    }
}

impl Serialize for TaskError {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let causes = std::iter::successors(Some(self), |error| error.cause.as_deref());
        // A list, because its length comes first.
        causes.take(CAUSES_MAX + 1).map(Alone::of).collect::<Vec<_>>().serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for TaskError {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let errors = Vec::deserialize(deserializer)?;
        Alone::join(errors)
            .ok_or_else(|| de::Error::custom("a task's error without an error, or with too many causes"))
    }
}

impl std::fmt::Display for TaskError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { function, pid, kind, message, .. } = self;
        let verb = match kind {
            TaskErrorKind::Returned => "failed",
            TaskErrorKind::Panicked => "panicked",
            TaskErrorKind::NotCalled => "could not be called",
            TaskErrorKind::NotReturned => "returned what could not be passed on",
        };
        write!(f, "{function} {verb} in process {pid}: {message}")
    }
}

impl std::error::Error for TaskError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.cause.as_deref().map(|cause| cause as _)
    }
}
