//! The results of calls, declined calls, and the loss of processes that run calls.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mobula_client::OwnerId;

use super::leases::Ended;
use super::{Dying, Running, Submitter};
use crate::call::inline::{Inline, InlineBytes};
use crate::call::outcome::Settled;
use crate::call::payload::{self, Payload};
use crate::call::result_cell::ResultCell;
use crate::call::task::{Target, Task};
use crate::definition::Key;
use crate::error::{ExitReason, Failure, Result};
use crate::mail::link::Link;
use crate::wire::{NoResults, Results, ToCaller, ToHead};

impl Submitter {
    /// Handles a record from a worker or actor that runs calls of this process.
    pub(crate) fn on_results(&self, link: &Arc<Link>, record: &[u8]) {
        match ToCaller::read(record) {
            Some(ToCaller::Results(results, payloads)) => self.on_some_results(link, results, payloads),
            Some(ToCaller::NoResults(NoResults::Failed { task, failure, ran_nanos })) => {
                if let Some(running) = self.end_call(link, task, Some(ran_nanos)) {
                    self.settle_all(&running.task, &failure);
                }
            }
            Some(ToCaller::NoResults(NoResults::Declined { task })) => {
                if let Some(running) = self.end_call(link, task, None) {
                    let Target::Function { key, .. } = running.task.target else {
                        let name = running.task.target.name();
                        let failure =
                            Failure::Other(format!("{name} was declined, which only functions can be"));
                        return self.settle_all(&running.task, &failure);
                    };
                    self.retry(key, running.task);
                    self.send_ready();
                }
            }
            None => {
                tracing::error!(peer = %link.peer, "a record that cannot be read");
                link.close();
            }
        }
    }

    fn on_some_results(&self, link: &Arc<Link>, results: Results, mut payloads: &[u8]) {
        let Results { task, first, count, is_last, ran_nanos } = results;
        let task = if is_last {
            let Some(running) = self.end_call(link, task, Some(ran_nanos)) else { return };
            running.task
        } else {
            let state = self.state.lock();
            let Some(running) = state.running.get(&task).filter(|running| running.link == link.id) else {
                return;
            };
            running.task.clone()
        };
        let cells = task.results.iter().skip(first as usize).take(count as usize);
        let mut lost = None;
        for cell in cells {
            let settled = match payload::take(&mut payloads) {
                Ok(payload) => self.settled_from(payload),
                Err(malformed) => Settled::failed(Failure::Other(malformed.to_string())),
            };
            // The result was in the memory of a process that died before this one read it. Only functions are retried
            // here: the head alone knows whether a method may be.
            if let (Settled::Failed(failure), Target::Function { key, .. }) = (&settled, &task.target)
                && matches!(**failure, Failure::ObjectLost { .. })
                && is_last
                && (lost.is_some() || task.may_retry(task.max_retries))
            {
                lost = Some(*key);
                continue;
            }
            self.settle(cell, settled);
        }
        if let Some(key) = lost {
            self.retry(key, task);
            return self.send_ready();
        }
        // A worker that ends a call without all its results must leave none pending.
        if is_last && (first as usize).saturating_add(count as usize) != task.results.len() {
            let missing = Failure::Other(format!("{} sent too few results", task.target.name()));
            self.settle_all(&task, &missing);
        }
    }

    /// The outcome in a payload. It holds the objects that the payload names.
    fn settled_from(&self, payload: Payload<'_>) -> Settled {
        let held = match payload {
            Payload::Stored(object) => self.client.hold(object).map(Settled::Stored),
            Payload::Inline { format, value, references } => {
                let references = references.iter().map(|object| self.client.hold(object));
                let value = InlineBytes::copy_of(value);
                references
                    .collect::<Result<Vec<_>, _>>()
                    .map(|references| Settled::Inline(Inline { format, value, references }))
            }
        };
        held.unwrap_or_else(Settled::failed)
    }

