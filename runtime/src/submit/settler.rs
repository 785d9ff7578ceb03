//! Settles results, and counts what is not settled yet.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use mobula_client::{Client, ClientError, Handle};

use crate::call::outcome::Settled;
use crate::call::result_cell::ResultCell;
use crate::call::task::Task;

/// See the module's documentation.
pub(super) struct Settler {
    client: Client,
    /// The number of calls that have not been sent and of promises that have not been settled.
    unsettled: AtomicUsize,
    /// How many calls have failed, so that a wait for many results can tell that one has failed without checking each.
    failures: AtomicU64,
}

impl Settler {
    pub(super) fn new(client: Client) -> Self {
        Self { client, unsettled: AtomicUsize::new(0), failures: AtomicU64::new(0) }
    }

    /// Counts calls or promises that are not settled yet.
    pub(super) fn begin(&self, count: usize) {
        // SeqCst: before the look at what the background poller does.
        self.unsettled.fetch_add(count, Ordering::SeqCst);
    }

    /// Some of them are sent, or settled.
    pub(super) fn end(&self, count: usize) {
        self.unsettled.fetch_sub(count, Ordering::AcqRel);
    }

    /// All of them are: the session is over.
    pub(super) fn end_all(&self) {
        self.unsettled.store(0, Ordering::Release);
    }

    /// Whether calls are unsent, or promises unsettled.
    pub(super) fn is_busy(&self) -> bool {
        self.unsettled.load(Ordering::SeqCst) > 0
    }

    /// How many calls have failed, ever.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Acquire)
    }

    /// Exports a result. Returns a handle to the object that holds or will hold it, and whether a promise was made for
    /// it.
    pub(super) fn export(&self, cell: &ResultCell) -> Result<(Handle, bool), ClientError> {
        let (handle, promised) = cell.export(&self.client)?;
        if promised {
            self.begin(1);
        }
        Ok((handle, promised))
    }

    /// Settles a cell. Returns the calls that waited for it: one argument of each is there now.
    #[must_use = "the calls wait"]
    pub(super) fn settle(&self, cell: &ResultCell, settled: Settled) -> Vec<Arc<Task>> {
        let has_failed = matches!(settled, Settled::Failed(_));
        let (dependents, promised) = cell.settle(&self.client, settled);
        if has_failed {
            // This comes after the failure is visible: a thread that sees the count looks for the failure.
            self.failures.fetch_add(1, Ordering::AcqRel);
        }
        if promised {
            self.end(1);
        }
        dependents
    }
}
