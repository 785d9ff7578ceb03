//! The connection to the daemon: requests from any thread, one thread that receives.
//!
//! Replies find their requester by correlation number. Notices go to whoever was given to [`Connection::run`]. Nothing
//! on the path of a put or get of leased memory comes here.
//!
//! No thread blocks on the socket itself: while the daemon does not read, requests wait as long as they may, and what
//! is only told is kept until there is room. It cannot pile up: what is told gives back something that a request got.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use crossbeam::channel::{RecvTimeoutError, Sender, bounded};
use mobula_protocol::message::{Notice, Refusal, Reply, Request, is_notice};
use mobula_protocol::socket::{Packet, Socket};
use parking_lot::Mutex;

use crate::error::ClientError;

/// A reply and the descriptors that came with it.
pub(crate) struct Answer {
    pub(crate) reply: Reply,
    pub(crate) descriptors: Vec<OwnedFd>,
}

impl Answer {
    /// Exactly `N` descriptors, or the reply is nonsense.
    pub(crate) fn descriptors<const N: usize>(self) -> Result<[OwnedFd; N], ClientError> {
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

/// The socket and the requests that wait for an answer.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    correlation: AtomicU64,
    waiting: Mutex<HashMap<u64, Sender<Packet>>>,
    /// What was told and not yet sent; everything that is sent goes behind it.
    unsent: Mutex<VecDeque<Vec<u8>>>,
    lost: AtomicBool,
    /// How long a request without a timeout of its own may take.
    patience: Duration,
}

impl Connection {
    pub(crate) fn new(socket: Socket, patience: Duration) -> io::Result<Self> {
        socket.set_nonblocking()?;
        Ok(Self {
            socket,
            correlation: AtomicU64::new(0),
            waiting: Mutex::default(),
            unsent: Mutex::default(),
            lost: AtomicBool::new(false),
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
        if self.is_lost() {
            return Err(ClientError::StoreLost);
        }
        let correlation = self.correlation.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = bounded(1);
        self.waiting.lock().insert(correlation, sender);
        let waited = timeout.saturating_add(self.patience);
        let deadline = Instant::now().checked_add(waited);
        if let Err(error) = self.send(&request.encode(correlation), deadline) {
            self.waiting.lock().remove(&correlation);
            return Err(match error.kind() {
                io::ErrorKind::WouldBlock => ClientError::Timeout { operation, waited },
                _ if is_hang_up(&error) => ClientError::StoreLost,
                _ => error.into(),
            });
        }
        // A hang-up that was noticed in between has emptied the list, which drops our sender.
        if self.is_lost() {
            self.waiting.lock().remove(&correlation);
        }
        loop {
            let left = deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
            match receiver.recv_timeout(left.min(every)) {
                Ok(packet) => {
                    let (_, reply) = Reply::decode(&packet.bytes)?;
                    return match reply {
                        Reply::Failed { refusal } => Err(refusal.into()),
                        reply => Ok(Some(Answer { reply, descriptors: packet.descriptors })),
                    };
                }
                Err(RecvTimeoutError::Disconnected) => return Err(ClientError::StoreLost),
                Err(RecvTimeoutError::Timeout) if left <= every => {
                    self.waiting.lock().remove(&correlation);
                    return Err(ClientError::Timeout { operation, waited });
                }
                // Who finds it gone from the list has its answer on the way.
                Err(RecvTimeoutError::Timeout) => {
                    if is_needless() && self.waiting.lock().remove(&correlation).is_some() {
                        self.tell(&Request::Withdraw { correlation });
                        return Ok(None);
                    }
                }
            }
        }
    }

    /// Sends a request whose answer nobody needs, now or when the daemon reads again.
    pub(crate) fn tell(&self, request: &Request) {
        let correlation = self.correlation.fetch_add(1, Ordering::Relaxed) + 1;
        let mut unsent = self.unsent.lock();
        unsent.push_back(request.encode(correlation));
        // An error is noticed by the receiving thread.
        let _ = self.send_unsent(&mut unsent);
    }

    /// Sends a message behind what was told before; waits for room until the deadline, then `WouldBlock`.
    fn send(&self, message: &[u8], deadline: Option<Instant>) -> io::Result<()> {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        loop {
            let mut unsent = self.unsent.lock();
            let sent = self.send_unsent(&mut unsent).and_then(|()| self.socket.send(message, &[]));
            drop(unsent);
            match sent {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let left =
                        deadline.map_or(Duration::MAX, |at| at.saturating_duration_since(Instant::now()));
                    if left.is_zero() {
                        return Err(error);
                    }
                    let left_ms = left.as_micros().div_ceil(1000).min(i32::MAX as u128) as i32;
                    let timeout = PollTimeout::try_from(left_ms).unwrap_or(PollTimeout::MAX);
                    let _ = poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLOUT)], timeout);
                }
                sent => return sent,
            }
        }
    }

    fn send_unsent(&self, unsent: &mut VecDeque<Vec<u8>>) -> io::Result<()> {
        while let Some(message) = unsent.front() {
            self.socket.send(message, &[])?;
            unsent.pop_front();
        }
        Ok(())
    }

    /// For the receiving thread: hands replies on, returns the next notice.
    pub(crate) fn receive(&self, timeout: Option<Duration>) -> Received {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        loop {
            // What could not be sent while the daemon did not read: as it reads, it answers, so we come by here.
            let _ = self.send_unsent(&mut self.unsent.lock());
            let wait = timeout.map_or(PollTimeout::NONE, |timeout| {
                PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX)
            });
            match poll(&mut [PollFd::new(self.socket.as_fd(), PollFlags::POLLIN)], wait) {
                Ok(0) => return Received::Nothing,
                Err(nix::errno::Errno::EINTR) => continue,
                _ => {}
            }
            let packet = match self.socket.receive() {
                Ok(Some(packet)) => packet,
                Ok(None) => return self.hang_up(),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    tracing::error!(%error, "dropped a message from the store");
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
                let requester = self.waiting.lock().remove(&correlation);
                if let Some(requester) = requester {
                    let _ = requester.send(packet);
                    return Received::Nothing;
                }
                match Reply::decode(&packet.bytes) {
                    Ok((0, Reply::Failed { refusal: Refusal::BadRequest { reason } })) => {
                        tracing::error!(reason, "the store ends the connection");
                    }
                    Ok((_, reply)) => return Received::Orphan(reply),
                    Err(error) => tracing::error!(%error, "dropped a reply from the store"),
                }
            }
        }
    }

    /// Whether the daemon has hung up.
    pub(crate) fn is_lost(&self) -> bool {
        self.lost.load(Ordering::Acquire)
    }

    /// Ends the connection from this side.
    pub(crate) fn close(&self) {
        self.socket.shutdown();
    }

    fn hang_up(&self) -> Received {
        self.lost.store(true, Ordering::Release);
        self.waiting.lock().clear();
        Received::HungUp
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn correlation_of(bytes: &[u8]) -> Option<u64> {
    bytes.get(8..16).map(|field| u64::from_le_bytes(field.try_into().expect("eight bytes")))
}

fn is_hang_up(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}
