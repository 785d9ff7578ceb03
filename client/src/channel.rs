//! Channels: a pair of rings between this process and another, set up by the daemon and then used without it.

use std::collections::BTreeMap;
use std::fmt;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{Reply, Request};
use mobula_shm::memory::{SharedMemory, check_received};
use mobula_shm::ring::{self, Consumer, Marker, Peek, Producer};
use parking_lot::Mutex;

use crate::daemon::connection::Connection;
use crate::error::ClientError;
use crate::reader::peer::Peer;
use crate::reader::peers::Peers;
use crate::shared::Shared;

/// The error of [`Receiver::next`].
///
/// ```
/// # let mut store = mobula_test_store::start();
/// # let (_sender, mut receiver) = store.channel();
/// match receiver.next(&mut Vec::new()) {
///     Ok(any) => assert!(!any),
///     // The other process cannot be trusted: drop the channel.
///     Err(error) => panic!("{error}"),
/// }
/// ```
#[doc(inline)]
pub use mobula_shm::ring::Corrupt;

/// The error of [`Sender::send`].
///
/// ```
/// use mobula_client::PushError;
///
/// # let mut store = mobula_test_store::start();
/// # let (mut sender, _receiver) = store.channel();
/// match sender.send(b"hello") {
///     Ok(position) => assert!(position > 0),
///     Err(PushError::Full) => println!("wait until the other end has made room"),
///     Err(error) => panic!("{error}"),
/// }
/// ```
#[doc(inline)]
pub use mobula_shm::ring::PushError;

/// A connection from another client, not yet accepted. See [`Client::accept`](crate::Client::accept).
///
/// ```
/// use mobula_client::Event;
///
/// # let store = mobula_test_store::start();
/// # let (client, other) = (store.client(), store.client());
/// let mut events = client.events();
/// let _end = other.connect_to(client.id())?;
/// let Some(Event::ChannelOpened(incoming)) = events.next() else { panic!("the store is lost") };
/// let channel = client.accept(incoming)?;
/// assert_eq!(channel.peer, other.id());
/// # Ok::<(), mobula_client::ClientError>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Incoming {
    pub(crate) channel: u64,
    pub(crate) peer: OwnerId,
    pub(crate) data_bytes: u32,
    pub(crate) mine: OwnedFd,
    pub(crate) theirs: OwnedFd,
}

impl Incoming {
    /// The number of the channel, as in [`Event::ChannelClosed`](crate::Event::ChannelClosed).
    ///
    /// ```
    /// use mobula_client::Event;
    ///
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let mut events = client.events();
    /// let end = other.connect_to(client.id())?;
    /// let Some(Event::ChannelOpened(incoming)) = events.next() else { panic!("the store is lost") };
    /// assert_eq!(incoming.channel(), end.id);
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[must_use]
    pub fn channel(&self) -> u64 {
        self.channel
    }

    /// The client that connected.
    ///
    /// ```
    /// use mobula_client::Event;
    ///
    /// # let store = mobula_test_store::start();
    /// # let (client, other) = (store.client(), store.client());
    /// let mut events = client.events();
    /// let _end = other.connect_to(client.id())?;
    /// let Some(Event::ChannelOpened(incoming)) = events.next() else { panic!("the store is lost") };
    /// assert_eq!(incoming.peer(), other.id());
    /// # Ok::<(), mobula_client::ClientError>(())
    /// ```
    #[must_use]
    pub fn peer(&self) -> OwnerId {
        self.peer
    }
}

/// One end of a channel to another client: two rings in shared memory, one for each direction. The daemon sets it up
/// and takes no part in its use. It is closed when both halves of an end are dropped, or when a process dies.
///
/// ```
/// # let store = mobula_test_store::start();
/// # let (client, other) = (store.client(), store.client());
/// let channel = client.connect_to(other.id())?;
/// // The halves can go to different threads.
/// let (mut sender, receiver) = (channel.sender, channel.receiver);
/// sender.send(b"hello")?;
/// assert!(receiver.is_empty());
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use]
#[non_exhaustive]
pub struct Channel {
    /// The number of the channel, as in [`Event::ChannelClosed`](crate::Event::ChannelClosed).
    pub id: u64,
    /// The client at the other end.
    pub peer: OwnerId,
    /// Sends to it.
    pub sender: Sender,
    /// Receives from it.
    pub receiver: Receiver,
}

