//! Which of the sessions that this process has had something came from.

use std::sync::atomic::{AtomicU32, Ordering};

/// Tells the sessions that this process has had apart: what came from one is of no use in another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SessionNumber(u32);

impl SessionNumber {
    /// Of what came from no session.
    pub const NONE: Self = Self(0);

    /// For the next session.
    pub(crate) fn next() -> Self {
        static LAST: AtomicU32 = AtomicU32::new(0);
        Self(LAST.fetch_add(1, Ordering::Relaxed) + 1)
    }
}
