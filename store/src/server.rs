//! The event loop: sockets, deaths and time on one side, the [daemon](crate::daemon) on the other.
//!
//! One thread, which blocks in one place, until a descriptor is ready or something is due; without clients' doing it
//! sleeps. Each descriptor has a key: the listener and the lifeline have fixed ones, a connection has two in a row,
//! its socket's and its process's. Keys are not used twice, so an event that comes too late means nobody.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use mobula_protocol::message::{Notice, Refusal, Reply, Request};
use mobula_protocol::socket::Packet;
use nix::errno::Errno;
use polling::{Event, Events, PollMode, Poller};

use crate::config::Config;
use crate::connection::{Connection, Flush, Stage, is_shortage, say_farewell};
use crate::daemon::{Daemon, Violation};
use crate::disk::Disk;
use crate::endpoint::Endpoint;
use crate::error::{RunError, StartError};
use crate::memory::no_memory;
use crate::peer::{Peer, refuse_descriptors};
use crate::recovery::Recovery;

const LISTENER: usize = 0;
const LIFELINE: usize = 1;
const FIRST_CONNECTION: usize = 2;

/// Messages that one connection is served before the others have their turn: as few as possible, so that one that sends
/// without end hardly holds up who asks something now and then.
const TURN_MESSAGES: usize = 2;
/// Connections that are accepted before those that are there have their turn.
const TURN_CONNECTIONS: usize = 2;
/// How long the loop leaves alone what the system refused for lack of descriptors or memory, unless a connection ends.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
const SEND_PAUSE: Duration = Duration::from_millis(10);
/// How often in a row waiting for events may fail before the loop gives up.
const WAIT_FAILURES_MAX: u32 = 500;

/// A store that is bound to its socket.
pub struct Server {
    poller: Arc<Poller>,
    stopped: Arc<AtomicBool>,
    endpoint: Endpoint,
    daemon: Daemon,
    /// While the clients of a store that was killed are waited for: the daemon has no clients yet.
    recovery: Option<Recovery>,
    config: Config,
}

/// Ends a running [`Server`] from another thread.
#[derive(Debug, Clone)]
pub struct Stopper {
    poller: Arc<Poller>,
    stopped: Arc<AtomicBool>,
}

impl Stopper {
    /// Makes [`Server::run`] return soon. Clients see a hang-up.
    pub fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        if let Err(error) = self.poller.notify() {
            tracing::error!(%error, "cannot wake the store to stop it");
        }
    }
}

impl Server {
    /// Validates the configuration and listens. Clients that connect wait until [`run`](Self::run).
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        let config = config.validate()?;
        let mut daemon = Daemon::new(config.clone(), first_epoch())
            .map_err(StartError::system("make the store's own memory"))?;
        daemon.spill_into(config.spill_directory.as_deref().map(Disk::open).transpose()?);
        let poller = Poller::new().map_err(StartError::system("watch for events"))?;
        let endpoint = Endpoint::bind(&config.socket)?;
        let recovery = endpoint.takes_place().then(|| Recovery::new(config.clone(), Instant::now()));
        Ok(Self { recovery, poller: Arc::new(poller), stopped: Arc::default(), endpoint, daemon, config })
    }

    /// What ends [`run`](Self::run).
    pub fn stopper(&self) -> Stopper {
        Stopper { poller: self.poller.clone(), stopped: self.stopped.clone() }
    }

    /// Serves until it is [stopped](Self::stopper); then removes the socket. The memory goes with its last user.
    ///
    /// # Errors
    /// [`RunError`], where the system fails the loop itself.
    pub fn run(self) -> Result<(), RunError> {
        self.serve(None)
    }

    /// Serves until it is stopped, or until everyone who has the other end of `lifeline` has ended: the read end of a
    /// pipe of which another process keeps the write end.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_while_open(self, lifeline: OwnedFd) -> Result<(), RunError> {
        self.serve(Some(lifeline))
    }

    fn serve(self, lifeline: Option<OwnedFd>) -> Result<(), RunError> {
        tracing::info!(
            socket = %self.config.socket.display(),
            capacity_bytes = self.config.capacity_bytes,
            "the store is running"
        );
        let mut event_loop = EventLoop {
            server: self,
            lifeline,
            connections: BTreeMap::new(),
            by_slot: HashMap::new(),
            next_key: FIRST_CONNECTION,
            accept_again: None,
            send_again: None,
            spare: spare_descriptor(),
        };
        let result = event_loop.run();
        event_loop.say_farewell();
        event_loop.unwatch_all();
        tracing::info!("the store has ended");
        result
    }
}