impl Channel {
    pub(crate) fn connect(
        peers: &Peers,
        channels: &Arc<Channels>,
        peer: OwnerId,
    ) -> Result<Self, ClientError> {
        let attached = peers.attach(peer)?;
        let connection = channels.connection();
        let (_still, answer) = connection.request_still("connect", &Request::Connect { peer })?;
        let Reply::Connected { channel, data_bytes } = answer.reply else {
            return Err(ClientError::unexpected(&answer.reply));
        };
        channels.add(channel, peer);
        let opened = answer.descriptors().and_then(|[mine, theirs]| {
            Self::open(attached, channels.clone(), Incoming { channel, peer, data_bytes, mine, theirs })
        });
        opened.inspect_err(|_| channels.close(channel))
    }

    pub(crate) fn accept(
        peers: &Peers,
        channels: &Arc<Channels>,
        incoming: Incoming,
    ) -> Result<Self, ClientError> {
        let channel = incoming.channel;
        let attached = peers.attach(incoming.peer);
        let opened = attached.and_then(|peer| Self::open(peer, channels.clone(), incoming));
        // The other end hears that nothing reads at this end.
        opened.inspect_err(|_| channels.close(channel))
    }

    fn open(peer: Arc<Peer>, channels: Arc<Channels>, ends: Incoming) -> Result<Self, ClientError> {
        let Incoming { channel: id, data_bytes, mine, theirs, .. } = ends;
        for end in [&mine, &theirs] {
            check_received(end.as_fd(), ring::end_bytes(data_bytes))?;
        }
        let rings = ring::open(mine.as_fd(), theirs.as_fd(), data_bytes)?;
        let peer_id = peer.id;
        Ok(Self::of(OpenChannel { id, end: End::Peer { peer, channels } }, peer_id, rings))
    }

    fn of(open: OpenChannel, peer: OwnerId, (producer, consumer): (Producer, Consumer)) -> Self {
        let open = Arc::new(open);
        let sender = Sender { producer, channel: open.clone(), found_asleep: false };
        Self { id: open.id, peer, sender, receiver: Receiver { consumer, channel: open } }
    }

    /// Both ends of a channel from this client to itself. The daemon does not know of it.
    pub(crate) fn loop_back(client: &Arc<Shared>, own: OwnerId) -> Result<[Self; 2], ClientError> {
        static NUMBERS: AtomicU64 = AtomicU64::new(LOOP_BACK_FIRST);
        let memory = || {
            let memory = SharedMemory::create(c"mobula-loop", ring::end_bytes(LOOP_BACK_BYTES))?;
            memory.allocate(0..ring::end_bytes(LOOP_BACK_BYTES))?;
            Ok::<_, std::io::Error>(memory)
        };
        let memories = [memory()?, memory()?];
        let end = |mine: &SharedMemory, theirs: &SharedMemory| {
            let rings = ring::open(mine.writable(), theirs.read_only()?.as_fd(), LOOP_BACK_BYTES)?;
            let id = NUMBERS.fetch_add(1, Ordering::Relaxed);
            Ok::<_, ClientError>(Self::of(
                OpenChannel { id, end: End::Own(Arc::downgrade(client)) },
                own,
                rings,
            ))
        };
        Ok([end(&memories[0], &memories[1])?, end(&memories[1], &memories[0])?])
    }
}

/// The first number of channels of a client to itself. The daemon's numbers begin at 1, and never reach it.
const LOOP_BACK_FIRST: u64 = 1 << 63;
/// Bytes of data of each of their ends, as in usual channels of the daemon.
const LOOP_BACK_BYTES: u32 = 64 << 10;

/// The channels of a client that are open, each with the client at its other end.
pub(crate) struct Channels {
    connection: Arc<Connection>,
    open: Mutex<BTreeMap<u64, OwnerId>>,
}

impl Channels {
    pub(crate) fn new(connection: Arc<Connection>) -> Self {
        Self { connection, open: Mutex::default() }
    }

    pub(crate) fn connection(&self) -> &Connection {
        &self.connection
    }

    /// The daemon has opened a channel.
    pub(crate) fn add(&self, channel: u64, peer: OwnerId) {
        self.open.lock().insert(channel, peer);
    }

