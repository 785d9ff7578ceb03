//! How records come and go between processes, and which thread deals with them.

pub(crate) mod link;
pub(crate) mod links;
pub(crate) mod spin;
pub(crate) mod waiters;
