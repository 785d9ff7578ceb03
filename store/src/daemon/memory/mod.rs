//! Memory for clients: leases, the queue of requests that wait for them, and making room.

pub(crate) mod lease;
pub(crate) mod prefault;
pub(crate) mod pressure;
pub(crate) mod table;
