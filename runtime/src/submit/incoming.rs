//! Events on the calling side: results and declined calls come back, the head sends records, and processes that run
//! calls are lost.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mobula_client::OwnerId;
use smallvec::SmallVec;

use super::delayed::delay;
use super::leases::Ended;
use super::reach::NotReached;
use super::running::{Divided, LostCalls, RunningCall, divide};
use super::{State, Submitter, Worker};
use crate::call::inline::{Inline, InlineBytes};
use crate::call::items::{Arrival, TooMany};
use crate::call::options::is_within;
use crate::call::outcome::Settled;
use crate::call::payload::{self, Malformed, Payload};
use crate::call::result_cell::Dependent;
use crate::call::task::{Target, Task};
use crate::demand::Demand;
use crate::error::{ExitReason, Failure, Result, TaskErrorKind, TimeLimit};
use crate::mail::link::Link;
use crate::wire::{FromHead, Item, NoResults, Results, StreamEnd, Taken, ToCaller, ToHead};

/// The time before the first retry of a call whose process was ended because memory was short. It doubles each time.
const MEMORY_RETRY_DELAY: Duration = Duration::from_secs(1);

impl Submitter {
    /// Handles a record from a worker or actor that runs calls of this process.
    pub(crate) fn on_results(&self, link: &Arc<Link>, record: &[u8]) {
        match ToCaller::read(record) {
            Some(ToCaller::Results(results, payloads)) => self.on_some_results(link, results, payloads),
            Some(ToCaller::Item(item, payload)) => self.on_item(link, item, payload),
            Some(ToCaller::StreamEnd(end, payload)) => self.on_stream_end(link, end, payload),
            Some(ToCaller::NoResults(NoResults::Failed { task, failure, ran_nanos })) => {
                let mut retry = Retry::Never;
                let running = self.end_call_and(link, task, Some(ran_nanos), |state, task| {
                    retry = retry_of(task, state.retries_max(task), &failure);
                    match retry {
                        Retry::Never => return,
                        Retry::After(delay) => state.delayed.add(task.clone(), Instant::now() + delay),
                        Retry::Undecided => state.delayed.add_undecided(task.clone(), failure.clone()),
                    }
                    self.pending_results.begin(1);
                });
                match (running, retry) {
                    (Some(_), Retry::After(delay)) => self.on_retry_waits(delay),
                    // Nothing may be locked while code of the program runs.
                    (Some(_), Retry::Undecided) => self.pending_results.decide_later(),
                    (Some(running), Retry::Never) => self.settle_all(&running.task, &failure),
                    (None, _) => {}
                }
            }
            Some(ToCaller::NoResults(NoResults::Declined { task })) => {
                let running = self.end_call_and(link, task, None, |state, task| {
                    if let Target::Function { key, .. } = task.target
                        && !task.is_over()
                    {
                        self.pending_results.begin(1);
                        state.leases.of(&task.demand).queue_again(key, task.clone());
                    }
                });
                let Some(running) = running else { return };
                let Target::Function { .. } = running.task.target else {
                    let name = running.task.target.name();
                    let failure = Failure::Other(format!("{name} was declined, which only functions can be"));
                    return self.settle_all(&running.task, &failure);
                };
                self.waiters.call_waits();
                self.send_ready();
            }
            Some(ToCaller::NoResults(NoResults::Removed { task })) => self.on_removed(link, task),
            Some(ToCaller::NoResults(NoResults::Begun { task })) => self.on_begun(link, task),
            None => {
                tracing::error!(peer = %link.peer, "a record that cannot be read");
                link.close();
            }
        }
    }

    /// A call has been removed before it began, because it was cancelled here or its deadline had passed.
    fn on_removed(&self, link: &Link, task: u64) {
        let mut state = self.state.lock();
        let Some(running) = state.running.remove(link, task) else { return };
        let mut is_due = false;
        if let Target::Function { .. } = running.task.target {
            is_due = state.leases.of(&running.task.demand).call_removed(running.on, Instant::now);
        }
        drop(state);
        if !running.task.is_over() {
            let failure = match running.task.limits() {
                Some(limits) if limits.deadline.is_some() => running.task.timed_out(TimeLimit::Deadline),
                _ => Failure::Other(format!("{} was removed, and not cancelled", running.task.target.name())),
            };
            self.settle_all(&running.task, &failure);
        }
        if is_due {
            self.return_idle_workers();
        }
        self.send_ready();
    }

