//! A store in this process, in a directory of its own, with clients and channels: what the examples in the
//! documentation of `mobula-client` have in their hidden lines. Nothing is left of it when it is dropped.

use std::path::PathBuf;
use std::thread::JoinHandle;
use std::time::Duration;

use mobula_client::{Client, ConnectOptions, Event, Receiver, Sender};
use mobula_store::{Config, Server, Stopper};
use tempfile::TempDir;

/// Bytes that the store may lease in all.
pub const CAPACITY_BYTES: u64 = 64 << 20;
/// How long a client waits for another one before an example fails.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running store.
#[derive(Debug)]
pub struct Store {
    /// The ends of the channels: they are dropped before the daemon ends.
    clients: Vec<Client>,
    stopper: Stopper,
    daemon: Option<JoinHandle<()>>,
    directory: TempDir,
}

/// Starts a store.
///
/// # Panics
/// When the system refuses what it needs.
pub fn start() -> Store {
    let directory = TempDir::with_prefix("mobula-example-").expect("a directory for the socket");
    let config = Config::new(directory.path().join("store.sock"), CAPACITY_BYTES);
    let server = Server::bind(config).expect("a store starts");
    let stopper = server.stopper();
    let daemon = std::thread::spawn(|| server.run().expect("the store runs until it is stopped"));
    Store { clients: Vec::new(), stopper, daemon: Some(daemon), directory }
}

impl Store {
    /// The path at which the store listens.
    pub fn socket(&self) -> PathBuf {
        self.directory.path().join("store.sock")
    }

    /// A client of the store.
    ///
    /// # Panics
    /// When it cannot connect.
    pub fn client(&self) -> Client {
        ConnectOptions::new().label("example").connect(self.socket()).expect("a client connects")
    }

    /// A channel between two clients: the sending half of one end, and the receiving half of the other one.
    ///
    /// # Panics
    /// When it cannot be opened.
    pub fn channel(&mut self) -> (Sender, Receiver) {
        let (one, other) = (self.client(), self.client());
        let events = other.events();
        let sender = one.connect_to(other.id()).expect("a channel is opened").sender;
        let Some(Event::ChannelOpened(incoming)) = events.next_within(PATIENCE) else {
            panic!("the other client hears of the channel first");
        };
        let receiver = other.accept(incoming).expect("the channel is accepted").receiver;
        self.clients.extend([one, other]);
        (sender, receiver)
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        self.clients.clear();
        self.stopper.stop();
        // A daemon that has panicked has said so.
        let _ = self.daemon.take().map(JoinHandle::join);
    }
}
