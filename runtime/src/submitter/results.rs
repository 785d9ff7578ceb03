//! What comes back: results, refusals, and the news that a process is gone.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use bytes::Bytes;

use super::Running;
use crate::core::Core;
use crate::error::{Failure, Result};
use crate::link::Link;
use crate::message::{Payload, ToCaller, ToHead};
use crate::slot::{Inline, Settled, Slot};
use crate::task::{Target, Task};

impl Core {
    /// A record from a worker or actor that runs calls of this process.
    pub(crate) fn on_results(self: &Arc<Self>, link: &Arc<Link>, record: &[u8]) {
        match postcard::from_bytes(record) {
            Ok(ToCaller::Results { task, first, results, ran_nanos }) => {
                let results = results.into_iter().map(|payload| self.settled_from(payload)).collect();
                self.on_some_results(link, task, first, results, ran_nanos);
            }
            Ok(ToCaller::Failed { task, failure, ran_nanos }) => {
                if let Some(running) = self.end_call(link, task, Some(ran_nanos)) {
                    self.settle_all(&running.task, &failure);
                }
            }
            Ok(ToCaller::Declined { task }) => {
                if let Some(running) = self.end_call(link, task, None) {
                    self.submitter.promised(1);
                    let mut books = self.submitter.books.lock();
                    books.ready.push_front(running.task);
                    if let Some(lease) = books.leases.get_mut(&link.peer) {
                        lease.paused = true;
                        // It is busy with what others asked of it: its place is better used elsewhere.
                        lease.recalled |= lease.in_flight == 0;
                    }
                    drop(books);
                    self.return_idle_workers();
                }
            }
            Err(error) => {
                tracing::error!(peer = %link.peer, %error, "a record that cannot be read");
                return;
            }
        }
        self.send_ready();
    }

    fn on_some_results(
        self: &Arc<Self>,
        link: &Arc<Link>,
        task: u64,
        first: u32,
        results: Vec<Settled>,
        ran_nanos: Option<u64>,
    ) {
        let running = {
            let books = self.submitter.books.lock();
            let Some(running) = books.running.get(&task).filter(|running| running.link == link.id) else {
                return;
            };
            running.task.clone()
        };
        for (slot, settled) in running.results.iter().skip(first as usize).zip(results) {
            self.settle(slot, settled);
        }
        if ran_nanos.is_some() && self.end_call(link, task, ran_nanos).is_some() {
            // A worker that says it is done without having sent every result leaves none pending.
            let missing = Failure::Other(format!("{} sent too few results", running.target.name()));
            self.settle_all(&running, &missing);
        }
    }

    /// A result as it came; the objects that it names are held from here on.
    pub(super) fn settled_from(&self, payload: Payload<'_>) -> Settled {
        let held = match payload {
            Payload::Stored(object) => self.client.hold(object).map(Settled::Stored),
            Payload::Inline { bytes, references } => {
                let handles = references.into_iter().map(|object| self.client.hold(object));
                handles.collect::<Result<Vec<_>, _>>().map(|references| {
                    Settled::Inline(Inline { bytes: Bytes::copy_from_slice(bytes), references })
                })
            }
        };
        held.unwrap_or_else(|error| Settled::Failed(error.into()))
    }

    /// Takes a call off the books; its worker has room again.
    pub(super) fn end_call(&self, link: &Link, task: u64, ran_nanos: Option<u64>) -> Option<Running> {
        let mut books = self.submitter.books.lock();
        if books.running.get(&task).is_none_or(|running| running.link != link.id) {
            return None;
        }
        let running = books.running.remove(&task)?;
        if let Some(lease) = books.leases.get_mut(&running.on) {
            lease.in_flight = lease.in_flight.saturating_sub(1);
            lease.idle_since = Instant::now();
            lease.paused &= ran_nanos.is_none();
        }
        if let (Target::Function { key, .. }, Some(nanos)) = (&running.task.target, ran_nanos) {
            let seen = books.run_nanos.entry(*key).or_insert(nanos);
            *seen = (*seen * 7 + nanos) / 8;
        }
        Some(running)
    }

    pub(super) fn settle(self: &Arc<Self>, slot: &Slot, settled: Settled) {
        let (dependents, promised) = slot.settle(&self.client, settled);
        if promised {
            self.submitter.settled(1);
        }
        for task in dependents {
            self.one_argument_ready(&task);
        }
    }

    pub(super) fn settle_all(self: &Arc<Self>, task: &Task, failure: &Failure) {
        for slot in &task.results {
            self.settle(slot, Settled::Failed(failure.clone()));
        }
        self.announce();
    }

    pub(super) fn fail_unsent(self: &Arc<Self>, task: &Arc<Task>, failure: &Failure) {
        self.submitter.settled(1);
        if let Target::Constructor { actor, .. } = task.target
            && let Some(head) = self.head()
        {
            let _ = head.send(&ToHead::AbandonActor { actor, failure: failure.clone() }, Vec::new());
        }
        self.settle_all(task, failure);
        if let Target::Method { actor, .. } = task.target {
            self.send_to_actor(actor);
        }
    }

    /// A process that ran calls of this one is gone (or a link to it is).
    pub(crate) fn on_worker_gone(self: &Arc<Self>, link: &Arc<Link>) {
        let (again, lost, pid) = {
            let mut books = self.submitter.books.lock();
            if books.links.get(&link.peer).is_some_and(|other| other.id == link.id) {
                books.links.remove(&link.peer);
            }
            let pid = books.leases.remove(&link.peer).map_or(0, |lease| lease.pid);
            self.submitter.has_leases.store(!books.leases.is_empty(), Ordering::Release);
            // What became of an actor, and so of its calls, the head will say.
            let lost = books.running.extract_if(|_, running| {
                running.link == link.id && matches!(running.task.target, Target::Function { .. })
            });
            let (again, lost): (Vec<_>, Vec<_>) = lost
                .map(|(_, running)| running.task)
                .partition(|task| task.retries_left.load(Ordering::Relaxed) > 0);
            (again, lost, pid)
        };
        for task in again {
            task.retries_left.fetch_sub(1, Ordering::Relaxed);
            self.submitter.promised(1);
            self.submitter.books.lock().ready.push_front(task);
        }
        for task in lost {
            let how = "its process ended during the call, or with the call in its queue".to_owned();
            self.settle_all(&task, &Failure::WorkerDied { function: task.target.name(), pid, how });
        }
        self.send_ready();
    }
}