    /// A call has failed, and waits for its retry.
    fn on_retry_waits(&self, delay: Duration) {
        let is_sooner = self.note_due(&self.state.lock());
        if delay.is_zero() {
            self.on_time();
        } else if is_sooner {
            self.waiters.tick_sooner();
        }
    }

    /// Asks the program of the calls that failed whether they are retried. Runs its code: nothing may be locked.
    pub(super) fn decide_retries(&self) {
        loop {
            let Some((task, failure)) = self.state.lock().delayed.next_undecided() else { return };
            let is_retried = task.error_retries().and_then(|retries| retries.is_retried);
            let is_wanted = match (&failure, is_retried) {
                (Failure::Task(error), Some(is_retried)) => {
                    catch_unwind(AssertUnwindSafe(|| is_retried(error))).unwrap_or(false)
                }
                _ => false,
            };
            let mut state = self.state.lock();
            if !state.delayed.decided(task.id) {
                // It was cancelled meanwhile.
                continue;
            }
            let max = state.retries_max(&task);
            let delay = if is_wanted { delay_of_retry(&task, max) } else { None };
            if let Some(delay) = delay {
                state.delayed.add(task.clone(), Instant::now() + delay);
            }
            drop(state);
            match delay {
                Some(delay) => self.on_retry_waits(delay),
                None => {
                    self.pending_results.end(1);
                    self.settle_all(&task, &failure);
                }
            }
        }
    }

    fn on_some_results(&self, link: &Arc<Link>, results: Results, mut payloads: &[u8]) {
        let Results { task, first, count, is_last, ran_nanos } = results;
        // Nearly always one. A payload that cannot be read is the last one.
        let mut arrived: SmallVec<[Settled; 1]> = SmallVec::new();
        for _ in 0..count {
            match payload::take(&mut payloads) {
                Ok(payload) => arrived.push(self.settled_from(payload)),
                Err(Malformed) => break,
            }
        }
        let is_lost = |settled: &Settled| match settled {
            Settled::Failed(failure) => matches!(**failure, Failure::ObjectLost { .. }),
            Settled::Inline(_) | Settled::Stored(_) => false,
        };
        let any_lost = is_last && arrived.iter().any(is_lost);
        let mut is_retried = false;
        let task = if is_last {
            let ended = |state: &mut State, task: &Arc<Task>| {
                if let Some(calls) = &mut state.calls {
                    calls.ended(task, link.peer);
                }
                // A result was in the memory of a process that died before this one read it. Only functions are
                // retried here: the head alone knows whether a method may be.
                if let (true, Target::Function { key, .. }) = (any_lost, &task.target)
                    && !task.is_over()
                    && task.may_retry(task.max_retries)
                {
                    self.pending_results.begin(1);
                    state.leases.of(&task.demand).queue_again(*key, task.clone());
                    is_retried = true;
                }
            };
            self.end_call_and(link, task, Some(ran_nanos), ended).map(|running| running.task)
        } else {
            self.state.lock().running.get(link, task).cloned()
        };
        let Some(task) = task else { return };
        let cells = task.results.iter().skip(first as usize).take(count as usize);
        let mut arrived = arrived.into_iter();
        for cell in cells {
            match arrived.next() {
                Some(settled) if is_retried && is_lost(&settled) => {}
                Some(settled) => self.settle(cell, settled),
                None => self.settle(cell, Settled::failed(Failure::Other(Malformed.to_string()))),
            }
        }
        if is_retried {
            self.waiters.call_waits();
            return self.send_ready();
        }
        // A worker that ends a call without all its results must leave none pending.
        if is_last && (first as usize).saturating_add(count as usize) != task.results.len() {
            let missing = Failure::Other(format!("{} sent too few results", task.target.name()));
            self.settle_all(&task, &missing);
        }
    }

