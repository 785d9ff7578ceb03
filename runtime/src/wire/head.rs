//! The records between the head and the other processes of a session.

use mobula_client::{ObjectId, OwnerId};
use serde::{Deserialize, Serialize};

use crate::definition::Key;
use crate::demand::Demand;
use crate::error::{ExitReason, Failure, TaskError, WaitingCall};
use crate::resources::{GroupState, Resources, Strategy};
use crate::wire::call::CallContext;
use crate::wire::state::HeadState;
use crate::wire::waits::{Held, Need, Waits};

/// A record from any process of the session to the head.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToHead<'a> {
    /// A process that the head started is ready to serve.
    Register { token: u64, pid: u32, build_id: u64 },
    /// A process that the head started cannot serve: a function that had to run first has failed.
    InitFailed { token: u64, error: TaskError },
    /// The caller wants this many more workers, for calls of this demand. Replaces its earlier request for them.
    Want { demand: Demand, workers: u32 },
    /// A caller no longer needs a worker.
    Return {
        worker: OwnerId,
        /// It may still run calls of other processes.
        is_busy: bool,
    },
    /// The worker has no calls left. Answers `SayWhenFree`.
    Free,
    /// The worker begins no more calls, because it has reached the limit of calls of a function.
    Spent {
        /// Calls that it made are not over. It ends after them.
        waits: bool,
    },
    /// This worker waits for results of other calls, and gives its CPUs back meanwhile.
    Blocked,
    /// The worker does not wait any more.
    Unblocked,
    /// That process wrote an unreadable record, so it is faulty.
    Broken { process: OwnerId },
    /// The sender's call that runs in a worker; `None`: none does. Answers `AskCall`.
    Runs { worker: OwnerId, call: Option<RunningCall> },
    /// Asks how a process ended that had calls of the sender. Answered by `Died`, once it has ended.
    AskDeath { process: OwnerId },
    /// Reserves an actor, still without a process. Answered by `ActorReserved`.
    ReserveActor {
        request: u64,
        #[serde(borrow)]
        actor: NewActor<'a>,
    },
    /// The arguments of the actor's constructor are there.
    StartActor {
        actor: u64,
        arguments: u32,
        /// The context in which the actor was made.
        context: Option<CallContext>,
        #[serde(borrow, with = "bytes_field")]
        payloads: &'a [u8],
    },
    /// The arguments of the actor's constructor will never be there.
    AbandonActor { actor: u64, failure: Failure },
    /// Asks for the state of an actor. Answered by `ActorAt` or `ActorOver` once it is known, and again at each change;
    /// and by `ActorRestarts`.
    WatchActor { actor: u64 },
    /// Asks for the resources that are free. Answered by `Resources`.
    AskResources { request: u64 },
    /// Makes a placement group. Answered by `GroupMade`.
    MakeGroup { request: u64, group: NewGroup },
    /// Asks for an answer when a placement group has its resources, or is removed. Answered by `GroupSettled`.
    AwaitGroup { request: u64, group: u64 },
    /// Removes a placement group, and ends its calls and actors. Answered by `GroupSettled`.
    RemoveGroup { request: u64, group: u64 },
    /// Asks for all placement groups. Answered by `Groups`.
    ListGroups { request: u64 },
    /// Asks for everything that the head knows. Answered by `State`.
    AskState,
    /// The sender is the head of another driver, of this build.
    Introduce { build_id: u64 },
    /// Asks for an actor by its name. Answered by `ActorFound`.
    FindActor { request: u64, namespace: &'a str, name: &'a str },
    /// Asks for the names of the living actors, in one namespace or in all. Answered by `ActorNames`.
    ListActors { request: u64, namespace: Option<&'a str> },
    /// Asks to be told when the process of an actor that ends has ended. Answered by `ActorEnded`.
    AwaitActorEnd { request: u64, actor: u64 },
    /// A wait of this process, which has lasted for a while, or has changed.
    Waits(Waits),
    /// A wait that was reported is over.
    WaitOver { wait: u64 },
    /// All waits of this process that it reports, and those of the calls that it has. Answers `AskWaits`.
    AllWaits { round: u64, waits: Vec<Waits>, holds: Vec<Held> },
    /// The needs of a promise of this process. Answers `AskPromise`.
    PromiseNeeds { round: u64, object: ObjectId, needs: Vec<Need> },
    /// The actor in this process ends itself, after the running call and permanently.
    ActorExits { actor: u64 },
    KillActor {
        actor: u64,
        /// The actor is restarted, if its options allow it.
        restarts: bool,
    },
    /// The constructor has run, in this process.
    Constructed { actor: u64, result: Result<(), Failure> },
    /// Kills the worker or actor with this pid. Answered by `Obeyed` after its end.
    KillProcess { request: u64, pid: u32 },
    /// Cancels a call of another process. Answered by `Obeyed` when that process has cancelled it.
    CancelCall { request: u64, process: OwnerId, cancel: CancelCall },
    /// A call of this process was to be cancelled. Answers `CancelCall`.
    CallCancelled { request: u64, outcome: Obeyed },
}

