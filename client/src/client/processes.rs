//! Methods of the client for other processes: channels, events, sleeping on the bell, and recorders.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use mobula_protocol::id::OwnerId;
use mobula_shm::recorder::Recorder;

use super::Client;
use crate::channel::{Channel, Incoming};
use crate::error::ClientError;
use crate::event::Events;
use crate::recorders::{self, Recorded};
use crate::shared::Shared;

impl Client {
    /// A channel to another client. Two round trips at most; none to use it.
    ///
    /// ```
    /// use mobula_client::Event;
    ///
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let mut events = other.events();
    /// let mut channel = client.connect_to(other.id())?;
    /// channel.sender.send(b"hello").expect("an empty ring has room");
    ///
    /// // In the other process:
    /// let Some(Event::ChannelOpened(incoming)) = events.next() else { panic!("the store is lost") };
    /// let mut channel = other.accept(incoming)?;
    /// let mut record = Vec::new();
    /// assert!(channel.receiver.next(&mut record).expect("the other end is sane"));
    /// assert_eq!(record, b"hello");
    /// channel.receiver.done();
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// - [`Refusal::NoSuchOwner`](crate::Refusal::NoSuchOwner): that client is not alive.
    /// - [`Refusal::LimitReached`](crate::Refusal::LimitReached): there are too many channels.
    pub fn connect_to(&self, peer: OwnerId) -> Result<Channel, ClientError> {
        let Shared { peers, channels, .. } = &**self.shared();
        Channel::connect(peers, channels, peer)
    }

    /// Both ends of a channel from this client to itself: a record that is sent at one end arrives at the other. The
    /// daemon does not know of it. Twenty system calls, no message.
    ///
    /// # Errors
    /// [`ClientError::System`]: too many descriptors, or no memory.
    // For the runtime, whose actors may call themselves.
    #[doc(hidden)]
    pub fn loop_back(&self) -> Result<[Channel; 2], ClientError> {
        Channel::loop_back(self.shared(), self.id())
    }

    /// Accepts a channel that another client has opened. A round trip, the first time for each client.
    ///
    /// ```
    /// use mobula_client::Event;
    ///
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let events = client.events();
    /// let _end = other.connect_to(client.id())?;
    /// for event in events {
    ///     if let Event::ChannelOpened(incoming) = event {
    ///         let channel = client.accept(incoming)?;
    ///         assert_eq!(channel.peer, other.id());
    ///         break;
    ///     }
    /// }
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Errors
    /// [`Refusal::NoSuchOwner`](crate::Refusal::NoSuchOwner): that client has died meanwhile.
    pub fn accept(&self, incoming: Incoming) -> Result<Channel, ClientError> {
        Channel::accept(&self.shared().peers, &self.shared().channels, incoming)
    }

    /// The events of this client from now on: channels, deaths, and the state of the daemon. A later call replaces an
    /// earlier one. No message.
    ///
    /// ```
    /// use mobula_client::Event;
    ///
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let mut events = client.events();
    /// let _end = other.connect_to(client.id())?;
    /// assert!(matches!(events.next(), Some(Event::ChannelOpened(_))));
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    pub fn events(&self) -> Events {
        self.events_with(|| {})
    }

    /// Returns the events like [`events`](Self::events), for a program whose threads may all be busy when an event
    /// comes. `wake` is called after each event, on the client's background thread. It must not block.
    ///
    /// ```
    /// use std::sync::mpsc::channel;
    ///
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let (sender, woken) = channel();
    /// let events = client.events_with(move || _ = sender.send(()));
    /// let _end = other.connect_to(client.id())?;
    /// woken.recv().expect("the client goes on");
    /// assert!(!events.is_empty());
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    pub fn events_with(&self, wake: impl Fn() + Send + Sync + 'static) -> Events {
        self.shared().events.subscribe(wake)
    }

