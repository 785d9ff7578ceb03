//! What becomes of the objects of the dead.
//!
//! 1. *Taking over.* The daemon becomes the one writer of the dead client's table. Promises become `Lost`, what the
//!    client was about to do is undone, and what its objects refer to is pinned in the daemon's name.
//! 2. *Parting.* Only then do the dead client's own pins stop to count: what it kept alive through an object that
//!    others can still reach is now kept by the daemon.
//! 3. *Sweeping.* After a grace, for ids that are still on their way to somebody, every entry that nobody pins is
//!    freed, by the same handshake that owners use. A segment without entries is retired; an owner without entries is
//!    forgotten. What is found held is [entrusted](crate::daemon::orphans::escrow) to those who may hold it. A spill file without entries
//!    is discarded.
//!
//! What the client had spilled stays in its files until somebody [wants it](crate::daemon::orphans::restore).
//!
//! Tables can be large, so the first and the last go in slices, between which everyone else is served. What a table
//! says is checked first: nonsense counts as free.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use mobula_protocol::id::ObjectId;
use mobula_protocol::message::Notice;
use mobula_shm::failpoints::{Failpoint, failpoint};
use mobula_shm::mapping::ReadMapping;
use mobula_shm::pins::try_free;
use mobula_shm::spill::{HEADER_BYTES, SpillPlace};
use mobula_shm::table::{Location, State, Word};

use crate::core::knots;
use crate::core::segments::{Segment, Segments};
use crate::daemon::Daemon;
use crate::daemon::orphans::restore::SharedSegment;
use crate::memory::Memory;

/// How soon the adopted are swept again after something was freed.
const SWEEP_PERIOD_MIN: Duration = Duration::from_millis(10);
/// How late they are swept again when nothing changes.
const SWEEP_PERIOD_MAX: Duration = Duration::from_millis(250);

/// An adopted owner's objects.
#[derive(Debug)]
pub(crate) struct Adoption {
    /// Nothing is freed before.
    grace_ends: Instant,
    /// Entries below this have been taken over; `None` once all have.
    taking: Option<u32>,
    /// Whether every entry has been looked at since then: only then is the grace waited for.
    looked: bool,
    /// Segments in which somebody holds an object, and which others keep for that.
    pub(crate) entrusted: BTreeSet<u32>,
    /// Who keeps them although it is no reader.
    pub(crate) custodian: Option<u16>,
    live: Vec<LiveEntry>,
    /// Place in `live` where the sweep goes on.
    cursor: usize,
    /// Live entries by segment.
    segments: HashMap<u32, u32>,
    /// Live entries by spill file.
    files: HashMap<u32, u32>,
    /// Where the bytes of the entries lie that have any.
    homes: HashMap<u32, Home>,
    /// Entries that have come back from files, and maybe others, in the order in which they came.
    back: VecDeque<u32>,
    /// Where small objects come back to.
    pub(crate) shared_segment: Option<SharedSegment>,
    /// What the daemon holds on behalf of an entry.
    references: HashMap<u32, Vec<ObjectId>>,
    /// How many more references are followed.
    references_left: usize,
}

/// An entry that is not free.
#[derive(Debug, Clone, Copy)]
struct LiveEntry {
    index: u32,
    generation: u32,
}

/// Where the bytes of an entry lie: nowhere, if it is a lost promise or an empty object; in a segment; in a file; or in
/// both, once it has come back.
#[derive(Debug, Clone, Copy, Default)]
struct Home {
    segment: Option<u32>,
    file: Option<u32>,
}

impl Adoption {
    /// Of which everything is still to be done, and nothing freed before `grace_ends`.
    pub(crate) fn begin(grace_ends: Instant, references_max: usize) -> Self {
        Self {
            grace_ends,
            taking: Some(0),
            looked: false,
            entrusted: BTreeSet::new(),
            custodian: None,
            live: Vec::new(),
            cursor: 0,
            segments: HashMap::new(),
            files: HashMap::new(),
            homes: HashMap::new(),
            back: VecDeque::new(),
            shared_segment: None,
            references: HashMap::new(),
            references_left: references_max,
        }
    }

