//! Going on in the place of a daemon that was killed: collecting what its clients have, and rebuilding the daemon from
//! it.

pub(crate) mod collect;
pub(crate) mod rebuild;
