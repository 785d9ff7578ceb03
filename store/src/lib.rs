//! The daemon of Mobula: it leases memory to the processes of one user, passes descriptors between them, notices when
//! one dies, and keeps a dead process's objects that others use. It knows objects only as entries of tables; it never
//! looks into their bytes, and takes no part while they are written, sealed, pinned and read.
//!
//! ```no_run
//! use mobula_store::{Config, Server};
//!
//! # fn main() -> Result<(), Box<dyn std::error::Error>> {
//! let server = Server::bind(Config::new("/run/user/1000/mobula.sock", 2 << 30))?;
//! let stopper = server.stopper(); // for a signal handler's thread, say
//! server.run()?;
//! # Ok(())
//! # }
//! ```
//!
//! From the outside to the inside:
//!
//! * [`Config`] has every limit; [`StartError`] says why a store does not start;
//! * `server` is the event loop: in it, `endpoint` takes the socket's path, `credentials` tells which process connects,
//!   and `connection` queues messages;
//! * `daemon` carries out requests and deaths on shared `memory`;
//! * `core` decides, without input or output;
//! * `command` (a feature) is the store as a program. [`prepare_process`] sets the limits and signals of its process,
//!   and [`machine`] finds the resources of the machine.

#![warn(missing_debug_implementations)]

#[cfg(feature = "command")]
pub mod command;
mod config;
mod core;
mod daemon;
mod error;
pub mod machine;
mod memory;
mod pidfd;
mod process;
mod server;

pub use config::Config;
pub use error::{RunError, StartError};
pub use process::{prepare_process, raise_descriptor_limit};
pub use server::{Server, Stopper};
