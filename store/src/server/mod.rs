//! The server: a store that is bound to its socket, and the event loop that runs it.
//!
//! [`endpoint`] takes the socket's path, [`accept`] accepts connections, [`credentials`] tells which process connects,
//! [`connection`] queues its messages, [`connections`] has all of them, and [`event_loop`] joins them with the
//! [daemon](crate::daemon).

use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use mobula_protocol::size::ByteSize;
use mobula_shm::bell::Bell;

use crate::config::Config;
use crate::daemon::Daemon;
use crate::daemon::restart::collect::Recovery;
use crate::daemon::spill::disk::Disk;
use crate::error::{RunError, StartError};
use crate::memory::daemon_control_bytes;
use crate::process::file_bytes_max;

mod accept;
mod connection;
mod connections;
mod credentials;
mod endpoint;
mod event_loop;
mod poller;

use accept::Acceptor;
use connections::Connections;
use endpoint::Endpoint;
use event_loop::{EventLoop, first_epoch};
use poller::Poller;

/// A store that is bound to its socket.
pub struct Server {
    poller: Poller,
    stopper: Stopper,
    endpoint: Endpoint,
    daemon: Daemon,
    /// Set if a killed store was at this path: its clients may come back.
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
        // Before the memory is made: that may end the process by a signal, where the program does not ignore it.
        let needed = daemon_control_bytes(config.slots(), config.names_max as u32);
        if let Some(max) = file_bytes_max().filter(|max| *max < needed) {
            return Err(StartError::FileSizeLimit { max: ByteSize(max), needed: ByteSize(needed) });
        }
        let mut daemon = Daemon::new(config.clone(), first_epoch())
            .map_err(StartError::system("make the store's own memory"))?;
        daemon.spill_into(config.spill_directory.as_deref().map(Disk::open).transpose()?);
        let poller = Poller::new().map_err(StartError::system("watch for events"))?;
        let bell = Bell::create().map_err(StartError::system("make the bell that stops the store"))?;
        let stopper = Stopper { bell: Arc::new(bell) };
        let endpoint = Endpoint::bind(&config.socket)?;
        let recovery = endpoint.takes_place().then(|| Recovery::new(config.clone(), Instant::now()));
        Ok(Self { recovery, poller, stopper, endpoint, daemon, config })
    }

    /// The handle that ends [`run`](Self::run).
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

    /// Serves until it is stopped, or until every process that has the other end of `lifeline` has ended: the read end
    /// of a pipe of which another process keeps the write end.
    ///
    /// # Errors
    /// As [`run`](Self::run).
    pub fn run_while_open(self, lifeline: OwnedFd) -> Result<(), RunError> {
        self.serve(Some(lifeline))
    }

    fn serve(self, lifeline: Option<OwnedFd>) -> Result<(), RunError> {
        let Self { poller, stopper, endpoint, daemon, recovery, config } = self;
        tracing::info!(
            socket = %config.socket.display(),
            capacity_bytes = config.capacity_bytes,
            "the store is running"
        );
        let (acceptor, connections) = (Acceptor::new(endpoint), Connections::new());
        let stopper = stopper.bell;
        let mut event_loop =
            EventLoop { config, poller, daemon, recovery, acceptor, connections, stopper, lifeline };
        let result = event_loop.run();
        event_loop.connections.say_goodbye();
        tracing::info!("the store has ended");
        result
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Server").field("config", &self.config).finish_non_exhaustive()
    }
}
