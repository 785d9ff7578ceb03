//! The connection to the daemon: any thread sends requests, one thread receives.
//!
//! A reply is matched with its request by the correlation number. [`Connection::receive`] returns notices to the
//! background thread. A put or a get in leased memory never uses the connection.
//!
//! No thread blocks on the socket itself. While the daemon does not read, a request waits until its deadline, and a
//! message without an answer is kept until the socket has room. These messages cannot pile up: each gives back
//! something that an earlier request got.
//!
//! A forked child shares the socket with its parent, so the child sends nothing: a request is an error, and a message
//! without an answer is dropped.
//!
//! # A daemon that is killed
//!
//! Then there is no socket for a while, until the background thread has found another daemon and told it what this
//! client has. New requests wait meanwhile, and requests without an answer are sent again: every request can be
//! repeated. An answer of the old daemon is invalid if it granted something that the new daemon does not know. So a
//! thread that acts on an answer first calls [`Connection::hold_still`]: until it drops the guard, this client hands
//! nothing over to another daemon.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, bounded};
use mobula_protocol::message::{Notice, Refusal, Reply, Request, is_notice};
use mobula_protocol::socket::{Packet, Socket};
use mobula_shm::fork::ForkGuard;
use mobula_shm::recorder::Recorder;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::daemon::traffic::Traffic;
use crate::error::ClientError;

/// How long the receiving thread waits when the system has no memory for the next packet.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(10);

/// How long the daemon may take.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Timeouts {
    /// For the answer to a request that the daemon does not let wait.
    pub(crate) answer: Duration,
    /// For memory, in a store that is full.
    pub(crate) memory: Duration,
    /// For another daemon, in the place of one that was killed.
    pub(crate) reconnect: Duration,
}

/// A reply and the descriptors that came with it.
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) descriptors: Vec<OwnedFd>,
    descriptors_lost: bool,
    /// The number of the daemon that sent it.
    pub(crate) daemon: u64,
}

impl Answer {
    /// The `N` descriptors of the answer.
    ///
    /// # Errors
    /// [`ClientError::BadReply`] for another number of them; the system's where this process had no room for them.
    pub(crate) fn descriptors<const N: usize>(self) -> Result<[OwnedFd; N], ClientError> {
        if self.descriptors_lost {
            return Err(io::Error::from(Errno::EMFILE).into());
        }
        let count = self.descriptors.len();
        self.descriptors
            .try_into()
            .map_err(|_| ClientError::BadReply(format!("{count} descriptors where {N} belong")))
    }
}

/// The outcome of one [`Connection::receive`].
pub(crate) enum Received {
    Notice(Notice, Vec<OwnedFd>),
    /// A reply whose requester has given up waiting.
    Unclaimed(Reply),
    /// The timeout has passed, or a reply was handed to its requester.
    Nothing,
    HungUp,
}

/// A client's connection to its store. The daemon at the other end may change.
#[derive(Debug)]
pub(crate) struct Connection {
    guard: ForkGuard,
    path: PathBuf,
    timeouts: Timeouts,
    correlation: AtomicU64,
    traffic: Mutex<Traffic>,
    /// The number of the current daemon: 0 for the first one.
    daemon: RwLock<u64>,
    /// The store is lost: this client will have no daemon again.
    lost: AtomicBool,
    /// The daemon's reason for ending the connection.
    goodbye: Mutex<Option<Refusal>>,
    /// This client ends, or the daemon has said goodbye: no other daemon is looked for.
    ending: AtomicBool,
    /// The recorder of this client's events, if it records any. Here every part of the client finds it.
    recorder: OnceLock<Arc<Recorder>>,
}

impl Connection {
    pub(crate) fn open(path: &Path, guard: ForkGuard, timeouts: Timeouts) -> io::Result<Self> {
        // The next daemon listens at the same path, also when this process has changed its directory.
        let path = std::path::absolute(path)?;
        let traffic = Traffic::new(connect(&path)?);
        Ok(Self {
            guard,
            path,
            timeouts,
            correlation: AtomicU64::new(0),
            traffic: Mutex::new(traffic),
            daemon: RwLock::new(0),
            lost: AtomicBool::new(false),
            goodbye: Mutex::default(),
            ending: AtomicBool::new(false),
            recorder: OnceLock::new(),
        })
    }

