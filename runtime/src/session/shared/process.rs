//! The process of a session that drivers share: the store, and beside it a thread that divides the resources.
//!
//! Both are in one process because they end together: the same state survives the death of either.

use std::os::fd::{AsFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use mobula_client::internal::descriptors::{above_standard, fill_standard};
use mobula_client::internal::{Socket, explained};
use nix::sys::signal::{SigSet, Signal};

use super::super::{directory, surroundings};
use super::description::Description;
use super::{DRIVERS_SOCKET, STORE_SOCKET};
use crate::head::share::{self, Division};
use crate::process::output::{self, Stream};
use crate::process::role::SessionRole;

/// How long a restarted store waits for the first client of the previous store. A driver is such a client.
const FIRST_RESUME_WINDOW: Duration = Duration::from_secs(60);
/// Connections of drivers that wait to be accepted.
const BACKLOG: i32 = 256;

/// The main function of the session's process. Returns the exit code.
pub(crate) fn run(role: &SessionRole) -> i32 {
    match serve(Path::new(&role.directory)) {
        Ok(()) => 0,
        Err(reason) => {
            let _ = Stream::Stdout.write_all(format!("{reason}\n").as_bytes());
            1
        }
    }
}

fn serve(path: &Path) -> Result<(), String> {
    // Nothing of the terminal, or of the process that has started this one, ends it.
    let _ = nix::unistd::setsid();
    let _ = std::env::set_current_dir("/");
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(0o077));
    // SIGTERM and SIGINT stop the session. They are blocked before there is a second thread.
    let signals: SigSet = [Signal::SIGTERM, Signal::SIGINT].into_iter().collect();
    signals.thread_block().map_err(|error| error.to_string())?;
    let _lock = directory::hold(path).map_err(|error| explained(&error))?;
    if let Err(error) = mobula_store::prepare_process() {
        output::say(format_args!("the store keeps the usual limits: {error}"));
    }
    let description = Description::read(path).map_err(|error| error.to_string())?;
    let server =
        mobula_store::Server::bind(config_of(path, &description)).map_err(|error| error.to_string())?;
    // The store's socket is this process's now. So no other process of the session is at this one.
    let drivers = path.join(DRIVERS_SOCKET);
    let was_here = std::fs::remove_file(&drivers).is_ok();
    let listener = Socket::listen(&drivers, BACKLOG).map_err(|error| explained(&error))?;
    let (stopped, stop) = pipe().map_err(|error| explained(&error))?;
    let (stopper, directory) = (server.stopper(), path.to_owned());
    let division = Division::new(description.resources, was_here, Instant::now());
    let divide = move || {
        // Without this thread no driver gets anything: then the process begins anew.
        let _aborts = AbortOnPanic;
        let connections = share::serve(&listener, stopped.as_fd(), division);
        // Drivers see by the directory that the session was stopped.
        directory::remove(&directory, description.link.as_deref().map(Path::new));
        stopper.stop();
        // They are closed by the end of the process.
        std::mem::forget(connections);
    };
    let named = |name: &str| std::thread::Builder::new().name(name.into()).stack_size(256 << 10);
    let thread = named("mobula-drivers").spawn(divide);
    thread.map_err(|error| explained(&error))?;
    let wait = move || {
        let _ = signals.wait();
        drop(stop);
    };
    named("mobula-signals").spawn(wait).map_err(|error| explained(&error))?;
    let _ = Stream::Stdout.write_all(b"ready\n");
    let _ = nix::unistd::close(1);
    fill_standard();
    if let Err(error) = server.run() {
        output::say(format_args!("the store ended: {error}"));
        // A driver starts another process in the same directory.
        std::process::abort();
    }
    Ok(())
}

fn pipe() -> std::io::Result<(OwnedFd, OwnedFd)> {
    let (reader, writer) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC)?;
    Ok((above_standard(reader)?, above_standard(writer)?))
}

struct AbortOnPanic;

impl Drop for AbortOnPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::process::abort();
        }
    }
}

fn config_of(path: &Path, description: &Description) -> mobula_store::Config {
    let mut config = mobula_store::Config::new(path.join(STORE_SOCKET), description.capacity_bytes)
        .clients_max(surroundings::clients_max(surroundings::PROCESSES_MAX))
        .first_resume_window(FIRST_RESUME_WINDOW);
    if let Some(directory) = &description.spill_directory {
        config = config.spill_directory(directory);
    }
    if let Some(bytes) = description.spill_bytes_max {
        config = config.spill_bytes_max(bytes);
    }
    config
}
