//! Settles results, and counts what is not settled yet.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::task::Waker;

use mobula_client::{Client, ClientError, Handle, ObjectId};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::call::outcome::Settled;
use crate::call::result_cell::{Dependent, ResultCell};
use crate::record;
use crate::submit::CROWD;

/// See the module's documentation.
pub(super) struct PendingResults {
    client: Client,
    /// The number of calls that have not been sent and of promises that have not been settled.
    unsettled: AtomicUsize,
    /// The calls whose results are promised to other processes, by the promises that are not settled.
    promised: Mutex<FxHashMap<ObjectId, u64>>,
    /// The number of futures that wait.
    futures: AtomicUsize,
    /// Wakers of futures whose results are there. They run code of an executor, so they are called only where nothing
    /// is locked.
    woken: Mutex<Vec<Waker>>,
    /// Whether there are such wakers, or retries for which the program decides, which runs its code, too.
    has_woken: AtomicBool,
}

impl PendingResults {
    pub(super) fn new(client: Client) -> Self {
        Self {
            client,
            unsettled: AtomicUsize::new(0),
            promised: Mutex::default(),
            futures: AtomicUsize::new(0),
            woken: Mutex::default(),
            has_woken: AtomicBool::new(false),
        }
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

    /// All of them are sent, or settled: the session is over.
    pub(super) fn end_all(&self) {
        self.unsettled.store(0, Ordering::Release);
    }

    /// Whether many calls are unsent, so that each should keep little memory.
    pub(super) fn is_crowded(&self) -> bool {
        self.unsettled.load(Ordering::Relaxed) > CROWD
    }

    /// Whether calls are unsent, promises unsettled, or futures wait.
    pub(super) fn is_busy(&self) -> bool {
        self.is_any_unsettled() || self.any_future()
    }

    /// Whether calls are unsent, or promises unsettled.
    pub(super) fn is_any_unsettled(&self) -> bool {
        self.unsettled.load(Ordering::SeqCst) > 0
    }

    // ---- futures ----

    /// A future begins to wait.
    pub(super) fn begin_future(&self) {
        // SeqCst: before the look at what the background poller does.
        self.futures.fetch_add(1, Ordering::SeqCst);
    }

    /// A future no longer waits.
    pub(super) fn end_future(&self) {
        self.futures.fetch_sub(1, Ordering::AcqRel);
    }

    /// Whether futures wait, or are to be woken.
    pub(super) fn any_future(&self) -> bool {
        self.futures.load(Ordering::SeqCst) > 0
    }

    /// A future's results are there.
    pub(super) fn wake_later(&self, waker: Waker) {
        self.woken.lock().push(waker);
        // SeqCst: this store comes before the check for sleeping threads.
        self.has_woken.store(true, Ordering::SeqCst);
    }

    /// Notes that the program decides whether a call is retried.
    pub(super) fn decide_later(&self) {
        // SeqCst: this store comes before the check for sleeping threads.
        self.has_woken.store(true, Ordering::SeqCst);
    }

    /// Whether futures are to be woken, or the program to be asked. Costs one load.
    pub(super) fn has_woken(&self) -> bool {
        self.has_woken.load(Ordering::SeqCst)
    }

    /// The futures to be woken.
    pub(super) fn take_woken(&self) -> Vec<Waker> {
        let mut woken = self.woken.lock();
        self.has_woken.store(false, Ordering::SeqCst);
        std::mem::take(&mut *woken)
    }

    // ---- results ----

    /// Exports a result. Returns a handle to the object that holds or will hold it, and whether a promise was made for
    /// it.
    pub(super) fn export(&self, cell: &ResultCell) -> Result<(Handle, bool), ClientError> {
        let (handle, promised) = cell.export(&self.client)?;
        if promised {
            self.begin(1);
            self.promised.lock().insert(handle.id(), cell.call);
            record::promised(&self.client, handle.id(), cell.call);
            // Another thread may have settled it meanwhile, and found nothing to remove.
            if !cell.is_pending() {
                self.promised.lock().remove(&handle.id());
            }
        }
        Ok((handle, promised))
    }

    /// Settles a cell. Returns the calls and futures that waited for it.
    #[must_use = "it waits"]
    pub(super) fn settle(&self, cell: &ResultCell, settled: Settled) -> Vec<Dependent> {
        let (dependents, promise) = cell.settle(&self.client, settled);
        if let Some(promise) = promise {
            self.promised.lock().remove(&promise);
            self.end(1);
        }
        dependents
    }

    /// The number of the call whose result was promised by this object, unless it is settled.
    pub(super) fn promised_call(&self, promise: ObjectId) -> Option<u64> {
        self.promised.lock().get(&promise).copied()
    }
}
