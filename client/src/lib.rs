//! The client of a Mobula store, as an application uses it: objects are put once, in place, and read by every process
//! where they lie.
//!
//! ```
//! use mobula_client::Client;
//!
//! # let store = mobula_test_store::start();
//! # let socket = store.socket();
//! let client = Client::connect(&socket)?;     // such as /run/user/1000/mobula/store.sock
//! let object = client.put(b"sealed bytes")?;  // no system call, once memory is leased
//! client.publish("greeting", object.id())?;   // one message to the daemon
//!
//! // In another process:
//! let same = client.get(object.id())?;        // one pin, one load
//! assert_eq!(&same[..], b"sealed bytes");
//! # Ok::<(), mobula_client::ClientError>(())
//! ```
//!
//! A setter of [`ConnectOptions`] or [`Layout`] takes the value and returns it. Errors, options and rows of statistics
//! can get more variants and fields.
//!
//! # The path of an object
//!
//! | step | room |
//! |---|---|
//! | [`Client::put`], [`Client::create`] | `client`, `writer`, `draft` |
//! | an entry and memory are reserved | `owner/create`, `owner/entries`, `owner/alloc`; slowly `owner/lease` |
//! | [`ObjectWriter::seal`] stores the state word | `owner/table` |
//! | [`Client::get`] in another process | `client`, `object`, `reference` |
//! | counts a borrow, pins, loads the state word | `reader/peers`, `reader/slot`, `reader/peer` |
//! | finds the bytes; `owner` does these steps for own objects | `reader/slot`, `reader/segment` |
//! | clones and drops | `reference`, `counting/count` |
//! | the last drop lets the owner free it | `owner/references`, `owner/reclaim` |
//!
//! When the store is full, `spill` moves objects to files, and back. Only slow paths ask the daemon, by
//! `daemon/connection`, and the thread in `background` acts on what the daemon sends. `connect` makes the parts of a
//! client, and `shared` lists them.

#![warn(missing_debug_implementations)]

mod background;
mod channel;
mod client;
mod connect;
mod counting;
mod daemon;
mod draft;
mod error;
mod event;
mod located;
mod object;
mod options;
mod origin;
mod owner;
mod promise;
mod reader;
mod recorders;
mod reference;
mod shared;
mod spill;
mod stats;
mod writer;

pub use channel::{Channel, Corrupt, Incoming, PushError, Receiver, Sender};
pub use client::Client;
pub use error::{ClientError, Refusal};
pub use event::{Event, Events};
#[doc(inline)]
pub use mobula_protocol::id::{ObjectId, OwnerId, ParseIdError};
#[doc(hidden)]
pub use mobula_protocol::message::{HolderInfo, ReferenceInfo};
pub use object::{Handle, Object, Watch};
pub use options::ConnectOptions;
pub use promise::Promise;
pub use stats::{ClientInfo, LocationInfo, NameChange, NameInfo, ObjectInfo, SegmentInfo, Stats, Totals};
pub use writer::{Layout, ObjectWriter};

/// Parts for the other crates of Mobula, which stand on this one and not on the crates below it. They can change with
/// every version.
#[doc(hidden)]
pub mod internal {
    pub use mobula_protocol::advice::explained;
    pub use mobula_protocol::descriptors;
    pub use mobula_protocol::size::ByteSize;
    pub use mobula_protocol::socket::Socket;
    pub use mobula_shm::copy::{copied_once, copy, copy_once};
    pub use mobula_shm::heap;
    pub use mobula_shm::{clock, recorder};

    /// The places in the program where objects are made.
    pub mod origin {
        pub use crate::origin::set_place;
    }

    pub use crate::recorders::Recorded;
    pub use mobula_shm::ring::{Marker, Peek};
}
