//! The id of a call. The caller and the process that runs the call know it.

use std::fmt;

use mobula_client::OwnerId;

/// The id of a call: the same in all attempts, and unique in the session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TaskId {
    caller: OwnerId,
    number: u64,
}

impl TaskId {
    pub(crate) fn new(caller: OwnerId, number: u64) -> Self {
        Self { caller, number }
    }
}

impl fmt::Display for TaskId {
    /// As 32 hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}{:016x}", self.caller.bits(), self.number)
    }
}
