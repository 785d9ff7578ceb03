//! The store as a command: its options, and a run from the first word on the command line to the signal that ends it.
//!
//! The program `mobula-store` contains only this command; other programs offer it as one of their commands.

use std::path::PathBuf;

use mobula_protocol::size::ByteSize;
use nix::sys::signal::{SigSet, Signal};
use tracing_subscriber::filter::{LevelFilter, Targets};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;

use crate::{Config, Server, prepare_process};

/// Runs a store: shared memory for the objects of this user's processes. SIGTERM or SIGINT ends it.
///
/// The store's log goes to standard error; MOBULA_LOG chooses how much (debug, mobula_store=trace, …).
#[derive(Debug, clap::Args)]
pub struct StoreCommand {
    /// Where to listen. Its directory must exist and be safe from other users.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// How much memory objects may take in all, as in 512MiB or 2GiB.
    #[arg(long, value_name = "SIZE")]
    capacity: ByteSize,
    /// Where to spill objects that are held but not in use when the store is full; the store makes a directory of its
    /// own in it, and leaves nothing behind. Without it: /var/tmp.
    #[arg(long, value_name = "DIR")]
    spill_directory: Option<PathBuf>,
    /// How much spilled objects may take on disk; 0: nothing is spilled. Without it: eight times the capacity.
    #[arg(long, value_name = "SIZE")]
    spill_capacity: Option<ByteSize>,
    /// Clients at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 1024)]
    clients_max: u32,
    /// How much memory one client may have, as in 512MiB. Default: as much as there is.
    #[arg(long, value_name = "SIZE")]
    client_max: Option<ByteSize>,
    /// How much memory all clients of one user may have together. Default: as much as there is.
    #[arg(long, value_name = "SIZE")]
    user_max: Option<ByteSize>,
}

impl StoreCommand {
    /// Runs a store until `SIGTERM` or `SIGINT`, and removes its socket.
    ///
    /// Blocks these signals, [prepares](prepare_process) the process and sends the log to standard error, all for the
    /// whole process: it must be called on the only thread.
    ///
    /// # Errors
    /// [`StartError`](crate::StartError), [`RunError`](crate::RunError), or the system's when it refuses signals or
    /// descriptors.
    pub fn run(self) -> Result<(), Box<dyn std::error::Error>> {
        let asked = std::env::var("MOBULA_LOG").ok().and_then(|filter| filter.parse().ok());
        let filter = asked.unwrap_or_else(|| Targets::new().with_default(LevelFilter::INFO));
        // A program that logs in its own way keeps doing so.
        let log = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
        // A log that cannot be written is no reason to panic, which an error message on standard error would be.
        let log = log.log_internal_errors(false);
        let _ = tracing_subscriber::registry().with(log).with(filter).try_init();
        // Blocked before there is a second thread, so that only the one below ever takes these signals.
        let mut signals = SigSet::empty();
        signals.add(Signal::SIGTERM);
        signals.add(Signal::SIGINT);
        signals.thread_block()?;
        prepare_process()?;
        let server = Server::bind(self.config())?;
        let stopper = server.stopper();
        std::thread::Builder::new().name("mobula-signals".to_owned()).spawn(move || {
            if let Ok(signal) = signals.wait() {
                tracing::info!(%signal, "stopping");
            }
            stopper.stop();
        })?;
        Ok(server.run()?)
    }

    fn config(self) -> Config {
        let mut config = Config::new(self.socket, self.capacity.0).clients_max(self.clients_max);
        let spills = self.spill_capacity.is_none_or(|capacity| capacity.0 > 0);
        let directory = self.spill_directory.or_else(Config::default_spill_directory);
        if let Some(directory) = directory.filter(|_| spills) {
            config = config.spill_directory(directory);
        }
        if let Some(ByteSize(bytes)) = self.spill_capacity {
            config = config.spill_bytes_max(bytes);
        }
        if let Some(ByteSize(bytes)) = self.client_max {
            config = config.client_bytes_max(bytes);
        }
        if let Some(ByteSize(bytes)) = self.user_max {
            config = config.user_bytes_max(bytes);
        }
        config
    }
}
