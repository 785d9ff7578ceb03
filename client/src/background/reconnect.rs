//! Reconnecting: when the daemon was killed, this client finds the daemon that has taken its place, and hands over its
//! descriptors.
//!
//! The old daemon made memory for this client, and this client still has the descriptors:
//!
//! * of its own: its control memory, with its table and its pins, its segments and its spill files;
//! * of other owners: the control memories and the segments that it has mapped;
//! * of dead owners: their deposits, which it holds in [escrow](crate::daemon::escrow);
//! * of the daemon: the control memory with the directory and the daemon's pins.
//!
//! This client sends each descriptor in a message of its own, and the new daemon rebuilds its state from them. The
//! daemon answers when all clients have done so.
//!
//! Puts and gets in leased memory go on meanwhile. The daemon does not need to know the objects that are made and freed
//! in between. While this client hands over, it is granted nothing new ([`Connection::begin_reconnecting`]); if it
//! gives something back in that time, it tells the daemon afterwards.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use mobula_protocol::message::{Reply, Request, is_notice};
use mobula_protocol::socket::Socket;
use mobula_shm::failpoints::{Failpoint, failpoint};
use nix::poll::PollFlags;

use crate::daemon::connection::{Connection, correlation_of, wait_for};
use crate::shared::Shared;

/// The pauses between two attempts to connect grow from the first of these to the second.
const PAUSE_MIN: Duration = Duration::from_millis(1);
const PAUSE_MAX: Duration = Duration::from_millis(50);
/// The pause before descriptors are sent again if the socket had no room for them.
const ROOM_PAUSE: Duration = Duration::from_millis(5);

/// The reason why a daemon did not take this client.
enum Failure {
    /// The daemon is gone. The next one may take this client.
    Gone,
    /// This client has ended.
    Ended,
    /// The daemon has refused this client, with a reason. Every other daemon would refuse it too.
    Refused(String),
}

/// Looks for another daemon, and hands over to it. Returns `false` if there was none in time, if it refused this
/// client, or if the client has ended.
pub(crate) fn find_another(connection: &Connection, client: &Weak<Shared>) -> bool {
    look_for_another(connection, |socket, deadline| {
        let shared = client.upgrade().ok_or(Failure::Ended)?;
        hand_over(&shared, socket, deadline)
    })
}

/// Looks for another daemon for a client that waits for the answer to its hello, and repeats the hello there. Returns
/// `false` as [`find_another`] does.
///
/// A process that dies may still listen for a moment after it has hung up: it is not another daemon.
pub(crate) fn repeat_hello(connection: &Connection, hung_up: Option<u32>) -> bool {
    look_for_another(connection, |socket, _| match socket.peer_process() {
        Ok(process) if process != 0 && Some(process) == hung_up => Err(Failure::Gone),
        _ => Ok(()),
    })
}

