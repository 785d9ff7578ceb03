//! Why there is an error instead of a result, as it travels between processes.

use std::error::Error as StdError;
use std::fmt;
use std::time::Duration;

use mobula_client::{ClientError, ObjectId, Refusal};
use serde::{Deserialize, Serialize};

use super::deadlock::fmt_cycle;
use super::{Error, ExitReason, StoreFailure, TaskError, UtilFailure, WaitingCall};
use crate::resources::Resources;

/// Why there is an error instead of a result; travels between processes.
///
/// It reaches a program inside [`Error::Failed`], and as the [cause](TaskError::cause) of a task's error:
///
/// ```
/// use mobula::{Error, ExitReason, Failure};
///
/// #[mobula::remote]
/// fn crashes() {
///     std::process::abort()
/// }
///
/// #[mobula::remote]
/// fn outer() -> mobula::Result<()> {
///     crashes::remote().get()
/// }
///
/// let is_a_crash = |failure: &Failure| {
///     matches!(failure, Failure::WorkerDied { reason: ExitReason::Killed { .. }, .. })
/// };
/// let _mobula = mobula::init()?;
/// assert!(matches!(crashes::remote().get(), Err(Error::Failed(failure)) if is_a_crash(&failure)));
/// match outer::remote().get() {
///     Err(Error::Task(error)) => assert!(error.cause.as_deref().is_some_and(is_a_crash)),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), mobula::Error>(())
/// ```
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
        /// Its process's id; 0 if it never had a process.
        pid: u32,
        /// Why the actor is gone.
        cause: ActorEnd,
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
        /// How it died.
        reason: ExitReason,
    },
    /// The constructor failed, so there is no actor.
    ConstructorFailed {
        /// The actor's class.
        class: String,
        /// The error of the constructor.
        error: TaskError,
    },
    /// No channel to the process that is to run the call could be opened, or the channel was lost, because this process
    /// or the other one has no descriptors or memory left. The next call tries again.
    Unreachable {
        /// The reason that the system or the store gave.
        reason: String,
    },
    /// The limit of processes is reached, and the call or the actor needs one more.
    ProcessLimit {
        /// The limit: the session's option `max_processes`, or fewer if the driver has no descriptors for so many.
        limit: usize,
        /// The number of processes.
        in_use: usize,
    },
    /// The call or the actor demands more than the session has in all.
    NeverFits {
        /// The function or class.
        function: String,
        /// Its demand.
        demand: Resources,
        /// The resources of the session.
        offer: Resources,
    },
    /// An option of the call or the actor is invalid.
    BadOption {
        /// The option.
        option: String,
        /// The value that was given.
        value: String,
        /// The values that can be given.
        expected: String,
    },
    /// The call was cancelled. It has not run, or its result is no longer wanted.
    TaskCancelled {
        /// The function or method that was called.
        function: String,
        /// The id of the process that cancelled it.
        by: u32,
    },
    /// The call reached a time limit that its options set. It has not run, or it was cancelled.
    TaskTimedOut {
        /// The function or method that was called.
        function: String,
        /// The limit.
        limit: TimeLimit,
        /// The time of the limit: from the beginning of the run, or from the making of the call.
        after: Duration,
    },
    /// The call that waited here for others was cancelled itself.
    Cancelled,
    /// No worker process can be started, or each ends before it can serve, so nothing runs the call.
    NoWorkers {
        /// The end of the last process that was tried.
        reason: String,
    },
    /// The call's placement group was removed before the call had a worker.
    PlacementGroupRemoved,
    /// The function or actor demands more than a bundle of its placement group has.
    NeverFitsBundle {
        /// The function.
        function: String,
        /// Its demand.
        demand: Resources,
        /// The bundle, or the largest of several.
        offer: Resources,
    },
    /// A function with `#[worker_init]` failed, so no worker began to serve. The next call tries again.
    WorkerInitFailed {
        /// The error of the function.
        error: TaskError,
    },
    /// The call waited for results that can never come: calls wait for each other in a circle, and this is one of them.
    /// Each of them gets this error, within a second or so.
    Deadlock {
        /// The calls. Each waits for the next one, and the last one for the first. The first one got the error.
        cycle: Vec<WaitingCall>,
    },
    /// The call was not made, because too many calls of the actor's handle are pending.
    PendingCallsLimitExceeded {
        /// The actor's class.
        class: String,
        /// The method that was called.
        method: String,
        /// The actor's option `max_pending_calls`.
        limit: u32,
    },
    /// The actor is one of another driver in a session that drivers share, and that driver has another build. Methods
    /// have a meaning only within one build.
    OtherBuild {
        /// The actor's class.
        class: String,
    },
    /// The name is taken.
    NameTaken {
        /// The name that was asked for.
        name: String,
    },
    /// The arguments do not fit a record, even with only an object id for each of them.
    TooManyArguments {
        /// The function or method that was called.
        function: String,
        /// How many arguments it was given.
        count: usize,
    },
    /// An actor's name does not fit a record, with its namespace.
    NameTooLong {
        /// Bytes of both.
        bytes: usize,
    },
    /// The object is lost with its owner.
    ObjectLost {
        /// The object's id.
        object: ObjectId,
    },
    /// A stream has fewer or more items than the process that ended it made: some were lost with a process that died,
    /// or a retry of the function did not make the same items again.
    ItemsLost {
        /// The number of items that arrived.
        arrived: u64,
        /// The number that the process made, if it said so.
        made: Option<u64>,
    },
    /// The operating system refused a thread or a descriptor that the call needs.
    System {
        /// The thing that the call needs.
        needed: String,
        /// The error number of the system, if it gave one.
        errno: Option<i32>,
    },
    /// The store refused, or is gone, or could not be asked: for an argument, for a result, or in the task.
    Store {
        /// The kind of the error, with its numbers.
        kind: StoreFailure,
        /// The text of the [`ClientError`].
        message: String,
    },
    /// A value could not be encoded or decoded.
    Value {
        /// The reason that the front gave.
        reason: String,
    },
    /// A task waited, and no result came within its timeout: [`Error::Timeout`].
    Timeout {
        /// How long the wait was.
        waited: Duration,
        /// The number of references that were ready.
        ready: usize,
        /// The number of references that were waited for.
        wanted: usize,
    },
    /// A task asked for an actor by a name that no actor has: [`Error::NoSuchActor`].
    NoSuchActor {
        /// The name that was asked for.
        name: String,
    },
    /// A task asked for an actor by a name that an actor of another class has: [`Error::WrongActorClass`].
    WrongActorClass {
        /// The actor's name.
        name: String,
        /// The class that was asked for.
        expected: String,
        /// The class that the actor has.
        found: String,
    },
    /// This process has no session.
    NotInitialized,
    /// A task wanted to start a session: [`Error::InWorker`].
    InWorker,
    /// The thread that called is ending: [`Error::ThreadEnding`].
    ThreadEnding,
    /// The session that the reference, the call or the actor belongs to has ended.
    SessionOver,
    /// A task wanted to start a second session: [`Error::AlreadyInitialized`].
    AlreadyInitialized,
    /// A task that is no method of an actor wanted to end its actor: [`Error::NotInActor`].
    NotInActor,
    /// A task could not start a session: [`Error::Start`].
    Start {
        /// The reason.
        reason: String,
    },
    /// A task gave an option an invalid value: [`Error::Config`].
    Config {
        /// The builder's setter.
        field: String,
        /// The value that was given.
        value: String,
        /// The values that are possible.
        expected: String,
    },
    /// A tool of `mobula::util` did not do what a task asked of it.
    Util(UtilFailure),
    /// A record, or an object, of the session is invalid: a process has a bug, or has written wildly.
    Other(String),
}

