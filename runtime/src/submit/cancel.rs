//! Cancelling calls of this process, wherever they are, and calls of other processes, by the promises of their results.

use std::sync::atomic::Ordering;

use mobula_client::ObjectId;
use rustc_hash::{FxHashMap, FxHashSet};

use super::reach::NotReached;
use super::{State, Submitter};
use crate::call::task::{Target, Task};
use crate::error::{Failure, Result, TimeLimit};
use crate::wire::{Cancel, CancelCall, CancelPromised, Obeyed, ToHead};

impl Submitter {
    /// Cancels the chosen calls. Those that have not been sent are removed; those that have been sent are
    /// removed by their processes, or learn that they are cancelled if they run. Their results are there at once:
    /// [`Failure::TaskCancelled`]. A call that is over stays as it is.
    pub(crate) fn cancel(&self, is_chosen: &dyn Fn(&Task) -> bool, force: bool, recursive: bool) {
        self.cancel_by(std::process::id(), is_chosen, force, recursive);
    }

    /// The number of the call of this process whose result is promised by this object, unless it is over.
    pub(crate) fn promised_call(&self, promise: ObjectId) -> Option<u64> {
        self.pending_results.promised_call(promise)
    }

    /// Another process cancels a call of this one. A call that is over stays as it is, and any other object is ignored.
    pub(crate) fn on_cancel_promised(&self, cancel: CancelPromised) {
        let CancelPromised { promise, force, recursive, by } = cancel;
        if let Some(call) = self.promised_call(promise) {
            self.cancel_by(by, &|task| task.id == call, force, recursive);
        }
    }

    /// An observer of the session cancels a call of this process. The head answers the observer.
    pub(super) fn on_cancel_call(&self, request: u64, cancel: CancelCall) {
        let CancelCall { task: number, force, recursive, by } = cancel;
        let is_it = |task: &Task| {
            let is_constructor = matches!(task.target, Target::Constructor { .. });
            task.id == number && !is_constructor && !task.is_over()
        };
        let is_method = |task: &Task| is_it(task) && matches!(task.target, Target::Method { .. });
        let outcome = match force && self.any(&is_method) {
            true => Obeyed::IsOfActor,
            false if self.cancel_by(by, &is_it, force, recursive) > 0 => Obeyed::Done,
            false => Obeyed::NoSuchCall,
        };
        if let Some(head) = self.links.head() {
            let _ = head.send(&ToHead::CallCancelled { request, outcome }, Vec::new());
        }
    }

    /// Tells the processes that made calls to cancel them, by the promises of their results. The promises of a process
    /// that is gone are lost already.
    ///
    /// # Errors
    /// A process cannot be reached. Some of the others have been told.
    pub(crate) fn cancel_of_others(
        &self,
        promises: &[ObjectId],
        force: bool,
        recursive: bool,
    ) -> Result<(), Failure> {
        let by = std::process::id();
        for promise in promises {
            match self.reach.link_to(promise.owner()) {
                Ok(link) => {
                    let cancel = CancelPromised { promise: *promise, force, recursive, by };
                    let _ = link.send_with(Vec::new(), |record| cancel.append_to(record));
                }
                Err(NotReached::Gone) => {}
                Err(NotReached::NoRoom(failure)) => return Err(failure),
            }
        }
        Ok(())
    }

    /// Returns the number of calls.
    fn cancel_by(&self, by: u32, is_chosen: &dyn Fn(&Task) -> bool, force: bool, recursive: bool) -> usize {
        let failure = |task: &Task| Failure::TaskCancelled { function: task.target.name(), by };
        self.cancel_with(is_chosen, &failure, force, recursive)
    }

    /// Cancels the calls that have reached a limit, by their numbers. Their failure names the limit.
    pub(super) fn time_out(&self, reached: &FxHashMap<u64, TimeLimit>) {
        let failure = |task: &Task| {
            let limit = reached.get(&task.id).copied().unwrap_or(TimeLimit::Deadline);
            task.timed_out(limit)
        };
        self.cancel_with(&|task| reached.contains_key(&task.id), &failure, false, true);
    }

    /// Cancels the chosen calls, which end with this failure. Returns their number.
    fn cancel_with(
        &self,
        is_chosen: &dyn Fn(&Task) -> bool,
        failure: &dyn Fn(&Task) -> Failure,
        force: bool,
        recursive: bool,
    ) -> usize {
        let mut state = self.state.lock();
        let mut unsent = self.dependencies.take_if(is_chosen);
        let blocked: FxHashSet<u64> = unsent.iter().map(|task| task.id).collect();
        unsent.extend(state.leases.take_if(|task| is_chosen(task)));
        self.note_waiting(&state);
        // A call of an actor that waits for arguments has been taken already.
        unsent.extend(state.actors.take_if(is_chosen).into_iter().filter(|task| !blocked.contains(&task.id)));
        unsent.extend(state.running.take_lost_if(is_chosen));
        unsent.extend(state.delayed.take_if(is_chosen));
        let sent = state.running.chosen(is_chosen);
        for (task, ..) in &sent {
            task.is_cancelled.store(true, Ordering::Relaxed);
        }
        drop(state);
        for task in &unsent {
            self.pending_results.end(1);
            self.settle_results(task, &failure(task));
        }
        for (task, process, link) in &sent {
            self.settle_results(task, &failure(task));
            if let Some(link) = self.reach.open_link(*process, *link) {
                let cancel = Cancel { task: task.id, force, recursive };
                let _ = link.send_with(Vec::new(), |record| cancel.append_to(record));
            }
        }
        // Fewer workers are wanted, or the next calls have room.
        self.send_ready();
        unsent.len() + sent.len()
    }

    /// Whether there is such a call that is not over.
    pub(crate) fn any(&self, is_chosen: &dyn Fn(&Task) -> bool) -> bool {
        let state = self.state.lock();
        let State { actors, delayed, running, .. } = &*state;
        actors.any(is_chosen) || delayed.any(is_chosen) || !running.chosen(is_chosen).is_empty()
    }
}
