//! The executor's part of the search for deadlocks: which threads run calls that only their waits hold up, and behind
//! which of these waits a call stands.

use mobula_client::OwnerId;

use super::Executor;
use super::places::PlacedWait;
use crate::call::task_id::TaskId;
use crate::executor::work::Work;
use crate::under_way::{self, UnderWay};
use crate::wire::{Callee, Held};

/// A call whose thread waits, so that nothing but the end of the wait lets it go on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct WaitingCall {
    /// The [number](UnderWay::number) of the call.
    pub(crate) number: u64,
    /// `None`: it is the constructor of an actor.
    callee: Option<Callee>,
    /// The thread takes the calls of the process, so none begins meanwhile.
    is_serving: bool,
}

impl Executor {
    /// Whether this thread runs a call. Costs a few loads.
    pub(crate) fn runs_here(&self) -> bool {
        if self.is_serving() && self.calls.progress.runs() {
            return true;
        }
        self.is_concurrent() && under_way::with_current(|_| ()).is_some()
    }

    /// The call that this thread runs, if no time limit ends it. Looks through the calls under way.
    pub(crate) fn waiting_call(&self) -> Option<WaitingCall> {
        let is_serving = self.is_serving();
        let queue = self.calls.lock();
        if !self.is_concurrent() {
            let (number, taken) = (self.only().number(), queue.taken());
            let is_bound = is_serving && self.calls.progress.runs();
            let is_bound = is_bound && !taken.is_some_and(|taken| taken.has_limits);
            return is_bound.then(|| WaitingCall {
                number,
                callee: taken.map(|taken| taken.callee),
                is_serving,
            });
        }
        let number = under_way::with_current(UnderWay::number)?;
        let (_, taken) = queue.all_under_way().find(|(call, _)| call.number() == number)?;
        let callee = Some(taken.callee);
        (!taken.has_limits).then_some(WaitingCall { number, callee, is_serving })
    }

    fn is_serving(&self) -> bool {
        self.serving.get() == Some(&std::thread::current().id())
    }

    /// The name of the function that waits; empty if the host does not know.
    pub(crate) fn waiting_name(&self, call: &WaitingCall) -> String {
        match (call.callee, self.actor.get()) {
            (Some(callee), _) => self.name_of(callee),
            (None, Some((_, _, class))) => self.language.method_name(*class, None),
            (None, None) => String::new(),
        }
    }

    /// Those of the calls that are with this process, and not answered, and what holds each of them up. Each is named
    /// by the process that made it, and its number. `waits` are waits of this process that are not over, with their
    /// calls. Calls of functions that have not begun go elsewhere.
    pub(crate) fn holds(&self, calls: &[(OwnerId, u64)], waits: &[(u64, WaitingCall)]) -> Vec<Held> {
        let serving = waits.iter().find(|(_, call)| call.is_serving).map(|(wait, _)| vec![*wait]);
        let behind_serving = || serving.clone().into_iter().collect::<Vec<_>>();
        let queue = self.calls.lock();
        let is_concurrent = self.is_concurrent();
        let mut held = Vec::new();
        let mut placed = Vec::new();
        for (caller, task) in calls.iter().copied() {
            let is_it = |work: &Work| match work {
                Work::Call { from, call, .. } => from.peer == caller && call.task == task,
                _ => false,
            };
            let runs = queue.taken().filter(|_| !is_concurrent && self.calls.progress.runs());
            let runs = runs.is_some_and(|taken| (taken.caller, taken.id.task) == (caller, task));
            let items = if runs { self.only().items_sent() } else { 0 };
            if runs || self.is_actor() && queue.work.iter().any(is_it) {
                held.push(Held { caller, task, behind: behind_serving(), items });
            }
        }
        if is_concurrent {
            for (state, taken) in queue.all_under_way() {
                let call = (taken.caller, taken.id.task);
                if calls.contains(&call) {
                    placed.push((call, state.clone()));
                }
            }
        }
        drop(queue);
        // The host's lock is not taken with the queue locked.
        let of_methods = waits.iter().filter_map(|(wait, call)| match call.callee {
            Some(Callee::Method(method)) => Some(PlacedWait::new(*wait, method)),
            _ => None,
        });
        let of_methods: Vec<_> = of_methods.collect();
        for ((caller, task), state) in placed {
            let behind = match waits.iter().find(|(_, call)| call.number == state.number()) {
                Some(_) if state.may_be_later() => Vec::new(),
                Some((wait, _)) => vec![vec![*wait]],
                None => {
                    let places = self.places.get();
                    places
                        .map_or_else(Vec::new, |places| places.behind(TaskId::new(caller, task), &of_methods))
                }
            };
            held.push(Held { caller, task, behind, items: state.items_sent() });
        }
        held
    }
}
