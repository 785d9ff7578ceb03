//! Actors on their callers' side: where each is, and the queue of its calls.

use std::collections::VecDeque;
use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mobula_client::OwnerId;
use rustc_hash::FxHashMap;

use crate::call::task::{Target, Task};
use crate::error::Failure;
use crate::mail::link::Link;

/// How long after the loss of its channel an actor counts as unknown. If the head has not said anything by then, the
/// actor is alive.
const DEATH_PATIENCE: Duration = Duration::from_secs(1);

/// How many actors that are over are remembered. The head is asked again for others.
const OVER_MAX: usize = 1000;

enum Actor {
    /// The head was asked for the actor's process. The calls wait.
    Unknown {
        queue: VecDeque<Arc<Task>>,
    },
    /// The actor's process is known, and no channel to it is open yet.
    Known {
        process: OwnerId,
        queue: VecDeque<Arc<Task>>,
    },
    At {
        link: Arc<Link>,
        queue: VecDeque<Arc<Task>>,
    },
    Over {
        pid: u32,
        failure: Failure,
    },
}

impl Actor {
    /// The calls that wait.
    fn queue(&mut self) -> Option<&mut VecDeque<Arc<Task>>> {
        match self {
            Self::Unknown { queue } | Self::Known { queue, .. } | Self::At { queue, .. } => Some(queue),
            Self::Over { .. } => None,
        }
    }
}

/// The next step for the calls that wait for an actor.
pub(super) enum Next<'a> {
    /// The first one can be sent. It has left the queue.
    Send(&'a Arc<Link>, Arc<Task>),
    /// Some could be sent, if there were a channel.
    Reach,
    Nothing,
}

/// The actors that this process has called; see the module's documentation.
#[derive(Default)]
pub(super) struct Actors {
    actors: FxHashMap<u64, Actor>,
    /// How often the calls of an actor are retried, unless they say otherwise. Actors with 0 are not here.
    max_task_retries: FxHashMap<u64, u32>,
    /// Actors whose channels were lost, and since when.
    lost: FxHashMap<u64, Instant>,
    /// Actors that are over, the earliest first.
    over: VecDeque<u64>,
}

fn is_ready(task: &Arc<Task>) -> bool {
    task.unready.load(Ordering::Acquire) == 0
}

fn is_in_order(task: &Arc<Task>) -> bool {
    !matches!(task.target, Target::Method { is_in_order: false, .. })
}

impl Actors {
    /// Adds an actor. Returns `false` if it was there.
    pub(super) fn add(&mut self, actor: u64) -> bool {
        match self.actors.entry(actor) {
            Entry::Occupied(_) => false,
            Entry::Vacant(vacant) => {
                vacant.insert(Actor::Unknown { queue: VecDeque::new() });
                true
            }
        }
    }

    /// The actor's end, with the number of its process.
    pub(super) fn failure(&self, actor: u64) -> Option<(u32, Failure)> {
        match self.actors.get(&actor) {
            Some(Actor::Over { pid, failure }) => Some((*pid, failure.clone())),
            _ => None,
        }
    }

    /// The channel to the actor.
    pub(super) fn link(&self, actor: u64) -> Option<&Arc<Link>> {
        match self.actors.get(&actor) {
            Some(Actor::At { link, .. }) => Some(link),
            _ => None,
        }
    }

    // ---- calls ----

    /// The channel through which a new call can be sent at once. `None` while earlier calls wait, unless the call may
    /// go before them.
    pub(super) fn link_at_once(&self, actor: u64, is_in_order: bool) -> Option<&Arc<Link>> {
        match self.actors.get(&actor) {
            Some(Actor::At { link, queue }) if (queue.is_empty() || !is_in_order) && !link.is_closed() => {
                Some(link)
            }
            _ => None,
        }
    }

    /// A call waits. The call of an actor that is over fails when its arguments are there, like a call that was sent.
    pub(super) fn queue(&mut self, actor: u64, task: Arc<Task>) {
        if let Some(queue) = self.actors.get_mut(&actor).and_then(Actor::queue) {
            queue.push_back(task);
        }
    }

