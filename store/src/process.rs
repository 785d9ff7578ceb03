//! Limits and signals of a store's process: descriptors, file sizes, and an error instead of a signal for a file that
//! is too large.

use std::io;

use mobula_protocol::descriptors::fill_standard;
use nix::sys::resource::{RLIM_INFINITY, Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigHandler, Signal, signal};

/// Prepares a process that mainly runs a store. It changes limits, a signal's disposition and the standard descriptors
/// of the whole process:
///
/// * descriptors 0, 1 and 2 that are closed become `/dev/null`, so that nothing of the store's gets their numbers;
/// * the limit of open descriptors is raised as far as the system allows. A store needs four for each client (three
///   when they become scarce), one more when others use its objects or it uses theirs, and one or two for each segment;
/// * the limit of file sizes is raised likewise: it counts for shared memory. A larger file is an error, and no longer
///   a signal (`SIGXFSZ`) that ends the process.
///
/// # Errors
/// The system's.
pub fn prepare_process() -> io::Result<()> {
    fill_standard();
    // SAFETY: ignoring a signal runs no code.
    unsafe { signal(Signal::SIGXFSZ, SigHandler::SigIgn) }?;
    raise(Resource::RLIMIT_FSIZE)?;
    raise(Resource::RLIMIT_NOFILE)
}

/// Lets this process open as many descriptors as the system allows it.
///
/// # Errors
/// The system's.
pub fn raise_descriptor_limit() -> io::Result<()> {
    raise(Resource::RLIMIT_NOFILE)
}

/// Raises a limit as far as the system allows this process.
fn raise(resource: Resource) -> io::Result<()> {
    let (soft, hard) = getrlimit(resource)?;
    if soft < hard {
        setrlimit(resource, hard, hard)?;
    }
    Ok(())
}

/// Bytes of the largest file, or shared memory, that this process may make; `None` where there is no limit.
pub(crate) fn file_bytes_max() -> Option<u64> {
    getrlimit(Resource::RLIMIT_FSIZE).ok().map(|(soft, _)| soft).filter(|soft| *soft != RLIM_INFINITY)
}
