//! The connection to the daemon: requests from any thread, one thread that receives.
//!
//! Replies find their requester by correlation number. Notices go to whoever calls [`Connection::receive`]. Nothing on
//! the path of a put or get of leased memory comes here.
//!
//! No thread blocks on the socket itself: while the daemon does not read, requests wait as long as they may, and what
//! is only told is kept until there is room. It cannot pile up: what is told gives back something that a request got.
//!
//! # A daemon that is killed
//!
//! Then there is no socket for a while, until the receiving thread has found another daemon and
//! [handed it](crate::daemon::reconnect) what this client has. What is asked meanwhile waits, and what was asked and not answered
//! is asked again: every request can be. An answer that came from the daemon before is worth nothing any more if it
//! brought something that the new daemon was not told of: so whoever acts on one makes sure, by
//! [`Connection::hold_still`], that no other daemon is told what this client has until that is a part of it.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{Receiver, RecvTimeoutError, Sender, bounded};
use mobula_protocol::message::{Notice, Refusal, Reply, Request, is_notice};
use mobula_protocol::socket::{Packet, Socket};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;
use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};

use crate::error::ClientError;

/// How long the receiving thread leaves the socket alone when the system has no memory for what it brings.
const SHORTAGE_PAUSE: Duration = Duration::from_millis(10);

/// A reply and the descriptors that came with it.
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) descriptors: Vec<OwnedFd>,
    descriptors_lost: bool,
    /// Which of the daemons it is from.
    pub(crate) daemon: u64,
}

impl Answer {
    /// Exactly `N` descriptors, or the reply is nonsense; an error where this process had no room for them.
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

/// What the receiving thread found.
pub(crate) enum Received {
    Notice(Notice, Vec<OwnedFd>),
    /// A reply that nobody waits for any more.
    Orphan(Reply),
    /// The time given to `receive` has passed, or a reply was handed on.
    Nothing,
    HungUp,
}

/// A request that waits for its answer.
#[derive(Debug)]
struct Waiting {
    answer: Sender<(Packet, u64)>,
    /// To ask another daemon.
    message: Vec<u8>,
}

#[derive(Debug)]
struct Link {
    /// `None` while there is no daemon.
    socket: Option<Arc<Socket>>,
    /// By correlation number, so in the order in which they were asked.
    waiting: BTreeMap<u64, Waiting>,
    /// What is still to be sent, in order; with the correlation number of a request that waits.
    unsent: VecDeque<(u64, Vec<u8>)>,
}

impl Link {
    /// Sends what the socket takes. What goes wrong is noticed by the receiving thread.
    fn flush(&mut self) {
        let Some(socket) = &self.socket else { return };
        while let Some((_, message)) = self.unsent.front() {
            if socket.send(message, &[]).is_err() {
                return;
            }
            self.unsent.pop_front();
        }
    }

    fn is_unsent(&self, correlation: u64) -> bool {
        self.unsent.iter().any(|(number, _)| *number == correlation)
    }

    /// Waits no more for an answer; `false` when it has come.
    fn give_up(&mut self, correlation: u64) -> bool {
        self.unsent.retain(|(number, _)| *number != correlation);
        self.waiting.remove(&correlation).is_some()
    }
}

/// The way to the daemon and the requests that wait for an answer.
#[derive(Debug)]
pub(crate) struct Connection {
    path: PathBuf,
    correlation: AtomicU64,
    link: Mutex<Link>,
    /// How many daemons there have been before this one.
    daemon: RwLock<u64>,
    /// There will be no daemon any more.
    lost: AtomicBool,
    /// What the daemon said before it ended the connection.
    farewell: Mutex<Option<Refusal>>,
    /// This client ends, or the daemon has said that it does: nobody else is looked for.
    ending: AtomicBool,
    /// How long a request without a timeout of its own may take.
    patience: Duration,
}

impl Connection {
    pub(crate) fn open(path: &Path, patience: Duration) -> io::Result<Self> {
        // Another daemon is looked for at the same place, also when the process has changed its directory.
        let path = std::path::absolute(path)?;
        let socket = connect(&path)?;
        let link = Link { socket: Some(Arc::new(socket)), waiting: BTreeMap::new(), unsent: VecDeque::new() };
        Ok(Self {
            path,
            correlation: AtomicU64::new(0),
            link: Mutex::new(link),
            daemon: RwLock::new(0),
            lost: AtomicBool::new(false),
            farewell: Mutex::default(),
            ending: AtomicBool::new(false),
            patience,
        })
    }

