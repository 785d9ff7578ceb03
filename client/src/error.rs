//! The errors of this crate.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use mobula_protocol::advice::explained;
use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{DecodeError, Reply};

use crate::counting::count::TooMany;

/// The reason why the daemon refused a request: [`ClientError::Refused`].
///
/// ```
/// use mobula_client::{ClientError, Refusal};
///
/// # let store = mobula_test_store::start();
/// # let client = store.client();
/// let (one, other) = (client.put(b"one")?, client.put(b"other")?);
/// client.publish("name", one.id())?;
/// match client.publish("name", other.id()) {
///     Err(ClientError::Refused(Refusal::NameTaken { object })) => assert_eq!(object, one.id()),
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), ClientError>(())
/// ```
#[doc(inline)]
pub use mobula_protocol::message::Refusal;

/// The reason why an operation on the store failed. Nothing was lost unless the error says so.
///
/// Each operation that asks the daemon can fail with [`StoreLost`](Self::StoreLost) and [`Timeout`](Self::Timeout), and
/// each one in a forked child with [`ForkedChild`](Self::ForkedChild). The others stand beside the operations.
///
/// ```
/// use mobula_client::{ClientError, Refusal};
///
/// # let store = mobula_test_store::start();
/// # let client = store.client();
/// match client.put(&vec![0; client.capacity_bytes() as usize + 1]) {
///     Err(ClientError::Refused(Refusal::TooLarge { requested_bytes, capacity_bytes })) => {
///         assert!(requested_bytes > capacity_bytes);
///     }
///     other => panic!("{other:?}"),
/// }
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ClientError {
    /// No store listens at the socket, or it cannot be reached.
    #[error(
        "no store at {path}: {reason}; start one with `mobula-store --socket {path} --capacity 2GiB`",
        path = path.display()
    )]
    NoStore {
        /// The socket's path.
        path: PathBuf,
        /// The system's reason.
        reason: io::Error,
    },
    /// The daemon is gone, and no other has taken its place in time. Objects that are held stay readable; every
    /// operation that needs the daemon fails.
    #[error(
        "the store is lost: its daemon has hung up, and no other has taken its place; the objects that this process \
         holds stay readable, for anything else connect to another store"
    )]
    StoreLost,
    /// The daemon did not answer in time.
    #[error(
        "the store did not answer the request `{operation}` within {waited:?}: its process is stopped, or the machine \
         is too busy"
    )]
    Timeout {
        /// The request.
        operation: &'static str,
        /// How long this process has waited.
        waited: Duration,
    },
    /// The daemon has refused.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// The object does not exist (any more): it was freed, or the id was never given out.
    #[error(
        "object {object} does not exist: it was freed when no process held it any more, or the id is wrong"
    )]
    NoSuchObject {
        /// The id.
        object: ObjectId,
    },
    /// Its owner has deleted it; a process that holds it keeps it.
    #[error("object {object} was deleted by its owner: only processes that held it before still have it")]
    Deleted {
        /// The id.
        object: ObjectId,
    },
    /// It is promised, and not there yet.
    #[error("object {object} is promised, and not there yet: wait for it before reading it")]
    NotReady {
        /// The id.
        object: ObjectId,
    },
    /// The client that promised it has died.
    #[error("object {object} is lost: its owner died before it was sealed")]
    Lost {
        /// The id.
        object: ObjectId,
    },
    /// Its owner was stopped while it looked at the object's pins, so the object stays in a state that should last only
    /// a moment.
    #[error(
        "object {object} is being freed by its owner, whose process does not go on: it was stopped, as by SIGSTOP or a \
         debugger"
    )]
    OwnerStalled {
        /// The id.
        object: ObjectId,
    },
    /// The owner wrote a place that does not exist; the object cannot be read.
    #[error(
        "object {object} cannot be read: its owner's table says that it lies where no memory is, so that process has a \
         bug"
    )]
    Corrupt {
        /// The id.
        object: ObjectId,
    },
    /// This process has as many references of one kind to the object as can be counted.
    #[error("this process has {max} {kind} object {object}, and cannot count more: drop some of them first")]
    TooManyReferences {
        /// The id.
        object: ObjectId,
        /// The kind of which there are so many, in the plural.
        kind: &'static str,
        /// The limit.
        max: u64,
    },
    /// Only its owner may do this.
    #[error("object {object} belongs to client {owner}: only its owner can {operation} it")]
    NotOwner {
        /// The id.
        object: ObjectId,
        /// Its owner.
        owner: OwnerId,
        /// The operation.
        operation: &'static str,
    },
    /// The client was made before a fork, and this is the child.
    #[error("this store connection belongs to the parent process: a forked child must connect for itself")]
    ForkedChild,
    /// The daemon sent something that this build does not understand.
    #[error("the store's answer cannot be understood: {0}; use the same build of Mobula on both sides")]
    BadReply(String),
    /// The system refused memory, descriptors or mappings to this process.
    #[error("the system refused: {}", explained(.0))]
    System(#[from] io::Error),
}

impl ClientError {
    /// The daemon's reply has a type that does not belong to the request.
    #[cold]
    pub(crate) fn unexpected(reply: &Reply) -> Self {
        Self::BadReply(format!("{reply:?}"))
    }

    /// Checks that a page follows the page before it. Otherwise the list would have no end.
    pub(crate) fn check_goes_on(goes_on: bool) -> Result<(), Self> {
        let reason = || Self::BadReply("a page of a list that does not follow the page before it".to_owned());
        goes_on.then_some(()).ok_or_else(reason)
    }
}

impl TooMany {
    /// The error for references to this object.
    #[cold]
    pub(crate) fn of(self, object: ObjectId) -> ClientError {
        ClientError::TooManyReferences { object, kind: self.kind.plural(), max: self.max }
    }
}

impl From<DecodeError> for ClientError {
    fn from(error: DecodeError) -> Self {
        Self::BadReply(error.to_string())
    }
}
