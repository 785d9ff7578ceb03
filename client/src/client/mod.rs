//! The client: the public type of this crate. Its methods for names are in `names`, those for other processes in
//! `processes`.

mod names;
mod processes;

use std::panic::{RefUnwindSafe, UnwindSafe};
use std::path::Path;
use std::sync::Arc;

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{
    HolderInfo, LocationInfo, ObjectInfo, ReferenceInfo, Refusal, Reply, Request, SegmentInfo,
};
use mobula_shm::copy::copy;

use crate::connect::connect;
use crate::error::ClientError;
use crate::object::{Handle, Object};
use crate::options::ConnectOptions;
use crate::promise::Promise;
use crate::shared::Shared;
use crate::stats::Stats;
use crate::writer::{Layout, ObjectWriter};

/// A connection to a store. Clones share it; the last clone, and the last object in use, end it.
///
/// Objects of a client that has ended or died live on while other clients hold them.
///
/// ```
/// use mobula_client::Client;
///
/// # let store = mobula_test_store::start();
/// # let socket = store.socket();
/// let client = Client::connect(&socket)?;
/// let object = client.put(b"sealed bytes")?;
/// // Threads share a client by clones.
/// let (clone, id) = (client.clone(), object.id());
/// std::thread::spawn(move || assert_eq!(&clone.get(id).unwrap()[..], b"sealed bytes")).join().unwrap();
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
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
    /// ```
    /// use mobula_client::{ClientError, ConnectOptions};
    ///
    /// # let store = mobula_test_store::start();
    /// # let socket = store.socket();
    /// let client = ConnectOptions::new().label("reader").connect(&socket)?;
    /// let error = ConnectOptions::new().connect("/no/store/is/here.sock").unwrap_err();
    /// assert!(matches!(error, ClientError::NoStore { .. }));
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// - [`ClientError::NoStore`]: no store listens there, or the socket cannot be reached.
    /// - [`ClientError::Refused`]: the store takes no more clients.
    /// - [`ClientError::BadReply`]: the store's answer cannot be understood; it is another build of Mobula.
    pub fn connect(self, path: impl AsRef<Path>) -> Result<Client, ClientError> {
        Ok(Client { inner: Arc::new(Inner { shared: connect(path.as_ref(), self)? }) })
    }
}

impl Client {
    /// Connects to the store that listens at `path`, with the default [options](ConnectOptions).
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let socket = store.socket();
    /// let client = mobula_client::Client::connect(&socket)?;
    /// let object = client.put(b"hello")?;
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
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

    /// The id of this client, as the owner of its objects. Costs one load.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let object = client.put(b"mine")?;
    /// assert_eq!(object.id().owner(), client.id());
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[must_use]
    pub fn id(&self) -> OwnerId {
        self.shared().owner.id()
    }

    /// Whether this process is a forked child of the one that connected: then nothing of the client can be used. A
    /// load.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// assert!(!client.is_forked_child());
    /// ```
    #[must_use]
    #[inline]
    pub fn is_forked_child(&self) -> bool {
        self.shared().owner.guard.is_child()
    }

    /// Bytes that the store may lease in all. Costs one load.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// assert_eq!(client.capacity_bytes(), client.stats()?.totals.capacity_bytes);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[must_use]
    pub fn capacity_bytes(&self) -> u64 {
        self.shared().owner.capacity_bytes
    }

    // ---- objects ----

    /// Copies bytes into the store and seals them. One copy; no system call while the leased memory has room.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let object = client.put(b"sealed bytes")?;
    /// assert_eq!(&object[..], b"sealed bytes");
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// - [`Refusal::TooLarge`]: the object is larger than the store.
    /// - [`Refusal::StoreFull`]: no room came free within the lease timeout.
    /// - [`Refusal::SpillFailed`]: the same, because objects could not be spilled to disk.
    /// - [`Refusal::QuotaReached`]: this client, or this user, may lease no more.
    /// - [`Refusal::NoMemory`]: the system has no memory or descriptors left.
    #[inline]
    pub fn put(&self, bytes: &[u8]) -> Result<Object, ClientError> {
        let mut writer = self.create(Layout::new(bytes.len() as u64))?;
        copy(&mut writer, bytes);
        Ok(writer.seal())
    }

