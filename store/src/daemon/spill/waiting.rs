//! Clients that wait for spilled objects of other owners.
//!
//! A client that wants a spilled object asks the daemon. The daemon asks a living owner to restore it; the objects of a
//! dead owner it [restores](crate::daemon::orphans::restore) itself. If there is no memory to restore an object into,
//! the client reads it from the file.

use std::collections::HashSet;
use std::time::Instant;

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{Notice, Refusal, Reply};
use mobula_shm::table::State;

use crate::core::waiters::Waiters;
use crate::daemon::answer::{Answer, Outcome, Patient, bad_request};
use crate::daemon::registry::Registry;
use crate::daemon::registry::owner::Owner;

/// The requests that wait, and the objects that living owners have been asked for.
#[derive(Debug)]
pub(crate) struct RestoreRequests {
    waiters: Waiters<ObjectId>,
    asked: HashSet<ObjectId>,
}

impl RestoreRequests {
    pub(crate) fn new() -> Self {
        Self { waiters: Waiters::new(), asked: HashSet::new() }
    }

    /// Lets a client wait until an object of another owner is back in memory. The second value is `true` if the daemon
    /// must restore the object itself.
    pub(crate) fn wait(
        &mut self,
        registry: &mut Registry,
        request: Patient,
        object: ObjectId,
    ) -> Result<(Answer, bool), Refusal> {
        let slot = object.owner().slot();
        if slot == request.client {
            return Err(bad_request("Restore of an object of one's own"));
        }
        let Some(owner) = spilled(registry, request.client, object)? else {
            return Ok((Answer::Now(Reply::Done {}, Vec::new()), false));
        };
        let is_alive = owner.is_alive();
        // Remaining objects that are not taken over yet are restored when they are.
        let is_taken_over = owner.remaining.as_ref().is_some_and(|remaining| remaining.is_taken_over());
        self.waiters.push(request.waits_for(object)?);
        if is_alive && self.asked.insert(object) {
            registry.notify(slot, &Notice::RestoreWanted { object }, Vec::new());
        }
        Ok((Answer::Later, is_taken_over))
    }

    /// An owner has restored an object of its own, or could not.
    pub(crate) fn restored(
        &mut self,
        registry: &mut Registry,
        client: u16,
        object: ObjectId,
        refusal: Option<Refusal>,
    ) -> Outcome {
        if object.owner() != registry.owners[&client].id {
            return Err(bad_request("Restored for an object of another owner"));
        }
        self.asked.remove(&object);
        self.answer(registry, object, refusal);
        Answer::done()
    }

    /// Answers every client that waits for an object.
    pub(crate) fn answer(&mut self, registry: &mut Registry, object: ObjectId, refusal: Option<Refusal>) {
        let reply = match refusal {
            None => Reply::Done {},
            // Another client's words must not look as if this client's connection ended.
            Some(Refusal::BadRequest { reason }) => {
                Reply::Failed { refusal: Refusal::NotRestored { object, reason } }
            }
            Some(refusal) => Reply::Failed { refusal },
        };
        while let Some(ticket) = self.waiters.first(|_, waiter| waiter.wants == object) {
            let Some(waiter) = self.waiters.take(ticket) else { break };
            registry.reply(waiter.client, waiter.correlation, &reply, Vec::new());
        }
    }

    /// Answers the requests whose deadline has passed.
    pub(crate) fn expire(&mut self, registry: &mut Registry, now: Instant) {
        while let Some((_, waiter)) = self.waiters.expired(now) {
            let object = waiter.wants;
            let is_alive = registry.owner(object.owner()).is_some_and(Owner::is_alive);
            let reason =
                if is_alive { "its owner did not do it in time" } else { "no memory came free in time" };
            let refusal = Refusal::NotRestored { object, reason: reason.to_owned() };
            registry.reply(waiter.client, waiter.correlation, &Reply::Failed { refusal }, Vec::new());
        }
    }

    /// How many requests of a client wait.
    pub(crate) fn count(&self, client: u16) -> usize {
        self.waiters.count(client)
    }

    /// Whether any client waits for an object.
    pub(crate) fn is_waited_for(&self, object: ObjectId) -> bool {
        self.waiters.first(|_, waiter| waiter.wants == object).is_some()
    }

    /// The objects of an owner that clients wait for.
    pub(crate) fn waited_for(&self, owner: OwnerId) -> Vec<ObjectId> {
        let wanted = self.waiters.iter().map(|(_, waiter)| waiter.wants);
        wanted.filter(|object| object.owner() == owner).collect()
    }

    /// A client has died: it no longer waits or restores.
    pub(crate) fn forget(&mut self, client: u16, id: OwnerId) {
        self.waiters.forget(client);
        self.asked.retain(|object| object.owner() != id);
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.waiters.next_deadline()
    }
}

/// Lets a client read the file in which an object of another owner is.
pub(crate) fn open(registry: &Registry, client: u16, object: ObjectId) -> Outcome {
    let Some(owner) = spilled(registry, client, object)? else { return Answer::done() };
    let slot = object.owner().slot();
    let place = owner.view.spill_location(object.index());
    let opened =
        place.and_then(|place| Some((registry.spill_files.to_read(slot, place.file())?, place.offset())));
    let Some(((file, _), offset)) = opened else {
        // It was restored between the two looks.
        if owner.state_of(object.index(), object.generation()) != Some(State::Spilled) {
            return Answer::done();
        }
        let reason = "its file cannot be opened".to_owned();
        return Err(Refusal::NotRestored { object, reason });
    };
    Ok(Answer::Now(Reply::SpillFileOpened { offset }, vec![file]))
}

/// The owner of a spilled object to which a client is attached. `None` when the object is in memory again, or is about
/// to be sealed or spilled: the client looks again.
fn spilled(registry: &Registry, client: u16, object: ObjectId) -> Result<Option<&Owner>, Refusal> {
    let owner = registry.owner(object.owner());
    let Some(owner) = owner.filter(|_| registry.slots.is_attached(client, object.owner().slot())) else {
        return Err(Refusal::NoSuchObject { object });
    };
    match owner.state_of(object.index(), object.generation()) {
        Some(State::Spilled) => Ok(Some(owner)),
        Some(State::Sealed | State::Dying | State::Deleted) => Ok(None),
        _ => Err(Refusal::NoSuchObject { object }),
    }
}
