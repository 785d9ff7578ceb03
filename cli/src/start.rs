//! `mobula start`: starts a session that drivers share.

use std::error::Error;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use mobula_protocol::size::ByteSize;
use mobula_runtime::{Launch, SessionOptions, sessions, start_shared, stop_shared};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

use crate::session::print;

/// How often `--block` looks whether the session is there.
const LOOK_MS: u16 = 200;

/// Starts a session that drivers share, and prints its address. It lasts until `mobula stop`.
///
/// A driver joins it by `mobula::Builder::address("auto")`, or when the variable MOBULA_ADDRESS is `auto` or the
/// address. Options that are not given come from environment variables, as those of `mobula::Builder`.
#[derive(Debug, clap::Args)]
pub(crate) struct StartCommand {
    /// The CPUs that tasks and actors of all drivers can demand together. Default: those of the machine.
    #[arg(long, value_name = "COUNT")]
    num_cpus: Option<f64>,
    /// The GPUs. Default: those that are found.
    #[arg(long, value_name = "COUNT")]
    num_gpus: Option<u32>,
    /// Resources of your own, as in disk=1,licence=2.5.
    #[arg(long, value_name = "NAME=AMOUNT,…", value_delimiter = ',', value_parser = resource)]
    resources: Vec<(String, f64)>,
    /// The memory that tasks and actors can demand, as in 8GiB. Default: the machine's without the store's.
    #[arg(long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// How much memory objects may take in all, as in 512MiB or 2GiB. Default: 30 % of the machine's.
    #[arg(long, visible_alias = "object-store-memory", value_name = "SIZE")]
    capacity: Option<ByteSize>,
    /// Where to spill objects that are held but not in use when the store is full. Default: /var/tmp.
    #[arg(long, value_name = "DIR")]
    spill_directory: Option<PathBuf>,
    /// How much spilled objects may take on disk; 0: nothing is spilled. Default: eight times the capacity.
    #[arg(long, value_name = "SIZE")]
    spill_capacity: Option<ByteSize>,
    /// Where the session's own directory is made. Default: the user's runtime directory.
    #[arg(long, value_name = "DIR")]
    session_dir: Option<PathBuf>,
    /// Wait until the session is stopped. SIGINT and SIGTERM stop it.
    #[arg(long)]
    block: bool,
    /// Print JSON: {address}.
    #[arg(long)]
    json: bool,
}

fn resource(text: &str) -> Result<(String, f64), String> {
    let expected = || format!("{text:?} is no name and amount, such as disk=1");
    let (name, amount) = text.split_once('=').ok_or_else(expected)?;
    Ok((name.trim().to_owned(), amount.trim().parse().map_err(|_| expected())?))
}

impl StartCommand {
    /// Starts the session, whose process starts by `session`.
    pub(crate) fn run(self, session: Launch) -> Result<(), Box<dyn Error>> {
        // Nothing runs calls by this launch: each driver has workers of its own program.
        let mut options = SessionOptions::new(0, session);
        options.amounts.num_cpus = self.num_cpus;
        options.amounts.num_gpus = self.num_gpus.map(f64::from);
        options.amounts.resources = (!self.resources.is_empty()).then_some(self.resources);
        options.amounts.memory = self.memory.map(|ByteSize(bytes)| bytes);
        options.capacity_bytes = self.capacity.map(|ByteSize(bytes)| bytes);
        options.spill_directory = self.spill_directory;
        options.spill_bytes_max = self.spill_capacity.map(|ByteSize(bytes)| bytes);
        options.session_dir = self.session_dir;
        // Before there is another thread, so that no thread takes them from this one.
        let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM].into_iter().collect();
        if self.block {
            signals.thread_block()?;
        }
        let address = start_shared(options)?;
        if self.json {
            print(&format!("{}\n", serde_json::json!({ "address": address })))?;
        } else {
            print(&format!("{}\n", address.display()))?;
        }
        if self.block { block(&address, &signals) } else { Ok(()) }
    }
}

/// Waits until the session is over, or a signal ends it.
fn block(address: &Path, signals: &SigSet) -> Result<(), Box<dyn Error>> {
    let signalled = SignalFd::with_flags(signals, SfdFlags::SFD_CLOEXEC)?;
    loop {
        let mut descriptors = [PollFd::new(signalled.as_fd(), PollFlags::POLLIN)];
        if let Ok(1..) = poll(&mut descriptors, PollTimeout::from(LOOK_MS)) {
            return Ok(stop_shared(address)?);
        }
        if !address.parent().is_some_and(Path::exists) {
            return Ok(());
        }
        if !sessions().iter().any(|session| session == address) {
            return Err("the session's process was killed while it had no driver".into());
        }
    }
}
