//! The rivals of Mobula. Each does a row's work in its own way, by its own means.

pub(crate) mod iceoryx;
pub(crate) mod ipc;
pub(crate) mod lmdb;
pub(crate) mod plasma;
pub(crate) mod process;
pub(crate) mod python;
