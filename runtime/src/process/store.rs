//! How a process of a session makes its client of the store.

use std::path::Path;
use std::time::{Duration, Instant};

use mobula_client::{Client, ClientError, ConnectOptions};

use crate::process::events;

/// How long a process that starts waits for the store, which is started again when it is killed.
const PATIENCE: Duration = Duration::from_secs(10);
/// The pause between two attempts to connect.
const RETRY: Duration = Duration::from_millis(10);

/// Connects to the session's store, as the client of a process that `what` describes. While the store is restarted
/// after a kill, no process listens. When the session's directory is gone, there will be no store again.
pub(crate) fn connect(what: &str, socket: &Path) -> Result<Client, ClientError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let options =
            ConnectOptions::new().label(format!("{what} {}", std::process::id())).events(events::kinds());
        match options.connect(socket) {
            Err(ClientError::NoStore { .. } | ClientError::StoreLost)
                if Instant::now() < deadline && socket.parent().is_some_and(Path::exists) => {}
            result => return result,
        }
        std::thread::sleep(RETRY);
    }
}
