//! The lifeline: how every process of a session learns that the session is over. It is a socket to the driver, and the
//! driver's pidfd.
//!
//! The session ends when the driver shuts its socket down, or when the pidfd shows that the driver's process has ended.
//! Both work even if other processes have copies of the descriptors: a child that the driver has forked has copies of
//! both, and does not keep the session alive.

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use mobula_client::internal::descriptors::above_standard;
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{AddressFamily, MsgFlags, Shutdown, SockFlag, SockType, recv, shutdown, socketpair};
use serde::{Deserialize, Serialize};

use crate::process::child::pidfd;

/// The most reports of stack overflows that are read at a time.
const LAST_WORDS_MAX: usize = 1000;

/// The driver's end.
#[derive(Debug)]
pub(crate) struct Lifeline {
    socket: OwnedFd,
    /// Each process that this one executes inherits these. Only those of the session use them.
    watched: OwnedFd,
    driver: OwnedFd,
}

/// The numbers of the descriptors that a process inherits.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct WatchedNumbers {
    socket: RawFd,
    driver: RawFd,
}

impl Lifeline {
    pub(crate) fn new() -> io::Result<Self> {
        let flags = SockFlag::SOCK_CLOEXEC;
        let (socket, watched) = socketpair(AddressFamily::Unix, SockType::SeqPacket, None, flags)?;
        // This process itself: its number is its own while it asks.
        let driver = pidfd(std::process::id())?;
        let (socket, watched) = (above_standard(socket)?, above_standard(watched)?);
        for descriptor in [&watched, &driver] {
            fcntl(descriptor, FcntlArg::F_SETFD(FdFlag::empty()))?;
        }
        Ok(Self { socket, watched, driver })
    }

    pub(crate) fn watched(&self) -> WatchedNumbers {
        WatchedNumbers { socket: self.watched.as_raw_fd(), driver: self.driver.as_raw_fd() }
    }

    /// The tokens of processes whose stack has overflowed since the last call of this function.
    pub(crate) fn last_words(&self) -> Vec<u64> {
        let (mut tokens, mut token) = (Vec::new(), [0; 8]);
        // At most this many are read at a time, so that a process that sends without end cannot hold up the head.
        while tokens.len() < LAST_WORDS_MAX {
            match recv(self.socket.as_raw_fd(), &mut token, MsgFlags::MSG_DONTWAIT) {
                Ok(8) => tokens.push(u64::from_le_bytes(token)),
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
        }
        tokens
    }

    /// Ends the session: every process of it learns so now.
    pub(crate) fn cut(&self) {
        let _ = shutdown(self.socket.as_raw_fd(), Shutdown::Both);
    }
}

impl Drop for Lifeline {
    fn drop(&mut self) {
        self.cut();
    }
}

/// Tells the driver that the stack of the process with this token has overflowed. For a signal's handler: it only makes
/// one system call.
pub(crate) fn last_words(socket: RawFd, token: u64) {
    let bytes = token.to_le_bytes();
    // SAFETY: the bytes outlive the call. The number may stand for anything by now: nothing but a write can come of it.
    unsafe {
        libc::send(socket, bytes.as_ptr().cast(), bytes.len(), libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
}

/// The end of a process of the session.
#[derive(Debug)]
pub(crate) struct Watched {
    socket: OwnedFd,
    driver: OwnedFd,
}

impl Watched {
    /// Takes over the descriptors that this process has inherited.
    ///
    /// # Safety
    /// The numbers came with the role from the process that started this one, and are taken over once.
    pub(crate) unsafe fn inherit(numbers: WatchedNumbers) -> Self {
        // SAFETY: the caller says where the numbers are from, and that nothing has taken them over before.
        unsafe { Self { socket: inherited(numbers.socket), driver: inherited(numbers.driver) } }
    }

    /// Blocks until the session is over.
    pub(crate) fn wait_until_cut(&self) {
        while !self.is_cut_within(Duration::MAX) {}
    }

    /// Blocks until the session is over, or the other descriptor is readable. Returns `true` if the session is over.
    pub(crate) fn wait_until_cut_or(&self, other: &impl AsFd) -> bool {
        loop {
            let mut descriptors = [self.socket.as_fd(), self.driver.as_fd(), other.as_fd()]
                .map(|descriptor| PollFd::new(descriptor, PollFlags::POLLIN));
            if matches!(poll(&mut descriptors, PollTimeout::NONE), Ok(1..)) {
                return self.is_cut();
            }
        }
    }

    /// Whether the session is over.
    pub(crate) fn is_cut(&self) -> bool {
        self.is_cut_within(Duration::ZERO)
    }

    /// Blocks until the session is over, or until the timeout has passed. Returns `true` if the session is over.
    pub(crate) fn is_cut_within(&self, timeout: Duration) -> bool {
        // The driver sends nothing: the socket's end is all that it can tell.
        let mut descriptors =
            [&self.socket, &self.driver].map(|descriptor| PollFd::new(descriptor.as_fd(), PollFlags::POLLIN));
        let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::MAX);
        matches!(poll(&mut descriptors, timeout), Ok(1..))
    }

    /// The number of its socket.
    pub(crate) fn number(&self) -> RawFd {
        self.socket.as_raw_fd()
    }

    /// Makes [`end_if_descriptors_are_gone`] work from now on.
    pub(crate) fn watch_descriptors(&self) {
        CANARY.store(self.number(), Ordering::Relaxed);
    }
}

/// Takes over a descriptor that the process was started with.
///
/// # Safety
/// The number came with the role from the process that started this one, which left the descriptor open for this
/// purpose. Each is taken over once.
unsafe fn inherited(raw: RawFd) -> OwnedFd {
    // SAFETY: the caller says that it is open, and that nothing else in this process owns it.
    let descriptor = unsafe { OwnedFd::from_raw_fd(raw) };
    // Processes that this one starts must not inherit it.
    let _ = fcntl(&descriptor, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC));
    descriptor
}

/// The lifeline's number, to be asked whether it is still open.
static CANARY: AtomicI32 = AtomicI32::new(-1);

/// Ends the process if user code has closed descriptors that are not its own, as a process that forks in order to
/// become a daemon does. Such a process can no longer send or receive calls. It exits, so that its callers get an
/// error. One system call; in a process that is not a worker, it does nothing.
pub(crate) fn end_if_descriptors_are_gone() {
    let canary = CANARY.load(Ordering::Relaxed);
    // SAFETY: asks about a number, which may stand for anything now.
    if canary >= 0 && unsafe { libc::fcntl(canary, libc::F_GETFD) } == -1 {
        // SAFETY: ends the process.
        unsafe { libc::_exit(1) };
    }
}
