//! Random operations of a few clients of one store, against a simple model. The model knows which client may read which
//! object, and which objects are promised, lost, deleted or named. Nothing may be left when all clients have let go.
#![no_main]

use libfuzzer_sys::arbitrary::{self, Arbitrary};
use libfuzzer_sys::fuzz_target;
use mobula_client::{Client, ClientError, Handle, Layout, Object, ObjectId, Promise, Refusal};
use mobula_fuzz::store::{observer, socket};
use mobula_protocol::message::Request;

const OPERATIONS_MAX: usize = 100;
const CLIENTS: usize = 2;

// `seeds.rs` knows these in their order, with the bytes of their fields.
#[derive(Debug, Arbitrary)]
enum Operation {
    Put {
        client: bool,
        length: u16,
        keeps: u8,
    },
    Promise {
        client: bool,
    },
    Fulfil {
        reference: u8,
        length: u16,
        keeps: u8,
    },
    Get {
        client: bool,
        object: u8,
    },
    Hold {
        client: bool,
        object: u8,
    },
    ReadHeld {
        reference: u8,
    },
    Clone {
        reference: u8,
    },
    Drop {
        reference: u8,
    },
    Delete {
        client: bool,
        object: u8,
    },
    Publish {
        client: bool,
        name: bool,
        object: u8,
    },
    Lookup {
        client: bool,
        name: bool,
    },
    Unpublish {
        client: bool,
        name: bool,
    },
    ReleaseUnused {
        client: bool,
    },
    /// Everything that a client has is gone, and another one comes.
    Replace {
        client: bool,
    },
    Count,
}

/// An object as the model knows it.
struct Truth {
    id: ObjectId,
    state: State,
    deleted: bool,
    keeps: Option<usize>,
    /// Its owner is the same client still.
    owner_lives: bool,
    owner: usize,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum State {
    Promised,
    Sealed { length: usize },
    Lost,
}

/// A client's use of an object.
enum Reference {
    Bytes(Object),
    Handle(Handle),
    Promise(Promise),
}

struct World {
    clients: [Client; CLIENTS],
    truths: Vec<Truth>,
    /// With the client's and the object's place.
    references: Vec<(usize, usize, Reference)>,
    names: [Option<usize>; 2],
}

fn connect() -> Client {
    Client::connect(socket()).expect("a client")
}

fuzz_target!(|operations: Vec<Operation>| {
    let mut world = World {
        clients: [connect(), connect()],
        truths: Vec::new(),
        references: Vec::new(),
        names: [None; 2],
    };
    for operation in operations.iter().take(OPERATIONS_MAX) {
        world.run(operation);
    }
    world.end();
});

impl World {
    fn run(&mut self, operation: &Operation) {
        match *operation {
            Operation::Put { client, length, keeps } => {
                let client = usize::from(client);
                let (object, keeps) = self.write(client, length, keeps);
                let id = object.id();
                self.truths.push(Truth {
                    id,
                    state: State::Sealed { length: length.into() },
                    deleted: false,
                    keeps,
                    owner_lives: true,
                    owner: client,
                });
                self.references.push((client, self.truths.len() - 1, Reference::Bytes(object)));
            }
            Operation::Promise { client } => {
                let owner = usize::from(client);
                let promise = self.clients[owner].promise().expect("room for an entry");
                let id = promise.handle().id();
                let state = State::Promised;
                self.truths.push(Truth { id, state, deleted: false, keeps: None, owner_lives: true, owner });
                self.references.push((owner, self.truths.len() - 1, Reference::Promise(promise)));
            }
            Operation::Fulfil { reference, length, keeps } => self.fulfil(reference, length, keeps),
            Operation::Get { client, object } => {
                if let Some(place) = self.any(object) {
                    let result = self.clients[usize::from(client)].get(self.truths[place].id);
                    self.check(place, usize::from(client), &result.as_ref().map(Some));
                    self.references
                        .extend(result.ok().map(|it| (usize::from(client), place, Reference::Bytes(it))));
                }
            }
            Operation::Hold { client, object } => {
                if let Some(place) = self.any(object) {
                    let result = self.clients[usize::from(client)].hold(self.truths[place].id);
                    self.check(place, usize::from(client), &result.as_ref().map(|_| None));
                    self.references
                        .extend(result.ok().map(|it| (usize::from(client), place, Reference::Handle(it))));
                }
            }
            Operation::ReadHeld { reference } => {
                if let Some((_, place, Reference::Handle(handle))) = self.reference(reference) {
                    let (place, result) = (*place, handle.object());
                    match self.truths[place].state {
                        State::Sealed { length } => self.check_bytes(place, &result.expect("held"), length),
                        State::Promised if !self.truths[place].owner_lives => assert!(result.is_err()),
                        State::Promised => {
                            assert!(matches!(result, Err(ClientError::NotReady { .. })), "{result:?}");
                        }
                        State::Lost => assert!(matches!(result, Err(ClientError::Lost { .. })), "{result:?}"),
                    }
                }
            }
            Operation::Clone { reference } => {
                if let Some((client, place, reference)) = self.reference(reference) {
                    let clone = match reference {
                        Reference::Bytes(object) => Reference::Bytes(object.clone()),
                        Reference::Handle(handle) => Reference::Handle(handle.clone()),
                        Reference::Promise(promise) => Reference::Handle(promise.handle().clone()),
                    };
                    let clone = (*client, *place, clone);
                    self.references.push(clone);
                }
            }
            Operation::Drop { reference } => {
                if !self.references.is_empty() {
                    let place = usize::from(reference) % self.references.len();
                    let reference = self.references.swap_remove(place);
                    self.drop(reference);
                }
            }
            Operation::Delete { client, object } => self.delete(usize::from(client), object),
            Operation::Publish { client, name, object } => self.publish(client, name, object),
            Operation::Lookup { client, name } => {
                let found = self.clients[usize::from(client)].lookup(text(name)).expect("the store answers");
                self.check_name(name, found);
            }
            Operation::Unpublish { client, name } => {
                let result = self.clients[usize::from(client)].unpublish(text(name));
                let named = self.names[usize::from(name)].take();
                assert!(named.is_some() || result.is_err(), "a name that nobody gave was taken away");
                if let Some(place) = named {
                    assert!(result.is_ok() || !self.keeps_its_name(place), "{result:?}");
                }
            }
            Operation::ReleaseUnused { client } => self.clients[usize::from(client)].release_unused(),
            Operation::Replace { client } => self.replace(usize::from(client)),
            Operation::Count => {
                let totals = observer().totals();
                let used = totals.leased_bytes + totals.orphaned_bytes + totals.retired_bytes;
                assert_eq!(used + totals.free_bytes, totals.capacity_bytes);
            }
        }
    }

