//! How often this process uses what: nothing here knows what an object is, or a client.

pub(crate) mod count;
pub(crate) mod occupancy;
