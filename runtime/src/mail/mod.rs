//! The mail: the records and events that arrive, how records are sent, and which thread handles them.

pub(crate) mod ask;
pub(crate) mod backlog;
pub(crate) mod link;
pub(crate) mod links;
pub(crate) mod pace;
pub(crate) mod spin;
pub(crate) mod waiters;

/// The bell on which the threads of a process sleep. The model checker has another one; see `crate::sync`.
pub(crate) use mobula_client::Client as Bell;