/// A call to be cancelled, by its number in the process that made it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct CancelCall {
    pub(crate) task: u64,
    pub(crate) force: bool,
    pub(crate) recursive: bool,
    /// The pid of the process that cancels it.
    pub(crate) by: u32,
}

/// The outcome of an observer's order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Obeyed {
    Done,
    /// The head has no such process.
    NotHere,
    /// The call is over, or never existed.
    NoSuchCall,
    /// It is a call of an actor, which cannot be cancelled with force.
    IsOfActor,
}

/// A call that runs in a worker.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct RunningCall {
    pub(crate) function: String,
    /// Whether it may be retried when its process dies.
    pub(crate) is_retriable: bool,
}

/// An actor that a caller reserves.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NewActor<'a> {
    pub(crate) class: Key,
    pub(crate) class_name: &'a str,
    pub(crate) namespace: &'a str,
    /// Its name within the namespace.
    pub(crate) name: Option<&'a str>,
    /// If a living actor has the name, that one is the answer.
    pub(crate) get_if_exists: bool,
    /// It lives without handles.
    pub(crate) is_detached: bool,
    /// How many calls of one handle may be pending; 0: any number.
    pub(crate) max_pending_calls: u32,
    /// A text of its front for those that find it by its name.
    pub(crate) description: &'a str,
    /// How often it is restarted when its process dies.
    pub(crate) max_restarts: u32,
    /// How often its calls are retried, unless they say otherwise.
    pub(crate) max_task_retries: u32,
    /// The resources that it has for life.
    pub(crate) demand: Demand,
}

/// A placement group that is made.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct NewGroup {
    pub(crate) namespace: String,
    /// Empty: it has none.
    pub(crate) name: String,
    pub(crate) bundles: Vec<Resources>,
    pub(crate) strategy: Strategy,
    /// It stays when the actor that made it ends.
    pub(crate) is_detached: bool,
}

/// A placement group, as the head knows it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct GroupRecord {
    pub(crate) group: u64,
    pub(crate) made: NewGroup,
    pub(crate) state: GroupState,
}

