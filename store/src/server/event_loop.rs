//! The event loop: sockets, deaths and time on one side, the [daemon](crate::daemon) on the other.
//!
//! One thread, which blocks in one place, until a descriptor is ready or something is due; while clients do nothing, it
//! sleeps. Requests take priority over disconnects: each iteration of the loop serves one message of every connection
//! that has sent one. It handles at most [`ENDS_MAX`] hang-ups, because one of them can take as long as many requests.
//! So a client that sends without end delays the others only briefly, and so do thousands of clients that die at once.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_protocol::message::{Refusal, Reply, Request};
use mobula_protocol::socket::Packet;
use mobula_shm::bell::Bell;
use mobula_shm::directory::SlotRecord;
use nix::errno::Errno;
use nix::sys::epoll::{EpollEvent, EpollFlags};

use crate::config::Config;
use crate::daemon::restart::collect::Recovery;
use crate::daemon::{Daemon, Violation};
use crate::error::RunError;
use crate::server::accept::{Acceptor, refusal};
use crate::server::connection::{Connection, Stage, is_shortage, say_goodbye};
use crate::server::connections::Connections;
use crate::server::credentials::{Credentials, refuse_descriptors};
use crate::server::poller::{FIRST_CONNECTION, LIFELINE, LISTENER, Poller, STOPPER, is_end, is_socket};

/// Ends of connections that one iteration handles.
const ENDS_MAX: usize = 32;
/// How many times in a row a wait for events may fail before the loop gives up.
const WAIT_FAILURES_MAX: u32 = 500;
/// The pause after a wait for events that failed.
const WAIT_PAUSE: Duration = Duration::from_millis(10);

/// The loop's state.
pub(crate) struct EventLoop {
    pub(crate) config: Config,
    pub(crate) poller: Poller,
    pub(crate) daemon: Daemon,
    /// While the clients of a store that was killed are coming back: the daemon has no clients yet.
    pub(crate) recovery: Option<Recovery>,
    pub(crate) acceptor: Acceptor,
    pub(crate) connections: Connections,
    /// Ends the loop when it is rung.
    pub(crate) stopper: Arc<Bell>,
    /// Ends the loop when it ends.
    pub(crate) lifeline: Option<OwnedFd>,
}

impl EventLoop {
    /// Serves until the stopper or the lifeline ends it.
    pub(crate) fn run(&mut self) -> Result<(), RunError> {
        self.acceptor.watch(&self.poller).map_err(RunError::Wait)?;
        self.poller.watch(&*self.stopper, STOPPER).map_err(RunError::Wait)?;
        if let Some(lifeline) = &self.lifeline {
            self.poller.watch(lifeline, LIFELINE).map_err(RunError::Wait)?;
        }
        let (mut events, mut failures) = (Vec::new(), 0);
        loop {
            // Room for all events that there may be: no request waits behind the hang-ups of others.
            events.resize(FIRST_CONNECTION as usize + 2 * self.connections.count(), EpollEvent::empty());
            let now = Instant::now();
            let due = self.next_deadline(now).map(|due| due.saturating_duration_since(now));
            let ready = match self.poller.wait(&mut events, due) {
                Ok(count) => &events[..count],
                Err(error) => {
                    failures += 1;
                    if failures == WAIT_FAILURES_MAX {
                        return Err(RunError::Wait(error.into()));
                    }
                    tracing::error!(%error, "cannot wait for events for now");
                    std::thread::sleep(WAIT_PAUSE);
                    continue;
                }
            };
            failures = 0;
            let ends = ready.iter().filter(|event| is_end(event)).take(ENDS_MAX);
            for event in ready.iter().filter(|event| !is_end(event)).chain(ends) {
                match event.data() {
                    LISTENER => self.accept(),
                    STOPPER => return Ok(()),
                    LIFELINE if self.lifeline_has_ended() => {
                        tracing::info!("the process that started the store has ended");
                        return Ok(());
                    }
                    LIFELINE => {}
                    key => self.connection_ready(key, event.events()),
                }
                self.deliver();
            }
            self.tick();
            self.deliver();
        }
    }

    // ---- connections ----

    /// Accepts one connection, as far as limits allow.
    fn accept(&mut self) {
        let returning = self.returning();
        if self.connections.greeting_count(returning) >= self.config.greetings_max {
            // An honest client sends its hello as soon as it is connected.
            let Some((oldest, _)) = self.connections.greeting(returning).last() else { return };
            self.close(oldest, "it said nothing, and other connections wait");
        }
        let Some(socket) = self.acceptor.accept(&self.poller) else { return };
        // Only clients that come back send descriptors.
        if self.recovery.is_none() {
            refuse_descriptors(&socket);
        }
        match Credentials::of(&socket) {
            Ok(credentials) => {
                let deadline = Instant::now() + self.config.hello_timeout;
                self.connections.add(&self.poller, Connection::new(socket, credentials, deadline));
            }
            Err(error) => {
                tracing::warn!(%error, "refused a connection");
                if error.raw_os_error().is_some() {
                    say_goodbye(&socket, &refusal(&error));
                }
            }
        }
    }

