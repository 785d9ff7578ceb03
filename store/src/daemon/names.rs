//! Names of objects, and the daemon's own pins that names and adopted references are made of.
//!
//! A name is found only while its object exists: each lookup checks, and drops a name whose object is gone.

use std::collections::BTreeSet;
use std::time::Instant;

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::{NAME_BYTES_MAX, Refusal, Reply};
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::pins::HELD;
use mobula_shm::table::State;

use super::{Answer, Daemon, Outcome, bad_request, limit_reached};
use crate::core::waiters::{Waiter, Waiters, deadline};
use crate::memory::no_memory;

const _: () = assert!(NAME_BYTES_MAX == mobula_shm::names::NAME_BYTES_MAX);
const _: () = assert!(ObjectId::BYTES == mobula_shm::names::OBJECT_BYTES);

/// Clients that wait for names which nobody has published yet.
#[derive(Debug)]
pub(crate) struct Lookups {
    waiters: Waiters<Vec<u8>>,
    by_name: BTreeSet<(Vec<u8>, u64)>,
}

impl Lookups {
    pub(crate) fn new() -> Self {
        Self { waiters: Waiters::new(), by_name: BTreeSet::new() }
    }

    pub(crate) fn count(&self, client: u16) -> usize {
        self.waiters.count(client)
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.waiters.next_deadline()
    }

    pub(crate) fn forget(&mut self, client: u16) {
        for (ticket, waiter) in self.waiters.forget(client) {
            self.by_name.remove(&(waiter.wants, ticket));
        }
    }

    fn push(&mut self, waiter: Waiter<Vec<u8>>) {
        let name = waiter.wants.clone();
        let ticket = self.waiters.push(waiter);
        self.by_name.insert((name, ticket));
    }

    fn take(&mut self, name: &[u8]) -> Vec<Waiter<Vec<u8>>> {
        let range = (name.to_vec(), 0)..=(name.to_vec(), u64::MAX);
        let tickets: Vec<_> = self.by_name.range(range).cloned().collect();
        tickets
            .into_iter()
            .filter_map(|entry| {
                self.by_name.remove(&entry);
                self.waiters.take(entry.1)
            })
            .collect()
    }

    fn expired(&mut self, now: Instant) -> Option<Waiter<Vec<u8>>> {
        let (ticket, waiter) = self.waiters.expired(now)?;
        self.by_name.remove(&(waiter.wants.clone(), ticket));
        Some(waiter)
    }
}

impl Daemon {
    /// Gives an object a name, and with it a hold.
    pub(crate) fn publish(&mut self, name: Vec<u8>, object: ObjectId, now: Instant) -> Outcome {
        if name.is_empty() {
            return Err(bad_request("an empty name"));
        }
        check_length(&name)?;
        match self.find(&name, now) {
            Some(known) if known == object => return Answer::done(),
            Some(known) => return Err(Refusal::NameTaken { object: known }),
            None => {}
        }
        if self.names.count() >= self.config.names_max {
            return Err(limit_reached("names_max", self.config.names_max as u64));
        }
        if !self.hold(object) {
            return Err(Refusal::NoSuchObject { object });
        }
        if let Err(error) = self.control.allocate_name(self.config.slots(), self.names.next_place()) {
            self.let_go(object, now);
            return Err(no_memory(NAME_BYTES_MAX as u64, &error));
        }
        self.name_records.store(self.names.next_place(), &name, object.to_bytes());
        failpoint(Failpoint::NameStored);
        for waiter in self.lookups.take(&name) {
            self.reply(waiter.client, waiter.correlation, &Reply::Found { object }, Vec::new());
        }
        self.names.insert(name, object);
        Answer::done()
    }

