//! What processes of a session say to each other through their rings.
//!
//! A record is a postcard of one of these enums, borrowed from the record where it can be. Objects that a record names
//! are kept alive by its sender until its receiver has acknowledged it, or until the call that it belongs to is over.

use mobula_client::{ObjectId, OwnerId};
use serde::{Deserialize, Serialize};

use crate::error::Failure;
use crate::registry::Key;

/// An argument, or a result.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Payload<'a> {
    /// Small: the encoded value itself, and the objects that it refers to.
    Inline {
        #[serde(borrow, with = "bytes_field")]
        bytes: &'a [u8],
        references: Vec<ObjectId>,
    },
    /// Large, or in the store anyway.
    Stored(ObjectId),
}

/// What is to be run.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) enum Callee {
    Function(Key),
    Method(u32),
}

/// How many objects the result of a call becomes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum Returns {
    /// One, whatever its type.
    One,
    /// The elements of a tuple of this many.
    Tuple(u32),
    /// The elements of a list that must be this long.
    List(u32),
}

impl Returns {
    pub(crate) fn count(self) -> usize {
        match self {
            Self::One => 1,
            Self::Tuple(count) | Self::List(count) => count as usize,
        }
    }
}

/// From a caller to the process that is to run something.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToWorker<'a> {
    Call {
        /// Chosen by the caller; comes back with the results.
        task: u64,
        callee: Callee,
        returns: Returns,
        #[serde(borrow)]
        arguments: Vec<Payload<'a>>,
    },
}

/// Back to the caller.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToCaller<'a> {
    /// Some of a call's results; the call is over with the last of them.
    Results {
        task: u64,
        /// Position of the first of these results.
        first: u32,
        #[serde(borrow)]
        results: Vec<Payload<'a>>,
        /// How long the call ran, with the last part.
        ran_nanos: Option<u64>,
    },
    /// The call failed.
    Failed { task: u64, failure: Failure, ran_nanos: u64 },
    /// The call was not begun, and somebody else should have it: this process is going to be busy for long.
    Declined { task: u64 },
}

/// From any process of the session to the head.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum ToHead<'a> {
    /// A process that the head started is ready to serve.
    Register {
        token: u64,
        pid: u32,
        fingerprint: u64,
    },
    /// So many more workers would be welcome; replaces what was said before.
    Want {
        workers: u32,
    },
    /// A worker that was granted is not needed any more.
    Return {
        worker: OwnerId,
    },
    /// This worker waits for results of others, and gives its place up to them.
    Blocked,
    /// It goes on.
    Unblocked,
    /// A place for an actor, still without a process. Answered by `ActorReserved`.
    ReserveActor {
        request: u64,
        class: Key,
        class_name: &'a str,
        name: Option<&'a str>,
    },
    /// Its constructor's arguments are there.
    StartActor {
        actor: u64,
        #[serde(borrow)]
        arguments: Vec<Payload<'a>>,
    },
    /// Its constructor's arguments will never be there.
    AbandonActor {
        actor: u64,
        failure: Failure,
    },
    /// Answered by `ActorAt` or `ActorOver`, now or once it is known, and again when it changes.
    WatchActor {
        actor: u64,
    },
    /// Answered by `ActorFound`.
    FindActor {
        request: u64,
        name: &'a str,
    },
    KillActor {
        actor: u64,
    },
    /// The constructor has run, in this process.
    Constructed {
        actor: u64,
        result: Result<(), Failure>,
    },
}

/// From the head.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum FromHead<'a> {
    /// A worker to send calls to.
    Granted {
        worker: OwnerId,
        pid: u32,
    },
    /// There will be none: processes do not start.
    NoWorkers {
        failure: Failure,
    },
    /// Somebody else has none at all: give this one back when its calls are over.
    Recall {
        worker: OwnerId,
    },
    /// Become this actor.
    Construct {
        actor: u64,
        class: Key,
        #[serde(borrow)]
        arguments: Vec<Payload<'a>>,
    },
    /// End, when what was begun is done.
    Exit,
    ActorReserved {
        request: u64,
        result: Result<ReservedActor, Failure>,
    },
    ActorFound {
        request: u64,
        actor: Option<FoundActor>,
    },
    ActorAt {
        actor: u64,
        process: OwnerId,
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
    /// An object that stands for the actor: it ends when nobody holds it any more.
    pub(crate) token: ObjectId,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct FoundActor {
    pub(crate) actor: u64,
    pub(crate) token: ObjectId,
    pub(crate) class: Key,
    pub(crate) class_name: String,
}

/// Bytes as bytes, not as a sequence of numbers.
mod bytes_field {
    use serde::{Deserialize, Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &&[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_bytes(bytes)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<&'de [u8], D::Error> {
        <&[u8]>::deserialize(deserializer)
    }
}
