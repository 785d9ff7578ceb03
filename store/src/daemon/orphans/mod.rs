//! The objects of owners that have died: takeover, sweep, eviction, restoring, and escrow of their descriptors.

pub(crate) mod escrow;
pub(crate) mod evict;
pub(crate) mod restore;
pub(crate) mod takeover;
