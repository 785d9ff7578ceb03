//! Calls that wait for their arguments, and futures that wait for results.
//!
//! Each of them counts its missing results. When a result of this process is settled, it reduces the counts of the
//! calls and futures that wait for it. A promise of another process is watched.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mobula_client::internal::recorder::{Queue, Recorder};
use mobula_client::{ClientError, Watch};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;

use crate::call::result_cell::{Dependent, ResultCell};
use crate::call::task::Task;
use crate::call::waiter::Waiter;
use crate::record;

thread_local! {
    /// Calls whose arguments became ready while this thread handles another call; `None` when it handles none.
    static READY: RefCell<Option<VecDeque<Arc<Task>>>> = const { RefCell::new(None) };
}

/// Whether this thread can still make calls. A thread that ends drops its thread-local values, `READY` among them.
pub(crate) fn is_there() -> bool {
    READY.try_with(|_| ()).is_ok()
}

/// See the module's documentation.
pub(super) struct Dependencies {
    recorder: Option<Arc<Recorder>>,
    foreign: Mutex<Vec<Foreign>>,
    /// The number of them, to be read without the lock.
    count: AtomicUsize,
    /// The calls that wait for arguments, by their ids. The thread that removes a call decides what happens to it.
    blocked: Mutex<FxHashMap<u64, Arc<Task>>>,
}

/// A promise of another process.
struct Foreign {
    cell: Arc<ResultCell>,
    dependent: Dependent,
    /// The process that made the promise rings the bell of this one when it settles the promise.
    _watch: Watch,
}

impl Dependencies {
    /// Records the number of calls that wait.
    pub(super) fn new(recorder: Option<Arc<Recorder>>) -> Self {
        Self { recorder, foreign: Mutex::default(), count: AtomicUsize::new(0), blocked: Mutex::default() }
    }

    fn note(&self, blocked: &FxHashMap<u64, Arc<Task>>) {
        record::queue(self.recorder.as_ref(), Queue::ForArguments, blocked.len());
    }

    /// Makes a call wait for the arguments that are not there. Each of them is counted in the call.
    ///
    /// # Errors
    /// An argument cannot be watched. It stays counted, so that nothing sends the call.
    pub(super) fn wait_for_arguments(&self, task: &Arc<Task>) -> Result<(), ClientError> {
        if task.arguments.results().next().is_some() {
            let mut blocked = self.blocked.lock();
            blocked.insert(task.id, task.clone());
            self.note(&blocked);
        }
        for cell in task.arguments.results() {
            // Counted first: the result may come at any moment.
            task.unready.fetch_add(1, Ordering::AcqRel);
            if self.add(cell, Dependent::Task(task.clone()))?.is_some() {
                task.unready.fetch_sub(1, Ordering::AcqRel);
            }
        }
        Ok(())
    }

    /// Removes a call that no longer waits for arguments. Returns `false` if it was cancelled meanwhile.
    pub(super) fn release(&self, task: &Task) -> bool {
        if task.arguments.results().next().is_none() {
            return true;
        }
        let mut blocked = self.blocked.lock();
        let was_there = blocked.remove(&task.id).is_some();
        self.note(&blocked);
        was_there
    }

    /// A call that waits for arguments.
    pub(super) fn waiting_call(&self, call: u64) -> Option<Arc<Task>> {
        self.blocked.lock().get(&call).cloned()
    }

    /// Removes and returns those of the calls that wait for arguments.
    pub(super) fn take_if(&self, is_chosen: &dyn Fn(&Task) -> bool) -> Vec<Arc<Task>> {
        let mut blocked = self.blocked.lock();
        let taken = blocked.extract_if(|_, task| is_chosen(task)).map(|(_, task)| task).collect();
        self.note(&blocked);
        taken
    }

    /// Makes a call or a future wait for a result. Returns it if the result is there.
    ///
    /// # Errors
    /// The promise cannot be watched.
    pub(super) fn add(
        &self,
        cell: &Arc<ResultCell>,
        dependent: Dependent,
    ) -> Result<Option<Dependent>, ClientError> {
        let Err(dependent) = cell.add_dependent(dependent) else { return Ok(None) };
        let Some(handle) = cell.foreign_promise() else { return Ok(Some(dependent)) };
        let watch = handle.watch()?;
        self.foreign.lock().push(Foreign { cell: cell.clone(), dependent, _watch: watch });
        self.count.fetch_add(1, Ordering::AcqRel);
        Ok(None)
    }

    /// Removes a future that no longer waits for the promises of other processes.
    pub(super) fn remove_waiter(&self, waiter: &Arc<Waiter>) {
        if self.count.load(Ordering::Acquire) > 0 {
            let mut foreign = self.foreign.lock();
            let removed = foreign.extract_if(.., |foreign| foreign.dependent.is(waiter)).count();
            self.count.fetch_sub(removed, Ordering::AcqRel);
        }
    }

    /// Whether a call or a future waits for a promise of another process. Costs one load.
    #[inline]
    pub(super) fn any(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
    }

    /// Whether a watched promise is settled. Costs one load while no call waits for one.
    pub(super) fn any_settled(&self) -> bool {
        self.any() && self.foreign.lock().iter().any(|foreign| foreign.cell.is_ready())
    }

    /// Removes the promises that are settled. Returns the calls and futures that waited for them.
    pub(super) fn take_settled(&self) -> Vec<Dependent> {
        let mut foreign = self.foreign.lock();
        let settled = foreign.extract_if(.., |foreign| foreign.cell.is_ready());
        let settled: Vec<_> = settled.map(|foreign| foreign.dependent).collect();
        drop(foreign);
        self.count.fetch_sub(settled.len(), Ordering::AcqRel);
        settled
    }

    /// Removes and returns all calls and futures that wait for promises of other processes: the session is over.
    pub(super) fn take_all(&self) -> Vec<Dependent> {
        std::mem::take(&mut *self.foreign.lock()).into_iter().map(|foreign| foreign.dependent).collect()
    }

    /// Counts one argument of a call as ready. If it was the last, the call goes to `handle`.
    ///
    /// One call's failure may settle the arguments of the next, and so on along chains of any length. So a call that
    /// becomes ready meanwhile goes to `READY`, and the outermost invocation handles it. The recursion has one level.
    pub(super) fn one_is_ready(task: &Arc<Task>, handle: impl Fn(&Arc<Task>)) {
        if task.unready.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let is_outermost = READY.with_borrow_mut(|ready| match ready {
            Some(ready) => {
                ready.push_back(task.clone());
                false
            }
            None => {
                *ready = Some(VecDeque::new());
                true
            }
        });
        if !is_outermost {
            return;
        }
        let mut next = Some(task.clone());
        while let Some(task) = next {
            handle(&task);
            next = READY.with_borrow_mut(|calls| {
                let next = calls.as_mut().and_then(VecDeque::pop_front);
                if next.is_none() {
                    *calls = None;
                }
                next
            });
        }
    }
}