    /// An item of a stream has come.
    fn on_item(&self, link: &Arc<Link>, Item { task, position }: Item, mut payload: &[u8]) {
        let Some(task) = self.state.lock().running.get(link, task).cloned() else { return };
        // A call that makes no stream sends no items.
        let Some(items) = &task.items else { return link.close() };
        let arrival = items.arrive(position, || match payload::take(&mut payload) {
            Ok(payload) => {
                let is_its = matches!(payload, Payload::Stored(object) if object.owner() == link.peer);
                match self.settled_from(payload) {
                    // It was in the memory of a process that has died before this one read it.
                    Settled::Failed(lost) if is_its && matches!(*lost, Failure::ObjectLost { .. }) => None,
                    settled => Some(settled),
                }
            }
            Err(malformed) => Some(Settled::failed(Failure::Other(malformed.to_string()))),
        });
        let Arrival { waiter, tell } = match arrival {
            Ok(arrival) => arrival,
            Err(TooMany) => {
                tracing::error!(peer = %link.peer, "more items of a stream than may be in flight");
                return link.close();
            }
        };
        if let Some(waiter) = waiter {
            self.on_ready(Dependent::Waiter(waiter), false);
        }
        if let Some(items) = tell {
            self.tell_taken(task.id, items);
        }
    }

    /// A stream has ended well.
    fn on_stream_end(&self, link: &Arc<Link>, end: StreamEnd, payload: &[u8]) {
        let StreamEnd { task, items: length, ran_nanos } = end;
        let Some(running) = self.state.lock().running.get(link, task).cloned() else { return };
        let Some(items) = &running.items else { return link.close() };
        // Before the result is there: then the stream looks at the length.
        items.end(length);
        let results = Results { task, first: 0, count: 1, is_last: true, ran_nanos };
        self.on_some_results(link, results, payload);
    }

    /// Tells the process that makes a stream how many of its items are taken.
    pub(crate) fn tell_taken(&self, task: u64, items: u64) {
        let Some((process, link, _)) = self.state.lock().running.position(task) else { return };
        if let Some(link) = self.reach.open_link(process, link) {
            let _ = link.send_with(Vec::new(), |record| Taken { task, items }.append_to(record));
        }
    }

    /// The outcome in a payload. It holds the objects that the payload names.
    fn settled_from(&self, payload: Payload<'_>) -> Settled {
        let held = match payload {
            Payload::Stored(object) => self.client.hold(object).map(Settled::Stored),
            Payload::Inline { format, value, references } => {
                let value = InlineBytes::copy_of(value);
                let settled = |references| Settled::Inline(Inline { format, value, references });
                if references.is_empty() {
                    // Nearly always.
                    return settled(Vec::new());
                }
                let references = references.iter().map(|object| self.client.hold(object));
                references.collect::<Result<Vec<_>, _>>().map(settled)
            }
        };
        held.unwrap_or_else(Settled::failed)
    }

    /// Removes a call that has ended. Its worker has room again, and gets the next call if one waits. `and` may queue
    /// the call again, so that a thread that cancels it finds it in one place or the other.
    fn end_call_and(
        &self,
        link: &Link,
        task: u64,
        ran_nanos: Option<u64>,
        and: impl FnOnce(&mut State, &Arc<Task>),
    ) -> Option<RunningCall> {
        let mut state = self.state.lock();
        let running = state.running.remove(link, task)?;
        and(&mut state, &running.task);
        if let Target::Function { key, .. } = running.task.target {
            let next_waits = state.leases.has_waiting();
            let is_due =
                state.leases.of(&running.task.demand).call_over(running.on, key, ran_nanos, Instant::now);
            drop(state);
            if is_due {
                self.return_idle_workers();
            }
            if next_waits && ran_nanos.is_some() {
                self.send_ready();
            }
        }
        Some(running)
    }

    // ---- records from the head ----

