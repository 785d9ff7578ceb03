//! The session of this process that a reference, a call or an actor belongs to.

use std::sync::atomic::{AtomicU32, Ordering};

/// The number of a session of this process. References and actors of one session cannot be used in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionNumber(u32);

impl SessionNumber {
    /// The number for references and calls of no session.
    pub const NONE: Self = Self(0);

    /// The number of the next session.
    pub(crate) fn next() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}
