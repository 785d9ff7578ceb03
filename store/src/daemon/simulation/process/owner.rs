//! A process as an owner: its objects are begun, filled, sealed, deleted and freed, one store at a time.

use super::*;

impl Process {
    pub(super) fn ask_for_memory(&mut self, random: &mut Random) {
        let asked = self.asked.values().filter(|request| matches!(request, Request::Lease { .. })).count();
        if self.segments.len() + asked < 3 {
            let bytes = (1 + random.below(3)) * PAGE_BYTES;
            self.ask(Request::Lease { bytes, timeout_ms: random.below(3) * 40 });
        }
    }

    pub(super) fn add_entries(&mut self, entries: u32) {
        let vacant = || Entry {
            stage: Stage::Vacant,
            generation: 0,
            place: None,
            record: None,
            uses: Uses::default(),
            keeps: Vec::new(),
        };
        let entries = self.entries.len().max(entries as usize);
        self.entries.resize_with(entries, vacant);
    }

    pub(super) fn vacant(&self) -> Option<u32> {
        // Takes the entry that was used least often: a simple approximation of first in, first out.
        let vacant = self.entries.iter().enumerate().filter(|(_, entry)| entry.stage == Stage::Vacant);
        vacant.min_by_key(|(_, entry)| entry.generation).map(|(index, _)| index as u32)
    }

    pub(super) fn take_place(&mut self) -> Option<Place> {
        self.segments.iter_mut().find_map(|(number, segment)| {
            let mut offsets = (0..segment.mapping.len() as u64).step_by(PLACE_BYTES as usize);
            let offset = offsets.find(|offset| !segment.taken.contains(offset))?;
            segment.taken.insert(offset);
            Some(Place { segment: *number, offset })
        })
    }

    pub(super) fn begin(&mut self) -> Option<u32> {
        let index = self.vacant()?;
        let place = self.take_place()?;
        let entry = &mut self.entries[index as usize];
        (entry.stage, entry.place, entry.uses) = (Stage::Begun, Some(place), Uses::DIRECT);
        self.own_pins.set_own(index, HELD);
        Some(index)
    }

    /// Writes the bytes and the fields of an object; the word follows in a later step.
    pub(super) fn fill(&mut self, index: u32, random: &mut Random, truths: &mut Truths) -> Truth {
        truths.stamps += 1;
        let stamp = truths.stamps;
        let mut references = Vec::new();
        for _ in 0..random.below(6).saturating_sub(3) {
            references.extend(self.any_held(random).filter(|object| self.use_once_more(*object)));
        }
        let entry = &mut self.entries[index as usize];
        let place = entry.place.expect("taken when it was begun");
        let location = Location {
            segment: place.segment,
            offset: place.offset,
            length: STAMP_BYTES,
            format: 0,
            references: references.len() as u32,
        };
        let mapping = &self.segments[&place.segment].mapping;
        mapping.word64(place.offset as usize).store(stamp, Ordering::Relaxed);
        let mut offset = location.references_offset().expect("small") as usize;
        for reference in &references {
            mapping.store_words(offset, &reference.to_bytes());
            offset += ObjectId::BYTES;
        }
        entry.keeps.extend(&references);
        self.table.fill(index, &location);
        Truth { stamp, references }
    }

    pub(super) fn seal(&mut self, random: &mut Random, truths: &mut Truths) {
        let begun = self.find(random, |entry| entry.stage == Stage::Begun).or_else(|| self.begin());
        let Some(index) = begun else { return };
        let truth = self.fill(index, random, truths);
        if random.below(8) == 0 {
            // Behaves like a process that dies just here: the fields are stored, and the word is not.
            return;
        }
        self.settle(index, State::Sealed);
        let object = self.object(index);
        truths.sealed.insert(object, truth);
        truths.ids.push(object);
    }

    pub(super) fn promise(&mut self, truths: &mut Truths) {
        let Some(index) = self.vacant() else { return };
        self.entries[index as usize].uses = Uses::DIRECT;
        self.own_pins.set_own(index, HELD);
        self.settle(index, State::Promised);
        truths.ids.push(self.object(index));
    }

