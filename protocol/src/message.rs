//! Messages. A client sends [`Request`]s; the daemon answers each with one [`Reply`] of the same correlation number,
//! in whatever order they are ready, and sends [`Notice`]s on its own account.
//!
//! # Layout
//!
//! | bytes | field |
//! |---|---|
//! | 2 | [`VERSION`] |
//! | 2 | opcode |
//! | 4 | zero |
//! | 8 | correlation number; 0 in notices |
//! | … | the fields, in the order in which they are declared here (`wire`) |
//!
//! The "descriptors" of a message are listed in its documentation, in order.

use std::fmt;

use bytes::{Buf, BufMut};

use crate::VERSION;
use crate::id::{ObjectId, OwnerId};
pub use crate::refusal::Refusal;
use crate::wire::{Field, Shown};

/// Bytes before the fields.
pub const HEADER_BYTES: usize = 16;
/// Bytes of the longest name of an object.
pub const NAME_BYTES_MAX: usize = 1024;
/// Bytes of the longest label of a client.
pub const LABEL_BYTES_MAX: usize = 256;

/// Bytes that are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Fewer bytes than the message needs.
    #[error("the message is shorter than its fields")]
    Truncated,
    /// More bytes than the message needs.
    #[error("{0} bytes follow the message's last field")]
    Trailing(usize),
    /// The peer speaks another version.
    #[error("protocol version {theirs}, expected {}: use the same build of Mobula on both sides", VERSION)]
    Version {
        /// What came.
        theirs: u16,
    },
    /// No such message, in this direction.
    #[error("unknown opcode {0}")]
    Opcode(u16),
    /// A field has a value that it cannot have.
    #[error("field {field} cannot be {value}")]
    BadField {
        /// Which.
        field: &'static str,
        /// What came.
        value: u64,
    },
    /// Text that is not UTF-8.
    #[error("a text field is not UTF-8")]
    NotText,
}

macro_rules! messages {
    ($(#[$doc:meta])* $vis:vis enum $name:ident {
        $($(#[$variant_doc:meta])* $opcode:literal => $variant:ident {
            $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
        })*
    }) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        #[non_exhaustive]
        $vis enum $name {
            $($(#[$variant_doc])* $variant { $($(#[$field_doc])* $field: $type,)* },)*
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $(Self::$variant { $($field,)* } => f
                        .debug_struct(stringify!($variant))
                        $(.field(stringify!($field), &Shown($field)))*
                        .finish(),)*
                }
            }
        }

        impl $name {
            /// The message as bytes, with the correlation number that ties a reply to its request.
            pub fn encode(&self, correlation: u64) -> Vec<u8> {
                let mut out = Vec::with_capacity(64);
                out.put_u16_le(VERSION);
                match self {
                    $(Self::$variant { $($field,)* } => {
                        out.put_u16_le($opcode);
                        out.put_u32_le(0);
                        out.put_u64_le(correlation);
                        $(Field::put($field, &mut out);)*
                    })*
                }
                out
            }

            /// The message and its correlation number.
            ///
            /// # Errors
            /// [`DecodeError`] for anything that [`encode`](Self::encode) does not make.
            pub fn decode(mut input: &[u8]) -> Result<(u64, Self), DecodeError> {
                let (opcode, correlation) = decode_header(&mut input)?;
                let message = match opcode {
                    $($opcode => Self::$variant { $($field: Field::take(&mut input)?,)* },)*
                    other => return Err(DecodeError::Opcode(other)),
                };
                if !input.is_empty() {
                    return Err(DecodeError::Trailing(input.len()));
                }
                Ok((correlation, message))
            }
        }
    };
}

fn decode_header(input: &mut &[u8]) -> Result<(u16, u64), DecodeError> {
    if input.len() < HEADER_BYTES {
        return Err(DecodeError::Truncated);
    }
    let version = input.get_u16_le();
    if version != VERSION {
        return Err(DecodeError::Version { theirs: version });
    }
    let opcode = input.get_u16_le();
    let reserved = input.get_u32_le();
    if reserved != 0 {
        return Err(DecodeError::BadField { field: "reserved", value: u64::from(reserved) });
    }
    Ok((opcode, input.get_u64_le()))
}

/// Whether bytes are a notice, which a client must tell from a reply before it decodes.
pub fn is_notice(bytes: &[u8]) -> bool {
    bytes.get(2..4).is_some_and(|opcode| (64..128).contains(&u16::from_le_bytes([opcode[0], opcode[1]])))
}

