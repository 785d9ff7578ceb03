//! How a process lets its objects go to files, and brings them back: what `client/spill` and `client/own` do, a store to
//! memory at a time.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::Ordering;

use mobula_protocol::message::{Refusal, Request};
use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::pins::MAPPED;
use mobula_shm::spill::{HEADER_BYTES, Record, SpillPlace};
use mobula_shm::table::{State, Word};

use super::{Entry, PLACE_BYTES, Process, Stage, Truths};
use crate::core::random::Random;

/// Bytes of a spill file, and records in it at most.
const SPILL_FILE_BYTES: u64 = 8 * PAGE_BYTES;
const RECORDS_MAX: u64 = 3;

pub(super) struct SpillFile {
    file: File,
    /// How many records were ever written, and how many are needed.
    written: u64,
    needed: u64,
}

impl SpillFile {
    pub(super) fn new(file: impl Into<File>) -> Self {
        Self { file: file.into(), written: 0, needed: 0 }
    }
}

impl Process {
    /// Writes the record of an object, and begins to let it go from memory. Asks for a file if there is none.
    pub(super) fn begin_to_spill(&mut self, random: &mut Random) {
        let sealed = self.find(random, |entry| entry.stage == Stage::Visible(State::Sealed));
        let Some(index) = sealed else { return };
        let has_room = |(number, file): (&u32, &mut SpillFile)| {
            (file.written < RECORDS_MAX).then(|| {
                (file.written, file.needed) = (file.written + 1, file.needed + 1);
                SpillPlace::new(*number, (file.written - 1) * PAGE_BYTES).expect("a place")
            })
        };
        let Some(place) = self.files.iter_mut().find_map(has_room) else {
            let asked = self.asked.values().any(|request| matches!(request, Request::SpillFile { .. }));
            if !asked {
                self.ask(Request::SpillFile { bytes: SPILL_FILE_BYTES });
            }
            return;
        };
        let (object, location) = (self.object(index), self.table.location(index));
        let record = Record::of(object.to_bytes(), &location);
        let mapping = &self.segments[&location.segment].mapping;
        let words = record.extent().expect("small") / 8;
        let word = |at: u64| mapping.word64((location.offset + at * 8) as usize).load(Ordering::Relaxed);
        let bytes: Vec<u8> = (0..words).flat_map(|at| word(at).to_ne_bytes()).collect();
        let mut checksum = record.checksum();
        checksum.add(&bytes);
        let written = [&record.header(checksum.finish())[..], &bytes].concat();
        self.files[&place.file()].file.write_all_at(&written, place.offset()).expect("a disk");
        let entry = &mut self.entries[index as usize];
        (entry.stage, entry.record) = (Stage::Leaving, Some(place));
        let dying = Word::new(entry.generation, State::Dying);
        self.table.word(index).swap(dying.bits(), Ordering::SeqCst);
    }

    pub(super) fn go_on_spilling(&mut self, random: &mut Random, truths: &mut Truths) {
        let under_way =
            |entry: &Entry| !matches!(entry.stage, Stage::Vacant | Stage::Begun | Stage::Visible(_));
        if let Some(index) = self.find(random, under_way) {
            self.next_stage(index, truths);
        }
    }

    /// Goes on with an object that is on its way to a file or back, until it is there.
    pub(super) fn end_spilling(&mut self, index: u32, truths: &mut Truths) {
        (0..3).for_each(|_| self.next_stage(index, truths));
    }