/// A time limit of a call.
///
/// ```
/// use std::time::Duration;
/// use mobula::{Failure, TimeLimit};
///
/// let (function, after) = ("fetch".to_owned(), Duration::from_secs(2));
/// let failure = Failure::TaskTimedOut { function, limit: TimeLimit::Timeout, after };
/// assert!(failure.to_string().contains("longer than its timeout of 2s"));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub enum TimeLimit {
    /// How long it may run: `timeout`.
    Timeout,
    /// How long after it is made it must be over: `deadline`.
    Deadline,
}

/// Why an actor is gone.
///
/// ```
/// use mobula::{ActorEnd, Error, ExitReason, Failure};
///
/// struct Fragile;
///
/// #[mobula::remote]
/// impl Fragile {
///     fn new() -> Self {
///         Fragile
///     }
///     fn exit(&self) {
///         std::process::exit(3)
///     }
///     fn works(&self) -> bool {
///         true
///     }
/// }
///
/// let _mobula = mobula::init()?;
/// let fragile = Fragile::remote();
/// fragile.exit();
/// match fragile.works().get() {
///     Err(Error::Failed(Failure::ActorDied { cause: ActorEnd::Process { reason, restarts }, .. })) => {
///         assert_eq!((reason, restarts), (ExitReason::Exited { code: 3 }, 0));
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ActorEnd {
    /// The actor's process ended, and the actor is not restarted.
    Process {
        /// How the process ended.
        reason: ExitReason,
        /// How often the actor had been restarted before.
        restarts: u32,
    },
    /// It was killed on purpose, by `mobula::kill`.
    Killed,
    /// It ended itself: by `mobula::exit_actor`, or at the request of `mobula::terminate`.
    Exited,
    /// Its last handle was dropped.
    LastHandleGone,
    /// The process that made it died before the constructor's arguments were there.
    CreatorDied,
    /// It ended some time ago, and the reason is no longer known.
    Forgotten,
    /// In a session that drivers share: its driver has ended, or the process that keeps the detached actors of that
    /// driver was killed.
    DriverEnded,
    /// Its placement group was removed.
    PlacementGroupRemoved,
}