messages! {
    /// What a client asks of the daemon.
    pub enum Request {
        /// Must come first. Answered by [`Reply::Welcome`].
        1 => Hello {
            /// What people call this client: its program or its part in a session.
            label: String,
        }
        /// Memory to put objects in. Answered by [`Reply::Leased`] once there is room, at the latest after the
        /// timeout by a [`Refusal::StoreFull`].
        2 => Lease {
            /// Bytes needed, rounded up to whole pages.
            bytes: u64,
            /// How long to wait for room, in milliseconds.
            timeout_ms: u64,
        }
        /// Gives a segment back: no object lies in it any more. Answered by [`Reply::Done`] at once; its bytes are
        /// free when everyone who has it mapped has unmapped it.
        3 => Release {
            /// From [`Reply::Leased`].
            segment: u32,
        }
        /// The client has given pages of one of its segments back to the system. No object lies in them, and the daemon
        /// stops counting them.
        /// Answered by [`Reply::Done`].
        28 => Shrunk {
            /// From [`Reply::Leased`].
            segment: u32,
        }
        /// Makes room for more objects in the table. Answered by [`Reply::TableGrown`].
        4 => GrowTable {
            /// Entries needed in all.
            entries: u32,
        }
        /// Permission to pin the objects of another client, alive or adopted. Answered by [`Reply::Attached`].
        5 => Attach {
            /// Whose.
            owner: OwnerId,
        }
        /// This client keeps nothing of that owner: no pins, no mappings. Answered by [`Reply::Done`].
        6 => Detach {
            /// From an earlier `Attach`.
            owner: OwnerId,
        }
        /// A segment of another client, to read. Answered by [`Reply::SegmentMapped`].
        7 => MapSegment {
            /// One this client is attached to.
            owner: OwnerId,
            /// Segment of that owner's.
            segment: u32,
        }
        /// This client no longer has the segment mapped. Answered by [`Reply::Done`].
        8 => UnmapSegment {
            /// As in `MapSegment`.
            owner: OwnerId,
            /// As in `MapSegment`.
            segment: u32,
        }
        /// Names a sealed object, and keeps it while it has the name. Answered by [`Reply::Done`].
        9 => Publish {
            /// 1 to [`NAME_BYTES_MAX`] bytes, not necessarily text.
            name: Vec<u8>,
            /// One that this client holds.
            object: ObjectId,
        }
        /// The object of a name. Answered by [`Reply::Found`], at the latest after the timeout by
        /// [`Refusal::NoSuchName`].
        10 => Lookup {
            /// What was published.
            name: Vec<u8>,
            /// How long to wait for it, in milliseconds.
            timeout_ms: u64,
        }
        /// Takes a name away. Answered by [`Reply::Done`].
        11 => Unpublish {
            /// What was published.
            name: Vec<u8>,
        }
        /// Names in order. Answered by [`Reply::Names`], a page at a time.
        12 => ListNames {
            /// The last name of the page before; empty for the first page.
            after: Vec<u8>,
        }
        /// Objects of everyone. Answered by [`Reply::Objects`], a page at a time.
        13 => ListObjects {
            /// From the page before; 0 for the first.
            cursor: u64,
        }
        /// Totals. Answered by [`Reply::Stats`].
        14 => Stats {}
        /// Clients and adopted owners. Answered by [`Reply::Clients`], a page at a time.
        15 => ListClients {
            /// From the page before; 0 for the first.
            cursor: u32,
        }
        /// A channel to another client: a pair of rings. Answered by [`Reply::Connected`]; the peer gets a
        /// [`Notice::ChannelOpened`].
        16 => Connect {
            /// Alive.
            peer: OwnerId,
        }
        /// Closes a channel. Answered by [`Reply::Done`]; the peer gets a [`Notice::ChannelClosed`].
        17 => Disconnect {
            /// From `Connected` or `ChannelOpened`.
            channel: u64,
        }
        /// A lease that this client has asked for, and has not got, is not needed any more: it is answered by a
        /// refusal, unless it has been granted meanwhile. Answered by [`Reply::Done`].
        26 => Withdraw {
            /// Of the request.
            correlation: u64,
        }
        /// The [`Notice::ReaderJoined`] of a reader was of no use: its descriptors found no room. Answered by
        /// [`Reply::Done`], behind the notice once more if the reader is still there.
        27 => Introduce {
            /// Who.
            reader: OwnerId,
        }
        /// In the place of `Hello`, by a client whose daemon was killed, to the one in its place: who it is. What it has
        /// follows, a message each, none of which is answered before [`Request::Resumed`]. Descriptors: its control
        /// memory, writable; its bell; the daemon's control memory, read-only.
        30 => Resume {
            /// As the daemon before called it.
            owner: OwnerId,
            /// What people call it.
            label: String,
            /// Slots of every control memory.
            slots: u32,
            /// The largest number of a segment that it has ever had.
            segment_last: u32,
            /// How often it has heard that a reader has joined.
            readers_heard: u64,
        }
        /// A segment of its own. Descriptor: the segment, writable.
        31 => ResumeSegment {
            /// Number among its own.
            segment: u32,
            /// Its length.
            bytes: u64,
        }
        /// A client that it knows as a reader of its objects.
        32 => ResumeReader {
            /// Who.
            reader: OwnerId,
        }
        /// An owner of which it has something. Descriptors: the owner's control memory, read-only; its bell.
        33 => ResumePeer {
            /// Who.
            owner: OwnerId,
            /// Whether it is attached, or only keeps what the owner has left.
            attached: bool,
        }
        /// A segment of another owner that it has mapped. Descriptor: the segment, read-only.
        34 => ResumeMapped {
            /// Whose.
            owner: OwnerId,
            /// Segment of that owner's.
            segment: u32,
            /// Its length.
            bytes: u64,
        }
        /// A channel of its own.
        35 => ResumeChannel {
            /// As the daemon before called it.
            channel: u64,
            /// The other end.
            peer: OwnerId,
        }
        /// A segment of a dead owner that it keeps; see [`Notice::KeepSegment`]. Descriptor: the segment, read-only.
        37 => ResumeKept {
            /// One that it has told of before.
            owner: OwnerId,
            /// Segment of that owner's.
            segment: u32,
            /// Its length.
            bytes: u64,
        }
        /// That was all. Answered by [`Reply::Resumed`] once the other clients are there as well.
        36 => Resumed {}
        /// A file to spill objects into. Answered by [`Reply::SpillFileMade`], or by [`Refusal::SpillFailed`].
        18 => SpillFile {
            /// Bytes that will be written.
            bytes: u64,
        }
        /// No record in a file is needed any more. Answered by [`Reply::Done`].
        19 => DiscardSpillFile {
            /// From [`Reply::SpillFileMade`].
            file: u32,
        }
        /// The end of what a [`Notice::Spill`] asked for. Answered by [`Reply::Done`].
        20 => Spilled {
            /// Bytes of the segments that this client has released for it.
            bytes: u64,
            /// What went wrong, if anything did.
            failure: Option<String>,
        }
        /// The bytes of a spilled object, back in memory. Answered by [`Reply::Done`]; at the latest after the timeout
        /// by [`Refusal::NotRestored`].
        21 => Restore {
            /// One that this client has pinned for its bytes, so that it is not spilled again.
            object: ObjectId,
            /// How long to wait, in milliseconds.
            timeout_ms: u64,
        }
        /// The file in which the bytes of a spilled object are, because there is no memory to bring them back into. Answered by
        /// [`Reply::SpillFileOpened`]; by [`Reply::Done`] if it is not spilled any more.
        29 => OpenSpilled {
            /// One that this client has pinned for its bytes.
            object: ObjectId,
        }
        /// The end of what a [`Notice::RestoreWanted`] asked for. Answered by [`Reply::Done`].
        22 => Restored {
            /// From the notice.
            object: ObjectId,
            /// Why it is not back in memory, if it is not.
            refusal: Option<Refusal>,
        }
        /// After `Resume`: a file that it has spilled into. Descriptor: the file, to read and write.
        23 => ResumeSpillFile {
            /// Number among its own.
            file: u32,
            /// What it counts as.
            bytes: u64,
        }
        /// After `Resume`: a spill file of a dead owner that it keeps; see [`Notice::KeepSpillFile`]. Descriptor: the file.
        24 => ResumeKeptSpillFile {
            /// One that it has told of before.
            owner: OwnerId,
            /// File of that owner's.
            file: u32,
            /// What it counts as.
            bytes: u64,
        }
    }
}