/// A record from the head.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromHead<'a> {
    /// A worker for calls of this demand.
    Granted {
        demand: Demand,
        worker: OwnerId,
        pid: u32,
    },
    /// No worker will be granted for calls of this demand: processes do not start.
    NoWorkers {
        demand: Demand,
        failure: Failure,
    },
    /// Another caller has no worker: return this one when its calls are over.
    Recall {
        worker: OwnerId,
    },
    /// To a worker: send `Free` when no call is left.
    SayWhenFree {
        /// It is spent: it begins no more calls, and the calls that it made count, too.
        is_spent: bool,
    },
    /// To the caller that a worker is leased to: say which call runs there. Answered by `Runs`.
    AskCall {
        worker: OwnerId,
    },
    Died {
        process: OwnerId,
        reason: ExitReason,
        /// If it was ended because memory was short: how often calls that had begun may be retried for this reason.
        memory_retries: u32,
    },
    /// To a worker: construct this actor.
    Construct {
        actor: u64,
        class: Key,
        /// How often the actor was restarted.
        restarts: u32,
        arguments: u32,
        /// As in `StartActor`.
        context: Option<CallContext>,
        #[serde(borrow, with = "bytes_field")]
        payloads: &'a [u8],
    },
    /// To a worker: end when the running call is over.
    Exit,
    ActorReserved {
        request: u64,
        result: Result<ReservedActor, Failure>,
    },
    Resources {
        request: u64,
        free: Resources,
    },
    GroupMade {
        request: u64,
        result: Result<u64, Failure>,
    },
    GroupSettled {
        request: u64,
    },
    Groups {
        request: u64,
        groups: Result<Vec<GroupRecord>, Failure>,
    },
    State(HeadState),
    /// Answers `FindActor`, and `ReserveActor` where the actor exists.
    ActorFound {
        request: u64,
        actor: Result<Option<FoundActor>, Failure>,
    },
    /// Some of the names that `ListActors` asked for.
    ActorNames {
        request: u64,
        names: Vec<NamedActor>,
        is_last: bool,
    },
    ActorEnded {
        request: u64,
    },
    /// Answers `KillProcess` and `CancelCall`.
    Obeyed {
        request: u64,
        outcome: Obeyed,
    },
    /// To the process that made a call. Answered by `CallCancelled`.
    CancelCall {
        request: u64,
        cancel: CancelCall,
    },
    /// Asks a process that waits for all its waits, and which of these calls it has and has not answered. A call is
    /// named by the process that made it, and its number. Answered by `AllWaits`.
    AskWaits {
        round: u64,
        calls: Vec<(OwnerId, u64)>,
    },
    /// To the owner of a promise. Answered by `PromiseNeeds`.
    AskPromise {
        round: u64,
        object: ObjectId,
    },
    /// To a process whose waits of these numbers can never end, each with the calls that wait for each other.
    Deadlocks {
        cycles: Vec<(u64, Vec<WaitingCall>)>,
    },
    ActorAt {
        actor: u64,
        process: OwnerId,
        /// How often a call of the actor is retried, unless the call says otherwise.
        max_task_retries: u32,
    },
    /// The actor's process is gone, and another one will take its place: `ActorAt` or `ActorOver` follows.
    ActorRestarts {
        actor: u64,
        pid: u32,
        reason: ExitReason,
    },
    ActorOver {
        actor: u64,
        pid: u32,
        failure: Failure,
    },
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct ReservedActor {
    pub(crate) actor: u64,
    /// An object that stands for the actor. The actor ends when no other handle to it is left.
    pub(crate) token: ObjectId,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FoundActor {
    pub(crate) actor: u64,
    pub(crate) token: ObjectId,
    pub(crate) class: Key,
    pub(crate) class_name: String,
    pub(crate) max_pending_calls: u32,
    pub(crate) description: String,
}

/// The name of a living actor, as [`list_named_actors`](crate::list_named_actors) returns it.
///
/// ```
/// use mobula::{ActorOptions, NamedActor};
///
/// struct Cache;
///
/// #[mobula::remote]
/// impl Cache {
///     fn new() -> Self {
///         Cache
///     }
/// }
///
/// let _mobula = mobula::init()?;
/// let _cache = Cache::options(ActorOptions::new().name("cache")).remote();
/// let NamedActor { name, namespace, .. } = &mobula::list_named_actors(false)?[0];
/// assert_eq!((name.as_str(), namespace.as_str()), ("cache", "default"));
/// # Ok::<(), mobula::Error>(())
/// ```
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[non_exhaustive]
pub struct NamedActor {
    /// The namespace.
    pub namespace: String,
    /// The name, which no other living actor of the namespace has.
    pub name: String,
}

impl NamedActor {
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self { namespace: namespace.to_owned(), name: name.to_owned() }
    }
}

/// Serializes bytes as bytes, not as a sequence of numbers.
mod bytes_field {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'de [u8], D::Error> {
        <&[u8]>::deserialize(deserializer)
    }
}
