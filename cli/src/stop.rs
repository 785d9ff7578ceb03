//! `mobula stop`: stops a session that drivers share.

use std::error::Error;
use std::path::PathBuf;

/// Stops a session that `mobula start` has started: its store, and what drivers have started in it.
#[derive(Debug, clap::Args)]
pub(crate) struct StopCommand {
    /// The session: what `mobula start` has printed, or its directory; `auto` is the one that was started last.
    #[arg(default_value = "auto")]
    address: PathBuf,
}

impl StopCommand {
    /// Stops the session.
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        Ok(mobula_runtime::stop_shared(&self.address)?)
    }
}
