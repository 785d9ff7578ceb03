//! A store as a process of its own.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use mobula_client::{Client, ConnectOptions};
use mobula_store::{Config, Server, raise_descriptor_limit};

use crate::peer::{self, Failure};
use crate::side::Side;

/// A store that ends with this value.
pub(crate) struct Store {
    socket: PathBuf,
    _process: Side,
}

impl Store {
    pub(crate) fn start(scratch: &Path, capacity_bytes: u64) -> Result<Self, Failure> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let socket = scratch.join(format!("store-{}-{number}", std::process::id()));
        let mut process =
            Side::peer(&["store", socket.to_str().unwrap_or_default(), &capacity_bytes.to_string()])?;
        process.ask("ready")?;
        Ok(Self { socket, _process: process })
    }

    pub(crate) fn socket(&self) -> &str {
        self.socket.to_str().unwrap_or_default()
    }

    pub(crate) fn client(&self) -> Result<Client, Failure> {
        Ok(ConnectOptions::new().label("owner").connect(&self.socket)?)
    }

    /// Another client, in a process of its own.
    pub(crate) fn reader(&self) -> Result<Side, Failure> {
        Side::peer(&["reader", self.socket()])
    }
}

/// The store's process: runs until its input ends.
pub(crate) fn run(socket: &Path, capacity_bytes: u64) -> Result<(), Failure> {
    raise_descriptor_limit()?;
    let server = Server::bind(Config::new(socket, capacity_bytes))?;
    let stopper = server.stopper();
    let commands = std::thread::spawn(move || {
        let served = peer::serve(|_| Ok(0.0));
        stopper.stop();
        served
    });
    server.run()?;
    commands.join().unwrap_or(Ok(()))
}
