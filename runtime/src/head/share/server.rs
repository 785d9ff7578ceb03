//! The thread of the session's process that talks with drivers.

use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::Instant;

use mobula_client::internal::Socket;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::unistd::geteuid;

use super::{Division, ToSession};
use crate::wire;

/// The most messages that wait for a driver to read them. A driver for which more messages wait counts as dead.
const WAITING_MAX: usize = 1 << 16;
/// The most messages of one driver that are read before those of others.
const MESSAGES_AT_A_TIME: usize = 64;

/// A connection of a driver, or of a program that stops the session.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: Socket,
    /// The messages that wait to be sent.
    out: VecDeque<Vec<u8>>,
    is_closed: bool,
}

impl Connection {
    pub(super) fn new(socket: Socket) -> Self {
        Self { socket, out: VecDeque::new(), is_closed: false }
    }

    pub(super) fn send(&mut self, message: &impl serde::Serialize) {
        self.out.push_back(wire::to_vec(message));
        self.is_closed |= self.out.len() > WAITING_MAX;
        self.flush();
    }

    pub(super) fn flush(&mut self) {
        while let Some(message) = self.out.front().filter(|_| !self.is_closed) {
            match self.socket.send(message, &[]) {
                Ok(()) => _ = self.out.pop_front(),
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => self.is_closed = true,
            }
        }
    }

    /// The next message that has arrived.
    pub(super) fn receive<T: for<'a> serde::Deserialize<'a>>(&mut self) -> Option<T> {
        if self.is_closed {
            return None;
        }
        match self.socket.receive() {
            Ok(Some(packet)) => match wire::read(&packet.bytes) {
                Ok(message) => return Some(message),
                Err(error) => tracing::warn!(%error, "a message about resources that cannot be read"),
            },
            Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
            Ok(None) | Err(_) => {}
        }
        self.is_closed = true;
        None
    }

    pub(super) fn is_closed(&self) -> bool {
        self.is_closed
    }

    /// The events to wait for.
    pub(super) fn events(&self) -> PollFlags {
        if self.out.is_empty() { PollFlags::POLLIN } else { PollFlags::POLLIN | PollFlags::POLLOUT }
    }
}

impl AsFd for Connection {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

/// Serves drivers until one of them stops the session, or `stopped` becomes readable. Returns the connections. When
/// they are closed, the other ends know that the session has stopped.
pub(crate) fn serve(listener: &Socket, stopped: BorrowedFd<'_>, division: Division) -> Vec<Connection> {
    let mut drivers = Drivers::new(division);
    loop {
        drivers.arrange(Instant::now());
        let timeout = drivers.division.timeout(Instant::now());
        let timeout = timeout.map_or(PollTimeout::NONE, |timeout| {
            // Rounded up: else it would be over a little too early, again and again.
            PollTimeout::try_from(timeout + std::time::Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
        });
        let mut descriptors =
            vec![PollFd::new(listener.as_fd(), PollFlags::POLLIN), PollFd::new(stopped, PollFlags::POLLIN)];
        let open = drivers.connections.values();
        descriptors.extend(open.map(|driver| PollFd::new(driver.as_fd(), driver.events())));
        let _ = poll(&mut descriptors, timeout);
        if descriptors[1].any() == Some(true) {
            return drivers.into_connections();
        }
        while let Ok(Some(socket)) = listener.accept() {
            if socket.peer_user().is_ok_and(|user| user == geteuid().as_raw()) {
                drivers.add(socket);
            }
        }
        if drivers.receive(Instant::now()) {
            return drivers.into_connections();
        }
    }
}

/// The drivers of a session, and the division of its resources among them.
pub(super) struct Drivers {
    pub(super) division: Division,
    connections: BTreeMap<u64, Connection>,
    driver_last: u64,
}

impl Drivers {
    pub(super) fn new(division: Division) -> Self {
        Self { division, connections: BTreeMap::new(), driver_last: 0 }
    }

    /// A driver has connected.
    pub(super) fn add(&mut self, socket: Socket) {
        self.driver_last += 1;
        self.connections.insert(self.driver_last, Connection::new(socket));
    }

    /// Sends the drivers what the division decides.
    pub(super) fn arrange(&mut self, now: Instant) {
        for (driver, message) in self.division.arrange(now) {
            if let Some(connection) = self.connections.get_mut(&driver) {
                connection.send(&message);
            }
        }
    }

    /// Handles the messages that have arrived, and the ends of drivers. Returns whether a driver stops the session.
    pub(super) fn receive(&mut self, now: Instant) -> bool {
        for (driver, connection) in &mut self.connections {
            connection.flush();
            for _ in 0..MESSAGES_AT_A_TIME {
                match connection.receive() {
                    Some(ToSession::Stop) => return true,
                    Some(message) => self.division.on_record(*driver, message, now),
                    None => break,
                }
            }
        }
        for (driver, _) in self.connections.extract_if(.., |_, connection| connection.is_closed()) {
            self.division.gone(driver, now);
        }
        false
    }

    fn into_connections(self) -> Vec<Connection> {
        self.connections.into_values().collect()
    }
}
