//! The protocol of Mobula: the ids that the daemon and its clients share, and the messages that they exchange.
//!
//! * [`id`]: ids of objects and owners;
//! * [`message`]: requests, replies and notices, with numbers and a layout of their own;
//! * [`socket`]: the socket that carries one message at a time, with its descriptors;
//! * [`descriptors`]: keeps the library's own descriptors away from standard input and output;
//! * [`size`]: byte sizes as people write them;
//! * [`advice`]: advice on errors of the system.
//!
//! Decoding trusts nothing: any bytes give a message or a [`message::DecodeError`].

#![warn(missing_debug_implementations)]

pub mod advice;
pub mod descriptors;
pub mod id;
pub mod message;
pub mod size;
pub mod socket;

/// Version of the messages and of the shared structures; both sides must have the same.
pub const VERSION: u16 = 8;
