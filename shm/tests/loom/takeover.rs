//! Orphan takeover: the readers of a dead owner keep the objects that they have, and a lost promise stays lost.
//!
//! The daemon follows `store/src/daemon/orphans/takeover.rs` (`take_slice`), `sweep.rs` beside it (`sweep_slice`), and
//! `store/src/daemon/registry/mod.rs` (`hold`). The owner is killed before each of its stores, one after the other. As
//! in the real system, the daemon begins when all stores that the owner did before are there.

use std::os::fd::AsFd;
use std::sync::Arc;

use loom::sync::Mutex;
use loom::thread::spawn;
use mobula_shm::model::File;
use mobula_shm::model::atomics::killed_after;
use mobula_shm::pins::{Candidate, HELD, MAPPED, PinReader, PinWriter, free_together, try_free};
use mobula_shm::sync::Ordering::{Acquire, Relaxed, Release};
use mobula_shm::sync::yield_now;
use mobula_shm::table::{Location, State, TableReader, TableWriter, Word};

use crate::{Bytes, as_it_is, fails, holds, holds_wherever_it_is_killed};

const GENERATION: u32 = 7;
/// An object, and a promise that was not kept.
const OBJECT: u32 = 0;
const PROMISE: u32 = 1;
const ENTRIES: u32 = 2;

struct World {
    table: File,
    pins: File,
    bytes: Bytes,
}

impl World {
    fn new(promise: State) -> Arc<Self> {
        let world = Self {
            table: File::table("table", ENTRIES),
            pins: File::pins("pins", ENTRIES),
            bytes: Bytes::new(u64::from(GENERATION)),
        };
        let table = world.table_writer();
        table.fill(OBJECT, &location(GENERATION));
        table.word(OBJECT).store(word(State::Sealed).bits(), Release);
        table.word(PROMISE).store(word(promise).bits(), Release);
        Arc::new(world)
    }

    fn table_writer(&self) -> TableWriter {
        TableWriter::map(self.table.as_fd()).unwrap()
    }

    fn table_reader(&self) -> TableReader {
        TableReader::map(self.table.as_fd()).unwrap()
    }

    fn pin_reader(&self) -> PinReader {
        PinReader::map(self.pins.as_fd(), 0).unwrap()
    }

    /// The owner lets go of both entries, and puts another object where the first one was.
    fn free_both(&self) {
        let (table, pins) = (self.table_writer(), self.pin_reader());
        let candidate =
            |index, state| Candidate { index, word: table.word(index), from: word(state), held: false };
        let mut candidates = [candidate(OBJECT, State::Sealed), candidate(PROMISE, State::Lost)];
        free_together(&mut candidates, |candidates| {
            for candidate in candidates {
                candidate.held = pins.get(candidate.index) != 0;
            }
        });
        if !candidates[0].held {
            self.bytes.write(u64::from(GENERATION + 1));
            table.fill(OBJECT, &location(GENERATION + 1));
            table.word(OBJECT).store(Word::new(GENERATION + 1, State::Sealed).bits(), Release);
        }
    }

    /// The owner keeps its promise, with the object's bytes.
    fn fulfil(&self) {
        let table = self.table_writer();
        table.fill(PROMISE, &location(GENERATION));
        table.settle(PROMISE, word(State::Sealed));
    }

