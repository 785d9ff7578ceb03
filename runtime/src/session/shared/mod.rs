//! A session that drivers share: it is started by itself, drivers come and go, and it lasts until it is stopped.
//!
//! Each driver has a head of its own, which starts the workers of its own program. So a worker has its driver's
//! environment, directory and output, and ends with its driver. The drivers share one [process](process): the store,
//! and a thread that [divides](crate::head::share) the session's resources among the heads. The [description], a file
//! of the session's directory, has everything that this process needs to start.
//!
//! A driver's [detached] actors outlive it, so a head in a process of its own keeps them. It joins the session as
//! drivers do.
//!
//! When the session's process is killed, a driver [starts it again](joined), as the driver of an unshared session
//! starts the store again. A session lives as long as its process or one of its drivers holds the lock of its
//! directory.

mod address;
mod description;
pub(crate) mod detached;
pub(super) mod joined;
mod launch;
pub(crate) mod process;

use std::path::{Path, PathBuf};

use mobula_client::internal::{Socket, explained};

use self::description::Description;
use super::directory::Directory;
use super::options::SessionOptions;
use super::{environment, surroundings};
use crate::error::{Error, Result};
use crate::head::share::ToSession;
use crate::wire;

/// The name of the store's socket in a session's directory.
pub(super) const STORE_SOCKET: &str = "store.sock";
/// The socket by which drivers speak to the session's process about resources.
const DRIVERS_SOCKET: &str = "drivers.sock";

/// Starts a session that drivers share, and returns the socket of its store, which is an address to join it by.
///
/// # Errors
/// [`Error::Start`], [`Error::Config`] for options that cannot be.
pub fn start_shared(options: SessionOptions) -> Result<PathBuf> {
    let options = environment::complete(options, |name| {
        std::env::var_os(name).filter(|_| name != environment::ADDRESS)
    })?;
    surroundings::prepare()?;
    let start = |error: &std::io::Error| Error::Start(explained(error));
    let directory = Directory::make_shared(options.session_dir.as_deref()).map_err(|error| start(&error))?;
    let launch = surroundings::absolute_launch(options.store_launch.clone())?;
    Description::of(&options, directory.link.as_deref())?
        .write(&directory.path)
        .map_err(|error| start(&error))?;
    launch::start_process(&launch, &directory.path)?;
    let socket = directory.path.join(STORE_SOCKET);
    // From here on it is the process's.
    directory.leave();
    Ok(socket)
}

/// The socket of the store of a session that drivers share. `address` is as in [`SessionOptions::address`].
///
/// # Errors
/// [`Error::Config`] if there is no such session.
pub fn shared_session(address: &Path) -> Result<PathBuf> {
    Ok(address::resolve(address)?.join(STORE_SOCKET))
}

/// Stops a session that drivers share: every process of it ends, and its directory is removed. Returns when it is gone.
/// `address` is as in [`SessionOptions::address`].
///
/// # Errors
/// [`Error::Config`] if there is no such session; [`Error::Start`] if its process cannot be reached.
pub fn stop_shared(address: &Path) -> Result<()> {
    let directory = address::resolve(address)?;
    let failed = |error: std::io::Error| {
        Error::Start(format!(
            "its process at {} cannot be reached: {}",
            directory.display(),
            explained(&error)
        ))
    };
    let socket = Socket::connect(&directory.join(DRIVERS_SOCKET)).map_err(failed)?;
    socket.send(&wire::to_vec(&ToSession::Stop), &[]).map_err(failed)?;
    // The process says nothing more: it ends.
    while socket.receive().map_err(failed)?.is_some() {}
    Ok(())
}