    /// The entry that is taken over next; `None` once all have been.
    pub(crate) fn next_to_take(&self) -> Option<u32> {
        self.taking
    }

    /// Whether the whole table has been taken over.
    pub(crate) fn is_taken_over(&self) -> bool {
        self.taking.is_none()
    }

    fn add(&mut self, index: u32, generation: u32, home: Home) {
        self.live.push(LiveEntry { index, generation });
        if let Some(segment) = home.segment {
            self.count_segment(segment);
        }
        if let Some(file) = home.file {
            self.count_file(file);
        }
        if home.segment.is_some() || home.file.is_some() {
            self.homes.insert(index, home);
        }
    }

    /// Whether an entry has been taken over.
    fn has_taken(&self, index: u32) -> bool {
        self.taking.is_none_or(|next| index < next)
    }

    /// Drops the live entry at the cursor; the second is what nothing is in any more.
    fn remove_at_cursor(&mut self) -> (LiveEntry, Home) {
        let entry = self.live.swap_remove(self.cursor);
        let home = self.homes.remove(&entry.index).unwrap_or_default();
        let segment = home.segment.and_then(|segment| self.uncount_segment(segment));
        let file = home.file.and_then(|file| self.uncount_file(file));
        (entry, Home { segment, file })
    }

    /// The segment that an entry is in now.
    fn segment_of(&self, entry: &LiveEntry) -> Option<u32> {
        self.homes.get(&entry.index)?.segment
    }

    /// Whether an entry is in memory, and has no record.
    pub(crate) fn is_in_memory(&self, index: u32) -> bool {
        self.homes.get(&index).is_some_and(|home| home.segment.is_some() && home.file.is_none())
    }

    /// Those entries, by their segments; none of a segment in which there are others.
    pub(crate) fn entries_in_memory(&self) -> BTreeMap<u32, Vec<u32>> {
        let mut segments: BTreeMap<u32, Vec<u32>> = BTreeMap::new();
        for (index, home) in &self.homes {
            if let (Some(segment), None) = (home.segment, home.file) {
                segments.entry(segment).or_default().push(*index);
            }
        }
        segments.retain(|segment, entries| self.segments.get(segment) == Some(&(entries.len() as u32)));
        segments
    }

    /// The spill files in which there are objects.
    pub(crate) fn spill_files(&self) -> Vec<u32> {
        self.files.keys().copied().collect()
    }

    /// One more object lies in a segment, or is on its way there.
    pub(crate) fn count_segment(&mut self, segment: u32) {
        *self.segments.entry(segment).or_default() += 1;
    }

    /// One object less; returns the segment if it was the last one in there.
    pub(crate) fn uncount_segment(&mut self, segment: u32) -> Option<u32> {
        let emptied = uncount(&mut self.segments, segment)?;
        if self.shared_segment.as_ref().is_some_and(|shared| shared.number == emptied) {
            self.shared_segment = None;
        }
        Some(emptied)
    }

    /// One more object is in a file, or on its way there.
    pub(crate) fn count_file(&mut self, file: u32) {
        *self.files.entry(file).or_default() += 1;
    }

    /// One object less; returns the file if it was the last one in there.
    pub(crate) fn uncount_file(&mut self, file: u32) -> Option<u32> {
        uncount(&mut self.files, file)
    }

    /// A spilled entry is in a segment now, where it is counted already, and still in its file.
    pub(crate) fn came_back(&mut self, index: u32, segment: u32) {
        if let Some(home) = self.homes.get_mut(&index) {
            home.segment = Some(segment);
            self.back.push_back(index);
        }
    }

    /// How many entries there are to be looked at by [`next_back`](Self::next_back).
    pub(crate) fn count_back(&self) -> usize {
        self.back.len()
    }

