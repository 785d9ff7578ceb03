//! The bell: an eventfd that wakes a sleeping process. Other processes ring it while it sleeps, and for the first
//! record in a ring that it does not look at (an [idle ring](crate::ring)).
//!
//! # The protocol
//!
//! ```text
//! sleeper                                waker
//! sleeps.store(odd)                      publish (a ring's tail or head)
//! fence(SeqCst)                          fence(SeqCst)
//! look at everything once more           sleeps.load() odd, and not the one that was rung for last?
//! nothing: block on the eventfd          ring
//! sleeps.store(even)
//! look at everything
//! ```
//!
//! This is Dekker's handshake: either the waker sees the sleep, or the sleeper sees what was published.
//!
//! The word `sleeps` lies in the sleeper's [table header](crate::table), and counts: it is odd while the process
//! sleeps. A waker rings once for each sleep, no matter how many records it publishes until the sleeper runs. One ring
//! is enough, because the sleeper looks at everything after it has made the word even. One ring too many costs one
//! useless look. A missing ring cannot happen: `shm/tests/loom/doorbell.rs` explores all orders.
//!
//! The eventfd adds up what is written to it. A ring for an idle ring writes a larger number than any other, so the
//! process learns from the sum whether it has to look at its idle rings.

use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, ppoll};
use nix::sys::eventfd::{EfdFlags, EventFd};
use nix::sys::time::TimeSpec;

use crate::failpoints::{Failpoint, failpoint};

/// The number that a ring for an idle ring adds. The number of other rings between two looks at the bell never comes
/// near it. If it did, the process would look at its idle rings without need.
const FOR_IDLE: u64 = 1 << 32;

/// The rings that a look at the bell found.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rings {
    /// It was rung.
    pub any: bool,
    /// It was rung for an idle ring.
    pub for_idle: bool,
}
/// The longest timeout that the kernel is asked for. A wait may end sooner than its caller wants.
const WAIT_MAX: Duration = Duration::from_secs(1 << 30);

/// An eventfd that wakes the one process that blocks on it.
#[derive(Debug)]
pub struct Bell {
    descriptor: OwnedFd,
}

impl Bell {
    /// Makes a bell.
    ///
    /// # Errors
    /// The system's: too many descriptors.
    pub fn create() -> io::Result<Self> {
        let event = EventFd::from_value_and_flags(0, EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?;
        Ok(Self { descriptor: event.into() })
    }

    /// Takes a descriptor that came from a daemon, which sends bells only.
    pub fn from_descriptor(descriptor: OwnedFd) -> Self {
        Self { descriptor }
    }

    /// Takes a descriptor that may come from another process than a daemon, and checks it: a write to a pipe without a
    /// reader would kill this process, and a wait for a file would never block. Two system calls.
    ///
    /// # Errors
    /// `InvalidData` for a descriptor that cannot be an eventfd.
    pub fn check_received(descriptor: OwnedFd) -> io::Result<Self> {
        // An eventfd is in no file system: its file has no type. The few other kinds without a type neither kill nor
        // block a process that writes or reads them.
        let status = nix::sys::stat::fstat(&descriptor)?;
        if status.st_mode & libc::S_IFMT != 0 {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "received a bell that is none"));
        }
        nix::fcntl::fcntl(&descriptor, nix::fcntl::FcntlArg::F_SETFL(nix::fcntl::OFlag::O_NONBLOCK))?;
        Ok(Self { descriptor })
    }

    /// Wakes the process that blocks on the bell. One system call. Its errors do not matter: a full counter wakes too.
    pub fn ring(&self) {
        self.add(1);
    }

    /// Rings for a record in an idle ring. A full counter has this meaning too.
    pub fn ring_for_idle(&self) {
        self.add(FOR_IDLE);
    }

    fn add(&self, number: u64) {
        failpoint(Failpoint::BellRinging);
        while nix::unistd::write(&self.descriptor, &number.to_ne_bytes()) == Err(Errno::EINTR) {}
        failpoint(Failpoint::BellRung);
    }

    /// Blocks until the bell rings, or `timeout` has passed (`None`: without end). Returns the rings, also those before
    /// the call. One or two system calls.
    pub fn wait(&self, timeout: Option<Duration>) -> Rings {
        let timeout = timeout.map(|timeout| TimeSpec::from(timeout.min(WAIT_MAX)));
        let mut descriptors = [PollFd::new(self.descriptor.as_fd(), PollFlags::POLLIN)];
        match ppoll(&mut descriptors, timeout, None) {
            Ok(0) | Err(Errno::EINTR) => Rings::default(),
            _ => self.drain(),
        }
    }

    /// Returns the rings until now, and forgets them. One system call.
    pub fn drain(&self) -> Rings {
        let mut counter = [0u8; 8];
        let part = libc::iovec { iov_base: counter.as_mut_ptr().cast(), iov_len: counter.len() };
        // All processes that may ring share the descriptor's flags, and any of them can make the descriptor blocking.
        // This read never blocks.
        // SAFETY: one buffer, of the length that is given. It outlives the call, and nothing else refers to it
        // meanwhile.
        let result =
            unsafe { libc::preadv2(self.descriptor.as_raw_fd(), &raw const part, 1, -1, libc::RWF_NOWAIT) };
        // Linux before 5.8.
        if matches!(Errno::result(result), Err(Errno::EOPNOTSUPP | Errno::ENOSYS)) {
            let _ = nix::unistd::read(&self.descriptor, &mut counter);
        }
        let sum = u64::from_ne_bytes(counter);
        Rings { any: sum > 0, for_idle: sum >= FOR_IDLE }
    }
}

impl AsFd for Bell {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ring_before_the_wait_counts_once() {
        let bell = Bell::create().unwrap();
        bell.ring();
        bell.ring();
        assert_eq!(bell.wait(None), Rings { any: true, for_idle: false });
        assert_eq!(bell.wait(Some(Duration::ZERO)), Rings::default());
    }

    #[test]
    fn a_ring_for_an_idle_ring_is_told_from_others() {
        let bell = Bell::create().unwrap();
        bell.ring();
        bell.ring_for_idle();
        bell.ring();
        assert_eq!(bell.drain(), Rings { any: true, for_idle: true });
        bell.ring();
        assert_eq!(bell.drain(), Rings { any: true, for_idle: false });
    }

    #[test]
    fn a_full_counter_hides_no_idle_ring() {
        let bell = Bell::create().unwrap();
        nix::unistd::write(&bell, &(u64::MAX - 1).to_ne_bytes()).unwrap();
        bell.ring_for_idle();
        assert_eq!(bell.wait(None), Rings { any: true, for_idle: true });
    }

    #[test]
    fn a_bell_that_another_process_made_blocking_does_not_block_its_reader() {
        use nix::fcntl::{FcntlArg, OFlag, fcntl};
        let bell = Bell::create().unwrap();
        fcntl(&bell, FcntlArg::F_SETFL(OFlag::empty())).unwrap();
        bell.drain();
        bell.ring();
        assert!(bell.wait(None).any);
        assert!(!bell.wait(Some(Duration::ZERO)).any);
    }
}
