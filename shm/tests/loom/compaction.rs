//! Compaction: borrowed bytes stay where they are, a reader finds an object in its old place or in its new one, and an
//! owner that dies leaves the object whole in one of them.
//!
//! The models follow this code:
//!
//! * the owner: `client/src/owner/compact.rs` (`move_object`);
//! * the reader: `client/src/reader/` (`Peer::settled_state`, `Slot::locate`), with an object that it already holds;
//! * the daemon: `store/src/daemon/orphans/takeover.rs` (`take_slice`).
//!
//! The owner is killed before each of its stores, one after the other.

use std::os::fd::AsFd;
use std::sync::Arc;

use loom::thread::spawn;
use mobula_shm::model::File;
use mobula_shm::model::atomics::{Access, Kind, killed_after};
use mobula_shm::pins::{HELD, MAPPED, PinReader, PinWriter, try_compact};
use mobula_shm::sync::Ordering::{Acquire, Relaxed, Release, SeqCst};
use mobula_shm::sync::yield_now;
use mobula_shm::table::{Location, State, TableReader, TableWriter, Word};

use crate::{Bytes, as_it_is, fails, holds, holds_wherever_it_is_killed};

const GENERATION: u32 = 7;
const OBJECT: u32 = 1;
const ENTRIES: u32 = 2;
/// The content of the object.
const CONTENT: u64 = 70;
/// The content of other objects that later lie in its old place.
const OTHER: u64 = 80;

/// An owner's one object, which a reader holds.
struct World {
    table: File,
    pins: File,
    /// The two places in which the object can lie.
    memory: [Bytes; 2],
}

impl World {
    fn new() -> Arc<Self> {
        let world = Self {
            table: File::table("table", ENTRIES),
            pins: File::pins("pins", ENTRIES),
            memory: [Bytes::new(CONTENT), Bytes::new(OTHER)],
        };
        let table = world.table_writer();
        table.fill(OBJECT, &location(0));
        table.word(OBJECT).store(sealed().bits(), Release);
        Arc::new(world)
    }

    fn table_writer(&self) -> TableWriter {
        TableWriter::map(self.table.as_fd()).unwrap()
    }

    fn table_reader(&self) -> TableReader {
        TableReader::map(self.table.as_fd()).unwrap()
    }

    fn pin_writer(&self) -> PinWriter {
        PinWriter::map(self.pins.as_fd(), 0).unwrap()
    }

    fn pin_reader(&self) -> PinReader {
        PinReader::map(self.pins.as_fd(), 0).unwrap()
    }

    // ---- the owner ----

    /// Moves the object to the other place if no reader borrows its bytes. Then it writes other bytes into the place
    /// that is free.
    fn move_to(&self, place: u32) -> bool {
        let (table, pins) = (self.table_writer(), self.pin_reader());
        self.memory[place as usize].write(CONTENT);
        let Location { segment, offset, .. } = location(place);
        let moved = try_compact(
            table.word(OBJECT),
            GENERATION,
            || pins.get(OBJECT) & MAPPED != 0,
            || table.set_place(OBJECT, segment, offset),
        );
        let free = if moved { 1 - place } else { place };
        self.memory[free as usize].write(OTHER);
        moved
    }

    fn move_there_and_back(&self) {
        if self.move_to(1) {
            self.move_to(0);
        }
    }

    // ---- the reader ----

    /// Borrows the bytes.
    fn read(&self, pins: &PinWriter) {
        let table = self.table_reader();
        pins.set(OBJECT, HELD | MAPPED);
        assert_eq!(settled(&table), sealed());
        self.read_where_it_lies(&table);
        pins.change(OBJECT, HELD);
    }

    fn read_where_it_lies(&self, table: &TableReader) {
        let found = table.location(OBJECT);
        assert_eq!(found, location(found.segment), "a location in pieces");
        assert_eq!(self.memory[found.segment as usize].read(), CONTENT, "another object's bytes");
    }

    // ---- the daemon ----

    /// Becomes the writer of the table, and checks that the held object is there.
    fn take_over(&self) {
        let entry = self.table_writer();
        let state = Word::from_bits(entry.word(OBJECT).load(Acquire)).state();
        assert!(matches!(state, Some(State::Sealed | State::Dying)), "the object is lost: {state:?}");
        entry.word(OBJECT).store(sealed().bits(), Release);
        self.read_where_it_lies(&self.table_reader());
    }
}

