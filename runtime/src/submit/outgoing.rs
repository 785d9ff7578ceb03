//! Sending a call: its arguments are there, and a worker has room, or its actor is reached.

use std::sync::Arc;

use super::actors::Next;
use super::dependencies::Dependencies;
use super::{State, Submitter};
use crate::call::result_cell::Dependent;
use crate::call::task::{Target, Task};
use crate::error::{Failure, Result, TimeLimit};
use crate::mail::link::{Link, TooLarge};
use crate::wire::{Call, CallBegin, Callee, ToHead};

/// The number of calls after which a thread that makes calls looks at the mail.
const LOOK_PERIOD: u64 = 64;
/// This number after a call that could not be sent at once.
const LOOK_PERIOD_WAITING: u64 = 8;

/// The outcome of the attempt to send a call at once.
enum Sent {
    Now,
    /// It waits for room in the ring.
    Backlogged,
    /// It was not sent: it has to wait.
    Not(Arc<Task>),
}

impl Submitter {
    /// Accepts a call, which is sent as soon as its arguments are there and a process can run it. Returns `true` when
    /// it is time to look at the mail.
    ///
    /// A thread that makes many calls without waiting for them looks at regular intervals, so that results do not pile
    /// up and the next calls find room.
    pub(crate) fn submit(&self, task: Arc<Task>) -> bool {
        let number = task.id;
        if let Some(deadline) = task.limits().and_then(|limits| limits.deadline) {
            self.limit(&task, deadline, TimeLimit::Deadline);
        }
        let is_watched = task.is_watched();
        let period = match self.send_at_once(task) {
            Sent::Now => LOOK_PERIOD,
            Sent::Backlogged => LOOK_PERIOD_WAITING,
            Sent::Not(mut task) => {
                if self.pending_results.is_crowded() {
                    give_back_spare_memory(&mut task);
                }
                self.submit_waiting(&task);
                LOOK_PERIOD_WAITING
            }
        };
        if period == LOOK_PERIOD_WAITING || is_watched {
            self.waiters.call_waits();
        }
        number.is_multiple_of(period)
    }

    /// Sends a call that does not have to wait: the short path, which most calls take.
    fn send_at_once(&self, mut task: Arc<Task>) -> Sent {
        if task.arguments.results().next().is_some() {
            return Sent::Not(task);
        }
        let mut state = self.state.lock();
        let State { leases, actors, running, calls, .. } = &mut *state;
        // Checked with the state locked: the end of the session fails every call that is in it.
        if self.waiters.is_over() {
            return Sent::Not(task);
        }
        let (link, callee, room) = match task.target {
            Target::Method { actor, method, is_in_order, .. } => {
                match actors.link_at_once(actor, is_in_order) {
                    Some(link) => (link, Callee::Method(method), None),
                    None => return Sent::Not(task),
                }
            }
            Target::Function { key, .. } => {
                let Some(room) = leases.of(&task.demand).room_at_once(key) else { return Sent::Not(task) };
                (&room.worker.link, Callee::Function(key), Some(room))
            }
            Target::Constructor { .. } => return Sent::Not(task),
        };
        let Ok(number) = self.send(link, &task, callee) else {
            // The call fails again on the long path, which settles its results.
            return Sent::Not(task);
        };
        let sent = if link.holds_anything() { Sent::Backlogged } else { Sent::Now };
        if matches!(sent, Sent::Backlogged) && running.is_crowded() {
            give_back_spare_memory(&mut task);
        }
        if let Some(calls) = calls {
            calls.sent_at_once(&task, link.peer);
        }
        running.sent(task, link, number);
        if let Some(room) = room {
            room.take();
        }
        sent
    }

    /// Accepts a call that has to wait for its arguments, for a worker, or for earlier calls.
    fn submit_waiting(&self, task: &Arc<Task>) {
        self.pending_results.begin(1);
        if self.waiters.is_over() {
            return self.fail_unsent(task, &Failure::SessionOver);
        }
        if let Target::Method { actor, .. } = task.target {
            let mut state = self.state.lock();
            self.watch_actor(actor, &mut state);
            state.actors.queue(actor, task.clone());
        }
        self.record_arguments(task);
        if let Err(error) = self.dependencies.wait_for_arguments(task) {
            self.dependencies.release(task);
            return self.fail_unsent(task, &error.into());
        }
        // A promise may have been settled before its owner could see the watch.
        self.submit_what_became_ready();
        self.one_argument_ready(task);
    }

    /// Records a call that has results among its arguments. Any other call is recorded when it is queued.
    fn record_arguments(&self, task: &Arc<Task>) {
        if task.arguments.results().next().is_some()
            && let Some(calls) = &mut self.state.lock().calls
        {
            match task.arguments.results().find(|cell| !cell.is_ready()) {
                Some(argument) => calls.blocked(task, argument),
                None => calls.made(task),
            }
        }
    }

    /// Handles the promises of other processes that are settled. Returns whether there were any.
    pub(crate) fn submit_what_became_ready(&self) -> bool {
        if !self.dependencies.any() {
            return false;
        }
        let settled = self.dependencies.take_settled();
        let any = !settled.is_empty();
        settled.into_iter().for_each(|dependent| self.on_ready(dependent, false));
        any
    }

    /// A result is there that a call or a future waits for.
    pub(super) fn on_ready(&self, dependent: Dependent, has_failed: bool) {
        match dependent {
            Dependent::Task(task) => self.one_argument_ready(&task),
            Dependent::Waiter(waiter) => {
                if let Some(waker) = waiter.one_is_ready(has_failed) {
                    self.pending_results.wake_later(waker);
                }
            }
        }
    }

