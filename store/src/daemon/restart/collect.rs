//! The first half of a restart: the clients of a killed daemon come back with the descriptors that it gave them.
//!
//! A store that finds the socket of a killed store does not serve at first. Each client of the killed store connects,
//! says which owner it is, and hands its descriptors back. New clients wait. When all clients are there, or can no
//! longer come, the store [rebuilds](super::rebuild) its contents from the descriptors.
//!
//! Every client has the directory, which names the owner of each slot and its process. So the store knows which clients
//! are missing, and does not wait for one whose process has ended, or whose welcome was never sent: such a client
//! repeats its hello. Before the first client has come, the store does not have the directory, and waits for
//! [`Config::first_resume_window`] only.
//!
//! The store checks everything. The directory must have the client's id, in the same process. Each memory must have the
//! size and the seals that stores give it.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{LABEL_BYTES_MAX, Refusal, Request};
use mobula_shm::bell::Bell;
use mobula_shm::control::control_bytes;
use mobula_shm::directory::{DirectoryWriter, SlotRecord};
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::memory::identity;
use mobula_shm::names::names_bytes;

use crate::config::Config;
use crate::memory::Memory;
use crate::pidfd::has_ended;

/// The store checks this often whether the missing clients can still come.
const LOOK_PERIOD: Duration = Duration::from_millis(10);

/// Bytes of all segments that one client may claim. It is more than any machine has, and small enough that the sum for
/// all clients fits a `u64`. So a faulty client does not spoil the count of the others.
const CLAIM_BYTES_MAX: u64 = 1 << 46;

/// A client that has come back, and everything that it has handed back.
#[derive(Debug)]
pub(crate) struct Claim {
    pub(crate) owner: OwnerId,
    pub(crate) pid: u32,
    pub(crate) label: String,
    pub(crate) segment_last: u32,
    pub(crate) readers_heard: u64,
    pub(crate) control: Memory,
    pub(crate) bell: Bell,
    /// Bytes of all segments that it claims.
    pub(crate) bytes: u64,
    /// Its own segments: number, bytes, memory.
    pub(crate) segments: Vec<(u32, u64, Memory)>,
    /// Its own spill files: number, bytes, file.
    pub(crate) spill_files: Vec<(u32, u64, File)>,
    /// The readers of its objects that the daemon had announced to it.
    pub(crate) readers: BTreeSet<OwnerId>,
    /// Other owners, with the descriptors that it has of them.
    pub(crate) peers: BTreeMap<OwnerId, Peer>,
    /// Its channels: the number, and the client at the other end.
    pub(crate) channels: BTreeMap<u64, OwnerId>,
    /// Correlation number of its last message. `None` until that message has come.
    pub(crate) correlation: Option<u64>,
}

/// The descriptors that a client has of another owner.
#[derive(Debug)]
pub(crate) struct Peer {
    /// Whether the client is attached to the owner. If not, it only holds the owner's descriptors in escrow.
    pub(crate) attached: bool,
    pub(crate) control: OwnedFd,
    pub(crate) bell: OwnedFd,
    /// Segments that the client has mapped: bytes, and a read-only descriptor.
    pub(crate) mapped: BTreeMap<u32, (u64, OwnedFd)>,
    /// Segments of a dead owner that the client holds in escrow: bytes, and a read-only descriptor.
    pub(crate) escrowed: BTreeMap<u32, (u64, OwnedFd)>,
    /// Spill files of a dead owner that the client holds in escrow: bytes, and the file.
    pub(crate) escrowed_files: BTreeMap<u32, (u64, File)>,
}

/// Everything that the clients have handed back.
#[derive(Debug)]
pub(crate) struct Returned {
    /// The control memory of the killed daemon.
    pub(crate) control: Memory,
    /// The owners of the slots when the store was killed.
    pub(crate) occupied: BTreeMap<u16, SlotRecord>,
    /// The clients that have handed back everything, by the keys of their connections.
    pub(crate) claims: BTreeMap<u64, Claim>,
}

