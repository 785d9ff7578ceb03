//! An honest client, one atomic step at a time.
//!
//! It does what `mobula_client` does with its memory and its messages, by the same structures, in pieces between which
//! others get their turn, and between which it may die: an object is begun, filled, sealed; a pin is set, and only
//! later is the word looked at; an entry is dying, and only later are the pins looked at; its record's place is noted,
//! and only later does the word say so. What it wrote into memory stays as it was when it dies.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::AsFd;
use std::sync::atomic::Ordering;
use std::time::Instant;

use mobula_protocol::id::{ObjectId, OwnerId};
use mobula_protocol::message::{Notice, Refusal, Reply, Request};
use mobula_shm::directory::DirectoryReader;
use mobula_shm::mapping::{ReadMapping, WriteMapping};
use mobula_shm::memory::PAGE_BYTES;
use mobula_shm::pins::{HELD, MAPPED, PinReader, PinWriter};
use mobula_shm::spill::SpillPlace;
use mobula_shm::table::{Location, State, TableReader, TableWriter, Word};

use self::spill::SpillFile;
use crate::core::random::Random;
use crate::memory::Attachment;

mod spill;

/// Bytes that an object may lie in: its stamp, and what it refers to behind it.
const PLACE_BYTES: u64 = 2048;
/// Bytes of every object's payload.
const STAMP_BYTES: u64 = 64;
/// Names that anyone gives.
const NAMES: u64 = 4;

/// What is true of the objects, whoever says what about them.
#[derive(Default)]
pub(super) struct Truths {
    /// Sealed objects that are still there.
    pub(super) sealed: BTreeMap<ObjectId, Truth>,
    /// Objects that their owners have deleted: whoever is late finds them gone.
    pub(super) deleted: BTreeSet<ObjectId>,
    /// All ids that there ever were, as somebody may still have them.
    pub(super) ids: Vec<ObjectId>,
    stamps: u64,
    /// How often an object has left memory for a file.
    pub(super) spilled: u64,
}

/// A sealed object.
pub(super) struct Truth {
    /// What its bytes say.
    pub(super) stamp: u64,
    /// What it keeps alive.
    pub(super) references: Vec<ObjectId>,
}

/// A message of the daemon's that its client has not read.
pub(super) enum Mail {
    Reply(u64, Reply, Vec<Attachment>),
    Notice(Notice, Vec<Attachment>),
}

pub(super) struct Process {
    pub(super) id: OwnerId,
    /// Requests that the daemon has not read.
    pub(super) outgoing: VecDeque<(u64, Request)>,
    /// Messages that this has not read.
    pub(super) inbox: VecDeque<Mail>,
    /// Requests whose answers this has not read.
    asked: BTreeMap<u64, Request>,
    last_correlation: u64,
    table: TableWriter,
    directory: DirectoryReader,
    control: Attachment,
    own_pins: PinWriter,
    daemon_pins: PinReader,
    readers: BTreeMap<OwnerId, PinReader>,
    readers_heard: u64,
    entries: Vec<Entry>,
    segments: BTreeMap<u32, Segment>,
    files: BTreeMap<u32, SpillFile>,
    /// Bytes that it has spilled since it was asked to; none while it is not.
    spilling: Option<u64>,
    /// What others want that it has spilled.
    wanted: BTreeSet<ObjectId>,
    pub(super) peers: BTreeMap<OwnerId, Peer>,
    channels: BTreeSet<u64>,
}

/// An entry of one's own.
struct Entry {
    stage: Stage,
    generation: u32,
    place: Option<Place>,
    /// Where its record is, whether it counts or not.
    record: Option<SpillPlace>,
    uses: Uses,
    keeps: Vec<ObjectId>,
}

/// Why an object is not let go of.
#[derive(Clone, Copy, Default, PartialEq, Eq)]
struct Uses {
    /// As a handle that somebody has.
    direct: u32,
    /// By objects that keep it alive, and by requests that are not answered.
    other: u32,
}

impl Uses {
    const DIRECT: Self = Self { direct: 1, other: 0 };

    const OTHER: Self = Self { direct: 0, other: 1 };

    fn any(self) -> bool {
        self != Self::default()
    }

