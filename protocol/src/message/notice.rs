//! Notices: messages of the daemon that answer no request.

use crate::id::{ObjectId, OwnerId};
use crate::message::info::NameChange;
use crate::message::layout::messages;

messages! {
    /// A message of the daemon that answers no request.
    pub enum Notice {
        /// Another client may pin this client's objects now. Descriptors: the reader's control memory, read-only; its
        /// bell.
        64 => ReaderJoined {
            /// The reader.
            reader: OwnerId,
        }
        /// A reader's pins do not count any more: it has detached, or it has died.
        65 => ReaderGone {
            /// The reader.
            reader: OwnerId,
        }
        /// An owner that this client is attached to has died. Its promises are lost; the daemon has taken over its
        /// sealed objects.
        66 => OwnerDied {
            /// The owner.
            owner: OwnerId,
        }
        /// The last object of a dead owner is gone. The client answers with [`Request::Detach`](super::Request::Detach)
        /// when it uses nothing of the owner any more.
        67 => OwnerForgotten {
            /// The owner.
            owner: OwnerId,
        }
        /// An owner gave a segment back. The client answers with
        /// [`Request::UnmapSegment`](super::Request::UnmapSegment) when it does not use the segment any more.
        68 => SegmentRetired {
            /// The owner.
            owner: OwnerId,
            /// Number among the owner's segments.
            segment: u32,
        }
        /// The store is full, and a request waits: the client frees what it can, and releases empty segments.
        69 => Reclaim {
            /// Bytes that are missing.
            bytes: u64,
        }
        /// A request still waits after [`Reclaim`](Notice::Reclaim): the client does the same, and also gives back the
        /// unused pages of segments in which objects lie. It answers with
        /// [`Request::HolesPunched`](super::Request::HolesPunched).
        76 => PunchHoles {
            /// Bytes that are missing.
            bytes: u64,
        }
        /// Freeing has not made room: the client spills objects whose bytes are not in use, and releases the segments
        /// that this empties. It answers with [`Request::Spilled`](super::Request::Spilled).
        72 => Spill {
            /// Bytes of segments to release, approximately.
            bytes: u64,
        }
        /// Another client wants the bytes of a spilled object. The owner answers with
        /// [`Request::Restored`](super::Request::Restored).
        73 => RestoreWanted {
            /// An object of this client.
            object: ObjectId,
        }
        /// Another client has connected. Descriptors: this client's end, writable; the other end, read-only.
        70 => ChannelOpened {
            /// The channel's number in later messages.
            channel: u64,
            /// The client at the other end.
            peer: OwnerId,
            /// Bytes of each ring.
            data_bytes: u32,
        }
        /// The other end of a channel has closed it, or has died.
        71 => ChannelClosed {
            /// Number of the channel.
            channel: u64,
        }
        /// An owner has died. This client, attached or not, becomes an escrow holder of the owner's descriptors, so
        /// that held objects also outlive the daemon. It holds them until [`OwnerForgotten`](Notice::OwnerForgotten).
        /// Descriptors: the owner's control memory, read-only; its bell.
        81 => EscrowOwner {
            /// The owner.
            owner: OwnerId,
        }
        /// A segment to hold in escrow until it is retired or its owner forgotten. It does not count as mapped: the
        /// daemon does not wait for this client to close it. Descriptor: the segment, read-only.
        82 => EscrowSegment {
            /// The owner, named by an `EscrowOwner` before.
            owner: OwnerId,
            /// Number among the owner's segments.
            segment: u32,
            /// Length of the segment.
            bytes: u64,
        }
        /// A spill file to hold in escrow, as in [`EscrowSegment`](Notice::EscrowSegment). Descriptor: the file, to
        /// read.
        74 => EscrowSpillFile {
            /// The owner, named by an `EscrowOwner` before.
            owner: OwnerId,
            /// Number among the owner's files.
            file: u32,
            /// Bytes that the file counts as.
            bytes: u64,
        }
        /// A spill file that need not be held in escrow any more.
        75 => SpillFileRetired {
            /// The owner.
            owner: OwnerId,
            /// Number among the owner's files.
            file: u32,
        }
        /// Names were given and removed, in this order. For clients that have asked for it with
        /// [`Request::WatchNames`](super::Request::WatchNames).
        77 => NamesChanged {
            /// At least one.
            changes: Vec<NameChange>,
        }
        /// The daemon ends on purpose, and no other takes its place.
        80 => Closing {}
    }
}
