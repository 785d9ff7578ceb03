//! Sealing, pinning and freeing: no reader borrows bytes that their owner has freed.
//!
//! The models follow this code:
//!
//! * the reader: `client/src/reader/` (`Slot::count_first`, `Peer::settled_state`, `Slot::locate`,
//!   `Slot::release_last`);
//! * the owner: `client/src/owner/` (`Table::seal`, `Owner::free_batch`, `Readers::mark_held`, `Readers::join`);
//! * the daemon: `store/src/daemon/client/attach.rs` (`attach`).

use std::os::fd::AsFd;
use std::sync::Arc;

use loom::sync::Mutex;
use loom::sync::atomic::{AtomicBool, AtomicU64};
use loom::thread::spawn;
use mobula_shm::directory::{DirectoryReader, DirectoryWriter};
use mobula_shm::model::File;
use mobula_shm::model::atomics::{Access, Kind};
use mobula_shm::pins::{Candidate, HELD, MAPPED, PinReader, PinWriter, free_together, try_free};
use mobula_shm::sync::Ordering::{self, Acquire, Relaxed, Release, SeqCst};
use mobula_shm::sync::{fence, yield_now};
use mobula_shm::table::{Location, State, TableReader, TableWriter, Word};

use crate::{Bytes, as_it_is, fails, holds};

const GENERATION: u32 = 7;
const ENTRIES: u32 = 3;

/// One owner with a few objects, and its readers' pins.
struct World {
    table: File,
    pins: Vec<File>,
    directory: File,
    bytes: Vec<Bytes>,
}

impl World {
    /// All objects are sealed.
    fn sealed(readers: usize) -> Arc<Self> {
        let world = Self::empty(readers);
        let table = world.table_writer();
        for index in 0..ENTRIES {
            world.seal(&table, index, GENERATION);
        }
        world
    }

    fn empty(readers: usize) -> Arc<Self> {
        Arc::new(Self {
            table: File::table("table", ENTRIES),
            pins: (0..readers).map(|_| File::pins("pins", ENTRIES)).collect(),
            directory: File::directory(1),
            bytes: (0..ENTRIES).map(|_| Bytes::new(0)).collect(),
        })
    }

    fn table_writer(&self) -> TableWriter {
        TableWriter::map(self.table.as_fd()).unwrap()
    }

    fn table_reader(&self) -> TableReader {
        TableReader::map(self.table.as_fd()).unwrap()
    }

    fn pin_writer(&self, reader: usize) -> PinWriter {
        PinWriter::map(self.pins[reader].as_fd(), 0).unwrap()
    }

    fn pin_reader(&self, reader: usize) -> PinReader {
        PinReader::map(self.pins[reader].as_fd(), 0).unwrap()
    }

    /// Writes an object's bytes, and seals it.
    fn seal(&self, table: &TableWriter, index: u32, generation: u32) {
        self.bytes[index as usize].write(u64::from(generation));
        table.fill(index, &location(index, generation));
        table.word(index).store(sealed(generation).bits(), Release);
    }

    /// Pins an object, and reads it if it is sealed. Returns whether it was. The pin stays.
    fn pin_and_read(&self, pins: &PinWriter, table: &TableReader, index: u32) -> bool {
        pins.set(index, HELD | MAPPED);
        let found = table.word(index) == sealed(GENERATION);
        if found {
            assert_eq!(table.location(index), location(index, GENERATION), "another object's location");
            assert_eq!(self.bytes[index as usize].read(), u64::from(GENERATION), "another object's bytes");
        }
        found
    }