/// The loop's own state.
struct EventLoop {
    server: Server,
    lifeline: Option<OwnedFd>,
    /// By the key of their sockets.
    connections: BTreeMap<usize, Connection>,
    /// Keys of the clients' connections.
    by_slot: HashMap<u16, usize>,
    next_key: usize,
    /// While connections are not accepted: when to try again.
    accept_again: Option<Instant>,
    /// When to send again what the system had no means for.
    send_again: Option<Instant>,
    /// Given up for a moment to tell whoever connects that there are no descriptors.
    spare: Option<OwnedFd>,
}

impl EventLoop {
    fn run(&mut self) -> Result<(), RunError> {
        self.watch(&self.server.endpoint, Event::readable(LISTENER)).map_err(RunError::Wait)?;
        if let Some(lifeline) = &self.lifeline {
            self.watch(lifeline, Event::readable(LIFELINE)).map_err(RunError::Wait)?;
        }
        let (mut events, mut failures) = (Events::new(), 0);
        loop {
            let now = Instant::now();
            let timeout = self.next_deadline(now).map(|due| due.saturating_duration_since(now));
            events.clear();
            match self.server.poller.wait(&mut events, timeout) {
                Err(error) if error.kind() != io::ErrorKind::Interrupted => {
                    failures += 1;
                    if failures == WAIT_FAILURES_MAX {
                        return Err(RunError::Wait(error));
                    }
                    tracing::error!(%error, "cannot wait for events for now");
                    std::thread::sleep(SEND_PAUSE);
                }
                _ => failures = 0,
            }
            if self.server.stopped.load(Ordering::Acquire) {
                return Ok(());
            }
            for event in events.iter() {
                match event.key {
                    LISTENER => self.accept(),
                    LIFELINE if self.lifeline_ended() => {
                        tracing::info!("whoever started the store has ended");
                        return Ok(());
                    }
                    LIFELINE => {}
                    key => self.connection_ready(key, event),
                }
                self.deliver();
            }
            self.tick();
            self.deliver();
        }
    }

    /// Takes in the connections that wait, as far as limits allow.
    fn accept(&mut self) {
        for _ in 0..TURN_CONNECTIONS {
            if self.greetings() >= self.server.config.greetings_max {
                // An honest client introduces itself as soon as it is connected.
                let Some((longest_silent, _)) = self.greeting().last() else { return };
                self.close(longest_silent, "it said nothing, and others want to");
            }
            match self.server.endpoint.accept() {
                Ok(Some(socket)) => {
                    // Only who comes back brings any.
                    if self.server.recovery.is_none() {
                        refuse_descriptors(&socket);
                    }
                    let peer = match Peer::identify(&socket) {
                        Ok(peer) => peer,
                        Err(error) => {
                            tracing::warn!(%error, "refused a connection");
                            if error.raw_os_error().is_some() {
                                say_farewell(&socket, &turned_away(&error));
                            }
                            continue;
                        }
                    };
                    let deadline = Instant::now() + self.server.config.hello_timeout;
                    self.add(Connection::new(socket, peer, deadline));
                }
                Ok(None) => return,
                Err(error) if is_out_of_descriptors(&error) && self.turn_one_away(&error) => {}
                Err(error) => {
                    tracing::error!(%error, "cannot accept connections for now");
                    return self.pause_accepting();
                }
            }
        }
    }

    /// Tells whoever waits to be accepted that there are no descriptors, by the one that is kept for that; `false` where
    /// nobody could be told.
    fn turn_one_away(&mut self, error: &io::Error) -> bool {
        let mut told = false;
        if self.spare.take().is_some()
            && let Ok(Some(socket)) = self.server.endpoint.accept()
        {
            tracing::warn!(%error, "turned a connection away");
            say_farewell(&socket, &turned_away(error));
            told = true;
        }
        self.spare = spare_descriptor();
        told
    }