    /// The daemon becomes the writer of the table, and frees the objects that no reader pins.
    fn take_over(&self, how: Takeover) {
        let (table, pins) = (self.table_writer(), self.pin_reader());
        let mut live = Vec::new();
        for index in 0..ENTRIES {
            let entry = table.word(index);
            let seen = Word::from_bits(entry.load(Acquire));
            let generation = seen.generation();
            match seen.state() {
                Some(State::Free) => {}
                Some(State::Promised | State::Lost) => {
                    entry.store(Word::new(generation, State::Lost).bits(), Release);
                    live.push((index, generation));
                }
                Some(State::Dying) if how == Takeover::TakesDyingForFree => {
                    self.free(&table, index, generation);
                }
                Some(state) => {
                    if state == State::Dying {
                        entry.store(Word::new(generation, State::Sealed).bits(), Release);
                    }
                    live.push((index, generation));
                }
                None => panic!("nobody writes such a word"),
            }
        }
        for (index, generation) in live {
            let entry = table.word(index);
            let from = Word::from_bits(entry.load(Relaxed)).state().unwrap();
            let held = || how != Takeover::LooksOnce && pins.get(index) != 0;
            if pins.get(index) == 0 && try_free(entry, generation, from, held) && index == OBJECT {
                // Its segment is retired.
                self.bytes.write(0);
            }
        }
    }

    fn free(&self, table: &TableWriter, index: u32, generation: u32) {
        table.word(index).store(Word::new(generation + 1, State::Free).bits(), Release);
        if index == OBJECT {
            self.bytes.write(0);
        }
    }

    /// A reader that gets the object, if it is there, and lets it go.
    fn read(&self) {
        let (pins, table) = (PinWriter::map(self.pins.as_fd(), 0).unwrap(), self.table_reader());
        pins.set(OBJECT, HELD | MAPPED);
        if settled(&table, OBJECT) == word(State::Sealed) {
            assert_eq!(table.location(OBJECT), location(GENERATION), "another object's location");
            assert_eq!(self.bytes.read(), u64::from(GENERATION), "another object's bytes");
        }
        pins.clear(OBJECT);
    }

