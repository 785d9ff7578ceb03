//! Another owner as this client sees it: its table, our pins on it, and the segments of it that are mapped here.
//!
//! Everything read from the other's table is checked before it is used: the index against what the daemon committed,
//! the location against the true length of the segment.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{Reply, Request};
use mobula_shm::bell::Bell;
use mobula_shm::mapping::ReadMapping;
use mobula_shm::memory::check_received;
use mobula_shm::pins::PinWriter;
use mobula_shm::table::{Location, State, TableReader};
use parking_lot::RwLock;

use crate::counts::{Counts, Use};
use crate::error::ClientError;
use crate::shared::Shared;

/// How long an entry may stay in the state in which its owner looks at the pins.
const DYING_PATIENCE: Duration = Duration::from_secs(1);

/// Another owner, attached.
pub(crate) struct Peer {
    pub(crate) id: OwnerId,
    pub(crate) shared: Arc<Shared>,
    table: TableReader,
    pins: PinWriter,
    counts: Counts,
    bell: Bell,
    segments: RwLock<Segments>,
}

#[derive(Default)]
struct Segments {
    mapped: HashMap<u32, Arc<PeerSegment>>,
    /// Given back by their owner; never to be kept again.
    retired: HashSet<u32>,
}

/// A segment of another owner, mapped read-only; says so to the daemon when it is unmapped.
pub(crate) struct PeerSegment {
    pub(crate) mapping: ReadMapping,
    owner: OwnerId,
    segment: u32,
    shared: Arc<Shared>,
}

impl Peer {
    /// Asks the daemon for permission to pin an owner's objects. A round trip.
    pub(crate) fn attach(shared: &Arc<Shared>, id: OwnerId) -> Result<Arc<Self>, ClientError> {
        let answer = shared.connection.request("attach", &Request::Attach { owner: id })?;
        let [table, bell] = answer.descriptors()?;
        Ok(Arc::new(Self {
            id,
            table: shared.map_received(table, TableReader::map)?,
            pins: PinWriter::map(shared.pin_file(), id.slot())?,
            counts: Counts::new(),
            bell: Bell::from_descriptor(bell),
            segments: RwLock::default(),
            shared: shared.clone(),
        }))
    }

    /// Pins an object. Memory operations only.
    pub(crate) fn acquire(&self, object: ObjectId, kind: Use) -> Result<State, ClientError> {
        let index = object.index();
        if index >= self.shared.directory.committed(self.id.slot()) {
            return Err(ClientError::NoSuchObject { object });
        }
        self.counts.acquire(index, kind, |bits| self.pins.set(index, bits));
        match self.settled_state(object) {
            Ok(state) => Ok(state),
            Err(error) => {
                self.release(index, kind);
                Err(error)
            }
        }
    }

    /// One more use of what is already used.
    pub(crate) fn acquire_again(&self, index: u32, kind: Use) {
        self.counts.acquire(index, kind, |bits| self.pins.set(index, bits));
    }

    /// Ends a use. Memory operations only; the owner notices by itself.
    pub(crate) fn release(&self, index: u32, kind: Use) {
        self.counts.release(index, kind, |bits| match bits {
            0 => self.pins.clear(index),
            bits => self.pins.set(index, bits),
        });
    }

    /// The state of a pinned object: `Sealed`, `Promised` or `Lost`; everything else is an error.
    pub(crate) fn settled_state(&self, object: ObjectId) -> Result<State, ClientError> {
        let mut patience = None;
        loop {
            // SeqCst: the reader's second half of the handshake (see `mobula_shm::pins`).
            let word = self.table.word(object.index(), Ordering::SeqCst);
            if word.generation() != object.generation() {
                return Err(ClientError::NoSuchObject { object });
            }
            match word.state() {
                Some(state @ (State::Sealed | State::Promised | State::Lost)) => return Ok(state),
                Some(State::Deleted) => return Err(ClientError::Deleted { object }),
                // Its owner sees our pin, or did not: it will be sealed again, or gone, in a moment.
                Some(State::Dying) => {
                    let deadline = *patience.get_or_insert_with(|| Instant::now() + DYING_PATIENCE);
                    if Instant::now() > deadline {
                        return Err(ClientError::OwnerStalled { object });
                    }
                    std::thread::yield_now();
                }
                Some(State::Free) | None => return Err(ClientError::NoSuchObject { object }),
            }
        }
    }

    /// Where a pinned, sealed object lies; checked against the segment's true length.
    pub(crate) fn locate(
        self: &Arc<Self>,
        object: ObjectId,
    ) -> Result<(Location, Option<Arc<PeerSegment>>), ClientError> {
        let location = self.table.location(object.index());
        if Location::extent(location.length, location.references) == Some(0) {
            return Ok((location, None));
        }
        let segment = self.segment(location.segment)?;
        if !location.fits(segment.mapping.len() as u64) {
            return Err(ClientError::Corrupt { object });
        }
        Ok((location, Some(segment)))
    }

    /// Its owner gave a segment back: forget the mapping once nothing uses it.
    pub(crate) fn retire(&self, segment: u32) {
        let mut segments = self.segments.write();
        segments.retired.insert(segment);
        let mapped = segments.mapped.remove(&segment);
        drop(segments);
        if mapped.is_none() {
            // The daemon may think that it is mapped here: somebody asked, and gave up waiting for the answer.
            self.shared.connection.tell(&Request::UnmapSegment { owner: self.id, segment });
        }
    }

    /// Wakes the other process if it sleeps. A load; a system call only if it does.
    pub(crate) fn wake(&self) {
        if self.table.is_sleeping() {
            self.bell.ring();
        }
    }

    fn segment(self: &Arc<Self>, segment: u32) -> Result<Arc<PeerSegment>, ClientError> {
        if let Some(mapped) = self.segments.read().mapped.get(&segment) {
            return Ok(mapped.clone());
        }
        let request = Request::MapSegment { owner: self.id, segment };
        let answer = self.shared.connection.request("map a segment", &request)?;
        let Reply::SegmentMapped { bytes } = answer.reply else {
            return Err(ClientError::BadReply(format!("{:?}", answer.reply)));
        };
        let [descriptor] = answer.descriptors()?;
        let mapping = self.shared.map_received(descriptor, |descriptor| {
            check_received(descriptor, bytes)?;
            ReadMapping::map(descriptor, 0, bytes as usize)
        })?;
        let mapped = Arc::new(PeerSegment { mapping, owner: self.id, segment, shared: self.shared.clone() });
        let mut segments = self.segments.write();
        if !segments.retired.contains(&segment) {
            segments.mapped.entry(segment).or_insert_with(|| mapped.clone());
        }
        Ok(mapped)
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        if !self.shared.guard.is_child() {
            self.shared.connection.tell(&Request::Detach { owner: self.id });
        }
    }
}

impl Drop for PeerSegment {
    fn drop(&mut self) {
        if !self.shared.guard.is_child() {
            let request = Request::UnmapSegment { owner: self.owner, segment: self.segment };
            self.shared.connection.tell(&request);
        }
    }
}
