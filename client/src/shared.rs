//! What a client, its objects and its receiving thread share.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam::channel::Sender;
use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{Refusal, Reply, Request};
use mobula_shm::bell::Bell;
use mobula_shm::directory::DirectoryReader;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::fork::ForkGuard;
use mobula_shm::mapping::WriteMapping;
use mobula_shm::memory::{check_received, round_up_to_pages};
use mobula_shm::table::{ENTRIES_MAX, Location};
use parking_lot::Mutex;

use crate::channel::Event;
use crate::client::ConnectOptions;
use crate::counting::count::Use;
use crate::daemon::connection::Connection;
use crate::error::ClientError;
use crate::owner::{Begun, Need, Own};
use crate::reader::peer::{Peer, Slot};

/// Bytes of the first lease for small objects; later ones grow with what is already leased.
const LEASE_BYTES_MIN: u64 = 1 << 20;
const LEASE_BYTES_MAX: u64 = 64 << 20;
/// Who waits for a lease looks at its own memory again after this long: something may have been freed here.
const LEASE_LOOK: Duration = Duration::from_millis(50);

/// The state behind a [`Client`](crate::Client).
pub(crate) struct Shared {
    pub(crate) guard: ForkGuard,
    pub(crate) connection: Arc<Connection>,
    pub(crate) directory: Arc<DirectoryReader>,
    pub(crate) own: Own,
    pub(crate) bell: Bell,
    pub(crate) capacity_bytes: u64,
    pub(crate) lease_timeout: Duration,
    pub(crate) events: Mutex<Option<Sender<Event>>>,
    /// Channels that are open, and who has the other end.
    pub(crate) channels: Mutex<BTreeMap<u64, OwnerId>>,
    /// Memory of the dead that is kept here for the next daemon.
    pub(crate) custody: Mutex<BTreeMap<OwnerId, Custody>>,
    pub(crate) control: OwnedFd,
    /// For the next daemon.
    pub(crate) daemon_control: OwnedFd,
    pub(crate) label: String,
    pub(crate) resume_timeout: Duration,
    /// By the owners' slots, as they are met. Their peers are let go when the last client goes, because they point back
    /// here.
    slots: Box<[OnceLock<Box<Slot>>]>,
    attaching: Mutex<()>,
    /// Whom a thread is attaching to, and whether the daemon has forgotten it meanwhile.
    attached_next: Mutex<Option<(OwnerId, bool)>>,
    /// Leases that were asked for and whose segments are not in the books yet.
    leasing: AtomicUsize,
    born: Instant,
}

/// What a new client got from the daemon.
pub(crate) struct Parts {
    pub(crate) guard: ForkGuard,
    pub(crate) connection: Arc<Connection>,
    pub(crate) directory: Arc<DirectoryReader>,
    pub(crate) own: Own,
    pub(crate) bell: Bell,
    /// Owners that there can be.
    pub(crate) slots: u32,
    pub(crate) capacity_bytes: u64,
    pub(crate) options: ConnectOptions,
    pub(crate) control: OwnedFd,
    pub(crate) daemon_control: OwnedFd,
}

/// What a dead owner has left, as far as it is kept here.
pub(crate) struct Custody {
    pub(crate) control: OwnedFd,
    pub(crate) bell: OwnedFd,
    /// Bytes and descriptor of each segment.
    pub(crate) segments: BTreeMap<u32, (u64, OwnedFd)>,
    /// The same of each spill file.
    pub(crate) spill_files: BTreeMap<u32, (u64, OwnedFd)>,
}

