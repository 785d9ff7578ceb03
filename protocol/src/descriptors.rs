//! Keeping away from descriptors 0, 1 and 2.
//!
//! A program may close its standard input and outputs. The kernel then gives their numbers to the files that are opened
//! next, and everything that is printed goes there: into a socket, or into shared memory. In a process of another
//! program, the library moves its own descriptors above them ([`above_standard`]). A process of the library itself
//! opens `/dev/null` in their places ([`fill_standard`]).

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;

/// The lowest number of a descriptor of this library.
const LOWEST: libc::c_int = 3;

/// Gives the file a descriptor above 2, closed on exec. Costs only a comparison if the descriptor is above 2
/// already.
///
/// # Errors
/// The system's: no descriptors left. Then it is closed.
pub fn above_standard(descriptor: OwnedFd) -> io::Result<OwnedFd> {
    if descriptor.as_raw_fd() >= LOWEST {
        return Ok(descriptor);
    }
    let copy = fcntl(&descriptor, FcntlArg::F_DUPFD_CLOEXEC(LOWEST))?;
    // SAFETY: a descriptor that the call just made and nobody else knows.
    Ok(unsafe { OwnedFd::from_raw_fd(copy) })
}

/// Opens `/dev/null` as each of the descriptors 0, 1 and 2 that is closed, for this process and those that it starts.
/// Only for a process of this library: another program may have closed them on purpose.
pub fn fill_standard() {
    // The kernel gives out the lowest number that is free.
    while let Ok(descriptor) = open("/dev/null", OFlag::O_RDWR, Mode::empty()) {
        if descriptor.as_raw_fd() >= LOWEST {
            return;
        }
        let _stays_open = descriptor.into_raw_fd();
    }
}
