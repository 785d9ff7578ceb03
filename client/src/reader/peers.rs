//! All owners that this client knows, by client slot: an owner is attached when its first object is wanted, and
//! forgotten when the daemon says so.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, OnceLock};

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{Refusal, Request};
use mobula_shm::directory::DirectoryReader;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::fork::ForkGuard;
use parking_lot::Mutex;

use crate::counting::count::Kind;
use crate::counting::keep_alive::WeakKeepAlive;
use crate::counting::raw::RawReference;
use crate::daemon::connection::Connection;
use crate::error::ClientError;
use crate::located::Located;
use crate::reader::peer::Peer;
use crate::reader::slot::Slot;

/// The other owners, as this client sees them.
pub(crate) struct Peers {
    /// This client's own id: its slot has no peer.
    own: OwnerId,
    guard: ForkGuard,
    connection: Arc<Connection>,
    directory: Arc<DirectoryReader>,
    /// This client's control memory, which its pins are in.
    control: OwnedFd,
    /// By client slot. Each is made with its first peer, and stays.
    slots: Box<[OnceLock<Box<Slot>>]>,
    /// Held by the one thread that attaches: two views of one owner would write the same pins.
    attaching: Mutex<()>,
    /// The owner that a thread is attaching to, and whether the daemon has forgotten it meanwhile.
    attaching_to: Mutex<Option<(OwnerId, bool)>>,
    client: WeakKeepAlive,
}

impl Peers {
    pub(crate) fn new(
        own: OwnerId,
        slots: u32,
        control: OwnedFd,
        directory: Arc<DirectoryReader>,
        guard: ForkGuard,
        connection: Arc<Connection>,
        client: WeakKeepAlive,
    ) -> Self {
        Self {
            own,
            guard,
            connection,
            directory,
            control,
            slots: (0..slots).map(|_| OnceLock::new()).collect(),
            attaching: Mutex::default(),
            attaching_to: Mutex::default(),
            client,
        }
    }

    /// Counts a reference to a peer's object in any state, and pins it if it is the first. Memory operations only,
    /// except for the first object of an owner.
    #[inline]
    pub(crate) fn acquire(&self, object: ObjectId, kind: Kind) -> Result<RawReference, ClientError> {
        self.slot_of(&object)?.acquire(object, kind, |object| self.attach_owner_of(object))
    }

    /// Counts a borrow, as [`acquire`](Self::acquire) does, and finds the bytes of an object that is borrowed already.
    #[inline]
    pub(crate) fn borrow(&self, object: ObjectId) -> Result<(RawReference, Option<Located>), ClientError> {
        self.slot_of(&object)?.borrow(object, |object| self.attach_owner_of(object))
    }

    /// A peer; attaches to it the first time, which takes a round trip.
    ///
    /// # Errors
    /// [`Refusal::NoSuchOwner`].
    pub(crate) fn attach(&self, id: OwnerId) -> Result<Arc<Peer>, ClientError> {
        if let Some(peer) = self.known(id) {
            return Ok(peer);
        }
        let no_such_owner = Refusal::NoSuchOwner { owner: id };
        let place = self.slots.get(usize::from(id.slot()));
        // An owner that had this client's slot before is forgotten.
        let Some(place) = place.filter(|_| id.slot() != self.own.slot()) else {
            return Err(no_such_owner.into());
        };
        let client = self.client.upgrade().ok_or(ClientError::StoreLost)?;
        let _attaching = self.attaching.lock();
        if let Some(peer) = self.known(id) {
            return Ok(peer);
        }
        *self.attaching_to.lock() = Some((id, false));
        let request = Request::Attach { owner: id };
        let (_still, answer) = self.connection.request_still("attach", &request)?;
        failpoint(Failpoint::AttachGranted);
        let (directory, connection) = (self.directory.clone(), self.connection.clone());
        let peer = Arc::new(Peer::new(id, answer, self.control.as_fd(), directory, connection, client)?);
        failpoint(Failpoint::AttachMapped);
        let slot = place.get_or_init(|| Box::new(Slot::new(self.guard)));
        let is_installed = slot.install(peer.clone());
        let is_forgotten = self.attaching_to.lock().take().is_some_and(|(_, forgotten)| forgotten);
        if is_forgotten {
            slot.forget(Some(id));
            Err(no_such_owner.into())
        } else if is_installed {
            Ok(peer)
        } else {
            // The daemon gives a slot to another owner only when no client is attached to the last one.
            let text = format!("{id} has a slot in which objects of another owner are in use");
            Err(ClientError::BadReply(text))
        }
    }

    /// A peer that this client is attached to.
    pub(crate) fn known(&self, id: OwnerId) -> Option<Arc<Peer>> {
        let guest = self.slot(id.slot())?.enter()?;
        (guest.occupant().id == id).then(|| guest.to_arc())
    }

    /// All peers that this client is attached to.
    pub(crate) fn all(&self) -> Vec<Arc<Peer>> {
        let slots = self.slots.iter().filter_map(OnceLock::get);
        slots.filter_map(|slot| Some(slot.enter()?.to_arc())).collect()
    }

    /// The daemon has forgotten an owner, and gives its slot to another one when no client is attached any more.
    ///
    /// The background thread hears of it, perhaps before the thread that has just attached has installed the peer. Then
    /// that thread forgets it.
    pub(crate) fn forget(&self, id: OwnerId) {
        if let Some((_, forgotten)) = self.attaching_to.lock().as_mut().filter(|(next, _)| *next == id) {
            *forgotten = true;
        }
        if let Some(slot) = self.slot(id.slot()) {
            slot.forget(Some(id));
        }
    }

    /// The client is closed: each peer goes when nothing of it is in use. (Peers keep the client, so they must.)
    pub(crate) fn forget_all(&self) {
        for slot in self.slots.iter().filter_map(OnceLock::get) {
            slot.forget(None);
        }
    }

    /// The number of client slots, the daemon's included.
    pub(crate) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// This client's control memory.
    pub(crate) fn control(&self) -> BorrowedFd<'_> {
        self.control.as_fd()
    }

    /// The slot of an object's owner, made if need be. Its occupant may be another owner.
    #[inline]
    fn slot_of(&self, object: &ObjectId) -> Result<&Slot, ClientError> {
        match self.slot(object.owner().slot()) {
            Some(slot) => Ok(slot),
            None => self.make_slot_of(object),
        }
    }

    #[cold]
    fn make_slot_of(&self, object: &ObjectId) -> Result<&Slot, ClientError> {
        self.attach_owner_of(object)?;
        self.slot(object.owner().slot()).ok_or(ClientError::NoSuchObject { object: *object })
    }

    #[cold]
    fn attach_owner_of(&self, object: &ObjectId) -> Result<(), ClientError> {
        let (object, owner) = (*object, object.owner());
        match self.attach(owner) {
            Err(ClientError::Refused(Refusal::NoSuchOwner { .. })) => {
                Err(ClientError::NoSuchObject { object })
            }
            attached => attached.map(drop),
        }
    }

    #[inline]
    fn slot(&self, slot: u16) -> Option<&Slot> {
        self.slots.get(usize::from(slot))?.get().map(|slot| &**slot)
    }
}
