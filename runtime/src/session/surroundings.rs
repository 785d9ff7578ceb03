//! What a session needs of the process and the machine around it, looked at before anything is started: what is missing
//! is named, with what to do about it.

use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use mobula_client::explained;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::error::{Error, Result};

/// Descriptors that the driver of a session with one worker opens, and some for what it does with them.
const DESCRIPTORS_MIN: usize = 48;
/// As many as the largest session needs. Some programs close all that they might have, one by one.
const DESCRIPTORS_WANTED: u64 = 1 << 16;

/// Makes the process ready for a session.
pub(super) fn prepare() -> Result<()> {
    let max = raise_descriptor_limit();
    let mut free = Vec::new();
    let error = match File::open("/proc/self/exe") {
        Ok(program) => {
            let more = std::iter::repeat_with(|| program.try_clone()).take(DESCRIPTORS_MIN);
            more.filter_map(|copy| copy.map(|copy| free.push(copy)).err()).next()
        }
        Err(error) => Some(error),
    };
    match error {
        None => Ok(()),
        Some(error) if error.kind() == ErrorKind::NotFound => Err(Error::Start(
            "/proc is not mounted, and a session starts its processes and opens shared memory by it: mount it, as in \
             `mount -t proc proc /proc`"
                .to_owned(),
        )),
        Some(error) if error.raw_os_error() == Some(libc::EMFILE) => Err(Error::Start(format!(
            "this process has {} left of the {max} descriptors that it may open (RLIMIT_NOFILE), and a session needs \
             {DESCRIPTORS_MIN} with one worker, and about 8 for each further one: raise the hard limit, as in `ulimit \
             -n 1024`, or close some",
            free.len()
        ))),
        Some(error) => Err(Error::Start(format!("/proc/self/exe, by which it starts its processes: {}", explained(&error)))),
    }
}

/// Raises the soft limit of open descriptors where the hard one allows; what it is then. Processes that this one starts
/// inherit it.
fn raise_descriptor_limit() -> u64 {
    let limit = Resource::RLIMIT_NOFILE;
    let Ok((soft, hard)) = getrlimit(limit) else { return 0 };
    let wanted = DESCRIPTORS_WANTED.min(hard);
    if soft < wanted && setrlimit(limit, wanted, hard).is_ok() { wanted } else { soft }
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