messages! {
    /// What the daemon answers.
    pub enum Reply {
        /// The request was carried out, and there is nothing to say.
        128 => Done {}
        /// The request was not carried out.
        129 => Failed {
            /// Why.
            refusal: Refusal,
        }
        /// Descriptors: the client's control memory, writable; its bell; the daemon's control memory, read-only.
        130 => Welcome {
            /// Who the client is from now on.
            owner: OwnerId,
            /// Slots of every control memory.
            slots: u32,
            /// Entries of the table that can be used.
            entries: u32,
            /// What the store may lease in all.
            capacity_bytes: u64,
        }
        /// Descriptor: the segment, writable.
        131 => Leased {
            /// Number among the client's own; never used twice.
            segment: u32,
            /// Its length.
            bytes: u64,
        }
        /// The table has room for this many entries now.
        132 => TableGrown {
            /// In all.
            entries: u32,
        }
        /// Descriptors: the owner's control memory, read-only; its bell.
        133 => Attached {
            /// Whether the owner has died and the daemon keeps its objects.
            adopted: bool,
        }
        /// Descriptor: the segment, read-only.
        134 => SegmentMapped {
            /// Its length.
            bytes: u64,
        }
        /// What a name stands for.
        135 => Found {
            /// To be pinned, which fails if the name was taken away meanwhile.
            object: ObjectId,
        }
        /// A page of names.
        136 => Names {
            /// In order.
            names: Vec<NameInfo>,
            /// Whether there are more.
            more: bool,
        }
        /// A page of objects.
        137 => Objects {
            /// In no order that means anything.
            objects: Vec<ObjectInfo>,
            /// For the next page; `None` after the last.
            next: Option<u64>,
        }
        /// Totals of the store.
        138 => Stats {
            /// At one moment.
            totals: Totals,
        }
        /// A page of clients.
        139 => Clients {
            /// By slot.
            clients: Vec<ClientInfo>,
            /// For the next page; `None` after the last.
            next: Option<u32>,
        }
        /// Descriptors: this client's end, writable; the peer's end, read-only.
        140 => Connected {
            /// Names the channel in later messages.
            channel: u64,
            /// Bytes of each ring.
            data_bytes: u32,
        }
        /// The client is taken up again, and goes on.
        150 => Resumed {}
        /// Descriptor: the file, to read.
        142 => SpillFileOpened {
            /// Byte offset of the object's record.
            offset: u64,
        }
        /// Descriptor: the file, to read and write. It has no name.
        141 => SpillFileMade {
            /// Number among the client's own; never used twice.
            file: u32,
        }
    }
}

