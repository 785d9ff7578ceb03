//! The client: the face of this crate.

use std::os::fd::{AsFd, BorrowedFd};
use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{NAME_BYTES_MAX, NameInfo, ObjectInfo, Refusal, Reply, Request};
use mobula_shm::copy::copy;

use crate::channel::{Channel, Incoming};
use crate::connect::connect;
use crate::error::ClientError;
use crate::event::Events;
use crate::object::{Handle, Object};
use crate::options::ConnectOptions;
use crate::promise::Promise;
use crate::shared::Shared;
use crate::stats::Stats;
use crate::writer::{Layout, ObjectWriter};

/// A connection to a store. Clones share it; the last clone, and the last object in use, end it.
///
/// Objects of a client that has ended or died live on while other clients hold them.
#[derive(Clone)]
#[must_use]
pub struct Client {
    inner: Arc<Inner>,
}

// No code of users runs while a part that clones share is half changed, so none of their panics can leave it so.
impl UnwindSafe for Client {}
impl RefUnwindSafe for Client {}

struct Inner {
    shared: Arc<Shared>,
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.shared.close();
    }
}

impl ConnectOptions {
    /// Connects to the store that listens at `path`, and starts the client's background thread. A round trip.
    ///
    /// # Errors
    /// [`ClientError::NoStore`] where none listens; [`ClientError::Refused`] where it takes no more clients.
    pub fn connect(self, path: impl AsRef<Path>) -> Result<Client, ClientError> {
        Ok(Client { inner: Arc::new(Inner { shared: connect(path.as_ref(), self)? }) })
    }
}

impl Client {
    /// Connects to the store that listens at `path`, with the default [options](ConnectOptions).
    ///
    /// # Errors
    /// As [`ConnectOptions::connect`].
    pub fn connect(path: impl AsRef<Path>) -> Result<Self, ClientError> {
        ConnectOptions::new().connect(path)
    }

    #[inline]
    fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// The id of this client, as the owner of its objects. One load.
    #[must_use]
    pub fn id(&self) -> OwnerId {
        self.shared().owner.id()
    }

    /// Whether this process is a forked child of the one that connected: then nothing of the client can be used. A
    /// load.
    #[must_use]
    pub fn is_forked_child(&self) -> bool {
        self.shared().owner.guard.is_child()
    }

