//! The poller: the descriptors that the event loop waits for, by their keys.
//!
//! The listener, the lifeline and the stopper have fixed keys. A connection has two in a row: an even one for its
//! socket, and the next for its process. Keys are not used twice, so an event that comes too late belongs to no
//! connection.

use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};

pub(crate) const LISTENER: u64 = 0;
pub(crate) const LIFELINE: u64 = 1;
pub(crate) const STOPPER: u64 = 2;
pub(crate) const FIRST_CONNECTION: u64 = 4;

/// An `epoll` instance.
#[derive(Debug)]
pub(crate) struct Poller {
    epoll: Epoll,
}

impl Poller {
    pub(crate) fn new() -> io::Result<Self> {
        Ok(Self { epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)? })
    }

    /// From now on events of a descriptor are reported with this key.
    pub(crate) fn watch(&self, source: &impl AsFd, key: u64) -> io::Result<()> {
        Ok(self.epoll.add(source, EpollEvent::new(EpollFlags::EPOLLIN, key))?)
    }

    /// Reports only these events of a descriptor, and its end.
    pub(crate) fn set_interest(&self, source: &impl AsFd, key: u64, interest: EpollFlags) -> io::Result<()> {
        Ok(self.epoll.modify(source, &mut EpollEvent::new(interest, key))?)
    }

    /// Ends [`watch`](Self::watch). Closing the descriptor is not enough: a forked child may still have it.
    pub(crate) fn unwatch(&self, source: &impl AsFd) {
        let _ = self.epoll.delete(source);
    }

    /// Waits until a descriptor is ready or `due` has passed; returns the number of events.
    pub(crate) fn wait(&self, events: &mut [EpollEvent], due: Option<Duration>) -> Result<usize, Errno> {
        match self.epoll.wait(events, timeout(due)) {
            Err(Errno::EINTR) => Ok(0),
            result => result,
        }
    }
}

/// Whether an event says that a connection has ended, or its process has.
pub(crate) fn is_end(event: &EpollEvent) -> bool {
    let hung_up = event.events().intersects(EpollFlags::EPOLLHUP | EpollFlags::EPOLLERR);
    event.data() >= FIRST_CONNECTION && (hung_up || !is_socket(event.data()))
}

/// Whether the key of a connection is that of its socket.
pub(crate) fn is_socket(key: u64) -> bool {
    key.is_multiple_of(2)
}

/// The time to wait in whole milliseconds, rounded up: a loop that wakes early wakes twice.
fn timeout(due: Option<Duration>) -> EpollTimeout {
    let Some(due) = due else { return EpollTimeout::NONE };
    let millis = due.as_micros().div_ceil(1000).min(i32::MAX as u128);
    EpollTimeout::try_from(millis as i32).unwrap_or(EpollTimeout::MAX)
}
