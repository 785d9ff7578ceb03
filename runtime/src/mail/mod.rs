//! The mail: the records and events that arrive, how records are sent, and which thread handles them.

pub(crate) mod backlog;
pub(crate) mod link;
pub(crate) mod links;
pub(crate) mod pace;
pub(crate) mod spin;
pub(crate) mod waiters;
