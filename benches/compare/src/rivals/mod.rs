//! What Mobula is compared with. Each in its own way, by its own means, does what a row asks for.

pub(crate) mod iceoryx;
pub(crate) mod ipc;
pub(crate) mod lmdb;
pub(crate) mod plasma;
pub(crate) mod ray;
