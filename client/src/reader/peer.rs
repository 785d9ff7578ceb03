//! Another owner that this client is attached to: its table, this client's pins on it, and its bell.
//!
//! Everything read from the peer's table is checked before it is used: the index against the entries that the daemon
//! committed, the location against the true length of the segment.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{Reply, Request};
use mobula_shm::bell::Bell;
use mobula_shm::directory::DirectoryReader;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::memory::check_received;
use mobula_shm::pins::PinWriter;
use mobula_shm::table::{Location, State, TABLE_BYTES, TableReader, Word};

use crate::counting::keep_alive::KeepAlive;
use crate::daemon::connection::{Answer, Connection};
use crate::error::ClientError;
use crate::reader::segment::{PeerSegment, PeerSegments};

/// How long an entry may stay in the state in which its owner looks at the pins.
const DYING_PATIENCE: Duration = Duration::from_secs(1);

/// An attached owner. To drop it tells the daemon.
pub(crate) struct Peer {
    pub(crate) id: OwnerId,
    pub(crate) pins: PinWriter,
    pub(crate) segments: PeerSegments,
    pub(crate) connection: Arc<Connection>,
    table: TableReader,
    directory: Arc<DirectoryReader>,
    /// For the next daemon, should the owner be dead by then.
    control: OwnedFd,
    bell: Bell,
    /// The sleep of the other process for which this process has rung last.
    rung_for: AtomicU32,
    /// The slot, which the peer is reached through, is a part of it.
    _client: KeepAlive,
}

impl Peer {
    /// The owner that the daemon's answer is about: this client may pin its objects now. `own_control` is this client's
    /// control memory, which its pins are in.
    pub(crate) fn new(
        id: OwnerId,
        answer: Answer,
        own_control: BorrowedFd<'_>,
        directory: Arc<DirectoryReader>,
        connection: Arc<Connection>,
        client: KeepAlive,
    ) -> Result<Self, ClientError> {
        let Reply::Attached { .. } = answer.reply else {
            return Err(ClientError::unexpected(&answer.reply));
        };
        let mapped = answer.descriptors().and_then(|[control, bell]| {
            check_received(control.as_fd(), TABLE_BYTES)?;
            let pins = PinWriter::map(own_control, id.slot())?;
            Ok((TableReader::map(control.as_fd())?, control, pins, Bell::check_received(bell)?))
        });
        let (table, control, pins, bell) =
            mapped.inspect_err(|_| connection.tell(&Request::Detach { owner: id }))?;
        let segments = PeerSegments::new(id, connection.clone());
        let rung_for = AtomicU32::new(0);
        Ok(Self {
            id,
            pins,
            segments,
            connection,
            table,
            directory,
            control,
            bell,
            rung_for,
            _client: client,
        })
    }

    /// Where its table, and this client's pins on it, are: the addresses of the first entry and the first pin.
    pub(crate) fn first_places(&self) -> (usize, usize) {
        (self.table.first_entry(), self.pins.first_pin())
    }

    /// Whether this process is a forked child of the one that is attached.
    pub(crate) fn is_child(&self) -> bool {
        self.connection.is_child()
    }

    /// Its control memory and its bell.
    pub(crate) fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.control.as_fd(), self.bell.as_fd()]
    }

    /// Entries of its table that have memory.
    #[inline]
    pub(crate) fn entries_committed(&self) -> u32 {
        self.directory.committed(self.id.slot())
    }

    /// The location in an entry of its table. Nothing of it is checked.
    #[inline]
    pub(crate) fn location(&self, index: u32) -> Location {
        self.table.location(index)
    }

    /// Whether a pinned object is sealed at this moment.
    #[inline]
    pub(crate) fn is_sealed(&self, object: ObjectId) -> bool {
        self.table.word(object.index()) == Word::new(object.generation(), State::Sealed)
    }

    /// The state of a pinned object: `Sealed`, `Promised`, `Lost` or `Spilled`; every other state is an error.
    #[inline]
    pub(crate) fn settled_state(&self, object: ObjectId) -> Result<State, ClientError> {
        let mut deadline = None;
        loop {
            // The reader's second half of the handshake (see `mobula_shm::pins`).
            let word = self.table.word(object.index());
            if word.generation() != object.generation() {
                return Err(ClientError::NoSuchObject { object });
            }
            match word.state() {
                Some(state @ (State::Sealed | State::Promised | State::Lost | State::Spilled)) => {
                    return Ok(state);
                }
                Some(State::Deleted) => return Err(ClientError::Deleted { object }),
                // Its owner looks at the pins. In a moment the object is what it was, or spilled, or gone.
                Some(State::Dying) => {
                    let deadline = *deadline.get_or_insert_with(|| Instant::now() + DYING_PATIENCE);
                    if Instant::now() > deadline {
                        return Err(ClientError::OwnerStalled { object });
                    }
                    std::thread::yield_now();
                }
                Some(State::Free) | None => return Err(ClientError::NoSuchObject { object }),
            }
        }
    }

    /// The segment that a pinned object lies in, mapped if need be.
    pub(crate) fn segment_of(&self, object: ObjectId, segment: u32) -> Result<Arc<PeerSegment>, ClientError> {
        self.segments.get(segment).or_else(|error| {
            // Its owner and the daemon may have died at once, and the object with them: then its entry says so.
            self.settled_state(object)?;
            Err(error)
        })
    }

    /// Wakes the other process if it sleeps, and returns whether it did. A load, and a system call the first time for
    /// each of its sleeps. `finds_idle` says whether the process does not look at the ring: then its bell is rung even
    /// if it is awake.
    #[inline]
    pub(crate) fn wake_for(&self, finds_idle: impl FnOnce() -> bool) -> bool {
        // The fence in `sleep` comes before both loads.
        let sleep = self.table.sleep();
        let is_idle = finds_idle();
        let is_new = sleep.is_some_and(|sleep| self.rung_for.swap(sleep, Ordering::Relaxed) != sleep);
        if is_idle {
            self.bell.ring_for_idle();
        } else if is_new {
            self.bell.ring();
        }
        sleep.is_some()
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        self.connection.tell(&Request::Detach { owner: self.id });
        failpoint(Failpoint::DetachTold);
    }
}
