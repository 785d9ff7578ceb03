//! The event loop: sockets, deaths and time on one side, the [daemon](crate::daemon) on the other.
//!
//! One thread, which blocks in one place, until a descriptor is ready or something is due; without clients' doing it
//! sleeps. Each descriptor has a key: the listener, the lifeline and the stopper have fixed ones, a connection has two in
//! a row, its socket's and its process's. Keys are not used twice, so an event that comes too late means nobody.
//!
//! A connection is served one message a turn, so that one that sends without end hardly holds up who asks something now
//! and then; the kernel reports again what is left.

use std::collections::{BTreeMap, HashMap};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mobula_protocol::message::{Notice, Refusal, Reply, Request};
use mobula_protocol::size::ByteSize;
use mobula_protocol::socket::Packet;
use mobula_shm::bell::Bell;
use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

use crate::config::Config;
use crate::daemon::answer::no_memory;
use crate::daemon::restart::collect::Recovery;
use crate::daemon::spill::disk::Disk;
use crate::daemon::{Daemon, Violation};
use crate::error::{RunError, StartError};
use crate::memory::daemon_control_bytes;
use crate::process::file_bytes_max;

pub(crate) mod connection;
pub(crate) mod credentials;
mod endpoint;

use connection::{Connection, Flush, Stage, is_shortage, say_farewell};
use credentials::{Peer, refuse_descriptors};
use endpoint::Endpoint;

const LISTENER: u64 = 0;
const LIFELINE: u64 = 1;
const STOPPER: u64 = 2;
const FIRST_CONNECTION: u64 = 4;

/// Ends of connections that are seen to before whoever asks something has its turn: each may take as long as many
/// answers, and thousands can come at once.
const TURN_ENDS: usize = 32;
/// How long the loop leaves alone what the system refused for lack of descriptors or memory, unless a connection ends.
const ACCEPT_PAUSE: Duration = Duration::from_secs(1);
const SEND_PAUSE: Duration = Duration::from_millis(10);
/// How often in a row waiting for events may fail before the loop gives up.
const WAIT_FAILURES_MAX: u32 = 500;

/// A store that is bound to its socket.
pub struct Server {
    epoll: Epoll,
    stopper: Stopper,
    endpoint: Endpoint,
    daemon: Daemon,
    /// While the clients of a store that was killed are waited for: the daemon has no clients yet.
    recovery: Option<Recovery>,
    config: Config,
}

/// Ends a running [`Server`] from another thread.
#[derive(Debug, Clone)]
pub struct Stopper {
    bell: Arc<Bell>,
}

impl Stopper {
    /// Makes [`Server::run`] return soon. Clients see a hang-up.
    pub fn stop(&self) {
        self.bell.ring();
    }
}

impl Server {
    /// Validates the configuration and listens. Clients that connect wait until [`run`](Self::run).
    ///
    /// # Errors
    /// [`StartError`]; nothing is left behind.
    pub fn bind(config: Config) -> Result<Self, StartError> {
        let config = config.validate()?;
        if !Path::new("/proc/self/fd").exists() {
            return Err(StartError::NoProc);
        }
        // Ahead of the first attempt, which may end the process where somebody has not ignored the signal.
        let needed = daemon_control_bytes(config.slots(), config.names_max as u32);
        if let Some(max) = file_bytes_max().filter(|max| *max < needed) {
            return Err(StartError::FileSizeLimit { max: ByteSize(max), needed: ByteSize(needed) });
        }
        let mut daemon = Daemon::new(config.clone(), first_epoch())
            .map_err(StartError::system("make the store's own memory"))?;
        daemon.spill_into(config.spill_directory.as_deref().map(Disk::open).transpose()?);
        let watch = StartError::system("watch for events");
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).map_err(|error| watch(error.into()))?;
        let bell = Bell::create().map_err(StartError::system("make what stops the store"))?;
        let stopper = Stopper { bell: Arc::new(bell) };
        let endpoint = Endpoint::bind(&config.socket)?;
        let recovery = endpoint.takes_place().then(|| Recovery::new(config.clone(), Instant::now()));
        Ok(Self { recovery, epoll, stopper, endpoint, daemon, config })
    }

    /// What ends [`run`](Self::run).
    pub fn stopper(&self) -> Stopper {
        self.stopper.clone()
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
        tracing::info!("the store has ended");
        result
    }
}

/// The loop's own state.
struct EventLoop {
    server: Server,
    lifeline: Option<OwnedFd>,
    /// By the key of their sockets.
    connections: BTreeMap<u64, Connection>,
    /// Keys of the clients' connections.
    by_slot: HashMap<u16, u64>,
    next_key: u64,
    /// While connections are not accepted: when to try again.
    accept_again: Option<Instant>,
    /// When to send again what the system had no means for.
    send_again: Option<Instant>,
    /// Given up for a moment to tell whoever connects that there are no descriptors.
    spare: Option<OwnedFd>,
}

