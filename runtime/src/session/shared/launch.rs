//! How the process of a shared session is started: apart from the process that starts it, which it outlives.

use std::fs::File;
use std::io;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use mobula_client::internal::{Socket, explained};
use nix::fcntl::{Flock, FlockArg};

use super::super::store::read_line_within;
use super::DRIVERS_SOCKET;
use crate::error::{Error, Result};
use crate::process::launch::Launch;
use crate::process::role::{Role, SessionRole};

/// How long the process may take to start, or another process to start it.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// The file that is locked by the process that starts it.
const STARTING: &str = "starting";
/// Where the messages of the process go: the output of the process that starts it is not its own.
const LOG: &str = "log";
const RETRY: Duration = Duration::from_millis(5);

/// A connection to the process.
pub(super) struct Reached {
    pub(super) socket: Socket,
    pub(super) is_started_here: bool,
}

/// Starts the process, and waits until it serves.
pub(super) fn start_process(launch: &Launch, directory: &Path) -> Result<()> {
    let failed = |error: &io::Error| Error::Start(format!("the session's process: {}", explained(error)));
    let role = Role::Session(SessionRole { directory: directory.into() });
    let log = File::options().create(true).append(true).open(directory.join(LOG));
    let mut command = launch.command("mobula-session", &role);
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.map_err(|error| failed(&error))?);
    let mut child = command.spawn().map_err(|error| failed(&error))?;
    let said = child.stdout.take().map(|stdout| read_line_within(stdout.into(), START_PATIENCE));
    match said.unwrap_or_default().as_str() {
        "ready" => {
            reap(child);
            Ok(())
        }
        said => {
            let _ = child.kill();
            let _ = child.wait();
            let reason = if said.is_empty() { "it did not come up" } else { said };
            Err(Error::Start(format!("the session's process: {reason}")))
        }
    }
}

/// Connects to the session's process. If there is none, starts it, or waits for another driver that does.
/// Returns `None` when the session was stopped, or `is_over`.
pub(super) fn reach_process(
    launch: &Launch,
    directory: &Path,
    is_over: impl Fn() -> bool,
) -> Result<Option<Reached>> {
    let failed = |error: io::Error| Error::Start(format!("the session's process: {}", explained(&error)));
    let deadline = Instant::now() + START_PATIENCE;
    let mut starting = match File::options().create(true).append(true).open(directory.join(STARTING)) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    loop {
        if let Ok(socket) = Socket::connect(&directory.join(DRIVERS_SOCKET)) {
            return Ok(Some(Reached { socket, is_started_here: false }));
        }
        if is_over() || !super::Description::is_in(directory) {
            return Ok(None);
        }
        match Flock::lock(starting, FlockArg::LockExclusiveNonblock) {
            Ok(_lock) => {
                // Another driver may have been quicker.
                if let Ok(socket) = Socket::connect(&directory.join(DRIVERS_SOCKET)) {
                    return Ok(Some(Reached { socket, is_started_here: false }));
                }
                start_process(launch, directory)?;
                let socket = Socket::connect(&directory.join(DRIVERS_SOCKET)).map_err(failed)?;
                return Ok(Some(Reached { socket, is_started_here: true }));
            }
            Err((_, error)) if Instant::now() > deadline => return Err(failed(error.into())),
            Err((file, _)) => starting = file,
        }
        std::thread::sleep(RETRY);
    }
}

/// Sees to it that a process that this one has started leaves nothing when it ends, which may be much later.
fn reap(mut child: Child) {
    let wait = move || _ = child.wait();
    let _ = std::thread::Builder::new().name("mobula-reaper".into()).stack_size(64 << 10).spawn(wait);
}
