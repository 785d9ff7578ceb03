//! Counts of references and of users. Nothing here knows an object or a client.
//!
//! | file | owns |
//! |---|---|
//! | [`count`] | the references to one object, as one word |
//! | [`lazy`] | a table with a place for each entry of an owner, made where it is used |
//! | [`occupancy`] | a place that one thing after the other occupies while it has users |
//! | [`raw`] | one reference, as plain data |
//! | [`keep_alive`] | how a part of a client keeps all of it |

pub(crate) mod count;
pub(crate) mod keep_alive;
pub(crate) mod lazy;
pub(crate) mod occupancy;
pub(crate) mod raw;
