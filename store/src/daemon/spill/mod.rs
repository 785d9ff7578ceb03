//! Spilling: the files, and the requests that wait for spilled objects.

pub(crate) mod disk;
pub(crate) mod files;