messages! {
    /// What the daemon tells without having been asked.
    pub enum Notice {
        /// Another client may pin this client's objects now. Descriptors: its control memory, read-only; its
        /// bell.
        64 => ReaderJoined {
            /// Who.
            reader: OwnerId,
        }
        /// Its pins count no more: it has detached or died.
        65 => ReaderGone {
            /// Who.
            reader: OwnerId,
        }
        /// An owner that this client is attached to has died; what it promised is lost, what it sealed is adopted.
        66 => OwnerDied {
            /// Who.
            owner: OwnerId,
        }
        /// The last object of a dead owner is gone. Answer with [`Request::Detach`] when nothing of it is in use.
        67 => OwnerForgotten {
            /// Who.
            owner: OwnerId,
        }
        /// An owner gave a segment back. Answer with [`Request::UnmapSegment`] when it is not in use here.
        68 => SegmentRetired {
            /// Who.
            owner: OwnerId,
            /// Segment of that owner's.
            segment: u32,
        }
        /// The store is full and somebody waits: free what can be freed, release what is empty.
        69 => Reclaim {
            /// Bytes that are missing.
            bytes: u64,
        }
        /// Somebody still waits after a [`Reclaim`](Notice::Reclaim): do the same, and give back the unused pages of segments
        /// in which objects lie; say so by [`Request::Shrunk`].
        76 => Shrink {
            /// Bytes that are missing.
            bytes: u64,
        }
        /// Another client has connected. Descriptors: this client's end, writable; the peer's, read-only.
        70 => ChannelOpened {
            /// Names the channel in later messages.
            channel: u64,
            /// Who connected.
            peer: OwnerId,
            /// Bytes of each ring.
            data_bytes: u32,
        }
        /// The other end has closed, or has died.
        71 => ChannelClosed {
            /// Which.
            channel: u64,
        }
        /// The daemon ends, on purpose: nobody will take its place.
        80 => Closing {}
        /// An owner has died, and this client, be it attached or not, is asked to keep the owner's memory, so that what is
        /// held of it outlives the daemon as well, until [`OwnerForgotten`](Notice::OwnerForgotten). Descriptors: the owner's control memory, read-only; its bell.
        81 => Keep {
            /// Who.
            owner: OwnerId,
        }
        /// A segment to keep until it is retired or its owner forgotten. It does not count as mapped: nobody waits for this
        /// client to let go of it. Descriptor: the segment, read-only.
        82 => KeepSegment {
            /// One that `Keep` has named.
            owner: OwnerId,
            /// Segment of that owner's.
            segment: u32,
            /// Its length.
            bytes: u64,
        }
        /// Freeing has not made room: spill objects whose bytes nobody uses, and release the segments that this empties.
        /// Answer with [`Request::Spilled`].
        72 => Spill {
            /// Bytes of segments to release, about.
            bytes: u64,
        }
        /// Another client wants the bytes of a spilled object. Answer with [`Request::Restored`].
        73 => RestoreWanted {
            /// One of this client's.
            object: ObjectId,
        }
        /// A file to keep, as in [`KeepSegment`](Notice::KeepSegment), in which a dead owner's spilled objects are.
        /// Descriptor: the file, to read.
        74 => KeepSpillFile {
            /// One that `Keep` has named.
            owner: OwnerId,
            /// File of that owner's.
            file: u32,
            /// What it counts as.
            bytes: u64,
        }
        /// A file that need not be kept any more.
        75 => SpillFileRetired {
            /// Whose.
            owner: OwnerId,
            /// File of that owner's.
            file: u32,
        }
    }
}

