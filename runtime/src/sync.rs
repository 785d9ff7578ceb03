//! The atomics and locks of the parts that a model checker explores. `shm/tests/loom` includes the files of these parts
//! as they are, with a module of this name that has the checker's. In every build of this crate they are the ordinary
//! ones.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};

pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
