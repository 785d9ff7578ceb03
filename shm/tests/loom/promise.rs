//! Promises: a client that waits for a promise is rung when the promise is settled, even if the owner has not heard of
//! that client yet.
//!
//! The owner follows `client/src/owner/` (`Table::settle`, `Readers::join`). The waiter follows `client/src/object.rs`
//! and `client/src/event.rs` (`Handle::watch`, then `EventSource::sleep`).

use std::os::fd::AsFd;
use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread::spawn;
use mobula_shm::model::File;
use mobula_shm::model::atomics::{Access, Kind};
use mobula_shm::pins::{HELD, PinReader, PinWriter, WAITING};
use mobula_shm::sync::Ordering::{Acquire, Relaxed, Release, SeqCst};
use mobula_shm::table::{State, TableReader, TableWriter, Word};

use crate::doorbell::Bell;
use crate::{Bytes, as_it_is, fails, holds};

const GENERATION: u32 = 7;

struct Reader {
    pins: PinReader,
    bell: Arc<Bell>,
}

struct World {
    table: File,
    pins: File,
    bell: Arc<Bell>,
    readers: Mutex<Vec<Reader>>,
    bytes: Bytes,
}

impl World {
    fn promised() -> Arc<Self> {
        let world = Self {
            table: File::table("table", 2),
            pins: File::pins("pins", 2),
            bell: Arc::default(),
            readers: Mutex::new(Vec::new()),
            bytes: Bytes::new(0),
        };
        world.table_writer().word(1).store(Word::new(GENERATION, State::Promised).bits(), Release);
        Arc::new(world)
    }

    fn table_writer(&self) -> TableWriter {
        TableWriter::map(self.table.as_fd()).unwrap()
    }

    /// As `Readers::join`.
    fn join(&self, rings: bool) {
        let pins = PinReader::map(self.pins.as_fd(), 0).unwrap();
        self.readers.lock().unwrap().push(Reader { pins, bell: self.bell.clone() });
        if rings {
            self.bell.ring();
        }
    }

    /// As `Table::settle`, and `Readers::ring_waiting` behind it.
    fn settle(&self, state: State) {
        self.bytes.write(5);
        self.table_writer().settle(1, Word::new(GENERATION, state));
        for reader in self.readers.lock().unwrap().iter() {
            if reader.pins.get(1) & WAITING != 0 {
                reader.bell.ring();
            }
        }
    }

    fn wait(&self) -> State {
        let pins = PinWriter::map(self.pins.as_fd(), 0).unwrap();
        let table = TableReader::map(self.table.as_fd()).unwrap();
        pins.set(1, HELD);
        pins.set(1, HELD | WAITING);
        let state = loop {
            match table.word(1).state() {
                Some(State::Promised) => self.bell.wait(),
                state => break state.unwrap(),
            }
        };
        assert_eq!(self.bytes.read(), 5);
        pins.change(1, HELD);
        state
    }
}

fn settle_against_a_waiter() {
    for_state(State::Sealed);
}

fn for_state(state: State) {
    let world = World::promised();
    world.join(false);
    let waiter = {
        let world = world.clone();
        spawn(move || world.wait())
    };
    world.settle(state);
    assert_eq!(waiter.join().unwrap(), state);
}

#[test]
fn a_waiter_hears_of_a_settled_promise() {
    holds("promise kept", settle_against_a_waiter);
    holds("promise broken", || for_state(State::Lost));
}

/// Breaks: the owner does not see that a client waits, and the client does not see that the promise is settled. Or the
/// client sees that it is settled, and does not see the bytes.
#[test]
fn planted_orderings_that_are_too_weak() {
    fails(
        "settling without fence",
        "deadlock",
        |access: Access| match access.kind {
            Kind::Fence if access.file == "table" && access.ordering == SeqCst => Relaxed,
            _ => access.ordering,
        },
        settle_against_a_waiter,
    );
    fails(
        "WAITING without fence",
        "deadlock",
        |access: Access| match access.kind {
            Kind::Fence if access.file == "pins" && access.ordering == SeqCst => Relaxed,
            _ => access.ordering,
        },
        settle_against_a_waiter,
    );
    fails(
        "word without acquire",
        "Causality violation",
        |access: Access| match access.kind {
            Kind::Fence if access.file == "table" && access.ordering == Acquire => Relaxed,
            _ => access.ordering,
        },
        settle_against_a_waiter,
    );
}

/// The daemon announces the waiter while the owner settles. A message is modelled by a thread that begins.
fn settle_against_one_who_joins(rings: bool) {
    let world = World::promised();
    let owner = {
        let world = world.clone();
        spawn(move || world.settle(State::Sealed))
    };
    let notice = {
        let world = world.clone();
        spawn(move || world.join(rings))
    };
    assert_eq!(world.wait(), State::Sealed);
    [owner, notice].into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_waiter_that_has_just_joined_hears_of_it() {
    holds("promise kept, a waiter joins", || settle_against_one_who_joins(true));
}

/// Breaks: the waiter sleeps for ever, because it was not known when the promise was settled.
#[test]
fn planted_a_reader_that_joins_in_silence() {
    fails("joined in silence", "deadlock", as_it_is, || settle_against_one_who_joins(false));
}
