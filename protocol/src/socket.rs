//! The socket: a Unix socket of type `SOCK_SEQPACKET`, on which one packet is one message with its descriptors.
//!
//! The kernel keeps the boundaries, so there are no frames to reassemble, no half messages, and never a descriptor
//! that belongs to another message. A packet that does not fit the limit below arrives truncated, is noticed, and
//! refused.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::path::Path;
use std::time::Duration;

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, MsgFlags, SockFlag, SockType, UnixAddr, accept4, bind, connect,
    getsockopt, listen, sendmsg, setsockopt, socket, sockopt::PeerCredentials, sockopt::SendTimeout,
};
use nix::sys::stat::Mode;
use nix::sys::time::{TimeVal, TimeValLike};

use crate::descriptors::above_standard;

/// Bytes of the largest message.
pub const MESSAGE_BYTES_MAX: usize = 32 << 10;
/// Descriptors that a message carries at most.
pub const DESCRIPTORS_MAX: usize = 8;
/// Bytes of a socket's path that the kernel's address structure has room for. For a longer path, a descriptor of its
/// directory is used, which needs `/proc`.
const PATH_BYTES_MAX: usize = 107;
/// The most bytes of the last part of a socket's path: this is the room in an address behind
/// `/proc/self/fd/2147483647/`.
pub const NAME_BYTES_MAX: usize = 82;

/// Room for the control messages of a packet, as the kernel writes them. The C library's functions read headers in it
/// where they lie, so it is aligned as a header is: an array of bytes need not be.
#[repr(C)]
struct ControlBuffer {
    headers: [libc::cmsghdr; CONTROL_BYTES.div_ceil(size_of::<libc::cmsghdr>())],
}

/// Bytes that a header takes with as many descriptors as a message carries.
// SAFETY: computes with a number.
const CONTROL_BYTES: usize =
    unsafe { libc::CMSG_SPACE((DESCRIPTORS_MAX * size_of::<RawFd>()) as u32) } as usize;

impl ControlBuffer {
    fn empty() -> Self {
        // SAFETY: a header is made of integers, of which zero is a value.
        unsafe { std::mem::zeroed() }
    }
}

/// One message as it came: its bytes, and the descriptors it brought.
#[derive(Debug, Default)]
pub struct Packet {
    /// The bytes that [`message`](crate::message) decodes.
    pub bytes: Vec<u8>,
    /// Closed when dropped, so unexpected descriptors cost nothing.
    pub descriptors: Vec<OwnedFd>,
    /// Whether it brought more descriptors than this process can open, or than a message may have.
    pub descriptors_lost: bool,
}

/// A connected socket, or a listening one.
#[derive(Debug)]
pub struct Socket {
    descriptor: OwnedFd,
}

