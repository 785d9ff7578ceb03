//! Refusals: why the daemon does not do what was asked, in words for people and fields for programs.

use bytes::BufMut;

use crate::advice::explained;
use crate::id::{ObjectId, OwnerId};
use crate::message::DecodeError;
use crate::wire::Field;

/// What a number of the system's means, and what can be done.
fn reason(errno: u32) -> String {
    explained(&std::io::Error::from_raw_os_error(errno as i32))
}

/// Why the daemon does not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// No room for a lease, and none came up in time.
    #[error(
        "the store is full: {requested_bytes} bytes requested, {free_bytes} free of {capacity_bytes}, \
         and nothing could be evicted in time; drop references that are not needed, or start it with a larger capacity"
    )]
    StoreFull {
        /// What was asked for.
        requested_bytes: u64,
        /// What there is in all.
        capacity_bytes: u64,
        /// What was free for it at the end: nothing, while another request that has waited for longer has its turn.
        free_bytes: u64,
    },
    /// It can never fit.
    #[error(
        "an object of {requested_bytes} bytes cannot fit a store of {capacity_bytes} bytes: start it with a larger capacity"
    )]
    TooLarge {
        /// What was asked for.
        requested_bytes: u64,
        /// What there is in all.
        capacity_bytes: u64,
    },
    /// The machine itself has no memory (or no descriptors) left.
    #[error("the system refused the store {bytes} bytes of memory, or the descriptors for them: {}", reason(*errno))]
    NoMemory {
        /// What was to be allocated.
        bytes: u64,
        /// The system's number for the reason.
        errno: u32,
    },
    /// There is no such owner, any more or at all.
    #[error("owner {owner} is not known to this store: its objects are gone, or its ids come from elsewhere")]
    NoSuchOwner {
        /// Who was asked for.
        owner: OwnerId,
    },
    /// The owner has no such segment.
    #[error("owner {owner} has no segment {segment}")]
    NoSuchSegment {
        /// Whose.
        owner: OwnerId,
        /// Which.
        segment: u32,
    },
    /// There is no such object.
    #[error("object {object} does not exist: it was freed when nobody held it any more, or the id is wrong")]
    NoSuchObject {
        /// Which.
        object: ObjectId,
    },
    /// Nothing was published under the name in time.
    #[error("no object has this name, and none was given it within the time to wait")]
    NoSuchName {},
    /// The name stands for another object.
    #[error("the name is that of object {object}: choose another, or take it away from that object first")]
    NameTaken {
        /// Which.
        object: ObjectId,
    },
    /// No such channel of this client's.
    #[error("channel {channel} is not open: one of its ends has closed it, or it never was")]
    NoSuchChannel {
        /// Which.
        channel: u64,
    },
    /// A configured limit.
    #[error("over a limit of the store's configuration: {limit} = {max}")]
    LimitReached {
        /// The field of the daemon's configuration.
        limit: String,
        /// Its value.
        max: u64,
    },
    /// A client cannot be taken up again; the connection ends.
    #[error("the store cannot take up a client of the one before it: {reason}")]
    CannotResume {
        /// What was expected and what came.
        reason: String,
    },
    /// No room for a lease, and none could be made by spilling objects to files.
    #[error(
        "the store is full: {requested_bytes} bytes requested, {free_bytes} free of {capacity_bytes}, \
         and spilling objects to disk failed: {reason}"
    )]
    SpillFailed {
        /// What was asked for.
        requested_bytes: u64,
        /// What there is in all.
        capacity_bytes: u64,
        /// What was free at the end.
        free_bytes: u64,
        /// What went wrong.
        reason: String,
    },
    /// A spilled object did not come back; it is still in its file.
    #[error("object {object} is spilled to disk, and could not be brought back: {reason}")]
    NotRestored {
        /// Which.
        object: ObjectId,
        /// What went wrong.
        reason: String,
    },
    /// What a spilled object's file has is not what was written into it.
    #[error("object {object} was spilled to disk, and its file is damaged: the checksum does not match")]
    SpillDamaged {
        /// Which.
        object: ObjectId,
    },
    /// A configured limit of memory, and what there is of it.
    #[error(
        "over a limit of the store's configuration: {requested} bytes requested, {used} used of {limit} = {max}"
    )]
    QuotaReached {
        /// The field of the daemon's configuration.
        limit: String,
        /// Its value, in bytes.
        max: u64,
        /// What counts towards it already.
        used: u64,
        /// What was asked for.
        requested: u64,
    },
    /// The request makes no sense here; the connection ends.
    #[error("the daemon refused the request: {reason}")]
    BadRequest {
        /// What was expected and what came.
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
