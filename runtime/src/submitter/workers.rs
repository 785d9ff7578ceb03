//! Workers on lease, and what the head says.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mobula_client::OwnerId;

use super::{Answer, Books, LEASE_KEPT, Lease, WANT_MAX};
use crate::core::Core;
use crate::link::Link;
use crate::message::{self, FoundActor, FromHead, ReservedActor, ToHead};

impl Core {
    /// A record from the head.
    pub(crate) fn on_head(self: &Arc<Self>, record: &[u8]) {
        let record = match message::read(record) {
            Ok(record) => record,
            Err(error) => {
                tracing::error!(%error, "a record of the head's that cannot be read");
                if let Some(head) = self.head() {
                    head.close();
                }
                return;
            }
        };
        match record {
            FromHead::Granted { worker, pid } => self.on_granted(worker, pid),
            FromHead::NoWorkers { failure } => {
                let ready = {
                    let mut books = self.submitter.books.lock();
                    books.wanted = 0;
                    std::mem::take(&mut books.ready)
                };
                for task in ready {
                    self.fail_unsent(&task, &failure);
                }
            }
            FromHead::Recall { worker } => self.recall(worker),
            FromHead::ActorReserved { request, result } => {
                let held =
                    result.and_then(|ReservedActor { actor, token }| Ok((actor, self.client.hold(token)?)));
                self.submitter.books.lock().requests.insert(request, Answer::Reserved(held));
            }
            FromHead::ActorFound { request, actor } => {
                let found = actor.and_then(|FoundActor { actor, token, class, class_name }| {
                    Some((actor, class, class_name, self.client.hold(token).ok()?))
                });
                self.submitter.books.lock().requests.insert(request, Answer::Found(found));
            }
            FromHead::ActorAt { actor, process } => self.on_actor_at(actor, process),
            FromHead::ActorRestarts { actor, pid, cause, max_task_retries } => {
                self.on_actor_restarts(actor, pid, cause, max_task_retries);
            }
            FromHead::ActorOver { actor, pid, failure } => self.on_actor_over(actor, pid, &failure),
            FromHead::Construct { actor, class, arguments, payloads } => {
                if let Some(executor) = &self.executor {
                    executor.on_construct(actor, class, arguments, payloads);
                }
            }
            FromHead::Exit => {
                if let Some(executor) = &self.executor {
                    executor.stop();
                }
            }
        }
    }

    pub(super) fn tell_wants(&self, books: &mut Books) {
        let wanted = books.ready.len().min(WANT_MAX);
        if wanted == books.wanted || wanted < books.wanted && wanted > 0 {
            return;
        }
        books.wanted = wanted;
        if let Some(head) = self.head() {
            let _ = head.send(&ToHead::Want { workers: wanted as u32 }, Vec::new());
        }
    }

    pub(super) fn on_granted(self: &Arc<Self>, worker: OwnerId, pid: u32) {
        let link = self.link_to(worker);
        let mut books = self.submitter.books.lock();
        books.wanted = books.wanted.saturating_sub(1);
        // A link that closes from here on finds the lease; one that has closed before must not get one.
        match link.filter(|link| !link.is_closed()) {
            Some(link) => {
                let idle_since = Instant::now();
                let lease = Lease { link, pid, in_flight: 0, paused: false, recalled: false, idle_since };
                books.leases.insert(worker, lease);
                self.submitter.has_leases.store(true, Ordering::Release);
                drop(books);
                self.wake_courier();
                self.send_ready();
            }
            None => {
                drop(books);
                self.return_worker(worker);
                self.send_ready();
            }
        }
    }

    /// The link to a process that runs calls; opened the first time.
    pub(super) fn link_to(self: &Arc<Self>, process: OwnerId) -> Option<Arc<Link>> {
        // One at a time: a second channel to one process would stay, and nobody would use it.
        let connecting = self.submitter.connecting.lock();
        if let Some(link) = self.submitter.books.lock().links.get(&process) {
            return Some(link.clone());
        }
        let channel = self.client.connect_to(process).inspect_err(|error| {
            tracing::debug!(%process, %error, "a process was gone before a call reached it");
        });
        let link = Arc::new(Link::new(channel.ok()?, false));
        // Before it is added: if it has closed by then, it is taken off the books again.
        self.submitter.books.lock().links.insert(process, link.clone());
        drop(connecting);
        self.add_link(link.clone());
        Some(link)
    }

    pub(super) fn return_worker(&self, worker: OwnerId) {
        if let Some(head) = self.head() {
            let _ = head.send(&ToHead::Return { worker }, Vec::new());
        }
    }

    /// Another process of the session has no worker at all: this one goes back as soon as it is done.
    pub(super) fn recall(&self, worker: OwnerId) {
        let mut books = self.submitter.books.lock();
        if let Some(lease) = books.leases.get_mut(&worker) {
            lease.recalled = true;
        }
        drop(books);
        self.return_idle_workers();
    }

    /// Gives back workers that have had nothing to do for a while, or that the head wants back.
    pub(crate) fn return_idle_workers(&self) {
        let mut books = self.submitter.books.lock();
        let now = Instant::now();
        let idle = books.leases.extract_if(|_, lease| {
            lease.in_flight == 0 && (lease.recalled || now.duration_since(lease.idle_since) >= LEASE_KEPT)
        });
        let idle: Vec<_> = idle.map(|(worker, _)| worker).collect();
        self.submitter.has_leases.store(!books.leases.is_empty(), Ordering::Release);
        drop(books);
        for worker in idle {
            self.return_worker(worker);
        }
    }
}
