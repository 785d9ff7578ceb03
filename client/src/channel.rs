//! Channels: a pair of rings between this process and another, set up by the daemon and then used without it.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{Reply, Request};
use mobula_shm::memory::check_received;
use mobula_shm::ring::{self, Consumer, Corrupt, Marker, Peek, Producer, PushError};
use parking_lot::Mutex;

use crate::daemon::connection::Connection;
use crate::error::ClientError;
use crate::reader::peer::Peer;
use crate::reader::peers::Peers;

/// A connection from another client, not yet accepted.
#[derive(Debug)]
pub struct Incoming {
    pub(crate) channel: u64,
    pub(crate) peer: OwnerId,
    pub(crate) data_bytes: u32,
    pub(crate) mine: OwnedFd,
    pub(crate) theirs: OwnedFd,
}

impl Incoming {
    /// Names the channel, as in [`Event::ChannelClosed`](crate::Event::ChannelClosed).
    pub fn channel(&self) -> u64 {
        self.channel
    }

    /// The client that connected.
    pub fn peer(&self) -> OwnerId {
        self.peer
    }
}

/// One end of a channel.
pub struct Channel {
    /// Names the channel, as in [`Event::ChannelClosed`](crate::Event::ChannelClosed).
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
        let (producer, consumer) = ring::open(mine.as_fd(), theirs.as_fd(), data_bytes)?;
        let open = Arc::new(OpenChannel { id, peer: peer.clone(), channels });
        let sender = Sender { producer, channel: open.clone(), found_asleep: false };
        Ok(Self { id, peer: peer.id, sender, receiver: Receiver { consumer, channel: open } })
    }
}

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

/// Tells the daemon when both halves of a channel are gone.
struct OpenChannel {
    id: u64,
    peer: Arc<Peer>,
    channels: Arc<Channels>,
}

impl Drop for OpenChannel {
    fn drop(&mut self) {
        // In a forked child another thread of the parent's may have the lock for ever.
        if !self.peer.is_child() {
            self.channels.close(self.id);
        }
    }
}

/// The sending half of a channel.
pub struct Sender {
    producer: Producer,
    channel: Arc<OpenChannel>,
    found_asleep: bool,
}

impl Sender {
    /// The largest record it takes.
    pub fn record_bytes_max(&self) -> usize {
        self.producer.record_bytes_max()
    }

    /// Sends a record, and wakes the other end if it sleeps; returns the position behind the record. A system call
    /// only if it sleeps.
    ///
    /// # Errors
    /// [`PushError::Full`]: the other end rings when there is room again.
    pub fn send(&mut self, record: &[u8]) -> Result<u64, PushError> {
        let position = self.producer.push(record)?;
        self.found_asleep = self.channel.peer.wake();
        Ok(position)
    }

    /// Whether the other end slept when the last record was sent.
    pub fn found_asleep(&self) -> bool {
        self.found_asleep
    }

    /// Whether a record of this many bytes finds room now. One load.
    pub fn has_room_for(&mut self, bytes: usize) -> bool {
        self.producer.has_room_for(bytes)
    }

    /// The position up to which the other end has acknowledged records. One load.
    pub fn consumed(&mut self) -> u64 {
        self.producer.consumed()
    }

    /// The number of records that the other end says to have begun; see [`Receiver::marker`]. One load.
    pub fn mark(&self) -> u64 {
        self.producer.mark()
    }
}

/// The receiving half of a channel.
pub struct Receiver {
    consumer: Consumer,
    channel: Arc<OpenChannel>,
}

impl Receiver {
    /// Whether a record waits. One load.
    pub fn is_empty(&self) -> bool {
        self.consumer.is_empty()
    }

    /// The marker by which this end tells the sender how many records it has begun. The sender can read it also when
    /// this process is dead.
    pub fn marker(&self) -> Marker {
        self.consumer.marker()
    }

    /// A look at the ring for threads that do not receive themselves.
    pub fn peek(&self) -> Peek {
        self.consumer.peek()
    }

    /// Copies the next record out; `false` when there is none. Call [`done`](Self::done) when the record is no longer
    /// needed.
    ///
    /// # Errors
    /// [`Corrupt`] when the other end wrote nonsense: close the channel.
    pub fn next(&mut self, record: &mut Vec<u8>) -> Result<bool, Corrupt> {
        self.consumer.next(record)
    }

    /// Acknowledges the record from [`next`](Self::next): the sender can drop what it holds for the record.
    pub fn done(&mut self) {
        if self.consumer.advance() {
            self.channel.peer.wake();
        }
    }
}
