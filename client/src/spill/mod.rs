//! Objects go to files when the store is full, and come back.
//!
//! | file | does |
//! |---|---|
//! | [`out`] | writes objects into files, and evicts those whose bytes nobody borrows by then |
//! | [`restore`] | brings an object back into memory |
//! | [`copy`] | reads an object into this process's own memory, where it cannot be restored |
//! | [`record`] | writes and reads a spill record |
//! | [`jobs`], [`threads`] | give the first two threads of their own |
//!
//! [`owner::evict`](crate::owner) has the handshake by which an object leaves its memory and comes back.

pub(crate) mod copy;
pub(crate) mod jobs;
mod out;
mod record;
pub(crate) mod restore;
pub(crate) mod threads;