    /// Sends a request and waits for its answer. A round trip to the daemon.
    pub(crate) fn request(&self, operation: &'static str, request: &Request) -> Result<Answer, ClientError> {
        self.request_within(operation, request, Duration::ZERO)
    }

    /// The same for a request that the daemon itself may let wait for `timeout`.
    pub(crate) fn request_within(
        &self,
        operation: &'static str,
        request: &Request,
        timeout: Duration,
    ) -> Result<Answer, ClientError> {
        let answer = self.request_unless(operation, request, timeout, Duration::MAX, || false)?;
        Ok(answer.expect("it was not withdrawn"))
    }

    /// The same for a lease that may turn out not to be needed, which `is_needless` is asked `every` so often: then it
    /// is withdrawn, and there is no answer. It keeps its place in the daemon's queue meanwhile.
    pub(crate) fn request_unless(
        &self,
        operation: &'static str,
        request: &Request,
        timeout: Duration,
        every: Duration,
        mut is_needless: impl FnMut() -> bool,
    ) -> Result<Option<Answer>, ClientError> {
        let waited = timeout.saturating_add(self.patience);
        let deadline = Instant::now().checked_add(waited);
        let (correlation, receiver) = self.ask(request, deadline)?;
        loop {
            let left = left(deadline);
            let mut received = receiver.recv_timeout(left.min(every));
            if matches!(received, Err(RecvTimeoutError::Timeout)) && left <= every {
                let mut link = self.link.lock();
                if link.give_up(correlation) {
                    return match link.socket {
                        Some(_) => Err(ClientError::Timeout { operation, waited }),
                        None => Err(ClientError::StoreLost),
                    };
                }
                drop(link);
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
                // Who finds it gone from the list has its answer on the way.
                Err(RecvTimeoutError::Timeout) => {
                    if is_needless() && self.link.lock().give_up(correlation) {
                        self.tell(&Request::Withdraw { correlation });
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Sends a request, now or when there is a daemon again; returns what ties its answer to it, and where that comes.
    fn ask(
        &self,
        request: &Request,
        deadline: Option<Instant>,
    ) -> Result<(u64, Receiver<(Packet, u64)>), ClientError> {
        let correlation = self.next_correlation();
        let (sender, receiver) = bounded(1);
        let message = request.encode(correlation);
        let mut link = self.link.lock();
        // Looked at inside the lock: whoever loses the store empties the list afterwards.
        if self.is_lost() {
            return Err(ClientError::StoreLost);
        }
        link.waiting.insert(correlation, Waiting { answer: sender, message: message.clone() });
        link.unsent.push_back((correlation, message));
        link.flush();
        while link.is_unsent(correlation)
            && let Some(socket) = link.socket.clone()
        {
            // The daemon does not read.
            drop(link);
            let left = left(deadline);
            if !left.is_zero() {
                wait_for(&socket, PollFlags::POLLOUT, left);
            }
            link = self.link.lock();
            link.flush();
            if left.is_zero() {
                break;
            }
        }
        Ok((correlation, receiver))
    }

    /// Sends a request whose answer nobody needs, now or when the daemon reads again.
    pub(crate) fn tell(&self, request: &Request) {
        let message = request.encode(self.next_correlation());
        let mut link = self.link.lock();
        if !self.is_lost() {
            link.unsent.push_back((0, message));
            link.flush();
        }
    }

    /// Whatever this client has while the guard lives, another daemon will be told of; `None` where there is another
    /// already, which was told before.
    pub(crate) fn hold_still(&self, daemon: u64) -> Option<RwLockReadGuard<'_, u64>> {
        let current = self.daemon.read();
        (*current == daemon).then_some(current)
    }

    /// For the receiving thread: hands replies on, returns the next notice.
    pub(crate) fn receive(&self, timeout: Option<Duration>) -> Received {
        loop {
            // What could not be sent while the daemon did not read: as it reads, it answers, so we come by here.
            let socket = {
                let mut link = self.link.lock();
                link.flush();
                link.socket.clone()
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
                let requester = self.link.lock().waiting.remove(&correlation);
                if let Some(requester) = requester {
                    let daemon = *self.daemon.read();
                    let _ = requester.answer.send((packet, daemon));
                    return Received::Nothing;
                }
                match Reply::decode(&packet.bytes) {
                    Ok((0, Reply::Failed { refusal })) => {
                        tracing::error!(%refusal, "the store ends the connection");
                        *self.farewell.lock() = Some(refusal);
                    }
                    Ok((_, reply)) => return Received::Orphan(reply),
                    Err(error) => tracing::error!(%error, "dropped a reply from the store"),
                }
            }
        }
    }

    /// Why the daemon has ended the connection, if it said so.
    pub(crate) fn farewell(&self) -> Option<Refusal> {
        self.farewell.lock().take()
    }

    /// Whether something was told that could not be sent yet.
    pub(crate) fn has_unsent(&self) -> bool {
        !self.link.lock().unsent.is_empty()
    }

    /// Whether there will be no daemon any more.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Whether nobody is looked for when the daemon hangs up.
    pub(crate) fn is_ending(&self) -> bool {
        self.ending.load(Ordering::Acquire)
    }

    /// The daemon ends on purpose.
    pub(crate) fn daemon_ends(&self) {
        self.ending.store(true, Ordering::Release);
    }

    /// Ends the connection from this side.
    pub(crate) fn close(&self) {
        self.ending.store(true, Ordering::Release);
        if let Some(socket) = &self.link.lock().socket {
            socket.shutdown();
        }
    }

    // ---- for `reconnect` ----

    /// Connects to whoever listens at the path now.
    pub(crate) fn connect_again(&self) -> io::Result<Socket> {
        connect(&self.path)
    }

    pub(crate) fn next_correlation(&self) -> u64 {
        self.correlation.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// From now on answers of the daemon before are worth nothing. While the guard lives, what this client has does not
    /// grow.
    pub(crate) fn begin_another(&self) -> RwLockWriteGuard<'_, u64> {
        let mut daemon = self.daemon.write();
        *daemon += 1;
        daemon
    }

    /// Goes on with another daemon, which knows what this client has.
    pub(crate) fn go_on(&self, socket: Socket) {
        let mut link = self.link.lock();
        link.socket = Some(Arc::new(socket));
        link.flush();
        if self.is_ending()
            && let Some(socket) = &link.socket
        {
            socket.shutdown();
        }
    }

    /// No other daemon was found: every request ends.
    pub(crate) fn lose(&self) {
        let mut link = self.link.lock();
        self.lost.store(true, Ordering::Release);
        link.socket = None;
        link.waiting.clear();
        link.unsent.clear();
    }

    fn hang_up(&self) -> Received {
        let mut link = self.link.lock();
        link.socket = None;
        // What was told belongs to what is gone; what was asked is asked again.
        link.unsent = link
            .waiting
            .iter()
            .map(|(correlation, waiting)| (*correlation, waiting.message.clone()))
            .collect();
        Received::HungUp
    }
}

/// Connects to a store, of this user's or root's: to whoever else listens there nothing is told, and nothing handed.
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
        let _silent = Socket::listen(&path, 1).unwrap();
        let connection = Connection::open(&path, PATIENCE).unwrap();
        std::fs::remove_dir_all(&directory).unwrap();
        std::thread::scope(|scope| {
            let asker = scope.spawn(|| connection.request("ask", &Request::Stats {}));
            let mut link = connection.link.lock();
            while link.waiting.is_empty() {
                assert!(!asker.is_finished(), "patience ended before the request was seen");
                drop(link);
                std::thread::yield_now();
                link = connection.link.lock();
            }
            // While the answer is taken off the list, the asker's patience ends.
            std::thread::sleep(2 * PATIENCE);
            let (correlation, waiting) = link.waiting.pop_first().unwrap();
            drop(link);
            let bytes = Reply::Done {}.encode(correlation);
            waiting.answer.send((Packet { bytes, ..Packet::default() }, 0)).unwrap();
            assert!(matches!(asker.join().unwrap(), Ok(Answer { reply: Reply::Done {}, .. })));
        });
    }
}
