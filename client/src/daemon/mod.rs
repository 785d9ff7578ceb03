//! The daemon, as this client sees it: the [`connection`] to it, the messages on their way ([`traffic`]), and the
//! descriptors that are kept for the next daemon ([`escrow`]).

pub(crate) mod connection;
pub(crate) mod escrow;
mod traffic;