    fn end(&mut self, uses: Self) {
        self.direct -= uses.direct;
        self.other -= uses.other;
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stage {
    Vacant,
    /// Memory is taken and written, and nobody sees it.
    Begun,
    /// `Promised`, or what became of it.
    Visible(State),
    /// The word says `Dying`; the pins are looked at in the next step.
    Dying(State),
    /// Its record is written and the word says `Dying`; it is looked at in the next step whether anybody has its bytes.
    Evicting,
    /// Nobody has, and the record's place is noted; the word says `Spilled` in the next step.
    Noted,
    /// It has bytes and a location again; the word says `Sealed` in the next step.
    Restoring,
    /// The word does; the record's place is forgotten in the next step.
    Restored,
}

impl Stage {
    /// Whether there is an object that was sealed.
    fn is_sealed(self) -> bool {
        let visible = matches!(self, Self::Visible(State::Sealed | State::Spilled));
        visible || matches!(self, Self::Evicting | Self::Noted | Self::Restoring | Self::Restored)
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
struct Place {
    segment: u32,
    offset: u64,
}

struct Segment {
    mapping: WriteMapping,
    taken: BTreeSet<u64>,
}

/// Another owner.
pub(super) struct Peer {
    table: TableReader,
    pins: PinWriter,
    segments: BTreeMap<u32, ReadMapping>,
    /// By entry.
    pub(super) holds: BTreeMap<u32, Hold>,
    forgotten: bool,
}

/// A pin of one's own on an object of another.
pub(super) struct Hold {
    object: ObjectId,
    found: Found,
    uses: Uses,
    /// What one of the uses waits for, which is for the time until the bytes can be read.
    reading: Option<Reading>,
}

/// What stands between a reader and the bytes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Reading {
    /// They are in a file.
    Restore,
    /// Their segment is not mapped.
    Map,
}

/// What the word said when it was looked at.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Found {
    NotYet,
    Promised,
    Sealed,
}

impl Process {
    /// A client that got this `Welcome`.
    pub(super) fn new(id: OwnerId, slots: u32, entries: u32, attachments: Vec<Attachment>) -> Self {
        let [control, _bell, of_daemon] =
            <[Attachment; 3]>::try_from(attachments).expect("the descriptors of a Welcome");
        let mut process = Self {
            id,
            outgoing: VecDeque::new(),
            inbox: VecDeque::new(),
            asked: BTreeMap::new(),
            last_correlation: 0,
            table: TableWriter::map(control.as_fd()).unwrap(),
            directory: DirectoryReader::map(of_daemon.as_fd(), slots).unwrap(),
            own_pins: PinWriter::map(control.as_fd(), id.slot()).unwrap(),
            daemon_pins: PinReader::map(of_daemon.as_fd(), id.slot()).unwrap(),
            control,
            readers: BTreeMap::new(),
            readers_heard: 0,
            entries: Vec::new(),
            segments: BTreeMap::new(),
            files: BTreeMap::new(),
            spilling: None,
            wanted: BTreeSet::new(),
            peers: BTreeMap::new(),
            channels: BTreeSet::new(),
        };
        process.add_entries(entries);
        process
    }

    /// Any step that this process can make by itself.
    pub(super) fn act(&mut self, random: &mut Random, truths: &mut Truths, others: &[OwnerId]) {
        let other = others[random.below(others.len() as u64) as usize];
        if (self.spilling.is_some() || !self.wanted.is_empty()) && random.below(4) == 0 {
            return self.answer_wishes(truths);
        }
        match random.below(33) {
            0 | 1 => self.ask_for_memory(random),
            2 => drop(self.begin()),
            3 | 4 => self.seal(random, truths),
            5 => self.promise(truths),
            6 => self.keep_or_break_a_promise(random, truths),
            7..=9 => self.let_go_of_one_of_its_own(random),
            10 | 11 => self.begin_to_free(random),
            12 | 13 => self.end_freeing(random),
            14 => self.delete(random, truths),
            15 => drop(self.release_empty(1)),
            16 | 17 => self.pin(random, truths),
            18 => self.look(random, truths),
            19 => self.unpin(random),
            20 => {
                if let Some((owner, index)) = self.any_hold(random, |hold| hold.found == Found::Sealed) {
                    self.read(owner, index);
                }
            }
            21 => self.detach(random),
            22 => self.publish(random),
            23 => {
                let timeout_ms = random.below(3) * 40;
                self.ask(Request::Lookup { name: name(random), timeout_ms });
            }
            24 if random.below(3) == 0 => self.ask(Request::Unpublish { name: name(random) }),
            24 => self.use_again(random),
            25..=27 => self.begin_to_spill(random),
            28..=30 => self.go_on_spilling(random, truths),
            31 => self.restore_one(random),
            _ => match random.below(5) {
                0 if other != self.id => self.ask(Request::Connect { peer: other }),
                1 => {
                    if let Some(channel) = self.channels.pop_first() {
                        self.ask(Request::Disconnect { channel });
                    }
                }
                2 => self.ask(Request::GrowTable { entries: random.below(40) as u32 }),
                3 => self.ask(Request::ListObjects { cursor: 0 }),
                _ => self.ask(Request::ListClients { cursor: 0 }),
            },
        }
    }

    /// Ends whatever it has begun, and lets go of whatever it has: one round of many, between which it reads its mail.
    pub(super) fn wind_up(&mut self, truths: &mut Truths) {
        self.answer_wishes(truths);
        for index in 0..self.entries.len() as u32 {
            self.end_spilling(index, truths);
            match self.entries[index as usize].stage {
                Stage::Vacant => {}
                Stage::Begun => self.vacate(index),
                Stage::Visible(State::Promised) => self.settle(index, State::Lost),
                Stage::Visible(_) => match self.entries[index as usize].uses {
                    Uses { direct: 1.., .. } => self.let_go_of_own(index, Uses::DIRECT),
                    uses if uses.any() => {}
                    _ => self.dying(index),
                },
                Stage::Dying(from) => self.free_or_restore(index, from),
                // What was brought halfway back goes on.
                _ => {}
            }
        }
        let owners: Vec<OwnerId> = self.peers.keys().copied().collect();
        for owner in owners {
            let held: Vec<u32> = self.peers[&owner].holds.keys().copied().collect();
            for index in held {
                match self.peers[&owner].holds[&index].found {
                    Found::NotYet => self.look_at(owner, index, truths),
                    Found::Promised => self.give_up(owner, index),
                    Found::Sealed if self.peers[&owner].holds[&index].uses.direct > 0 => {
                        self.let_go_of_peers(owner, index, Uses::DIRECT);
                    }
                    Found::Sealed => {}
                }
            }
            if self.peers[&owner].holds.is_empty() {
                self.leave(owner);
            }
        }
        self.release_empty(usize::MAX);
        self.discard_empty_files();
    }

    /// Whether it has, and waits for, nothing.
    pub(super) fn is_idle(&self) -> bool {
        self.entries.iter().all(|entry| entry.stage == Stage::Vacant)
            && self.segments.is_empty()
            && self.files.is_empty()
            && self.peers.is_empty()
            && self.asked.is_empty()
    }

    /// What this process knows that it holds is there, and is what it was.
    pub(super) fn check_holds(&self, truths: &Truths) {
        for (owner, peer) in &self.peers {
            for (index, hold) in &peer.holds {
                if hold.found == Found::NotYet {
                    continue;
                }
                let word = peer.table.word(*index);
                assert_eq!(
                    word.generation(),
                    hold.object.generation(),
                    "{} was freed under {}",
                    hold.object,
                    self.id
                );
                let state = word.state().expect("a state");
                let is_there = [State::Sealed, State::Dying, State::Deleted, State::Spilled].contains(&state);
                let may_come =
                    hold.found == Found::Promised && [State::Promised, State::Lost].contains(&state);
                assert!(is_there || may_come, "{} is {state:?} under {}", hold.object, self.id);
                let is_lent = hold.reading == Some(Reading::Map);
                assert!(!is_lent || state != State::Spilled, "{} was spilled under {}", hold.object, self.id);
                // Of what is only held and dying nobody but its owner knows whether it is in memory.
                let is_in_memory = is_lent || [State::Sealed, State::Deleted].contains(&state);
                let location = peer.table.location(*index);
                if hold.found == Found::Sealed
                    && is_in_memory
                    && let Some(mapping) = peer.segments.get(&location.segment)
                {
                    let stamp = mapping.load64_relaxed(location.offset as usize);
                    let truth = &truths.sealed[&hold.object];
                    assert_eq!(stamp, truth.stamp, "the bytes of {} changed ({owner})", hold.object);
                }
            }
        }
    }

    /// Whether it keeps an object from being freed.
    pub(super) fn holds(&self, object: ObjectId) -> bool {
        if object.owner() == self.id {
            let entry = &self.entries[object.index() as usize];
            return entry.generation == object.generation() && entry.uses.any() && entry.stage.is_sealed();
        }
        let hold = self.peers.get(&object.owner()).and_then(|peer| peer.holds.get(&object.index()));
        hold.is_some_and(|hold| hold.object == object && hold.found == Found::Sealed)
    }

    /// Itself, with each owner and segment of which it has the memory mapped.
    pub(super) fn mapped(&self) -> impl Iterator<Item = (OwnerId, OwnerId, u32)> {
        let segments = |(owner, peer): (&OwnerId, &Peer)| {
            let owner = *owner;
            peer.segments.keys().map(move |segment| (owner, *segment)).collect::<Vec<_>>()
        };
        self.peers.iter().flat_map(segments).map(|(owner, segment)| (self.id, owner, segment))
    }

    // ---- mail ----

    /// Reads the next message, if there is one.
    pub(super) fn receive(&mut self, truths: &Truths) {
        match self.inbox.pop_front() {
            None => {}
            Some(Mail::Notice(notice, attachments)) => self.notice(notice, attachments),
            Some(Mail::Reply(correlation, reply, attachments)) => {
                let request = self.asked.remove(&correlation).expect("an answer to a question");
                self.answer(request, reply, attachments, truths);
            }
        }
    }

    fn ask(&mut self, request: Request) {
        self.last_correlation += 1;
        self.asked.insert(self.last_correlation, request.clone());
        self.outgoing.push_back((self.last_correlation, request));
    }

    fn answer(&mut self, request: Request, reply: Reply, attachments: Vec<Attachment>, truths: &Truths) {
        match (request, reply) {
            (Request::Lease { .. }, Reply::Leased { segment, bytes }) => {
                let mapping = WriteMapping::map(attachments[0].as_fd(), 0, bytes as usize).unwrap();
                for offset in (0..bytes).step_by(PLACE_BYTES as usize) {
                    let word = mapping.word64(offset as usize).load(Ordering::Relaxed);
                    assert_eq!(word, 0, "a lease shows what was in memory before");
                }
                let before = self.segments.insert(segment, Segment { mapping, taken: BTreeSet::new() });
                assert!(before.is_none(), "segment {segment} of {} was leased twice", self.id);
            }
            (Request::GrowTable { .. }, Reply::TableGrown { entries }) => self.add_entries(entries),
            (Request::Attach { owner }, Reply::Attached { .. }) => {
                let peer = Peer {
                    table: TableReader::map(attachments[0].as_fd()).unwrap(),
                    pins: PinWriter::map(self.control.as_fd(), owner.slot()).unwrap(),
                    segments: BTreeMap::new(),
                    holds: BTreeMap::new(),
                    forgotten: false,
                };
                self.peers.insert(owner, peer);
            }
            (Request::MapSegment { owner, segment }, Reply::SegmentMapped { bytes }) => {
                let mapping = ReadMapping::map(attachments[0].as_fd(), 0, bytes as usize).unwrap();
                self.peers.get_mut(&owner).expect("attached").segments.insert(segment, mapping);
                self.end_reading(owner, segment);
            }
            (request @ Request::MapSegment { .. }, reply) => {
                panic!("{request:?} of an object that is held was answered by {reply:?}")
            }
            (Request::Publish { object, .. }, reply) => {
                let gone = matches!(reply, Reply::Failed { refusal: Refusal::NoSuchObject { .. } });
                assert!(!gone || truths.deleted.contains(&object), "{object} is held, and has no name");
                self.let_go(object);
            }
            (Request::Connect { .. }, Reply::Connected { channel, .. }) => {
                self.channels.insert(channel);
            }
            (Request::SpillFile { .. }, Reply::SpillFileMade { file }) => {
                let descriptor = attachments[0].as_fd().try_clone_to_owned().unwrap();
                let made = SpillFile::new(descriptor);
                assert!(self.files.insert(file, made).is_none(), "file {file} was made twice");
            }
            (Request::Restore { object, .. }, reply) => self.restored(object, &reply, truths),
            _ => {}
        }
    }

    fn notice(&mut self, notice: Notice, attachments: Vec<Attachment>) {
        match notice {
            Notice::ReaderJoined { reader } => {
                let pins = PinReader::map(attachments[0].as_fd(), self.id.slot()).unwrap();
                self.readers.insert(reader, pins);
                self.readers_heard += 1;
            }
            Notice::ReaderGone { reader } => drop(self.readers.remove(&reader)),
            Notice::OwnerForgotten { owner } => {
                if let Some(peer) = self.peers.get_mut(&owner) {
                    let held = peer.holds.values().find(|hold| hold.found != Found::NotYet);
                    assert!(held.is_none(), "{owner} is forgotten, and {} holds something of it", self.id);
                    peer.forgotten = true;
                }
            }
            Notice::SegmentRetired { owner, segment } => {
                if let Some(peer) = self.peers.get_mut(&owner) {
                    peer.segments.remove(&segment);
                    self.ask(Request::UnmapSegment { owner, segment });
                }
            }
            Notice::Reclaim { .. } => drop(self.release_empty(usize::MAX)),
            Notice::Spill { .. } => drop(self.spilling.get_or_insert(0)),
            Notice::RestoreWanted { object } => drop(self.wanted.insert(object)),
            Notice::ChannelOpened { channel, .. } => drop(self.channels.insert(channel)),
            Notice::ChannelClosed { channel } => drop(self.channels.remove(&channel)),
            _ => {}
        }
    }

    // ---- as an owner ----

    fn ask_for_memory(&mut self, random: &mut Random) {
        let asked = self.asked.values().filter(|request| matches!(request, Request::Lease { .. })).count();
        if self.segments.len() + asked < 3 {
            let bytes = (1 + random.below(3)) * PAGE_BYTES;
            self.ask(Request::Lease { bytes, timeout_ms: random.below(3) * 40 });
        }
    }

    fn add_entries(&mut self, entries: u32) {
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

    fn vacant(&self) -> Option<u32> {
        // The one that was used least often: a short way to first in, first out.
        let vacant = self.entries.iter().enumerate().filter(|(_, entry)| entry.stage == Stage::Vacant);
        vacant.min_by_key(|(_, entry)| entry.generation).map(|(index, _)| index as u32)
    }

    fn take_place(&mut self) -> Option<Place> {
        self.segments.iter_mut().find_map(|(number, segment)| {
            let mut offsets = (0..segment.mapping.len() as u64).step_by(PLACE_BYTES as usize);
            let offset = offsets.find(|offset| !segment.taken.contains(offset))?;
            segment.taken.insert(offset);
            Some(Place { segment: *number, offset })
        })
    }

    fn begin(&mut self) -> Option<u32> {
        let index = self.vacant()?;
        let place = self.take_place()?;
        let entry = &mut self.entries[index as usize];
        (entry.stage, entry.place, entry.uses) = (Stage::Begun, Some(place), Uses::DIRECT);
        self.own_pins.set_own(index, HELD);
        Some(index)
    }

    /// Writes the bytes of an object, and its fields; the word comes later.
    fn fill(&mut self, index: u32, random: &mut Random, truths: &mut Truths) -> Truth {
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

    fn seal(&mut self, random: &mut Random, truths: &mut Truths) {
        let begun = self.find(random, |entry| entry.stage == Stage::Begun).or_else(|| self.begin());
        let Some(index) = begun else { return };
        let truth = self.fill(index, random, truths);
        if random.below(8) == 0 {
            // As if it died just here: the fields are there, and the word is not.
            return;
        }
        self.settle(index, State::Sealed);
        let object = self.object(index);
        truths.sealed.insert(object, truth);
        truths.ids.push(object);
    }

    fn promise(&mut self, truths: &mut Truths) {
        let Some(index) = self.vacant() else { return };
        self.entries[index as usize].uses = Uses::DIRECT;
        self.own_pins.set_own(index, HELD);
        self.settle(index, State::Promised);
        truths.ids.push(self.object(index));
    }

    fn keep_or_break_a_promise(&mut self, random: &mut Random, truths: &mut Truths) {
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

    fn settle(&mut self, index: u32, state: State) {
        let entry = &mut self.entries[index as usize];
        entry.stage = Stage::Visible(state);
        self.table.word(index).store(Word::new(entry.generation, state).bits(), Ordering::SeqCst);
    }

    fn delete(&mut self, random: &mut Random, truths: &mut Truths) {
        let sealed = self.find(random, |entry| entry.stage == Stage::Visible(State::Sealed));
        if let Some(index) = sealed.filter(|_| random.below(3) == 0) {
            self.settle(index, State::Deleted);
            truths.deleted.insert(self.object(index));
        }
    }

    fn let_go_of_one_of_its_own(&mut self, random: &mut Random) {
        let used = self.find(random, |entry| {
            entry.uses.direct > 0 && matches!(entry.stage, Stage::Visible(state) if state != State::Promised)
        });
        if let Some(index) = used {
            self.let_go_of_own(index, Uses::DIRECT);
        }
    }

    fn let_go_of_own(&mut self, index: u32, uses: Uses) {
        let entry = &mut self.entries[index as usize];
        entry.uses.end(uses);
        if !entry.uses.any() {
            self.own_pins.set_own(index, 0);
        }
    }

    fn begin_to_free(&mut self, random: &mut Random) {
        let unused = self.find(random, |entry| !entry.uses.any() && matches!(entry.stage, Stage::Visible(_)));
        if let Some(index) = unused {
            self.dying(index);
        }
    }

    fn dying(&mut self, index: u32) {
        let entry = &mut self.entries[index as usize];
        let Stage::Visible(from) = entry.stage else { return };
        entry.stage = Stage::Dying(from);
        // A lost promise has no bytes to protect; see `mobula_shm::pins::free_together`.
        if from != State::Lost {
            let dying = Word::new(entry.generation, State::Dying);
            self.table.word(index).swap(dying.bits(), Ordering::SeqCst);
        }
    }

    fn end_freeing(&mut self, random: &mut Random) {
        let dying = self.find(random, |entry| matches!(entry.stage, Stage::Dying(_)));
        if let Some(index) = dying
            && let Stage::Dying(from) = self.entries[index as usize].stage
        {
            self.free_or_restore(index, from);
        }
    }

    fn free_or_restore(&mut self, index: u32, from: State) {
        let held = self.directory.readers(self.id.slot()) != self.readers_heard
            || self.daemon_pins.get(index) != 0
            || self.readers.values().any(|pins| pins.get(index) != 0);
        if held { self.settle(index, from) } else { self.vacate(index) }
    }

    fn vacate(&mut self, index: u32) {
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
            self.table.set_spill_place(index, None);
            self.remove_record(place);
        }
        keeps.into_iter().for_each(|object| self.let_go(object));
    }

    fn release_empty(&mut self, max: usize) -> usize {
        let empty = self.segments.iter().filter(|(_, segment)| segment.taken.is_empty());
        let empty: Vec<u32> = empty.map(|(number, _)| *number).take(max).collect();
        for segment in &empty {
            self.segments.remove(segment);
            self.ask(Request::Release { segment: *segment });
        }
        empty.len()
    }

    // ---- as a reader ----

    /// Sets a pin, whatever is in the entry; introduces itself to the owner first.
    fn pin(&mut self, random: &mut Random, truths: &Truths) {
        // Mostly one that is there, as ids are handed on by those who hold them.
        let there = truths.sealed.keys().nth(random.below(truths.sealed.len().max(1) as u64) as usize);
        let object = there.copied().filter(|_| random.below(4) > 0).or_else(|| any(&truths.ids, random));
        let Some(object) = object.filter(|object| object.owner() != self.id) else { return };
        let owner = object.owner();
        let Some(peer) = self.peers.get_mut(&owner) else {
            let asked = |request: &Request| matches!(request, Request::Attach { owner: id } if *id == owner);
            if !self.asked.values().any(asked) {
                self.ask(Request::Attach { owner });
            }
            return;
        };
        let is_committed = object.index() < self.directory.committed(owner.slot());
        if peer.forgotten || !is_committed || peer.holds.contains_key(&object.index()) {
            return;
        }
        peer.pins.set(object.index(), HELD);
        peer.holds
            .insert(object.index(), Hold { object, found: Found::NotYet, uses: Uses::DIRECT, reading: None });
    }

    /// Looks whether what was pinned is there.
    fn look(&mut self, random: &mut Random, truths: &Truths) {
        if let Some((owner, index)) = self.any_hold(random, |hold| hold.found != Found::Sealed) {
            self.look_at(owner, index, truths);
            if random.below(2) == 0 {
                self.read(owner, index);
            }
        }
    }

    fn look_at(&mut self, owner: OwnerId, index: u32, truths: &Truths) {
        let Some(peer) = self.peers.get_mut(&owner) else { return };
        let hold = peer.holds.get_mut(&index).expect("just found");
        let word = peer.table.word(index);
        let found = if word.generation() == hold.object.generation() { word.state() } else { None };
        match found {
            Some(State::Sealed | State::Spilled) => {
                assert!(truths.sealed.contains_key(&hold.object), "{} was never sealed", hold.object);
                hold.found = Found::Sealed;
            }
            Some(State::Promised) => hold.found = Found::Promised,
            Some(State::Dying) => {}
            // Deleted counts as there for who had it before; a promise is looked at again when it is settled.
            _ => self.give_up(owner, index),
        }
    }

    fn unpin(&mut self, random: &mut Random) {
        let held = |hold: &Hold| hold.found != Found::NotYet && hold.uses.direct > 0;
        if let Some((owner, index)) = self.any_hold(random, held) {
            self.let_go_of_peers(owner, index, Uses::DIRECT);
        }
    }

    /// Asks for what stands between it and the bytes of something that it holds.
    fn read(&mut self, owner: OwnerId, index: u32) {
        let peer = self.peers.get_mut(&owner).expect("just found");
        let Some(hold) = peer.holds.get_mut(&index) else { return };
        if hold.found != Found::Sealed || hold.reading.is_some() {
            return;
        }
        // First the pin, then the look: what it found before may be out of date.
        peer.pins.set(index, HELD | MAPPED);
        let (object, segment) = (hold.object, peer.table.location(index).segment);
        let request = match peer.table.word(index).state() {
            Some(State::Spilled) => {
                hold.reading = Some(Reading::Restore);
                Request::Restore { object, timeout_ms: 40 }
            }
            Some(State::Sealed | State::Deleted) if !peer.segments.contains_key(&segment) => {
                hold.reading = Some(Reading::Map);
                Request::MapSegment { owner, segment }
            }
            _ => return peer.pins.change(index, HELD),
        };
        hold.uses.other += 1;
        self.ask(request);
    }

    /// What was in a file is back, or is not: the use that waited for it ends, and it may be read.
    fn restored(&mut self, object: ObjectId, reply: &Reply, truths: &Truths) {
        let (owner, index) = (object.owner(), object.index());
        match reply {
            // It may still be in its file: then its owner was looking whether it can be freed, and it is asked for
            // again.
            Reply::Done {} => {}
            Reply::Failed { refusal: Refusal::NotRestored { .. } | Refusal::LimitReached { .. } } => {}
            reply => assert!(truths.deleted.contains(&object), "{object} is held: {reply:?}"),
        }
        self.end_use_for_reading(owner, index);
        self.read(owner, index);
    }

    /// The segment is mapped: the use that waited for it ends.
    fn end_reading(&mut self, owner: OwnerId, segment: u32) {
        let peer = &self.peers[&owner];
        let is_read = |(index, hold): &(&u32, &Hold)| {
            hold.reading == Some(Reading::Map) && peer.table.location(**index).segment == segment
        };
        let (index, _) = peer.holds.iter().find(is_read).expect("kept while the answer comes");
        self.end_use_for_reading(owner, *index);
    }

    fn end_use_for_reading(&mut self, owner: OwnerId, index: u32) {
        let peer = self.peers.get_mut(&owner).expect("attached");
        peer.holds.get_mut(&index).expect("kept while the answer comes").reading = None;
        peer.pins.change(index, HELD);
        self.let_go_of_peers(owner, index, Uses::OTHER);
    }

    fn let_go_of_peers(&mut self, owner: OwnerId, index: u32, uses: Uses) {
        let peer = self.peers.get_mut(&owner).expect("held");
        let hold = peer.holds.get_mut(&index).expect("held");
        hold.uses.end(uses);
        if !hold.uses.any() {
            self.give_up(owner, index);
        }
    }

    fn give_up(&mut self, owner: OwnerId, index: u32) {
        let peer = self.peers.get_mut(&owner).expect("held");
        peer.holds.remove(&index);
        peer.pins.clear(index);
    }

    fn detach(&mut self, random: &mut Random) {
        let unused = self.peers.iter().filter(|(_, peer)| peer.holds.is_empty());
        let unused: Vec<OwnerId> = unused.map(|(owner, _)| *owner).collect();
        let unused = any(&unused, random);
        if let Some(owner) = unused.filter(|owner| self.peers[owner].forgotten || random.below(4) == 0) {
            self.leave(owner);
        }
    }

    fn leave(&mut self, owner: OwnerId) {
        self.peers.remove(&owner);
        self.ask(Request::Detach { owner });
    }

    // ---- both ----

    fn publish(&mut self, random: &mut Random) {
        if let Some(object) = self.any_held(random).filter(|object| self.use_once_more(*object)) {
            self.ask(Request::Publish { name: name(random), object });
        }
    }

    fn use_again(&mut self, random: &mut Random) {
        // As an id that comes back to its owner.
        if let Some(index) = self.find(random, |entry| entry.stage == Stage::Visible(State::Sealed)) {
            self.entries[index as usize].uses.direct += 1;
            self.own_pins.set_own(index, HELD);
        }
    }

    fn any_held(&self, random: &mut Random) -> Option<ObjectId> {
        let own = (0..self.entries.len() as u32).map(|index| self.object(index));
        let others = self.peers.values().flat_map(|peer| peer.holds.values()).map(|hold| hold.object);
        let held: Vec<ObjectId> = own.chain(others).filter(|object| self.holds(*object)).collect();
        any(&held, random)
    }

    /// Counts another use of what is held.
    fn use_once_more(&mut self, object: ObjectId) -> bool {
        if object.owner() == self.id {
            self.entries[object.index() as usize].uses.other += 1;
            return true;
        }
        let peer = self.peers.get_mut(&object.owner());
        let hold = peer.and_then(|peer| peer.holds.get_mut(&object.index()));
        hold.map(|hold| hold.uses.other += 1).is_some()
    }

    fn let_go(&mut self, object: ObjectId) {
        if object.owner() == self.id {
            self.let_go_of_own(object.index(), Uses::OTHER);
        } else {
            self.let_go_of_peers(object.owner(), object.index(), Uses::OTHER);
        }
    }

    fn object(&self, index: u32) -> ObjectId {
        ObjectId::new(self.id, index, self.entries[index as usize].generation)
    }

    fn find(&self, random: &mut Random, is_wanted: impl Fn(&Entry) -> bool) -> Option<u32> {
        let count = self.entries.len() as u64;
        let first = random.below(count);
        (0..count)
            .map(|step| (first + step) % count)
            .find(|index| is_wanted(&self.entries[*index as usize]))
            .map(|index| index as u32)
    }

    fn any_hold(&self, random: &mut Random, is_wanted: impl Fn(&Hold) -> bool) -> Option<(OwnerId, u32)> {
        let holds = self
            .peers
            .iter()
            .flat_map(|(owner, peer)| peer.holds.iter().map(move |(index, hold)| ((*owner, *index), hold)));
        let wanted: Vec<_> = holds.filter(|(_, hold)| is_wanted(hold)).map(|(place, _)| place).collect();
        any(&wanted, random)
    }
}

fn any<T: Copy>(list: &[T], random: &mut Random) -> Option<T> {
    list.get(random.below(list.len().max(1) as u64) as usize).copied()
}

fn name(random: &mut Random) -> Vec<u8> {
    vec![b'a' + random.below(NAMES) as u8]
}

/// All names that anyone gives.
pub(super) fn names() -> impl Iterator<Item = Vec<u8>> {
    (0..NAMES).map(|number| vec![b'a' + number as u8])
}

/// When a request gives up, if it may wait.
pub(super) fn deadline(request: &Request, now: Instant) -> Option<Instant> {
    match request {
        Request::Lease { timeout_ms, .. }
        | Request::Lookup { timeout_ms, .. }
        | Request::Restore { timeout_ms, .. }
            if *timeout_ms > 0 =>
        {
            crate::core::waiters::deadline(now, *timeout_ms)
        }
        _ => None,
    }
}