fn sealed() -> Word {
    Word::new(GENERATION, State::Sealed)
}

/// The places differ in segment and offset.
fn location(place: u32) -> Location {
    Location { segment: place, offset: u64::from(1 - place) * 64, length: 8, format: 1, references: 2 }
}

/// As `Peer::settled_state`.
fn settled(table: &TableReader) -> Word {
    loop {
        match table.word(OBJECT) {
            word if word.state() == Some(State::Dying) => yield_now(),
            word => return word,
        }
    }
}

fn is_state_word(access: Access) -> bool {
    access.file == "table" && access.offset % 64 == 0
}

/// A reader that wants the bytes of an object that it holds, while the owner does something.
fn read_while(owner: impl FnOnce(&World)) {
    let world = World::new();
    let pins = world.pin_writer();
    pins.set(OBJECT, HELD);
    let reader = {
        let world = world.clone();
        spawn(move || world.read(&pins))
    };
    owner(&world);
    reader.join().unwrap();
}

#[test]
fn borrowed_bytes_stay_where_they_are() {
    holds("borrow, move", || read_while(|world| _ = world.move_to(1)));
    holds("borrow, move there and back", || read_while(World::move_there_and_back));
}

/// Breaks: neither side sees the other, and the owner writes where the reader reads.
#[test]
fn planted_a_wish_for_bytes_without_its_fence() {
    let weaken = |access: Access| match access.kind {
        Kind::Fence if access.file == "pins" && access.ordering == SeqCst => Relaxed,
        _ => access.ordering,
    };
    fails("wish without fence, moving", "Causality violation", weaken, || {
        read_while(|world| _ = world.move_to(1));
    });
}

/// Breaks: the same, from the owner's side.
#[test]
fn planted_a_move_without_its_fence() {
    let weaken = |access: Access| match access.kind {
        Kind::Fence if is_state_word(access) && access.ordering == SeqCst => Relaxed,
        _ => access.ordering,
    };
    fails("move without fence", "Causality violation", weaken, || {
        read_while(|world| _ = world.move_to(1));
    });
}

/// Breaks: the reader finds the object sealed again before its new place or the bytes in it are there.
#[test]
fn planted_a_relaxed_end() {
    let weaken = |access: Access| match access.kind {
        Kind::Store if access.file == "table" && access.ordering == Release => Relaxed,
        _ => access.ordering,
    };
    fails("relaxed end of a move", "Causality violation", weaken, || {
        read_while(|world| _ = world.move_to(1));
    });
}

/// Breaks: the owner changes the place before it knows whether a reader borrows the bytes.
#[test]
fn planted_a_place_that_changes_too_early() {
    fails("too early", "another object's bytes", as_it_is, || {
        read_while(|world| {
            let (table, pins) = (world.table_writer(), world.pin_reader());
            let Location { segment, offset, .. } = location(1);
            table.set_place(OBJECT, segment, offset);
            let mapped = || pins.get(OBJECT) & MAPPED != 0;
            _ = try_compact(table.word(OBJECT), GENERATION, mapped, || world.memory[1].write(CONTENT));
        });
    });
}

// ---- deaths in between ----

#[test]
fn an_owner_that_dies_leaves_its_object_in_one_of_the_places() {
    holds_wherever_it_is_killed("moving, killed", |stores| {
        let mut killed = false;
        read_while(|world| {
            killed = killed_after(stores, || world.move_there_and_back());
            world.take_over();
        });
        killed
    });
}

/// Breaks: an owner that writes segment and offset one after the other dies between the two.
#[test]
fn planted_a_place_in_two_words() {
    fails("in two words", "a location in pieces", as_it_is, || {
        read_while(|world| {
            killed_after(2, || {
                let (table, pins) = (world.table_writer(), world.pin_reader());
                let mapped = || pins.get(OBJECT) & MAPPED != 0;
                let Location { segment, offset, .. } = location(1);
                world.memory[1].write(CONTENT);
                try_compact(table.word(OBJECT), GENERATION, mapped, || {
                    table.set_place(OBJECT, segment, location(0).offset);
                    table.set_place(OBJECT, segment, offset);
                });
            });
            world.take_over();
        });
    });
}
