//! `mobula-store`: a store by itself, until `SIGTERM` or `SIGINT`.
//!
//! What it has to say goes to standard error; `MOBULA_LOG` chooses how much (`debug`, `mobula_store=trace`, …).

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use mobula_protocol::size::ByteSize;
use mobula_store::{Config, Server, raise_descriptor_limit};
use nix::sys::signal::{SigSet, Signal};
use tracing_subscriber::EnvFilter;

/// Shared memory for the objects of this user's processes.
#[derive(Debug, Parser)]
#[command(name = "mobula-store", version)]
struct Options {
    /// Where to listen. Its directory must exist and be safe from other users.
    #[arg(long, value_name = "PATH")]
    socket: PathBuf,
    /// How much memory objects may take in all, as in 512MiB or 2GiB.
    #[arg(long, value_name = "SIZE")]
    capacity: ByteSize,
    /// Clients at a time.
    #[arg(long, value_name = "COUNT", default_value_t = 1024)]
    clients_max: u32,
}

fn main() -> ExitCode {
    let filter = EnvFilter::try_from_env("MOBULA_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).init();
    match run(Options::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), Box<dyn std::error::Error>> {
    // Blocked before there is a second thread, so that only the one below ever takes these signals.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block()?;
    raise_descriptor_limit()?;
    let mut config = Config::new(options.socket, options.capacity.0);
    config.clients_max = options.clients_max;
    let server = Server::bind(config)?;
    let stopper = server.stopper();
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if let Ok(signal) = signals.wait() {
            tracing::info!(%signal, "stopping");
        }
        stopper.stop();
    })?;
    Ok(server.run()?)
}
