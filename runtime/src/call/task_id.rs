//! The id of a call, which its caller and the process that runs it know.

use std::fmt;

use mobula_client::OwnerId;

/// The id of a call: the same in all attempts, and of no other call of the session.
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
