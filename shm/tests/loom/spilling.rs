//! Evicting and restoring: borrowed bytes stay where they are, and an owner that dies leaves its object whole, in
//! memory or in a file.
//!
//! The models follow this code:
//!
//! * the owner: `client/src/owner/` (`evict`, `restore`, `free_batch`);
//! * the reader: `client/src/reader/` (`Peer::settled_state`, `Slot::locate`), with an object that it already holds;
//! * the daemon: `store/src/daemon/orphans/takeover.rs` (`take_slice`).
//!
//! The owner is killed before each of its stores, one after the other.

use std::os::fd::AsFd;
use std::sync::Arc;

use loom::thread::spawn;
use mobula_shm::model::File;
use mobula_shm::model::atomics::{Access, Kind, killed_after};
use mobula_shm::pins::{Candidate, HELD, MAPPED, PinReader, PinWriter, free_together, try_spill};
use mobula_shm::spill::SpillLocation;
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
    /// The memory in which it lies at first, and the memory into which it is restored.
    memory: [Bytes; 2],
    /// Its spill record, which is written before the model begins.
    record: Bytes,
}

impl World {
    fn new() -> Arc<Self> {
        let world = Self {
            table: File::table("table", ENTRIES),
            pins: File::pins("pins", ENTRIES),
            memory: [Bytes::new(CONTENT), Bytes::new(OTHER)],
            record: Bytes::new(CONTENT),
        };
        let table = world.table_writer();
        table.fill(OBJECT, &location(0));
        table.word(OBJECT).store(word(State::Sealed).bits(), Release);
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

    /// Evicts the object if no reader borrows its bytes, and writes other bytes in its old memory.
    fn spill(&self) -> bool {
        let (table, pins) = (self.table_writer(), self.pin_reader());
        let spilled = try_spill(
            table.word(OBJECT),
            GENERATION,
            || pins.get(OBJECT) & MAPPED != 0,
            || table.set_spill_location(OBJECT, Some(place())),
        );
        if spilled {
            self.memory[0].write(OTHER);
        }
        spilled
    }

    /// Reads the record, and gives the object other memory. Afterwards the record belongs to no object.
    fn restore(&self) {
        let table = self.table_writer();
        self.memory[1].write(self.record.read());
        table.fill(OBJECT, &location(1));
        table.word(OBJECT).store(word(State::Sealed).bits(), Release);
        table.set_spill_location(OBJECT, None);
    }

    fn spill_and_restore(&self) {
        if self.spill() {
            self.restore();
        }
    }

    /// Frees the object, in memory or in the file, if no reader holds it.
    fn spill_and_free(&self) {
        let state = if self.spill() { State::Spilled } else { State::Sealed };
        let (table, pins) = (self.table_writer(), self.pin_reader());
        let mut candidate =
            [Candidate { index: OBJECT, word: table.word(OBJECT), from: word(state), held: false }];
        free_together(&mut candidate, |candidates| candidates[0].held = pins.get(OBJECT) != 0);
        if !candidate[0].held {
            table.set_spill_location(OBJECT, None);
            self.record.write(OTHER);
        }
    }

    // ---- the reader ----

    /// Borrows the bytes if they are in memory.
    fn read(&self, pins: &PinWriter) {
        let table = self.table_reader();
        pins.set(OBJECT, HELD | MAPPED);
        if settled(&table) == word(State::Sealed) {
            self.read_where_it_lies(&table);
        }
        pins.change(OBJECT, HELD);
    }

    fn read_where_it_lies(&self, table: &TableReader) {
        let segment = table.location(OBJECT).segment;
        assert_eq!(table.location(OBJECT), location(segment), "a location in pieces");
        assert_eq!(self.memory[segment as usize].read(), CONTENT, "another object's bytes");
    }

    // ---- the daemon ----

    /// Becomes the writer of the table, and checks that the held object is there.
    fn take_over(&self) {
        let (table, pins) = (self.table_writer(), self.pin_reader());
        let entry = table.word(OBJECT);
        let state = Word::from_bits(entry.load(Acquire)).state().expect("nobody writes such a word");
        match (state, table.spill_location(OBJECT)) {
            (State::Spilled | State::Dying, Some(found)) => {
                entry.store(word(State::Spilled).bits(), Release);
                assert_eq!(found, place(), "another object's record");
                assert_eq!(self.record.read(), CONTENT, "a record in pieces");
                // The segment is retired, and so are its bytes.
                self.memory[0].write(OTHER);
            }
            (State::Sealed | State::Dying, _) => {
                entry.store(word(State::Sealed).bits(), Release);
                table.set_spill_location(OBJECT, None);
                // The file is discarded.
                self.record.write(OTHER);
                self.read_where_it_lies(&self.table_reader());
            }
            (State::Free, _) => assert_eq!(pins.get(OBJECT), 0, "an object that is held was freed"),
            found => panic!("an object that is held was lost: {found:?}"),
        }
    }
}

fn word(state: State) -> Word {
    Word::new(GENERATION, state)
}

fn location(segment: u32) -> Location {
    let bytes = u64::from(segment);
    Location { segment, offset: bytes * 64, length: bytes, format: segment, references: segment }
}

fn place() -> SpillLocation {
    SpillLocation::new(3, 0).expect("a place")
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

// ---- borrowed, or in a file ----

#[test]
fn borrowed_bytes_stay_where_they_are() {
    holds("borrow, spill", || read_while(|world| _ = world.spill()));
    holds("borrow, spill and restore", || read_while(World::spill_and_restore));
}

/// Breaks: neither side sees the other, and the owner overwrites bytes that the reader borrows.
#[test]
fn planted_a_wish_for_bytes_without_its_fence() {
    let weaken = |access: Access| match access.kind {
        Kind::Fence if access.file == "pins" && access.ordering == SeqCst => Relaxed,
        _ => access.ordering,
    };
    fails("wish without fence", "Causality violation", weaken, || read_while(|world| _ = world.spill()));
}

/// Breaks: the same, from the owner's side.
#[test]
fn planted_a_spilling_without_its_fence() {
    let weaken = |access: Access| match access.kind {
        Kind::Fence if is_state_word(access) && access.ordering == SeqCst => Relaxed,
        _ => access.ordering,
    };
    fails("spilling without fence", "Causality violation", weaken, || {
        read_while(|world| _ = world.spill());
    });
}

/// Breaks: the reader loads the word while it only holds the object. The word is out of date when the reader borrows
/// the bytes.
#[test]
fn planted_a_reader_that_believes_what_it_knew() {
    fails("believes what it knew", "Causality violation", as_it_is, || {
        let world = World::new();
        let reader = {
            let world = world.clone();
            spawn(move || {
                let (pins, table) = (world.pin_writer(), world.table_reader());
                pins.set(OBJECT, HELD);
                let known = settled(&table);
                pins.set(OBJECT, HELD | MAPPED);
                if known == word(State::Sealed) {
                    world.read_where_it_lies(&table);
                }
            })
        };
        world.spill();
        reader.join().unwrap();
    });
}

/// Breaks: the reader finds the object sealed again before its location or its bytes are there.
#[test]
fn planted_a_relaxed_restore() {
    let weaken = |access: Access| match access.kind {
        Kind::Store if is_state_word(access) && access.ordering == Release => Relaxed,
        _ => access.ordering,
    };
    fails("relaxed restore", "Causality violation", weaken, || read_while(World::spill_and_restore));
}

// ---- deaths in between ----

type Owner = fn(&World);

/// Runs an owner that is killed after so many stores, its reader, and the daemon. Returns whether the owner was killed.
fn taken_over(owner: Owner, stores: usize) -> bool {
    let mut killed = false;
    read_while(|world| {
        killed = killed_after(stores, || owner(world));
        world.take_over();
    });
    killed
}

#[test]
fn an_owner_that_dies_leaves_its_object_in_memory_or_in_a_file() {
    let (back, free): (Owner, Owner) = (World::spill_and_restore, World::spill_and_free);
    holds_wherever_it_is_killed("spilling, killed", move |stores| taken_over(back, stores));
    holds_wherever_it_is_killed("spilling and freeing, killed", move |stores| taken_over(free, stores));
}

/// Breaks: an owner that dies in between leaves an object in a file, and its table does not say where.
#[test]
fn planted_a_place_that_is_noted_too_late() {
    fails("noted too late", "was lost", as_it_is, || {
        let owner: Owner = |world| {
            let (table, pins) = (world.table_writer(), world.pin_reader());
            if try_spill(table.word(OBJECT), GENERATION, || pins.get(OBJECT) & MAPPED != 0, || ()) {
                table.set_spill_location(OBJECT, Some(place()));
            }
        };
        _ = taken_over(owner, 2);
    });
}

/// Breaks: the same, on the way back.
#[test]
fn planted_a_place_that_is_forgotten_too_early() {
    fails("forgotten too early", "was lost", as_it_is, || {
        let owner: Owner = |world| {
            if world.spill() {
                let table = world.table_writer();
                table.set_spill_location(OBJECT, None);
                table.word(OBJECT).store(word(State::Sealed).bits(), Release);
            }
        };
        _ = taken_over(owner, 4);
    });
}
