//! The calls that were sent and are not over, including those whose process is gone.

use std::collections::hash_map::Entry;
use std::sync::Arc;

use mobula_client::OwnerId;
use rustc_hash::FxHashMap;

use crate::call::task::{Target, Task};
use crate::mail::link::Link;
use crate::submit::CROWD;
use crate::wire;

/// A call that was sent.
pub(super) struct RunningCall {
    pub(super) task: Arc<Task>,
    pub(super) on: OwnerId,
    link: u64,
    /// The number of the record in which the call was sent.
    number: u64,
}

/// A lost link to a process that is gone, and the calls of functions that were sent through it.
pub(super) struct LostCalls {
    pub(super) link: Arc<Link>,
    pub(super) pid: u32,
    pub(super) calls: Vec<RunningCall>,
}

/// Calls of a process that is gone, each group in the order in which the calls were made.
pub(super) struct Divided {
    /// Calls that are sent again.
    pub(super) again: Vec<Arc<Task>>,
    /// Calls that have begun, and may not be retried.
    pub(super) failed: Vec<Arc<Task>>,
}

/// See the module's documentation.
#[derive(Default)]
pub(super) struct RunningCalls {
    calls: FxHashMap<u64, RunningCall>,
    /// Calls of functions that were sent to processes that are gone, until the head says how those ended. An entry for
    /// each lost link: a process may have had more than one.
    lost: FxHashMap<OwnerId, Vec<LostCalls>>,
}

impl RunningCalls {
    /// A call has been sent through a link, in the record of this number.
    pub(super) fn sent(&mut self, task: Arc<Task>, link: &Link, number: u64) {
        self.calls.insert(task.id, RunningCall { task, on: link.peer, link: link.id, number });
    }

    /// Whether there are many calls, so that each should keep little memory.
    pub(super) fn is_crowded(&self) -> bool {
        self.calls.len() > CROWD
    }

    /// Whether no call was sent that is not over.
    pub(super) fn is_empty(&self) -> bool {
        self.calls.is_empty()
    }

    /// A call that was sent through this link.
    pub(super) fn get(&self, link: &Link, task: u64) -> Option<&Arc<Task>> {
        self.calls.get(&task).filter(|running| running.link == link.id).map(|running| &running.task)
    }

    /// The call that has begun at the other end of a link and is not over. If there are several, because one waits for
    /// others: the last one, which may be retried if all of them may.
    pub(super) fn running_in(&self, link: &Link) -> Option<wire::RunningCall> {
        let begun = link.begun();
        let running = || self.calls.values().filter(|call| call.link == link.id && call.number <= begun);
        let last = running().max_by_key(|call| call.number)?;
        let is_retriable = running().all(|call| call.task.is_retriable());
        Some(wire::RunningCall { function: last.task.target.name(), is_retriable })
    }

    /// A call that was sent and is not over, and the process.
    pub(super) fn sent_call(&self, task: u64) -> Option<(&Arc<Task>, OwnerId)> {
        self.calls.get(&task).map(|call| (&call.task, call.on))
    }

    /// The process that a call was sent to, the link, and the number of its record.
    pub(super) fn position(&self, task: u64) -> Option<(OwnerId, u64, u64)> {
        self.calls.get(&task).map(|call| (call.on, call.link, call.number))
    }

    /// Removes and returns a call that was sent through this link.
    pub(super) fn remove(&mut self, link: &Link, task: u64) -> Option<RunningCall> {
        match self.calls.entry(task) {
            Entry::Occupied(running) if running.get().link == link.id => Some(running.remove()),
            _ => None,
        }
    }

    /// Removes and returns an actor's calls, in the order in which they were made.
    pub(super) fn take_of_actor(&mut self, actor: u64) -> Vec<RunningCall> {
        let is_its = |call: &RunningCall| matches!(call.task.target, Target::Method { actor: its, .. } if its == actor);
        let mut calls: Vec<_> = self.calls.extract_if(|_, call| is_its(call)).map(|(_, call)| call).collect();
        calls.sort_unstable_by_key(|call| call.task.id);
        calls
    }

    /// A link to a process is lost. The calls of functions that were sent through it wait until the head says how the
    /// process ended. Returns their number. The calls of actors stay, because the head reports the state of the actor.
    pub(super) fn lose(&mut self, link: &Arc<Link>, pid: impl FnOnce() -> u32) -> usize {
        let is_lost =
            |call: &RunningCall| call.link == link.id && matches!(call.task.target, Target::Function { .. });
        let mut calls: Vec<_> =
            self.calls.extract_if(|_, call| is_lost(call)).map(|(_, call)| call).collect();
        let count = calls.len();
        if count > 0 {
            calls.sort_unstable_by_key(|call| call.number);
            self.lost.entry(link.peer).or_default().push(LostCalls { link: link.clone(), pid: pid(), calls });
        }
        count
    }

    /// Removes and returns the calls that were lost with a process.
    pub(super) fn take_lost(&mut self, process: OwnerId) -> Vec<LostCalls> {
        self.lost.remove(&process).unwrap_or_default()
    }

    /// Those of the calls that were sent, each with the process and the link.
    pub(super) fn chosen(&self, is_chosen: &dyn Fn(&Task) -> bool) -> Vec<(Arc<Task>, OwnerId, u64)> {
        let chosen = self.calls.values().filter(|call| is_chosen(&call.task));
        chosen.map(|call| (call.task.clone(), call.on, call.link)).collect()
    }

    /// Removes and returns those of the calls whose processes are gone.
    pub(super) fn take_lost_if(&mut self, is_chosen: &dyn Fn(&Task) -> bool) -> Vec<Arc<Task>> {
        let lost = self.lost.values_mut().flatten();
        lost.flat_map(|lost| lost.calls.extract_if(.., |call| is_chosen(&call.task)))
            .map(|call| call.task)
            .collect()
    }

    /// Removes and returns all calls: the session is over.
    pub(super) fn take_all(&mut self) -> Vec<Arc<Task>> {
        let lost = std::mem::take(&mut self.lost).into_values().flatten().flat_map(|lost| lost.calls);
        let running = std::mem::take(&mut self.calls).into_values();
        lost.chain(running).map(|call| call.task).collect()
    }
}

/// Divides the calls of a process that is gone. The process had begun the calls up to the record of number `begun`:
/// they are sent again if they may be retried. The other calls are sent again if they have not been sent too often.
pub(super) fn divide(
    calls: Vec<RunningCall>,
    begun: u64,
    may_be_sent_again: impl Fn(&Task) -> bool,
    may_retry: impl Fn(&Task) -> bool,
) -> Divided {
    let (mut again, mut failed) = (Vec::new(), Vec::new());
    for RunningCall { task, number, .. } in calls {
        // A cancelled call is over, and its end is settled once more in vain.
        let is_sent_again =
            !task.is_over() && (number > begun && may_be_sent_again(&task) || may_retry(&task));
        if is_sent_again { again.push(task) } else { failed.push(task) }
    }
    Divided { again, failed }
}