    /// The entry that came back longest ago and was not looked at lately.
    pub(crate) fn next_back(&mut self) -> Option<u32> {
        loop {
            let index = self.back.pop_front()?;
            if self.homes.get(&index).is_some_and(|home| home.segment.is_some()) {
                return Some(index);
            }
        }
    }

    /// An entry stays in memory for now.
    pub(crate) fn stays_back(&mut self, index: u32) {
        self.back.push_back(index);
    }

    /// An entry is only in its file again; returns its segment if it was the last one in there.
    pub(crate) fn went_again(&mut self, index: u32) -> Option<u32> {
        let segment = self.homes.get_mut(&index)?.segment.take()?;
        self.uncount_segment(segment)
    }

    /// An entry is only in a file now; returns its segment if it was the last one in there.
    pub(crate) fn went(&mut self, index: u32, file: u32) -> Option<u32> {
        let home = self.homes.get_mut(&index)?;
        home.file = Some(file);
        self.count_file(file);
        self.went_again(index)
    }
}

/// Counts one less; returns the key when that was the last.
fn uncount(counts: &mut HashMap<u32, u32>, key: u32) -> Option<u32> {
    let count = counts.get_mut(&key)?;
    *count -= 1;
    if *count > 0 {
        return None;
    }
    counts.remove(&key);
    Some(key)
}

/// When the adopted are looked at next; not at all while there are none.
#[derive(Debug, Default)]
pub(crate) struct SweepTimer {
    due: Option<Instant>,
    period: Duration,
}

impl SweepTimer {
    pub(crate) fn due(&self) -> Option<Instant> {
        self.due
    }

    pub(crate) fn is_due(&self, now: Instant) -> bool {
        self.due.is_some_and(|due| due <= now)
    }

    /// Something changed that may let entries go.
    pub(crate) fn run_soon(&mut self, now: Instant) {
        self.due = Some(now);
        self.period = SWEEP_PERIOD_MIN;
    }

    fn run_at(&mut self, then: Instant) {
        self.due = Some(self.due.map_or(then, |due| due.min(then)));
    }
}

impl Daemon {
    /// A client's process or its connection is gone.
    pub(crate) fn died(&mut self, slot: u16, now: Instant) {
        let Some(owner) = self.owners.get_mut(&slot).filter(|owner| owner.is_alive()) else { return };
        let id = owner.id;
        owner.adoption = Some(Adoption::begin(now + self.config.adoption_grace, self.config.references_max));
        self.disconnect_all(slot);
        self.leases.forget(slot);
        self.fillings.retain(|filling| filling.client != slot);
        self.lookups.forget(slot);
        self.spilling.forget(slot, id);
        self.slots.die(slot);
        self.segments.adopt(slot);
        // It may have given pages back, and died before it said so.
        self.segments.numbers(slot).into_iter().for_each(|number| self.count_pages(slot, number));
        failpoint(Failpoint::TakeoverBegun);
        self.take_over(slot, now);
        self.lose_custodian(slot);
        self.serve_leases(now);
    }

    /// Goes on with everything adopted, a slice of each.
    pub(crate) fn sweep(&mut self, now: Instant) {
        self.sweep.due = None;
        let mut freed = false;
        let adopted = self.owners.iter().filter(|(_, owner)| !owner.is_alive());
        let adopted: Vec<u16> = adopted.map(|(slot, _)| *slot).collect();
        for slot in &adopted {
            let Some(adoption) = self.owners.get(slot).and_then(|owner| owner.adoption.as_ref()) else {
                continue;
            };
            if adoption.taking.is_some() {
                self.take_over(*slot, now);
            } else if now < adoption.grace_ends && adoption.looked {
                let grace_ends = adoption.grace_ends;
                self.sweep.run_at(grace_ends);
            } else {
                freed |= self.sweep_owner(*slot, now);
                self.sweep.run_at(now + self.sweep.period.max(SWEEP_PERIOD_MIN));
            }
        }
        let longer = (self.sweep.period * 2).clamp(SWEEP_PERIOD_MIN, SWEEP_PERIOD_MAX);
        self.sweep.period = if freed { SWEEP_PERIOD_MIN } else { longer };
        if self.owners.values().all(|owner| owner.is_alive()) {
            self.sweep.due = None;
        }
    }