    /// Blocks until this client is rung, or `timeout` has passed (`None`: without end). It is rung for a record in a
    /// channel, for room in one, for a settled promise that it [watches](crate::Handle::watch), and for an event. It
    /// can return sooner, so look in a loop. One or two system calls.
    ///
    /// `ready` takes the last look, after others can see that this client is about to sleep; the call does not block if
    /// it returns `true`. At most one thread of a client sleeps at a time.
    ///
    /// It is for programs that use the store without the crate `mobula`: they have no other way to wait for channels,
    /// promises and events together.
    ///
    /// ```
    /// use mobula_client::Layout;
    ///
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let promise = client.promise()?;
    /// let handle = other.hold(promise.handle().id())?;
    /// let writing = client.clone();
    /// std::thread::spawn(move || promise.fulfil(writing.create(Layout::new(0)).unwrap()));
    ///
    /// // The owner rings while this lives, and may have rung before.
    /// let _watch = handle.watch()?;
    /// while !handle.is_ready()? {
    ///     other.sleep(None, || handle.is_ready().unwrap_or(true));
    /// }
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Panics
    /// In a forked child.
    pub fn sleep(&self, timeout: Option<Duration>, ready: impl FnOnce() -> bool) {
        let Shared { events, owner, .. } = &**self.shared();
        events.sleep(owner, ready, |bell| bell.wait(timeout));
    }

    /// Blocks for `time`, or until [`ring`](Self::ring) is called. Other processes see this client as awake and do not
    /// ring: their records wait until the end. One or two system calls.
    // For the runtime, which lets results gather.
    #[doc(hidden)]
    pub fn nap(&self, time: Duration) {
        let Shared { events, owner, .. } = &**self.shared();
        events.nap(owner, time);
    }

    /// Sleeps like [`sleep`](Self::sleep), for a thread that blocks on other descriptors too: `block` gets the
    /// descriptor that becomes readable when this client is rung. It must only wait for it, and not read.
    ///
    /// ```
    /// use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    ///
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let events = client.events();
    /// let _end = other.connect_to(client.id())?;
    /// while events.is_empty() {
    ///     client.sleep_with(
    ///         || !events.is_empty(),
    ///         |bell| {
    ///             // A program adds its other descriptors.
    ///             let _ = poll(&mut [PollFd::new(bell, PollFlags::POLLIN)], PollTimeout::NONE);
    ///         },
    ///     );
    /// }
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    ///
    /// # Panics
    /// In a forked child.
    pub fn sleep_with(&self, ready: impl FnOnce() -> bool, block: impl FnOnce(BorrowedFd<'_>)) {
        let Shared { events, owner, .. } = &**self.shared();
        events.sleep(owner, ready, |bell| {
            block(bell.as_fd());
            bell.drain()
        });
    }

    /// Rings this client's own bell: a thread that sleeps in [`sleep`](Self::sleep) looks again, and one that comes
    /// later does not sleep. One system call.
    ///
    /// ```
    /// # let store = mobula_test_store::start();
    /// # let client = store.client();
    /// let clone = client.clone();
    /// let thread = std::thread::spawn(move || clone.sleep(None, || false));
    /// client.ring();
    /// thread.join().expect("the thread was woken");
    /// ```
    pub fn ring(&self) {
        self.shared().events.bell().ring();
    }

    /// Whether this client was rung for a record in a ring that it has made [idle](mobula_shm::ring::Peek::begin_idle),
    /// and [`take_idle_rung`](Self::take_idle_rung) was not called since. Costs one load.
    // For the runtime, which has many channels.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn is_idle_rung(&self) -> bool {
        self.shared().events.is_idle_rung()
    }

    /// Whether an idle ring was rung, for the thread that looks at all idle rings now. Mostly one load.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn take_idle_rung(&self) -> bool {
        self.shared().events.take_idle_rung()
    }

    /// The recorder of this client's events, if it records any.
    // For the runtime and the command, like the next method.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn recorder(&self) -> Option<&Arc<Recorder>> {
        self.shared().connection.recorder()
    }

    /// The events of all clients that record some.
    #[doc(hidden)]
    pub fn recorders(&self) -> Result<Vec<Recorded>, ClientError> {
        recorders::all(&self.shared().connection)
    }
}