impl fmt::Display for ActorEnd {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Process { reason, restarts: 0 } => reason.fmt(f),
            Self::Process { reason, restarts } => write!(f, "{reason}, after {restarts} restarts"),
            Self::Killed => f.write_str("it was killed by `kill`"),
            Self::Exited => f.write_str("it ended itself, by `exit_actor` or `terminate`"),
            Self::LastHandleGone => f.write_str("its last handle is gone"),
            Self::CreatorDied => f.write_str("its creator died before it was started"),
            Self::PlacementGroupRemoved => f.write_str("its placement group was removed"),
            Self::Forgotten => f.write_str("it is not known in this session any more"),
            Self::DriverEnded => {
                f.write_str("its driver has ended, or the head of that driver's detached actors")
            }
        }
    }
}

impl Failure {
    /// The refusal of the store that is the reason of this failure, if there is one. Any number of tasks may stand
    /// between the two, each of which failed with the failure of another one.
    ///
    /// ```
    /// use mobula::{Failure, TaskError, TaskErrorKind};
    ///
    /// let panicked = TaskError::new("parse", TaskErrorKind::Panicked, "not a number".to_owned());
    /// assert!(Failure::Task(panicked).refusal().is_none());
    /// ```
    ///
    /// See [`Error::refusal`] for one that is there.
    #[must_use]
    pub fn refusal(&self) -> Option<&Refusal> {
        let mut failure = self;
        loop {
            match failure {
                Self::Store { kind: StoreFailure::Refused(refusal), .. } => return Some(refusal),
                Self::Task(error)
                | Self::ConstructorFailed { error, .. }
                | Self::WorkerInitFailed { error } => failure = error.cause.as_deref()?,
                _ => return None,
            }
        }
    }

