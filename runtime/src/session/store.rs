//! The embedded store: a process of its own that the driver starts, starts again when it is killed, and takes down.

use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, Result};
use crate::takeover::{ROLE, Role, StoreRole, inherited};

/// How long the store may take to start.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to end by itself.
const END_PATIENCE: Duration = Duration::from_secs(2);

/// How long a store that has just ended is left alone before another is started, at most.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A store that has lived as long as this is started again at once.
const SOUND_LIFE: Duration = Duration::from_secs(1);

/// The running store, and the thread that starts another one when it is killed: that one goes on with what its clients
/// hand back to it.
#[derive(Debug)]
pub(super) struct Store {
    /// Closed to end the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Starts the store, and waits until it can be connected to. The role's lifeline must stay open.
    pub(super) fn start(role: StoreRole) -> Result<Self> {
        let child = start(&role)?;
        let system = |error: &dyn std::fmt::Display| Error::Start(error.to_string());
        let (stopped, stop) =
            nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|error| system(&error))?;
        let thread = std::thread::Builder::new()
            .name("mobula-store-keeper".into())
            .stack_size(256 << 10)
            .spawn(move || keep_running(child, &role, &stopped))
            .map_err(|error| system(&error))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Store {
    /// Waits until it has ended, as the lifeline has told it; kills it if it does not.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn keep_running(mut child: Child, role: &StoreRole, stopped: &OwnedFd) {
    let mut pause = Duration::ZERO;
    loop {
        let begun = Instant::now();
        if wait_for_end(&child, stopped) {
            return end(&mut child);
        }
        let status = child.wait();
        if status.as_ref().is_ok_and(std::process::ExitStatus::success) {
            // It has ended as it should, with the lifeline.
            return;
        }
        let how = status.map_or_else(|error| error.to_string(), crate::head::how);
        eprintln!("mobula: the store has ended, and is started again: {how}");
        if begun.elapsed() >= SOUND_LIFE {
            pause = Duration::ZERO;
        }
        child = loop {
            if is_stopped_within(stopped, pause) {
                return;
            }
            pause = (pause * 2).clamp(Duration::from_millis(1), RESTART_PAUSE_MAX);
            match start(role) {
                Ok(child) => break child,
                Err(error) => eprintln!("mobula: the store does not start again: {error}"),
            }
        };
    }
}

/// Blocks until the store is to end (`true`) or has ended by itself.
fn wait_for_end(child: &Child, stopped: &OwnedFd) -> bool {
    let pidfd = crate::head::pidfd(nix::unistd::Pid::from_raw(child.id() as i32));
    let Some(pidfd) = pidfd else { return is_stopped_within(stopped, Duration::MAX) };
    let mut descriptors =
        [PollFd::new(stopped.as_fd(), PollFlags::POLLIN), PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
    while !matches!(poll(&mut descriptors, PollTimeout::NONE), Ok(1..)) {}
    descriptors[0].any().unwrap_or(true)
}

fn is_stopped_within(stopped: &OwnedFd, timeout: Duration) -> bool {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    matches!(poll(&mut [PollFd::new(stopped.as_fd(), PollFlags::POLLIN)], timeout), Ok(1..))
}

fn start(role: &StoreRole) -> Result<Child> {
    let mut child = Command::new("/proc/self/exe")
        .arg0("mobula-store")
        .env(ROLE, Role::Store(role.clone()).to_variable())
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
    let mut config = mobula_store::Config::new(&role.socket, role.capacity_bytes);
    config.spill_directory = role.spill_directory.clone();
    config.spill_bytes_max = role.spill_bytes_max.unwrap_or(config.spill_bytes_max);
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
fn end(child: &mut Child) {
    let deadline = Instant::now() + END_PATIENCE;
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    if !crate::head::has_ended_before(pid, deadline) {
        let _ = child.kill();
    }
    let _ = child.wait();
}
