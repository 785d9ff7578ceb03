//! All connections, by the keys of their sockets and by the slots of their clients.

use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

use mobula_protocol::message::Notice;
use nix::sys::epoll::EpollFlags;

use crate::config::Config;
use crate::daemon::registry::outbox::Outgoing;
use crate::server::accept::refusal;
use crate::server::connection::{Connection, Flush, Stage};
use crate::server::poller::{FIRST_CONNECTION, Poller};

/// How soon a message is sent again if the system had no memory or descriptors for it.
const SEND_PAUSE: Duration = Duration::from_millis(10);

/// The connections that there are.
pub(crate) struct Connections {
    by_key: BTreeMap<u64, Connection>,
    by_slot: HashMap<u16, u64>,
    next_key: u64,
    /// When to send messages again that the system had no means for.
    send_again: Option<Instant>,
}

impl Connections {
    pub(crate) fn new() -> Self {
        Self {
            by_key: BTreeMap::new(),
            by_slot: HashMap::new(),
            next_key: FIRST_CONNECTION,
            send_again: None,
        }
    }

    /// Adds a connection and watches it.
    pub(crate) fn add(&mut self, poller: &Poller, mut connection: Connection) {
        let key = self.next_key;
        self.next_key += 2;
        let watched = poller.watch(&connection, key).and_then(|()| match &connection.credentials.pidfd {
            Some(pidfd) => poller.watch(pidfd, key + 1),
            None => Ok(()),
        });
        match watched {
            Ok(()) => drop(self.by_key.insert(key, connection)),
            Err(error) => {
                tracing::error!(%error, "cannot watch a connection");
                unwatch(poller, &connection);
                connection.goodbye(&refusal(&error));
            }
        }
    }

    /// Removes a connection; returns it.
    pub(crate) fn remove(&mut self, poller: &Poller, key: u64) -> Option<Connection> {
        let connection = self.by_key.remove(&key)?;
        unwatch(poller, &connection);
        if let Stage::Client { slot } = connection.stage {
            self.by_slot.remove(&slot);
        }
        Some(connection)
    }

    pub(crate) fn get(&self, key: u64) -> Option<&Connection> {
        self.by_key.get(&key)
    }

    pub(crate) fn get_mut(&mut self, key: u64) -> Option<&mut Connection> {
        self.by_key.get_mut(&key)
    }

    /// The keys of all connections.
    pub(crate) fn keys(&self) -> Vec<u64> {
        self.by_key.keys().copied().collect()
    }

    pub(crate) fn count(&self) -> usize {
        self.by_key.len()
    }

    /// Whether a client of this process, with this number in it, has sent its hello and waits for the answer.
    pub(crate) fn waits_for_welcome(&self, process: u32, number: u64) -> bool {
        self.by_key.values().any(|connection| {
            matches!(connection.stage, Stage::Waiting { serial, .. } if serial == number)
                && connection.credentials.pid == process
        })
    }

    /// A connection is the client with this slot from now on.
    pub(crate) fn set_client(&mut self, key: u64, slot: u16) {
        if let Some(connection) = self.by_key.get_mut(&key) {
            connection.stage = Stage::Client { slot };
            self.by_slot.insert(slot, key);
        }
    }

    /// How many connections have sent no hello, when `returning` others are coming back.
    pub(crate) fn greeting_count(&self, returning: usize) -> usize {
        self.by_key.len() - self.by_slot.len() - returning
    }

    /// The connections that have sent no hello, with their deadlines, the youngest first. They are among
    /// the youngest of all, so the search seldom goes far.
    pub(crate) fn greeting(&self, returning: usize) -> impl Iterator<Item = (u64, Instant)> {
        let strangers =
            self.by_key.iter().rev().filter(|(_, connection)| {
                !matches!(connection.stage, Stage::Client { .. } | Stage::Returning)
            });
        strangers.take(self.greeting_count(returning)).filter_map(|(key, connection)| {
            match connection.stage {
                Stage::Greeting { deadline } => Some((*key, deadline)),
                _ => None,
            }
        })
    }

    // ---- sending ----

    /// Adds a message to the queue of its client; returns the client's key, if it is connected. The error is the key of
    /// a client that has let too many messages pile up.
    pub(crate) fn enqueue(&mut self, message: Outgoing, config: &Config) -> Result<Option<u64>, u64> {
        let Some(key) = self.by_slot.get(&message.client).copied() else { return Ok(None) };
        let Some(connection) = self.by_key.get_mut(&key) else { return Ok(None) };
        if connection.enqueue(message, config) { Ok(Some(key)) } else { Err(key) }
    }

    /// Sends the messages of a connection that its socket takes. The error is why the connection must be closed.
    pub(crate) fn flush(&mut self, poller: &Poller, key: u64) -> Result<(), &'static str> {
        let Some(connection) = self.by_key.get_mut(&key) else { return Ok(()) };
        let outcome = connection.flush();
        match outcome {
            Flush::Gone => return Err("it has hung up"),
            Flush::Later => _ = self.send_again.get_or_insert(Instant::now() + SEND_PAUSE),
            Flush::Empty | Flush::Blocked => {}
        }
        let blocked = outcome == Flush::Blocked;
        if connection.waits_to_write != blocked {
            connection.waits_to_write = blocked;
            let interest =
                if blocked { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            if let Err(error) = poller.set_interest(&*connection, key, interest) {
                tracing::error!(%error, "cannot watch a connection");
                return Err("it cannot be watched");
            }
        }
        Ok(())
    }

    /// When to send messages again that the system had no means for.
    pub(crate) fn send_due(&self) -> Option<Instant> {
        self.send_again
    }

    /// Whether messages are to be sent again now; asked once for each time.
    pub(crate) fn take_send_due(&mut self, now: Instant) -> bool {
        self.send_again.take_if(|due| *due <= now).is_some()
    }

    /// Tells clients, and connections that are not clients yet, that no other store will take this one's place, so that
    /// they do not wait for it.
    pub(crate) fn say_goodbye(&mut self) {
        let message = Notice::Closing {}.encode(0);
        for connection in self.by_key.values_mut() {
            if !matches!(connection.stage, Stage::Returning) {
                connection.goodbye(&message);
            }
        }
    }
}

fn unwatch(poller: &Poller, connection: &Connection) {
    poller.unwatch(connection);
    if let Some(pidfd) = &connection.credentials.pidfd {
        poller.unwatch(pidfd);
    }
}
