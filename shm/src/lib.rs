//! The mechanism of Mobula: memory that several processes see, and the few structures laid out in it.
//!
//! This crate knows nothing of messages, daemons or tasks. It owns nearly all of the project's unsafe code and
//! offers it behind safe types:
//!
//! * [`memory`] makes and seals the memory, [`mapping`] maps it into an address space;
//! * [`control`] is the memory that each process writes for the others, and has in it: [`table`], a client's objects;
//!   [`pins`], which say which client uses which object; [`directory`] and [`names`], which are the daemon's. Together
//!   they are the path of an object;
//! * [`spill`] writes and reads objects in files while memory is short;
//! * [`ring`] and [`bell`] carry records between two processes and wake the one that sleeps; they are the path of
//!   a task;
//! * [`copy`] is how large objects get into the memory, and how what must be checked is taken out of it;
//! * [`fork`] notices that a process is a forked child;
//! * [`heap`] gives back free pages of the process's own heap;
//! * [`failpoints`] are the places where processes are killed on purpose, to show that nothing is lost;
//! * [`sync`] is where atomics come from. Under `--cfg mobula_loom` that is a model checker, and `model` stands in for
//!   the rest of the machine: `shm/tests/loom` proves what is said here of orderings.
//!
//! # Rules that hold in every structure
//!
//! 1. Every shared page has one writer, and every operation commits with one atomic store. The single exception is
//!    an entry's state word, which the daemon takes over when its owner has died.
//! 2. What another process can write is loaded once into a local, checked against sizes known locally, then used.
//! 3. Addresses never cross processes: structures hold indices, offsets and lengths.

#[cfg(not(target_os = "linux"))]
compile_error!("Mobula stands on what Linux has: sealed memfds, eventfds, pidfds and wiping pages on fork");

pub mod bell;
pub mod control;
pub mod copy;
pub mod directory;
pub mod failpoints;
pub mod fork;
pub mod heap;
pub mod location;
#[cfg(not(mobula_loom))]
pub mod mapping;
#[cfg(mobula_loom)]
#[path = "model/mapping.rs"]
pub mod mapping;
pub mod memory;
#[cfg(mobula_loom)]
pub mod model;
pub mod names;
pub mod page;
pub mod pins;
pub mod ring;
pub mod spill;
pub mod sync;
pub mod table;