    /// The form in which an error of this crate or of the client travels, if user code returns it; `None` for any other
    /// error.
    pub(super) fn of(error: &(dyn StdError + 'static)) -> Option<Self> {
        if let Some(error) = error.downcast_ref::<Error>() {
            return Some(error.into());
        }
        if let Some(error) = error.downcast_ref::<TaskError>() {
            return Some(Self::Task(error.cut()));
        }
        let client = || error.downcast_ref::<ClientError>().map(Self::from);
        let util = || error.downcast_ref::<UtilFailure>().copied().map(Self::Util);
        error.downcast_ref::<Self>().cloned().or_else(client).or_else(util)
    }
}

/// Names the command that says more about a process that has died. Without a process there is nothing to say.
fn fmt_postmortem(pid: u32, f: &mut fmt::Formatter<'_>) -> fmt::Result {
    if pid == 0 { Ok(()) } else { write!(f, " (`mobula postmortem {pid}` says more)") }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Task(error) => error.fmt(f),
            Self::WorkerDied { function, pid, reason } => {
                write!(f, "the worker process {pid} died while it ran {function}: {reason}")?;
                fmt_postmortem(*pid, f)
            }
            Self::ActorDied { class, method, pid, cause } => {
                match method.as_str() {
                    // No call: the actor's own end.
                    "" => write!(f, "the actor of class {class}")?,
                    method => write!(f, "{class}::{method} was not carried out: its actor")?,
                }
                if *pid != 0 {
                    write!(f, " (process {pid})")?;
                }
                write!(f, " is gone: {cause}")?;
                fmt_postmortem(*pid, f)
            }
            Self::ActorUnavailable { class, method, pid, reason } => {
                write!(
                    f,
                    "{class}::{method} may or may not have been carried out: its actor's process ({pid}) died, and \
                     the actor is being started again: {reason}"
                )?;
                fmt_postmortem(*pid, f)
            }
            Self::ConstructorFailed { class, error } => {
                write!(f, "actor {class} was not constructed: {error}")
            }
            Self::Unreachable { reason } => {
                write!(f, "the process that is to run the call cannot be reached: {reason}")
            }
            Self::ProcessLimit { limit, in_use } => write!(
                f,
                "{in_use} of at most {limit} processes are in use, and none of them will be free for this one: calls \
                 wait for others, or actors have them; allow more by the session's option `max_processes`, and by the \
                 driver's limit of open descriptors (RLIMIT_NOFILE), or nest and keep fewer"
            ),
            Self::NeverFits { function, demand, offer } => write!(
                f,
                "{function} demands {demand}, and the session has {offer}: demand less, or start the session with more \
                 (its options `num_cpus`, `memory` and `resources`)"
            ),
            Self::BadOption { option, value, expected } => write!(f, "{option} cannot be {value}: {expected}"),
            Self::TaskCancelled { function, by } => {
                write!(f, "the call of {function} was cancelled by process {by}")
            }
            Self::TaskTimedOut { function, limit: TimeLimit::Timeout, after } => write!(
                f,
                "the call of {function} ran for longer than its timeout of {after:?}, and was cancelled: give it more \
                 time (its option `timeout`), or less to do"
            ),
            Self::TaskTimedOut { function, limit: TimeLimit::Deadline, after } => write!(
                f,
                "the call of {function} was not over at its deadline, {after:?} after it was made, and was cancelled: \
                 give it more time (its option `deadline`), or make fewer calls before it"
            ),
            Self::Cancelled => f.write_str("the call that waited here for a result was cancelled"),
            Self::NoWorkers { reason } => f.write_str(reason),
            Self::PlacementGroupRemoved => f.write_str("the call's placement group was removed"),
            Self::NeverFitsBundle { function, demand, offer } => write!(
                f,
                "{function} demands {demand}, and the bundle of its placement group has {offer}: demand less, or make \
                 larger bundles"
            ),
            Self::WorkerInitFailed { error } => {
                write!(f, "no worker can begin, because its initialization failed: {error}")
            }
            Self::Deadlock { cycle } => fmt_cycle(cycle, f),
            Self::PendingCallsLimitExceeded { class, method, limit } => write!(
                f,
                "{class}::{method} was not called: {limit} calls of this handle are pending, which is its actor's \
                 limit (its option `max_pending_calls`); wait for some of their results first"
            ),
            Self::OtherBuild { class } => write!(
                f,
                "the actor of class {class} is one of a driver of another build: only processes of the same program \
                 can call it"
            ),
            Self::NameTaken { name } => write!(
                f,
                "the actor name {name:?} is taken by a living actor: choose another name, or find that actor by \
                 `get_actor`"
            ),
            Self::TooManyArguments { function, count } => write!(
                f,
                "{function} was not called: its {count} arguments are too many for one record; give them as one list"
            ),
            Self::NameTooLong { bytes } => {
                write!(f, "an actor's name and namespace of {bytes} bytes do not fit a record: choose shorter ones")
            }
            Self::ObjectLost { object } => {
                write!(
                    f,
                    "object {object} is lost: the process that was to make it, or that owned it, has died, or it was \
                     freed"
                )
            }
            Self::ItemsLost { arrived, made } => {
                write!(f, "{arrived} items of the stream arrived, but the process that ended it ")?;
                match made {
                    Some(made) => write!(f, "made {made}")?,
                    None => f.write_str("does not say how many it made")?,
                }
                f.write_str(
                    ": items were lost with a process that died, or a retry of the function did not make the same \
                     items again",
                )
            }
            Self::System { needed, errno } => {
                write!(f, "the system refused {needed}")?;
                match errno {
                    Some(errno) => write!(f, ": {}", std::io::Error::from_raw_os_error(*errno)),
                    None => Ok(()),
                }
            }
            Self::Store { message: text, .. } | Self::Value { reason: text } | Self::Other(text) => {
                f.write_str(text)
            }
            Self::Timeout { waited, ready, wanted } => {
                Error::Timeout { waited: *waited, ready: *ready, wanted: *wanted }.fmt(f)
            }
            Self::NoSuchActor { name } => Error::NoSuchActor { name: name.clone() }.fmt(f),
            Self::WrongActorClass { name, expected, found } => {
                let (name, expected, found) = (name.clone(), expected.clone(), found.clone());
                Error::WrongActorClass { name, expected, found }.fmt(f)
            }
            Self::NotInitialized => Error::NotInitialized.fmt(f),
            Self::InWorker => Error::InWorker.fmt(f),
            Self::AlreadyInitialized => Error::AlreadyInitialized.fmt(f),
            Self::NotInActor => Error::NotInActor.fmt(f),
            Self::Start { reason } => Error::Start(reason.clone()).fmt(f),
            Self::Config { field, value, expected } => write!(f, "{field} cannot be {value}: {expected}"),
            Self::Util(failure) => failure.fmt(f),
            Self::ThreadEnding => Error::ThreadEnding.fmt(f),
            Self::SessionOver => f.write_str(
                "it is of a session that has ended: references and actor handles last as long as the session that they \
                 came from",
            ),
        }
    }
}