impl Socket {
    fn unconnected() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let descriptor = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?;
        Ok(Self { descriptor: above_standard(descriptor)? })
    }

    /// Connects to the daemon that listens at `path`; waits for 10 s while others crowd there.
    ///
    /// # Errors
    /// As [`connect_within`](Self::connect_within).
    pub fn connect(path: &Path) -> io::Result<Self> {
        Self::connect_within(path, Duration::from_secs(10))
    }

    /// Connects to a socket, and waits at most `patience`, because a stopped daemon accepts no connection. Without a
    /// limit, a process that connects while the backlog is full would wait until the daemon continues.
    ///
    /// # Errors
    /// `NotFound` or `ConnectionRefused` where nobody listens; `InvalidInput` for a name that is too long; `TimedOut`
    /// when the time is over.
    pub fn connect_within(path: &Path, patience: Duration) -> io::Result<Self> {
        let address = Address::of(path)?;
        let socket = Self::unconnected()?;
        // Zero would mean no limit.
        let micros = patience.as_micros().clamp(1, i64::MAX as u128) as i64;
        setsockopt(&socket.descriptor, SendTimeout, &TimeVal::microseconds(micros))?;
        loop {
            match connect(socket.descriptor.as_raw_fd(), &address.unix) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let text =
                        format!("the process that listens there accepted no connection within {patience:?}");
                    return Err(io::Error::new(io::ErrorKind::TimedOut, text));
                }
                result => break result?,
            }
        }
        setsockopt(&socket.descriptor, SendTimeout, &TimeVal::microseconds(0))?;
        Ok(socket)
    }

    /// Listens at `path`, without blocking in [`accept`](Self::accept).
    ///
    /// # Errors
    /// `AddrInUse` where the path exists, in any form; `InvalidInput` for a name that is too long.
    pub fn listen(path: &Path, backlog: i32) -> io::Result<Self> {
        let address = Address::of(path)?;
        let socket = Self::unconnected()?;
        bind(socket.descriptor.as_raw_fd(), &address.unix)?;
        listen(&socket.descriptor, Backlog::new(backlog).map_err(io::Error::from)?)?;
        socket.set_nonblocking()?;
        Ok(socket)
    }

    /// The user of the process at the other end: the one that listened, or the one that connected. A system call.
    ///
    /// # Errors
    /// The system's.
    pub fn peer_user(&self) -> io::Result<u32> {
        Ok(getsockopt(&self.descriptor, PeerCredentials)?.uid())
    }

    /// The process at the other end: the one that listened, or the one that connected; 0 if this process cannot see it.
    /// A system call.
    ///
    /// # Errors
    /// The system's.
    pub fn peer_process(&self) -> io::Result<u32> {
        Ok(getsockopt(&self.descriptor, PeerCredentials)?.pid() as u32)
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
            Ok(raw) => {
                // SAFETY: a descriptor that accept just made: it is open, and nobody else owns it.
                let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
                Ok(Some(Self { descriptor: above_standard(descriptor)? }))
            }
            Err(Errno::EAGAIN | Errno::EINTR | Errno::ECONNABORTED) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Makes sends and receives return `WouldBlock` instead of blocking.
    ///
    /// # Errors
    /// The system's.
    pub fn set_nonblocking(&self) -> io::Result<()> {
        use nix::fcntl::{FcntlArg, fcntl};
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
    /// `WouldBlock` on a non-blocking socket; `InvalidData` for a packet of too many bytes, which is lost.
    pub fn receive(&self) -> io::Result<Option<Packet>> {
        let mut bytes = vec![0u8; MESSAGE_BYTES_MAX];
        let (length, flags, descriptors) = self.receive_into(&mut bytes)?;
        let truncated = flags & libc::MSG_TRUNC != 0;
        let received = descriptors.len();
        let descriptors: Vec<_> =
            descriptors.into_iter().filter_map(|received| above_standard(received).ok()).collect();
        let descriptors_lost = flags & libc::MSG_CTRUNC != 0 || descriptors.len() < received;
        if truncated {
            let text = format!("a packet over the limit of {MESSAGE_BYTES_MAX} bytes");
            return Err(io::Error::new(io::ErrorKind::InvalidData, text));
        }
        if length == 0 && descriptors.is_empty() && !descriptors_lost {
            return Ok(None);
        }
        bytes.truncate(length);
        Ok(Some(Packet { bytes, descriptors, descriptors_lost }))
    }

    /// The length of the next packet, the flags that say whether something of it was cut off, and its descriptors.
    ///
    /// This does not use `nix`'s `recvmsg`. If some descriptors of a packet were cut off, that function returns none of
    /// them, although the kernel has opened the others. They would never be closed.
    fn receive_into(&self, bytes: &mut [u8]) -> io::Result<(usize, libc::c_int, Vec<OwnedFd>)> {
        let mut control = ControlBuffer::empty();
        let mut part = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
        // SAFETY: its fields are integers and raw pointers, of which zero is a value.
        let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
        message.msg_iov = &raw mut part;
        message.msg_iovlen = 1;
        message.msg_control = (&raw mut control).cast();
        // No more than is needed, even if the buffer is larger: the kernel cuts off the rest of a packet, and the cut
        // is noticed.
        message.msg_controllen = CONTROL_BYTES;
        let length = loop {
            // SAFETY: the message refers to buffers of at least the lengths that it says, which outlive the call and
            // are referred to by nothing else meanwhile; it asks for no address.
            let result = unsafe {
                libc::recvmsg(self.descriptor.as_raw_fd(), &raw mut message, libc::MSG_CMSG_CLOEXEC)
            };
            match Errno::result(result) {
                Err(Errno::EINTR) => continue,
                result => break result? as usize,
            }
        };
        let mut descriptors = Vec::new();
        // SAFETY: the kernel has filled the control buffer, which is still there, as far as the message says now; the
        // function stays within that.
        let mut header = unsafe { libc::CMSG_FIRSTHDR(&raw const message) };
        // SAFETY: null, or the place of a header that lies whole inside the control buffer, is initialised, and is
        // aligned: the buffer begins so, and the kernel puts each header at a multiple of its alignment behind that.
        // Nothing writes there.
        while let Some(&libc::cmsghdr { cmsg_len, cmsg_level, cmsg_type, .. }) = unsafe { header.as_ref() } {
            if (cmsg_level, cmsg_type) == (libc::SOL_SOCKET, libc::SCM_RIGHTS) {
                // SAFETY: computes with a number.
                let before = unsafe { libc::CMSG_LEN(0) } as usize;
                let count = cmsg_len.saturating_sub(before) / size_of::<RawFd>();
                for at in 0..count {
                    // SAFETY: the kernel wrote so many descriptors behind the header, inside the control buffer. It has
                    // just installed them for this message, and each is read once: nobody else owns them.
                    descriptors.push(unsafe {
                        let place = libc::CMSG_DATA(header).cast::<RawFd>().add(at);
                        OwnedFd::from_raw_fd(place.read_unaligned())
                    });
                }
            }
            // SAFETY: the header is one of the control buffer's, which is still there; the function returns another one
            // of it, whole, or null.
            header = unsafe { libc::CMSG_NXTHDR(&raw const message, header) };
        }
        Ok((length, message.msg_flags, descriptors))
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

/// A path as the kernel takes it.
struct Address {
    unix: UnixAddr,
    /// Of a longer path: its directory, by way of which the kernel finds the rest.
    _directory: Option<OwnedFd>,
}

impl Address {
    fn of(path: &Path) -> io::Result<Self> {
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(Self { unix: UnixAddr::new(path)?, _directory: None });
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        if name.len() > NAME_BYTES_MAX {
            return Err(name_too_long(name.len(), path));
        }
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = above_standard(open(parent, flags, Mode::empty())?)?;
        let short = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Self { unix: UnixAddr::new(&short)?, _directory: Some(directory) })
    }
}

fn name_too_long(bytes: usize, path: &Path) -> io::Error {
    let text = format!(
        "the name of a socket has {bytes} bytes, where the system takes {NAME_BYTES_MAX}: {}",
        path.display()
    );
    io::Error::new(io::ErrorKind::InvalidInput, text)
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
    fn descriptors_over_the_limit_are_closed_with_those_that_fit() {
        let (a, b) = pair();
        let (reader, writer) = nix::unistd::pipe().unwrap();
        let raw = vec![writer.as_raw_fd(); DESCRIPTORS_MAX + 1];
        let rights = [ControlMessage::ScmRights(&raw)];
        let bytes = [IoSlice::new(b"many")];
        sendmsg::<()>(a.as_raw_fd(), &bytes, &rights, MsgFlags::empty(), None).unwrap();
        a.send(b"next", &[]).unwrap();
        drop(writer);
        assert!(b.receive().unwrap().unwrap().descriptors_lost);
        assert_eq!(b.receive().unwrap().unwrap().bytes, b"next");
        // The pipe ends only when its last writer is closed.
        use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
        let mut ends = [PollFd::new(reader.as_fd(), PollFlags::POLLIN)];
        assert_eq!(poll(&mut ends, PollTimeout::ZERO), Ok(1), "a descriptor of the packet was left open");
    }

    #[test]
    fn a_crowded_listener_is_given_up() {
        let directory = std::env::temp_dir().join(format!("mobula-crowd-{}", std::process::id()));
        std::fs::create_dir(&directory).unwrap();
        let path = directory.join("socket");
        let _listener = Socket::listen(&path, 1).unwrap();
        let crowd = std::iter::from_fn(|| Some(Socket::connect_within(&path, Duration::from_millis(5))));
        let mut kept = Vec::new();
        let error = crowd.take(10).find_map(|come| come.map(|socket| kept.push(socket)).err());
        std::fs::remove_dir_all(&directory).unwrap();
        assert_eq!(error.map(|error| error.kind()), Some(io::ErrorKind::TimedOut));
    }

    #[test]
    fn a_path_may_be_longer_than_an_address_of_the_kernels() {
        let base = std::env::temp_dir().join(format!("mobula-long-{}", std::process::id()));
        let directory = base.join("x".repeat(100)).join("y".repeat(100));
        std::fs::create_dir_all(&directory).unwrap();
        let path = directory.join("socket");
        assert_eq!(Socket::connect(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let listener = Socket::listen(&path, 1).unwrap();
        let there = Socket::connect(&path).unwrap();
        let here = listener.accept().unwrap().unwrap();
        there.send(b"hello", &[]).unwrap();
        assert_eq!(here.receive().unwrap().unwrap().bytes, b"hello");
        std::fs::remove_dir_all(&base).unwrap();
    }

    #[test]
    fn a_path_that_is_too_long_says_so() {
        let error = Socket::connect(Path::new(&"x".repeat(200))).unwrap_err();
        assert!(error.to_string().contains("has 200 bytes, where the system takes 82"), "{error}");
    }

    fn tempfile_descriptor() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }
}
