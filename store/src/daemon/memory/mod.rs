//! Memory for clients: granting leases, allocating their pages, and making room while requests wait.

pub(crate) mod lease;
pub(crate) mod prefault;
