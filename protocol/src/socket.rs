//! The socket: a Unix socket of type `SOCK_SEQPACKET`, on which one packet is one message with its descriptors.
//!
//! The kernel keeps the boundaries, so there are no frames to reassemble, no half messages, and never a descriptor
//! that belongs to another message. A packet that does not fit the limit below arrives truncated, is noticed, and
//! refused.

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr,
    accept4, bind, connect, listen, recvmsg, sendmsg, socket,
};

/// Bytes of the largest message.
pub const MESSAGE_BYTES_MAX: usize = 32 << 10;
/// Descriptors that a message carries at most.
pub const DESCRIPTORS_MAX: usize = 8;
/// Bytes of a socket's path at most, which the kernel's address structure sets.
pub const PATH_BYTES_MAX: usize = 107;

/// One message as it came: its bytes, and the descriptors it brought.
#[derive(Debug, Default)]
pub struct Packet {
    /// What [`message`](crate::message) decodes.
    pub bytes: Vec<u8>,
    /// Closed when dropped, so descriptors nobody asked for cost nothing.
    pub descriptors: Vec<OwnedFd>,
}

/// A connected socket, or a listening one.
#[derive(Debug)]
pub struct Socket {
    descriptor: OwnedFd,
}

impl Socket {
    fn unconnected() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        Ok(Self { descriptor: socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)? })
    }

    /// Connects to the daemon that listens at `path`.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` where nobody listens; `InvalidInput` for a path that is too long.
    pub fn connect(path: &Path) -> io::Result<Self> {
        let address = address(path)?;
        let socket = Self::unconnected()?;
        connect(socket.descriptor.as_raw_fd(), &address)?;
        Ok(socket)
    }

    /// Listens at `path`, without blocking in [`accept`](Self::accept).
    ///
    /// # Errors
    /// `AddrInUse` where the path exists, in whatever form; `InvalidInput` for a path that is too long.
    pub fn listen(path: &Path, backlog: i32) -> io::Result<Self> {
        let address = address(path)?;
        let socket = Self::unconnected()?;
        bind(socket.descriptor.as_raw_fd(), &address)?;
        listen(&socket.descriptor, Backlog::new(backlog).map_err(io::Error::from)?)?;
        socket.set_nonblocking()?;
        Ok(socket)
    }

    /// Takes over a connected descriptor.
    pub fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self { descriptor }
    }

    /// The next connection, non-blocking; `None` when there is none now.
    ///
    /// # Errors
    /// The system's, `EMFILE` above all.
    pub fn accept(&self) -> io::Result<Option<Self>> {
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        match accept4(self.descriptor.as_raw_fd(), flags) {
            // SAFETY: a descriptor that accept just made and nobody else knows.
            Ok(raw) => Ok(Some(Self { descriptor: unsafe { OwnedFd::from_raw_fd(raw) } })),
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes sends and receives return `WouldBlock` instead of blocking.
    ///
    /// # Errors
    /// The system's.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        fcntl(&self.descriptor, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        Ok(())
    }

    /// Sends one message with its descriptors, whole or not at all. One system call.
    ///
    /// # Errors
    /// `WouldBlock` where the peer does not read; `BrokenPipe` where it is gone; `InvalidInput` over a limit.
    pub fn send(&self, bytes: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        if bytes.is_empty() || bytes.len() > MESSAGE_BYTES_MAX || descriptors.len() > DESCRIPTORS_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        let raw: Vec<RawFd> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let control: &[ControlMessage<'_>] = if raw.is_empty() { &[] } else { &rights };
        loop {
            let flags = MsgFlags::MSG_NOSIGNAL;
            match sendmsg::<()>(self.descriptor.as_raw_fd(), &[IoSlice::new(bytes)], control, flags, None) {
                Ok(_) => return Ok(()),
                Err(Errno::EINTR) => continue,
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// Receives one message; `None` when the peer has hung up. One system call.
    ///
    /// # Errors
    /// `WouldBlock` on a non-blocking socket; `InvalidData` for a packet over the limits, which is lost.
    pub fn receive(&self) -> io::Result<Option<Packet>> {
        let mut bytes = vec![0u8; MESSAGE_BYTES_MAX];
        let mut control = nix::cmsg_space!([RawFd; DESCRIPTORS_MAX]);
        let mut buffers = [IoSliceMut::new(&mut bytes)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = loop {
            match recvmsg::<()>(self.descriptor.as_raw_fd(), &mut buffers, Some(&mut control), flags) {
                Err(Errno::EINTR) => continue,
                result => break result?,
            }
        };
        let length = message.bytes;
        let truncated = message.flags.intersects(MsgFlags::MSG_TRUNC | MsgFlags::MSG_CTRUNC);
        let mut descriptors = Vec::new();
        if let Ok(controls) = message.cmsgs() {
            for control in controls {
                if let ControlMessageOwned::ScmRights(raw) = control {
                    // SAFETY: the kernel just installed these descriptors for this message; nobody else knows them.
                    descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
                }
            }
        }
        if truncated {
            let text = format!(
                "a packet over the limit of {MESSAGE_BYTES_MAX} bytes or {DESCRIPTORS_MAX} descriptors"
            );
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if length == 0 && descriptors.is_empty() {
            return Ok(None);
        }
        bytes.truncate(length);
        Ok(Some(Packet { bytes, descriptors }))
    }

    /// Wakes a thread that blocks in [`receive`](Self::receive): it sees a hang-up.
    pub fn shutdown(&self) {
        let _ = nix::sys::socket::shutdown(self.descriptor.as_raw_fd(), nix::sys::socket::Shutdown::Both);
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl AsRawFd for Socket {
    fn as_raw_fd(&self) -> RawFd {
        self.descriptor.as_raw_fd()
    }
}

fn address(path: &Path) -> io::Result<UnixAddr> {
    let length = path.as_os_str().len();
    if length > PATH_BYTES_MAX {
        let text = format!(
            "a socket path of {length} bytes, where the system takes {PATH_BYTES_MAX}: {}",
            path.display()
        );
        return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
    }
    Ok(UnixAddr::new(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::socketpair;

    fn pair() -> (Socket, Socket) {
        let (a, b) =
            socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC).unwrap();
        (Socket::from_descriptor(a), Socket::from_descriptor(b))
    }

    #[test]
    fn messages_keep_their_bounds_and_their_descriptors() {
        let (a, b) = pair();
        let file = tempfile_descriptor();
        a.send(b"one", &[file.as_fd(), file.as_fd()]).unwrap();
        a.send(b"two", &[]).unwrap();
        let one = b.receive().unwrap().unwrap();
        assert_eq!((one.bytes.as_slice(), one.descriptors.len()), (&b"one"[..], 2));
        let two = b.receive().unwrap().unwrap();
        assert_eq!((two.bytes.as_slice(), two.descriptors.len()), (&b"two"[..], 0));
        drop(a);
        assert!(b.receive().unwrap().is_none());
    }

    #[test]
    fn a_packet_over_the_limit_is_refused_and_the_next_one_arrives() {
        let (a, b) = pair();
        let large = vec![1u8; MESSAGE_BYTES_MAX + 1];
        assert_eq!(a.send(&large, &[]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
        nix::sys::socket::send(a.as_raw_fd(), &large, MsgFlags::empty()).unwrap();
        a.send(b"next", &[]).unwrap();
        assert_eq!(b.receive().unwrap_err().kind(), io::ErrorKind::InvalidData);
        assert_eq!(b.receive().unwrap().unwrap().bytes, b"next");
    }

    #[test]
    fn a_path_that_is_too_long_says_so() {
        let error = Socket::connect(Path::new(&"x".repeat(200))).unwrap_err();
        assert!(error.to_string().contains("107"), "{error}");
    }

    fn tempfile_descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }
}
