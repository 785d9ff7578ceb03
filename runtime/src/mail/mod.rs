//! How records come and go between processes.

pub(crate) mod link;
pub(crate) mod spin;