    /// The daemon has closed a channel.
    pub(crate) fn remove(&self, channel: u64) {
        self.open.lock().remove(&channel);
    }

    /// Closes a channel from this side.
    pub(crate) fn close(&self, channel: u64) {
        self.remove(channel);
        self.connection.tell(&Request::Disconnect { channel });
    }

    pub(crate) fn all(&self) -> Vec<(u64, OwnerId)> {
        self.open.lock().iter().map(|(channel, peer)| (*channel, *peer)).collect()
    }
}

/// Wakes the other end, and tells the daemon when both halves of a channel are gone.
struct OpenChannel {
    id: u64,
    end: End,
}

/// The other end of a channel.
enum End {
    Peer {
        peer: Arc<Peer>,
        channels: Arc<Channels>,
    },
    /// It is in this client.
    Own(Weak<Shared>),
}

impl OpenChannel {
    /// Wakes the other end. Returns whether it slept.
    fn wake(&self, finds_idle: impl FnOnce() -> bool) -> bool {
        match &self.end {
            End::Peer { peer, .. } => peer.wake_for(finds_idle),
            // Another thread of this process may sleep, although this one does not.
            End::Own(client) => {
                let is_idle = finds_idle();
                if let Some(client) = client.upgrade() {
                    let bell = client.events.bell();
                    if is_idle { bell.ring_for_idle() } else { bell.ring() }
                }
                true
            }
        }
    }
}

impl fmt::Debug for OpenChannel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenChannel").field("id", &self.id).finish_non_exhaustive()
    }
}

impl Drop for OpenChannel {
    fn drop(&mut self) {
        // In a forked child another thread of the parent's may have the lock for ever.
        if let End::Peer { peer, channels } = &self.end
            && !peer.is_child()
        {
            channels.close(self.id);
        }
    }
}

/// The sending half of a channel: it copies records into a ring that the other end reads.
///
/// ```
/// # let mut store = mobula_test_store::start();
/// # let (mut sender, mut receiver) = store.channel();
/// sender.send(b"hello")?;
/// let mut record = Vec::new();
/// assert!(receiver.next(&mut record)?);
/// assert_eq!(record, b"hello");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Sender {
    producer: Producer,
    channel: Arc<OpenChannel>,
    found_asleep: bool,
}

impl Sender {
    /// Bytes of the largest record that fits: a quarter of the ring.
    ///
    /// ```
    /// use mobula_client::PushError;
    ///
    /// # let mut store = mobula_test_store::start();
    /// # let (mut sender, _receiver) = store.channel();
    /// let record = vec![0; sender.record_bytes_max() + 1];
    /// assert_eq!(sender.send(&record), Err(PushError::TooLarge));
    /// ```
    #[must_use]
    #[inline]
    pub fn record_bytes_max(&self) -> usize {
        self.producer.record_bytes_max()
    }

    /// Copies a record into the ring, and wakes the other end if it sleeps; returns the position behind the record. No
    /// system call, except the one that wakes a sleeper.
    ///
    /// ```
    /// use mobula_client::PushError;
    ///
    /// # let mut store = mobula_test_store::start();
    /// # let (mut sender, _receiver) = store.channel();
    /// while sender.has_room_for(100) {
    ///     sender.send(&[7; 100])?;
    /// }
    /// assert_eq!(sender.send(&[7; 100]), Err(PushError::Full));
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`PushError::Full`] while there is no room: the other end rings this client when there is, see
    /// [`Client::sleep`](crate::Client::sleep). [`PushError::TooLarge`] above
    /// [`record_bytes_max`](Self::record_bytes_max).
    #[inline]
    pub fn send(&mut self, record: &[u8]) -> Result<u64, PushError> {
        let position = self.producer.push(record)?;
        self.found_asleep = self.channel.wake(|| self.producer.finds_idle());
        Ok(position)
    }

    /// Whether the other end slept when the last record was sent.
    // For the runtime, which spins less when it has just woken a process.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn found_asleep(&self) -> bool {
        self.found_asleep
    }

    /// Whether a record of this many bytes finds room now. Costs one load.
    ///
    /// ```
    /// # let mut store = mobula_test_store::start();
    /// # let (mut sender, _receiver) = store.channel();
    /// assert!(sender.has_room_for(100));
    /// ```
    #[must_use]
    #[inline]
    pub fn has_room_for(&mut self, bytes: usize) -> bool {
        self.producer.has_room_for(bytes)
    }

    /// The position up to which the other end has acknowledged records, as [`send`](Self::send) counts it. Costs one
    /// load.
    ///
    /// ```
    /// # let mut store = mobula_test_store::start();
    /// # let (mut sender, mut receiver) = store.channel();
    /// let position = sender.send(b"hello")?;
    /// assert!(sender.consumed() < position);
    /// receiver.next(&mut Vec::new())?;
    /// receiver.done();
    /// assert_eq!(sender.consumed(), position);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn consumed(&mut self) -> u64 {
        self.producer.consumed()
    }

    /// The number of records that the other end reports as begun; see [`Receiver::marker`]. Costs one load.
    // For the runtime, which reads in it the calls that a dead worker had begun.
    #[doc(hidden)]
    #[must_use]
    #[inline]
    pub fn mark(&self) -> u64 {
        self.producer.mark()
    }
}

