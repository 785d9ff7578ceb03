//! The number of processes for which this process has descriptors.
//!
//! The driver has several descriptors for each process of its session, and must not run out of them. Without a
//! descriptor it cannot attach a new reader of its objects, and while a reader is pending it treats every object as
//! pinned. Then no actor ends after the drop of its last handle, and the actors keep their descriptors. So a process is
//! started only if this process has room for all its descriptors.

use std::fs;
use std::os::unix::fs::MetadataExt;

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The descriptors that the driver of a session with one worker opens, and some spare ones.
pub(crate) const SESSION: usize = 48;
/// The descriptors that each process of a session takes in the driver.
const PROCESS: usize = 10;
/// The descriptors that stay free for short uses.
const KEPT_FREE: usize = 4;
/// The limit that the largest session needs. It is not higher, because some programs close every possible descriptor
/// number in a loop when they start a child.
const WANTED: u64 = 1 << 16;

/// Raises the soft limit where the hard one allows; returns the new soft limit. Processes that this one starts inherit
/// it.
pub(crate) fn raise_limit() -> u64 {
    let resource = Resource::RLIMIT_NOFILE;
    let Ok((soft, hard)) = getrlimit(resource) else { return 0 };
    let wanted = WANTED.min(hard);
    if soft < wanted && setrlimit(resource, wanted, hard).is_ok() { wanted } else { soft }
}

/// The number of processes that a session may have by the limit alone.
pub(crate) fn processes_in_limit() -> usize {
    limit().saturating_sub(SESSION) / PROCESS
}

/// The number of further processes for which this process has room now, while `starting` processes do not have all
/// their descriptors yet. A few system calls.
pub(crate) fn room_now(starting: usize) -> usize {
    let free = limit().saturating_sub(open()).saturating_sub(KEPT_FREE);
    (free / PROCESS).saturating_sub(starting)
}

fn limit() -> usize {
    getrlimit(Resource::RLIMIT_NOFILE)
        .map_or(usize::MAX, |(soft, _)| usize::try_from(soft).unwrap_or(usize::MAX))
}

/// The number of open descriptors of this process. From Linux 6.2 on, the size of the directory is this number, so no
/// file has to be opened.
fn open() -> usize {
    const OF_THIS_PROCESS: &str = "/proc/self/fd";
    let by_size = fs::metadata(OF_THIS_PROCESS).map_or(0, |directory| directory.size() as usize);
    if by_size > 0 {
        return by_size;
    }
    // If there is no descriptor to count with, there is none for a process either.
    fs::read_dir(OF_THIS_PROCESS).map_or(usize::MAX, Iterator::count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn open_descriptors_are_counted() {
        let before = open();
        let files: Vec<_> = (0..100).map(|_| fs::File::open("/dev/null").expect("it opens")).collect();
        // Other tests of this process open and close some meanwhile.
        assert!((before + 50..before + 150).contains(&open()), "{before}, then {}", open());
        drop(files);
    }
}
