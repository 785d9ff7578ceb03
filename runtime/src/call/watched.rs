//! Counts the calls for which a thread must look at the mail although none waits for their results: calls with time
//! limits, which begin at some time, and calls that may fail and be sent again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of such calls that are there.
#[derive(Debug, Default)]
pub(crate) struct WatchedCalls(Arc<AtomicUsize>);

impl WatchedCalls {
    /// One more is made.
    pub(crate) fn one_more(&self) -> Watched {
        // SeqCst: before the look at what the background poller does.
        self.0.fetch_add(1, Ordering::SeqCst);
        Watched(self.0.clone())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

/// One of the calls, for as long as it is there.
#[derive(Debug)]
pub(crate) struct Watched(Arc<AtomicUsize>);

impl Drop for Watched {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
