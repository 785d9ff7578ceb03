//! A set of descriptors to wait for. Only the descriptors that are ready cost anything.

use std::io;
use std::os::fd::{AsFd, BorrowedFd};

use mobula_client::internal::descriptors::above_standard;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

/// The most keys that [`Watches::ready`] returns at a time. The kernel returns all others before it returns the same
/// ones again.
const READY_MAX: usize = 64;

/// A set of descriptors. The caller gives each a key.
#[derive(Debug)]
pub(super) struct Watches {
    epoll: Epoll,
}

impl Watches {
    pub(super) fn new() -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        Ok(Self { epoll: Epoll(above_standard(epoll.0)?) })
    }

    /// Adds a descriptor. It must be [removed](Self::remove) before it is closed: a forked child of this process may
    /// have a copy, which would keep it in the set.
    pub(super) fn add(&self, descriptor: BorrowedFd<'_>, key: u64) -> io::Result<()> {
        Ok(self.epoll.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, key))?)
    }

    pub(super) fn remove(&self, descriptor: BorrowedFd<'_>) {
        let _ = self.epoll.delete(descriptor);
    }

    /// The keys of descriptors that are readable or closed at the other end: some of them, if they are many. Waits for
    /// the first one until the timeout. One system call.
    pub(super) fn ready(&self, timeout: EpollTimeout) -> Vec<u64> {
        let mut events = [EpollEvent::empty(); READY_MAX];
        let count = self.epoll.wait(&mut events, timeout).unwrap_or(0);
        events[..count].iter().map(EpollEvent::data).collect()
    }
}

impl AsFd for Watches {
    /// Becomes readable when a descriptor of the set is ready.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.epoll.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    use nix::unistd::{pipe, write};

    #[test]
    fn many_ready_descriptors_are_all_returned_in_the_end() {
        let watches = Watches::new().unwrap();
        let pipes: Vec<_> = (0..3 * READY_MAX as u64).map(|key| (key, pipe().unwrap())).collect();
        for (key, (reader, writer)) in &pipes {
            watches.add(reader.as_fd(), *key).unwrap();
            write(writer, b"x").unwrap();
        }
        let mut seen: Vec<u64> = (0..4).flat_map(|_| watches.ready(EpollTimeout::ZERO)).collect();
        seen.sort_unstable();
        seen.dedup();
        assert_eq!(seen.len(), pipes.len());
    }

    #[test]
    fn a_closed_end_is_ready_and_a_removed_one_is_not() {
        let watches = Watches::new().unwrap();
        let (reader, writer) = pipe().unwrap();
        watches.add(reader.as_fd(), 7).unwrap();
        let is_ready = || {
            let mut descriptors = [PollFd::new(watches.as_fd(), PollFlags::POLLIN)];
            poll(&mut descriptors, PollTimeout::ZERO) == Ok(1)
        };
        assert!(!is_ready());
        drop(writer);
        assert!(is_ready());
        assert_eq!(watches.ready(EpollTimeout::ZERO), [7]);
        watches.remove(reader.as_fd());
        assert!(!is_ready());
    }
}
