//! The start of the processes of a shared session that outlive the process that starts them: the session's process, and
//! the heads of detached actors.

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
use crate::launch::Launch;
use crate::process::role::{Role, SessionRole};

/// How long the process may take to start, or another process to start it.
const START_PATIENCE: Duration = Duration::from_secs(20);
/// The file that is locked by the process that starts it.
const STARTING: &str = "starting";
/// The file for the messages of the process, because it does not use the output of the process that starts it.
const LOG: &str = "log";
/// The first word of a process that serves.
pub(super) const READY: &str = "ready";
const RETRY: Duration = Duration::from_millis(5);

/// A connection to the process.
pub(super) struct Reached {
    pub(super) socket: Socket,
    pub(super) is_started_here: bool,
}

/// Starts the session's process, and waits until it serves.
pub(super) fn start_process(launch: &Launch, directory: &Path) -> Result<()> {
    let role = Role::Session(SessionRole { directory: directory.into() });
    let started = start_apart(launch, "mobula-session", &role, directory);
    started.map(drop).map_err(|reason| Error::Start(format!("the session's process: {reason}")))
}

/// Starts a process with a role, and waits until it prints [`READY`]. Returns the rest of that line, or the reason why
/// the process does not serve.
pub(super) fn start_apart(
    launch: &Launch,
    shown: &str,
    role: &Role,
    directory: &Path,
) -> Result<String, String> {
    let log = File::options().create(true).append(true).open(directory.join(LOG));
    let mut command = launch.command(shown, &role.to_argument());
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(log.map_err(|error| explained(&error))?);
    let mut child = command.spawn().map_err(|error| explained(&error))?;
    let said = child.stdout.take().map(|stdout| read_line_within(stdout.into(), START_PATIENCE));
    let said = said.unwrap_or_default();
    if let Some(rest) = said.strip_prefix(READY) {
        reap(child);
        return Ok(rest.trim().to_owned());
    }
    let _ = child.kill();
    let _ = child.wait();
    Err(if said.is_empty() { "it did not come up".to_owned() } else { said })
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

/// Waits in the background for the end of a process that this one has started, so that it leaves no zombie.
fn reap(mut child: Child) {
    let wait = move || _ = child.wait();
    let _ = std::thread::Builder::new().name("mobula-reaper".into()).stack_size(64 << 10).spawn(wait);
}
