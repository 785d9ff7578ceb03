//! Descriptors of processes (pidfds). They show reliably that a process has ended.

use std::io;
use std::os::fd::{AsFd, FromRawFd, OwnedFd};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

/// Whether the process with this id has ended. A zombie counts as ended.
pub(crate) fn has_ended(pid: u32) -> bool {
    match open(pid) {
        Ok(Some(pidfd)) => {
            let mut descriptors = [PollFd::new(pidfd.as_fd(), PollFlags::POLLIN)];
            matches!(poll(&mut descriptors, PollTimeout::ZERO), Ok(1..))
        }
        Ok(None) => false,
        Err(error) => error.kind() == io::ErrorKind::NotFound,
    }
}

/// A descriptor of a process. `NotFound` where there is no such process; `None` on a kernel without such descriptors.
pub(crate) fn open(pid: u32) -> io::Result<Option<OwnedFd>> {
    // SAFETY: takes two integers and touches no memory.
    let raw = unsafe { libc::syscall(libc::SYS_pidfd_open, pid as libc::pid_t, 0) };
    match Errno::result(raw) {
        // SAFETY: a descriptor that the kernel just made: it is open, and nothing else owns it. It fits an int, as all
        // do.
        Ok(raw) => Ok(Some(unsafe { OwnedFd::from_raw_fd(raw as libc::c_int) })),
        Err(Errno::ENOSYS) => Ok(None),
        Err(Errno::ESRCH) => Err(io::ErrorKind::NotFound.into()),
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_has_ended_whether_it_was_waited_for_or_not() {
        assert!(!has_ended(std::process::id()));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let begun = std::time::Instant::now();
        while !has_ended(child.id()) {
            assert!(begun.elapsed() < std::time::Duration::from_secs(60), "it does not end");
        }
        child.wait().unwrap();
        assert!(has_ended(child.id()));
    }
}
