//! `mobula stop`: stops a session that drivers share.

use std::error::Error;
use std::path::PathBuf;

use crate::session::{only_session, print};

/// Stops a session that `mobula start` has started: its store, and what drivers have started in it.
#[derive(Debug, clap::Args)]
pub(crate) struct StopCommand {
    /// The session: what `mobula start` has printed, or its directory; `auto` is the one that was started last.
    #[arg(default_value = "auto")]
    address: PathBuf,
    /// The socket of the session's store.
    #[arg(long, value_name = "PATH", conflicts_with = "address")]
    socket: Option<PathBuf>,
    /// The session whose directory has this text in its name.
    #[arg(long, value_name = "NAME", conflicts_with_all = ["address", "socket"])]
    session: Option<String>,
    /// Print JSON: {stopped}, the socket of the session's store.
    #[arg(long)]
    json: bool,
}

impl StopCommand {
    /// Stops the session.
    pub(crate) fn run(self) -> Result<(), Box<dyn Error>> {
        let named = self.session.map(|name| only_session(Some(&name))).transpose()?;
        let address = self.socket.or(named).unwrap_or(self.address);
        // `auto` may be another session a moment later.
        let socket = mobula_runtime::shared_session(&address)?;
        mobula_runtime::stop_shared(&socket)?;
        if self.json {
            print(&format!("{}\n", serde_json::json!({ "stopped": socket })))?;
        }
        Ok(())
    }
}
