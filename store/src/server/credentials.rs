//! The credentials of the process at the other end of a connection, and a descriptor that shows its death.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};

use mobula_protocol::socket::Socket;
use nix::errno::Errno;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::{PeerCredentials, PeerPidfd};
use nix::unistd::geteuid;

/// The process that connected.
#[derive(Debug)]
pub(crate) struct Credentials {
    /// Its process id; 0 where it is not visible from here.
    pub(crate) pid: u32,
    /// Its user: this process's own, or root.
    pub(crate) user: u32,
    /// Becomes readable when the process ends, even while a child of it still has the socket open. `None` where the
    /// kernel has no such descriptors, or descriptors are scarce: then only the hang-up shows the end.
    pub(crate) pidfd: Option<OwnedFd>,
}

impl Credentials {
    /// The credentials of the process that connected.
    ///
    /// # Errors
    /// `PermissionDenied` for another user's process; `NotFound` for one that is dead already; else the system's.
    pub(crate) fn of(socket: &Socket) -> io::Result<Self> {
        let credentials = getsockopt(socket, PeerCredentials)?;
        if credentials.uid() != geteuid().as_raw() && credentials.uid() != 0 {
            let text = format!("process {} belongs to user {}", credentials.pid(), credentials.uid());
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, text));
        }
        let pid = u32::try_from(credentials.pid()).unwrap_or(0);
        let pidfd = if descriptors_are_scarce(socket) { None } else { pidfd(socket, pid)? };
        Ok(Self { pid, user: credentials.uid(), pidfd })
    }
}

/// Whether three quarters of this process's descriptors are in use. The number of the latest one shows it, because the
/// kernel gives out the lowest free number.
fn descriptors_are_scarce(latest: &Socket) -> bool {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(limit, _)| limit);
    latest.as_raw_fd() as u64 >= limit / 4 * 3
}

/// Makes the kernel refuse messages with descriptors, where it can: no client sends the daemon any in good faith.
///
/// Elsewhere they are closed unseen.
pub(crate) fn refuse_descriptors(socket: &Socket) {
    // Linux 6.16; not in `libc` yet.
    const SO_PASSRIGHTS: libc::c_int = 83;
    let off: libc::c_int = 0;
    // SAFETY: the option's value is an int that outlives the call, with its true length; the kernel only reads it, and
    // refuses an option that it does not know.
    unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            SO_PASSRIGHTS,
            (&raw const off).cast(),
            size_of::<libc::c_int>() as libc::socklen_t,
        );
    }
}

/// A descriptor of the peer's process. From Linux 6.5 on, it is certain to be the process that connected, and not
/// another that got its number later.
fn pidfd(socket: &Socket, pid: u32) -> io::Result<Option<OwnedFd>> {
    match getsockopt(socket, PeerPidfd) {
        Ok(pidfd) => return Ok(Some(pidfd)),
        Err(Errno::ENOPROTOOPT) if pid != 0 => {}
        Err(Errno::ENOPROTOOPT | Errno::ENODATA) => return Ok(None),
        Err(Errno::ESRCH | Errno::EINVAL) => return Err(io::ErrorKind::NotFound.into()),
        Err(error) => return Err(error.into()),
    }
    crate::pidfd::open(pid)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};

    #[test]
    fn this_process_is_recognised() {
        let (ours, _theirs) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        let socket = Socket::from_descriptor(ours);
        refuse_descriptors(&socket);
        let peer = Credentials::of(&socket).unwrap();
        assert_eq!(peer.pid, std::process::id());
    }
}