    fn connection_ready(&mut self, key: u64, events: EpollFlags) {
        if !is_socket(key) {
            return self.close(key - 1, "its process has ended");
        }
        if events.contains(EpollFlags::EPOLLOUT) {
            self.flush(key);
        }
        // A connection that is broken says so when it is read.
        if events.intersects(!EpollFlags::EPOLLOUT) {
            self.read(key);
        }
    }

    /// Serves one message of a connection. Its replies go out before the next message is read, so that the queue holds
    /// only messages that the client does not fetch.
    fn read(&mut self, key: u64) {
        let Some(connection) = self.connections.get(key) else { return };
        match connection.receive() {
            Ok(Some(packet)) => self.packet(key, packet),
            Ok(None) => self.close(key, "it has hung up"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_shortage(&error) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                self.refuse(key, 0, error.to_string())
            }
            Err(_) => self.close(key, "its connection is broken"),
        }
    }

    fn packet(&mut self, key: u64, packet: Packet) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let (correlation, request) = match Request::decode(&packet.bytes) {
            Ok(decoded) => decoded,
            Err(error) => return self.refuse(key, 0, error.to_string()),
        };
        let violation = match (&connection.stage, request) {
            (Stage::Client { slot }, request) => {
                let outcome = self.daemon.request(*slot, correlation, request, Instant::now());
                outcome.err().map(|Violation(reason)| reason)
            }
            (Stage::Greeting { .. }, Request::Hello { label, serial }) => {
                connection.stage = Stage::Waiting { correlation, label, serial };
                if self.recovery.is_none() {
                    self.let_in(key);
                }
                None
            }
            (Stage::Greeting { .. }, request @ Request::Resume { .. }) | (Stage::Returning, request) => {
                return self.take_back(key, correlation, request, packet.descriptors);
            }
            (Stage::Greeting { .. }, _) => Some("the first request must be Hello".to_owned()),
            (Stage::Waiting { .. }, _) => Some("a request before the answer to Hello".to_owned()),
        };
        if let Some(reason) = violation {
            self.refuse(key, correlation, reason);
        }
    }

    /// Tells a connection that its message is not valid, and closes it.
    fn refuse(&mut self, key: u64, correlation: u64, reason: String) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        tracing::warn!(pid = connection.credentials.pid, reason, "refused a request");
        let reply = Reply::Failed { refusal: Refusal::BadRequest { reason } };
        connection.goodbye(&reply.encode(correlation));
        self.close(key, "its message makes no sense");
    }

    /// Tells a connection why it cannot be a client, which is not its fault, and closes it.
    fn reject(&mut self, key: u64, correlation: u64, refusal: Refusal) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        tracing::warn!(pid = connection.credentials.pid, %refusal, "a connection cannot be a client");
        connection.goodbye(&Reply::Failed { refusal }.encode(correlation));
        self.close(key, "it cannot be a client");
    }

    fn close(&mut self, key: u64, reason: &str) {
        let Some(connection) = self.connections.remove(&self.poller, key) else { return };
        tracing::debug!(pid = connection.credentials.pid, reason, "connection closed");
        match connection.stage {
            Stage::Client { slot } => {
                drop(connection);
                self.daemon.died(slot, Instant::now());
            }
            Stage::Returning => {
                if let Some(recovery) = &mut self.recovery {
                    recovery.gone(key);
                }
            }
            Stage::Greeting { .. } | Stage::Waiting { .. } => {}
        }
        self.acceptor.resume(&self.poller);
    }

    // ---- clients ----

    /// Makes a connection that has sent its hello a client.
    fn let_in(&mut self, key: u64) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Stage::Waiting { correlation, label, serial } = &connection.stage else { return };
        let (correlation, label, serial) = (*correlation, label.clone(), *serial);
        let (pid, user) = (connection.credentials.pid, connection.credentials.user);
        match self.daemon.hello(pid, label, serial, correlation) {
            Ok(owner) => {
                tracing::info!(%owner, pid, "client has connected");
                self.daemon.belongs_to(owner.slot(), user);
                self.connections.set_client(key, owner.slot());
                self.acceptor.resume(&self.poller);
            }
            Err(Refusal::BadRequest { reason }) => self.refuse(key, correlation, reason),
            Err(refusal) => self.reject(key, correlation, refusal),
        }
    }

    /// Handles a message of a client of the previous store.
    fn take_back(&mut self, key: u64, correlation: u64, request: Request, descriptors: Vec<OwnedFd>) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        let Some(recovery) = &mut self.recovery else {
            let reason = "the time in which clients could come back is over".to_owned();
            return self.reject(key, correlation, Refusal::CannotResume { reason });
        };
        connection.stage = Stage::Returning;
        match recovery.message(key, connection.credentials.pid, correlation, request, descriptors) {
            Ok(()) => self.end_recovery_if_over(),
            Err(refusal) => self.reject(key, correlation, refusal),
        }
    }

    /// Makes the daemon from everything that came back, and accepts the clients that have waited for it.
    fn end_recovery_if_over(&mut self) {
        let now = Instant::now();
        let Self { recovery, connections, .. } = self;
        let repeats = |record: &SlotRecord| connections.waits_for_welcome(record.process, record.serial);
        let Some(recovery) = recovery.take_if(|recovery| recovery.is_over(now, repeats)) else { return };
        let (returned, unfinished) = recovery.finish();
        for key in unfinished {
            self.close(key, "it did not come back in time");
        }
        match returned.map(|returned| Daemon::resume(self.config.clone(), first_epoch(), returned, now)) {
            None => {}
            Some(Ok((mut daemon, resumed))) => {
                daemon.spill_into(self.daemon.take_disk());
                self.daemon = daemon;
                for (key, slot) in resumed {
                    if let Some(connection) = self.connections.get(key) {
                        self.daemon.belongs_to(slot, connection.credentials.user);
                    }
                    self.connections.set_client(key, slot);
                }
                self.deliver();
            }
            // The clients hear that the store is lost; this one is a new one.
            Some(Err(error)) => tracing::error!(%error, "cannot go on with the clients of the store before"),
        }
        for key in self.connections.keys() {
            let Some(connection) = self.connections.get(key) else { continue };
            // From now on no client sends any.
            connection.refuse_descriptors();
            match connection.stage {
                Stage::Waiting { .. } => self.let_in(key),
                Stage::Returning => self.close(key, "this store cannot go on with it"),
                Stage::Greeting { .. } | Stage::Client { .. } => {}
            }
        }
        self.acceptor.resume(&self.poller);
    }

    /// How many clients of the store before are coming back.
    fn returning(&self) -> usize {
        self.recovery.as_ref().map_or(0, Recovery::clients)
    }

    // ---- messages ----

    /// Hands the daemon's messages to the connections of their clients.
    fn deliver(&mut self) {
        loop {
            let messages = self.daemon.take_outbox();
            if messages.is_empty() {
                return;
            }
            let mut touched = Vec::new();
            for message in messages {
                match self.connections.enqueue(message, &self.config) {
                    Ok(key) => touched.extend(key),
                    // Its death makes messages, which the next round delivers.
                    Err(key) => self.close(key, "it does not read its messages"),
                }
            }
            touched.dedup();
            for key in touched {
                self.flush(key);
            }
        }
    }

    fn flush(&mut self, key: u64) {
        if let Err(reason) = self.connections.flush(&self.poller, key) {
            self.close(key, reason);
        }
    }

    // ---- time ----

    /// Does the work that is due.
    fn tick(&mut self) {
        let now = Instant::now();
        let greeting = self.connections.greeting(self.returning());
        let silent: Vec<u64> =
            greeting.filter(|(_, deadline)| *deadline <= now).map(|(key, _)| key).collect();
        for key in silent {
            self.close(key, "it sent no hello in time");
        }
        if self.acceptor.due().is_some_and(|due| due <= now) {
            self.acceptor.resume(&self.poller);
        }
        if self.connections.take_send_due(now) {
            self.connections.keys().into_iter().for_each(|key| self.flush(key));
        }
        self.end_recovery_if_over();
        self.daemon.tick(now);
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let greetings = self.connections.greeting(self.returning()).map(|(_, deadline)| deadline);
        let own = [
            self.acceptor.due(),
            self.connections.send_due(),
            self.daemon.next_deadline(now),
            self.recovery.as_ref().map(Recovery::next_deadline),
        ];
        greetings.chain(own.into_iter().flatten()).min()
    }

    /// Whether the lifeline has ended. Bytes that come through it mean nothing.
    fn lifeline_has_ended(&self) -> bool {
        let Some(lifeline) = &self.lifeline else { return false };
        !matches!(nix::unistd::read(lifeline, &mut [0; 64]), Ok(1..) | Err(Errno::EINTR | Errno::EAGAIN))
    }
}

/// The first epoch of this store's owners. Its range differs from that of the previous store, whose ids may still be in
/// use.
pub(crate) fn first_epoch() -> u64 {
    RandomState::new().hash_one(std::process::id()) & ((1 << 48) - 1)
}
