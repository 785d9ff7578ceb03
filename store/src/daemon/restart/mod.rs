//! Restart: a daemon takes the place of one that was killed. It [collects](collect) the descriptors that the clients
//! have, and [rebuilds](rebuild) its state from them.

pub(crate) mod collect;
pub(crate) mod rebuild;
