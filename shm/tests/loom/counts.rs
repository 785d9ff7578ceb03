//! The counts of one process (`client/src/counting/count.rs`, included as it is): a thread that finds a reference
//! counted can rely on the pin, and no thread uses an object that is being freed.
//!
//! The references of a reader follow `client/src/reader/slot.rs` (`Slot::count_first`, `Slot::release_last`). Those of
//! an owner follow `client/src/owner/references.rs` (`acquire_first`, `release_last`) and `reclaim.rs` (`free_batch`).

#[path = "../../../client/src/counting/count.rs"]
#[expect(dead_code, reason = "an object has more kinds of references than a model")]
mod real;

use std::os::fd::AsFd;
use std::sync::Arc;

use loom::thread::spawn;
use mobula_shm::model::File;
use mobula_shm::model::atomics::{Access, Kind};
use mobula_shm::pins::{HELD, MAPPED, PinReader, PinWriter};
use mobula_shm::sync::Ordering::{self, Acquire, Relaxed, Release};

use self::real::{Count, Kind as ReferenceKind, Unused};
use crate::{Bytes, fails, holds};

/// An object of another client, as the threads of a reader use it.
struct Pinned {
    count: Count,
    file: File,
    pins: PinWriter,
}

impl Pinned {
    fn new() -> Arc<Self> {
        let file = File::pins("pins", 2);
        let pins = PinWriter::map(file.as_fd(), 0).unwrap();
        Arc::new(Self { count: Count::default(), file, pins })
    }

    fn acquire(&self, kind: ReferenceKind) {
        if self.count.add(kind) {
            return;
        }
        let mut busy = self.count.lock();
        busy.add(kind).unwrap();
        if busy.pin_bits() != busy.pin_bits_before() {
            self.pins.set(1, busy.pin_bits());
        }
        busy.finish();
    }

    fn release(&self, kind: ReferenceKind) {
        if self.count.sub(kind) {
            return;
        }
        let mut busy = self.count.lock();
        busy.sub(kind);
        if busy.is_unused() {
            self.pins.clear(1);
        } else if busy.pin_bits() != busy.pin_bits_before() {
            self.pins.change(1, busy.pin_bits());
        }
        busy.finish();
    }

    fn pin(&self) -> u32 {
        PinReader::map(self.file.as_fd(), 0).unwrap().get(1)
    }
}

fn threads_of_a_reader() {
    let pinned = Pinned::new();
    let other = {
        let pinned = pinned.clone();
        spawn(move || {
            pinned.acquire(ReferenceKind::Borrow);
            assert_eq!(pinned.pin() & MAPPED, MAPPED, "borrowed without a pin");
            pinned.release(ReferenceKind::Borrow);
        })
    };
    pinned.acquire(ReferenceKind::Handle);
    pinned.acquire(ReferenceKind::Borrow);
    pinned.release(ReferenceKind::Handle);
    assert_eq!(pinned.pin(), HELD | MAPPED, "borrowed without a pin");
    pinned.release(ReferenceKind::Borrow);
    other.join().unwrap();
    assert_eq!(pinned.pin(), 0, "a pin is left behind");
    assert!(pinned.count.lock_known().is_none(), "a use is left behind");
}

#[test]
fn what_is_counted_is_pinned() {
    holds("counts, pins", threads_of_a_reader);
}

fn is_count(access: Access) -> bool {
    access.file.is_empty()
}

/// Counts are changed with one ordering on the way in, and another on the way out.
fn ways_in_are_relaxed(access: Access) -> Ordering {
    match access.kind {
        Kind::Update if is_count(access) && access.ordering == Acquire => Relaxed,
        _ => access.ordering,
    }
}

fn ways_out_are_relaxed(access: Access) -> Ordering {
    match access.kind {
        Kind::Store if is_count(access) => Relaxed,
        Kind::Update if is_count(access) && access.ordering == Release => Relaxed,
        _ => access.ordering,
    }
}

/// Breaks: a thread finds the count above zero, and borrows bytes that no thread has pinned yet.
#[test]
fn planted_a_count_that_does_not_pass_the_pin_on() {
    fails("count relaxed on the way in", "pin", ways_in_are_relaxed, threads_of_a_reader);
    fails("count relaxed on the way out", "pin", ways_out_are_relaxed, threads_of_a_reader);
}

/// An object of this client, which no thread uses, and which is in the retire list.
struct Queued {
    count: Count,
    bytes: Bytes,
}

impl Queued {
    fn new() -> Arc<Self> {
        let queued = Self { count: Count::default(), bytes: Bytes::new(5) };
        queued.count.begin(ReferenceKind::Handle);
        queued.release();
        Arc::new(queued)
    }

    /// Whether the object is there to be used.
    fn acquire(&self) -> bool {
        if self.count.add(ReferenceKind::Handle) {
            return true;
        }
        let Some(mut busy) = self.count.lock_known() else { return false };
        busy.add(ReferenceKind::Handle).unwrap();
        busy.finish();
        true
    }

    fn release(&self) {
        if self.count.sub(ReferenceKind::Handle) {
            return;
        }
        let mut busy = self.count.lock();
        busy.sub(ReferenceKind::Handle);
        if busy.is_unused() {
            busy.queue();
        }
        busy.finish();
    }

    /// Frees the object and uses its memory again, unless it is in use.
    fn free(&self) {
        if let Unused::Locked(mut busy) = self.count.lock_unused() {
            self.bytes.write(6);
            busy.unqueue();
            busy.finish();
        }
    }
}

fn users_against_the_owner() {
    let queued = Queued::new();
    let users = [(); 2].map(|()| {
        let queued = queued.clone();
        spawn(move || {
            if queued.acquire() {
                assert_eq!(queued.bytes.read(), 5, "used after it was freed");
                queued.release();
            }
        })
    });
    queued.free();
    users.into_iter().for_each(|user| user.join().unwrap());
}

#[test]
fn what_is_being_freed_is_used_by_nobody() {
    holds("counts, freeing", users_against_the_owner);
}

/// Breaks: the memory is written again while the last user still reads it.
#[test]
fn planted_a_count_that_does_not_pass_the_reads_on() {
    fails(
        "last use relaxed on the way in",
        "Causality violation",
        ways_in_are_relaxed,
        users_against_the_owner,
    );
    fails(
        "last use relaxed on the way out",
        "Causality violation",
        ways_out_are_relaxed,
        users_against_the_owner,
    );
}
