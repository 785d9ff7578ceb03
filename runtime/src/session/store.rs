//! The driver's side of the embedded store: a [process](super::store_process) that it starts, restarts when it is
//! killed, and ends.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::process::Stdio;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use mobula_client::internal::descriptors::above_standard;
use mobula_client::internal::explained;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::error::{Error, ExitReason, Result};
use crate::launch::Launch;
use crate::process::child::Child;
use crate::process::output;
use crate::process::role::{Role, StoreRole};

/// How long the store may take to start.
const START_PATIENCE: Duration = Duration::from_secs(10);
/// How long it may take to end by itself.
const END_PATIENCE: Duration = Duration::from_secs(2);
/// The longest time between the end of a process's output and its own end.
const CLOSE_TO_END: Duration = Duration::from_secs(1);

/// The longest pause between the end of a store and its restart.
const RESTART_PAUSE_MAX: Duration = Duration::from_secs(1);
/// A store that has run for at least this long is restarted without a pause.
const SOUND_LIFE: Duration = Duration::from_secs(1);

/// The running store, and the thread that restarts it when it is killed. The new store rebuilds its state from the
/// objects and memory that its clients hand back.
#[derive(Debug)]
pub(super) struct Store {
    /// Closed to end the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl Store {
    /// Starts the store, and waits until it can be connected to.
    pub(super) fn start(launch: Launch, role: StoreRole) -> Result<Self> {
        let child = start(&launch, &role)?;
        let system = |error: &std::io::Error| Error::Start(explained(error));
        let (stopped, stop) =
            nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).map_err(|error| system(&error.into()))?;
        let (stopped, stop) = (above_standard(stopped), above_standard(stop));
        let (stopped, stop) =
            stopped.and_then(|stopped| Ok((stopped, stop?))).map_err(|error| system(&error))?;
        let thread = std::thread::Builder::new()
            .name("mobula-restart".into())
            .stack_size(256 << 10)
            .spawn(move || keep_running(child, &launch, &role, &stopped))
            .map_err(|error| system(&error))?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Store {
    /// Waits until the store has ended; the lifeline has told it to. Kills it if it does not end.
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn keep_running(mut child: Child, launch: &Launch, role: &StoreRole, stopped: &OwnedFd) {
    let mut pause = Duration::ZERO;
    loop {
        let begun = Instant::now();
        if wait_for_end(&child, stopped) {
            return end(&child);
        }
        let reason = child.try_wait().map_or(ExitReason::Unknown, |end| end.reason);
        if reason == (ExitReason::Exited { code: 0 }) {
            // The store has ended with the lifeline, as it should.
            return;
        }
        output::say(format_args!("the store has ended, and is started again: {reason}"));
        if begun.elapsed() >= SOUND_LIFE {
            pause = Duration::ZERO;
        }
        child = loop {
            if is_stopped_within(stopped, pause) {
                return;
            }
            pause = (pause * 2).clamp(Duration::from_millis(1), RESTART_PAUSE_MAX);
            match start(launch, role) {
                Ok(child) => break child,
                Err(error) => output::say(format_args!("the store does not start again: {error}")),
            }
        };
    }
}

/// Blocks until the store must end (`true`) or has ended by itself (`false`).
fn wait_for_end(child: &Child, stopped: &OwnedFd) -> bool {
    let mut descriptors =
        [PollFd::new(stopped.as_fd(), PollFlags::POLLIN), PollFd::new(child.as_fd(), PollFlags::POLLIN)];
    while !matches!(poll(&mut descriptors, PollTimeout::NONE), Ok(1..)) {}
    descriptors[0].any().unwrap_or(true)
}

fn is_stopped_within(stopped: &OwnedFd, timeout: Duration) -> bool {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    matches!(poll(&mut [PollFd::new(stopped.as_fd(), PollFlags::POLLIN)], timeout), Ok(1..))
}

fn start(launch: &Launch, role: &StoreRole) -> Result<Child> {
    let mut command = launch.command("mobula-store", &Role::Store(role.clone()).to_argument());
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let (child, stdout, _) = Child::start(&mut command)
        .map_err(|error| Error::Start(format!("the store's process: {}", explained(&error))))?;
    let said = stdout.map(|stdout| read_line_within(stdout, START_PATIENCE)).unwrap_or_default();
    match said.as_str() {
        "ready" => Ok(child),
        "" => {
            let late = !child.has_ended_before(Instant::now() + CLOSE_TO_END);
            match end_at_once(&child) {
                _ if late => {
                    Err(Error::Start(format!("the store did not come up within {START_PATIENCE:?}")))
                }
                reason => Err(Error::Start(format!("the store did not come up: {reason}"))),
            }
        }
        said => {
            end(&child);
            Err(Error::Start(said.to_owned()))
        }
    }
}

pub(super) fn read_line_within(stdout: OwnedFd, timeout: Duration) -> String {
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
    if !matches!(poll(&mut [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)], timeout), Ok(1..)) {
        return String::new();
    }
    let mut line = String::new();
    let _ = BufReader::new(File::from(stdout).take(4096)).read_line(&mut line);
    line.trim_end().to_owned()
}

/// Waits for a process that has been told to end; kills it if it does not.
fn end(child: &Child) {
    child.has_ended_before(Instant::now() + END_PATIENCE);
    end_at_once(child);
}

/// Kills a process if it has not ended. Returns how it ended.
fn end_at_once(child: &Child) -> ExitReason {
    if !child.has_ended() {
        child.kill();
        child.has_ended_before(Instant::now() + END_PATIENCE);
    }
    child.try_wait().map_or(ExitReason::Unknown, |end| end.reason)
}
