//! One connection: the process at its other end, and the messages that wait for its socket.

use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use mobula_protocol::socket::{DESCRIPTORS_MAX, Packet, Socket};

use crate::config::Config;
use crate::daemon::registry::outbox::Outgoing;
use crate::server::credentials::{Credentials, refuse_descriptors};

/// The stage of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Stage {
    /// It has not sent a hello, and must before the deadline.
    Greeting { deadline: Instant },
    /// It has sent a hello, and becomes a client when those of the store before are back.
    Waiting { correlation: u64, label: String, serial: u64 },
    /// It was a client of the store before, and hands back its descriptors.
    Returning,
    /// The client with this slot.
    Client { slot: u16 },
}

/// The result of an attempt to send.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Flush {
    /// No message waits any more.
    Empty,
    /// The client does not read fast enough: sending goes on when the socket is writable.
    Blocked,
    /// The system is short of something other than room in the socket: go on a little later.
    Later,
    /// The connection is broken.
    Gone,
}

/// A connection and its out queue.
#[derive(Debug)]
pub(crate) struct Connection {
    pub(crate) stage: Stage,
    pub(crate) credentials: Credentials,
    /// Whether the loop waits until the socket is writable.
    pub(crate) waits_to_write: bool,
    socket: Socket,
    queue: VecDeque<Outgoing>,
    /// Bytes of the messages in the queue.
    queue_bytes: usize,
}

impl Connection {
    pub(crate) fn new(socket: Socket, credentials: Credentials, deadline: Instant) -> Self {
        let stage = Stage::Greeting { deadline };
        Self { stage, credentials, waits_to_write: false, socket, queue: VecDeque::new(), queue_bytes: 0 }
    }

    /// From now on the kernel refuses descriptors from the client, where it can.
    pub(crate) fn refuse_descriptors(&self) {
        refuse_descriptors(&self.socket);
    }

    /// The next message; `None` when the client has hung up.
    pub(crate) fn receive(&self) -> io::Result<Option<Packet>> {
        match self.socket.receive()? {
            Some(packet) if packet.descriptors_lost => {
                let text = format!("a packet over the limit of {DESCRIPTORS_MAX} descriptors");
                Err(io::Error::new(io::ErrorKind::InvalidData, text))
            }
            packet => Ok(packet),
        }
    }

    /// Adds a message to the queue; `false` when there are too many already, or too many bytes of them.
    ///
    /// A hint is dropped instead of waiting behind others.
    pub(crate) fn enqueue(&mut self, message: Outgoing, config: &Config) -> bool {
        if message.hint && !self.queue.is_empty() {
            return true;
        }
        let bytes = self.queue_bytes + message.bytes.len();
        if self.queue.len() >= config.out_queue_messages_max || bytes > config.out_queue_bytes_max {
            return false;
        }
        self.queue_bytes = bytes;
        self.queue.push_back(message);
        true
    }

    /// Sends what the socket takes.
    pub(crate) fn flush(&mut self) -> Flush {
        while let Some(message) = self.queue.front() {
            let descriptors: Vec<BorrowedFd<'_>> = message.attachments.iter().map(AsFd::as_fd).collect();
            match self.socket.send(&message.bytes, &descriptors) {
                Ok(()) => {
                    self.queue_bytes -= message.bytes.len();
                    self.queue.pop_front();
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Flush::Blocked,
                Err(error) if is_shortage(&error) => return Flush::Later,
                Err(_) => return Flush::Gone,
            }
        }
        Flush::Empty
    }

    /// Sends one last message if the socket takes it.
    pub(crate) fn goodbye(&mut self, message: &[u8]) {
        let _ = self.flush();
        say_goodbye(&self.socket, message);
    }
}

/// Sends one last message on a socket if it takes it.
///
/// Unread messages of the other process are discarded first: if a socket is closed with unread messages, the other
/// process sees a reset connection, which hides the reason.
pub(crate) fn say_goodbye(socket: &Socket, message: &[u8]) {
    const UNREAD_MAX: usize = 64;
    let _ = socket.send(message, &[]);
    for _ in 0..UNREAD_MAX {
        match socket.receive() {
            Ok(Some(_)) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
            Ok(None) | Err(_) => break,
        }
    }
}

/// Whether the error is temporary: the system has no memory for the packet, or too many descriptors are on their way to
/// clients that do not fetch them.
pub(crate) fn is_shortage(error: &io::Error) -> bool {
    let errno = error.raw_os_error().unwrap_or(0);
    [libc::ETOOMANYREFS, libc::ENOBUFS, libc::ENOMEM].contains(&errno)
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}
