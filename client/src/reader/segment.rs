//! The segments of a peer that are mapped here.
//!
//! A segment is mapped when the first object in it is borrowed, and stays mapped until its owner retires it and the
//! last borrow from it ends. The daemon counts one mapping of a segment for each client. So one thread at a time maps,
//! and the daemon is told only of the end of the last mapping.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::ptr::NonNull;
use std::sync::{Arc, Weak};

use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{Reply, Request};
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::mapping::ReadMapping;
use mobula_shm::memory::check_received;
use mobula_shm::table::Location;
use parking_lot::{Mutex, RwLock};

use crate::daemon::connection::{Answer, Connection};
use crate::error::ClientError;

/// A segment of another owner, mapped read-only. To drop it tells the daemon.
pub(crate) struct PeerSegment {
    owner: OwnerId,
    number: u32,
    mapping: ReadMapping,
    /// For the next daemon, should the owner be dead by then.
    descriptor: OwnedFd,
    connection: Arc<Connection>,
}

impl PeerSegment {
    /// The address of an object that lies in here with its references; `None` where its owner wrote nonsense. (An
    /// honest owner does not move an object while its bytes are borrowed.)
    #[inline]
    pub(crate) fn find(&self, location: &Location) -> Option<NonNull<u8>> {
        let lies_here = location.segment == self.number && location.fits(self.mapping.len() as u64);
        lies_here.then(|| self.mapping.pointer(location.offset as usize, location.length as usize))
    }
}

/// All segments of one peer.
pub(crate) struct PeerSegments {
    owner: OwnerId,
    connection: Arc<Connection>,
    known: RwLock<Known>,
    /// Held by the one thread that maps a segment.
    mapping: Mutex<()>,
}

#[derive(Default)]
struct Known {
    /// In the order of their numbers.
    mapped: Vec<Arc<PeerSegment>>,
    /// Segments that their owner gave back, in the order of their numbers: each with its mapping, while that is in use.
    retired: Vec<(u32, Weak<PeerSegment>)>,
}

impl PeerSegments {
    pub(crate) fn new(owner: OwnerId, connection: Arc<Connection>) -> Self {
        Self { owner, connection, known: RwLock::default(), mapping: Mutex::default() }
    }

    /// A segment, mapped if need be.
    ///
    /// # Errors
    /// The daemon's, or the system's.
    pub(crate) fn get(&self, number: u32) -> Result<Arc<PeerSegment>, ClientError> {
        match self.mapped(number) {
            Some(mapped) => Ok(mapped),
            None => self.map(number),
        }
    }

    /// Number, bytes and descriptor of each segment that is mapped here.
    pub(crate) fn descriptors(&self) -> io::Result<Vec<(u32, u64, OwnedFd)>> {
        let known = self.known.read();
        let retired = known.retired.iter().filter_map(|(_, segment)| segment.upgrade());
        let mapped = known.mapped.iter().cloned().chain(retired);
        mapped
            .map(|mapped| Ok((mapped.number, mapped.mapping.len() as u64, mapped.descriptor.try_clone()?)))
            .collect()
    }

    /// The owner gave a segment back: it is unmapped once nothing here uses it.
    pub(crate) fn retire(&self, number: u32) {
        let mut known = self.known.write();
        let mapped = known.find(number).ok().map(|place| known.mapped.remove(place));
        if let Err(place) = known.find_retired(number) {
            let still_used = mapped.as_ref().map_or_else(Weak::new, Arc::downgrade);
            known.retired.insert(place, (number, still_used));
        }
        drop(known);
        if mapped.is_none() {
            // The daemon may take it for mapped here: a thread asked for it, and gave up waiting for the answer.
            self.connection.tell(&Request::UnmapSegment { owner: self.owner, segment: number });
        }
    }

    fn mapped(&self, number: u32) -> Option<Arc<PeerSegment>> {
        let known = self.known.read();
        known.find(number).ok().map(|place| known.mapped[place].clone())
    }

    #[cold]
    fn map(&self, number: u32) -> Result<Arc<PeerSegment>, ClientError> {
        let _mapping = self.mapping.lock();
        // Another thread may have been faster.
        if let Some(mapped) = self.mapped(number) {
            return Ok(mapped);
        }
        let request = Request::MapSegment { owner: self.owner, segment: number };
        let (_still, answer) = self.connection.request_still("map a segment", &request)?;
        self.add(number, answer)
    }

    fn add(&self, number: u32, answer: Answer) -> Result<Arc<PeerSegment>, ClientError> {
        let Reply::SegmentMapped { bytes } = answer.reply else {
            return Err(ClientError::unexpected(&answer.reply));
        };
        failpoint(Failpoint::MapGranted);
        let mapping = answer.descriptors().and_then(|[descriptor]| {
            check_received(descriptor.as_fd(), bytes)?;
            Ok((ReadMapping::map(descriptor.as_fd(), 0, bytes as usize)?, descriptor))
        });
        let (mapping, descriptor) = mapping.inspect_err(|_| {
            self.connection.tell(&Request::UnmapSegment { owner: self.owner, segment: number });
        })?;
        failpoint(Failpoint::MapMapped);
        let mut known = self.known.write();
        let place = match known.find(number) {
            Ok(place) => return Ok(known.mapped[place].clone()),
            Err(place) => place,
        };
        let (owner, connection) = (self.owner, self.connection.clone());
        let mapped = Arc::new(PeerSegment { owner, number, mapping, descriptor, connection });
        match known.find_retired(number) {
            Ok(retired) => known.retired[retired].1 = Arc::downgrade(&mapped),
            Err(_) => known.mapped.insert(place, mapped.clone()),
        }
        Ok(mapped)
    }
}

impl Known {
    fn find(&self, number: u32) -> Result<usize, usize> {
        self.mapped.binary_search_by_key(&number, |mapped| mapped.number)
    }

    fn find_retired(&self, number: u32) -> Result<usize, usize> {
        self.retired.binary_search_by_key(&number, |(retired, _)| *retired)
    }
}

impl Drop for PeerSegment {
    fn drop(&mut self) {
        self.connection.tell(&Request::UnmapSegment { owner: self.owner, segment: self.number });
        failpoint(Failpoint::UnmapTold);
    }
}
