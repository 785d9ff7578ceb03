//! The atomics, locks and thread-local values of the files that a model checker explores. `shm/tests/loom` includes
//! these files unchanged, with a module of this name that contains the checker's types. In every build of this crate
//! they are the ordinary types.

pub(crate) use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, AtomicUsize, Ordering};
pub(crate) use std::thread_local;

pub(crate) use parking_lot::{Condvar, Mutex, MutexGuard};