    /// Events go into this recorder from now on.
    pub(crate) fn record(&self, recorder: Option<Arc<Recorder>>) {
        if let Some(recorder) = recorder {
            let _ = self.recorder.set(recorder);
        }
    }

    /// The recorder of this client's events, if it records any. Costs one load.
    #[inline]
    pub(crate) fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.recorder.get()
    }

    pub(crate) fn timeouts(&self) -> Timeouts {
        self.timeouts
    }

    /// Whether this process is a forked child of the one that has connected.
    pub(crate) fn is_child(&self) -> bool {
        self.guard.is_child()
    }

    /// Sends a request and waits for its answer. A round trip to the daemon.
    pub(crate) fn request(&self, operation: &'static str, request: &Request) -> Result<Answer, ClientError> {
        self.request_within(operation, request, Duration::ZERO)
    }

    /// As [`request`](Self::request), for a request that the daemon may let wait for `timeout`.
    pub(crate) fn request_within(
        &self,
        operation: &'static str,
        request: &Request,
        timeout: Duration,
    ) -> Result<Answer, ClientError> {
        let answer = self.request_unless(operation, request, timeout, Duration::MAX, || false)?;
        Ok(answer.expect("it was not withdrawn"))
    }

    /// As [`request`](Self::request), for an answer that gives something to this client. Until the caller has stored it
    /// and drops the guard, this client hands nothing over to another daemon. If the handover is already done, the
    /// answer is too late: it is dropped, and the request is repeated.
    pub(crate) fn request_still(
        &self,
        operation: &'static str,
        request: &Request,
    ) -> Result<(RwLockReadGuard<'_, u64>, Answer), ClientError> {
        loop {
            let answer = self.request(operation, request)?;
            if let Some(still) = self.hold_still(answer.daemon) {
                return Ok((still, answer));
            }
        }
    }

    /// As [`request_within`](Self::request_within), for a lease that may turn out not to be needed: `is_needless` is
    /// called at intervals of `every`. When it says so, the request is withdrawn, and there is no answer. Until then
    /// the request keeps its place in the daemon's queue.
    pub(crate) fn request_unless(
        &self,
        operation: &'static str,
        request: &Request,
        timeout: Duration,
        every: Duration,
        mut is_needless: impl FnMut() -> bool,
    ) -> Result<Option<Answer>, ClientError> {
        if self.guard.is_child() {
            return Err(ClientError::ForkedChild);
        }
        let waited = timeout.saturating_add(self.timeouts.answer);
        let deadline = Instant::now().checked_add(waited);
        let (correlation, receiver) = self.send(request, deadline)?;
        loop {
            let left = left(deadline);
            let mut received = receiver.recv_timeout(left.min(every));
            if matches!(received, Err(RecvTimeoutError::Timeout)) && left <= every {
                let mut traffic = self.traffic.lock();
                if traffic.give_up(correlation) {
                    return match traffic.socket {
                        Some(_) => Err(ClientError::Timeout { operation, waited }),
                        None => Err(ClientError::StoreLost),
                    };
                }
                drop(traffic);
                // Its answer is on the way, and may bring something that must not be lost.
                received = receiver.recv().map_err(RecvTimeoutError::from);
            }
            match received {
                Ok((packet, daemon)) => {
                    let (_, reply) = Reply::decode(&packet.bytes)?;
                    return match reply {
                        Reply::Failed { refusal } => Err(refusal.into()),
                        reply => {
                            let Packet { descriptors, descriptors_lost, .. } = packet;
                            Ok(Some(Answer { reply, descriptors, descriptors_lost, daemon }))
                        }
                    };
                }
                Err(RecvTimeoutError::Disconnected) => return Err(ClientError::StoreLost),
                // A request that is gone from the list has its answer on the way.
                Err(RecvTimeoutError::Timeout) => {
                    if is_needless() && self.traffic.lock().give_up(correlation) {
                        self.tell(&Request::Withdraw { correlation });
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Sends a request, now or when there is a daemon again. Returns its correlation number and its answer's channel.
    fn send(
        &self,
        request: &Request,
        deadline: Option<Instant>,
    ) -> Result<(u64, Receiver<(Packet, u64)>), ClientError> {
        let correlation = self.next_correlation();
        let (sender, receiver) = bounded(1);
        let message = request.encode(correlation);
        let mut traffic = self.traffic.lock();
        // Inside the lock: `lose` empties the list afterwards.
        if self.is_lost() {
            return Err(ClientError::StoreLost);
        }
        traffic.send_request(correlation, message, sender);
        while traffic.is_unsent(correlation)
            && let Some(socket) = traffic.socket.clone()
        {
            // The daemon does not read.
            drop(traffic);
            let left = left(deadline);
            if !left.is_zero() {
                wait_for(&socket, PollFlags::POLLOUT, left);
            }
            traffic = self.traffic.lock();
            traffic.flush();
            if left.is_zero() {
                break;
            }
        }
        Ok((correlation, receiver))
    }

    /// Sends a request whose answer is not needed, now or when the daemon reads again. Does nothing in a forked child.
    pub(crate) fn tell(&self, request: &Request) {
        if self.guard.is_child() {
            return;
        }
        let message = request.encode(self.next_correlation());
        let mut traffic = self.traffic.lock();
        if !self.is_lost() {
            traffic.send_message(message);
        }
    }

    /// While the guard lives, this client hands nothing over to another daemon. `None` if it already has handed over to
    /// a daemon after the one with this number.
    pub(crate) fn hold_still(&self, daemon: u64) -> Option<RwLockReadGuard<'_, u64>> {
        let current = self.daemon.read();
        (*current == daemon).then_some(current)
    }

    /// For the background thread: hands replies to their requesters, and returns the next notice.
    pub(crate) fn receive(&self, timeout: Option<Duration>) -> Received {
        loop {
            // Messages that could not be sent while the daemon did not read. When it reads again, it answers, and this
            // thread wakes up.
            let socket = {
                let mut traffic = self.traffic.lock();
                traffic.flush();
                traffic.socket.clone()
            };
            let Some(socket) = socket else { return Received::HungUp };
            let wait = timeout.map_or(PollTimeout::NONE, |timeout| {
                PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut [PollFd::new(socket.as_fd(), PollFlags::POLLIN)], wait) {
                Ok(0) => return Received::Nothing,
                Err(nix::errno::Errno::EINTR) => continue,
                _ => {}
            }
            let packet = match socket.receive() {
                Ok(Some(packet)) => packet,
                Ok(None) => return self.hang_up(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(%error, "dropped a message from the store");
                    continue;
                }
                Err(error) if is_shortage(&error) => {
                    std::thread::sleep(SHORTAGE_PAUSE);
                    continue;
                }
                Err(_) => return self.hang_up(),
            };
            if is_notice(&packet.bytes) {
                match Notice::decode(&packet.bytes) {
                    Ok((_, notice)) => return Received::Notice(notice, packet.descriptors),
                    Err(error) => tracing::error!(%error, "dropped a notice from the store"),
                }
            } else if let Some(correlation) = correlation_of(&packet.bytes) {
                let requester = self.traffic.lock().take_waiting(correlation);
                if let Some(requester) = requester {
                    let daemon = *self.daemon.read();
                    let _ = requester.answer.send((packet, daemon));
                    return Received::Nothing;
                }
                match Reply::decode(&packet.bytes) {
                    Ok((0, Reply::Failed { refusal })) => {
                        tracing::error!(%refusal, "the store ends the connection");
                        *self.goodbye.lock() = Some(refusal);
                        self.end_with_daemon();
                    }
                    Ok((_, reply)) => return Received::Unclaimed(reply),
                    Err(error) => tracing::error!(%error, "dropped a reply from the store"),
                }
            }
        }
    }

    /// The daemon's reason for ending the connection, if it gave one.
    pub(crate) fn goodbye(&self) -> Option<Refusal> {
        self.goodbye.lock().take()
    }

    /// Whether messages wait until the daemon reads again.
    pub(crate) fn has_unsent(&self) -> bool {
        self.traffic.lock().has_unsent()
    }

    /// Whether there will be no daemon any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Whether no other daemon is looked for when this one hangs up.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// The daemon has said goodbye.
    pub(crate) fn end_with_daemon(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// Ends the connection from this side. Does nothing in a forked child: the parent has the same socket.
    pub(crate) fn close(&self) {
        if self.guard.is_child() {
            return;
        }
        self.ending.store(true, Ordering::Release);
        if let Some(socket) = &self.traffic.lock().socket {
            socket.shutdown();
        }
    }

    // ---- for reconnecting ----

    /// Connects to the daemon that listens at the path now.
    pub(crate) fn connect_again(&self) -> io::Result<Socket> {
        connect(&self.path)
    }

    /// The socket of the current daemon.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    pub(crate) fn next_correlation(&self) -> u64 {
        self.correlation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// The process at the other end; `None` while there is none.
    pub(crate) fn daemon_process(&self) -> Option<u32> {
        self.traffic.lock().socket.as_ref()?.peer_process().ok()
    }

    /// From now on, answers of the old daemon are invalid. While the guard lives, this client is granted nothing new.
    pub(crate) fn begin_reconnecting(&self) -> RwLockWriteGuard<'_, u64> {
        let mut daemon = self.daemon.write();
        *daemon += 1;
        daemon
    }

    /// Goes on with another daemon, which knows what this client has.
    pub(crate) fn finish_reconnecting(&self, socket: Socket) {
        let mut traffic = self.traffic.lock();
        traffic.go_on(socket);
        if self.is_ending()
            && let Some(socket) = &traffic.socket
        {
            socket.shutdown();
        }
    }

    /// No other daemon was found: every request fails.
    pub(crate) fn lose(&self) {
        let mut traffic = self.traffic.lock();
        self.lost.store(true, Ordering::Release);
        traffic.lose();
    }

    fn hang_up(&self) -> Received {
        self.traffic.lock().hang_up();
        Received::HungUp
    }
}

/// Connects to a store of this user or of root. A process of another user that listens there is told nothing.
fn connect(path: &Path) -> io::Result<Socket> {
    let socket = Socket::connect(path)?;
    let (user, ours) = (socket.peer_user()?, geteuid().as_raw());
    if user != ours && user != 0 && ours != 0 {
        let text = format!("the process that listens there belongs to user {user}, not to this one ({ours})");
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
    }
    socket.set_nonblocking()?;
    Ok(socket)
}

/// Whether the system has no memory for a packet at the moment.
fn is_shortage(error: &io::Error) -> bool {
    [Errno::ENOMEM, Errno::ENOBUFS].contains(&Errno::from_raw(error.raw_os_error().unwrap_or(0)))
}

/// Blocks until a socket is ready for something, or the time has passed.
pub(crate) fn wait_for(socket: &Socket, flags: PollFlags, timeout: Duration) -> bool {
    let timeout = timeout.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32;
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    matches!(poll(&mut [PollFd::new(socket.as_fd(), flags)], timeout), Ok(1..))
}

fn left(deadline: Option<Instant>) -> Duration {
    deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()))
}

pub(crate) fn correlation_of(bytes: &[u8]) -> Option<u64> {
    bytes.get(8..16).map(|field| u64::from_le_bytes(field.try_into().expect("eight bytes")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_that_comes_when_patience_ends_is_not_lost() {
        const PATIENCE: Duration = Duration::from_millis(100);
        let directory = std::env::temp_dir().join(format!("mobula-answer-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("socket");
        let timeouts = Timeouts { answer: PATIENCE, memory: PATIENCE, reconnect: PATIENCE };
        let _silent = Socket::listen(&path, 1).unwrap();
        let connection = Connection::open(&path, ForkGuard::new().unwrap(), timeouts).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        std::thread::scope(|scope| {
            let asker = scope.spawn(|| connection.request("ask", &Request::Stats {}));
            let mut traffic = connection.traffic.lock();
            while traffic.waiting.is_empty() {
                assert!(!asker.is_finished(), "patience ended before the request was seen");
                drop(traffic);
                std::thread::yield_now();
                traffic = connection.traffic.lock();
            }
            // While the answer is taken off the list, the asker's patience ends.
            std::thread::sleep(2 * PATIENCE);
            let (correlation, waiting) = traffic.waiting.pop_first().unwrap();
            drop(traffic);
            let bytes = Reply::Done {}.encode(correlation);
            waiting.answer.send((Packet { bytes, ..Packet::default() }, 0)).unwrap();
            assert!(matches!(asker.join().unwrap(), Ok(Answer { reply: Reply::Done {}, .. })));
        });
    }
}
