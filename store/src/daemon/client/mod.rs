//! A client of the daemon: its record, and what it asks for that is neither memory nor a name.

pub(crate) mod attach;
pub(crate) mod channels;
pub(crate) mod list;
pub(crate) mod quota;
pub(crate) mod record;