impl StdError for Failure {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        match self {
            // It is the error itself.
            Self::Task(error) => error.source(),
            Self::ConstructorFailed { error, .. } | Self::WorkerInitFailed { error } => Some(error),
            Self::Store { kind: StoreFailure::Refused(refusal), .. } => Some(refusal),
            Self::Store { kind: StoreFailure::Other | StoreFailure::System { errno: None }, .. } => None,
            Self::Store { kind, .. } => Some(kind),
            Self::Util(failure) => Some(failure),
            _ => None,
        }
    }
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        match error {
            Error::Task(error) => Self::Task(error),
            Error::Failed(failure) => failure,
            other => (&other).into(),
        }
    }
}

impl From<&Error> for Failure {
    fn from(error: &Error) -> Self {
        match error {
            Error::Task(error) => Self::Task(error.cut()),
            Error::Failed(failure) => failure.clone(),
            Error::Timeout { waited, ready, wanted } => {
                Self::Timeout { waited: *waited, ready: *ready, wanted: *wanted }
            }
            Error::NoSuchActor { name } => Self::NoSuchActor { name: name.clone() },
            Error::WrongActorClass { name, expected, found } => {
                let (name, expected, found) = (name.clone(), expected.clone(), found.clone());
                Self::WrongActorClass { name, expected, found }
            }
            Error::NotInitialized => Self::NotInitialized,
            Error::InWorker => Self::InWorker,
            Error::ThreadEnding => Self::ThreadEnding,
            Error::Value(error) => Self::Value { reason: error.to_string() },
            Error::Store(error) => error.into(),
            Error::AlreadyInitialized => Self::AlreadyInitialized,
            Error::NotInActor => Self::NotInActor,
            Error::Start(reason) => Self::Start { reason: reason.clone() },
            Error::Config { field, value, expected } => {
                let (field, value, expected) = ((*field).to_owned(), value.clone(), expected.clone());
                Self::Config { field, value, expected }
            }
        }
    }
}

impl From<ClientError> for Failure {
    fn from(error: ClientError) -> Self {
        (&error).into()
    }
}

impl From<&ClientError> for Failure {
    fn from(error: &ClientError) -> Self {
        match error {
            ClientError::Lost { object } | ClientError::NoSuchObject { object } => {
                Self::ObjectLost { object: *object }
            }
            other => Self::Store { kind: other.into(), message: other.to_string() },
        }
    }
}

impl From<UtilFailure> for Failure {
    fn from(failure: UtilFailure) -> Self {
        Self::Util(failure)
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Self {
        Self::Task(error)
    }
}
