//! What a session needs of the process and the machine around it, looked at before anything is started: what is missing
//! is named, with what to do about it.

use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::error::{Error, Result};

/// Descriptors that the driver of a session with one worker has open, and some for what it does with them.
const DESCRIPTORS_MIN: u64 = 64;
/// As many as the largest session needs. Some programs close all that they might have, one by one.
const DESCRIPTORS_WANTED: u64 = 1 << 16;

/// Makes the process ready for a session.
pub(super) fn prepare() -> Result<()> {
    if !Path::new("/proc/self/exe").exists() {
        return Err(Error::Start(
            "/proc is not mounted, and a session starts its processes and opens shared memory by it: mount it, as in \
             `mount -t proc proc /proc`"
                .to_owned(),
        ));
    }
    raise_descriptor_limit()
}

/// Raises the soft limit of open descriptors where the hard one allows. Processes that this one starts inherit it.
fn raise_descriptor_limit() -> Result<()> {
    let limit = Resource::RLIMIT_NOFILE;
    let Ok((soft, hard)) = getrlimit(limit) else { return Ok(()) };
    let wanted = DESCRIPTORS_WANTED.min(hard);
    if soft < wanted {
        // Refused, it is what it was.
        let _ = setrlimit(limit, wanted, hard);
    }
    let max = soft.max(wanted);
    if max < DESCRIPTORS_MIN {
        return Err(Error::Start(format!(
            "this process may open {max} descriptors (RLIMIT_NOFILE), and a session needs {DESCRIPTORS_MIN} with one worker, \
             and 12 for each further one: raise the hard limit, as in `ulimit -n 1024`"
        )));
    }
    Ok(())
}

/// A path that stays the same when the process changes its directory.
pub(super) fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).map_err(|error| {
        Error::Start(format!(
            "{} is relative, and the directory of this process is gone: {error}",
            path.display()
        ))
    })
}

/// What a session takes of the memory, by itself: 30 % of what the machine, or the control group that this process is in,
/// has. The store, which the memory is charged to, is in the same group.
pub(super) fn default_capacity_bytes() -> u64 {
    let memory = mobula_store::machine::memory_bytes().unwrap_or(4 << 30);
    (memory / 10 * 3).max(64 << 20).min(memory)
}