    /// Handles a record from the head to a caller.
    pub(crate) fn on_head(&self, record: FromHead<'_>) {
        match record {
            FromHead::Granted { demand, worker, pid } => self.on_granted(&demand, worker, pid),
            FromHead::NoWorkers { demand, failure } => {
                let waiting = self.state.lock().leases.of(&demand).take_waiting();
                waiting.iter().for_each(|task| self.fail_unsent(task, &failure));
            }
            // Another process has no worker: this one goes back as soon as its calls are over.
            FromHead::Recall { worker } => {
                self.state.lock().leases.recall(worker);
                self.return_idle_workers();
            }
            FromHead::AskCall { worker } => self.say_what_runs(worker),
            FromHead::Died { process, reason, memory_retries } => {
                self.on_died(process, reason, memory_retries);
            }
            FromHead::ActorReserved { request, result } => self.questions.on_reserved(request, result),
            FromHead::ActorFound { request, actor } => self.questions.on_found(request, actor),
            FromHead::ActorNames { request, names, is_last } => {
                self.questions.on_names(request, names, is_last);
            }
            FromHead::ActorEnded { request } => self.questions.on_ended(request),
            FromHead::GroupMade { request, result } => self.questions.on_group_made(request, result),
            FromHead::GroupSettled { request } => self.questions.on_ended(request),
            FromHead::Groups { request, groups } => self.questions.on_groups(request, groups),
            FromHead::Resources { request, free } => self.questions.on_resources(request, free),
            FromHead::ActorAt { actor, process, max_task_retries } => {
                self.state.lock().actors.found(actor, process, max_task_retries);
                self.reach_actor(actor);
            }
            FromHead::ActorRestarts { actor, pid, reason } => self.on_actor_restarts(actor, pid, reason),
            FromHead::ActorOver { actor, pid, failure } => self.on_actor_over(actor, pid, &failure),
            FromHead::CancelCall { request, cancel } => self.on_cancel_call(request, cancel),
            FromHead::AskWaits { .. } | FromHead::AskPromise { .. } | FromHead::Deadlocks { .. } => {}
            FromHead::Construct { .. }
            | FromHead::SayWhenFree { .. }
            | FromHead::Exit
            | FromHead::State(_)
            | FromHead::Obeyed { .. } => {
                tracing::warn!("the head takes this process for a worker");
            }
        }
    }

    fn on_granted(&self, demand: &Demand, worker: OwnerId, pid: u32) {
        let (link, no_room) = match self.reach.link_to(worker) {
            Ok(link) => (Some(link), None),
            Err(NotReached::Gone) => (None, None),
            Err(NotReached::NoRoom(failure)) => (None, Some(failure)),
        };
        let mut state = self.state.lock();
        // A link that closes later finds the lease. A link that is closed already must not get one.
        let reached = link.filter(|link| !link.is_closed()).map(|link| Worker { link, pid });
        let is_reached = reached.is_some();
        let leases = state.leases.of(demand);
        leases.granted(worker, reached, Instant::now());
        if is_reached {
            self.note(&state);
            drop(state);
            self.waiters.wake_poller();
        } else {
            // Another worker could not be reached either. The calls wait only if this process has other workers.
            let is_hopeless = no_room.is_some() && leases.is_empty();
            let waiting = if is_hopeless { leases.take_waiting() } else { Vec::new() };
            drop(state);
            self.end_lease(Ended { worker, is_busy: false });
            if let Some(failure) = no_room {
                waiting.iter().for_each(|task| self.fail_unsent(task, &failure));
            }
        }
        self.send_ready();
    }

    // ---- the loss of workers ----