    /// Removes a call that has ended. Its worker has room again, and gets the next call if one waits.
    fn end_call(&self, link: &Link, task: u64, ran_nanos: Option<u64>) -> Option<Running> {
        let mut state = self.state.lock();
        let running = match state.running.entry(task) {
            Entry::Occupied(running) if running.get().link == link.id => running.remove(),
            _ => return None,
        };
        if let Target::Function { key, .. } = running.task.target {
            let next_waits = state.leases.has_waiting();
            let is_due = state.leases.call_over(running.on, key, ran_nanos, Instant::now);
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

    pub(super) fn settle(&self, cell: &ResultCell, settled: Settled) {
        let has_failed = matches!(settled, Settled::Failed(_));
        let (dependents, promised) = cell.settle(&self.client, settled);
        if has_failed {
            // This comes after the failure is visible: a thread that sees the count looks for the failure.
            self.failures.fetch_add(1, Ordering::AcqRel);
        }
        if promised {
            self.settled(1);
        }
        for task in dependents {
            self.one_argument_ready(&task);
        }
    }

    pub(super) fn settle_all(&self, task: &Task, failure: &Failure) {
        for cell in &task.results {
            self.settle(cell, Settled::failed(failure.clone()));
        }
        self.waiters.announce();
    }

    pub(super) fn fail_unsent(&self, task: &Arc<Task>, failure: &Failure) {
        self.settled(1);
        if let Target::Constructor { actor, .. } = task.target
            && let Some(head) = self.links.head()
        {
            let _ = head.send(&ToHead::AbandonActor { actor, failure: failure.clone() }, Vec::new());
        }
        self.settle_all(task, failure);
        if let Target::Method { actor, .. } = task.target {
            self.send_to_actor(actor);
        }
    }

    /// Queues a call of a function again, before the calls that have not been sent yet.
    fn retry(&self, key: Key, task: Arc<Task>) {
        self.promised(1);
        self.state.lock().leases.queue_again(key, task);
        self.waiters.call_waits();
    }

    /// Handles the loss of a process that ran calls of this one, or of a link to it. The calls fail or are sent again
    /// when the process has ended: until then it may begin one of them.
    pub(crate) fn on_worker_gone(&self, link: &Arc<Link>) {
        let (any, lease) = {
            let mut state = self.state.lock();
            if state.links.get(&link.peer).is_some_and(|other| other.id == link.id) {
                state.links.remove(&link.peer);
            }
            let is_leased = state.leases.worker(link.peer).is_some_and(|worker| worker.link.id == link.id);
            let lease = if is_leased { state.leases.gone(link.peer) } else { None };
            self.has_leases.store(!state.leases.is_empty(), Ordering::Release);
            // The calls of actors stay: the head says what became of the actor.
            let calls = state.running.extract_if(|_, running| {
                running.link == link.id && matches!(running.task.target, Target::Function { .. })
            });
            let calls: Vec<_> = calls.map(|(_, running)| running).collect();
            let any = !calls.is_empty();
            if any {
                self.promised(calls.len());
                let pid = lease.as_ref().map_or(0, |worker| worker.pid);
                let dying = Dying { link: link.clone(), pid, calls };
                state.dying.entry(link.peer).or_default().push(dying);
            }
            (any, lease)
        };
        self.on_actors_lost(link);
        // This comes before the end of the lease, so that the head leases the process to no caller, nor to this one
        // again.
        if any {
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

    /// Handles the end of a process. Calls that had not begun are sent to another process, and so are calls that may be
    /// retried.
    pub(super) fn on_died(&self, process: OwnerId, reason: ExitReason) {
        let dying = self.state.lock().dying.remove(&process).unwrap_or_default();
        for dying in dying {
            self.on_calls_lost(dying, reason);
        }
        self.send_ready();
    }

    fn on_calls_lost(&self, dying: Dying, reason: ExitReason) {
        let Dying { link, pid, mut calls } = dying;
        let begun = link.begun();
        calls.sort_unstable_by_key(|running| running.number);
        let (again, lost): (Vec<_>, Vec<_>) =
            calls.into_iter().partition(|Running { task, number, .. }| {
                (*number > begun && task.may_be_sent_again()) || task.may_retry(task.max_retries)
            });
        for Running { task, .. } in again.into_iter().rev() {
            if let Target::Function { key, .. } = task.target {
                self.state.lock().leases.queue_again(key, task);
            }
        }
        for Running { task, .. } in lost {
            self.settled(1);
            self.settle_all(&task, &Failure::WorkerDied { function: task.target.name(), pid, reason });
        }
    }
}
