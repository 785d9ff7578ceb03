//! The language of Mobula: what the daemon and its clients call things, and how they say it.
//!
//! * [`advice`]: what to do about errors of the system;
//! * [`id`]: objects and owners;
//! * [`message`]: requests, replies and notices, numbered and laid out by hand;
//! * [`descriptors`] keeps those of this library's own away from standard input and output;
//! * [`socket`]: the socket that carries one message, and the descriptors that belong to it, at a time;
//! * [`size`]: byte sizes as people write them.
//!
//! Decoding trusts nothing: any bytes give a message or a [`message::DecodeError`].

pub mod advice;
pub mod descriptors;
pub mod id;
pub mod message;
mod refusal;
pub mod size;
pub mod socket;
mod wire;

/// Version of messages and of the shared structures; both sides must have the same.
pub const VERSION: u16 = 4;
