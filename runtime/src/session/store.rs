//! The embedded store: a process of its own that the driver starts, and takes down again.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Result};
use crate::takeover::{ROLE, Role, StoreRole, inherited};

/// How long the store may take to start.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to end by itself.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// Starts the store as a process of its own, and waits until it can be connected to.
pub(super) fn start(socket: &Path, capacity_bytes: u64, lifeline: &OwnedFd) -> Result<Child> {
    let role = StoreRole { socket: socket.to_owned(), capacity_bytes, lifeline: lifeline.as_raw_fd() };
    let mut child = Command::new("/proc/self/exe")
        .arg0("mobula-store")
        .env(ROLE, Role::Store(role).to_variable())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .process_group(0)
        .spawn()
        .map_err(|error| Error::Start(format!("the store's process: {error}")))?;
    let said = child.stdout.take().map(|stdout| read_line_within(stdout, START_PATIENCE)).unwrap_or_default();
    match said.as_str() {
        "ready" => Ok(child),
        "" => {
            let _ = child.kill();
            let how = child.wait().map_or_else(|error| error.to_string(), |status| status.to_string());
            Err(Error::Start(format!("the store did not come up: {how}")))
        }
        said => {
            let _ = child.wait();
            Err(Error::Start(said.to_owned()))
        }
    }
}

fn read_line_within(stdout: ChildStdout, timeout: Duration) -> String {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    if !matches!(poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], timeout), Ok(1..)) {
        return String::new();
    }
    let mut line = String::new();
    let _ = BufReader::new(stdout.take(4096)).read_line(&mut line);
    line.trim_end().to_owned()
}

/// The store's process: its main function. Returns the exit code.
pub(crate) fn run(role: &StoreRole) -> i32 {
    let lifeline = inherited(role.lifeline);
    // This process is there for the store alone.
    if let Err(error) = mobula_store::raise_descriptor_limit() {
        eprintln!("mobula: the store keeps the usual limit of descriptors: {error}");
    }
    let config = mobula_store::Config::new(&role.socket, role.capacity_bytes);
    let server = match mobula_store::Server::bind(config) {
        Ok(server) => server,
        Err(error) => {
            println!("{error}");
            return 1;
        }
    };
    println!("ready");
    // Whoever reads has got what it waited for; the pipe's end tells it that there is no more.
    let _ = nix::unistd::close(1);
    let code = match server.run_while_open(lifeline) {
        Ok(()) => 0,
        Err(error) => {
            eprintln!("mobula: the store ended: {error}");
            1
        }
    };
    // The driver may be gone: then nobody else removes the session's directory.
    if let Some(directory) = role.socket.parent() {
        super::directory::remove(directory);
    }
    code
}

/// Waits for a process that has been told to end; kills it if it does not.
pub(super) fn end(child: &mut Child) {
    let deadline = Instant::now() + END_PATIENCE;
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    if !crate::head::has_ended_before(pid, deadline) {
        let _ = child.kill();
    }
    let _ = child.wait();
}