/// The memory of the killed daemon, from the first client that has handed it back.
#[derive(Debug)]
struct Left {
    control: Memory,
    occupied: BTreeMap<u16, SlotRecord>,
}

/// The state of a store while the clients come back.
#[derive(Debug)]
pub(crate) struct Recovery {
    config: Config,
    began: Instant,
    look_at: Instant,
    left: Option<Left>,
    claims: BTreeMap<u64, Claim>,
}

impl Recovery {
    pub(crate) fn new(config: Config, now: Instant) -> Self {
        Self { config, began: now, look_at: now + LOOK_PERIOD, left: None, claims: BTreeMap::new() }
    }

    /// The number of clients that have come back.
    pub(crate) fn clients(&self) -> usize {
        self.claims.len()
    }

    /// Handles a message of a client that comes back. The first one must be `Resume`.
    pub(crate) fn message(
        &mut self,
        key: u64,
        pid: u32,
        correlation: u64,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Refusal> {
        match (self.claims.get_mut(&key), request) {
            (None, Request::Resume { owner, label, slots, segment_last, readers_heard }) => {
                let came = Resume { owner, pid, label, slots, segment_last, readers_heard };
                let claim = self.claim(came, descriptors)?;
                tracing::info!(%owner, pid, "client has come back");
                self.claims.insert(key, claim);
                failpoint(Failpoint::RestartClaimed);
                Ok(())
            }
            (Some(claim), request) if claim.correlation.is_none() => {
                claim.add(&self.config, correlation, request, descriptors)
            }
            _ => Err(cannot("a message that makes no sense there")),
        }
    }

    /// Forgets a client whose connection has ended.
    pub(crate) fn gone(&mut self, key: u64) {
        self.claims.remove(&key);
    }

    /// The time at which to ask [`is_over`](Self::is_over) again.
    pub(crate) fn next_deadline(&self) -> Instant {
        self.look_at
    }

    /// Whether every client that can come is there, or the store has waited long enough.
    ///
    /// `repeats_hello` says whether the client of a record waits here for its welcome: the killed store had recorded
    /// it, and died before it answered. Such a client becomes a new one.
    pub(crate) fn is_over(&mut self, now: Instant, repeats_hello: impl Fn(&SlotRecord) -> bool) -> bool {
        if self.look_at <= now {
            self.look_at = now + LOOK_PERIOD;
        }
        let Some(left) = &self.left else { return now >= self.began + self.config.first_resume_window };
        if now >= self.began + self.config.resume_window {
            return true;
        }
        let there: BTreeSet<u16> = self.claims.values().map(|claim| claim.owner.slot()).collect();
        if !self.claims.values().all(|claim| claim.correlation.is_some()) {
            return false;
        }
        let mut missing = left.occupied.iter().filter(|(slot, _)| !there.contains(slot));
        missing.all(|(_, record)| record.process != 0 && (has_ended(record.process) || repeats_hello(record)))
    }

    /// Ends the collection. Returns what has come back, or `None` if no client has, and the keys of the clients that
    /// have not finished.
    pub(crate) fn finish(self) -> (Option<Returned>, Vec<u64>) {
        let (claims, unfinished): (BTreeMap<_, _>, BTreeMap<_, _>) =
            self.claims.into_iter().partition(|(_, claim)| claim.correlation.is_some());
        let left = self.left.filter(|_| !claims.is_empty());
        let returned = left.map(|Left { control, occupied }| Returned { control, occupied, claims });
        (returned, unfinished.into_keys().collect())
    }

    /// Checks the first message of a client and its three descriptors.
    fn claim(&mut self, came: Resume, descriptors: Vec<OwnedFd>) -> Result<Claim, Refusal> {
        let slots = self.config.slots();
        if came.slots != slots {
            return Err(cannot(&format!(
                "it was one of {} clients at most, and this store has room for {}",
                came.slots.saturating_sub(1),
                self.config.clients_max
            )));
        }
        if came.label.len() > LABEL_BYTES_MAX {
            return Err(cannot(&format!("a label of {} bytes, over {LABEL_BYTES_MAX}", came.label.len())));
        }
        let [control, bell, daemon_control] = expect(descriptors)?;
        let control = returned("its control memory", Memory::returned(control, control_bytes(slots)))?;
        let left = self.left(daemon_control)?;
        let slot = came.owner.slot();
        match left.occupied.get(&slot) {
            Some(record) if record.epoch == came.owner.epoch() => {
                if record.process != came.pid && record.process != 0 {
                    return Err(cannot(&format!("client {} was another process", came.owner)));
                }
            }
            _ => return Err(cannot(&format!("there was no client {}", came.owner))),
        }
        if self.claims.values().any(|claim| claim.owner == came.owner) {
            return Err(cannot(&format!("client {} is here already", came.owner)));
        }
        Ok(Claim {
            owner: came.owner,
            pid: came.pid,
            label: came.label,
            segment_last: came.segment_last,
            readers_heard: came.readers_heard,
            control,
            bell: returned("its bell", Bell::check_received(bell))?,
            bytes: 0,
            segments: Vec::new(),
            spill_files: Vec::new(),
            readers: BTreeSet::new(),
            peers: BTreeMap::new(),
            channels: BTreeMap::new(),
            correlation: None,
        })
    }

    /// The control memory of the killed daemon. The first client brings it; every other client must bring the same.
    fn left(&mut self, control: OwnedFd) -> Result<&Left, Refusal> {
        if let Some(left) = &self.left {
            let same = identity(left.control.writable()).ok().zip(identity(control.as_fd()).ok());
            if same.is_none_or(|(ours, theirs)| ours != theirs) {
                return Err(cannot("it comes from another store"));
            }
        } else {
            let slots = self.config.slots();
            let bytes = control_bytes(slots) + names_bytes(self.config.names_max as u32);
            let control = Memory::returned_read_only(control, bytes);
            let control = returned("the daemon's control memory", control)?;
            let writer = returned("the directory", DirectoryWriter::map(control.writable(), slots))?;
            let owner = |slot: u16| Some((slot, writer.owner(slot)?));
            let occupied = (1..slots as u16).filter_map(owner).collect();
            self.left = Some(Left { control, occupied });
        }
        Ok(self.left.as_ref().expect("just found or made"))
    }
}

/// The first message of a client.
struct Resume {
    owner: OwnerId,
    pid: u32,
    label: String,
    slots: u32,
    segment_last: u32,
    readers_heard: u64,
}

impl Claim {
    /// Adds what one of the later messages brings.
    fn add(
        &mut self,
        config: &Config,
        correlation: u64,
        request: Request,
        descriptors: Vec<OwnedFd>,
    ) -> Result<(), Refusal> {
        match request {
            Request::ResumeSegment { segment, bytes } => {
                within("segments_max", self.segments.len(), config.segments_max)?;
                self.count(bytes)?;
                let [descriptor] = expect(descriptors)?;
                let memory = returned("a segment", Memory::returned(descriptor, bytes))?;
                self.segments.push((segment, bytes, memory));
            }
            Request::ResumeSpillFile { file, bytes } => {
                within("spill_files_max", self.spill_files.len(), config.spill_files_max)?;
                let [descriptor] = expect(descriptors)?;
                self.spill_files.push((file, bytes, returned("a spill file", regular(descriptor))?));
            }
            Request::ResumeEscrowedSpillFile { owner, file, bytes } => {
                let files = &mut self.peer(owner)?.escrowed_files;
                within("spill_files_max", files.len(), config.spill_files_max)?;
                let [descriptor] = expect(descriptors)?;
                files.insert(file, (bytes, returned("a spill file", regular(descriptor))?));
            }
            Request::ResumeReader { reader } => {
                within("clients_max", self.readers.len(), config.clients_max as usize)?;
                let [] = expect(descriptors)?;
                self.readers.insert(reader);
            }
            Request::ResumePeer { owner, attached } => {
                within("clients_max", self.peers.len(), config.clients_max as usize)?;
                let [control, bell] = expect(descriptors)?;
                let (mapped, escrowed, escrowed_files) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
                self.peers.insert(owner, Peer { attached, control, bell, mapped, escrowed, escrowed_files });
            }
            Request::ResumeMapped { owner, segment, bytes } => {
                self.count(bytes)?;
                let mapped = &mut self.peer(owner)?.mapped;
                within("segments_max", mapped.len(), config.segments_max)?;
                let [descriptor] = expect(descriptors)?;
                mapped.insert(segment, (bytes, descriptor));
            }
            Request::ResumeEscrowedSegment { owner, segment, bytes } => {
                self.count(bytes)?;
                let escrowed = &mut self.peer(owner)?.escrowed;
                within("segments_max", escrowed.len(), config.segments_max)?;
                let [descriptor] = expect(descriptors)?;
                escrowed.insert(segment, (bytes, descriptor));
            }
            Request::ResumeChannel { channel, peer } => {
                within("channels_max", self.channels.len(), config.channels_max)?;
                let [] = expect(descriptors)?;
                self.channels.insert(channel, peer);
            }
            Request::Resumed {} => {
                let [] = expect(descriptors)?;
                self.correlation = Some(correlation);
            }
            _ => return Err(cannot("a request before the answer to Resumed")),
        }
        Ok(())
    }