    /// Handles the loss of a process that ran calls of this one, or of a link to it. The calls fail or are sent again
    /// when the process has ended: until then it may begin one of them.
    pub(crate) fn on_worker_gone(&self, link: &Arc<Link>) {
        self.reach.forget(link);
        let (lost, lease) = {
            let mut state = self.state.lock();
            let is_leased = state.leases.worker(link.peer).is_some_and(|worker| worker.link.id == link.id);
            let lease = if is_leased { state.leases.gone(link.peer) } else { None };
            let lost = state.running.lose(link, || lease.as_ref().map_or(0, |worker| worker.pid));
            state.actors.lose(link);
            self.pending_results.begin(lost);
            self.note(&state);
            (lost, lease)
        };
        // This comes before the end of the lease, so that the head leases the process to no caller, nor to this one
        // again.
        if lost > 0 {
            match self.links.head().filter(|_| !self.waiters.is_over()) {
                Some(head) => _ = head.send(&ToHead::AskDeath { process: link.peer }, Vec::new()),
                None => self.fail_everything(&Failure::SessionOver),
            }
            self.waiters.call_waits();
        }
        if lease.is_some() {
            // If only the link is gone, the worker may still run its calls.
            self.end_lease(Ended { worker: link.peer, is_busy: true });
        }
        self.send_ready();
    }

    /// Tells the head which call runs in a worker that is leased to this process.
    fn say_what_runs(&self, worker: OwnerId) {
        let call = {
            let state = self.state.lock();
            let link = state.leases.worker(worker).map(|leased| &leased.link);
            link.and_then(|link| state.running.running_in(link))
        };
        if let Some(head) = self.links.head() {
            let _ = head.send(&ToHead::Runs { worker, call }, Vec::new());
        }
    }

    /// Handles the end of a process. Calls that had not begun are sent to another process, and so are calls that may be
    /// retried. Those that may be because memory was short wait for a while first.
    fn on_died(&self, process: OwnerId, reason: ExitReason, memory_retries: u32) {
        let was_memory_short = matches!(reason, ExitReason::OutOfMemory { .. });
        let mut over = Vec::new();
        let mut any_waits = false;
        {
            // Locked all the time, so that a thread that cancels a call finds it in one place or the other.
            let mut state = self.state.lock();
            for LostCalls { link, pid, calls } in state.running.take_lost(process) {
                let begun = link.begun();
                let Divided { again, failed } = match was_memory_short {
                    // It says nothing about the calls that had not begun.
                    true => divide(calls, begun, |_| true, |_| false),
                    false => {
                        divide(calls, begun, Task::may_be_sent_again, |task| task.may_retry(task.max_retries))
                    }
                };
                for task in again.into_iter().rev() {
                    if let Target::Function { key, .. } = task.target {
                        state.leases.of(&task.demand).queue_again(key, task.clone());
                    }
                }
                for task in failed {
                    let retry = if was_memory_short { task.retry_for_memory(memory_retries) } else { None };
                    match retry {
                        Some(retry) => {
                            let due = Instant::now() + delay(MEMORY_RETRY_DELAY, retry);
                            state.delayed.add(task, due);
                            any_waits = true;
                        }
                        None => over.push((task, pid)),
                    }
                }
            }
        }
        if any_waits {
            self.on_retry_waits(MEMORY_RETRY_DELAY);
        }
        for (task, pid) in over {
            self.pending_results.end(1);
            self.settle_all(&task, &Failure::WorkerDied { function: task.target.name(), pid, reason });
        }
        self.send_ready();
    }

    // ---- the loss of actors ----

    /// Opens another channel to the actors about which the head has said nothing for long: they live, and only the
    /// channel is lost.
    pub(crate) fn reach_lost_actors(&self) {
        let mut state = self.state.lock();
        let long_lost = state.actors.take_long_lost();
        self.note(&state);
        drop(state);
        long_lost.into_iter().for_each(|actor| self.reach_lost_actor(actor));
    }

    /// Sends the calls again that had not begun. The others fail: no process will report their results.
    ///
    /// The number of begun calls is final although the process lives. Its end of a channel exists as long as a call
    /// that came through it waits or runs, so the loss of the channel means that its end is gone. If this process
    /// closed the channel because of an unreadable record, the head ends the other process before this is due.
    pub(super) fn reach_lost_actor(&self, actor: u64) {
        let Divided { failed, .. } = {
            let mut state = self.state.lock();
            let Some(link) = state.actors.link(actor).filter(|link| link.is_closed()).cloned() else {
                return;
            };
            let divided =
                divide(state.running.take_of_actor(actor), link.begun(), Task::may_be_sent_again, |_| false);
            self.pending_results.begin(divided.again.len());
            state.actors.wait_again(actor, Some(link.peer), &divided.again);
            divided
        };
        for task in failed {
            let reason = "the channel to it was lost before the result was there".to_owned();
            self.settle_all(&task, &Failure::Unreachable { reason });
        }
        self.send_to_actor(actor);
    }

