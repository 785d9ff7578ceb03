//! The kinds of events.

/// The kind of an event. Each kind lists its values in their order; *name* is the number of a name.
///
/// This is exhaustive on purpose: the crates of one build handle each variant, so a new one must be a compile error
/// there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Kind {
    /// A call was made, and waits for a worker or for its actor. Name: its function. Values: the call, the call of this
    /// process that made it (0: none is known), its actor (0: it is of a function), 0, 0, and the sizes of its
    /// arguments: bytes in the call (32 bits), objects that they name (16), results of other calls (16).
    Made = 1,
    /// A call was made, and sent at once. Name: its function. Values: the first two of `Made`, the process that it went
    /// to, its actor, 0, the sizes.
    Sent = 2,
    /// A call was made, and waits for an argument. Name: its function. Detail: what the argument is, as in
    /// [`WaitFor`]. Values: the first two of `Made`, the two of the argument, its actor, the sizes.
    Blocked = 3,
    /// A call has succeeded. Name: its function. Values: the call, the process that ran it.
    Ended = 4,
    /// A call has failed. Name: its function. Detail: its [`Cause`]. Values: the call, the pid of a process that died.
    Failed = 5,
    /// This process has run a call. Name: its function. Detail: 0, or 1 if it failed. Values: the call, the process
    /// that made it, the tick at which it began.
    Ran = 6,
    /// A thread has waited. Detail: for [what](super::WaitFor). Values: the tick at which it began, and two that say
    /// what for.
    Waited = 7,
    /// Memory was leased. Values: its bytes, the tick at which it was asked for, the bytes that this client has then.
    Leased = 8,
    /// An object was spilled. Values: its id (two), its bytes, the bytes that this client has leased.
    Spilled = 9,
    /// An object was restored. Values: its id (two), its bytes, the bytes that this client has leased.
    Restored = 10,
    /// A mark of the program. Name: its text. Values: its number.
    Mark = 11,
    /// A span of the program. Name: its text. Values: the tick at which it began.
    Span = 12,
    /// A process that the head started has ended. Detail: 1 if a person or a program of the session requested that it
    /// is killed. Values: the process; its pid; the kind of the end (1 exited, 2 a signal, 3 memory was short, 4
    /// anything else); the exit code or the signal; its peak memory in bytes (0: unknown); its memory at the start. If
    /// the peak is not larger than that, it is inherited from the process that forked.
    Process = 13,
    /// An object was promised: the result of a call that is not over. Values: its id (two), the call.
    Promised = 14,
    /// A call has begun in this process, which may run others at the same time. Name: its function. Values: the call,
    /// the process that made it.
    Began = 15,
}

impl Kind {
    /// All kinds, in the order of their numbers.
    pub const ALL: [Kind; 15] = [
        Kind::Made,
        Kind::Sent,
        Kind::Blocked,
        Kind::Ended,
        Kind::Failed,
        Kind::Ran,
        Kind::Waited,
        Kind::Leased,
        Kind::Spilled,
        Kind::Restored,
        Kind::Mark,
        Kind::Span,
        Kind::Process,
        Kind::Promised,
        Kind::Began,
    ];

    pub(super) fn from_bits(bits: u8) -> Option<Self> {
        // A test looks whether the order is right.
        Self::ALL.get(usize::from(bits).checked_sub(1)?).copied()
    }

    /// The bit of this kind in the set of those that are recorded.
    pub const fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Why a call has failed.
///
/// This is exhaustive on purpose: the crates of one build handle each variant, so a new one must be a compile error
/// there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Cause {
    /// Any cause that is not listed here.
    Other = 0,
    /// The function has returned an error, or panicked.
    Function = 1,
    /// The process that ran it has died.
    Died = 2,
    /// It was cancelled.
    Cancelled = 3,
    /// It has reached a time limit.
    TimedOut = 4,
    /// Memory was short.
    OutOfMemory = 5,
}

impl Cause {
    /// The cause in the detail of an event.
    pub fn from_bits(bits: u8) -> Self {
        match bits {
            1 => Self::Function,
            2 => Self::Died,
            3 => Self::Cancelled,
            4 => Self::TimedOut,
            5 => Self::OutOfMemory,
            _ => Self::Other,
        }
    }
}

/// The reason of a thread's wait. Each lists the two values of such a wait.
///
/// This is exhaustive on purpose: the crates of one build handle each variant, so a new one must be a compile error
/// there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum WaitFor {
    /// One of several results or items, or a reason that this build does not know; 0, 0.
    Unknown = 0,
    /// The result of a call that this process made; the call, the process that it was sent to (0: none is known).
    Call = 1,
    /// An object that another process has promised; its id.
    Object = 2,
    /// Memory of the store; its bytes, 0.
    Memory = 3,
    /// A spilled object to be restored; its id.
    Restore = 4,
    /// The result of a call that waits for its actor; the call, the actor.
    Actor = 5,
    /// The result of a call that waits for a worker; the call, 0.
    Worker = 6,
    /// An answer of the head; 0, 0.
    Head = 7,
    /// A reader that takes items of the stream that this process makes; the client of its process, 0.
    Reader = 8,
}

impl WaitFor {
    /// The reason of a wait, from its detail.
    pub fn from_bits(bits: u8) -> Self {
        match bits {
            1 => Self::Call,
            2 => Self::Object,
            3 => Self::Memory,
            4 => Self::Restore,
            5 => Self::Actor,
            6 => Self::Worker,
            7 => Self::Head,
            8 => Self::Reader,
            _ => Self::Unknown,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_are_the_kind_that_has_them() {
        for bits in 0..=u8::MAX {
            assert!(Kind::from_bits(bits).is_none_or(|kind| kind as u8 == bits));
        }
        assert_eq!(Kind::from_bits(Kind::Began as u8), Some(Kind::Began));
        assert!(Kind::Began.bit() > 0);
    }
}
