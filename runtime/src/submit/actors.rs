//! Actors on their callers' side: finding their processes, and the queues of their calls.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use mobula_client::OwnerId;

use super::{ActorState, Answer, Running, State, Submitter};
use crate::call::task::{Target, Task};
use crate::error::{ExitReason, Failure, Result};
use crate::mail::link::TooLarge;
use crate::wire::{Callee, ToHead};

impl Submitter {
    /// Asks the head to end an actor.
    pub(crate) fn kill_actor(&self, actor: u64) {
        let Some(head) = self.links.head() else { return };
        self.get_to_know(actor, &mut self.state.lock());
        let _ = head.send(&ToHead::KillActor { actor }, Vec::new());
    }

    /// Asks the head, the first time, to say where an actor is and what becomes of it.
    fn get_to_know<'a>(&self, actor: u64, state: &'a mut State) -> &'a mut ActorState {
        state.actors.entry(actor).or_insert_with(|| {
            if let Some(head) = self.links.head() {
                let _ = head.send(&ToHead::WatchActor { actor }, Vec::new());
            }
            ActorState::Unknown { queue: VecDeque::new() }
        })
    }

    /// Asks the head something; its [`answer`](Self::answer) comes by the request's number.
    pub(crate) fn ask_head(&self, question: &ToHead<'_>) -> Result<(), Failure> {
        let head = self.links.head().ok_or(Failure::SessionOver)?;
        head.send(question, Vec::new()).map_err(|TooLarge| {
            let name = match question {
                ToHead::ReserveActor { actor, .. } => actor.name.unwrap_or_default(),
                ToHead::FindActor { name, .. } => name,
                _ => "",
            };
            Failure::NameTooLong { bytes: name.len() }
        })
    }

    /// The head's answer, or an error if none will come; `None` before it arrives.
    pub(crate) fn answer(&self, request: u64) -> Option<Result<Answer, Failure>> {
        let answer = self.state.lock().requests.remove(&request);
        let is_closed = || self.links.head().is_none_or(|head| head.is_closed());
        answer.map(Ok).or_else(|| is_closed().then_some(Err(Failure::SessionOver)))
    }

    /// Sends the head a constructor whose arguments are there.
    pub(super) fn start_actor(&self, actor: u64, task: &Arc<Task>) {
        self.settled(1);
        let Some(head) = self.links.head() else { return };
        let arguments = task.arguments.count() as u32;
        let sent = self.send_arguments(task, |payloads| {
            head.send(&ToHead::StartActor { actor, arguments, payloads }, task.arguments.held())
        });
        if let Err(failure) = sent {
            let _ = head.send(&ToHead::AbandonActor { actor, failure }, Vec::new());
        }
    }

    pub(super) fn queue_for_actor(&self, actor: u64, task: Arc<Task>) {
        match self.get_to_know(actor, &mut self.state.lock()) {
            ActorState::Unknown { queue }
            | ActorState::Known { queue, .. }
            | ActorState::At { queue, .. } => {
                queue.push_back(task);
            }
            // The call fails when its arguments are there, like a call that was sent.
            ActorState::Over { .. } => {}
        }
    }

    /// Sends the calls at the front of an actor's queue whose arguments are there.
    pub(super) fn send_to_actor(&self, actor: u64) {
        let mut failed = Vec::new();
        {
            let mut guard = self.state.lock();
            let state = &mut *guard;
            let is_ready = |task: &Arc<Task>| task.unready.load(Ordering::Acquire) == 0;
            let (link, queue) = match state.actors.get_mut(&actor) {
                Some(ActorState::At { link, queue }) => (link, queue),
                Some(ActorState::Known { queue, .. }) if queue.iter().any(is_ready) => {
                    // The channel could not be opened before: this call tries again.
                    drop(guard);
                    return self.reach_actor(actor);
                }
                _ => return,
            };
            // A closed link means that the head is about to say what became of the actor.
            while !link.is_closed()
                && let Some(task) = queue.pop_front_if(|task| task.unready.load(Ordering::Acquire) == 0)
            {
                // An argument failed: the call has failed already, or fails when the thread that handles it gets to it.
                let has_failed = task.arguments.results().any(|cell| cell.failure().is_some());
                if has_failed || task.results.iter().all(|cell| cell.is_ready()) {
                    continue;
                }
                let Target::Method { method, .. } = task.target else {
                    unreachable!("only methods queue here")
                };
                match self.send(link, &task, Callee::Method(method)) {
                    Ok(number) => {
                        state.running.insert(task.id, Running::new(task, link, number));
                        self.settled(1);
                    }
                    Err(failure) => failed.push((task, failure)),
                }
            }
        }
        for (task, failure) in failed {
            self.fail_unsent(&task, &failure);
        }
    }

    pub(crate) fn actor_failure(&self, actor: u64) -> Option<(u32, Failure)> {
        match self.state.lock().actors.get(&actor) {
            Some(ActorState::Over { pid, failure }) => Some((*pid, failure.clone())),
            _ => None,
        }
    }

    pub(super) fn on_actor_at(&self, actor: u64, process: OwnerId) {
        let mut state = self.state.lock();
        let known = state.actors.get_mut(&actor);
        let queue = known.and_then(ActorState::queue).map(std::mem::take).unwrap_or_default();
        state.actors.insert(actor, ActorState::Known { process, queue });
        drop(state);
        self.reach_actor(actor);
    }

    /// Handles the death of a process that the head replaces. Calls that had begun fail, or are retried before all
    /// others. Calls that had not begun wait.
    pub(super) fn on_actor_restarts(&self, actor: u64, pid: u32, reason: ExitReason, max_task_retries: u32) {
        self.take_last_results(actor);
        let (again, failed) = {
            let mut state = self.state.lock();
            let begun = match state.actors.get(&actor) {
                Some(ActorState::At { link, .. }) => link.begun(),
                _ => u64::MAX,
            };
            let (mut queue, running) = state.take_calls_of(actor);
            let (again, failed): (Vec<_>, Vec<_>) =
                running.into_iter().partition(|Running { task, number, .. }| {
                    (*number > begun && task.may_be_sent_again()) || task.may_retry(max_task_retries)
                });
            let tasks = |running: Vec<Running>| running.into_iter().map(|running| running.task);
            let (again, failed): (Vec<_>, Vec<_>) = (tasks(again).collect(), tasks(failed).collect());
            for task in again.iter().rev() {
                // Its arguments are there, and it keeps them.
                task.unready.store(0, Ordering::Release);
                queue.push_front(task.clone());
            }
            self.promised(again.len());
            state.actors.insert(actor, ActorState::Unknown { queue });
            (again, failed)
        };
        if !again.is_empty() {
            self.waiters.call_waits();
        }
        for task in &failed {
            if let Target::Method { class, name, .. } = &task.target {
                let (class, method) = (class.to_string(), name.to_string());
                self.settle_all(task, &Failure::ActorUnavailable { class, method, pid, reason });
            }
        }
    }

    /// Receives the results that an actor's process sent before it ended. The head's record may have come before them.
    fn take_last_results(&self, actor: u64) {
        let link = match self.state.lock().actors.get(&actor) {
            Some(ActorState::At { link, .. }) => link.clone(),
            _ => return,
        };
        link.receive_the_rest(&mut |record| self.on_results(&link, record));
    }

    pub(super) fn on_actor_over(&self, actor: u64, pid: u32, failure: &Failure) {
        self.take_last_results(actor);
        let (queue, running) = {
            let mut state = self.state.lock();
            let calls = state.take_calls_of(actor);
            state.actors.insert(actor, ActorState::Over { pid, failure: failure.clone() });
            calls
        };
        for Running { task, .. } in &running {
            self.settle_all(task, &task.target.failure_of_actor(pid, failure));
        }
        for task in &queue {
            // A call that waits for arguments fails now. It leaves the count when they arrive.
            if !task.results.iter().all(|cell| cell.is_ready()) {
                self.settle_all(task, &task.target.failure_of_actor(pid, failure));
            }
            if task.unready.load(Ordering::Acquire) == 0 {
                self.settled(1);
            }
        }
    }
}

impl State {
    /// Removes and returns an actor's calls: those that wait and those that were sent. Both are in the order in which
    /// they were made.
    pub(super) fn take_calls_of(&mut self, actor: u64) -> (VecDeque<Arc<Task>>, Vec<Running>) {
        self.lost_actors.remove(&actor);
        let queue = self.actors.remove(&actor).and_then(|mut actor| actor.queue().map(std::mem::take));
        let queue = queue.unwrap_or_default();
        let is_its = |running: &Running| match running.task.target {
            Target::Method { actor: its, .. } => its == actor,
            _ => false,
        };
        let running = self.running.extract_if(|_, running| is_its(running)).map(|(_, running)| running);
        let mut running: Vec<_> = running.collect();
        running.sort_unstable_by_key(|running| running.task.id);
        (queue, running)
    }
}
