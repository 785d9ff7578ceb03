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

mod mail;
mod owner;
mod reader;
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
