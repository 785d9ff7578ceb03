//! The one place that atomics come from: the processor's, or, under `--cfg mobula_loom`, those of a model checker.
//!
//! Code in which two processes, or two threads, access the same word without a lock takes its atomics, its fences and
//! its short waits from here. So `shm/tests/loom` explores the code itself and not a copy of it. In every ordinary
//! build these are re-exports of the standard library's.

pub use std::sync::atomic::Ordering;

#[cfg(not(mobula_loom))]
pub use std::hint::spin_loop;
#[cfg(not(mobula_loom))]
pub use std::sync::atomic::{AtomicU32, AtomicU64, fence};
#[cfg(not(mobula_loom))]
pub use std::thread::yield_now;

#[cfg(mobula_loom)]
pub use crate::model::atomics::{AtomicU32, AtomicU64, fence, yield_now, yield_now as spin_loop};