    /// A reader that looks at the promise, and then again.
    fn look_twice(&self) {
        let (pins, table) = (PinWriter::map(self.pins.as_fd(), 0).unwrap(), self.table_reader());
        pins.set(PROMISE, HELD);
        let first = settled(&table, PROMISE);
        if first == word(State::Sealed) {
            assert_eq!(table.location(PROMISE), location(GENERATION), "another object's location");
        }
        let second = settled(&table, PROMISE);
        // The promise may be gone: it has no bytes, so no handshake protects it.
        let stays = second == first || second.generation() != GENERATION;
        assert!(first != word(State::Lost) || stays, "a lost promise became {second:?}");
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Takeover {
    AsItIs,
    TakesDyingForFree,
    LooksOnce,
}

fn word(state: State) -> Word {
    Word::new(GENERATION, state)
}

fn location(generation: u32) -> Location {
    let bytes = u64::from(generation);
    Location {
        segment: generation,
        offset: bytes * 64,
        length: bytes,
        format: generation,
        references: generation,
    }
}

/// As `Peer::settled_state`.
fn settled(table: &TableReader, index: u32) -> Word {
    loop {
        match table.word(index) {
            word if word.state() == Some(State::Dying) => yield_now(),
            word => return word,
        }
    }
}

type Owner = fn(&World);
type Reader = fn(&World);

/// Runs an owner that is killed after so many stores, its reader, and the daemon. Returns whether the owner was killed.
fn taken_over(promise: State, owner: Owner, reader: Reader, how: Takeover, stores: usize) -> bool {
    let world = World::new(promise);
    let reader = {
        let world = world.clone();
        spawn(move || reader(&world))
    };
    let killed = killed_after(stores, || owner(&world));
    world.take_over(how);
    reader.join().unwrap();
    killed
}

fn takeover_holds(name: &str, promise: State, owner: Owner, reader: Reader) {
    holds_wherever_it_is_killed(name, move |stores| {
        taken_over(promise, owner, reader, Takeover::AsItIs, stores)
    });
}

#[test]
fn an_owner_that_dies_while_it_frees_takes_nothing_from_its_readers() {
    takeover_holds("takeover, freeing, a reader", State::Lost, World::free_both, World::read);
}

#[test]
fn a_lost_promise_stays_lost() {
    let (free, fulfil): (Owner, Owner) = (World::free_both, World::fulfil);
    takeover_holds("takeover, freeing, a waiter", State::Lost, free, World::look_twice);
    takeover_holds("takeover, fulfilling, a waiter", State::Promised, fulfil, World::look_twice);
}

/// Breaks: the bytes are freed while a reader borrows them, which the dead owner's look at the pins would have found.
#[test]
fn planted_a_daemon_that_takes_dying_for_free() {
    fails("dying taken for free", "Causality violation", as_it_is, || {
        _ = taken_over(State::Lost, World::free_both, World::read, Takeover::TakesDyingForFree, 1);
    });
}

/// Breaks: a reader pins between the daemon's look and its swap.
#[test]
fn planted_a_sweep_that_looks_once() {
    fails("sweep that looks once", "Causality violation", as_it_is, || {
        _ = taken_over(State::Lost, |_| (), World::read, Takeover::LooksOnce, 0);
    });
}

/// Breaks: an owner that dies while it frees a lost promise leaves it dying. The daemon takes it for an object, which
/// was never put.
#[test]
fn planted_a_lost_promise_that_dies_as_objects_do() {
    fails("a lost promise dies", "another object's location", as_it_is, || {
        let owner: Owner = |world| {
            let (table, pins) = (world.table_writer(), world.pin_reader());
            try_free(table.word(PROMISE), GENERATION, State::Lost, || pins.get(PROMISE) != 0);
        };
        _ = taken_over(State::Lost, owner, World::look_twice, Takeover::AsItIs, 1);
    });
}

// ---- objects that the dead kept alive ----

/// An owner's object that a dead client kept alive, through one of its own that others can still reach. The daemon
/// pins it in its own name, and only then are the dead client's pins forgotten.
fn part(holds_first: bool) {
    let world = World::new(State::Lost);
    let dead = File::pins("pins of the dead", ENTRIES);
    let daemon = File::pins("pins of the daemon", ENTRIES);
    let map = |file: &File| PinReader::map(file.as_fd(), 0).unwrap();
    PinWriter::map(dead.as_fd(), 0).unwrap().set(OBJECT, HELD);
    // In the order in which the owner has heard of them.
    let readers = Arc::new(Mutex::new(vec![Some(map(&daemon)), Some(map(&dead)), Some(world.pin_reader())]));
    let owner = {
        let (world, readers) = (world.clone(), readers.clone());
        spawn(move || {
            let table = world.table_writer();
            let (index, from) = (OBJECT, word(State::Sealed));
            let mut candidates = [Candidate { index, word: table.word(index), from, held: false }];
            free_together(&mut candidates, |candidates| {
                for pins in readers.lock().unwrap().iter().flatten() {
                    candidates[0].held |= pins.get(OBJECT) != 0;
                }
            });
        })
    };
    let reader = {
        let world = world.clone();
        spawn(move || {
            PinWriter::map(world.pins.as_fd(), 0).unwrap().set(OBJECT, HELD);
            let found = settled(&world.table_reader(), OBJECT);
            assert_eq!(found, word(State::Sealed), "freed although it was kept alive");
        })
    };
    // A message to the owner is a thread that begins.
    let tell_owner = || spawn(move || readers.lock().unwrap()[1] = None);
    let hold = || {
        PinWriter::map(daemon.as_fd(), 0).unwrap().set(OBJECT, HELD);
        // The daemon has the table mapped writable, and looks as any reader does.
        let found = settled(&world.table_reader(), OBJECT);
        assert_eq!(found, word(State::Sealed), "freed although it was kept alive");
    };
    let notice = if holds_first {
        hold();
        tell_owner()
    } else {
        let notice = tell_owner();
        hold();
        notice
    };
    [owner, reader, notice].into_iter().for_each(|thread| thread.join().unwrap());
}

#[test]
fn what_the_dead_kept_alive_is_kept() {
    holds("parting", || part(true));
}

/// Breaks: the object goes between the pins of the dead and those of the daemon.
#[test]
fn planted_a_parting_before_the_daemon_holds() {
    fails("parting before holding", "freed although it was kept alive", as_it_is, || part(false));
}
