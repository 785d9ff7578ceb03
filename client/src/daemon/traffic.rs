//! The messages on their way to the daemon, and the requests that wait for an answer.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;

use crossbeam::channel::Sender;
use mobula_protocol::socket::{Packet, Socket};

/// A request that waits for its answer.
#[derive(Debug)]
pub(super) struct PendingRequest {
    pub(super) answer: Sender<(Packet, u64)>,
    /// The request itself, to be sent to another daemon.
    message: Vec<u8>,
}

/// The socket, and the messages on their way.
#[derive(Debug)]
pub(super) struct Traffic {
    /// `None` while there is no daemon.
    pub(super) socket: Option<Arc<Socket>>,
    /// By correlation number, so in the order in which they were sent.
    pub(super) waiting: BTreeMap<u64, PendingRequest>,
    /// Messages still to be sent, in order: each with its correlation number, or 0 where no answer is wanted.
    unsent: VecDeque<(u64, Vec<u8>)>,
}

impl Traffic {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket: Some(Arc::new(socket)), waiting: BTreeMap::new(), unsent: VecDeque::new() }
    }

    /// Sends a request, now or later; its answer goes to the channel.
    pub(super) fn send_request(&mut self, correlation: u64, message: Vec<u8>, answer: Sender<(Packet, u64)>) {
        self.waiting.insert(correlation, PendingRequest { answer, message: message.clone() });
        self.unsent.push_back((correlation, message));
        self.flush();
    }

    /// Sends a message that gets no answer, now or later.
    pub(super) fn send_message(&mut self, message: Vec<u8>) {
        self.unsent.push_back((0, message));
        self.flush();
    }

    /// Sends as many messages as the socket takes. The receiving thread notices an error.
    pub(super) fn flush(&mut self) {
        let Some(socket) = &self.socket else { return };
        while let Some((_, message)) = self.unsent.front() {
            if socket.send(message, &[]).is_err() {
                return;
            }
            self.unsent.pop_front();
        }
    }

    pub(super) fn is_unsent(&self, correlation: u64) -> bool {
        self.unsent.iter().any(|(number, _)| *number == correlation)
    }

    /// Takes a request back; `false` if its answer has come.
    pub(super) fn give_up(&mut self, correlation: u64) -> bool {
        self.unsent.retain(|(number, _)| *number != correlation);
        self.waiting.remove(&correlation).is_some()
    }

    /// The request that an answer belongs to; `None` if it was taken back.
    pub(super) fn take_waiting(&mut self, correlation: u64) -> Option<PendingRequest> {
        self.waiting.remove(&correlation)
    }

    /// Whether messages wait until the daemon reads again.
    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    /// The daemon has hung up. A message without an answer concerned the old daemon's state; a request is repeated.
    pub(super) fn hang_up(&mut self) {
        self.socket = None;
        let requests = self.waiting.iter();
        self.unsent =
            requests.map(|(correlation, waiting)| (*correlation, waiting.message.clone())).collect();
    }

    /// Goes on with another daemon.
    pub(super) fn go_on(&mut self, socket: Socket) {
        self.socket = Some(Arc::new(socket));
        self.flush();
    }

    /// There will be no daemon any more: every request fails.
    pub(super) fn lose(&mut self) {
        self.socket = None;
        self.waiting.clear();
        self.unsent.clear();
    }
}
