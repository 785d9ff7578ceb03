//! Workers on lease, and the records from the head.

use std::sync::atomic::Ordering;
use std::time::Instant;

use mobula_client::OwnerId;

use super::Found;
use super::leases::Ended;
use super::reach::NotReached;
use super::{Answer, State, Submitter, Worker};
use crate::wire::{FoundActor, FromHead, ReservedActor, ToHead};

impl Submitter {
    /// Handles a record from the head to a caller.
    pub(crate) fn on_head(&self, record: FromHead<'_>) {
        match record {
            FromHead::Granted { worker, pid } => self.on_granted(worker, pid),
            FromHead::NoWorkers { failure } => {
                let waiting = self.state.lock().leases.take_waiting();
                for task in waiting {
                    self.fail_unsent(&task, &failure);
                }
            }
            FromHead::Recall { worker } => self.recall(worker),
            FromHead::Died { process, reason } => self.on_died(process, reason),
            FromHead::ActorReserved { request, result } => {
                let held =
                    result.and_then(|ReservedActor { actor, token }| Ok((actor, self.client.hold(token)?)));
                self.state.lock().requests.insert(request, Answer::Reserved(held));
            }
            FromHead::ActorFound { request, actor } => {
                let found = actor.and_then(|FoundActor { actor, token, class, class_name }| {
                    Some(Found { actor, class, class_name, token: self.client.hold(token).ok()? })
                });
                self.state.lock().requests.insert(request, Answer::Found(found));
            }
            FromHead::ActorAt { actor, process } => self.on_actor_at(actor, process),
            FromHead::ActorRestarts { actor, pid, reason, max_task_retries } => {
                self.on_actor_restarts(actor, pid, reason, max_task_retries);
            }
            FromHead::ActorOver { actor, pid, failure } => self.on_actor_over(actor, pid, &failure),
            FromHead::Construct { .. } | FromHead::SayWhenFree | FromHead::Exit => {
                tracing::warn!("the head takes this process for a worker");
            }
        }
    }

    pub(super) fn tell_wants(&self, state: &mut State) {
        if let Some(workers) = state.leases.want()
            && let Some(head) = self.links.head()
        {
            let _ = head.send(&ToHead::Want { workers }, Vec::new());
        }
    }

    pub(super) fn on_granted(&self, worker: OwnerId, pid: u32) {
        let (link, no_room) = match self.link_to(worker) {
            Ok(link) => (Some(link), None),
            Err(NotReached::Gone) => (None, None),
            Err(NotReached::NoRoom(failure)) => (None, Some(failure)),
        };
        let mut state = self.state.lock();
        // A link that closes later finds the lease. A link that is closed already must not get one.
        let reached = link.filter(|link| !link.is_closed()).map(|link| Worker { link, pid });
        let is_reached = reached.is_some();
        state.leases.granted(worker, reached, Instant::now());
        if is_reached {
            self.has_leases.store(true, Ordering::Release);
            drop(state);
            self.waiters.wake_poller();
        } else {
            // Another worker could not be reached either. The calls wait only if this process has other workers.
            let is_hopeless = no_room.is_some() && state.leases.is_empty();
            let waiting = if is_hopeless { state.leases.take_waiting() } else { Vec::new() };
            drop(state);
            self.end_lease(Ended { worker, is_busy: false });
            if let Some(failure) = no_room {
                waiting.iter().for_each(|task| self.fail_unsent(task, &failure));
            }
        }
        self.send_ready();
    }

    pub(super) fn end_lease(&self, Ended { worker, is_busy }: Ended) {
        if let Some(head) = self.links.head() {
            let _ = head.send(&ToHead::Return { worker, is_busy }, Vec::new());
        }
    }

    /// Handles the recall of a worker: another process has none, so this one goes back as soon as its calls are over.
    pub(super) fn recall(&self, worker: OwnerId) {
        self.state.lock().leases.recall(worker);
        self.return_idle_workers();
    }

    /// Gives back workers that have had nothing to do for a while, or that the head wants back.
    pub(crate) fn return_idle_workers(&self) {
        let mut state = self.state.lock();
        let ended = state.leases.take_ended(Instant::now());
        self.has_leases.store(!state.leases.is_empty(), Ordering::Release);
        drop(state);
        for ended in ended {
            self.end_lease(ended);
        }
    }
}