    /// Makes the next slice of a dead client's table the daemon's.
    pub(crate) fn take_over(&mut self, slot: u16, now: Instant) {
        let Some(owner) = self.owners.get_mut(&slot) else { return };
        let Some(adoption) = &mut owner.adoption else { return };
        let Some(start) = adoption.taking else { return };
        let mut end = owner.entries.min(start.saturating_add(self.config.sweep_entries_max));
        let mut mapped = MappedSegments::new(slot, &self.segments);
        let (mut recorded, mut followed, mut stopped) = (Vec::new(), 0, None);
        for index in start..end {
            // References make a slice long as entries do.
            if followed >= self.config.sweep_entries_max as usize {
                end = index;
                break;
            }
            let word = owner.view.word(index);
            // Acquire: what its owner stored before comes before.
            let seen = Word::from_bits(word.load(Ordering::Acquire));
            let generation = seen.generation();
            match seen.state() {
                Some(State::Free) => {}
                Some(State::Promised | State::Lost) => {
                    // Release: for the waiters. They are told afterwards, whether their pins say that they wait or not.
                    word.store(Word::new(generation, State::Lost).bits(), Ordering::Release);
                    failpoint(Failpoint::TakeoverLost);
                    adoption.add(index, generation, Home::default());
                }
                // Left in the middle of freeing or spilling: with a place in a file it is spilled; see `table`.
                Some(state @ (State::Spilled | State::Dying))
                    if state == State::Spilled || owner.view.spill_place(index).is_some() =>
                {
                    let (location, place) = (owner.view.location(index), owner.view.spill_place(index));
                    let file = place.and_then(|place| Some((place, self.spilling.file(slot, place.file())?)));
                    let Some((place, file)) = file else {
                        free(word, generation);
                        continue;
                    };
                    if state == State::Dying {
                        word.store(Word::new(generation, State::Spilled).bits(), Ordering::Release);
                        failpoint(Failpoint::TakeoverSpilled);
                    }
                    if location.references > 0 {
                        let references = spilled_references(file, place, &location, adoption.references_left);
                        adoption.references_left -= references.len();
                        followed += references.len();
                        recorded.push((index, references));
                    }
                    adoption.add(index, generation, Home { file: Some(place.file()), segment: None });
                }
                Some(state @ (State::Sealed | State::Dying | State::Deleted)) => {
                    let location = owner.view.location(index);
                    let Some(segment) = mapped.segment_of(&location) else {
                        free(word, generation);
                        continue;
                    };
                    if state == State::Dying {
                        word.store(Word::new(generation, State::Sealed).bits(), Ordering::Release);
                        failpoint(Failpoint::TakeoverSealed);
                    }
                    // Of the record that it may still have nobody is to know.
                    owner.view.set_spill_place(index, None);
                    if location.references > 0 {
                        let references = mapped.references(&location, adoption.references_left);
                        let Some(references) = references else {
                            // What it refers to stays pinned by the dead client until this has been read.
                            stopped = Some(index);
                            break;
                        };
                        adoption.references_left -= references.len();
                        followed += references.len();
                        recorded.push((index, references));
                    }
                    adoption.add(index, generation, Home { segment, file: None });
                }
                Some(State::Spilled) | None => free(word, generation),
            }
        }
        let done = stopped.is_none() && end == owner.entries;
        adoption.taking = if done { None } else { Some(stopped.unwrap_or(end)) };
        failpoint(Failpoint::TakeoverSliced);
        self.cut_knots(slot, &mut recorded);
        for (index, references) in recorded {
            let held: Vec<ObjectId> = references.into_iter().filter(|object| self.hold(*object)).collect();
            let adoption = self.owners.get_mut(&slot).and_then(|owner| owner.adoption.as_mut());
            if let Some(adoption) = adoption.filter(|_| !held.is_empty()) {
                adoption.references.insert(index, held);
            }
        }
        if done {
            self.bury(slot, now);
        } else if stopped.is_some() {
            self.sweep.run_at(now + SWEEP_PERIOD_MIN);
        } else {
            self.sweep.run_soon(now);
        }
    }

