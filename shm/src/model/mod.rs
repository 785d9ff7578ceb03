//! The stand-in for the machine when a model checker runs the code (`--cfg mobula_loom`, `shm/tests/loom`).
//!
//! [`atomics`] has loom's atomics, with what loom leaves out, and with switches by which a test weakens an access or
//! kills a process. [`File`] is a memory that several mappings show; [`mapping`](crate::mapping) has the same face as
//! in an ordinary build.

pub mod atomics;
mod file;

pub use file::File;
pub(crate) use file::Words;
