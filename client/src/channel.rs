//! Channels: a pair of rings between this process and another, set up by the daemon and then used without it.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use mobula_protocol::id::OwnerId;
use mobula_protocol::message::{Reply, Request};
use mobula_shm::memory::check_received;
use mobula_shm::ring::{self, Consumer, Corrupt, Marker, Peek, Producer, PushError};

use crate::error::ClientError;
use crate::reader::peer::Peer;
use crate::shared::Shared;

/// What happens around a client without having been asked for.
#[derive(Debug)]
#[non_exhaustive]
pub enum Event {
    /// Another client has connected; see [`Client::accept`](crate::Client::accept).
    ChannelOpened(Incoming),
    /// The other end of a channel was closed, or its process has died.
    ChannelClosed(u64),
    /// An owner whose objects are used here has died: what it promised is lost.
    OwnerDied(OwnerId),
    /// The daemon was killed, and another one has taken its place: everything goes on.
    StoreResumed,
    /// There is no daemon any more.
    StoreLost,
}

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
    /// Names the channel, as in [`Event::ChannelClosed`].
    pub fn channel(&self) -> u64 {
        self.channel
    }

    /// Who connected.
    pub fn peer(&self) -> OwnerId {
        self.peer
    }
}

/// One end of a channel.
pub struct Channel {
    /// Names the channel, as in [`Event::ChannelClosed`].
    pub id: u64,
    /// The client at the other end.
    pub peer: OwnerId,
    /// Sends to it.
    pub sender: Sender,
    /// Receives from it.
    pub receiver: Receiver,
}

impl Channel {
    pub(crate) fn connect(shared: &Arc<Shared>, peer: OwnerId) -> Result<Self, ClientError> {
        let attached = shared.peer(peer)?;
        let (_still, answer) = loop {
            let answer = shared.connection.request("connect", &Request::Connect { peer })?;
            if let Some(still) = shared.connection.hold_still(answer.daemon) {
                break (still, answer);
            }
        };
        let Reply::Connected { channel, data_bytes } = answer.reply else {
            return Err(ClientError::BadReply(format!("{:?}", answer.reply)));
        };
        let opened = answer.descriptors().and_then(|[mine, theirs]| {
            Self::open(attached, Incoming { channel, peer, data_bytes, mine, theirs })
        });
        if opened.is_err() {
            shared.connection.tell(&Request::Disconnect { channel });
        } else {
            shared.channels.lock().insert(channel, peer);
        }
        opened
    }

    pub(crate) fn accept(shared: &Arc<Shared>, incoming: Incoming) -> Result<Self, ClientError> {
        let channel = incoming.channel;
        let opened = shared.peer(incoming.peer).and_then(|peer| Self::open(peer, incoming));
        opened.inspect_err(|_| {
            // The other end hears that nobody is there.
            shared.channels.lock().remove(&channel);
            shared.connection.tell(&Request::Disconnect { channel });
        })
    }

    fn open(peer: Arc<Peer>, parts: Incoming) -> Result<Self, ClientError> {
        let Incoming { channel: id, data_bytes, mine, theirs, .. } = parts;
        for end in [&mine, &theirs] {
            check_received(end.as_fd(), ring::end_bytes(data_bytes))?;
        }
        let (producer, consumer) = ring::open(mine.as_fd(), theirs.as_fd(), data_bytes)?;
        let link = Arc::new(Link { id, peer: peer.clone() });
        let sender = Sender { producer, link: link.clone(), found_asleep: false };
        Ok(Self { id, peer: peer.id, sender, receiver: Receiver { consumer, link } })
    }
}

/// Tells the daemon when both halves are gone.
struct Link {
    id: u64,
    peer: Arc<Peer>,
}

impl Drop for Link {
    fn drop(&mut self) {
        let shared = &self.peer.shared;
        if !shared.guard.is_child() {
            shared.channels.lock().remove(&self.id);
            shared.connection.tell(&Request::Disconnect { channel: self.id });
        }
    }
}

/// The sending half of a channel.
pub struct Sender {
    producer: Producer,
    link: Arc<Link>,
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
        self.found_asleep = self.link.peer.wake();
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

    /// The position up to which the other end has dealt with records. One load.
    pub fn consumed(&mut self) -> u64 {
        self.producer.consumed()
    }

    /// How far the other end says to have come with what it has received; see [`Receiver::marker`]. One load.
    pub fn mark(&self) -> u64 {
        self.producer.mark()
    }
}

/// The receiving half of a channel.
pub struct Receiver {
    consumer: Consumer,
    link: Arc<Link>,
}

impl Receiver {
    /// Whether a record waits. One load.
    pub fn is_empty(&self) -> bool {
        self.consumer.is_empty()
    }

    /// The marker by which this end tells the sender which records it has begun, by a count of their own. The sender can
    /// read it also when this process is dead.
    pub fn marker(&self) -> Marker {
        self.consumer.marker()
    }

    /// A look from outside, by threads that do not receive themselves.
    pub fn peek(&self) -> Peek {
        self.consumer.peek()
    }

    /// Copies the next record out; `false` when there is none. Call [`done`](Self::done) when it has been dealt with.
    ///
    /// # Errors
    /// [`Corrupt`] when the other end wrote nonsense: close the channel.
    pub fn next(&mut self, record: &mut Vec<u8>) -> Result<bool, Corrupt> {
        self.consumer.next(record)
    }

    /// Acknowledges the record from [`next`](Self::next): what the sender held on its behalf can go.
    pub fn done(&mut self) {
        if self.consumer.advance() {
            self.link.peer.wake();
        }
    }
}
