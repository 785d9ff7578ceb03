//! Events around a client that it has not asked for, and the bell that wakes it.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use crossbeam::channel::{Receiver, Sender, unbounded};
use mobula_protocol::id::OwnerId;
use mobula_protocol::message::NameChange;
use mobula_shm::bell::{Bell, Rings};
use parking_lot::Mutex;

use crate::channel::Incoming;
use crate::owner::Owner;

/// An event around a client.
///
/// ```
/// use std::time::Duration;
/// use mobula_client::Event;
///
/// # let store = mobula_test_store::start();
/// # let (client, other) = (store.client(), store.client());
/// let events = client.events();
/// let _end = other.connect_to(client.id())?;
/// match events.next_within(Duration::from_secs(10)) {
///     Some(Event::ChannelOpened(incoming)) => assert_eq!(incoming.peer(), other.id()),
///     event => panic!("{event:?}"),
/// }
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Another client has connected; see [`Client::accept`](crate::Client::accept).
    ChannelOpened(Incoming),
    /// The other end of the channel with this number was closed, or its process has died.
    ChannelClosed(u64),
    /// An owner whose objects are used here has died: its open promises are lost.
    OwnerDied(OwnerId),
    /// A client has given or removed a name; see [`Client::watch_names`](crate::Client::watch_names).
    NameChanged(NameChange),
    /// The daemon was killed, and another one has taken its place: everything goes on.
    StoreResumed,
    /// There is no daemon any more.
    StoreLost,
}

/// The events around a client, in the order in which they came; see [`Client::events`](crate::Client::events).
///
/// As an iterator it blocks until the next event comes, and ends when the client has ended, or when a later call of
/// [`Client::events`](crate::Client::events) has taken over. No method makes a message.
///
/// ```
/// # let store = mobula_test_store::start();
/// # let (client, other) = (store.client(), store.client());
/// let mut events = client.events();
/// let _end = other.connect_to(client.id())?;
/// let first = events.next().expect("the client goes on");
/// assert!(matches!(first, mobula_client::Event::ChannelOpened(_)));
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[must_use]
pub struct Events {
    receiver: Receiver<Event>,
}

impl Events {
    /// Whether no event waits. A few loads.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// assert!(client.events().is_empty());
    /// ```
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.receiver.is_empty()
    }

    /// The next event, if one has come. Does not block. A few loads where there is none.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let events = client.events();
    /// while let Some(event) = events.try_next() {
    ///     println!("{event:?}");
    /// }
    /// ```
    #[must_use]
    #[inline]
    pub fn try_next(&self) -> Option<Event> {
        // The channel itself uses a fence to find out that it is empty.
        if self.is_empty() { None } else { self.receiver.try_recv().ok() }
    }

    /// Blocks until the next event comes. `None` after `timeout`, or when no more events can come.
    ///
    /// ```
    /// use std::time::Duration;
    ///
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// assert!(client.events().next_within(Duration::from_millis(1)).is_none());
    /// ```
    #[must_use]
    pub fn next_within(&self, timeout: Duration) -> Option<Event> {
        self.receiver.recv_timeout(timeout).ok()
    }
}

impl Iterator for Events {
    type Item = Event;

    fn next(&mut self) -> Option<Event> {
        self.receiver.recv().ok()
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("waiting", &self.receiver.len()).finish()
    }
}

/// The way of a client's events to the program.
pub(crate) struct EventSource {
    subscriber: Mutex<Option<Subscriber>>,
    bell: Bell,
    /// The bell was rung for an idle ring, and no thread has looked at those since.
    idle_rung: AtomicBool,
}

/// The part of the program that events go to.
#[derive(Clone)]
struct Subscriber {
    sender: Sender<Event>,
    /// Called behind each event.
    wake: Arc<dyn Fn() + Send + Sync>,
}

impl EventSource {
    pub(crate) fn new(bell: Bell) -> Self {
        Self { subscriber: Mutex::new(None), bell, idle_rung: AtomicBool::new(false) }
    }

    /// The events from now on, with a function that is called behind each. A later call takes over from an earlier one.
    pub(crate) fn subscribe(&self, wake: impl Fn() + Send + Sync + 'static) -> Events {
        let (sender, receiver) = unbounded();
        *self.subscriber.lock() = Some(Subscriber { sender, wake: Arc::new(wake) });
        Events { receiver }
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

    /// Lets `block` block on the bell, unless a last call of `ready` returns `true`.
    pub(crate) fn sleep(
        &self,
        owner: &Owner,
        ready: impl FnOnce() -> bool,
        block: impl FnOnce(&Bell) -> Rings,
    ) {
        owner.assert_process();
        let _asleep = owner.table.begin_sleep();
        if !ready() && block(&self.bell).for_idle {
            self.idle_rung.store(true, Ordering::Release);
        }
    }

    /// Whether the bell was rung for an idle ring, and [`take_idle_rung`](Self::take_idle_rung) was not called since.
    #[inline]
    pub(crate) fn is_idle_rung(&self) -> bool {
        self.idle_rung.load(Ordering::Acquire)
    }

    /// Whether an idle ring was rung, for the thread that looks at the idle rings now. Mostly one load.
    #[inline]
    pub(crate) fn take_idle_rung(&self) -> bool {
        self.is_idle_rung() && self.idle_rung.swap(false, Ordering::AcqRel)
    }

    /// Blocks for `time`, or until the bell is rung. The process counts as awake.
    pub(crate) fn nap(&self, owner: &Owner, time: Duration) {
        owner.assert_process();
        if self.bell.wait(Some(time)).for_idle {
            self.idle_rung.store(true, Ordering::Release);
        }
    }
}