impl Shared {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { guard, connection, directory, own, bell, slots, capacity_bytes, .. } = parts;
        let ConnectOptions { label, lease_timeout, resume_timeout, .. } = parts.options;
        Self {
            guard,
            connection,
            directory,
            own,
            bell,
            capacity_bytes,
            lease_timeout,
            events: Mutex::new(None),
            channels: Mutex::default(),
            custody: Mutex::default(),
            control: parts.control,
            daemon_control: parts.daemon_control,
            label,
            resume_timeout,
            slots: (0..slots).map(|_| OnceLock::new()).collect(),
            attaching: Mutex::default(),
            attached_next: Mutex::default(),
            leasing: AtomicUsize::new(0),
            born: Instant::now(),
        }
    }

    #[inline]
    pub(crate) fn check_process(&self) -> Result<(), ClientError> {
        if self.guard.is_child() { Err(ClientError::ForkedChild) } else { Ok(()) }
    }

    /// For operations that have no error to return.
    ///
    /// # Panics
    /// In a forked child.
    #[inline]
    pub(crate) fn assert_process(&self) {
        if let Err(error) = self.check_process() {
            panic!("{error}");
        }
    }

    /// How many owners there can be, and the daemon.
    pub(crate) fn slots(&self) -> u32 {
        self.slots.len() as u32
    }

    /// Milliseconds since the client was made.
    pub(crate) fn now_ms(&self) -> u64 {
        self.born.elapsed().as_millis() as u64
    }

    /// What this process uses of the owner in a slot; `None` if it has never met one there.
    #[inline]
    pub(crate) fn slot(&self, slot: u16) -> Option<&Slot> {
        self.slots.get(usize::from(slot))?.get().map(|slot| &**slot)
    }

    /// The view of another owner; attaches the first time.
    pub(crate) fn peer(self: &Arc<Self>, id: OwnerId) -> Result<Arc<Peer>, ClientError> {
        if let Some(peer) = self.known_peer(id) {
            return Ok(peer);
        }
        let no_such_owner = Refusal::NoSuchOwner { owner: id };
        let place = self.slots.get(usize::from(id.slot()));
        // Somebody had our slot before us, and has been forgotten.
        let Some(place) = place.filter(|_| id.slot() != self.own.id.slot()) else {
            return Err(no_such_owner.into());
        };
        // One at a time: two views of one owner would write the same pins.
        let _attaching = self.attaching.lock();
        if let Some(peer) = self.known_peer(id) {
            return Ok(peer);
        }
        *self.attached_next.lock() = Some((id, false));
        let request = Request::Attach { owner: id };
        let (_still, answer) = loop {
            let answer = self.connection.request("attach", &request)?;
            if let Some(still) = self.connection.hold_still(answer.daemon) {
                break (still, answer);
            }
        };
        failpoint(Failpoint::AttachGranted);
        let attached = Peer::attached(self, id, answer)?;
        failpoint(Failpoint::AttachMapped);
        let slot = place.get_or_init(|| Box::new(Slot::new(self.guard)));
        let is_installed = slot.install(attached.clone());
        let is_forgotten = self.attached_next.lock().take().is_some_and(|(_, forgotten)| forgotten);
        if is_forgotten {
            slot.forget(Some(id));
            Err(no_such_owner.into())
        } else if is_installed {
            Ok(attached)
        } else {
            // The daemon gives a slot to another only once nobody is attached to its last owner.
            Err(ClientError::BadReply(format!("{id} has a slot in which another's objects are in use")))
        }
    }

    pub(crate) fn known_peer(&self, id: OwnerId) -> Option<Arc<Peer>> {
        let guest = self.slot(id.slot())?.enter()?;
        (guest.occupant().id == id).then(|| guest.to_arc())
    }

    /// All owners that this client is attached to and knows.
    pub(crate) fn peers(&self) -> Vec<Arc<Peer>> {
        let slots = self.slots.iter().filter_map(OnceLock::get);
        slots.filter_map(|slot| Some(slot.enter()?.to_arc())).collect()
    }

    /// The daemon has forgotten an owner, whose slot is another's once nobody is attached any more.
    ///
    /// The news comes to this client's own thread, and may come before the thread that has attached, and that the
    /// answer was for, has installed the peer: then that thread forgets it.
    pub(crate) fn forget_peer(&self, id: OwnerId) {
        if let Some((_, forgotten)) = self.attached_next.lock().as_mut().filter(|(next, _)| *next == id) {
            *forgotten = true;
        }
        if let Some(slot) = self.slot(id.slot()) {
            slot.forget(Some(id));
        }
    }

    /// The last client is gone: this stays only while objects are in use.
    pub(crate) fn close(self: &Arc<Self>) {
        if self.guard.is_child() {
            // Nothing is counted in a forked child, so that nobody knows when the last object is dropped there. And
            // another thread of the parent's may have a lock for ever.
            std::mem::forget(self.clone());
            return;
        }
        self.own.close(self);
        self.collect();
        for slot in self.slots.iter().filter_map(OnceLock::get) {
            slot.forget(None);
        }
    }

    // ---- beginning an object ----

    /// Takes an entry and memory for an object, from the leases if they have room, else from the daemon.
    #[inline]
    pub(crate) fn begin(&self, length: u64, references: u32, kind: Use) -> Result<Begun<'_>, ClientError> {
        self.check_process()?;
        let too_large = || Refusal::TooLarge { requested_bytes: length, capacity_bytes: self.capacity_bytes };
        let bytes = Location::extent(length, references).ok_or_else(too_large)?;
        if bytes > self.capacity_bytes {
            return Err(too_large().into());
        }
        match self.own.begin(bytes, kind) {
            Ok(begun) => Ok(begun),
            Err(need) => self.begin_slowly(bytes, kind, need),
        }
    }

    #[cold]
    fn begin_slowly(&self, bytes: u64, kind: Use, mut need: Need) -> Result<Begun<'_>, ClientError> {
        let deadline = Instant::now().checked_add(self.lease_timeout);
        loop {
            match need {
                Need::Entries { at_least } => {
                    if !self.free_pending() {
                        self.grow_table(at_least)?;
                    }
                }
                Need::Memory => {
                    if !self.collect() {
                        self.lease(bytes, deadline)?;
                    }
                }
            }
            need = match self.own.begin(bytes, kind) {
                Ok(begun) => return Ok(begun),
                Err(need) => need,
            };
        }
    }

    /// Waits until there is room for an object of so many bytes in one's own memory, which others may take.
    pub(crate) fn find_room(&self, bytes: u64, patience: Duration) -> Result<(), ClientError> {
        if bytes == 0 || self.own.has_room(bytes) {
            return Ok(());
        }
        self.lease(bytes, Instant::now().checked_add(patience.min(self.lease_timeout)))
    }

    /// Frees what has been let go of, as far as nobody else uses it; `true` if there was anything.
    pub(crate) fn free_pending(&self) -> bool {
        let mut garbage = Vec::new();
        let freed = self.own.free_pending(&mut garbage);
        crate::object::drop_all(garbage);
        freed
    }

    /// Looks again at what others still used; `true` if anything was freed.
    pub(crate) fn free_deferred(&self) -> bool {
        let mut garbage = Vec::new();
        let freed = self.own.free_deferred(&mut garbage);
        crate::object::drop_all(garbage);
        freed
    }

    /// Frees whatever can be; `true` if there was anything.
    pub(crate) fn collect(&self) -> bool {
        let mut garbage = Vec::new();
        let freed = self.own.collect(&mut garbage);
        crate::object::drop_all(garbage);
        freed
    }

    /// Gives back segments that have been empty since `before`.
    pub(crate) fn release_empty(&self, before: u64) -> bool {
        let empty = self.own.take_empty_segments(before);
        for segment in &empty {
            failpoint(Failpoint::ReleaseTaken);
            self.connection.tell(&Request::Release { segment: *segment });
            failpoint(Failpoint::ReleaseTold);
        }
        !empty.is_empty()
    }

    /// Gives unused pages of segments in which objects lie back, as far as `wanted` bytes are wanted. Small objects move
    /// together where that helps.
    pub(crate) fn shrink(&self, wanted: u64) {
        let given_back = self.give_back_pages(wanted, false);
        if given_back < wanted {
            self.own.pack();
            // Whole segments may be empty now.
            self.release_empty(u64::MAX);
            self.give_back_pages(wanted - given_back, true);
        }
    }

    fn give_back_pages(&self, wanted: u64, packed: bool) -> u64 {
        let (segments, bytes) = self.own.shrink(wanted, packed);
        for segment in segments {
            self.connection.tell(&Request::HolesPunched { segment });
            failpoint(Failpoint::HoleTold);
        }
        bytes
    }

    fn grow_table(&self, at_least: u32) -> Result<(), ClientError> {
        if at_least > ENTRIES_MAX {
            let limit = Refusal::LimitReached { limit: "ENTRIES_MAX".into(), max: u64::from(ENTRIES_MAX) };
            return Err(limit.into());
        }
        let request = Request::GrowTable { entries: at_least };
        match self.connection.request("grow the object table", &request)?.reply {
            Reply::TableGrown { entries } if entries >= at_least => {
                failpoint(Failpoint::GrowGranted);
                self.own.grow_table(entries);
            }
            other => return Err(ClientError::BadReply(format!("{other:?}"))),
        }
        Ok(())
    }

    /// Gets memory in which `bytes` fit: a generous lease if there is room for it, else just what is needed, for which
    /// it waits. Returns early, without a lease, when there is room in one's own by then.
    fn lease(&self, bytes: u64, deadline: Option<Instant>) -> Result<(), ClientError> {
        let generous = self.own.leased_bytes().clamp(LEASE_BYTES_MIN, LEASE_BYTES_MAX);
        let mut generous = generous.min(self.capacity_bytes / 8);
        // In a store that is nearly full, a half of it, and so on: many small segments serve nobody.
        while bytes < generous {
            if self.request_lease(generous, Duration::ZERO).is_ok() {
                return Ok(());
            }
            generous = if generous > LEASE_BYTES_MIN { (generous / 2).max(LEASE_BYTES_MIN) } else { 0 };
        }
        self.release_empty(u64::MAX);
        // What is unused of one's own may be enough, and nobody need wait for it.
        match self.request_lease(bytes, Duration::ZERO) {
            Err(ClientError::Refused(
                Refusal::StoreFull { free_bytes, .. } | Refusal::SpillFailed { free_bytes, .. },
            )) => self.shrink(bytes.saturating_sub(free_bytes)),
            Err(ClientError::Refused(Refusal::QuotaReached { max, used, .. })) => {
                self.shrink(bytes.saturating_sub(max.saturating_sub(used)));
            }
            granted => return granted,
        }
        let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        // For a request that does not wait at all the daemon takes nobody's name away.
        self.request_lease(bytes, left.max(Duration::from_millis(1)))
    }

    /// Whether there is anything to look after, now or in a moment.
    pub(crate) fn may_have_work(&self) -> bool {
        // The lease first: it is counted until its segment is in the books.
        self.leasing.load(Ordering::Acquire) > 0 || self.own.has_work()
    }

    fn request_lease(&self, bytes: u64, timeout: Duration) -> Result<(), ClientError> {
        self.leasing.fetch_add(1, Ordering::AcqRel);
        let result = self.take_lease(bytes, timeout);
        // Release: who sees it gone also sees the segment.
        self.leasing.fetch_sub(1, Ordering::Release);
        result
    }

    fn take_lease(&self, bytes: u64, timeout: Duration) -> Result<(), ClientError> {
        failpoint(Failpoint::LeaseAsked);
        let request =
            Request::Lease { bytes, timeout_ms: timeout.as_millis().min(u128::from(u64::MAX)) as u64 };
        let has_room = || {
            self.collect();
            let room = self.own.has_room(bytes);
            if !room {
                self.release_empty(u64::MAX);
            }
            room
        };
        let answer =
            self.connection.request_unless("lease memory", &request, timeout, LEASE_LOOK, has_room)?;
        let Some(answer) = answer else { return Ok(()) };
        // A lease of the daemon before is nothing any more: whoever asked for it looks again, and asks the new one.
        let Some(_still) = self.connection.hold_still(answer.daemon) else { return Ok(()) };
        let asked = round_up_to_pages(bytes);
        let (segment, bytes) = match answer.reply {
            Reply::Leased { segment, bytes } if Some(bytes) == asked => (segment, bytes),
            other => return Err(ClientError::BadReply(format!("{other:?}"))),
        };
        failpoint(Failpoint::LeaseGranted);
        let mapping = answer.descriptors().and_then(|[descriptor]| {
            check_received(descriptor.as_fd(), bytes)?;
            Ok((WriteMapping::map(descriptor.as_fd(), 0, bytes as usize)?, descriptor))
        });
        let (mapping, descriptor) =
            mapping.inspect_err(|_| self.connection.tell(&Request::Release { segment }))?;
        self.own.add_segment(segment, mapping, descriptor);
        failpoint(Failpoint::LeaseNoted);
        Ok(())
    }

    // ---- sleeping ----

    /// Lets `block` block on the bell, unless `ready` says after a last look that it need not.
    pub(crate) fn sleep(&self, ready: impl FnOnce() -> bool, block: impl FnOnce(&Bell)) {
        self.assert_process();
        let _asleep = self.own.table().begin_sleep();
        if !ready() {
            block(&self.bell);
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        // A forked child shares the socket: closing it there would cut the parent off.
        if !self.guard.is_child() {
            self.connection.close();
        }
    }
}