    fn count(&mut self, bytes: u64) -> Result<(), Refusal> {
        self.bytes = self.bytes.saturating_add(bytes);
        let reason = || cannot(&format!("segments of more than {CLAIM_BYTES_MAX} bytes"));
        if self.bytes <= CLAIM_BYTES_MAX { Ok(()) } else { Err(reason()) }
    }

    fn peer(&mut self, owner: OwnerId) -> Result<&mut Peer, Refusal> {
        self.peers.get_mut(&owner).ok_or_else(|| cannot("a segment of an owner that it has not told of"))
    }
}

fn cannot(reason: &str) -> Refusal {
    Refusal::CannotResume { reason: reason.to_owned() }
}

fn returned<T>(what: &str, result: io::Result<T>) -> Result<T, Refusal> {
    result.map_err(|error| cannot(&format!("{what}: {error}")))
}

/// Accepts a regular file only, because reading it does not block.
fn regular(descriptor: OwnedFd) -> io::Result<File> {
    let file = File::from(descriptor);
    if file.metadata()?.is_file() { Ok(file) } else { Err(io::ErrorKind::InvalidInput.into()) }
}

fn within(limit: &str, count: usize, max: usize) -> Result<(), Refusal> {
    if count < max { Ok(()) } else { Err(cannot(&format!("more than {limit} = {max} of them"))) }
}

fn expect<const N: usize>(descriptors: Vec<OwnedFd>) -> Result<[OwnedFd; N], Refusal> {
    let count = descriptors.len();
    descriptors.try_into().map_err(|_| cannot(&format!("{count} descriptors where {N} belong")))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A store that gives up too early loses everything that its clients still have.
    #[test]
    fn the_first_client_is_waited_for_as_long_as_the_configuration_says() {
        let window = Duration::from_secs(7);
        let config = Config::new("/tmp/mobula.sock", 1 << 20).first_resume_window(window);
        let began = Instant::now();
        let mut recovery = Recovery::new(config, began);
        let mut is_over = |now| recovery.is_over(now, |_| false);
        assert!(!is_over(began));
        assert!(!is_over(began + window - Duration::from_millis(1)));
        assert!(is_over(began + window));
    }
}