    /// Handles the death of a process that the head replaces. Calls that had begun fail, or are retried before all
    /// others. Calls that had not begun wait.
    fn on_actor_restarts(&self, actor: u64, pid: u32, reason: ExitReason) {
        self.take_last_results(actor);
        let Divided { again, failed } = {
            let mut state = self.state.lock();
            let begun = state.actors.link(actor).map_or(u64::MAX, |link| link.begun());
            let running = state.running.take_of_actor(actor);
            let may_retry = |task: &Task| task.may_retry(state.retries_max(task));
            let divided = divide(running, begun, Task::may_be_sent_again, may_retry);
            self.pending_results.begin(divided.again.len());
            state.actors.wait_again(actor, None, &divided.again);
            divided
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

    fn on_actor_over(&self, actor: u64, pid: u32, failure: &Failure) {
        self.take_last_results(actor);
        let is_its = |task: &Task| matches!(task.target, Target::Method { actor: its, .. } if its == actor);
        let (queue, running, delayed) = {
            let mut state = self.state.lock();
            let queue = state.actors.end(actor, pid, failure);
            (queue, state.running.take_of_actor(actor), state.delayed.take_if(&is_its))
        };
        // Calls that were to be retried.
        for task in &delayed {
            self.pending_results.end(1);
            self.settle_all(task, &task.target.failure_of_actor(pid, failure));
        }
        for RunningCall { task, .. } in &running {
            self.settle_all(task, &task.target.failure_of_actor(pid, failure));
        }
        for task in &queue {
            // A call that waits for arguments fails now. It leaves the count when they arrive.
            if !task.results.iter().all(|cell| cell.is_ready()) {
                self.settle_all(task, &task.target.failure_of_actor(pid, failure));
            }
            if task.unready.load(Ordering::Acquire) == 0 {
                self.pending_results.end(1);
            }
        }
    }

    /// Receives the results that an actor's process sent before it ended. The head's record may have come before them.
    fn take_last_results(&self, actor: u64) {
        let Some(link) = self.state.lock().actors.link(actor).cloned() else { return };
        link.receive_the_rest(&mut |record| self.on_results(&link, record));
    }
}

/// Whether a call that failed is retried.
#[derive(Clone, Copy)]
enum Retry {
    Never,
    After(Duration),
    /// If the program says so.
    Undecided,
}

/// Whether a call that failed is retried, of at most `max` times. Counts a retry that is certain.
fn retry_of(task: &Task, max: u32, failure: &Failure) -> Retry {
    let (Failure::Task(error), Some(retries)) = (failure, task.error_retries()) else { return Retry::Never };
    // Anything else would be the same another time.
    if !matches!(error.kind, TaskErrorKind::Returned | TaskErrorKind::Panicked) {
        return Retry::Never;
    }
    if retries.is_retried.is_some() {
        let is_possible = !task.is_over() && is_within(task.retries.load(Ordering::Relaxed), max);
        if !is_possible {
            return Retry::Never;
        }
        // The time that the program takes to decide is not that of the attempt.
        task.attempt_over();
        return Retry::Undecided;
    }
    delay_of_retry(task, max).map_or(Retry::Never, Retry::After)
}

/// The time after which a call is retried because of an error, of at most `max` times; `None`: it is not. Counts the
/// retry.
fn delay_of_retry(task: &Task, max: u32) -> Option<Duration> {
    let first = task.error_retries()?.first_delay;
    let is_retried = !task.is_over() && task.may_retry(max);
    is_retried.then(|| delay(first, task.retries.load(Ordering::Relaxed)))
}