    /// A call waits that failed, and that is retried. It goes before the calls that were made after it, and that were
    /// not sent.
    pub(super) fn queue_again(&mut self, actor: u64, task: Arc<Task>) {
        if let Some(queue) = self.actors.get_mut(&actor).and_then(Actor::queue) {
            // Its arguments are there, and it keeps them.
            task.unready.store(0, Ordering::Release);
            let at = queue.iter().position(|later| later.id > task.id).unwrap_or(queue.len());
            queue.insert(at, task);
        }
    }

    /// The next step for the calls that wait. A closed link means that the head is about to report the end of the
    /// actor.
    pub(super) fn next(&mut self, actor: u64) -> Next<'_> {
        match self.actors.get_mut(&actor) {
            Some(Actor::At { link, queue }) if !link.is_closed() => {
                // A call that keeps the order holds up those behind it.
                let first = queue.iter().position(|task| is_ready(task) || is_in_order(task));
                match first.filter(|first| is_ready(&queue[*first])).and_then(|first| queue.remove(first)) {
                    Some(task) => Next::Send(link, task),
                    None => Next::Nothing,
                }
            }
            Some(Actor::Known { queue, .. }) if queue.iter().any(is_ready) => Next::Reach,
            _ => Next::Nothing,
        }
    }

    /// Removes and returns the calls that wait only for a channel.
    pub(super) fn take_ready(&mut self, actor: u64) -> VecDeque<Arc<Task>> {
        let Some(queue) = self.actors.get_mut(&actor).and_then(Actor::queue) else { return VecDeque::new() };
        let (ready, unready) = std::mem::take(queue).into_iter().partition(is_ready);
        *queue = unready;
        ready
    }

    fn take_queue(&mut self, actor: u64) -> VecDeque<Arc<Task>> {
        let queue = self.actors.get_mut(&actor).and_then(Actor::queue);
        queue.map(std::mem::take).unwrap_or_default()
    }

    /// A call that waits here: its actor, and the calls before it that wait for their arguments.
    pub(super) fn waiting_call(&self, call: u64) -> Option<(u64, Vec<Arc<Task>>, Arc<Task>)> {
        self.actors.iter().find_map(|(number, actor)| {
            let (Actor::Unknown { queue } | Actor::Known { queue, .. } | Actor::At { queue, .. }) = actor
            else {
                return None;
            };
            let at = queue.iter().position(|task| task.id == call)?;
            let before = queue.iter().take(at).filter(|task| !is_ready(task)).cloned().collect();
            Some((*number, before, queue[at].clone()))
        })
    }

    /// Whether such a call waits.
    pub(super) fn any(&self, is_chosen: &dyn Fn(&Task) -> bool) -> bool {
        let queues = self.actors.values().filter_map(|actor| match actor {
            Actor::Unknown { queue } | Actor::Known { queue, .. } | Actor::At { queue, .. } => Some(queue),
            Actor::Over { .. } => None,
        });
        queues.flatten().any(|task| is_chosen(task))
    }

    /// Removes and returns those of the calls that wait.
    pub(super) fn take_if(&mut self, is_chosen: &dyn Fn(&Task) -> bool) -> Vec<Arc<Task>> {
        let mut taken = Vec::new();
        for queue in self.actors.values_mut().filter_map(Actor::queue) {
            if queue.iter().any(|task| is_chosen(task)) {
                let (chosen, left): (VecDeque<_>, _) =
                    std::mem::take(queue).into_iter().partition(|task| is_chosen(task));
                *queue = left;
                taken.extend(chosen);
            }
        }
        taken
    }

    /// Removes and returns the calls of all actors: the session is over.
    pub(super) fn take_all(&mut self) -> Vec<Arc<Task>> {
        let queues = std::mem::take(&mut self.actors).into_values();
        queues.filter_map(|mut actor| actor.queue().map(std::mem::take)).flatten().collect()
    }

    // ---- where they are ----

    /// The head says which process the actor is in, and how often its calls are retried.
    pub(super) fn found(&mut self, actor: u64, process: OwnerId, max_task_retries: u32) {
        if max_task_retries > 0 {
            self.max_task_retries.insert(actor, max_task_retries);
        }
        let queue = self.take_queue(actor);
        self.actors.insert(actor, Actor::Known { process, queue });
    }

    /// How often a call of the actor is retried, unless the call says otherwise.
    pub(super) fn max_task_retries(&self, actor: u64) -> u32 {
        self.max_task_retries.get(&actor).copied().unwrap_or(0)
    }

    /// The process of an actor to which no channel is open.
    pub(super) fn process_to_reach(&self, actor: u64) -> Option<OwnerId> {
        match self.actors.get(&actor) {
            Some(Actor::Known { process, .. }) => Some(*process),
            _ => None,
        }
    }

    /// A channel to the actor's process is open. Returns `false` if another thread was quicker, or the actor is
    /// elsewhere by now.
    pub(super) fn reached(&mut self, actor: u64, link: &Arc<Link>) -> bool {
        if self.process_to_reach(actor) != Some(link.peer) {
            return false;
        }
        let queue = self.take_queue(actor);
        // A link that closes later finds the actor here.
        if link.is_closed() {
            self.lost.insert(actor, Instant::now());
        }
        self.actors.insert(actor, Actor::At { link: link.clone(), queue });
        true
    }

    /// A channel to actors is lost. Mostly their process has died, and the head is about to say so.
    pub(super) fn lose(&mut self, link: &Link) {
        let lost = self.actors.iter().filter_map(|(id, actor)| match actor {
            Actor::At { link: its, .. } if its.id == link.id => Some((*id, Instant::now())),
            _ => None,
        });
        self.lost.extend(lost);
    }

    /// Whether an actor has lost its channel, and the head has not said anything about it yet.
    pub(super) fn any_lost(&self) -> bool {
        !self.lost.is_empty()
    }

    /// Removes and returns the actors about which the head has said nothing for [`DEATH_PATIENCE`].
    pub(super) fn take_long_lost(&mut self) -> Vec<u64> {
        let long_lost = self.lost.extract_if(|_, since| since.elapsed() >= DEATH_PATIENCE);
        long_lost.map(|(actor, _)| actor).collect()
    }

    /// The calls of an actor wait for a channel: to this process, or to the one that the head will name. Those of
    /// `again`, which were sent before, go first.
    pub(super) fn wait_again(&mut self, actor: u64, process: Option<OwnerId>, again: &[Arc<Task>]) {
        self.lost.remove(&actor);
        let mut queue = self.take_queue(actor);
        for task in again.iter().rev() {
            // Its arguments are there, and it keeps them.
            task.unready.store(0, Ordering::Release);
            queue.push_front(task.clone());
        }
        let actor_now = match process {
            Some(process) => Actor::Known { process, queue },
            None => Actor::Unknown { queue },
        };
        self.actors.insert(actor, actor_now);
    }

    /// The actor is over. Returns the calls that waited.
    pub(super) fn end(&mut self, actor: u64, pid: u32, failure: &Failure) -> VecDeque<Arc<Task>> {
        self.lost.remove(&actor);
        self.max_task_retries.remove(&actor);
        let queue = self.take_queue(actor);
        let before = self.actors.insert(actor, Actor::Over { pid, failure: failure.clone() });
        if !matches!(before, Some(Actor::Over { .. })) {
            self.over.push_back(actor);
        }
        if self.over.len() > OVER_MAX
            && let Some(earliest) = self.over.pop_front()
            && let Entry::Occupied(entry) = self.actors.entry(earliest)
            && matches!(entry.get(), Actor::Over { .. })
        {
            entry.remove();
        }
        queue
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_actors_that_are_over_are_remembered() {
        let mut actors = Actors::default();
        for actor in 0..3 * OVER_MAX as u64 {
            actors.add(actor);
            actors.end(actor, 7, &Failure::SessionOver);
            actors.end(actor, 7, &Failure::SessionOver);
            assert!(actors.failure(actor).is_some());
        }
        assert_eq!((actors.actors.len(), actors.over.len()), (OVER_MAX, OVER_MAX));
        assert!(actors.failure(0).is_none());
        assert!(actors.add(0), "the head is asked for it again");
        actors.end(0, 7, &Failure::SessionOver);
        assert!(actors.failure(0).is_some());
    }
}
