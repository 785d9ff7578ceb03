//! Replies: the daemon's answers to requests.

use crate::id::{ObjectId, OwnerId};
use crate::message::info::{
    ClientInfo, HolderInfo, LocationInfo, NameInfo, ObjectInfo, ReferenceInfo, SegmentInfo, Totals,
};
use crate::message::layout::messages;
use crate::message::refusal::Refusal;

messages! {
    /// The daemon's answer to a [`Request`](super::Request).
    pub enum Reply {
        /// The request was carried out.
        128 => Done {}
        /// The request was not carried out.
        129 => Failed {
            /// The reason.
            refusal: Refusal,
        }
        /// The client is connected. Descriptors: the client's control memory, writable; its bell; the daemon's control
        /// memory, read-only.
        130 => Welcome {
            /// The client's id.
            owner: OwnerId,
            /// Client slots that every control memory has pins for.
            slots: u32,
            /// Entries of the object table that can be used.
            entries: u32,
            /// Bytes that the store may lease in all.
            capacity_bytes: u64,
        }
        /// A client of the previous daemon continues with this one.
        150 => Resumed {}
        /// A segment to put objects in. Descriptor: the segment, writable.
        131 => Leased {
            /// Number among the client's segments; never used twice.
            segment: u32,
            /// Length of the segment.
            bytes: u64,
        }
        /// The object table has memory for more entries.
        132 => TableGrown {
            /// Entries in all.
            entries: u32,
        }
        /// The client may pin an owner's objects. Descriptors: the owner's control memory, read-only; its bell.
        133 => Attached {
            /// Whether the owner has died.
            dead: bool,
        }
        /// A segment to read objects from. Descriptor: the segment, read-only.
        134 => SegmentMapped {
            /// Length of the segment.
            bytes: u64,
        }
        /// The object of a name.
        135 => Found {
            /// To be pinned, which fails if the name was removed meanwhile and nothing else keeps the object.
            object: ObjectId,
        }
        /// A page of names.
        136 => Names {
            /// In the order of the names.
            names: Vec<NameInfo>,
            /// Whether another page follows.
            more: bool,
        }
        /// Names were removed, or none.
        143 => Evicted {
            /// Bytes of the payloads of their objects.
            bytes: u64,
        }
        /// A page of objects.
        137 => Objects {
            /// In an arbitrary order.
            objects: Vec<ObjectInfo>,
            /// Cursor for the next page; `None` after the last.
            next: Option<u64>,
        }
        /// A page of the clients that hold objects.
        154 => Holders {
            /// In the order of the objects, which are as in [`Objects`](Self::Objects).
            holders: Vec<HolderInfo>,
            /// The references of these objects to others.
            references: Vec<ReferenceInfo>,
            /// Cursor for the next page; `None` after the last.
            next: Option<u64>,
        }
        /// Totals of the store.
        138 => Stats {
            /// All of one moment.
            totals: Totals,
        }
        /// A page of clients.
        139 => Clients {
            /// In the order of their slots.
            clients: Vec<ClientInfo>,
            /// Cursor for the next page; `None` after the last.
            next: Option<u32>,
        }
        /// A page of segments.
        152 => Segments {
            /// In the order of their owners' slots and of their numbers.
            segments: Vec<SegmentInfo>,
            /// Cursor for the next page; `None` after the last.
            next: Option<u64>,
        }
        /// A page of the places of objects.
        153 => Locations {
            /// In the order of their owners' slots.
            locations: Vec<LocationInfo>,
            /// Cursor for the next page; `None` after the last.
            next: Option<u64>,
        }
        /// A client whose events can be read. Descriptor: its control memory, read-only.
        151 => Recorder {
            /// The client. Its epoch leads to the next one.
            owner: OwnerId,
            /// Its process; 0 where the daemon cannot see it.
            pid: u32,
            /// Its name for people.
            label: String,
            /// Whether it has died.
            dead: bool,
        }
        /// A channel is open. Descriptors: this client's end, writable; the other end, read-only.
        140 => Connected {
            /// The channel's number in later messages.
            channel: u64,
            /// Bytes of each ring.
            data_bytes: u32,
        }
        /// A file to spill into. Descriptor: the file, to read and write. It has no name.
        141 => SpillFileMade {
            /// Number among the client's files; never used twice.
            file: u32,
        }
        /// A file to read a spilled object from. Descriptor: the file, to read.
        142 => SpillFileOpened {
            /// Byte offset of the object's spill record.
            offset: u64,
        }
    }
}
