//! Refusals: why the daemon does not carry out a request, in words for people and fields for programs.

use bytes::BufMut;
use serde::{Deserialize, Serialize};

use crate::advice::explained;
use crate::id::{ObjectId, OwnerId};
use crate::message::error::DecodeError;
use crate::message::field::Field;

/// The meaning of an error number of the system, with advice.
fn reason(errno: u32) -> String {
    explained(&std::io::Error::from_raw_os_error(errno as i32))
}

/// Why the daemon does not carry out a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There was no room for a lease, and none became free in time.
    #[error(
        "the store is full: {requested_bytes} bytes requested, {free_bytes} free of {capacity_bytes}, \
         and nothing could be evicted in time; drop references that are not needed, or start it with a larger capacity"
    )]
    StoreFull {
        /// Bytes requested.
        requested_bytes: u64,
        /// Bytes that the store may lease in all.
        capacity_bytes: u64,
        /// Bytes available to this request at its deadline; 0 while they are reserved for an older request.
        free_bytes: u64,
    },
    /// The request can never fit.
    #[error(
        "an object of {requested_bytes} bytes cannot fit a store of {capacity_bytes} bytes: start it with a larger \
         capacity"
    )]
    TooLarge {
        /// Bytes requested.
        requested_bytes: u64,
        /// Bytes that the store may lease in all.
        capacity_bytes: u64,
    },
    /// The machine has no memory, or no descriptors, left.
    #[error("the system refused the store {bytes} bytes of memory, or the descriptors for them: {}", reason(*errno))]
    NoMemory {
        /// Bytes that were to be allocated.
        bytes: u64,
        /// The system's error number.
        errno: u32,
    },
    /// There is no such owner: it is forgotten, or never existed.
    #[error("owner {owner} is not known to this store: its objects are gone, or its ids come from elsewhere")]
    NoSuchOwner {
        /// The owner in the request.
        owner: OwnerId,
    },
    /// The owner has no such segment.
    #[error("owner {owner} has no segment {segment}")]
    NoSuchSegment {
        /// The owner in the request.
        owner: OwnerId,
        /// The segment's number in the request.
        segment: u32,
    },
    /// There is no such object.
    #[error("object {object} does not exist: it was freed when nobody held it any more, or the id is wrong")]
    NoSuchObject {
        /// The object in the request.
        object: ObjectId,
    },
    /// No object was published under the name in time.
    #[error("no object has this name, and none was given it within the time to wait")]
    NoSuchName {},
    /// Another object has the name.
    #[error("the name is that of object {object}: choose another, or unpublish it first")]
    NameTaken {
        /// The object that has the name.
        object: ObjectId,
    },
    /// The client has no such channel.
    #[error("channel {channel} is not open: one of its ends has closed it, or it never was")]
    NoSuchChannel {
        /// The channel's number in the request.
        channel: u64,
    },
    /// A configured limit is reached.
    #[error("over a limit of the store's configuration: {limit} = {max}")]
    LimitReached {
        /// The field of the daemon's configuration.
        limit: String,
        /// Its value.
        max: u64,
    },
    /// The client of a killed daemon cannot continue with this daemon; the connection ends.
    #[error("a client of the store before cannot go on with this one: {reason}")]
    CannotResume {
        /// The expected and the actual message.
        reason: String,
    },
    /// There was no room for a lease, and spilling could not make any.
    #[error(
        "the store is full: {requested_bytes} bytes requested, {free_bytes} free of {capacity_bytes}, \
         and spilling objects to disk failed: {reason}"
    )]
    SpillFailed {
        /// Bytes requested.
        requested_bytes: u64,
        /// Bytes that the store may lease in all.
        capacity_bytes: u64,
        /// Bytes free at the deadline.
        free_bytes: u64,
        /// The error.
        reason: String,
    },
    /// A spilled object was not restored; it is still in its file.
    #[error("object {object} is spilled to disk, and could not be restored: {reason}")]
    NotRestored {
        /// The object in the request.
        object: ObjectId,
        /// The error.
        reason: String,
    },
    /// The spill file of an object does not contain what was written into it.
    #[error("object {object} was spilled to disk, and its file is damaged: the checksum does not match")]
    SpillDamaged {
        /// The object in the request.
        object: ObjectId,
    },
    /// A configured limit of memory is reached.
    #[error(
        "over a limit of the store's configuration: {requested} bytes requested, {used} used of {limit} = {max}"
    )]
    QuotaReached {
        /// The field of the daemon's configuration.
        limit: String,
        /// Its value, in bytes.
        max: u64,
        /// Bytes that count towards the limit already.
        used: u64,
        /// Bytes requested.
        requested: u64,
    },
    /// The request is not valid in this state of the connection, which ends.
    #[error("the daemon refused the request: {reason}")]
    BadRequest {
        /// The expected and the actual message.
        reason: String,
    },
}

macro_rules! refusals {
    ($($code:literal => $variant:ident { $($field:ident),* })*) => {
        impl Field for Refusal {
            fn put(&self, out: &mut Vec<u8>) {
                match self {
                    $(Self::$variant { $($field),* } => {
                        out.put_u8($code);
                        $($field.put(out);)*
                    })*
                }
            }
            fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
                match u8::take(input)? {
                    $($code => Ok(Self::$variant { $($field: Field::take(input)?),* }),)*
                    other => Err(DecodeError::BadField { field: "refusal", value: u64::from(other) }),
                }
            }
        }
    };
}

refusals! {
    0 => StoreFull { requested_bytes, capacity_bytes, free_bytes }
    1 => TooLarge { requested_bytes, capacity_bytes }
    2 => NoMemory { bytes, errno }
    3 => NoSuchOwner { owner }
    4 => NoSuchSegment { owner, segment }
    5 => NoSuchObject { object }
    6 => NoSuchName {}
    7 => NameTaken { object }
    8 => NoSuchChannel { channel }
    9 => LimitReached { limit, max }
    10 => BadRequest { reason }
    11 => SpillFailed { requested_bytes, capacity_bytes, free_bytes, reason }
    12 => NotRestored { object, reason }
    13 => SpillDamaged { object }
    14 => QuotaReached { limit, max, used, requested }
    17 => CannotResume { reason }
}