    pub(super) fn keep_or_break_a_promise(&mut self, random: &mut Random, truths: &mut Truths) {
        let promised = self.find(random, |entry| entry.stage == Stage::Visible(State::Promised));
        let Some(index) = promised else { return };
        if random.below(4) == 0 {
            return self.settle(index, State::Lost);
        }
        let Some(place) = self.take_place() else { return };
        self.entries[index as usize].place = Some(place);
        let truth = self.fill(index, random, truths);
        self.settle(index, State::Sealed);
        truths.sealed.insert(self.object(index), truth);
    }

    pub(super) fn settle(&mut self, index: u32, state: State) {
        let entry = &mut self.entries[index as usize];
        entry.stage = Stage::Visible(state);
        self.table.word(index).store(Word::new(entry.generation, state).bits(), Ordering::SeqCst);
    }

    pub(super) fn delete(&mut self, random: &mut Random, truths: &mut Truths) {
        let sealed = self.find(random, |entry| entry.stage == Stage::Visible(State::Sealed));
        if let Some(index) = sealed.filter(|_| random.below(3) == 0) {
            self.settle(index, State::Deleted);
            truths.deleted.insert(self.object(index));
        }
    }

    pub(super) fn let_go_of_one_of_its_own(&mut self, random: &mut Random) {
        let used = self.find(random, |entry| {
            entry.uses.direct > 0 && matches!(entry.stage, Stage::Visible(state) if state != State::Promised)
        });
        if let Some(index) = used {
            self.let_go_of_own(index, Uses::DIRECT);
        }
    }

    pub(super) fn let_go_of_own(&mut self, index: u32, uses: Uses) {
        let entry = &mut self.entries[index as usize];
        entry.uses.end(uses);
        if !entry.uses.any() {
            self.own_pins.set_own(index, 0);
        }
    }

    pub(super) fn begin_to_free(&mut self, random: &mut Random) {
        let unused = self.find(random, |entry| !entry.uses.any() && matches!(entry.stage, Stage::Visible(_)));
        if let Some(index) = unused {
            self.dying(index);
        }
    }

    pub(super) fn dying(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let Stage::Visible(from) = entry.stage else { return };
        entry.stage = Stage::Dying(from);
        // A lost promise has no bytes to protect; see `mobula_shm::pins::free_together`.
        if from != State::Lost {
            let dying = Word::new(entry.generation, State::Dying);
            self.table.word(index).swap(dying.bits(), Ordering::SeqCst);
        }
    }

    pub(super) fn end_freeing(&mut self, random: &mut Random) {
        let dying = self.find(random, |entry| matches!(entry.stage, Stage::Dying(_)));
        if let Some(index) = dying
            && let Stage::Dying(from) = self.entries[index as usize].stage
        {
            self.free_or_restore(index, from);
        }
    }

    pub(super) fn free_or_restore(&mut self, index: u32, from: State) {
        let held = self.directory.readers(self.id.slot()) != self.readers_heard
            || self.daemon_pins.get(index) != 0
            || self.readers.values().any(|pins| pins.get(index) != 0);
        if held { self.settle(index, from) } else { self.vacate(index) }
    }

    pub(super) fn vacate(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        entry.generation += 1;
        (entry.stage, entry.uses) = (Stage::Vacant, Uses::default());
        let keeps = std::mem::take(&mut entry.keeps);
        if let Some(place) = entry.place.take() {
            self.segments.get_mut(&place.segment).expect("has an object").taken.remove(&place.offset);
        }
        let free = Word::new(entry.generation, State::Free);
        self.table.word(index).store(free.bits(), Ordering::Release);
        self.own_pins.set_own(index, 0);
        if let Some(place) = self.entries[index as usize].record.take() {
            self.table.set_spill_location(index, None);
            self.remove_record(place);
        }
        keeps.into_iter().for_each(|object| self.let_go(object));
    }

    pub(super) fn release_empty(&mut self, max: usize) -> usize {
        let empty = self.segments.iter().filter(|(_, segment)| segment.taken.is_empty());
        let empty: Vec<u32> = empty.map(|(number, _)| *number).take(max).collect();
        for segment in &empty {
            self.segments.remove(segment);
            self.ask(Request::Release { segment: *segment });
        }
        empty.len()
    }
}