    /// Takes out of what a dead client's objects refer to what would keep them for ever; see [`knots`].
    fn cut_knots(&self, slot: u16, recorded: &mut [(u32, Vec<ObjectId>)]) {
        let Some(owner) = self.owners.get(&slot) else { return };
        let object = |index: u32| ObjectId::new(owner.id, index, owner.word(index).generation());
        let mut ours: HashMap<ObjectId, Vec<ObjectId>> = recorded
            .iter_mut()
            .map(|(index, references)| (object(*index), std::mem::take(references)))
            .collect();
        let mut mapped: HashMap<u16, MappedSegments<'_>> = HashMap::new();
        let refers = |object: ObjectId| self.recorded_references(object, &mut mapped);
        knots::cut(&mut ours, refers, self.config.references_max);
        for (index, references) in recorded {
            *references = ours.remove(&object(*index)).unwrap_or_default();
        }
    }

    /// What any object refers to: as the daemon has noted it, or as its living owner's memory says.
    fn recorded_references<'a>(
        &'a self,
        object: ObjectId,
        mapped: &mut HashMap<u16, MappedSegments<'a>>,
    ) -> Vec<ObjectId> {
        let (slot, index) = (object.owner().slot(), object.index());
        let Some(owner) = self.owners.get(&slot).filter(|owner| owner.id == object.owner()) else {
            return Vec::new();
        };
        if let Some(adoption) = owner.adoption.as_ref().filter(|adoption| adoption.has_taken(index)) {
            return adoption.references.get(&index).cloned().unwrap_or_default();
        }
        // The state first: an index that somebody made up may lie beyond the table.
        let Some(state) = owner.state_of(index, object.generation()) else { return Vec::new() };
        let (location, max) = (owner.location(index), self.config.references_max);
        if location.references == 0 {
            return Vec::new();
        }
        let references = match state {
            State::Spilled => owner.view.spill_place(index).and_then(|place| {
                let file = self.spilling.file(slot, place.file())?;
                Some(spilled_references(file, place, &location, max))
            }),
            State::Sealed | State::Dying | State::Deleted => {
                let mapped = mapped.entry(slot).or_insert_with(|| MappedSegments::new(slot, &self.segments));
                mapped.segment_of(&location).and_then(|_| mapped.references(&location, max))
            }
            State::Free | State::Promised | State::Lost => None,
        };
        references.unwrap_or_default()
    }

    /// Everything that the dead client had is the daemon's: its own pins and mappings stop to count, and its readers
    /// are told.
    fn bury(&mut self, slot: u16, now: Instant) {
        let readers = self.slots.readers(slot);
        for owner in self.slots.attached(slot) {
            self.part(slot, owner, now);
        }
        let Some(owner) = self.owners.get_mut(&slot) else { return };
        owner.remove_reader(slot);
        failpoint(Failpoint::TakeoverDetached);
        let id = owner.id;
        let Some(adoption) = &owner.adoption else { return };
        let (forgotten, grace_ends) = (adoption.live.is_empty(), adoption.grace_ends);
        tracing::info!(%id, objects = adoption.live.len(), "client has died");
        let mut unused = self.segments.numbers(slot);
        unused.retain(|number| !adoption.segments.contains_key(number));
        self.spilling.discard_all_but(slot, |number| adoption.files.contains_key(&number));
        for number in unused {
            self.retire(slot, number);
        }
        for object in self.spilling.waited_for(id) {
            self.bring_back(object, now);
        }
        self.entrust_spill_files(slot);
        for (name, object) in self.names.of_owner(id) {
            if !self.exists(object) {
                self.drop_name(&name, now);
            }
        }
        for reader in readers {
            // Who waits for a promise hears of it from its client, which rings its own bell. The daemon rings none: who
            // has a bell can fill it, and make the descriptor that all share a blocking one.
            self.notify(reader, &Notice::OwnerDied { owner: id }, Vec::new());
        }
        if forgotten {
            self.forget(slot);
        } else {
            self.sweep.run_soon(now);
            self.sweep.run_at(grace_ends);
        }
    }

    /// Frees what nobody pins in the next slice of an adopted owner's entries, once the grace is over, and entrusts what
    /// somebody does; `true` when it is worth going on soon.
    fn sweep_owner(&mut self, slot: u16, now: Instant) -> bool {
        let Some(owner) = self.owners.get_mut(&slot) else { return false };
        let Some(mut adoption) = owner.adoption.take() else { return false };
        if adoption.cursor >= adoption.live.len() {
            adoption.cursor = 0;
        }
        let in_grace = now < adoption.grace_ends;
        let (mut freed, mut empty, mut empty_files) = (false, Vec::new(), Vec::new());
        let mut let_go = Vec::new();
        let mut held_segments = BTreeSet::new();
        for _ in 0..self.config.sweep_entries_max {
            let Some(entry) = adoption.live.get(adoption.cursor).copied() else { break };
            let held = || self.holds.contains(owner.id, entry.index) || owner.is_pinned(entry.index);
            // Most entries that stay are pinned: looking first spares their readers the sight of `Dying`.
            let is_held = held();
            if is_held {
                let segment = adoption.segment_of(&entry);
                held_segments.extend(segment.filter(|segment| !adoption.entrusted.contains(segment)));
            }
            let stays = is_held || in_grace;
            if stays || !try_free_adopted(owner.view.word(entry.index), entry.generation, held) {
                adoption.cursor += 1;
                continue;
            }
            freed = true;
            failpoint(Failpoint::SweepFreed);
            let (entry, emptied) = adoption.remove_at_cursor();
            empty.extend(emptied.segment);
            empty_files.extend(emptied.file);
            let_go.extend(adoption.references.remove(&entry.index).into_iter().flatten());
        }
        let (unfinished, forgotten) = (adoption.cursor < adoption.live.len(), adoption.live.is_empty());
        adoption.looked |= !unfinished;
        owner.adoption = Some(adoption);
        self.entrust(slot, held_segments);
        for number in empty {
            self.retire(slot, number);
        }
        for file in empty_files {
            self.discard_adopted_file(slot, file);
        }
        for object in let_go {
            self.let_go(object, now);
        }
        if forgotten {
            self.forget(slot);
        }
        freed || unfinished
    }

    /// The last object of a dead client is gone.
    fn forget(&mut self, slot: u16) {
        self.stop_bringing(slot);
        self.spilling.discard_all_but(slot, |_| false);
        let keepers = self.keepers(slot);
        let Some(owner) = self.owners.remove(&slot) else { return };
        self.pressure.look_again();
        for (name, _) in self.names.of_owner(owner.id) {
            self.forget_name(&name);
        }
        self.holds.forget(owner.id);
        self.directory_writer.clear_owner(slot);
        failpoint(Failpoint::SweepForgotten);
        for keeper in keepers {
            self.notify(keeper, &Notice::OwnerForgotten { owner: owner.id }, Vec::new());
        }
        tracing::debug!(id = %owner.id, "owner is forgotten");
        if self.slots.forget(slot) {
            self.vacate(slot);
        }
    }
}

