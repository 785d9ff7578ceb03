//! What an application sees of a Mobula store: objects are put once, in place, and read by every process where they
//! lie.
//!
//! ```no_run
//! use mobula_client::Client;
//!
//! let store = Client::connect("/run/user/1000/mobula/store.sock")?;
//! let object = store.put(b"sealed bytes")?;           // no system call, no message
//! store.publish("greeting", object.id())?;               // one round trip: names are the daemon's
//! // … in another process:
//! let same = store.get(object.id())?;                 // one load, one pin
//! assert_eq!(&same[..], b"sealed bytes");
//! # Ok::<(), mobula_client::ClientError>(())
//! ```
//!
//! The path of an object through this crate: [`Client`] → `owner` (an entry and memory, from `owner::alloc`) →
//! [`ObjectWriter`] → seal → in another process: `reader` (attach once, pin, check) → [`Object`]. Writers, objects and
//! handles are each a counted `reference`. When the store is full, `spill` moves objects to files, and back. The slow paths, where the daemon is asked, all go through `daemon::connection`.

mod channel;
mod client;
mod counting;
mod daemon;
mod error;
mod object;
mod owner;
mod reader;
mod reference;
mod shared;
mod spill;
mod writer;

pub use channel::{Channel, Event, Incoming, Receiver, Sender};
pub use client::{Client, ConnectOptions, Stats};
pub use error::ClientError;
pub use mobula_protocol::advice::explained;
pub use mobula_protocol::descriptors;
pub use mobula_protocol::id::{ObjectId, OwnerId};
pub use mobula_protocol::message::{ClientInfo, NameInfo, ObjectInfo, Refusal, Totals};
pub use mobula_shm::copy::{copy, copy_once};
pub use mobula_shm::heap;
pub use mobula_shm::ring::{Marker, Peek};
pub use object::{Handle, Object, Watch};
pub use writer::{Layout, ObjectWriter, Promise};