impl EventLoop {
    fn run(&mut self) -> Result<(), RunError> {
        self.watch(&self.server.endpoint, LISTENER).map_err(RunError::Wait)?;
        self.watch(&*self.server.stopper.bell, STOPPER).map_err(RunError::Wait)?;
        if let Some(lifeline) = &self.lifeline {
            self.watch(lifeline, LIFELINE).map_err(RunError::Wait)?;
        }
        let (mut events, mut failures) = (Vec::new(), 0);
        loop {
            // Room for all that there may be: nobody is to wait behind the ends of others.
            events.resize(FIRST_CONNECTION as usize + 2 * self.connections.len(), EpollEvent::empty());
            let now = Instant::now();
            let due = self.next_deadline(now).map(|due| due.saturating_duration_since(now));
            let ready = match self.server.epoll.wait(&mut events, timeout(due)) {
                Ok(count) => &events[..count],
                Err(Errno::EINTR) => &[],
                Err(error) => {
                    failures += 1;
                    if failures == WAIT_FAILURES_MAX {
                        return Err(RunError::Wait(error.into()));
                    }
                    tracing::error!(%error, "cannot wait for events for now");
                    std::thread::sleep(SEND_PAUSE);
                    continue;
                }
            };
            failures = 0;
            let ends = ready.iter().filter(|event| is_end(event)).take(TURN_ENDS);
            for event in ready.iter().filter(|event| !is_end(event)).chain(ends) {
                match event.data() {
                    LISTENER => self.accept(),
                    STOPPER => return Ok(()),
                    LIFELINE if self.lifeline_ended() => {
                        tracing::info!("whoever started the store has ended");
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

    /// Takes in the connection that has waited longest, as far as limits allow.
    fn accept(&mut self) {
        if self.greetings() >= self.server.config.greetings_max {
            // An honest client introduces itself as soon as it is connected.
            let Some((longest_silent, _)) = self.greeting().last() else { return };
            self.close(longest_silent, "it said nothing, and others want to");
        }
        let socket = match self.server.endpoint.accept() {
            Ok(Some(socket)) => socket,
            Ok(None) => return,
            Err(error) if is_out_of_descriptors(&error) && self.turn_one_away(&error) => return,
            Err(error) => {
                tracing::error!(%error, "cannot accept connections for now");
                return self.pause_accepting();
            }
        };
        // Only who comes back brings any.
        if self.server.recovery.is_none() {
            refuse_descriptors(&socket);
        }
        match Peer::identify(&socket) {
            Ok(peer) => {
                let deadline = Instant::now() + self.server.config.hello_timeout;
                self.add(Connection::new(socket, peer, deadline));
            }
            Err(error) => {
                tracing::warn!(%error, "refused a connection");
                if error.raw_os_error().is_some() {
                    say_farewell(&socket, &turned_away(&error));
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
        let watched = self.watch(&connection, key).and_then(|()| match &connection.peer.pidfd {
            Some(pidfd) => self.watch(pidfd, key + 1),
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

    fn connection_ready(&mut self, key: u64, events: EpollFlags) {
        if !is_socket(key) {
            return self.close(key - 1, "its process has ended");
        }
        if !self.connections.contains_key(&key) {
            return;
        }
        if events.contains(EpollFlags::EPOLLOUT) {
            self.flush(key);
        }
        // A connection that has broken says so when it is read.
        if events.intersects(!EpollFlags::EPOLLOUT) {
            self.read(key);
        }
    }

    /// Serves a connection one message. Its answers go out before the next is read, so that the queue holds only what the
    /// client does not fetch.
    fn read(&mut self, key: u64) {
        let Some(connection) = self.connections.get(&key) else { return };
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
    fn let_in(&mut self, key: u64) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        let Stage::Waiting { correlation, label } = &connection.stage else { return };
        let (correlation, label) = (*correlation, label.clone());
        match self.server.daemon.hello(connection.peer.pid, label, correlation) {
            Ok(owner) => {
                tracing::info!(%owner, pid = connection.peer.pid, "client has connected");
                self.server.daemon.belongs_to(owner.slot(), connection.peer.user);
                connection.stage = Stage::Client { slot: owner.slot() };
                self.by_slot.insert(owner.slot(), key);
                self.resume_accepting();
            }
            Err(Refusal::BadRequest { reason }) => self.refuse(key, correlation, reason),
            Err(refusal) => self.turn_away(key, correlation, refusal),
        }
    }

    /// A message of a client of the store before.
    fn take_back(&mut self, key: u64, correlation: u64, request: Request, descriptors: Vec<OwnedFd>) {
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
                        self.by_slot.insert(slot, key);
                    }
                }
                self.deliver();
            }
            // They learn that the store is lost; this one is a new one.
            Some(Err(error)) => tracing::error!(%error, "the clients of the store before cannot be taken up"),
        }
        let keys: Vec<u64> = self.connections.keys().copied().collect();
        for key in keys {
            // From now on nobody brings any.
            self.connections[&key].refuse_descriptors();
            match self.connections[&key].stage {
                Stage::Waiting { .. } => self.let_in(key),
                Stage::Returning => self.close(key, "it could not be taken up"),
                Stage::Greeting { .. } | Stage::Client { .. } => {}
            }
        }
        self.resume_accepting();
    }

    /// Refuses a connection for a reason that is not its fault.
    fn turn_away(&mut self, key: u64, correlation: u64, refusal: Refusal) {
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

    fn flush(&mut self, key: u64) {
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
            let interest =
                if blocked { EpollFlags::EPOLLIN | EpollFlags::EPOLLOUT } else { EpollFlags::EPOLLIN };
            if let Err(error) = self.server.epoll.modify(&*connection, &mut EpollEvent::new(interest, key)) {
                tracing::error!(%error, "cannot watch a connection");
                self.close(key, "it cannot be watched");
            }
        }
    }

    /// Tells a connection what is wrong with what it sent, and closes it.
    fn refuse(&mut self, key: u64, correlation: u64, reason: String) {
        let Some(connection) = self.connections.get_mut(&key) else { return };
        tracing::warn!(pid = connection.peer.pid, reason, "refused a request");
        let reply = Reply::Failed { refusal: Refusal::BadRequest { reason } };
        connection.farewell(&reply.encode(correlation));
        self.close(key, "it sent what makes no sense");
    }

    fn close(&mut self, key: u64, reason: &str) {
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
        let silent: Vec<u64> =
            self.greeting().filter(|(_, deadline)| *deadline <= now).map(|(key, _)| key).collect();
        for key in silent {
            self.close(key, "it did not introduce itself in time");
        }
        if self.accept_again.is_some_and(|due| due <= now) {
            self.resume_accepting();
        }
        if self.send_again.is_some_and(|due| due <= now) {
            self.send_again = None;
            let keys: Vec<u64> = self.connections.keys().copied().collect();
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
    fn greeting(&self) -> impl Iterator<Item = (u64, Instant)> {
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
            self.listen(EpollFlags::empty());
        }
    }

    fn resume_accepting(&mut self) {
        if self.accept_again.take().is_some() {
            self.listen(EpollFlags::EPOLLIN);
        }
    }

    fn listen(&self, interest: EpollFlags) {
        let mut event = EpollEvent::new(interest, LISTENER);
        if let Err(error) = self.server.epoll.modify(&self.server.endpoint, &mut event) {
            tracing::error!(%error, "cannot watch for connections");
        }
    }

    /// Whether the lifeline has ended; bytes that come through it mean nothing.
    fn lifeline_ended(&self) -> bool {
        let Some(lifeline) = &self.lifeline else { return false };
        !matches!(nix::unistd::read(lifeline, &mut [0; 64]), Ok(1..) | Err(Errno::EINTR | Errno::EAGAIN))
    }

    fn watch(&self, source: &impl AsFd, key: u64) -> io::Result<()> {
        Ok(self.server.epoll.add(source, EpollEvent::new(EpollFlags::EPOLLIN, key))?)
    }

    /// Closing the descriptors would not do: a forked child may have them still.
    fn unwatch(&self, connection: &Connection) {
        let _ = self.server.epoll.delete(connection);
        if let Some(pidfd) = &connection.peer.pidfd {
            let _ = self.server.epoll.delete(pidfd);
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
}

/// Whether a connection has ended, or its process has.
fn is_end(event: &EpollEvent) -> bool {
    let hung_up = event.events().intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
    event.data() >= FIRST_CONNECTION && (hung_up || !is_socket(event.data()))
}

/// Whether a connection's key is that of its socket.
fn is_socket(key: u64) -> bool {
    key.is_multiple_of(2)
}

/// How long to wait for what is due then, in whole milliseconds, rounded up: waking early would be waking twice.
fn timeout(due: Option<Duration>) -> EpollTimeout {
    let Some(due) = due else { return EpollTimeout::NONE };
    let millis = due.as_micros().div_ceil(1000).min(i32::MAX as u128);
    EpollTimeout::try_from(millis as i32).unwrap_or(EpollTimeout::MAX)
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
