//! Names of objects: publish, lookup, unpublish, watch.
//!
//! A name keeps its object by the daemon's own pin. A name is found only while its object exists: each lookup checks,
//! and removes a name whose object is gone. The records of the names lie in the daemon's control memory, for the next
//! daemon.

use std::io;
use std::time::Instant;

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{NAME_BYTES_MAX, Refusal, Reply};
use mobula_shm::control::control_bytes;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::names::NameRecords;

use crate::core::names::Names;
use crate::daemon::answer::{Answer, Outcome, Patient, bad_request, limit_reached, no_memory};
use crate::daemon::registry::Registry;

mod lookups;
mod watchers;

use lookups::Lookups;
use watchers::Watchers;

const _: () = assert!(NAME_BYTES_MAX == mobula_shm::names::NAME_BYTES_MAX);
const _: () = assert!(ObjectId::BYTES == mobula_shm::names::OBJECT_BYTES);

/// The names, and the clients that wait for names.
pub(crate) struct NamedObjects {
    names: Names,
    /// The names for the daemon after this one.
    records: NameRecords,
    lookups: Lookups,
    watchers: Watchers,
}

impl NamedObjects {
    /// No names yet; records may be there from the daemon before.
    pub(crate) fn new(registry: &Registry) -> io::Result<Self> {
        let (start, max) = (control_bytes(registry.config.slots()), registry.config.names_max as u32);
        let records = NameRecords::map(registry.control.writable(), start, max)?;
        Ok(Self { names: Names::default(), records, lookups: Lookups::new(), watchers: Watchers::default() })
    }

    /// The names and their order of use.
    pub(crate) fn known(&self) -> &Names {
        &self.names
    }

    /// Gives an object a name, which holds it.
    pub(crate) fn publish(&mut self, registry: &mut Registry, name: Vec<u8>, object: ObjectId) -> Outcome {
        if name.is_empty() {
            return Err(bad_request("an empty name"));
        }
        check_length(&name)?;
        match self.find(registry, &name) {
            Some(known) if known == object => return Answer::done(),
            Some(known) => return Err(Refusal::NameTaken { object: known }),
            None => {}
        }
        let max = registry.config.names_max;
        if self.names.count() >= max {
            return Err(limit_reached("names_max", max as u64));
        }
        if !registry.hold(object) {
            return Err(Refusal::NoSuchObject { object });
        }
        let place = self.names.next_place();
        if let Err(error) = registry.control.allocate_name(registry.config.slots(), place) {
            registry.let_go(object);
            return Err(no_memory(NAME_BYTES_MAX as u64, &error));
        }
        self.records.store(place, &name, object.to_bytes());
        failpoint(Failpoint::NameStored);
        for waiter in self.lookups.take(&name) {
            registry.reply(waiter.client, waiter.correlation, &Reply::Found { object }, Vec::new());
        }
        self.names.insert(name.clone(), object);
        self.watchers.name_given(registry, &self.names, name, object);
        Answer::done()
    }

    /// Finds the object of a name, now or as soon as a client publishes it.
    pub(crate) fn lookup(&mut self, registry: &mut Registry, request: Patient, name: Vec<u8>) -> Outcome {
        check_length(&name)?;
        if let Some(object) = self.find(registry, &name) {
            self.names.touch(&name);
            return Ok(Answer::Now(Reply::Found { object }, Vec::new()));
        }
        if request.timeout_ms == 0 || name.is_empty() {
            return Err(Refusal::NoSuchName {});
        }
        self.lookups.push(request.waits_for(name)?);
        Ok(Answer::Later)
    }

    /// Removes a name.
    pub(crate) fn unpublish(&mut self, registry: &mut Registry, name: &[u8]) -> Outcome {
        if self.remove(registry, name) { Answer::done() } else { Err(Refusal::NoSuchName {}) }
    }

    /// From now on a client is told of each change.
    pub(crate) fn watch(&mut self, client: u16) -> Outcome {
        self.watchers.add(client);
        Answer::done()
    }

    /// Tells the clients that watch what has changed since this was called last.
    pub(crate) fn tell_watchers(&mut self, registry: &mut Registry) {
        self.watchers.tell(registry);
    }

    /// Answers the lookups whose deadline has passed.
    pub(crate) fn expire(&mut self, registry: &mut Registry, now: Instant) {
        while let Some(waiter) = self.lookups.expired(now) {
            let refusal = Refusal::NoSuchName {};
            registry.reply(waiter.client, waiter.correlation, &Reply::Failed { refusal }, Vec::new());
        }
    }

    pub(crate) fn next_deadline(&self) -> Option<Instant> {
        self.lookups.next_deadline()
    }

    /// How many lookups of a client wait.
    pub(crate) fn waiting(&self, client: u16) -> usize {
        self.lookups.count(client)
    }

    /// A client has died: its lookups end.
    pub(crate) fn client_died(&mut self, client: u16) {
        self.lookups.forget(client);
        self.watchers.forget(client);
    }

    /// Removes a name and lets its object go; `false` when there is no such name.
    pub(crate) fn remove(&mut self, registry: &mut Registry, name: &[u8]) -> bool {
        let Some(object) = self.forget(name) else { return false };
        registry.let_go(object);
        true
    }

    /// Removes those names of an owner's objects whose objects are gone.
    pub(crate) fn remove_lost(&mut self, registry: &mut Registry, owner: OwnerId) {
        for (name, object) in self.names.of_owner(owner) {
            if !registry.exists(object) {
                self.remove(registry, &name);
            }
        }
    }

    /// Removes all names of an owner that is forgotten, whose objects are not held any more.
    pub(crate) fn forget_owner(&mut self, owner: OwnerId) {
        for (name, _) in self.names.of_owner(owner) {
            self.forget(&name);
        }
    }

    /// Notes that names were used, so that they are not the least recently used ones.
    pub(crate) fn touch<'a>(&mut self, names: impl Iterator<Item = &'a Vec<u8>>) {
        names.for_each(|name| self.names.touch(name));
    }

    /// Takes over the names of the previous daemon, if their objects still exist.
    pub(crate) fn resume(&mut self, registry: &mut Registry) {
        for place in 0..self.records.used() {
            let Some((name, object)) = self.records.load(place) else { continue };
            let object = ObjectId::from_bytes(object);
            if self.names.get(&name).is_none() && registry.hold(object) {
                self.names.insert_at(place, name, object);
            } else {
                self.records.clear(place);
            }
        }
    }

    /// Removes a name; its object stays held, and is returned.
    fn forget(&mut self, name: &[u8]) -> Option<ObjectId> {
        let (object, place) = self.names.remove(name)?;
        self.records.clear(place);
        self.watchers.name_removed(name);
        Some(object)
    }

    /// The object of a name. A name whose object is gone is removed.
    fn find(&mut self, registry: &mut Registry, name: &[u8]) -> Option<ObjectId> {
        let object = self.names.get(name)?;
        if registry.exists(object) {
            return Some(object);
        }
        self.remove(registry, name);
        None
    }
}

fn check_length(name: &[u8]) -> Result<(), Refusal> {
    if name.len() > NAME_BYTES_MAX {
        return Err(limit_reached("name_bytes_max", NAME_BYTES_MAX as u64));
    }
    Ok(())
}
