//! The answer to a request, and the refusals that every part of the daemon uses.

use std::io;
use std::time::Instant;

use mobula_protocol::message::{Refusal, Reply};

use crate::core::waiters::{Waiter, deadline};
use crate::memory::Attachment;

/// The answer to a request that is not refused.
pub(crate) enum Answer {
    /// The reply, with the descriptors that travel beside it.
    Now(Reply, Vec<Attachment>),
    /// The request waits, and is answered later.
    Later,
}

impl Answer {
    /// The request was carried out, and the reply has no content.
    pub(crate) fn done() -> Outcome {
        Ok(Self::Now(Reply::Done {}, Vec::new()))
    }
}

/// The result of a request.
pub(crate) type Outcome = Result<Answer, Refusal>;

/// A request that may wait for its result.
pub(crate) struct Patient {
    /// Slot of the client.
    pub(crate) client: u16,
    /// Correlation number of the request.
    pub(crate) correlation: u64,
    /// How long the client waits.
    pub(crate) timeout_ms: u64,
    /// When the request came.
    pub(crate) now: Instant,
    /// The refusal if the client has too many requests that wait.
    pub(crate) may_wait: Result<(), Refusal>,
}

impl Patient {
    /// The request in the queue of those that wait for a `T`, unless the client has too many there.
    pub(crate) fn waits_for<T>(self, wants: T) -> Result<Waiter<T>, Refusal> {
        self.may_wait?;
        let deadline = deadline(self.now, self.timeout_ms);
        Ok(Waiter { client: self.client, correlation: self.correlation, deadline, wants })
    }
}

/// The refusal of a request that is not valid in this state of the connection: the connection ends.
pub(crate) fn bad_request(reason: &str) -> Refusal {
    Refusal::BadRequest { reason: reason.to_owned() }
}

/// The refusal of a request over a limit of the configuration.
pub(crate) fn limit_reached(limit: &str, max: u64) -> Refusal {
    Refusal::LimitReached { limit: limit.to_owned(), max }
}

/// The refusal of a request for which the machine has no memory or no descriptors.
pub(crate) fn no_memory(bytes: u64, error: &io::Error) -> Refusal {
    Refusal::NoMemory { bytes, errno: error.raw_os_error().unwrap_or(0) as u32 }
}
