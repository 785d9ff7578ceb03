//! The callers that ask the pool for workers.

use mobula_client::OwnerId;

/// The other end of a link to the head: a caller that wants workers, or a worker.
pub(in crate::head) trait Caller: Clone {
    /// The number of the link.
    fn id(&self) -> u64;
    /// The process at the other end.
    fn peer(&self) -> OwnerId;
}
