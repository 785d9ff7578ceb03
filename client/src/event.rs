//! Events around a client that it has not asked for, and the bell that wakes it.

use crossbeam::channel::{Receiver, Sender, unbounded};
use mobula_protocol::id::OwnerId;
use mobula_shm::bell::Bell;
use parking_lot::Mutex;

use crate::channel::Incoming;
use crate::owner::Owner;

/// An event around a client.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Another client has connected; see [`Client::accept`](crate::Client::accept).
    ChannelOpened(Incoming),
    /// The other end of a channel was closed, or its process has died.
    ChannelClosed(u64),
    /// An owner whose objects are used here has died: its open promises are lost.
    OwnerDied(OwnerId),
    /// The daemon was killed, and another one has taken its place: everything goes on.
    StoreResumed,
    /// There is no daemon any more.
    StoreLost,
}

/// The way of a client's events to the program.
pub(crate) struct Events {
    sender: Mutex<Option<Sender<Event>>>,
    bell: Bell,
}

impl Events {
    pub(crate) fn new(bell: Bell) -> Self {
        Self { sender: Mutex::new(None), bell }
    }

    /// The events from now on. A later call takes over from an earlier one.
    pub(crate) fn subscribe(&self) -> Receiver<Event> {
        let (sender, receiver) = unbounded();
        *self.sender.lock() = Some(sender);
        receiver
    }

    /// Passes an event on, and rings: a thread that sleeps on the bell looks at the events too.
    pub(crate) fn send(&self, event: Event) {
        if let Some(sender) = &*self.sender.lock() {
            let _ = sender.send(event);
        }
        self.bell.ring();
    }

    pub(crate) fn bell(&self) -> &Bell {
        &self.bell
    }

    /// Lets `block` block on the bell, unless `ready` says after a last look that it need not.
    pub(crate) fn sleep(&self, owner: &Owner, ready: impl FnOnce() -> bool, block: impl FnOnce(&Bell)) {
        owner.assert_process();
        let _asleep = owner.table.begin_sleep();
        if !ready() {
            block(&self.bell);
        }
    }
}