    /// Finds the object of a name, now or as soon as somebody publishes it.
    pub(crate) fn lookup(
        &mut self,
        client: u16,
        correlation: u64,
        name: Vec<u8>,
        timeout_ms: u64,
        now: Instant,
    ) -> Outcome {
        check_length(&name)?;
        if let Some(object) = self.find(&name, now) {
            self.names.touch(&name);
            return Ok(Answer::Now(Reply::Found { object }, Vec::new()));
        }
        if timeout_ms == 0 || name.is_empty() {
            return Err(Refusal::NoSuchName {});
        }
        self.check_waiters(client)?;
        self.lookups.push(Waiter { client, correlation, deadline: deadline(now, timeout_ms), wants: name });
        Ok(Answer::Later)
    }

    /// Takes a name away.
    pub(crate) fn unpublish(&mut self, name: &[u8], now: Instant) -> Outcome {
        if self.drop_name(name, now) { Answer::done() } else { Err(Refusal::NoSuchName {}) }
    }

    /// Answers those who have waited long enough for a name.
    pub(crate) fn expire_lookups(&mut self, now: Instant) {
        while let Some(waiter) = self.lookups.expired(now) {
            let refusal = Refusal::NoSuchName {};
            self.reply(waiter.client, waiter.correlation, &Reply::Failed { refusal }, Vec::new());
        }
    }

    /// Takes a name away and lets its object go; `false` when there is no such name.
    pub(crate) fn drop_name(&mut self, name: &[u8], now: Instant) -> bool {
        let Some(object) = self.forget_name(name) else { return false };
        self.let_go(object, now);
        true
    }

    /// The same, and leaves what holds the object to the caller.
    pub(crate) fn forget_name(&mut self, name: &[u8]) -> Option<ObjectId> {
        let (object, place) = self.names.remove(name)?;
        self.name_records.clear(place);
        Some(object)
    }

    /// Whether an object can be had, or will be.
    pub(crate) fn exists(&self, object: ObjectId) -> bool {
        let owner = self.owners.get(&object.owner().slot()).filter(|owner| owner.id == object.owner());
        let state = owner.and_then(|owner| owner.state_of(object.index(), object.generation()));
        // `Dying`: its owner is looking for pins. If it has looked already, then nobody held the object when we pinned
        // it, and whoever uses the hold notices that the object is gone; else it finds our pin and puts `Sealed` back.
        matches!(state, Some(State::Sealed | State::Promised | State::Spilled | State::Dying))
    }

    /// Pins an object in the daemon's own name: a reader's side of the handshake. `false` when it does not exist.
    pub(crate) fn hold(&mut self, object: ObjectId) -> bool {
        let (id, index) = (object.owner(), object.index());
        let Some(owner) = self.owners.get(&id.slot()).filter(|owner| owner.id == id) else { return false };
        if index >= owner.entries {
            return false;
        }
        if self.holds.add(id, index) {
            owner.daemon_pins.set(index, HELD);
            failpoint(Failpoint::HoldPinned);
        }
        let exists = self.exists(object);
        if !exists {
            self.unpin(object);
        }
        exists
    }

    /// Takes back what `hold` gave.
    pub(crate) fn let_go(&mut self, object: ObjectId, now: Instant) {
        self.unpin(object);
        let owner = self.owners.get(&object.owner().slot());
        if owner.is_some_and(|owner| owner.id == object.owner() && !owner.is_alive()) {
            self.sweep.run_soon(now);
        }
    }

    fn unpin(&mut self, object: ObjectId) {
        let (id, index) = (object.owner(), object.index());
        if self.holds.remove(id, index)
            && let Some(owner) = self.owners.get(&id.slot()).filter(|owner| owner.id == id)
        {
            owner.daemon_pins.clear(index);
            failpoint(Failpoint::HoldCleared);
        }
    }

    /// The object of a name; a name whose object is gone goes as well.
    fn find(&mut self, name: &[u8], now: Instant) -> Option<ObjectId> {
        let object = self.names.get(name)?;
        if self.exists(object) {
            return Some(object);
        }
        self.drop_name(name, now);
        None
    }
}

fn check_length(name: &[u8]) -> Result<(), Refusal> {
    if name.len() > NAME_BYTES_MAX {
        return Err(limit_reached("name_bytes_max", NAME_BYTES_MAX as u64));
    }
    Ok(())
}
