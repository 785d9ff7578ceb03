//! The resources that a session needs of its process and the machine. They are checked before anything is started: an
//! error names the missing resource and what to do about it.

use std::ffi::OsString;
use std::fs::File;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use mobula_client::internal::explained;
use nix::sys::resource::{Resource, getrlimit};

use super::options::SessionOptions;
use crate::error::{Error, Result};
use crate::launch::Launch;
use crate::process::descriptors;

/// Makes the process ready for a session.
pub(super) fn prepare() -> Result<()> {
    let max = descriptors::raise_limit();
    let mut free = Vec::new();
    let error = match File::open("/proc/self/exe") {
        Ok(program) => {
            let more = std::iter::repeat_with(|| program.try_clone()).take(descriptors::SESSION);
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
             {needed} with one worker, and about 8 for each further one: raise the hard limit, as in `ulimit \
             -n 1024`, or close some",
            free.len(),
            needed = descriptors::SESSION
        ))),
        Some(error) => {
            let reason = explained(&error);
            Err(Error::Start(format!("/proc/self/exe, by which it starts its processes: {reason}")))
        }
    }
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

/// A program to start, whose path stays the same when the process changes its directory.
pub(super) fn absolute_launch(launch: Launch) -> Result<Launch> {
    // A bare name is looked up in PATH.
    let is_path = launch.program.components().count() > 1;
    let program = if is_path { absolute(&launch.program)? } else { launch.program };
    Ok(Launch { program, ..launch })
}

/// The directory for spilled objects; `None`: none are spilled.
pub(super) fn spill_directory(options: &SessionOptions) -> Result<Option<OsString>> {
    let given = options.spill_directory.as_deref().map(absolute).transpose()?;
    let directory = given.or_else(mobula_store::Config::default_spill_directory);
    Ok(directory.filter(|_| options.spill_bytes_max != Some(0)).map(Into::into))
}

/// The default capacity: 30 % of the memory of the machine, or of the control group of this process. The store, to
/// which the memory is charged, is in the same group.
pub(super) fn default_capacity_bytes() -> u64 {
    let memory = mobula_store::machine::memory_bytes().unwrap_or(4 << 30);
    (memory / 10 * 3).max(64 << 20).min(memory)
}

/// The most processes that a session can have. The store has a client slot for each, and one for each of as many that
/// have just died.
pub(super) const PROCESSES_MAX: usize = 30_000;
/// The threads and the memory that are counted for a process of the session.
const THREADS_EACH: u64 = 4;
const MEMORY_BYTES_EACH: u64 = 16 << 20;
/// Client slots of the store for clients that are not processes of the session.
const OTHER_CLIENTS: usize = 64;
/// The fewest client slots of a store. A slot costs almost nothing.
const CLIENTS_MIN: usize = 1024;

/// The default limit of processes: as many as there is room for, or half as many where the resource is shared with
/// other programs.
pub(super) fn default_processes_max(workers: usize) -> usize {
    let descriptors = Some(descriptors::processes_in_limit() as u64);
    // The superuser is not subject to it.
    let of_user = getrlimit(Resource::RLIMIT_NPROC).ok().filter(|_| !nix::unistd::geteuid().is_root());
    let of_user = of_user.map(|(soft, _)| soft / 2 / THREADS_EACH);
    let system = ["pid_max", "threads-max"].into_iter().filter_map(|name| {
        let text = std::fs::read_to_string(Path::new("/proc/sys/kernel").join(name)).ok()?;
        Some(text.trim().parse::<u64>().ok()? / 2 / THREADS_EACH)
    });
    let group = mobula_store::machine::group_tasks_max().map(|tasks| tasks / 2 / THREADS_EACH);
    let memory = mobula_store::machine::memory_bytes().map(|bytes| bytes / MEMORY_BYTES_EACH);
    let room = [descriptors, of_user, group, memory].into_iter().flatten().chain(system).min();
    let room = room.and_then(|room| usize::try_from(room).ok()).unwrap_or(PROCESSES_MAX);
    // Always one more than the workers, for an actor or for a call that another call waits for, even if the limits say
    // less: they may be raised meanwhile.
    room.clamp(workers + 1, PROCESSES_MAX)
}

/// The client slots of the store of a session with this limit of processes. The store remembers dead clients for a
/// while.
pub(super) fn clients_max(processes_max: usize) -> u32 {
    let clients = (2 * processes_max + OTHER_CLIENTS).max(CLIENTS_MIN);
    clients.min(usize::from(u16::MAX)) as u32
}