    fn next_stage(&mut self, index: u32, truths: &mut Truths) {
        let entry = &mut self.entries[index as usize];
        let record = entry.record;
        match entry.stage {
            Stage::Leaving => {
                let is_mapped = self.directory.readers(self.id.slot()) != self.readers_heard
                    || self.readers.values().any(|pins| pins.get(index) & MAPPED != 0);
                if is_mapped {
                    self.remove_record(record.expect("written"));
                    self.entries[index as usize].record = None;
                    return self.settle(index, State::Sealed);
                }
                self.table.set_spill_place(index, record);
                entry.stage = Stage::Noted;
            }
            Stage::Noted => {
                let place = entry.place.take().expect("it was in memory");
                self.settle(index, State::Spilled);
                truths.spilled += 1;
                self.segments.get_mut(&place.segment).expect("it was there").taken.remove(&place.offset);
                self.spilling.iter_mut().for_each(|bytes| *bytes += PLACE_BYTES);
            }
            Stage::Returning => {
                self.settle(index, State::Sealed);
                self.entries[index as usize].stage = Stage::Returned;
            }
            Stage::Returned => {
                self.table.set_spill_place(index, None);
                (entry.stage, entry.record) = (Stage::Visible(State::Sealed), None);
                self.remove_record(record.expect("it was in a file"));
            }
            Stage::Vacant | Stage::Begun | Stage::Visible(_) | Stage::Dying(_) => {}
        }
    }

    pub(super) fn bring_one_back(&mut self, random: &mut Random) {
        if let Some(index) = self.find(random, |entry| entry.stage == Stage::Visible(State::Spilled)) {
            self.bring_back(index);
        }
    }

    /// Gives a spilled object memory and its bytes again; `false` if there is no room.
    fn bring_back(&mut self, index: u32) -> bool {
        let Some(place) = self.take_place() else { return false };
        let object = self.object(index);
        let (from, mut location) = (self.entries[index as usize].record, self.table.location(index));
        let from = from.expect("it is in a file");
        assert_eq!(self.table.spill_place(index), Some(from), "the record of {object}");
        let record = Record::of(object.to_bytes(), &location);
        let (file, mut header) = (&self.files[&from.file()].file, [0; HEADER_BYTES]);
        file.read_exact_at(&mut header, from.offset()).expect("a disk");
        let mut bytes = vec![0; record.extent().expect("small") as usize];
        file.read_exact_at(&mut bytes, from.offset() + HEADER_BYTES as u64).expect("a disk");
        let mut checksum = record.checksum();
        checksum.add(&bytes);
        assert_eq!(record.claimed_checksum(&header), Some(checksum.finish()), "the record of {object}");
        self.segments[&place.segment].mapping.store_words(place.offset as usize, &bytes);
        (location.segment, location.offset) = (place.segment, place.offset);
        self.table.fill(index, &location);
        let entry = &mut self.entries[index as usize];
        (entry.stage, entry.place) = (Stage::Returning, Some(place));
        true
    }

    /// Answers what the daemon has asked for.
    pub(super) fn answer_wishes(&mut self, truths: &mut Truths) {
        if let Some(bytes) = self.spilling.take() {
            self.ask(Request::Spilled { bytes, failure: None });
        }
        while let Some(object) = self.wanted.pop_first() {
            let entry = &self.entries[object.index() as usize];
            let is_spilled =
                self.object(object.index()) == object && entry.stage == Stage::Visible(State::Spilled);
            let is_back = !is_spilled || self.bring_back(object.index());
            self.end_spilling(object.index(), truths);
            let reason = || "it has no room".to_owned();
            let refusal = (!is_back).then(|| Refusal::NotRestored { object, reason: reason() });
            self.ask(Request::Restored { object, refusal });
        }
    }

    pub(super) fn remove_record(&mut self, place: SpillPlace) {
        self.files.get_mut(&place.file()).expect("it has records").needed -= 1;
        let full = self.files[&place.file()].written == RECORDS_MAX;
        if full {
            self.discard_empty_files();
        }
    }

    pub(super) fn discard_empty_files(&mut self) {
        let empty = self.files.extract_if(.., |_, file| file.needed == 0);
        let empty: Vec<u32> = empty.map(|(number, _)| number).collect();
        empty.into_iter().for_each(|file| self.ask(Request::DiscardSpillFile { file }));
    }
}