    /// Counts one argument as ready, and sends the call if it was the last.
    pub(super) fn one_argument_ready(&self, task: &Arc<Task>) {
        Dependencies::one_is_ready(task, |task| self.on_arguments_ready(task));
    }

    fn on_arguments_ready(&self, task: &Arc<Task>) {
        // Locked, so that a thread that cancels the call finds it in one place or the other.
        let mut state = self.state.lock();
        if !self.dependencies.release(task) {
            return;
        }
        if let Some(calls) = &mut state.calls
            && !matches!(task.target, Target::Constructor { .. })
        {
            match task.arguments.results().next() {
                Some(_) => calls.unblocked(task),
                None => calls.made(task),
            }
        }
        let failed = task.arguments.results().find_map(|cell| cell.failure());
        if failed.is_none()
            && let Target::Function { key, .. } = task.target
        {
            state.leases.of(&task.demand).queue(key, task.clone());
        }
        drop(state);
        if let Some(failure) = failed {
            return self.fail_unsent(task, &failure);
        }
        match task.target {
            Target::Function { .. } => self.send_ready(),
            Target::Method { actor, .. } => match self.actor_failure(actor) {
                Some((pid, failure)) => self.fail_unsent(task, &task.target.failure_of_actor(pid, &failure)),
                None => self.send_to_actor(actor),
            },
            Target::Constructor { actor, .. } => self.start_actor(actor, task),
        }
    }

    /// Sends queued calls of functions to workers that have room for them, and asks for more workers if need be.
    pub(super) fn send_ready(&self) {
        let mut failed = Vec::new();
        let mut state = self.state.lock();
        let State { leases, running, calls, .. } = &mut *state;
        while let Some((task, room)) = leases.next() {
            let Target::Function { key, .. } = task.target else { unreachable!("only functions queue here") };
            match self.send(&room.worker.link, &task, Callee::Function(key)) {
                Ok(number) => {
                    if let Some(calls) = calls {
                        calls.sent(&task);
                    }
                    running.sent(task, &room.worker.link, number);
                    room.take();
                    self.pending_results.end(1);
                }
                Err(failure) => failed.push((task, failure)),
            }
        }
        for (demand, workers) in leases.wants() {
            if let Some(head) = self.links.head() {
                let _ = head.send(&ToHead::Want { demand, workers }, Vec::new());
            }
        }
        self.note_waiting(&state);
        drop(state);
        for (task, failure) in failed {
            self.fail_unsent(&task, &failure);
        }
    }

    /// Sends the calls at the front of an actor's queue whose arguments are there.
    pub(super) fn send_to_actor(&self, actor: u64) {
        let mut failed = Vec::new();
        let mut state = self.state.lock();
        let State { actors, running, calls, .. } = &mut *state;
        let needs_channel = loop {
            let (link, task) = match actors.next(actor) {
                Next::Send(link, task) => (link, task),
                Next::Reach => break true,
                Next::Nothing => break false,
            };
            // An argument failed: the call has failed already, or fails when the thread that handles it gets to it.
            let has_failed = task.arguments.results().any(|cell| cell.failure().is_some());
            if has_failed || task.results.iter().all(|cell| cell.is_ready()) {
                continue;
            }
            let Target::Method { method, .. } = task.target else { unreachable!("only methods queue here") };
            match self.send(link, &task, Callee::Method(method)) {
                Ok(number) => {
                    if let Some(calls) = calls {
                        calls.sent(&task);
                    }
                    running.sent(task, link, number);
                    self.pending_results.end(1);
                }
                Err(failure) => failed.push((task, failure)),
            }
        };
        drop(state);
        for (task, failure) in failed {
            self.fail_unsent(&task, &failure);
        }
        if needs_channel {
            // The channel could not be opened before: this call tries again.
            self.reach_actor(actor);
        }
    }

    /// Sends one call. Returns the number of its record. The task keeps the objects alive that the record names.
    fn send(&self, link: &Link, task: &Task, callee: Callee) -> Result<u64, Failure> {
        let (task_id, arguments) = (task.id, task.arguments.count() as u32);
        let limits = task.limits().map(|limits| CallBegin::by(limits.deadline));
        let context = task.context();
        let (returns, is_detached) = (task.returns, task.is_detached);
        let (attempt, is_traced) = (task.attempt(), context.is_some());
        let call =
            Call { task: task_id, callee, returns, arguments, limits, is_detached, attempt, is_traced };
        self.send_arguments(task, |payloads| {
            link.send_with(Vec::new(), |record| {
                call.append_to(record, context);
                record.extend_from_slice(payloads);
            })
        })
    }

    /// Sends a record with a task's arguments. Small arguments are in the record. If they do not fit together, all
    /// arguments go through the store.
    pub(super) fn send_arguments<T>(
        &self,
        task: &Task,
        send: impl Fn(&[u8]) -> Result<T, TooLarge>,
    ) -> Result<T, Failure> {
        let sent = match task.arguments.as_given() {
            Some(payloads) => send(payloads),
            None => send(&task.arguments.resolve(&self.client, self.session, false)?),
        };
        sent.or_else(|TooLarge| {
            send(&task.arguments.resolve(&self.client, self.session, true)?).map_err(|TooLarge| {
                let (function, count) = (task.target.name(), task.arguments.count());
                Failure::TooManyArguments { function, count }
            })
        })
    }
}

/// Gives the spare memory of the arguments of a call that was just made to the next call.
fn give_back_spare_memory(task: &mut Arc<Task>) {
    if let Some(task) = Arc::get_mut(task) {
        task.arguments.values.give_back_spare_memory();
    }
}