macro_rules! records {
    ($($(#[$doc:meta])* $vis:vis struct $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq)]
        $vis struct $name { $($(#[$field_doc])* pub $field: $type,)* }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.debug_struct(stringify!($name))$(.field(stringify!($field), &Shown(&self.$field)))*.finish()
            }
        }

        impl Field for $name {
            fn put(&self, out: &mut Vec<u8>) {
                $(self.$field.put(out);)*
            }
            fn take(input: &mut &[u8]) -> Result<Self, DecodeError> {
                Ok(Self { $($field: Field::take(input)?,)* })
            }
        }
    )*};
}

records! {
    /// A name and what it stands for.
    pub struct NameInfo {
        /// 1 to [`NAME_BYTES_MAX`] bytes.
        name: Vec<u8>,
        /// Its object.
        object: ObjectId,
    }

    /// An object as `list` shows it.
    pub struct ObjectInfo {
        /// Its id.
        object: ObjectId,
        /// Bytes of its payload.
        bytes: u64,
        /// What the payload is, in its writers' words.
        format: u32,
        /// Clients that hold it, its owner included.
        holders: u32,
        /// Whether a name keeps it.
        named: bool,
        /// Whether it is still a promise.
        promised: bool,
        /// Whether its bytes are in a file.
        spilled: bool,
    }

    /// The store as a whole.
    pub struct Totals {
        /// What may be leased in all.
        capacity_bytes: u64,
        /// What is leased to living clients.
        leased_bytes: u64,
        /// What the daemon keeps of dead clients.
        adopted_bytes: u64,
        /// Given back, but still mapped by somebody.
        retired_bytes: u64,
        /// What can be leased now.
        free_bytes: u64,
        /// Connected clients.
        clients: u32,
        /// Dead clients of which objects remain.
        adopted_owners: u32,
        /// Segments, leased, adopted or retired.
        segments: u32,
        /// Named objects.
        names: u64,
        /// Channels between clients.
        channels: u32,
        /// What spilled objects take in files.
        spill_bytes: u64,
        /// Files of spilled objects.
        spill_files: u32,
    }

    /// One client, or a dead one of which objects remain.
    pub struct ClientInfo {
        /// Its id.
        owner: OwnerId,
        /// Its process.
        pid: u32,
        /// What it called itself.
        label: String,
        /// Whether it has died and the daemon keeps its objects.
        adopted: bool,
        /// Bytes leased to it.
        leased_bytes: u64,
        /// Segments leased to it.
        segments: u32,
        /// Its objects.
        objects: u64,
        /// Bytes of their payloads.
        object_bytes: u64,
        /// Objects that it pins, its own included.
        pins: u64,
        /// Those of its objects that are in files.
        spilled_objects: u64,
        /// Bytes of their payloads.
        spilled_bytes: u64,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn requests() -> Vec<Request> {
        let owner = OwnerId::new(3, 99);
        let object = ObjectId::new(owner, 5, 6);
        vec![
            Request::Hello { label: "wörker".into() },
            Request::Lease { bytes: u64::MAX, timeout_ms: 0 },
            Request::Attach { owner },
            Request::Publish { name: vec![0, 255], object },
            Request::Stats {},
            Request::Connect { peer: owner },
            Request::Resume { owner, label: "wörker".into(), slots: 9, segment_last: 8, readers_heard: 7 },
            Request::ResumeMapped { owner, segment: 1, bytes: 4096 },
            Request::Resumed {},
            Request::Spilled { bytes: 1, failure: Some("no space left".into()) },
            Request::Restored { object, refusal: Some(Refusal::SpillDamaged { object }) },
        ]
    }

    #[test]
    fn names_are_shown_as_text() {
        let object = ObjectId::new(OwnerId::new(3, 99), 5, 6);
        let info = |name: &[u8]| NameInfo { name: name.to_vec(), object };
        let shown = |name: &[u8]| format!("{:?}", info(name));
        assert_eq!(
            shown("wörter \"1\"".as_bytes()),
            format!(r#"NameInfo {{ name: "wörter \"1\"", object: {object} }}"#)
        );
        assert_eq!(shown(b"a\xff\n"), format!(r#"NameInfo {{ name: b"a\xff\n", object: {object} }}"#));
        let names = Reply::Names { names: vec![info(b"one")], more: false };
        assert_eq!(
            format!("{names:?}"),
            format!(r#"Names {{ names: [NameInfo {{ name: "one", object: {object} }}], more: false }}"#)
        );
        let lookup = Request::Lookup { name: b"two".to_vec(), timeout_ms: 3 };
        assert_eq!(format!("{lookup:?}"), r#"Lookup { name: "two", timeout_ms: 3 }"#);
    }

    #[test]
    fn requests_survive_the_wire() {
        for (correlation, request) in requests().into_iter().enumerate() {
            let bytes = request.encode(correlation as u64);
            assert_eq!(Request::decode(&bytes), Ok((correlation as u64, request)));
            assert!(!is_notice(&bytes));
        }
    }

    #[test]
    fn replies_and_notices_survive_the_wire() {
        let owner = OwnerId::new(3, 99);
        let refusal = Refusal::StoreFull { requested_bytes: 1, capacity_bytes: 2, free_bytes: 3 };
        let object = ObjectId::new(owner, 1, 2);
        let info = ObjectInfo {
            object,
            bytes: 1,
            format: 2,
            holders: 3,
            named: true,
            promised: false,
            spilled: true,
        };
        for reply in [
            Reply::Failed { refusal },
            Reply::Failed { refusal: Refusal::LimitReached { limit: "clients_max".into(), max: 3 } },
            Reply::Objects { objects: vec![info], next: Some(4) },
            Reply::Found { object },
        ] {
            let bytes = reply.encode(7);
            assert!(!is_notice(&bytes));
            assert_eq!(Reply::decode(&bytes), Ok((7, reply)));
        }
        let notice = Notice::ChannelOpened { channel: 1, peer: owner, data_bytes: 4096 };
        let bytes = notice.encode(0);
        assert!(is_notice(&bytes));
        assert_eq!(Notice::decode(&bytes), Ok((0, notice)));
    }

    #[test]
    fn every_cut_and_every_extension_of_a_message_is_an_error() {
        for request in requests() {
            let bytes = request.encode(1);
            for cut in 0..bytes.len() {
                assert!(Request::decode(&bytes[..cut]).is_err(), "{request:?} cut at {cut}");
            }
            let mut longer = bytes.clone();
            longer.push(0);
            assert_eq!(Request::decode(&longer), Err(DecodeError::Trailing(1)));
        }
    }

    #[test]
    fn a_length_that_lies_reserves_nothing() {
        let mut bytes = Request::Lookup { name: vec![], timeout_ms: 0 }.encode(1);
        bytes[HEADER_BYTES..HEADER_BYTES + 4].copy_from_slice(&u32::MAX.to_le_bytes());
        assert_eq!(Request::decode(&bytes), Err(DecodeError::Truncated));
    }
}
