//! The daemon, as this client sees it: the [`connection`] to it, and the descriptors that are kept for the next one
//! ([`escrow`]).

pub(crate) mod connection;
pub(crate) mod escrow;