fn free(word: &AtomicU64, generation: u32) {
    word.store(Word::new(generation.wrapping_add(1), State::Free).bits(), Ordering::Release);
}

fn try_free_adopted(word: &AtomicU64, generation: u32, held: impl Fn() -> bool) -> bool {
    let seen = Word::from_bits(word.load(Ordering::Relaxed));
    match seen.state() {
        Some(from @ (State::Sealed | State::Deleted | State::Spilled)) if seen.generation() == generation => {
            try_free(word, generation, from, held)
        }
        // It has no bytes to protect, and must never be taken for an object by a daemon that finds it dying.
        Some(State::Lost) if seen.generation() == generation && held() => false,
        // The daemon wrote none of these: somebody still scribbles into a dead client's table.
        _ => {
            free(word, generation);
            true
        }
    }
}

/// A client's segments, mapped as far as references have to be read from them.
struct MappedSegments<'a> {
    slot: u16,
    segments: &'a Segments<Memory>,
    mappings: BTreeMap<u32, Option<ReadMapping>>,
}

impl<'a> MappedSegments<'a> {
    fn new(slot: u16, segments: &'a Segments<Memory>) -> Self {
        Self { slot, segments, mappings: BTreeMap::new() }
    }

    /// The segment that an object lies in, if it lies in any (one without bytes does not); `None` for a location where
    /// the client cannot have put an object.
    fn segment_of(&self, location: &Location) -> Option<Option<u32>> {
        if Location::extent(location.length, location.references) == Some(0) {
            return Some(None);
        }
        let segment = self.segments.get(self.slot, location.segment)?;
        location.fits(segment.bytes).then_some(Some(location.segment))
    }

