//! Events around a client that it has not asked for, and the bell that wakes it.

use std::sync::Arc;

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
    subscriber: Mutex<Option<Subscriber>>,
    bell: Bell,
}

/// The part of the program that events go to.
#[derive(Clone)]
struct Subscriber {
    sender: Sender<Event>,
    /// Called behind each event.
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl Events {
    pub(crate) fn new(bell: Bell) -> Self {
        Self { subscriber: Mutex::new(None), bell }
    }

    /// The events from now on, with a function that is called behind each. A later call takes over from an earlier one.
    pub(crate) fn subscribe(&self, wake: impl Fn() + Send + Sync + 'static) -> Receiver<Event> {
        let (sender, receiver) = unbounded();
        *self.subscriber.lock() = Some(Subscriber { sender, wake: Arc::new(wake) });
        receiver
    }

    /// Passes an event on, and rings: a thread that sleeps on the bell looks at the events too.
    pub(crate) fn send(&self, event: Event) {
        let subscriber = self.subscriber.lock().clone();
        if let Some(Subscriber { sender, wake }) = subscriber {
            let _ = sender.send(event);
            wake();
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