    /// Frees those of the entries that it can, and uses them for other objects at once. Returns the freed entries.
    fn free_and_seal_others(
        &self,
        table: &TableWriter,
        indices: &[u32],
        look: impl FnOnce(&mut [Candidate<'_>]),
    ) -> Vec<u32> {
        let candidate =
            |&index| Candidate { index, word: table.word(index), from: sealed(GENERATION), held: false };
        let mut candidates: Vec<_> = indices.iter().map(candidate).collect();
        free_together(&mut candidates, look);
        let freed = candidates.iter().filter(|candidate| !candidate.held);
        let freed: Vec<u32> = freed.map(|candidate| candidate.index).collect();
        for index in &freed {
            self.seal(table, *index, GENERATION + 1);
        }
        freed
    }
}

fn sealed(generation: u32) -> Word {
    Word::new(generation, State::Sealed)
}

fn location(index: u32, generation: u32) -> Location {
    let (offset, length) = (u64::from(index) * 64, u64::from(generation));
    Location { segment: generation, offset, length, format: generation, references: generation }
}

/// Looks at the pins of one reader, as `Readers::mark_held` does.
fn look_at(pins: &PinReader, candidates: &mut [Candidate<'_>]) {
    let indices = candidates.iter().map(|candidate| candidate.index);
    let (first, last) = indices.fold((u32::MAX, 0), |(first, last), at| (first.min(at), last.max(at)));
    if !pins.may_hold(first..=last) {
        return;
    }
    for candidate in candidates.iter_mut() {
        candidate.held |= pins.get(candidate.index) != 0;
    }
}

fn is_state_word(access: Access) -> bool {
    access.file == "table" && access.offset % 64 == 0
}

fn is_pin(access: Access) -> bool {
    access.file == "pins"
}

/// Leaves out the fence between the reader's pin and its look at the word.
fn without_the_readers_fence(access: Access) -> Ordering {
    match access.kind {
        Kind::Fence if is_pin(access) && access.ordering == SeqCst => Relaxed,
        _ => access.ordering,
    }
}

/// Leaves out the fence between the owner's store of dying and its look at the pins.
fn without_the_owners_fence(access: Access) -> Ordering {
    match access.kind {
        Kind::Fence if is_state_word(access) && access.ordering == SeqCst => Relaxed,
        _ => access.ordering,
    }
}

// ---- seal, then read ----

fn seal_then_read() {
    let world = World::empty(1);
    let reader = {
        let world = world.clone();
        spawn(move || _ = world.pin_and_read(&world.pin_writer(0), &world.table_reader(), 1))
    };
    world.seal(&world.table_writer(), 1, GENERATION);
    reader.join().unwrap();
}

#[test]
fn a_reader_that_finds_sealed_finds_what_was_written_before() {
    holds("seal, read", seal_then_read);
}

/// Breaks: a reader borrows bytes, or follows a location, before they are there.
#[test]
fn planted_a_relaxed_seal() {
    let weaken = |access: Access| match access.kind {
        Kind::Store if is_state_word(access) => Relaxed,
        _ => access.ordering,
    };
    fails("relaxed seal", "another object's location", weaken, seal_then_read);
}

/// Breaks: the same, from the reader's side.
#[test]
fn planted_a_word_that_does_not_acquire() {
    let weaken = |access: Access| match access.kind {
        Kind::Fence if is_state_word(access) && access.ordering == Acquire => Relaxed,
        _ => access.ordering,
    };
    fails("word without acquire", "another object's location", weaken, seal_then_read);
}

// ---- pin against free ----

/// Frees one entry by itself, as the daemon does with orphans.
fn pin_against_try_free() {
    let world = World::sealed(1);
    let reader = {
        let world = world.clone();
        spawn(move || {
            let pins = world.pin_writer(0);
            world.pin_and_read(&pins, &world.table_reader(), 1);
            pins.clear(1);
        })
    };
    let (table, pins) = (world.table_writer(), world.pin_reader(0));
    if try_free(table.word(1), GENERATION, State::Sealed, || pins.get(1) != 0) {
        world.seal(&table, 1, GENERATION + 1);
    }
    reader.join().unwrap();
}

#[test]
fn a_pin_and_a_free_never_both_win() {
    holds("pin, try_free", pin_against_try_free);
}

/// Breaks: neither side sees the other, and the owner overwrites bytes that the reader borrows.
#[test]
fn planted_a_pin_without_its_fence() {
    let weaken = without_the_readers_fence;
    fails("pin without fence, try_free", "Causality violation", weaken, pin_against_try_free);
    fails("pin without fence, free_together", "Causality violation", weaken, pin_against_free_together);
}

/// Breaks: the same, from the owner's side.
#[test]
fn planted_a_free_without_its_fence() {
    let weaken = without_the_owners_fence;
    fails("free without fence", "Causality violation", weaken, pin_against_try_free);
    fails("batch without fence", "Causality violation", weaken, pin_against_free_together);
}

/// Breaks: a reader pins between the look and the store of dying.
#[test]
fn planted_a_look_before_the_word_is_dying() {
    fails("look before dying", "Causality violation", as_it_is, || {
        let world = World::sealed(1);
        let reader = {
            let world = world.clone();
            spawn(move || _ = world.pin_and_read(&world.pin_writer(0), &world.table_reader(), 1))
        };
        let (table, pins) = (world.table_writer(), world.pin_reader(0));
        let held = pins.get(1) != 0;
        if try_free(table.word(1), GENERATION, State::Sealed, || held) {
            world.seal(&table, 1, GENERATION + 1);
        }
        reader.join().unwrap();
    });
}

/// Breaks: a reader has taken its pin back, but has not finished reading when the owner writes the bytes again.
#[test]
fn planted_a_pin_that_is_taken_back_relaxed() {
    let weaken = |access: Access| match access.kind {
        Kind::Store if is_pin(access) && access.ordering == Release => Relaxed,
        Kind::Update if is_pin(access) && access.ordering == Release => Relaxed,
        _ => access.ordering,
    };
    fails("relaxed unpin", "Causality violation", weaken, pin_against_try_free);
}

/// Two entries of one group, of which the reader pins one after the other, against a batch with one fence, and the look
/// at the group's count that saves the looks at pins.
fn pin_against_free_together() {
    let world = World::sealed(1);
    let reader = {
        let world = world.clone();
        spawn(move || {
            let (pins, table) = (world.pin_writer(0), world.table_reader());
            world.pin_and_read(&pins, &table, 2);
            world.pin_and_read(&pins, &table, 1);
            pins.clear(2);
            pins.clear(1);
        })
    };
    let (table, pins) = (world.table_writer(), world.pin_reader(0));
    world.free_and_seal_others(&table, &[1, 2], |candidates| look_at(&pins, candidates));
    reader.join().unwrap();
}

#[test]
fn pins_and_a_batch_never_both_win() {
    holds("pin, free_together", pin_against_free_together);
}

/// Breaks: as a pin that is taken back relaxed does, where the count alone was looked at.
#[test]
fn planted_a_count_that_is_taken_back_relaxed() {
    let weaken = |access: Access| match access.kind {
        Kind::Update if is_pin(access) && access.ordering == Release => Relaxed,
        _ => access.ordering,
    };
    fails("relaxed uncount", "Causality violation", weaken, pin_against_free_together);
}

/// Breaks: the same, from the owner's side.
#[test]
fn planted_a_look_that_does_not_acquire() {
    let weaken = |access: Access| match access.kind {
        Kind::Fence if is_pin(access) && access.ordering == Acquire => Relaxed,
        _ => access.ordering,
    };
    fails("look without acquire", "Causality violation", weaken, pin_against_free_together);
    fails("look at one without acquire", "Causality violation", weaken, pin_against_try_free);
}

// ---- a reader that joins ----

/// The owner's knowledge of its readers.
struct Known {
    readers: Mutex<Vec<PinReader>>,
    heard: AtomicU64,
}

impl Known {
    /// As `Readers::mark_held`.
    fn look(&self, directory: &DirectoryReader, candidates: &mut [Candidate<'_>]) {
        let readers = self.readers.lock().unwrap();
        if directory.readers(0) != self.heard.load(Acquire) {
            candidates.iter_mut().for_each(|candidate| candidate.held = true);
            return;
        }
        readers.iter().for_each(|reader| look_at(reader, candidates));
    }

    /// As `Readers::join`.
    fn join(&self, pins: PinReader) {
        self.readers.lock().unwrap().push(pins);
        self.heard.fetch_add(1, Release);
    }
}

#[derive(Clone, Copy, PartialEq)]
enum Joining {
    AsItIs,
    CountedAfterTelling,
    HeardBeforeKnown,
    CountedBeforeTheFence,
}

/// The daemon announces a reader while the owner frees. A message is modelled by a thread that begins.
fn a_reader_joins(how: Joining) {
    let world = World::sealed(1);
    let known = Arc::new(Known { readers: Mutex::new(Vec::new()), heard: AtomicU64::new(0) });
    let owner = {
        let (world, known) = (world.clone(), known.clone());
        spawn(move || {
            let directory = DirectoryReader::map(world.directory.as_fd(), 1).unwrap();
            let unknown = directory.readers(0) != known.heard.load(Acquire);
            world.free_and_seal_others(&world.table_writer(), &[1], |candidates| match how {
                Joining::CountedBeforeTheFence if unknown => candidates[0].held = true,
                Joining::CountedBeforeTheFence => {
                    known.readers.lock().unwrap().iter().for_each(|reader| look_at(reader, candidates));
                }
                _ => known.look(&directory, candidates),
            });
        })
    };
    let directory = DirectoryWriter::map(world.directory.as_fd(), 1).unwrap();
    let tell_owner = || {
        let (world, known) = (world.clone(), known.clone());
        spawn(move || match how {
            Joining::HeardBeforeKnown => {
                known.heard.fetch_add(1, Release);
                known.readers.lock().unwrap().push(world.pin_reader(0));
            }
            _ => known.join(world.pin_reader(0)),
        })
    };
    let tell_reader = || {
        let world = world.clone();
        spawn(move || _ = world.pin_and_read(&world.pin_writer(0), &world.table_reader(), 1))
    };
    let threads = if how == Joining::CountedAfterTelling {
        let reader = tell_reader();
        directory.count_reader(0);
        [tell_owner(), reader]
    } else {
        directory.count_reader(0);
        [tell_owner(), tell_reader()]
    };
    threads.into_iter().chain([owner]).for_each(|thread| thread.join().unwrap());
}

#[test]
fn a_reader_that_joins_is_not_overlooked() {
    holds("a reader joins", || a_reader_joins(Joining::AsItIs));
}

/// Breaks: the owner knows all readers but the one that pins.
#[test]
fn planted_a_reader_that_is_counted_after_it_was_told() {
    fails("counted after telling", "Causality violation", as_it_is, || {
        a_reader_joins(Joining::CountedAfterTelling);
    });
}

/// Breaks: the owner counts a reader as heard before it knows the reader's pins.
#[test]
fn planted_a_reader_that_is_heard_of_before_it_is_known() {
    fails("heard before known", "Causality violation", as_it_is, || {
        a_reader_joins(Joining::HeardBeforeKnown);
    });
}

/// Breaks: a reader is announced, and pins, between the look at the count and the fence.
#[test]
fn planted_a_look_at_the_count_before_the_fence() {
    fails("readers counted before the fence", "Causality violation", as_it_is, || {
        a_reader_joins(Joining::CountedBeforeTheFence);
    });
}

// ---- a reference is handed on ----

/// A holder sends its reference to another process, and keeps its own until that process has pinned the object. The
/// owner looks at the readers in the worse order: first at the one that has no pin yet.
fn hand_over(waits: bool) {
    let world = World::sealed(2);
    let (told, taken) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicBool::new(false)));
    let giver = {
        let pins = world.pin_writer(0);
        assert!(world.pin_and_read(&pins, &world.table_reader(), 1));
        let (told, taken) = (told.clone(), taken.clone());
        spawn(move || {
            told.store(true, Release);
            while waits && !taken.load(Acquire) {
                yield_now();
            }
            pins.clear(1);
        })
    };
    let taker = {
        let world = world.clone();
        spawn(move || {
            while !told.load(Acquire) {
                yield_now();
            }
            let (pins, table) = (world.pin_writer(1), world.table_reader());
            pins.set(1, HELD | MAPPED);
            let settled = loop {
                match table.word(1) {
                    word if word == Word::new(GENERATION, State::Dying) => yield_now(),
                    word => break word,
                }
            };
            assert_eq!(settled, sealed(GENERATION), "freed on its way");
            assert_eq!(world.bytes[1].read(), u64::from(GENERATION));
            taken.store(true, Release);
        })
    };
    let table = world.table_writer();
    let readers = [world.pin_reader(1), world.pin_reader(0)];
    world.free_and_seal_others(&table, &[1], |candidates| {
        readers.iter().for_each(|reader| look_at(reader, candidates));
    });
    giver.join().unwrap();
    taker.join().unwrap();
}

#[test]
fn a_reference_that_is_handed_on_stays() {
    holds("hand-over", || hand_over(true));
}

/// Breaks: no process pins the object while its id is on its way.
#[test]
fn planted_a_giver_that_does_not_wait() {
    fails("hand-over without waiting", "freed on its way", as_it_is, || hand_over(false));
}

// ---- two threads of a reader ----

/// Two threads of one process pin entries of one group; one of them is the first, whose word has the group's count.
fn two_threads_pin_in_one_group(set: fn(&World, &PinWriter, u32)) {
    let world = World::sealed(1);
    let pins = Arc::new(world.pin_writer(0));
    let threads = [0, 1].map(|index| {
        let (world, pins) = (world.clone(), pins.clone());
        spawn(move || {
            set(&world, &pins, index);
            if world.table_reader().word(index) == sealed(GENERATION) {
                assert_eq!(world.bytes[index as usize].read(), u64::from(GENERATION));
            }
            pins.clear(index);
        })
    });
    let (table, look) = (world.table_writer(), world.pin_reader(0));
    world.free_and_seal_others(&table, &[0, 1], |candidates| look_at(&look, candidates));
    threads.into_iter().for_each(|thread| thread.join().unwrap());
    assert!(look.get(0) == 0 && look.get(1) == 0, "a pin is left behind");
    assert!(!look.may_hold(0..=1023), "a count is left behind");
}

#[test]
fn threads_that_pin_in_one_group_lose_no_count_and_no_pin() {
    holds("two threads, one group", || {
        two_threads_pin_in_one_group(|_, pins, index| pins.set(index, HELD | MAPPED));
    });
}

/// Breaks: the other thread's count is overwritten, and the owner takes the group for one without pins.
#[test]
fn planted_a_pin_that_overwrites_the_count() {
    fails("plain store of the first pin", "", as_it_is, || {
        two_threads_pin_in_one_group(|world, pins, index| {
            if index > 0 {
                return pins.set(index, HELD | MAPPED);
            }
            let raw = mobula_shm::mapping::WriteMapping::map(world.pins[0].as_fd(), 0, 4096).unwrap();
            let (count, word) = (0x100, raw.word32(0));
            let before = word.fetch_add(count, Relaxed) + count;
            word.store(before | HELD | MAPPED, Release);
            fence(SeqCst);
        });
    });
}
