//! A process spills and restores its objects, as the client's `spill` and `owner` do, one store to memory at a time.

use std::fs::File;
use std::sync::atomic::Ordering;

use mobula_protocol::message::{Refusal, Request};
use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::pins::MAPPED;
use mobula_shm::spill::{RecordHeader, RecordReader, RecordWriter, SpillLocation};
use mobula_shm::table::{State, Word};

use super::{Entry, PLACE_BYTES, Process, Stage, Truths};
use crate::core::random::Random;

/// The bytes of a spill file, and the most records in it.
const SPILL_FILE_BYTES: u64 = 8 * PAGE_BYTES;
const RECORDS_MAX: u64 = 3;

pub(super) struct SpillFile {
    file: File,
    /// The number of records that were ever written, and of those that are still needed.
    written: u64,
    needed: u64,
}

impl SpillFile {
    pub(super) fn new(file: impl Into<File>) -> Self {
        Self { file: file.into(), written: 0, needed: 0 }
    }
}

impl Process {
    /// Writes the spill record of an object, and begins to evict it. Asks for a file if there is none.
    pub(super) fn begin_to_spill(&mut self, random: &mut Random) {
        let sealed = self.find(random, |entry| entry.stage == Stage::Visible(State::Sealed));
        let Some(index) = sealed else { return };
        let has_room = |(number, file): (&u32, &mut SpillFile)| {
            (file.written < RECORDS_MAX).then(|| {
                (file.written, file.needed) = (file.written + 1, file.needed + 1);
                SpillLocation::new(*number, (file.written - 1) * PAGE_BYTES).expect("a place")
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
        let record = RecordHeader::of(object.to_bytes(), &location);
        let mapping = &self.segments[&location.segment].mapping;
        let words = record.extent().expect("small") / 8;
        let word = |at: u64| mapping.word64((location.offset + at * 8) as usize).load(Ordering::Relaxed);
        let bytes: Vec<u8> = (0..words).flat_map(|at| word(at).to_ne_bytes()).collect();
        let mut writer = RecordWriter::new(&self.files[&place.file()].file, place.file(), place.offset());
        writer.begin(record).and_then(|()| writer.add(&bytes)).expect("a disk");
        assert_eq!(writer.end().expect("a disk"), place);
        writer.sync().expect("a disk");
        let entry = &mut self.entries[index as usize];
        (entry.stage, entry.record) = (Stage::Evicting, Some(place));
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

    /// Finishes the spill or the restore of an object.
    pub(super) fn end_spilling(&mut self, index: u32, truths: &mut Truths) {
        (0..3).for_each(|_| self.next_stage(index, truths));
    }

    fn next_stage(&mut self, index: u32, truths: &mut Truths) {
        let entry = &mut self.entries[index as usize];
        let record = entry.record;
        match entry.stage {
            Stage::Evicting => {
                let is_mapped = self.directory.readers(self.id.slot()) != self.readers_heard
                    || self.readers.values().any(|pins| pins.get(index) & MAPPED != 0);
                if is_mapped {
                    self.remove_record(record.expect("written"));
                    self.entries[index as usize].record = None;
                    return self.settle(index, State::Sealed);
                }
                self.table.set_spill_location(index, record);
                entry.stage = Stage::Noted;
            }
            Stage::Noted => {
                let place = entry.place.take().expect("it was in memory");
                self.settle(index, State::Spilled);
                truths.spilled += 1;
                self.segments.get_mut(&place.segment).expect("it was there").taken.remove(&place.offset);
                self.spilling.iter_mut().for_each(|bytes| *bytes += PLACE_BYTES);
            }
            Stage::Restoring => {
                self.settle(index, State::Sealed);
                self.entries[index as usize].stage = Stage::Restored;
            }
            Stage::Restored => {
                self.table.set_spill_location(index, None);
                (entry.stage, entry.record) = (Stage::Visible(State::Sealed), None);
                self.remove_record(record.expect("it was in a file"));
            }
            Stage::Vacant | Stage::Begun | Stage::Visible(_) | Stage::Dying(_) => {}
        }
    }

    pub(super) fn restore_one(&mut self, random: &mut Random) {
        if let Some(index) = self.find(random, |entry| entry.stage == Stage::Visible(State::Spilled)) {
            self.restore(index);
        }
    }

    /// Restores a spilled object; `false` if there is no room.
    fn restore(&mut self, index: u32) -> bool {
        let Some(place) = self.take_place() else { return false };
        let object = self.object(index);
        let (from, mut location) = (self.entries[index as usize].record, self.table.location(index));
        let from = from.expect("it is in a file");
        assert_eq!(self.table.spill_location(index), Some(from), "the record of {object}");
        let record = RecordHeader::of(object.to_bytes(), &location);
        let mut bytes = vec![0; record.extent().expect("small") as usize];
        let file = &self.files[&from.file()].file;
        let mut reader = RecordReader::open(record, file, from.offset()).expect("the record of the object");
        reader.read(&mut bytes).and_then(|()| reader.finish()).expect("the record of the object");
        self.segments[&place.segment].mapping.store_words(place.offset as usize, &bytes);
        (location.segment, location.offset) = (place.segment, place.offset);
        self.table.fill(index, &location);
        let entry = &mut self.entries[index as usize];
        (entry.stage, entry.place) = (Stage::Restoring, Some(place));
        true
    }

    /// Answers the daemon's notices.
    pub(super) fn answer_wishes(&mut self, truths: &mut Truths) {
        if let Some(bytes) = self.spilling.take() {
            self.ask(Request::Spilled { bytes, failure: None });
        }
        while let Some(object) = self.wanted.pop_first() {
            let entry = &self.entries[object.index() as usize];
            let is_spilled =
                self.object(object.index()) == object && entry.stage == Stage::Visible(State::Spilled);
            let is_back = !is_spilled || self.restore(object.index());
            self.end_spilling(object.index(), truths);
            let reason = || "it has no room".to_owned();
            let refusal = (!is_back).then(|| Refusal::NotRestored { object, reason: reason() });
            self.ask(Request::Restored { object, refusal });
        }
    }

    pub(super) fn remove_record(&mut self, place: SpillLocation) {
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
