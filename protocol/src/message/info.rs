//! The rows of listings: names, objects, clients and totals, as replies carry them and as programs print them.
//!
//! They implement `Serialize` for the tools of people, such as `mobula status --json`: ids are text there, and names
//! are lists of bytes.

use std::fmt;

use serde::{Serialize, Serializer};

use crate::id::{ObjectId, OwnerId};
use crate::message::error::DecodeError;
use crate::message::field::{Field, Shown};

/// Declares structs that are fields of messages.
macro_rules! infos {
    ($($(#[$doc:meta])* $vis:vis struct $name:ident {
        $($(#[$field_doc:meta])* $field:ident: $type:ty,)*
    })*) => {$(
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Serialize)]
        #[non_exhaustive]
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

infos! {
    /// A name and its object.
    pub struct NameInfo {
        /// 1 to [`NAME_BYTES_MAX`](super::NAME_BYTES_MAX) bytes.
        name: Vec<u8>,
        /// The object that the name keeps.
        #[serde(serialize_with = "as_text")]
        object: ObjectId,
    }

    /// A name that was given or removed.
    pub struct NameChange {
        /// 1 to [`NAME_BYTES_MAX`](super::NAME_BYTES_MAX) bytes.
        name: Vec<u8>,
        /// The object that has got the name, as it was then; `None`: the name was removed.
        object: Option<ObjectInfo>,
    }

    /// An object as `list` shows it.
    pub struct ObjectInfo {
        /// The object's id.
        #[serde(serialize_with = "as_text")]
        object: ObjectId,
        /// Bytes of its payload.
        bytes: u64,
        /// The payload's format tag, which its writer has given.
        format: u32,
        /// Clients that hold it, its owner included.
        holders: u32,
        /// Whether a name keeps it.
        named: bool,
        /// Whether it is still a promise.
        promised: bool,
        /// Whether its bytes are in a spill file.
        spilled: bool,
    }

    /// A segment of the store's memory.
    pub struct SegmentInfo {
        /// The client that puts objects in it.
        #[serde(serialize_with = "as_text")]
        owner: OwnerId,
        /// Its number among the owner's segments.
        segment: u32,
        /// Its length.
        bytes: u64,
        /// Bytes of its pages: less than its length once the owner has given pages back.
        page_bytes: u64,
        /// Other clients that have it mapped.
        readers: u32,
        /// Whether its owner has died, and objects remain in it.
        orphaned: bool,
        /// Whether it has no objects, and exists only because clients have it mapped.
        retired: bool,
    }

    /// The place of an object in memory.
    pub struct LocationInfo {
        /// The client that made it.
        #[serde(serialize_with = "as_text")]
        owner: OwnerId,
        /// The number of its segment, as the owner reports it.
        segment: u32,
        /// Its offset in the segment, as the owner reports it.
        offset: u64,
        /// Bytes of its payload.
        bytes: u64,
    }

    /// A client that holds an object.
    pub struct HolderInfo {
        /// The object's id.
        #[serde(serialize_with = "as_text")]
        object: ObjectId,
        /// The client.
        #[serde(serialize_with = "as_text")]
        client: OwnerId,
        /// Whether it may use the object's bytes; if not, it has only a handle.
        mapped: bool,
    }

    /// An object that refers to another, and keeps it.
    pub struct ReferenceInfo {
        /// The object that refers.
        #[serde(serialize_with = "as_text")]
        object: ObjectId,
        /// The object that is kept.
        #[serde(serialize_with = "as_text")]
        refers_to: ObjectId,
    }

    /// The store as a whole.
    #[derive(Default)]
    pub struct Totals {
        /// Bytes that may be leased in all.
        capacity_bytes: u64,
        /// Bytes of segments that are leased to living clients.
        leased_bytes: u64,
        /// Bytes of segments in which orphans lie.
        orphaned_bytes: u64,
        /// Bytes of segments that were given back, and that a client still has mapped.
        retired_bytes: u64,
        /// Bytes that can be leased now.
        free_bytes: u64,
        /// Connected clients.
        clients: u32,
        /// Dead clients of which objects remain.
        dead_clients: u32,
        /// Segments: leased, orphaned or retired.
        segments: u32,
        /// Named objects.
        names: u64,
        /// Channels between clients.
        channels: u32,
        /// Bytes of all spill files.
        spill_bytes: u64,
        /// Number of spill files.
        spill_files: u32,
    }

    /// One client, or a dead one of which objects remain.
    pub struct ClientInfo {
        /// The client's id.
        #[serde(rename = "id", serialize_with = "as_text")]
        owner: OwnerId,
        /// Its process id.
        pid: u32,
        /// The label that it gave itself.
        label: String,
        /// Whether it has died, and the store keeps those of its objects that others use.
        dead: bool,
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
        /// Those of its objects that are spilled.
        spilled_objects: u64,
        /// Bytes of their payloads.
        spilled_bytes: u64,
    }
}

impl NameInfo {
    /// The row of a name.
    ///
    /// ```
    /// # use mobula_protocol::id::{ObjectId, OwnerId};
    /// # use mobula_protocol::message::NameInfo;
    /// let info = NameInfo::new("greeting", ObjectId::new(OwnerId::new(3, 99), 5, 6));
    /// assert_eq!(info.name, b"greeting");
    /// ```
    #[must_use]
    pub fn new(name: impl Into<Vec<u8>>, object: ObjectId) -> Self {
        Self { name: name.into(), object }
    }
}

impl NameChange {
    /// A name that was given to this object, or, if there is no object, was removed.
    ///
    /// ```
    /// # use mobula_protocol::message::NameChange;
    /// let change = NameChange::new("greeting", None);
    /// assert_eq!((&change.name[..], change.object), (&b"greeting"[..], None));
    /// ```
    #[must_use]
    pub fn new(name: impl Into<Vec<u8>>, object: Option<ObjectInfo>) -> Self {
        Self { name: name.into(), object }
    }
}

impl ObjectInfo {
    /// The row of an object without bytes, holders and names. Set the fields that differ.
    ///
    /// ```
    /// # use mobula_protocol::id::{ObjectId, OwnerId};
    /// # use mobula_protocol::message::ObjectInfo;
    /// let mut info = ObjectInfo::new(ObjectId::new(OwnerId::new(3, 99), 5, 6));
    /// info.bytes = 1000;
    /// assert_eq!((info.bytes, info.holders), (1000, 0));
    /// ```
    #[must_use]
    pub fn new(object: ObjectId) -> Self {
        Self { object, bytes: 0, format: 0, holders: 0, named: false, promised: false, spilled: false }
    }
}

impl SegmentInfo {
    /// The row of a segment without bytes and readers. Set the fields that differ.
    ///
    /// ```
    /// # use mobula_protocol::id::OwnerId;
    /// # use mobula_protocol::message::SegmentInfo;
    /// let mut info = SegmentInfo::new(OwnerId::new(3, 99), 1);
    /// info.bytes = 4096;
    /// assert_eq!((info.segment, info.bytes, info.orphaned), (1, 4096, false));
    /// ```
    #[must_use]
    pub fn new(owner: OwnerId, segment: u32) -> Self {
        Self { owner, segment, bytes: 0, page_bytes: 0, readers: 0, orphaned: false, retired: false }
    }
}

impl LocationInfo {
    /// The row of an object at this place.
    ///
    /// ```
    /// # use mobula_protocol::id::OwnerId;
    /// # use mobula_protocol::message::LocationInfo;
    /// let info = LocationInfo::new(OwnerId::new(3, 99), 1, 64, 1000);
    /// assert_eq!((info.segment, info.offset, info.bytes), (1, 64, 1000));
    /// ```
    #[must_use]
    pub fn new(owner: OwnerId, segment: u32, offset: u64, bytes: u64) -> Self {
        Self { owner, segment, offset, bytes }
    }
}

impl HolderInfo {
    /// The row of a client that has a handle to an object, or also uses its bytes.
    #[must_use]
    pub fn new(object: ObjectId, client: OwnerId, mapped: bool) -> Self {
        Self { object, client, mapped }
    }
}

impl ReferenceInfo {
    /// The row of an object that refers to another.
    #[must_use]
    pub fn new(object: ObjectId, refers_to: ObjectId) -> Self {
        Self { object, refers_to }
    }
}

impl ClientInfo {
    /// The row of a living client that has nothing. Set the fields that differ.
    ///
    /// ```
    /// # use mobula_protocol::id::OwnerId;
    /// # use mobula_protocol::message::ClientInfo;
    /// let mut info = ClientInfo::new(OwnerId::new(3, 99));
    /// info.objects = 7;
    /// assert_eq!((info.objects, info.pins, info.dead), (7, 0, false));
    /// ```
    #[must_use]
    pub fn new(owner: OwnerId) -> Self {
        Self {
            owner,
            pid: 0,
            label: String::new(),
            dead: false,
            leased_bytes: 0,
            segments: 0,
            objects: 0,
            object_bytes: 0,
            pins: 0,
            spilled_objects: 0,
            spilled_bytes: 0,
        }
    }
}

fn as_text<S: Serializer>(id: &impl fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}