/// The receiving half of a channel: it copies records out of the ring that the other end writes.
///
/// ```
/// # let mut store = mobula_test_store::start();
/// # let (mut sender, mut receiver) = store.channel();
/// sender.send(b"one")?;
/// sender.send(b"two")?;
/// let (mut record, mut received) = (Vec::new(), Vec::new());
/// while receiver.next(&mut record)? {
///     received.push(record.clone());
///     receiver.done();
/// }
/// assert_eq!(received, [b"one", b"two"]);
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Debug)]
#[must_use]
pub struct Receiver {
    consumer: Consumer,
    channel: Arc<OpenChannel>,
}

impl Receiver {
    /// Whether no record waits. Costs one load.
    ///
    /// ```
    /// # let mut store = mobula_test_store::start();
    /// # let (mut sender, mut receiver) = store.channel();
    /// assert!(receiver.is_empty());
    /// sender.send(b"hello")?;
    /// assert!(!receiver.is_empty());
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[must_use]
    #[inline]
    pub fn is_empty(&self) -> bool {
        self.consumer.is_empty()
    }

    /// The marker by which this end tells the sender how many records it has begun. The sender can read it also when
    /// this process is dead.
    // For the runtime, as `Sender::mark`.
    #[doc(hidden)]
    #[must_use]
    pub fn marker(&self) -> Marker {
        self.consumer.marker()
    }

    /// A view of the ring for threads that do not receive themselves.
    // For the runtime, in which any thread that waits may look at the mail.
    #[doc(hidden)]
    #[must_use]
    pub fn peek(&self) -> Peek {
        self.consumer.peek()
    }

    /// Copies the next record out, in place of what `record` contains; `false` when there is none. Call
    /// [`done`](Self::done) when the record is dealt with. Memory operations only.
    ///
    /// ```
    /// # let mut store = mobula_test_store::start();
    /// # let (mut sender, mut receiver) = store.channel();
    /// let mut record = Vec::new();
    /// assert!(!receiver.next(&mut record)?, "no record yet");
    /// sender.send(b"hello")?;
    /// assert!(receiver.next(&mut record)?);
    /// assert_eq!(record, b"hello");
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    ///
    /// # Errors
    /// [`Corrupt`] when the other end wrote an impossible position or length: drop the channel.
    #[inline]
    pub fn next(&mut self, record: &mut Vec<u8>) -> Result<bool, Corrupt> {
        self.consumer.next(record)
    }

    /// Acknowledges the record from [`next`](Self::next): its room in the ring is free, and the sender can drop what it
    /// holds for it. A system call only if the sender waits for room and sleeps.
    ///
    /// ```
    /// # let mut store = mobula_test_store::start();
    /// # let (mut sender, mut receiver) = store.channel();
    /// let position = sender.send(b"hello")?;
    /// receiver.next(&mut Vec::new())?;
    /// receiver.done();
    /// assert_eq!(sender.consumed(), position);
    /// # Ok::<(), Box<dyn std::error::Error>>(())
    /// ```
    #[inline]
    pub fn done(&mut self) {
        if self.consumer.advance() {
            self.channel.wake(|| false);
        }
    }
}
