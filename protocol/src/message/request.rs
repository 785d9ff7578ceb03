//! Requests: messages of a client to the daemon.

use crate::id::{ObjectId, OwnerId};
use crate::message::layout::messages;
use crate::message::refusal::Refusal;

messages! {
    /// A message of a client to the daemon, which answers each request once.
    pub enum Request {
        /// The first request of every client. Answered by [`Reply::Welcome`](super::Reply::Welcome).
        1 => Hello {
            /// The client's name for people: its program, or its part in a session.
            label: String,
            /// The client's number among those of its process. A hello that is repeated to the next daemon has the same
            /// number. So that daemon knows that the client never had an answer.
            serial: u64,
        }
        /// Memory to put objects in. Answered by [`Reply::Leased`](super::Reply::Leased) as soon as there is room, or
        /// by [`Refusal::StoreFull`] after the timeout.
        2 => Lease {
            /// Bytes needed, rounded up to whole pages.
            bytes: u64,
            /// How long to wait for room, in milliseconds.
            timeout_ms: u64,
        }
        /// The client no longer needs a lease that it has requested and not received. The lease is refused, unless it
        /// has been granted meanwhile. Answered by [`Reply::Done`](super::Reply::Done).
        26 => Withdraw {
            /// Correlation number of the lease request.
            correlation: u64,
        }
        /// Gives a segment back in which no object lies. Answered by [`Reply::Done`](super::Reply::Done) at once; its
        /// bytes are free when every client that has it mapped has unmapped it.
        3 => Release {
            /// Number from [`Reply::Leased`](super::Reply::Leased).
            segment: u32,
        }
        /// The client has given pages of one of its segments back to the system. The daemon stops counting them.
        /// Answered by [`Reply::Done`](super::Reply::Done).
        28 => HolesPunched {
            /// Number from [`Reply::Leased`](super::Reply::Leased).
            segment: u32,
        }
        /// Memory for more entries of the object table. Answered by [`Reply::TableGrown`](super::Reply::TableGrown).
        4 => GrowTable {
            /// Entries needed in all.
            entries: u32,
        }
        /// Permission to pin the objects of another client, alive or dead. Answered by
        /// [`Reply::Attached`](super::Reply::Attached).
        5 => Attach {
            /// The owner of the objects.
            owner: OwnerId,
        }
        /// This client has no pins and no mappings of an owner any more. Answered by
        /// [`Reply::Done`](super::Reply::Done).
        6 => Detach {
            /// An owner that this client is attached to.
            owner: OwnerId,
        }
        /// The client could not add a reader, because it had no descriptors left, and asks for
        /// [`Notice::ReaderJoined`](super::Notice::ReaderJoined) once more. Answered by
        /// [`Reply::Done`](super::Reply::Done), after the notice if the reader is still attached.
        27 => RepeatReader {
            /// The reader that the notice named.
            reader: OwnerId,
        }
        /// A segment of another client, to read. Answered by [`Reply::SegmentMapped`](super::Reply::SegmentMapped).
        7 => MapSegment {
            /// An owner that this client is attached to.
            owner: OwnerId,
            /// Number among the owner's segments.
            segment: u32,
        }
        /// This client no longer has the segment mapped. Answered by [`Reply::Done`](super::Reply::Done).
        8 => UnmapSegment {
            /// The owner of the segment.
            owner: OwnerId,
            /// Number among the owner's segments.
            segment: u32,
        }
        /// Gives a sealed object a name, which keeps the object. Answered by [`Reply::Done`](super::Reply::Done).
        9 => Publish {
            /// 1 to [`NAME_BYTES_MAX`](super::NAME_BYTES_MAX) bytes, not necessarily text.
            name: Vec<u8>,
            /// An object that this client holds.
            object: ObjectId,
        }
        /// The object that has a name. Answered by [`Reply::Found`](super::Reply::Found), or by [`Refusal::NoSuchName`]
        /// after the timeout.
        10 => Lookup {
            /// A name that was published or will be.
            name: Vec<u8>,
            /// How long to wait for the name, in milliseconds.
            timeout_ms: u64,
        }
        /// Removes a name. Answered by [`Reply::Done`](super::Reply::Done).
        11 => Unpublish {
            /// A name that was published.
            name: Vec<u8>,
        }
        /// From now on the client is told which names are given and removed, by
        /// [`Notice::NamesChanged`](super::Notice::NamesChanged). Answered by [`Reply::Done`](super::Reply::Done).
        38 => WatchNames {}
        /// Removes names as if room were needed: the least recently used first, of objects that only their names keep.
        /// Answered by [`Reply::Evicted`](super::Reply::Evicted).
        39 => Evict {
            /// Bytes of payloads that are to be freed, if there are so many.
            bytes: u64,
        }
        /// A page of names in order. Answered by [`Reply::Names`](super::Reply::Names).
        12 => ListNames {
            /// The last name of the page before; empty for the first page.
            after: Vec<u8>,
        }
        /// A page of the objects of all clients. Answered by [`Reply::Objects`](super::Reply::Objects).
        13 => ListObjects {
            /// Cursor from the page before; 0 for the first page.
            cursor: u64,
        }
        /// A page of the clients that hold objects, and of the references between objects. Answered by
        /// [`Reply::Holders`](super::Reply::Holders).
        42 => ListHolders {
            /// Cursor from the page before; 0 for the first page.
            cursor: u64,
        }
        /// Totals of the store. Answered by [`Reply::Stats`](super::Reply::Stats).
        14 => Stats {}
        /// A page of clients, the dead with objects included. Answered by [`Reply::Clients`](super::Reply::Clients).
        15 => ListClients {
            /// Cursor from the page before; 0 for the first page.
            cursor: u32,
        }
        /// A page of all segments. Answered by [`Reply::Segments`](super::Reply::Segments).
        40 => ListSegments {
            /// Cursor from the page before; 0 for the first page.
            cursor: u64,
        }
        /// A page of the places of all objects that are in memory. Answered by
        /// [`Reply::Locations`](super::Reply::Locations).
        41 => ListLocations {
            /// Cursor from the page before; 0 for the first page.
            cursor: u64,
        }
        /// The next client whose events can be read, alive or dead. Answered by
        /// [`Reply::Recorder`](super::Reply::Recorder), or by [`Reply::Done`](super::Reply::Done) after the last.
        25 => NextRecorder {
            /// The epoch of the client before; 0 for the first.
            after: u64,
        }
        /// A channel to another client: a pair of rings. Answered by [`Reply::Connected`](super::Reply::Connected); the
        /// other end gets [`Notice::ChannelOpened`](super::Notice::ChannelOpened).
        16 => Connect {
            /// The client at the other end, which must be alive.
            peer: OwnerId,
        }
        /// Closes a channel. Answered by [`Reply::Done`](super::Reply::Done); the other end gets
        /// [`Notice::ChannelClosed`](super::Notice::ChannelClosed).
        17 => Disconnect {
            /// Number of the channel.
            channel: u64,
        }
        /// A file to spill objects into. Answered by [`Reply::SpillFileMade`](super::Reply::SpillFileMade), or by
        /// [`Refusal::SpillFailed`].
        18 => SpillFile {
            /// Bytes that will be written.
            bytes: u64,
        }
        /// No spill record in a file is needed any more. Answered by [`Reply::Done`](super::Reply::Done).
        19 => DiscardSpillFile {
            /// Number from [`Reply::SpillFileMade`](super::Reply::SpillFileMade).
            file: u32,
        }
        /// The end of the work that a [`Notice::Spill`](super::Notice::Spill) asked for. Answered by
        /// [`Reply::Done`](super::Reply::Done).
        20 => Spilled {
            /// Bytes of the segments that this client has released for it.
            bytes: u64,
            /// The error, if spilling has failed.
            failure: Option<String>,
        }
        /// The bytes of a spilled object, back in memory. Answered by [`Reply::Done`](super::Reply::Done), or by
        /// [`Refusal::NotRestored`] after the timeout.
        21 => Restore {
            /// An object whose bytes this client has pinned, so that it is not spilled again.
            object: ObjectId,
            /// How long to wait, in milliseconds.
            timeout_ms: u64,
        }
        /// The end of the work that a [`Notice::RestoreWanted`](super::Notice::RestoreWanted) asked for. Answered by
        /// [`Reply::Done`](super::Reply::Done).
        22 => Restored {
            /// The object that the notice named.
            object: ObjectId,
            /// Why the object is not back in memory, if it is not.
            refusal: Option<Refusal>,
        }
        /// The file with the bytes of a spilled object, because there is no memory to restore them into. Answered by
        /// [`Reply::SpillFileOpened`](super::Reply::SpillFileOpened), or by [`Reply::Done`](super::Reply::Done) if the
        /// object is not spilled any more.
        29 => OpenSpilled {
            /// An object whose bytes this client has pinned.
            object: ObjectId,
        }
        /// In place of `Hello`: a client whose daemon was killed tells the next daemon its id. Messages about
        /// all that it has follow; the daemon answers none of them before [`Request::Resumed`]. Descriptors: the
        /// client's control memory, writable; its bell; the daemon's control memory, read-only.
        30 => Resume {
            /// The client's id from the daemon before.
            owner: OwnerId,
            /// The client's name for people.
            label: String,
            /// Client slots that every control memory has pins for.
            slots: u32,
            /// The largest segment number that the client has ever had.
            segment_last: u32,
            /// How many times the client has heard that a reader has joined.
            readers_heard: u64,
        }
        /// After `Resume`: a segment of the client's own. Descriptor: the segment, writable.
        31 => ResumeSegment {
            /// Number among the client's segments.
            segment: u32,
            /// Length of the segment.
            bytes: u64,
        }
        /// After `Resume`: a file that the client has spilled into. Descriptor: the file, to read and write.
        23 => ResumeSpillFile {
            /// Number among the client's files.
            file: u32,
            /// Bytes that the file counts as.
            bytes: u64,
        }
        /// After `Resume`: a reader of the client's objects that the client knows.
        32 => ResumeReader {
            /// The reader.
            reader: OwnerId,
        }
        /// After `Resume`: an owner of which the client has descriptors. Descriptors: the owner's control memory,
        /// read-only; its bell.
        33 => ResumePeer {
            /// The owner.
            owner: OwnerId,
            /// Whether the client is attached to the owner; else it only holds the owner's descriptors in escrow.
            attached: bool,
        }
        /// After `ResumePeer`: a segment of that owner which the client has mapped. Descriptor: the segment, read-only.
        34 => ResumeMapped {
            /// The owner, named by a `ResumePeer` before.
            owner: OwnerId,
            /// Number among the owner's segments.
            segment: u32,
            /// Length of the segment.
            bytes: u64,
        }
        /// After `ResumePeer`: a segment of that owner, now dead, which the client holds in escrow; see
        /// [`Notice::EscrowSegment`](super::Notice::EscrowSegment). Descriptor: the segment, read-only.
        37 => ResumeEscrowedSegment {
            /// The owner, named by a `ResumePeer` before.
            owner: OwnerId,
            /// Number among the owner's segments.
            segment: u32,
            /// Length of the segment.
            bytes: u64,
        }
        /// After `ResumePeer`: a spill file of that owner, now dead, which the client holds in escrow; see
        /// [`Notice::EscrowSpillFile`](super::Notice::EscrowSpillFile). Descriptor: the file.
        24 => ResumeEscrowedSpillFile {
            /// The owner, named by a `ResumePeer` before.
            owner: OwnerId,
            /// Number among the owner's files.
            file: u32,
            /// Bytes that the file counts as.
            bytes: u64,
        }
        /// After `Resume`: a channel of the client's.
        35 => ResumeChannel {
            /// The channel's number from the daemon before.
            channel: u64,
            /// The client at the other end.
            peer: OwnerId,
        }
        /// The end of the handover that `Resume` began. Answered by [`Reply::Resumed`](super::Reply::Resumed) when the
        /// other clients have come back too.
        36 => Resumed {}
    }
}
