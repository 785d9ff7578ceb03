//! The errors of the store as they travel between processes.

use std::error::Error as StdError;
use std::time::Duration;
use std::{fmt, io};

use mobula_client::{ClientError, ObjectId, Refusal};
use serde::{Deserialize, Serialize};

/// The kind of a [`ClientError`] of another process, with its numbers.
///
/// ```
/// use mobula::{Error, Failure, Refusal, StoreFailure};
///
/// #[mobula::remote]
/// fn zeros(count: usize) -> Vec<u64> {
///     vec![0; count]
/// }
///
/// let _mobula = mobula::Builder::new().capacity_bytes(16 << 20).init()?;
/// let error = match zeros::remote(4_000_000).get() {
///     Err(Error::Task(error)) => error,
///     other => panic!("{other:?}"),
/// };
/// let Some(Failure::Store { kind, .. }) = error.cause.as_deref() else { panic!("{error:?}") };
/// assert!(matches!(kind, StoreFailure::Refused(Refusal::TooLarge { requested_bytes: 32_000_000.., .. })));
/// # Ok::<(), mobula::Error>(())
/// ```
///
/// [`Error::refusal`](crate::Error::refusal) finds a refusal in fewer words.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum StoreFailure {
    /// The daemon refused: the store is full, the object does not fit, a limit is reached, spilling failed, and so on.
    Refused(Refusal),
    /// The daemon is gone, and no other has taken its place.
    StoreLost,
    /// The daemon did not answer in time.
    Timeout {
        /// How long the process waited for it.
        waited: Duration,
    },
    /// An object cannot be used, although it is not lost with its owner.
    Object {
        /// The object's id.
        object: ObjectId,
        /// The reason.
        problem: ObjectProblem,
    },
    /// The call ran in a forked child of a worker, which has no connection of its own.
    ForkedChild,
    /// The system refused memory, descriptors or mappings.
    System {
        /// The system's error number, if it gave one.
        errno: Option<i32>,
    },
    /// Another error; the text describes it.
    Other,
}

impl fmt::Display for StoreFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused(refusal) => refusal.fmt(f),
            Self::StoreLost => f.write_str("the store is lost"),
            Self::Timeout { waited } => write!(f, "the store did not answer within {waited:?}"),
            Self::Object { object, problem } => write!(f, "object {object} {problem}"),
            Self::ForkedChild => f.write_str("this is a forked child, which has no connection to the store"),
            Self::System { errno: Some(errno) } => io::Error::from_raw_os_error(*errno).fmt(f),
            Self::System { errno: None } | Self::Other => f.write_str("the store cannot be used"),
        }
    }
}

impl StdError for StoreFailure {}

/// Why an object that is not lost cannot be used.
///
/// ```
/// use mobula::{ClientError, Failure, ObjectId, ObjectProblem, StoreFailure};
///
/// let failure = Failure::from(ClientError::NotReady { object: ObjectId::from_bytes([7; 16]) });
/// let Failure::Store { kind: StoreFailure::Object { problem, .. }, .. } = failure else { panic!("{failure}") };
/// assert_eq!(problem, ObjectProblem::NotReady);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[non_exhaustive]
pub enum ObjectProblem {
    /// Its owner has deleted it.
    Deleted,
    /// It is promised, and not there yet.
    NotReady,
    /// Its owner was stopped while it looked at the object's pins.
    OwnerStalled,
    /// Its owner wrote an invalid place for it.
    Corrupt,
    /// The process has as many references of one kind to it as can be counted.
    TooManyReferences {
        /// The limit.
        max: u64,
    },
    /// Only its owner may do this.
    NotOwner {
        /// The [bits](mobula_client::OwnerId::bits) of the owner's id.
        owner: u64,
    },
}

impl ObjectProblem {
    fn of(self, object: &ObjectId) -> StoreFailure {
        StoreFailure::Object { object: *object, problem: self }
    }
}

impl fmt::Display for ObjectProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Deleted => f.write_str("was deleted by its owner"),
            Self::NotReady => f.write_str("is promised, and not there yet"),
            Self::OwnerStalled => f.write_str("is being freed by its owner, which does not go on"),
            Self::Corrupt => f.write_str("has an invalid place in its owner's table"),
            Self::TooManyReferences { max } => write!(f, "has {max} references, which is the limit"),
            Self::NotOwner { .. } => f.write_str("is an object of another client"),
        }
    }
}

impl From<&ClientError> for StoreFailure {
    fn from(error: &ClientError) -> Self {
        match error {
            ClientError::Refused(refusal) => Self::Refused(refusal.clone()),
            ClientError::StoreLost => Self::StoreLost,
            ClientError::Timeout { waited, .. } => Self::Timeout { waited: *waited },
            ClientError::Deleted { object } => ObjectProblem::Deleted.of(object),
            ClientError::NotReady { object } => ObjectProblem::NotReady.of(object),
            ClientError::OwnerStalled { object } => ObjectProblem::OwnerStalled.of(object),
            ClientError::Corrupt { object } => ObjectProblem::Corrupt.of(object),
            ClientError::TooManyReferences { object, max, .. } => {
                ObjectProblem::TooManyReferences { max: *max }.of(object)
            }
            ClientError::NotOwner { object, owner, .. } => {
                ObjectProblem::NotOwner { owner: owner.bits() }.of(object)
            }
            ClientError::ForkedChild => Self::ForkedChild,
            ClientError::System(error) => Self::System { errno: error.raw_os_error() },
            _ => Self::Other,
        }
    }
}
