//! Channels to the processes that run calls of this one: how they are opened, and what happens to calls when a channel
//! cannot be opened, or is lost although the process at its other end lives.
//!
//! A process that is short of descriptors or memory can neither open nor accept a channel. No call may hang for that
//! reason: the calls that would be sent fail with it, and the next call tries again.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mobula_client::{ClientError, OwnerId, Refusal};

use super::{ActorState, Running, Submitter};
use crate::call::task::Task;
use crate::error::Failure;
use crate::mail::link::Link;

/// How long after the loss of its channel an actor counts as unknown. If the head has not said anything by then, the
/// actor is alive.
const DEATH_PATIENCE: Duration = Duration::from_secs(1);

/// Why a process cannot be reached.
pub(super) enum NotReached {
    /// The process or the session is gone. The head says what happens to the calls.
    Gone,
    /// There is no room for a channel to it.
    NoRoom(Failure),
}

impl From<ClientError> for NotReached {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::Refused(Refusal::NoSuchOwner { .. }) | ClientError::StoreLost => Self::Gone,
            error => Self::NoRoom(Failure::Unreachable { reason: error.to_string() }),
        }
    }
}

impl Submitter {
    /// The link to a process that runs calls. The first use opens it.
    pub(super) fn link_to(&self, process: OwnerId) -> Result<Arc<Link>, NotReached> {
        // One thread at a time: a second channel to the same process would stay open unused.
        let connecting = self.connecting.lock();
        if let Some(link) = self.state.lock().links.get(&process) {
            return Ok(link.clone());
        }
        let channel = self.client.connect_to(process).inspect_err(|error| {
            tracing::debug!(%process, %error, "no channel could be opened to a process");
        })?;
        let link = Arc::new(Link::new(channel, false));
        // This comes before `add`: if the link has closed by then, `on_worker_gone` removes it again.
        self.state.lock().links.insert(process, link.clone());
        drop(connecting);
        if !self.links.add(&link) {
            link.close();
            self.on_worker_gone(&link);
        }
        Ok(link)
    }

    /// Opens the channel to an actor whose process is known, and sends the calls that wait for it.
    pub(super) fn reach_actor(&self, actor: u64) {
        let process = match self.state.lock().actors.get(&actor) {
            Some(ActorState::Known { process, .. }) => *process,
            _ => return,
        };
        match self.link_to(process) {
            Ok(link) => {
                let mut state = self.state.lock();
                match state.actors.get_mut(&actor) {
                    Some(ActorState::Known { process: now, queue }) if *now == process => {
                        let queue = std::mem::take(queue);
                        // A link that closes later finds the actor in the state.
                        if link.is_closed() {
                            state.lost_actors.insert(actor, Instant::now());
                            self.has_lost_actors.store(true, Ordering::Release);
                        }
                        state.actors.insert(actor, ActorState::At { link, queue });
                    }
                    // Another thread was quicker, or the actor is elsewhere by now.
                    _ => return,
                }
                drop(state);
                self.send_to_actor(actor);
            }
            Err(NotReached::Gone) => {}
            Err(NotReached::NoRoom(failure)) => self.fail_queue_of(actor, &failure),
        }
    }

    /// Fails the calls of an actor that wait only for the channel to it.
    fn fail_queue_of(&self, actor: u64, failure: &Failure) {
        let waits = |task: &Arc<Task>| task.unready.load(Ordering::Acquire) > 0;
        let mut failed = VecDeque::new();
        if let Some(queue) = self.state.lock().actors.get_mut(&actor).and_then(ActorState::queue) {
            (*queue, failed) = std::mem::take(queue).into_iter().partition(waits);
        }
        for task in failed {
            self.fail_unsent(&task, failure);
        }
    }

    /// Handles the loss of a channel to actors. Mostly their process has died, and the head is about to say so.
    pub(super) fn on_actors_lost(&self, link: &Link) {
        let mut state = self.state.lock();
        let state = &mut *state;
        let lost = state.actors.iter().filter_map(|(id, actor)| match actor {
            ActorState::At { link: its, .. } if its.id == link.id => Some((*id, Instant::now())),
            _ => None,
        });
        state.lost_actors.extend(lost);
        self.has_lost_actors.store(!state.lost_actors.is_empty(), Ordering::Release);
    }

    /// Whether an actor has lost its channel, and the head has not said anything about it yet.
    pub(crate) fn has_lost_actors(&self) -> bool {
        self.has_lost_actors.load(Ordering::Acquire)
    }

    /// Opens another channel to the actors about which the head has said nothing for [`DEATH_PATIENCE`]: they live, and
    /// only the channel is lost.
    pub(crate) fn reach_lost_actors(&self) {
        if !self.has_lost_actors() {
            return;
        }
        let mut state = self.state.lock();
        let due: Vec<u64> = state
            .lost_actors
            .extract_if(|_, since| since.elapsed() >= DEATH_PATIENCE)
            .map(|(actor, _)| actor)
            .collect();
        self.has_lost_actors.store(!state.lost_actors.is_empty(), Ordering::Release);
        drop(state);
        for actor in due {
            self.reach_lost_actor(actor);
        }
    }

    /// Sends the calls again that had not begun. The others fail: no process will report their results.
    ///
    /// The number of begun calls is final although the process lives. Its end of a channel exists as long as a call
    /// that came through it waits or runs, so the loss of the channel means that its end is gone. If this process
    /// closed the channel because of an unreadable record, the head ends the other process before this is due.
    fn reach_lost_actor(&self, actor: u64) {
        let failed = {
            let mut state = self.state.lock();
            let link = match state.actors.get(&actor) {
                Some(ActorState::At { link, .. }) if link.is_closed() => link.clone(),
                _ => return,
            };
            let begun = link.begun();
            let (mut queue, running) = state.take_calls_of(actor);
            let (again, failed): (Vec<_>, Vec<_>) = running
                .into_iter()
                .partition(|Running { task, number, .. }| *number > begun && task.may_be_sent_again());
            self.promised(again.len());
            for Running { task, .. } in again.into_iter().rev() {
                // Its arguments are there, and it keeps them.
                task.unready.store(0, Ordering::Release);
                queue.push_front(task);
            }
            state.actors.insert(actor, ActorState::Known { process: link.peer, queue });
            failed
        };
        for Running { task, .. } in failed {
            let reason = "the channel to it was lost before the result was there".to_owned();
            self.settle_all(&task, &Failure::Unreachable { reason });
        }
        self.send_to_actor(actor);
    }
}
