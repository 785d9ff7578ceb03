//! The parts of the operating system that a session needs: child processes and their start, descriptors, the lifeline,
//! output, and the stack; also the connection to the store.

pub(crate) mod child;
pub(crate) mod descriptors;
pub(crate) mod events;
pub(crate) mod lifeline;
pub(crate) mod output;
pub(crate) mod overflow;
pub(crate) mod role;
pub(crate) mod spawner;
pub mod stack;
pub(crate) mod store;
pub(crate) mod termination;