    /// Store memory to write an object into, in place: no copy, and no system call while the leased memory has room.
    ///
    /// ```
    /// use mobula_client::Layout;
    ///
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let mut writer = client.create(Layout::new(4))?;
    /// writer.copy_from_slice(&7_u32.to_le_bytes());
    /// let object = writer.seal();
    /// assert_eq!(object[..], [7, 0, 0, 0]);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put).
    #[inline]
    pub fn create(&self, layout: Layout) -> Result<ObjectWriter, ClientError> {
        ObjectWriter::new(&self.shared().owner, layout)
    }

    /// The bytes of a sealed object, where they lie. Memory operations only, with two exceptions. The first object of
    /// an owner and the first of a segment cost a round trip each. A spilled object is restored; if the store has no
    /// memory for it and none can be made, this process reads it into its own memory.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let object = client.put(b"sealed bytes")?;
    /// // In another process: the id went there by any way, such as a pipe.
    /// let same = other.get(object.id())?;
    /// assert_eq!(object[..], same[..]);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// - [`ClientError::NoSuchObject`]: the id is stale or wrong. [`ClientError::Deleted`]: its owner has deleted it.
    /// - [`ClientError::NotReady`]: it is promised. [`ClientError::Lost`]: its owner died before it was sealed.
    /// - [`ClientError::Corrupt`], [`ClientError::OwnerStalled`]: its owner has a bug, or was stopped while freeing it.
    /// - [`Refusal::SpillDamaged`], [`Refusal::NotRestored`] and the errors of [`put`](Self::put): it is spilled.
    #[inline]
    pub fn get(&self, object: ObjectId) -> Result<Object, ClientError> {
        Object::get(&self.shared().owner, &self.shared().peers, object)
    }

    /// Keeps an object, sealed or promised, alive without its bytes. Costs as [`get`](Self::get).
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let object = client.put(b"sealed bytes")?;
    /// let handle = other.hold(object.id())?;
    /// drop(object);
    /// assert_eq!(&handle.object()?[..], b"sealed bytes");
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// [`ClientError::NoSuchObject`], [`ClientError::Deleted`], [`ClientError::OwnerStalled`]: as [`get`](Self::get).
    pub fn hold(&self, object: ObjectId) -> Result<Handle, ClientError> {
        Handle::hold(&self.shared().owner, &self.shared().peers, object)
    }

    /// Whether an object can be read: `false` while it is promised, and for an id of no object. Costs as
    /// [`get`](Self::get).
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let object = client.put(b"here")?;
    /// assert!(client.contains(object.id())?);
    /// client.delete(object.id())?;
    /// assert!(!client.contains(object.id())?);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
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
    /// ```
    /// use mobula_client::ClientError;
    ///
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let object = client.put(b"not for long")?;
    /// client.delete(object.id())?;
    /// assert!(matches!(other.get(object.id()), Err(ClientError::Deleted { .. })));
    /// assert_eq!(&object[..], b"not for long", "it is held here");
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// - [`ClientError::NotOwner`]: it is an object of another client.
    /// - [`ClientError::NoSuchObject`]: it was freed or deleted, or the id is wrong.
    /// - The errors of [`get`](Self::get), because a spilled object is restored first.
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
    /// ```
    /// use mobula_client::Layout;
    ///
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let promise = client.promise()?;
    /// let handle = other.hold(promise.handle().id())?;
    /// assert!(!handle.is_ready()?);
    ///
    /// let mut writer = client.create(Layout::new(4))?;
    /// writer.copy_from_slice(b"kept");
    /// promise.fulfil(writer);
    /// assert_eq!(&handle.object()?[..], b"kept");
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// As [`put`](Self::put).
    pub fn promise(&self) -> Result<Promise, ClientError> {
        Promise::new(&self.shared().owner)
    }

    /// Removes names of objects that only their names keep alive, the least recently used first, until objects of
    /// `bytes` in all have lost their names, or no such name is left. Returns the bytes of these objects. A full store
    /// does this by itself. A round trip.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let held = client.put(b"held")?;
    /// client.publish("held", held.id())?;
    /// client.publish("named", client.put(b"named")?.id())?;
    /// assert_eq!(client.evict(1)?, 5);
    /// assert_eq!(client.evict(1)?, 0, "an object that a process holds keeps its name");
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub fn evict(&self, bytes: u64) -> Result<u64, ClientError> {
        match self.ask("evict", &Request::Evict { bytes })? {
            Reply::Evicted { bytes } => Ok(bytes),
            other => Err(ClientError::unexpected(&other)),
        }
    }

