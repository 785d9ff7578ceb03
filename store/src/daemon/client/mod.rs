//! Requests that are not about memory, names or spilled objects. Each module is a few functions on the
//! [registry](crate::daemon::registry), which has all the state.

pub(crate) mod attach;
pub(crate) mod channels;
pub(crate) mod hello;
pub(crate) mod list;
pub(crate) mod quota;
