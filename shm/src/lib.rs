//! The mechanism of Mobula: memory that several processes see, and the few structures laid out in it.
//!
//! This crate knows nothing of messages, daemons or tasks. It owns nearly all of the project's unsafe code and
//! offers it behind safe types:
//!
//! * [`memory`] makes and seals the memory, [`mapping`] maps it into an address space;
//! * [`control`] is the memory that each process writes for the others. It contains [`table`], a client's objects;
//!   [`pins`], which say which client uses which object; [`directory`] and [`names`], which are the daemon's. Together
//!   they are the path of an object. [`recorder`] has the events of each process, for observers;
//! * [`spill`] writes and reads objects in files while memory is short;
//! * [`ring`] and [`bell`] carry records between two processes and wake the one that sleeps; they are the path of
//!   a task;
//! * [`copy`] copies large objects into the memory, and copies bytes that must be checked out of it;
//! * [`clock`] is the one clock of all events;
//! * [`fork`] notices that a process is a forked child;
//! * [`heap`] gives back free pages of the process's own heap;
//! * [`failpoints`] are named points in the code where tests kill processes on purpose, to show that nothing is lost;
//! * [`sync`] provides the atomics. Under `--cfg mobula_loom` they come from a model checker, and `model` stands in for
//!   the rest of the machine: `shm/tests/loom` proves the statements about orderings in this crate.
//!
//! # Rules that hold in every structure
//!
//! 1. Every shared page has one writer, and every operation commits with one atomic store. The single exception is
//!    an entry's state word, which the daemon takes over when its owner has died.
//! 2. A value that another process can write is loaded once into a local, checked against sizes known locally, then
//!    used.
//! 3. Addresses never cross processes: structures hold indices, offsets and lengths.

#![warn(missing_debug_implementations)]

#[cfg(not(target_os = "linux"))]
compile_error!("Mobula needs Linux: sealed memfds, eventfds, pidfds and wiping pages on fork");

pub mod bell;
pub mod clock;
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
pub mod prefetch;
pub mod recorder;
pub mod ring;
pub mod spill;
pub mod sync;
pub mod table;
