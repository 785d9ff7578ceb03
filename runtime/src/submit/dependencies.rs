//! Calls that wait for their arguments.
//!
//! Each call counts the arguments that are not there. A result of this process counts down the calls that wait for it
//! when it is settled; a promise of another process is watched.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use mobula_client::{ClientError, Watch};
use parking_lot::Mutex;

use crate::call::result_cell::ResultCell;
use crate::call::task::Task;

thread_local! {
    /// Calls whose arguments became ready while this thread handles another call; `None` when it handles none.
    static READY: RefCell<Option<VecDeque<Arc<Task>>>> = const { RefCell::new(None) };
}

/// Whether this thread can still make calls. A thread that ends drops its thread-local values, `READY` among them.
pub(crate) fn is_there() -> bool {
    READY.try_with(|_| ()).is_ok()
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct Dependencies {
    foreign: Mutex<Vec<Foreign>>,
    /// The number of them, to be read without the lock.
    count: AtomicUsize,
}

/// An argument that is a promise of another process.
struct Foreign {
    cell: Arc<ResultCell>,
    /// The call that waits for it.
    task: Arc<Task>,
    /// The process that made the promise rings the bell of this one when it settles the promise.
    _watch: Watch,
}

impl Dependencies {
    /// Makes a call wait for the arguments that are not there. Each of them is counted in the call.
    ///
    /// # Errors
    /// An argument cannot be watched. It stays counted, so that nothing sends the call.
    pub(super) fn wait_for_arguments(&self, task: &Arc<Task>) -> Result<(), ClientError> {
        for cell in task.arguments.results() {
            // Counted first: the result may come at any moment.
            task.unready.fetch_add(1, Ordering::AcqRel);
            if cell.add_dependent(task) {
                continue;
            }
            match cell.foreign_promise() {
                Some(handle) => {
                    let watch = handle.watch()?;
                    let foreign = Foreign { cell: cell.clone(), task: task.clone(), _watch: watch };
                    self.foreign.lock().push(foreign);
                    self.count.fetch_add(1, Ordering::AcqRel);
                }
                None => {
                    task.unready.fetch_sub(1, Ordering::AcqRel);
                }
            }
        }
        Ok(())
    }

    /// Whether a watched promise is settled. Costs one load while no call waits for one.
    pub(super) fn any_settled(&self) -> bool {
        self.count.load(Ordering::Acquire) > 0
            && self.foreign.lock().iter().any(|foreign| foreign.cell.is_ready())
    }

    /// Removes the promises that are settled. Returns the call that waited for each.
    pub(super) fn take_settled(&self) -> Vec<Arc<Task>> {
        if self.count.load(Ordering::Acquire) == 0 {
            return Vec::new();
        }
        let mut foreign = self.foreign.lock();
        let settled = foreign.extract_if(.., |foreign| foreign.cell.is_ready());
        let settled: Vec<_> = settled.map(|foreign| foreign.task).collect();
        drop(foreign);
        self.count.fetch_sub(settled.len(), Ordering::AcqRel);
        settled
    }

    /// Removes and returns all calls that wait for promises of other processes: the session is over.
    pub(super) fn take_all(&self) -> Vec<Arc<Task>> {
        std::mem::take(&mut *self.foreign.lock()).into_iter().map(|foreign| foreign.task).collect()
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