    /// Bytes that the store may lease in all. One load.
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.shared().owner.capacity_bytes
    }

    // ---- objects ----

    /// Copies bytes into the store and seals them. One copy; no system call while the leased memory has room.
    ///
    /// # Errors
    /// [`Refusal::TooLarge`] above the capacity; [`Refusal::StoreFull`] after the lease timeout, or
    /// [`Refusal::SpillFailed`] where objects could not be spilled to disk.
    #[inline]
    pub fn put(&self, bytes: &[u8]) -> Result<Object, ClientError> {
        let mut writer = self.create(Layout::new(bytes.len() as u64))?;
        copy(&mut writer, bytes);
        Ok(writer.seal())
    }

    /// Store memory to write an object into, in place: no copy, and no system call while the leased memory has room.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    #[inline]
    pub fn create(&self, layout: Layout) -> Result<ObjectWriter, ClientError> {
        ObjectWriter::new(&self.shared().owner, layout)
    }

    /// The bytes of a sealed object, where they lie. Memory operations only, with two exceptions: the first object of
    /// an owner and the first of a segment cost a round trip each; and a spilled object is restored, or, where the
    /// store has no memory for it and none can be made, read into this process's own memory.
    ///
    /// # Errors
    /// [`ClientError::NoSuchObject`] for stale, forged and foreign ids; [`ClientError::NotReady`] for a promise. For a
    /// spilled object, [`Refusal::SpillDamaged`], [`Refusal::NotRestored`], and the errors of a put.
    #[inline]
    pub fn get(&self, object: ObjectId) -> Result<Object, ClientError> {
        Object::get(&self.shared().owner, &self.shared().peers, object)
    }

    /// Keeps an object, sealed or promised, alive without its bytes. Costs as [`get`](Self::get).
    ///
    /// # Errors
    /// [`ClientError::NoSuchObject`].
    pub fn hold(&self, object: ObjectId) -> Result<Handle, ClientError> {
        Handle::hold(&self.shared().owner, &self.shared().peers, object)
    }

    /// Whether an object is there to be read: `false` while it is promised, and for an id that means nothing. Costs as
    /// [`get`](Self::get).
    ///
    /// # Errors
    /// When the daemon cannot be asked for the table of the object's owner.
    pub fn contains(&self, object: ObjectId) -> Result<bool, ClientError> {
        match self.hold(object) {
            Ok(handle) => Ok(handle.is_ready().unwrap_or(false)),
            Err(ClientError::NoSuchObject { .. } | ClientError::Deleted { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Deletes an object of this client. No process can get it any more, and a process that holds it keeps it. Its
    /// memory is freed when no process holds it, and it has no name. No message.
    ///
    /// # Errors
    /// [`ClientError::NotOwner`] for another client's object; [`ClientError::NoSuchObject`]. A spilled object is
    /// restored first, so also the errors of [`get`](Self::get).
    pub fn delete(&self, object: ObjectId) -> Result<(), ClientError> {
        let owner = &self.shared().owner;
        owner.check_process()?;
        if object.owner() != owner.id() {
            return Err(ClientError::NotOwner { object, owner: object.owner(), operation: "delete" });
        }
        if owner.delete(object) {
            return Ok(());
        }
        if owner.table.spill_record(object).is_some() {
            // A deleted object is not restored, so it must be in memory first, and borrowed until it is deleted.
            let _object = self.get(object)?;
            if owner.delete(object) {
                return Ok(());
            }
            if owner.table.spill_record(object).is_some() {
                let reason = "the store has no memory for it, in which it could be deleted".to_owned();
                return Err(Refusal::NotRestored { object, reason }.into());
            }
        }
        Err(ClientError::NoSuchObject { object })
    }

    /// An object of which only the id exists so far; see [`Promise`]. Costs as [`put`](Self::put), without the copy.
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn promise(&self) -> Result<Promise, ClientError> {
        Promise::new(&self.shared().owner)
    }

    // ---- names ----

    /// Gives an object a name, which keeps it alive. A round trip.
    ///
    /// # Errors
    /// [`Refusal::NameTaken`]; [`Refusal::NoSuchObject`]; [`Refusal::LimitReached`] for a name of more than
    /// [`NAME_BYTES_MAX`] bytes, [`Refusal::BadRequest`] for an empty one.
    pub fn publish(&self, name: impl AsRef<[u8]>, object: ObjectId) -> Result<(), ClientError> {
        let name = checked_name(name.as_ref())?;
        // The daemon would end the connection for an impossible name.
        if name.is_empty() {
            return Err(Refusal::BadRequest { reason: "an empty name".into() }.into());
        }
        let request = Request::Publish { name, object };
        self.ask_for_done("publish", &request)
    }

    /// The object that has a name now. A round trip.
    ///
    /// # Errors
    /// When the store cannot be asked; no such name is `None`.
    pub fn lookup(&self, name: impl AsRef<[u8]>) -> Result<Option<ObjectId>, ClientError> {
        match self.lookup_within(name.as_ref(), Duration::ZERO) {
            Ok(object) => Ok(Some(object)),
            Err(ClientError::Refused(Refusal::NoSuchName {})) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The bytes of the object that has a name. Waits until an object is published under it. A round trip, and then as
    /// [`get`](Self::get).
    ///
    /// # Errors
    /// [`Refusal::NoSuchName`] after `timeout`.
    pub fn get_named(&self, name: impl AsRef<[u8]>, timeout: Duration) -> Result<Object, ClientError> {
        self.get(self.lookup_within(name.as_ref(), timeout)?)
    }

    /// Takes a name away. A round trip.
    ///
    /// # Errors
    /// [`Refusal::NoSuchName`].
    pub fn unpublish(&self, name: impl AsRef<[u8]>) -> Result<(), ClientError> {
        self.ask_for_done("unpublish", &Request::Unpublish { name: checked_name(name.as_ref())? })
    }

    /// All names, in order. A round trip for each page.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub fn names(&self) -> Result<Vec<NameInfo>, ClientError> {
        let mut all: Vec<NameInfo> = Vec::new();
        loop {
            let after = all.last().map(|info| info.name.clone()).unwrap_or_default();
            match self.ask("list names", &Request::ListNames { after })? {
                Reply::Names { names, more } => {
                    let goes_on = names.last().map(|info| &info.name) > all.last().map(|info| &info.name);
                    all.extend(names);
                    if !more {
                        return Ok(all);
                    }
                    check_goes_on(goes_on)?;
                }
                other => return Err(ClientError::unexpected(&other)),
            }
        }
    }

    // ---- statistics ----

    /// All objects of all clients. A round trip for each page; not of one moment.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub fn list(&self) -> Result<Vec<ObjectInfo>, ClientError> {
        let (mut all, mut cursor) = (Vec::new(), 0);
        loop {
            match self.ask("list objects", &Request::ListObjects { cursor })? {
                Reply::Objects { objects, next } => {
                    all.extend(objects);
                    let Some(next) = next else { return Ok(all) };
                    check_goes_on(next > cursor)?;
                    cursor = next;
                }
                other => return Err(ClientError::unexpected(&other)),
            }
        }
    }

    /// The store in numbers. A few round trips; not of one moment.
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub fn stats(&self) -> Result<Stats, ClientError> {
        let totals = match self.ask("statistics", &Request::Stats {})? {
            Reply::Stats { totals } => totals,
            other => return Err(ClientError::unexpected(&other)),
        };
        let (mut clients, mut cursor) = (Vec::new(), 0);
        loop {
            match self.ask("list clients", &Request::ListClients { cursor })? {
                Reply::Clients { clients: page, next } => {
                    clients.extend(page);
                    let Some(next) = next else { return Ok(Stats::new(totals, clients)) };
                    check_goes_on(next > cursor)?;
                    cursor = next;
                }
                other => return Err(ClientError::unexpected(&other)),
            }
        }
    }

    /// Objects of this client that are alive, including those that are promised or being made. No message.
    #[must_use]
    pub fn live_objects(&self) -> u64 {
        // Frees dropped objects now rather than soon.
        if !self.is_forked_child() {
            self.shared().owner.free_retire_list();
        }
        self.shared().owner.live()
    }

    /// Gives memory that holds no object back to the store now, rather than when it has been idle for a while. A message
    /// for each segment, which nothing waits for.
    pub fn release_unused(&self) {
        if self.is_forked_child() {
            return;
        }
        self.shared().owner.collect();
        self.shared().owner.release_empty(u64::MAX);
    }

    // ---- channels ----

    /// A channel to another client. Two round trips at most; none to use it.
    ///
    /// # Errors
    /// [`Refusal::NoSuchOwner`] when it is not alive.
    pub fn connect_to(&self, peer: OwnerId) -> Result<Channel, ClientError> {
        let Shared { peers, channels, .. } = &**self.shared();
        Channel::connect(peers, channels, peer)
    }

    /// Accepts a channel that another client has opened. A round trip, the first time for each client.
    ///
    /// # Errors
    /// [`Refusal::NoSuchOwner`] when it has died meanwhile.
    pub fn accept(&self, incoming: Incoming) -> Result<Channel, ClientError> {
        Channel::accept(&self.shared().peers, &self.shared().channels, incoming)
    }

    /// The events around this client from now on: channels, deaths, and what becomes of the daemon. A later call takes
    /// over from an earlier one. No message.
    pub fn events(&self) -> Events {
        self.events_with(|| {})
    }

    /// As [`events`](Self::events), for a program in which no thread may be asleep on the bell when an event comes.
    /// `wake` is called behind each event, on the client's background thread. It must not block.
    pub fn events_with(&self, wake: impl Fn() + Send + Sync + 'static) -> Events {
        self.shared().events.subscribe(wake)
    }

    /// Blocks until this client is rung, or `timeout` has passed (`None`: without end). It is rung for a record in a
    /// channel, for room in one, for a settled promise that it [watches](Handle::watch), and for an event. It can return
    /// sooner, so look in a loop. One or two system calls.
    ///
    /// `ready` takes the last look, after others can see that this client is about to sleep; the call does not block if
    /// it returns `true`. At most one thread of a client sleeps at a time.
    ///
    /// # Panics
    /// In a forked child.
    pub fn sleep(&self, timeout: Option<Duration>, ready: impl FnOnce() -> bool) {
        let Shared { events, owner, .. } = &**self.shared();
        events.sleep(owner, ready, |bell| _ = bell.wait(timeout));
    }

    /// As [`sleep`](Self::sleep), for a thread that blocks on other descriptors too: `block` gets the descriptor that
    /// becomes readable when this client is rung. It must only wait for it, and not read.
    ///
    /// # Panics
    /// In a forked child.
    pub fn sleep_with(&self, ready: impl FnOnce() -> bool, block: impl FnOnce(BorrowedFd<'_>)) {
        let Shared { events, owner, .. } = &**self.shared();
        events.sleep(owner, ready, |bell| {
            block(bell.as_fd());
            bell.drain();
        });
    }

    /// Rings this client's own bell: a thread that sleeps in [`sleep`](Self::sleep) looks again, and one that comes later
    /// does not sleep. One system call.
    pub fn ring(&self) {
        self.shared().events.bell().ring();
    }

    fn lookup_within(&self, name: &[u8], timeout: Duration) -> Result<ObjectId, ClientError> {
        let timeout_ms = timeout.as_millis().min(u128::from(u64::MAX)) as u64;
        let request = Request::Lookup { name: checked_name(name)?, timeout_ms };
        match self.shared().connection.request_within("look a name up", &request, timeout)?.reply {
            Reply::Found { object } => Ok(object),
            other => Err(ClientError::unexpected(&other)),
        }
    }

    fn ask_for_done(&self, operation: &'static str, request: &Request) -> Result<(), ClientError> {
        match self.ask(operation, request)? {
            Reply::Done {} => Ok(()),
            other => Err(ClientError::unexpected(&other)),
        }
    }

    fn ask(&self, operation: &'static str, request: &Request) -> Result<Reply, ClientError> {
        Ok(self.shared().connection.request(operation, request)?.reply)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Client").field(&self.id()).finish()
    }
}

fn checked_name(name: &[u8]) -> Result<Vec<u8>, ClientError> {
    if name.len() > NAME_BYTES_MAX {
        let max = NAME_BYTES_MAX as u64;
        return Err(Refusal::LimitReached { limit: "name_bytes_max".into(), max }.into());
    }
    Ok(name.to_vec())
}

/// A list whose pages do not go on would have no end.
fn check_goes_on(goes_on: bool) -> Result<(), ClientError> {
    let reason =
        || ClientError::BadReply("a page of a list that does not follow the page before it".to_owned());
    goes_on.then_some(()).ok_or_else(reason)
}
