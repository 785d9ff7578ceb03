//! Pins: words that say which client uses which object, and the handshake by which an owner frees objects that no
//! client uses.
//!
//! Each process has pins in its [control memory](crate::control), which it alone writes: an extent for each owner, in
//! the order of their slots, and in it a word for each entry. The daemon allocates the pages when a client attaches to
//! an owner. Finding a word needs no directory. An owner maps the extent that concerns it of every reader.
//!
//! In the word of the first entry of each group of 1024, above that entry's own bits, the client counts the pins of the
//! group: up before it sets one, down after it took one back. So an owner sees with one look that a reader pins none of
//! the objects of a group. A client that dies in between leaves a count that is too high, which costs looks.
//!
//! # The handshake
//!
//! ```text
//! reader                                 owner
//! pin.store(HELD)                        word.store(gen|Dying)
//! fence(SeqCst)                          fence(SeqCst)
//! word.load() == gen|Sealed?             any pin.load() != 0?
//! ```
//! This is Dekker's algorithm: at least one of the two loads sees the other side's store. One of the two fences comes
//! first in the one order of all `SeqCst` fences, and a store before that fence is seen after the other fence.
//! Either the reader finds the entry `Dying` and takes its pin back, or the owner finds the pin and puts `Sealed` back.
//! Without one of the fences both could pass. The loads themselves are relaxed, with an acquire fence behind them: each
//! side has the other's word [mapped read-only](crate::mapping).
//!
//! An owner that frees many entries at once ([`free_together`]) stores `Dying` to all of them and then passes one
//! fence.
//!
//! A group's count takes part as a pin does: it lies before the same fence. An owner that sees no count, or then no
//! pin, has its fence before the reader's.
//!
//! Spilling is the same handshake for other bits: an object may be evicted from memory ([`try_spill`]) while no client
//! has it [`MAPPED`], although many may have it [`HELD`]. So a reader that wants the bytes sets `MAPPED` first, and
//! believes the word only afterwards; its knowledge from other pins may be out of date.
//!
//! Compaction is the same handshake again ([`try_compact`]): the object moves to another position in memory, and no
//! client may have its bytes mapped.
//!
//! An owner's pins on its own entries take no part: it does not free objects that it uses itself.
//!
//! An unknown reader would break the handshake. So the owner also checks, between its fence and its look at the pins,
//! that it knows all its readers: the daemon counts them in its [directory](crate::directory) *before* it tells a new
//! reader that it may pin.
//!
//! loom explores this code, in `shm/tests/loom`:
//!
//! - `handshake.rs`: pin against free, of one entry and of many; a group's count under two threads; a reader that
//!   joins; a reference that is handed on;
//! - `spilling.rs`: borrowed bytes stay in memory;
//! - `compaction.rs`: borrowed bytes do not move;
//! - `takeover.rs`: the owner dies at any store.

pub use crate::control::{PIN_BYTES, PIN_EXTENT_BYTES};

mod handshake;
mod pages;

pub use handshake::{Candidate, free_together, try_compact, try_free, try_spill};
pub use pages::{HELD, MAPPED, PinReader, PinWriter, WAITING};
