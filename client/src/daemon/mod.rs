//! This client's end of the connection to the daemon: requests, notices, and what happens when a daemon is killed.

pub(crate) mod background;
pub(crate) mod connection;
pub(crate) mod reconnect;
