//! The connection to the daemon: requests from any thread, one thread that receives.
//!
//! Replies find their requester by correlation number. Notices go to whoever was given to [`Connection::run`]. Nothing
//! on the path of a put or get of leased memory comes here.

use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

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
    lost: AtomicBool,
    /// How long a request without a timeout of its own may take.
    patience: Duration,
}

impl Connection {
    pub(crate) fn new(socket: Socket, patience: Duration) -> Self {
        Self {
            socket,
            correlation: AtomicU64::new(0),
            waiting: Mutex::default(),
            lost: AtomicBool::new(false),
            patience,
        }
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
        if self.is_lost() {
            return Err(ClientError::StoreLost);
        }
        let correlation = self.correlation.fetch_add(1, Ordering::Relaxed) + 1;
        let (sender, receiver) = bounded(1);
        self.waiting.lock().insert(correlation, sender);
        if let Err(error) = self.socket.send(&request.encode(correlation), &[]) {
            self.waiting.lock().remove(&correlation);
            return Err(if is_hang_up(&error) { ClientError::StoreLost } else { error.into() });
        }
        // A hang-up that was noticed in between has emptied the list, which drops our sender.
        if self.is_lost() {
            self.waiting.lock().remove(&correlation);
        }
        let waited = timeout.saturating_add(self.patience);
        match receiver.recv_timeout(waited) {
            Ok(packet) => {
                let (_, reply) = Reply::decode(&packet.bytes)?;
                match reply {
                    Reply::Failed { refusal } => Err(refusal.into()),
                    reply => Ok(Answer { reply, descriptors: packet.descriptors }),
                }
            }
            Err(RecvTimeoutError::Disconnected) => Err(ClientError::StoreLost),
            Err(RecvTimeoutError::Timeout) => {
                self.waiting.lock().remove(&correlation);
                Err(ClientError::Timeout { operation, waited })
            }
        }
    }

    /// Sends a request whose answer nobody needs; `false` if the daemon does not take it now.
    pub(crate) fn tell(&self, request: &Request) -> bool {
        let correlation = self.correlation.fetch_add(1, Ordering::Relaxed) + 1;
        !self.is_lost() && self.socket.send(&request.encode(correlation), &[]).is_ok()
    }

    /// For the receiving thread: hands replies on, returns the next notice.
    pub(crate) fn receive(&self, timeout: Option<Duration>) -> Received {
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        loop {
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
                if let Ok((0, Reply::Failed { refusal: Refusal::BadRequest { reason } })) =
                    Reply::decode(&packet.bytes)
                {
                    tracing::error!(reason, "the store ends the connection");
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