    // ---- statistics ----

    /// All objects of all clients. A round trip for each page; the pages show different moments.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let object = client.put(b"hello")?;
    /// let list = client.list()?;
    /// assert_eq!((list[0].object, list[0].bytes), (object.id(), 5));
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
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
                    ClientError::check_goes_on(next > cursor)?;
                    cursor = next;
                }
                other => return Err(ClientError::unexpected(&other)),
            }
        }
    }

    /// All segments of the store's memory. A round trip for each page; the pages show different moments.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let _object = client.put(b"hello")?;
    /// let segments = client.segments()?;
    /// assert_eq!((segments[0].owner, segments[0].segment, segments[0].readers), (client.id(), 1, 0));
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub fn segments(&self) -> Result<Vec<SegmentInfo>, ClientError> {
        let (mut all, mut cursor) = (Vec::new(), 0);
        loop {
            match self.ask("list segments", &Request::ListSegments { cursor })? {
                Reply::Segments { segments, next } => {
                    all.extend(segments);
                    let Some(next) = next else { return Ok(all) };
                    ClientError::check_goes_on(next > cursor)?;
                    cursor = next;
                }
                other => return Err(ClientError::unexpected(&other)),
            }
        }
    }

    /// The places of all objects in memory, as their owners report them. A round trip for each page; the pages show
    /// different moments.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let _object = client.put(b"hello")?;
    /// let location = &client.locations()?[0];
    /// assert_eq!((location.owner, location.segment, location.bytes), (client.id(), 1, 5));
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// When the store cannot be asked.
    pub fn locations(&self) -> Result<Vec<LocationInfo>, ClientError> {
        let (mut all, mut cursor) = (Vec::new(), 0);
        loop {
            match self.ask("list locations", &Request::ListLocations { cursor })? {
                Reply::Locations { locations, next } => {
                    all.extend(locations);
                    let Some(next) = next else { return Ok(all) };
                    ClientError::check_goes_on(next > cursor)?;
                    cursor = next;
                }
                other => return Err(ClientError::unexpected(&other)),
            }
        }
    }

    /// The store in numbers. A few round trips; not of one moment.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let object = client.put(b"hello")?;
    /// let stats = client.stats()?;
    /// assert_eq!((stats.totals.clients, stats.objects()), (1, 1));
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
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
                    ClientError::check_goes_on(next > cursor)?;
                    cursor = next;
                }
                other => return Err(ClientError::unexpected(&other)),
            }
        }
    }

    /// Objects of this client that are alive, including those that are promised or being made. No message.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let object = client.put(b"hello")?;
    /// assert_eq!(client.live_objects(), 1);
    /// drop(object);
    /// assert_eq!(client.live_objects(), 0);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[must_use]
    pub fn live_objects(&self) -> u64 {
        // Frees dropped objects now rather than soon.
        if !self.is_forked_child() {
            self.shared().owner.free_retire_list();
        }
        self.shared().owner.live()
    }

    /// Gives memory that holds no object back to the store now, rather than when it has been idle for a while. A
    /// message for each segment, which nothing waits for.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// drop(client.put(&[0; 1 << 20])?);
    /// client.release_unused();
    /// assert_eq!(client.stats()?.totals.leased_bytes, 0);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    pub fn release_unused(&self) {
        if self.is_forked_child() {
            return;
        }
        self.shared().owner.collect();
        self.shared().owner.release_empty(u64::MAX);
    }

    /// The clients that hold objects, and the references between objects. A round trip for each page.
    #[doc(hidden)]
    pub fn holders(&self) -> Result<(Vec<HolderInfo>, Vec<ReferenceInfo>), ClientError> {
        let (mut all, mut refers, mut cursor) = (Vec::new(), Vec::new(), 0);
        loop {
            match self.ask("list holders", &Request::ListHolders { cursor })? {
                Reply::Holders { holders, references, next } => {
                    all.extend(holders);
                    refers.extend(references);
                    let Some(next) = next else { return Ok((all, refers)) };
                    ClientError::check_goes_on(next > cursor)?;
                    cursor = next;
                }
                other => return Err(ClientError::unexpected(&other)),
            }
        }
    }

    /// The socket of the store, for another client of the same process.
    #[doc(hidden)]
    #[must_use]
    pub fn socket(&self) -> &Path {
        self.shared().connection.path()
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
