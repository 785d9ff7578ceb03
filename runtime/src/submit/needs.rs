//! The needs of a result, for the search for deadlocks.

use std::sync::Arc;

use mobula_client::internal::recorder::WaitFor;
use mobula_client::{ObjectId, OwnerId};

use super::Submitter;
use crate::call::result_cell::ResultCell;
use crate::call::task::Task;
use crate::wire::{NEEDS_MAX, Need};

/// The greatest length of a chain of calls in which each is an argument of the next.
const CHAIN_MAX: usize = 64;
impl Submitter {
    /// The name of the function of a call, while it is not over.
    pub(crate) fn name_of(&self, call: u64) -> Option<String> {
        self.find(call).map(|(task, _)| task.target.name())
    }

    /// The wait of a thread for this call, and the process that the call was sent to, or its actor. Searches the
    /// waiting calls if the call was not sent.
    pub(crate) fn wait_for(&self, call: u64) -> (WaitFor, u64) {
        match self.find(call) {
            Some((_, CallStage::Sent(process))) => (WaitFor::Call, process.bits()),
            Some((_, CallStage::WaitsForActor { actor, .. })) => (WaitFor::Actor, actor),
            Some((_, CallStage::WaitsForWorker)) => (WaitFor::Worker, 0),
            Some((_, CallStage::WaitsForArguments)) | None => (WaitFor::Call, 0),
        }
    }

    /// The needs of the result of a call of this process.
    pub(crate) fn needs_of(&self, call: u64) -> Vec<Need> {
        let mut needs = Vec::new();
        self.add_needs(call, CHAIN_MAX, &mut needs);
        if needs.is_empty() {
            needs.push(Need::Unknown);
        }
        needs.truncate(NEEDS_MAX);
        needs
    }

    /// The needs of an item of the stream of a call of this process, as those of its result.
    pub(crate) fn needs_of_item(&self, call: u64, position: u64) -> Vec<Need> {
        let mut needs = self.needs_of(call);
        for need in &mut needs {
            if let Need::Call { process, task } = *need
                && task == call
            {
                *need = Need::Item { process, task, position };
            }
        }
        needs
    }

    fn add_needs(&self, call: u64, chain: usize, needs: &mut Vec<Need>) {
        let Some((task, place)) = self.find(call) else { return };
        // A time limit ends the call, whatever it waits for.
        if task.limits().is_some() || chain == 0 {
            return;
        }
        match place {
            CallStage::Sent(process) => needs.push(Need::Call { process, task: call }),
            CallStage::WaitsForWorker => needs.push(Need::Worker { demand: task.demand.clone() }),
            CallStage::WaitsForActor { actor, before } => {
                // A call that waits for its arguments holds the later ones back.
                for task in before.iter().chain([&task]) {
                    self.add_arguments(task, chain, needs);
                }
                needs.push(Need::Actor { actor });
            }
            CallStage::WaitsForArguments => self.add_arguments(&task, chain, needs),
        }
    }

    fn add_arguments(&self, task: &Task, chain: usize, needs: &mut Vec<Need>) {
        for cell in task.arguments.results().filter(|cell| !cell.is_ready()) {
            if needs.len() > NEEDS_MAX {
                return;
            }
            match awaited(cell) {
                Some(Awaited::Call(call)) => self.add_needs(call, chain - 1, needs),
                Some(Awaited::Item(..)) => needs.push(Need::Unknown),
                Some(Awaited::Promise(object)) => needs.push(Need::Promise { object }),
                None => {}
            }
        }
    }

    /// A call that is not over, and where it is; `None` while that is about to change.
    fn find(&self, call: u64) -> Option<(Arc<Task>, CallStage)> {
        let state = self.state.lock();
        if let Some((task, process)) = state.running.sent_call(call) {
            return Some((task.clone(), CallStage::Sent(process)));
        }
        if let Some((actor, before, task)) = state.actors.waiting_call(call) {
            return Some((task, CallStage::WaitsForActor { actor, before }));
        }
        if let Some(task) = state.leases.waiting().find(|task| task.id == call) {
            return Some((task.clone(), CallStage::WaitsForWorker));
        }
        drop(state);
        Some((self.dependencies.waiting_call(call)?, CallStage::WaitsForArguments))
    }
}

/// The stage of a call that is not over.
enum CallStage {
    Sent(OwnerId),
    WaitsForWorker,
    /// It waits behind these calls, some of which wait for arguments.
    WaitsForActor {
        actor: u64,
        before: Vec<Arc<Task>>,
    },
    WaitsForArguments,
}

/// A result that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Awaited {
    /// Of a call of this process.
    Call(u64),
    /// The item at this position of the stream of a call of this process.
    Item(u64, u64),
    /// The promise of another process.
    Promise(ObjectId),
}

/// The needs of a result cell; `None` if it is ready.
pub(crate) fn awaited(cell: &ResultCell) -> Option<Awaited> {
    if cell.is_pending() {
        return Some(Awaited::Call(cell.call));
    }
    cell.foreign_promise().map(|handle| Awaited::Promise(handle.id()))
}