/// Tries to connect until a daemon listens and `introduce` has introduced this client to it.
fn look_for_another(
    connection: &Connection,
    introduce: impl Fn(&Socket, Option<Instant>) -> Result<(), Failure>,
) -> bool {
    let began = Instant::now();
    let mut pause = PAUSE_MIN;
    loop {
        let deadline = began.checked_add(connection.timeouts().reconnect);
        let is_late = || deadline.is_some_and(|deadline| Instant::now() >= deadline);
        if connection.is_ending() || is_late() {
            return false;
        }
        match connection.connect_again().map_err(|_| Failure::Gone).and_then(|socket| {
            introduce(&socket, deadline)?;
            Ok(socket)
        }) {
            Ok(socket) => {
                connection.finish_reconnecting(socket);
                tracing::info!("the store was killed, and another one has taken its place");
                return true;
            }
            Err(Failure::Refused(reason)) => {
                tracing::error!(reason, "another store has taken the place of the one that was killed");
                return false;
            }
            Err(Failure::Ended) => return false,
            Err(Failure::Gone) => {}
        }
        std::thread::sleep(pause);
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Hands everything that this client has over to a daemon, and waits until the daemon has rebuilt its state.
fn hand_over(shared: &Arc<Shared>, socket: &Socket, deadline: Option<Instant>) -> Result<(), Failure> {
    failpoint(Failpoint::ResumeFound);
    let mut handover = Handover { shared, socket, deadline };
    // From here on, every request goes to that daemon.
    let still = shared.connection.begin_reconnecting();
    let correlation = handover.tell_all()?;
    drop(still);
    failpoint(Failpoint::ResumeTold);
    handover.wait_for_answer(correlation)?;
    failpoint(Failpoint::ResumeAnswered);
    Ok(())
}

/// Sends the messages of the handover, each within the deadline.
struct Handover<'a> {
    shared: &'a Arc<Shared>,
    socket: &'a Socket,
    deadline: Option<Instant>,
}

impl Handover<'_> {
    /// Sends all messages, in the order that the daemon expects. Returns the correlation number of the last one.
    fn tell_all(&mut self) -> Result<u64, Failure> {
        let shared = self.shared;
        let (segments, segment_last) = shared.owner.held_segments()?;
        let (readers, readers_heard) = shared.owner.readers.known();
        let introduction = Request::Resume {
            owner: shared.owner.id(),
            label: shared.label.clone(),
            slots: shared.peers.slots(),
            segment_last,
            readers_heard,
        };
        let descriptors =
            [shared.peers.control(), shared.events.bell().as_fd(), shared.daemon_control.as_fd()];
        self.tell(&introduction, &descriptors)?;
        failpoint(Failpoint::ResumeIntroduced);
        for held in &segments {
            let request = Request::ResumeSegment { segment: held.id, bytes: held.bytes };
            self.tell(&request, &[held.descriptor.as_fd()])?;
        }
        for (file, bytes, descriptor) in shared.owner.spilled.files() {
            self.tell(&Request::ResumeSpillFile { file, bytes }, &[descriptor.as_fd()])?;
        }
        for reader in readers {
            self.tell(&Request::ResumeReader { reader }, &[])?;
        }
        self.tell_of_peers()?;
        for (channel, peer) in shared.channels.all() {
            self.tell(&Request::ResumeChannel { channel, peer }, &[])?;
        }
        self.tell(&Request::Resumed {}, &[])
    }

    /// Sends what this client has of other owners, living and dead.
    fn tell_of_peers(&mut self) -> Result<(), Failure> {
        let shared = self.shared;
        let peers = shared.peers.all();
        let deposits = shared.escrow.deposits();
        for peer in &peers {
            let owner = peer.id;
            self.tell(&Request::ResumePeer { owner, attached: true }, &peer.descriptors())?;
            for (segment, bytes, descriptor) in peer.segments.descriptors()? {
                let request = Request::ResumeMapped { owner, segment, bytes };
                self.tell(&request, &[descriptor.as_fd()])?;
            }
        }
        for (owner, kept) in deposits.iter() {
            let owner = *owner;
            if !peers.iter().any(|peer| peer.id == owner) {
                let request = Request::ResumePeer { owner, attached: false };
                self.tell(&request, &[kept.control.as_fd(), kept.bell.as_fd()])?;
            }
            for (segment, (bytes, descriptor)) in &kept.segments {
                let request = Request::ResumeEscrowedSegment { owner, segment: *segment, bytes: *bytes };
                self.tell(&request, &[descriptor.as_fd()])?;
            }
            for (file, (bytes, descriptor)) in &kept.spill_files {
                let request = Request::ResumeEscrowedSpillFile { owner, file: *file, bytes: *bytes };
                self.tell(&request, &[descriptor.as_fd()])?;
            }
        }
        Ok(())
    }

    fn tell(&mut self, request: &Request, descriptors: &[BorrowedFd<'_>]) -> Result<u64, Failure> {
        let correlation = self.shared.connection.next_correlation();
        let message = request.encode(correlation);
        loop {
            match self.socket.send(&message, descriptors) {
                Ok(()) => return Ok(correlation),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    wait_for(self.socket, PollFlags::POLLOUT, self.left()?);
                }
                // More descriptors are on their way than the system allows one user. The daemon will receive some.
                Err(error) if error.raw_os_error() == Some(nix::errno::Errno::ETOOMANYREFS as i32) => {
                    std::thread::sleep(self.left()?.min(ROOM_PAUSE));
                }
                Err(_) => return Err(self.reason()),
            }
        }
    }

    /// Waits for the answer to the last message. No other reply may come before it.
    fn wait_for_answer(&mut self, expected: u64) -> Result<(), Failure> {
        loop {
            wait_for(self.socket, PollFlags::POLLIN, self.left()?);
            match self.socket.receive() {
                Ok(Some(packet)) if is_notice(&packet.bytes) => {}
                Ok(Some(packet)) => {
                    let reply = Reply::decode(&packet.bytes).map(|(_, reply)| reply);
                    return match reply {
                        Ok(Reply::Resumed {}) if correlation_of(&packet.bytes) == Some(expected) => Ok(()),
                        Ok(Reply::Failed { refusal }) => Err(Failure::Refused(refusal.to_string())),
                        other => Err(Failure::Refused(format!("{other:?}"))),
                    };
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Ok(None) | Err(_) => return Err(Failure::Gone),
            }
        }
    }

    /// The reason why the daemon no longer reads. Its last message may contain it.
    fn reason(&mut self) -> Failure {
        match self.socket.receive() {
            Ok(Some(packet)) => match Reply::decode(&packet.bytes) {
                Ok((_, Reply::Failed { refusal })) => Failure::Refused(refusal.to_string()),
                _ => Failure::Gone,
            },
            _ => Failure::Gone,
        }
    }

    fn left(&self) -> Result<Duration, Failure> {
        let left = self.deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
        if left.is_zero() { Err(Failure::Gone) } else { Ok(left) }
    }
}

impl From<io::Error> for Failure {
    fn from(error: io::Error) -> Self {
        tracing::warn!(%error, "cannot hand this client's objects over to another store");
        Self::Gone
    }
}