    /// The references of an object whose location has been found to fit, `max` at most; `None` when they cannot be read
    /// for now.
    fn references(&mut self, location: &Location, max: usize) -> Option<Vec<ObjectId>> {
        let (Some(start), Some(segment)) =
            (location.references_offset(), self.segments.get(self.slot, location.segment))
        else {
            return Some(Vec::new());
        };
        let mapping = self.mappings.entry(location.segment).or_insert_with(|| map(segment)).as_ref()?;
        let count = location.references as usize;
        if count > max {
            tracing::warn!(slot = self.slot, count, max, "not all references are followed");
        }
        let word = |offset: u64| mapping.load64_relaxed(offset as usize).to_le_bytes();
        let reference = |number: usize| {
            let offset = start + number as u64 * Location::REFERENCE_BYTES;
            let mut bytes = [0; ObjectId::BYTES];
            bytes[..8].copy_from_slice(&word(offset));
            bytes[8..].copy_from_slice(&word(offset + 8));
            ObjectId::from_bytes(bytes)
        };
        Some((0..count.min(max)).map(reference).collect())
    }
}

/// The references in the record of a spilled object, `max` at most. They are the client's word, as those in memory are.
fn spilled_references(file: &File, place: SpillPlace, location: &Location, max: usize) -> Vec<ObjectId> {
    let (count, extent) =
        (location.references as usize, Location::extent(location.length, location.references));
    let bytes = u64::from(location.references) * Location::REFERENCE_BYTES;
    let start = extent.and_then(|extent| (place.offset() + HEADER_BYTES as u64).checked_add(extent - bytes));
    let Some(start) = start else { return Vec::new() };
    let mut ids = vec![0; count.min(max) * ObjectId::BYTES];
    if let Err(error) = file.read_exact_at(&mut ids, start) {
        tracing::warn!(%error, "cannot read the references of a spilled object of a dead client");
        return Vec::new();
    }
    let (ids, _) = ids.as_chunks::<{ ObjectId::BYTES }>();
    ids.iter().map(|id| ObjectId::from_bytes(*id)).collect()
}

fn map(segment: &Segment<Memory>) -> Option<ReadMapping> {
    ReadMapping::map(segment.memory.writable(), 0, segment.bytes as usize)
        .inspect_err(|error| tracing::warn!(%error, "cannot read the references of a client"))
        .ok()
}
