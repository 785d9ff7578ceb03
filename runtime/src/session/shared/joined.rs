//! A driver's side of a session that it shares: its connection to the session's process, and a thread that starts that
//! process again when it is killed.

use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;
use std::time::Duration;

use mobula_client::internal::descriptors::above_standard;
use mobula_client::internal::{Socket, explained};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use super::super::directory::{self, Lock};
use super::address;
use super::description::Description;
use super::launch::{self, Reached};
use crate::error::{Error, Result};
use crate::head::MemoryOptions;
use crate::launch::Launch;
use crate::process::output;
use crate::resources::Resources;

/// The pause before another attempt to start the process, when one has failed.
const RETRY: Duration = Duration::from_millis(200);

/// See the module's documentation.
#[derive(Debug)]
pub(in crate::session) struct Joined {
    pub(in crate::session) directory: PathBuf,
    pub(in crate::session) resources: Resources,
    pub(in crate::session) gpus: Vec<String>,
    pub(in crate::session) memory: MemoryOptions,
    launch: Launch,
    /// The connection, until the thread has it.
    socket: Option<Socket>,
    /// Closed to end the thread.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    _lock: Lock,
}

impl Joined {
    /// Joins the session at an address.
    pub(in crate::session) fn join(address: &Path, launch: Launch) -> Result<Self> {
        let directory = address::resolve(address)?;
        let Description { resources, gpus, memory, .. } = Description::read(&directory)?;
        let failed = |error: &std::io::Error| Error::Start(explained(error));
        let lock = directory::hold(&directory).map_err(|error| failed(&error))?;
        let gone = || Error::Start("the session was stopped meanwhile".to_owned());
        // Another driver starts a process that was killed. If there is no other, this one does.
        let reached = launch::reach_process(&launch, &directory, || false)?.ok_or_else(gone)?;
        let socket = reached.socket;
        let (stop, thread) = (None, None);
        Ok(Self {
            directory,
            resources,
            gpus,
            memory,
            launch,
            socket: Some(socket),
            stop,
            thread,
            _lock: lock,
        })
    }

    /// Watches the process from now on. `connected` gets each connection to it, the first one at once.
    pub(in crate::session) fn watch(&mut self, connected: impl Fn(Socket) + Send + 'static) -> Result<()> {
        let failed = |error: &std::io::Error| Error::Start(explained(error));
        let Some(socket) = self.socket.take() else { return Ok(()) };
        let (stopped, stop) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)
            .map_err(std::io::Error::from)
            .and_then(|(stopped, stop)| Ok((above_standard(stopped)?, above_standard(stop)?)))
            .map_err(|error| failed(&error))?;
        let watched = hand_over(socket, &connected).map_err(|error| failed(&error))?;
        let (launch, directory) = (self.launch.clone(), self.directory.clone());
        let watch = move || keep_running(watched, &launch, &directory, &stopped, &connected);
        let thread = std::thread::Builder::new().name("mobula-restart".into()).stack_size(256 << 10);
        self.thread = Some(thread.spawn(watch).map_err(|error| failed(&error))?);
        self.stop = Some(stop);
        Ok(())
    }
}

impl Drop for Joined {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Gives a connection away, and returns another descriptor of it, to wait for its end.
fn hand_over(socket: Socket, connected: &impl Fn(Socket)) -> std::io::Result<OwnedFd> {
    let watched = above_standard(socket.as_fd().try_clone_to_owned()?)?;
    connected(socket);
    Ok(watched)
}

fn keep_running(
    mut watched: OwnedFd,
    launch: &Launch,
    directory: &Path,
    stopped: &OwnedFd,
    connected: &impl Fn(Socket),
) {
    loop {
        let mut descriptors = [
            PollFd::new(stopped.as_fd(), PollFlags::POLLIN),
            PollFd::new(watched.as_fd(), PollFlags::empty()),
        ];
        while !matches!(poll(&mut descriptors, PollTimeout::NONE), Ok(1..)) {}
        let is_over = || is_stopped_within(stopped, PollTimeout::ZERO);
        watched = loop {
            if is_over() {
                return;
            }
            match launch::reach_process(launch, directory, is_over) {
                // The session was stopped.
                Ok(None) => return,
                Ok(Some(Reached { socket, is_started_here })) => {
                    if is_started_here {
                        output::say("the session's process has ended, and was started again");
                    }
                    match hand_over(socket, connected) {
                        Ok(watched) => break watched,
                        Err(error) => {
                            output::say(format_args!("the session's process: {}", explained(&error)))
                        }
                    }
                }
                Err(error) => {
                    output::say(format_args!("the session's process does not start again: {error}"))
                }
            }
            if is_stopped_within(stopped, PollTimeout::try_from(RETRY).unwrap_or(PollTimeout::ZERO)) {
                return;
            }
        };
    }
}

fn is_stopped_within(stopped: &OwnedFd, timeout: PollTimeout) -> bool {
    matches!(poll(&mut [PollFd::new(stopped.as_fd(), PollFlags::POLLIN)], timeout), Ok(1..))
}