    // ---- operations ----

    /// An object whose bytes follow from its length and its maker's count of objects, which keeps another alive.
    fn write(&mut self, client: usize, length: u16, keeps: u8) -> (Object, Option<usize>) {
        let (writer, keeps) = self.begin(client, length, keeps);
        (writer.seal(), keeps)
    }

    fn begin(
        &mut self,
        client: usize,
        length: u16,
        keeps: u8,
    ) -> (mobula_client::ObjectWriter, Option<usize>) {
        // Only sealed ones, so that there are no cycles.
        let sealed = |place: &usize| matches!(self.truths[*place].state, State::Sealed { .. });
        let keeps = self.any(keeps / 2).filter(|_| keeps.is_multiple_of(2)).filter(sealed);
        let kept = keeps.and_then(|place| {
            let handle = self.clients[client].hold(self.truths[place].id).ok()?;
            Some((place, handle))
        });
        let (keeps, references) = match kept {
            Some((place, handle)) => (Some(place), vec![handle]),
            None => (None, Vec::new()),
        };
        let layout = Layout::new(length.into()).references(references);
        let mut writer = self.clients[client].create(layout).expect("a few hundred objects find room");
        let stamp = writer.id().index() as u8;
        writer.fill(stamp);
        (writer, keeps)
    }

    fn fulfil(&mut self, reference: u8, length: u16, keeps: u8) {
        let promises = self.references.iter().enumerate();
        let promises = promises.filter(|(_, (_, _, reference))| matches!(reference, Reference::Promise(_)));
        let promises: Vec<usize> = promises.map(|(place, _)| place).collect();
        if promises.is_empty() {
            return;
        }
        let (client, place, promise) =
            self.references.swap_remove(promises[usize::from(reference) % promises.len()]);
        let Reference::Promise(promise) = promise else { unreachable!("only promises were looked at") };
        let (mut writer, keeps) = self.begin(client, length, keeps);
        writer.fill(promise.handle().id().index() as u8);
        let handle = promise.handle().clone();
        promise.fulfil(writer);
        self.truths[place].state = State::Sealed { length: length.into() };
        self.truths[place].keeps = keeps;
        self.references.push((client, place, Reference::Handle(handle)));
    }

    fn delete(&mut self, client: usize, object: u8) {
        let Some(place) = self.any(object) else { return };
        let truth = &self.truths[place];
        let result = self.clients[client].delete(truth.id);
        if !truth.owner_lives || truth.owner != client {
            // The slot of a client that has left belongs to another client.
            assert!(result.is_err(), "deleted what belongs to another");
        } else if result.is_ok() {
            assert!(!truth.deleted && matches!(truth.state, State::Sealed { .. }));
            self.truths[place].deleted = true;
        } else {
            assert!(
                truth.deleted
                    || !self.is_certain(place)
                    || truth.state == State::Promised
                    || truth.state == State::Lost
            );
        }
    }