    fn add(&mut self, mut connection: Connection) {
        let key = self.next_key;
        self.next_key += 2;
        let watched =
            self.watch(&connection, Event::readable(key)).and_then(|()| match &connection.peer.pidfd {
                Some(pidfd) => self.watch(pidfd, Event::readable(key + 1)),
                None => Ok(()),
            });
        match watched {
            Ok(()) => drop(self.connections.insert(key, connection)),
            Err(error) => {
                tracing::error!(%error, "cannot watch a connection");
                self.unwatch(&connection);
                connection.farewell(&turned_away(&error));
            }
        }
    }

    fn connection_ready(&mut self, key: usize, event: Event) {
        let socket_key = key - (key - FIRST_CONNECTION) % 2;
        if !self.connections.contains_key(&socket_key) {
            return;
        }
        if key != socket_key {
            return self.close(socket_key, "its process has ended");
        }
        if event.writable {
            self.flush(key);
        }
        if event.readable {
            self.read(key);
        }
    }

    /// Serves a connection its turn.
    fn read(&mut self, key: usize) {
        for _ in 0..TURN_MESSAGES {
            let Some(connection) = self.connections.get(&key) else { return };
            match connection.receive() {
                Ok(Some(packet)) => self.packet(key, packet),
                Ok(None) => return self.close(key, "it has hung up"),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock || is_shortage(&error) => return,
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    return self.refuse(key, 0, error.to_string());
                }
                Err(_) => return self.close(key, "its connection is broken"),
            }
            // Each message's answers go out before the next is read, so that the queue holds only what the client
            // does not fetch.
            self.deliver();
        }
    }

    fn packet(&mut self, key: usize, packet: Packet) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let (correlation, request) = match Request::decode(&packet.bytes) {
            Ok(decoded) => decoded,
            Err(error) => return self.refuse(key, 0, error.to_string()),
        };
        let violation = match (&connection.stage, request) {
            (Stage::Client { slot }, request) => {
                let outcome = self.server.daemon.request(*slot, correlation, request, Instant::now());
                outcome.err().map(|Violation(reason)| reason)
            }
            (Stage::Greeting { .. }, Request::Hello { label }) => {
                connection.stage = Stage::Waiting { correlation, label };
                if self.server.recovery.is_none() {
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

    /// Takes in a client that has introduced itself.
    fn let_in(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Stage::Waiting { correlation, label } = &connection.stage else { return };
        let (correlation, label) = (*correlation, label.clone());
        match self.server.daemon.hello(connection.peer.pid, label, correlation) {
            Ok(owner) => {
                tracing::info!(%owner, pid = connection.peer.pid, "client has connected");
                self.server.daemon.belongs_to(owner.slot(), connection.peer.user);
                connection.refuse_descriptors();
                connection.stage = Stage::Client { slot: owner.slot() };
                self.by_slot.insert(owner.slot(), key);
                self.resume_accepting();
            }
            Err(Refusal::BadRequest { reason }) => self.refuse(key, correlation, reason),
            Err(refusal) => self.turn_away(key, correlation, refusal),
        }
    }

    /// A message of a client of the store before.
    fn take_back(&mut self, key: usize, correlation: u64, request: Request, descriptors: Vec<OwnedFd>) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Some(recovery) = &mut self.server.recovery else {
            let reason = "the time in which clients could come back is over".to_owned();
            return self.turn_away(key, correlation, Refusal::CannotResume { reason });
        };
        connection.stage = Stage::Returning;
        match recovery.message(key, connection.peer.pid, correlation, request, descriptors) {
            Ok(()) => self.end_recovery_if_over(),
            Err(refusal) => self.turn_away(key, correlation, refusal),
        }
    }

    /// Makes the daemon of what has come back, and lets in who has waited for that.
    fn end_recovery_if_over(&mut self) {
        let now = Instant::now();
        let Some(recovery) = self.server.recovery.take_if(|recovery| recovery.is_over(now)) else { return };
        let (returned, unfinished) = recovery.finish();
        for key in unfinished {
            self.close(key, "it did not come back in time");
        }
        match returned
            .map(|returned| Daemon::resume(self.server.config.clone(), first_epoch(), returned, now))
        {
            None => {}
            Some(Ok((mut daemon, resumed))) => {
                daemon.spill_into(self.server.daemon.take_disk());
                self.server.daemon = daemon;
                for (key, slot) in resumed {
                    if let Some(connection) = self.connections.get_mut(&key) {
                        connection.stage = Stage::Client { slot };
                        self.server.daemon.belongs_to(slot, connection.peer.user);
                        connection.refuse_descriptors();
                        self.by_slot.insert(slot, key);
                    }
                }
                self.deliver();
            }
            // They learn that the store is lost; this one is a new one.
            Some(Err(error)) => tracing::error!(%error, "the clients of the store before cannot be taken up"),
        }
        let keys: Vec<usize> = self.connections.keys().copied().collect();
        for key in keys {
            match self.connections[&key].stage {
                Stage::Waiting { .. } => self.let_in(key),
                Stage::Returning => self.close(key, "it could not be taken up"),
                Stage::Greeting { .. } | Stage::Client { .. } => {}
            }
        }
        self.resume_accepting();
    }

    /// Refuses a connection for a reason that is not its fault.
    fn turn_away(&mut self, key: usize, correlation: u64, refusal: Refusal) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        tracing::warn!(pid = connection.peer.pid, %refusal, "a client could not be taken in");
        connection.farewell(&Reply::Failed { refusal }.encode(correlation));
        self.close(key, "it could not be taken in");
    }

    /// Hands the daemon's messages to the connections that they are for.
    fn deliver(&mut self) {
        loop {
            let messages = self.server.daemon.take_outbox();
            if messages.is_empty() {
                return;
            }
            let mut touched = Vec::new();
            for message in messages {
                let Some(key) = self.by_slot.get(&message.client).copied() else { continue };
                let Some(connection) = self.connections.get_mut(&key) else { continue };
                if connection.enqueue(message, &self.server.config) {
                    touched.push(key);
                } else {
                    // Its death makes messages of its own, which the next round delivers.
                    self.close(key, "it does not read its messages");
                }
            }
            touched.dedup();
            for key in touched {
                self.flush(key);
            }
        }
    }

    fn flush(&mut self, key: usize) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let outcome = connection.flush();
        if outcome == Flush::Gone {
            return self.close(key, "it has hung up");
        }
        if outcome == Flush::Later {
            self.send_again.get_or_insert(Instant::now() + SEND_PAUSE);
        }
        let blocked = outcome == Flush::Blocked;
        if connection.waits_to_write != blocked {
            connection.waits_to_write = blocked;
            let interest = if blocked { Event::all(key) } else { Event::readable(key) };
            if let Err(error) = self.server.poller.modify_with_mode(&*connection, interest, PollMode::Level) {
                tracing::error!(%error, "cannot watch a connection");
                self.close(key, "it cannot be watched");
            }
        }
    }

    /// Tells a connection what is wrong with what it sent, and closes it.
    fn refuse(&mut self, key: usize, correlation: u64, reason: String) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        tracing::warn!(pid = connection.peer.pid, reason, "refused a request");
        let reply = Reply::Failed { refusal: Refusal::BadRequest { reason } };
        connection.farewell(&reply.encode(correlation));
        self.close(key, "it sent what makes no sense");
    }

    fn close(&mut self, key: usize, reason: &str) {
        let Some(connection) = self.connections.remove(&key) else { return };
        tracing::debug!(pid = connection.peer.pid, reason, "connection closed");
        self.unwatch(&connection);
        match connection.stage {
            Stage::Client { slot } => {
                self.by_slot.remove(&slot);
                drop(connection);
                self.server.daemon.died(slot, Instant::now());
            }
            Stage::Returning => {
                if let Some(recovery) = &mut self.server.recovery {
                    recovery.gone(key);
                }
            }
            Stage::Greeting { .. } | Stage::Waiting { .. } => {}
        }
        self.resume_accepting();
    }

    /// Does what is due.
    fn tick(&mut self) {
        let now = Instant::now();
        let silent: Vec<usize> =
            self.greeting().filter(|(_, deadline)| *deadline <= now).map(|(key, _)| key).collect();
        for key in silent {
            self.close(key, "it did not introduce itself in time");
        }
        if self.accept_again.is_some_and(|due| due <= now) {
            self.resume_accepting();
        }
        if self.send_again.is_some_and(|due| due <= now) {
            self.send_again = None;
            let keys: Vec<usize> = self.connections.keys().copied().collect();
            keys.into_iter().for_each(|key| self.flush(key));
        }
        self.end_recovery_if_over();
        self.server.daemon.tick(now);
    }

    fn next_deadline(&self, now: Instant) -> Option<Instant> {
        let greetings = self.greeting().map(|(_, deadline)| deadline);
        let recovery = self.server.recovery.as_ref().map(Recovery::next_deadline);
        let own = [self.accept_again, self.send_again, self.server.daemon.next_deadline(now), recovery];
        greetings.chain(own.into_iter().flatten()).min()
    }

    /// How many connections have not introduced themselves.
    fn greetings(&self) -> usize {
        let returning = self.server.recovery.as_ref().map_or(0, Recovery::clients);
        self.connections.len() - self.by_slot.len() - returning
    }

    /// The connections that have not introduced themselves, and their deadlines. They are among the youngest, so the
    /// search seldom goes far.
    fn greeting(&self) -> impl Iterator<Item = (usize, Instant)> {
        let strangers =
            self.connections.iter().rev().filter(|(_, connection)| {
                !matches!(connection.stage, Stage::Client { .. } | Stage::Returning)
            });
        let strangers = strangers.take(self.greetings());
        strangers.filter_map(|(key, connection)| match connection.stage {
            Stage::Greeting { deadline } => Some((*key, deadline)),
            _ => None,
        })
    }

    /// Stops to listen for connections until one ends, or for a moment: a listener that cannot be served would wake
    /// the loop without end.
    fn pause_accepting(&mut self) {
        if self.accept_again.replace(Instant::now() + ACCEPT_PAUSE).is_none() {
            self.listen(Event::none(LISTENER));
        }
    }

    fn resume_accepting(&mut self) {
        if self.accept_again.take().is_some() {
            self.listen(Event::readable(LISTENER));
        }
    }

    fn listen(&self, interest: Event) {
        if let Err(error) =
            self.server.poller.modify_with_mode(&self.server.endpoint, interest, PollMode::Level)
        {
            tracing::error!(%error, "cannot watch for connections");
        }
    }

    /// Whether the lifeline has ended; bytes that come through it mean nothing.
    fn lifeline_ended(&self) -> bool {
        let Some(lifeline) = &self.lifeline else { return false };
        !matches!(nix::unistd::read(lifeline, &mut [0; 64]), Ok(1..) | Err(Errno::EINTR | Errno::EAGAIN))
    }

    fn watch(&self, source: &impl AsFd, interest: Event) -> io::Result<()> {
        let source = source.as_fd().as_raw_fd();
        // SAFETY: every descriptor that is watched is taken out again by `unwatch` or `unwatch_all` before it is
        // closed.
        unsafe { self.server.poller.add_with_mode(source, interest, PollMode::Level) }
    }

    fn unwatch(&self, connection: &Connection) {
        let _ = self.server.poller.delete(connection);
        if let Some(pidfd) = &connection.peer.pidfd {
            let _ = self.server.poller.delete(pidfd);
        }
    }

    /// Tells the clients that nobody will take this store's place, so that they need not wait for that.
    fn say_farewell(&mut self) {
        let message = Notice::Closing {}.encode(0);
        for connection in self.connections.values_mut() {
            if matches!(connection.stage, Stage::Client { .. }) {
                connection.farewell(&message);
            }
        }
    }

    fn unwatch_all(&self) {
        for connection in self.connections.values() {
            self.unwatch(connection);
        }
        if let Some(lifeline) = &self.lifeline {
            let _ = self.server.poller.delete(lifeline);
        }
        let _ = self.server.poller.delete(&self.server.endpoint);
    }
}

/// A descriptor that is kept, to be closed when another is needed.
fn spare_descriptor() -> Option<OwnedFd> {
    std::fs::File::open("/dev/null").map(OwnedFd::from).ok()
}

fn is_out_of_descriptors(error: &io::Error) -> bool {
    [libc::EMFILE, libc::ENFILE].contains(&error.raw_os_error().unwrap_or(0))
}

/// What a connection hears that the system had no means for: before it has asked anything, so for no request of its own.
fn turned_away(error: &io::Error) -> Vec<u8> {
    Reply::Failed { refusal: no_memory(0, error) }.encode(0)
}

/// Where the epochs of this store's owners begin: somewhere else than those of the store before, whose ids may still
/// be around.
fn first_epoch() -> u64 {
    RandomState::new().hash_one(std::process::id()) & ((1 << 48) - 1)
}
