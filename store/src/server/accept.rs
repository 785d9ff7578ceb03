//! Accepting connections, also when the system has no descriptors left.

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use mobula_protocol::message::Reply;
use mobula_protocol::socket::Socket;
use nix::sys::epoll::EpollFlags;

use crate::daemon::answer::no_memory;
use crate::server::connection::say_goodbye;
use crate::server::endpoint::Endpoint;
use crate::server::poller::{LISTENER, Poller};

/// How long the store accepts no connection after the system refused one, unless a connection ends before.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);

/// The listening socket.
pub(crate) struct Acceptor {
    endpoint: Endpoint,
    /// A descriptor that is closed for a moment when none is left, to accept a connection and tell it so.
    spare: Option<OwnedFd>,
    /// While no connections are accepted: when to try again.
    again: Option<Instant>,
}

impl Acceptor {
    pub(crate) fn new(endpoint: Endpoint) -> Self {
        Self { endpoint, spare: spare_descriptor(), again: None }
    }

    /// Begins to watch for connections.
    pub(crate) fn watch(&self, poller: &Poller) -> io::Result<()> {
        poller.watch(&self.endpoint, LISTENER)
    }

    /// The connection that has waited longest; `None` when there is none, or none can be accepted.
    pub(crate) fn accept(&mut self, poller: &Poller) -> Option<Socket> {
        match self.endpoint.accept() {
            Ok(socket) => socket,
            Err(error) if is_out_of_descriptors(&error) && self.refuse_one(&error) => None,
            Err(error) => {
                tracing::error!(%error, "cannot accept connections for now");
                self.pause(poller);
                None
            }
        }
    }

    /// When to accept connections again, while none are accepted.
    pub(crate) fn due(&self) -> Option<Instant> {
        self.again
    }

    /// Accepts connections again.
    pub(crate) fn resume(&mut self, poller: &Poller) {
        if self.again.take().is_some() {
            self.listen(poller, EpollFlags::EPOLLIN);
        }
    }

    /// Accepts no connections for a while: a listener that cannot be served would wake the loop without end.
    fn pause(&mut self, poller: &Poller) {
        if self.again.replace(Instant::now() + ACCEPT_PAUSE).is_none() {
            self.listen(poller, EpollFlags::empty());
        }
    }

    /// Tells the next connection that there are no descriptors, by means of the spare one; `false` where none could be
    /// told.
    fn refuse_one(&mut self, error: &io::Error) -> bool {
        let mut told = false;
        if self.spare.take().is_some()
            && let Ok(Some(socket)) = self.endpoint.accept()
        {
            tracing::warn!(%error, "refused a connection");
            say_goodbye(&socket, &refusal(error));
            told = true;
        }
        self.spare = spare_descriptor();
        told
    }

    fn listen(&self, poller: &Poller, interest: EpollFlags) {
        if let Err(error) = poller.set_interest(&self.endpoint, LISTENER, interest) {
            tracing::error!(%error, "cannot watch for connections");
        }
    }
}

/// The message to a connection for which the system has no memory or no descriptors. The connection has asked for
/// nothing yet, so the message answers no request.
pub(crate) fn refusal(error: &io::Error) -> Vec<u8> {
    Reply::Failed { refusal: no_memory(0, error) }.encode(0)
}

fn spare_descriptor() -> Option<OwnedFd> {
    std::fs::File::open("/dev/null").map(OwnedFd::from).ok()
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    [libc::EMFILE, libc::ENFILE].contains(&error.raw_os_error().unwrap_or(0))
}