    fn publish(&mut self, client: bool, name: bool, object: u8) {
        let Some(place) = self.any(object) else { return };
        let result = self.clients[usize::from(client)].publish(text(name), self.truths[place].id);
        let known = self.names[usize::from(name)];
        match result {
            Ok(()) => {
                assert!(known.is_none_or(|known| known == place || !self.keeps_its_name(known)));
                self.names[usize::from(name)] = Some(place);
            }
            Err(ClientError::Refused(Refusal::NameTaken { object })) => {
                let known = known.expect("somebody gave it");
                assert_eq!(object, self.truths[known].id);
            }
            Err(ClientError::Refused(Refusal::NoSuchObject { .. })) => {
                // It was looked up before it was given: a name of what is gone is gone as well.
                self.names[usize::from(name)] = None;
                assert!(!self.keeps_its_name(place));
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn replace(&mut self, client: usize) {
        let mut kept = Vec::new();
        for reference in std::mem::take(&mut self.references) {
            if reference.0 == client { self.drop(reference) } else { kept.push(reference) }
        }
        self.references = kept;
        self.clients[client] = connect();
        for truth in self.truths.iter_mut().filter(|truth| truth.owner == client) {
            truth.owner_lives = false;
        }
    }

    fn drop(&mut self, (_, place, reference): (usize, usize, Reference)) {
        if matches!(reference, Reference::Promise(_)) {
            self.truths[place].state = State::Lost;
        }
        drop(reference);
    }

    fn end(mut self) {
        while let Some(reference) = self.references.pop() {
            self.drop(reference);
        }
        for name in [false, true] {
            observer().call(&Request::Unpublish { name: text(name).into() });
        }
        for client in &self.clients {
            client.release_unused();
        }
        observer().settle("what nobody uses is free while its makers live", |totals| {
            // Readers tell their mappings' ends by messages, and owners hear of them by others.
            self.clients.iter().for_each(Client::release_unused);
            totals.free_bytes == totals.capacity_bytes
        });
        drop(self.clients);
        observer().settle("nothing is left of anybody", |totals| {
            (totals.clients, totals.dead_clients, totals.segments, totals.names) == (1, 0, 0, 0)
        });
    }

    // ---- checks ----

    /// Checks the result of a get (with the object) or of a hold against the model.
    fn check(&self, place: usize, client: usize, result: &Result<Option<&Object>, &ClientError>) {
        let truth = &self.truths[place];
        match result {
            Ok(Some(object)) => {
                let State::Sealed { length } = truth.state else { panic!("read what was never sealed") };
                self.check_bytes(place, object, length);
            }
            Ok(None) => {}
            Err(ClientError::NotReady { .. }) => assert!(truth.state == State::Promised),
            Err(ClientError::Lost { .. }) => {
                assert!(truth.state == State::Lost || (truth.state == State::Promised && !truth.owner_lives));
            }
            Err(ClientError::Deleted { .. }) => assert!(truth.deleted),
            Err(ClientError::NoSuchObject { .. } | ClientError::Refused(Refusal::NoSuchOwner { .. })) => {
                assert!(!self.is_certain(place), "client {client} does not find {}", truth.id);
            }
            Err(error) => panic!("{error}"),
        }
    }

    fn check_bytes(&self, place: usize, object: &Object, length: usize) {
        let stamp = self.truths[place].id.index() as u8;
        assert_eq!(object.len(), length);
        assert!(object.iter().all(|byte| *byte == stamp), "the bytes of {} changed", object.id());
        let references: Vec<ObjectId> =
            self.truths[place].keeps.iter().map(|keeps| self.truths[*keeps].id).collect();
        assert_eq!(object.references(), references);
    }

    fn check_name(&self, name: bool, found: Option<ObjectId>) {
        let known = self.names[usize::from(name)];
        match (known, found) {
            (None, found) => assert_eq!(found, None),
            (Some(known), Some(found)) => assert_eq!(found, self.truths[known].id),
            (Some(known), None) => assert!(!self.keeps_its_name(known), "a name in use was lost"),
        }
    }

    /// Whether an object must be there: somebody uses it, or what keeps it is used.
    fn is_certain(&self, place: usize) -> bool {
        let truth = &self.truths[place];
        if truth.deleted {
            return false;
        }
        let is_used = self.references.iter().any(|(_, used, _)| *used == place);
        is_used
            || self.truths.iter().enumerate().any(|(other, keeper)| {
                keeper.keeps == Some(place) && other != place && self.is_certain(other)
            })
    }

    /// Whether a name of an object cannot go by itself: a lost object has no name.
    fn keeps_its_name(&self, place: usize) -> bool {
        let truth = &self.truths[place];
        let is_coming = truth.state == State::Promised && truth.owner_lives;
        self.is_certain(place) && (is_coming || matches!(truth.state, State::Sealed { .. }))
    }

    // ---- choosing ----

    fn any(&self, object: u8) -> Option<usize> {
        // The latest are the likeliest to be alive.
        let back = usize::from(object) % self.truths.len().max(1);
        self.truths.len().checked_sub(1 + back)
    }

    fn reference(&self, reference: u8) -> Option<&(usize, usize, Reference)> {
        self.references.get(usize::from(reference) % self.references.len().max(1))
    }
}

fn text(name: bool) -> &'static str {
    if name { "one" } else { "other" }
}
